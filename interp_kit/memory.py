"""Amounts of memory, as people write them."""

import psutil

UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def bytes_of(memory: str | float | None) -> float:
    """ "2GB" or a number of bytes -> bytes; None -> what is free now.

    Raises ValueError for what is no amount.
    """
    if memory is None:
        return psutil.virtual_memory().available
    try:
        text = str(memory).strip().upper()
        amount = float(text[:-2]) * UNITS[text[-2:]] if text[-2:] in UNITS else float(text)
        if not amount > 0:
            raise ValueError
    except ValueError:
        raise ValueError(f"memory {memory!r} is no amount: expected a number of bytes, or one like '2GB'") from None
    return amount
