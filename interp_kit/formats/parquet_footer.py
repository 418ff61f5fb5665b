"""How many values a parquet file holds, as its footer says: a little of Thrift's compact protocol.

pyarrow tells it too (`metadata.row_group(i).column(k).num_values`), but where a footer contradicts itself that call
ends the interpreter: an exception of C++ that nobody catches. When the file is read, such an exception is caught.
"""

import struct
from pathlib import Path

MAGIC = b"PAR1"
TRUE, FALSE, BYTE, FLOAT, TEXT, LIST, SET, STRUCT = 1, 2, 3, 7, 8, 9, 10, 12  # kinds of values
WHOLE_NUMBERS = (4, 5, 6)
Value = int | None | list["Value"] | dict[int, "Value"]  # a dict is a struct: {number of a field: its value}
ROW_GROUPS, COLUMNS, ABOUT_COLUMN, N_VALUES = 4, 1, 3, 5  # fields, one in the other


def n_values(path: Path) -> int:
    """Of all columns together, inside lists too. Raises ValueError or IndexError for what is no footer."""
    with open(path, "rb") as file:
        size = file.seek(-8, 2)
        length, magic = struct.unpack("<I4s", file.read(8))
        if magic != MAGIC or length > size:
            raise ValueError("it does not end as a parquet file does")
        file.seek(size - length)
        data = file.read(length)
    try:
        found: Value = _Thrift(data).struct()
    except RecursionError:
        raise ValueError("its footer is nested too deeply") from None
    for number in (ROW_GROUPS, COLUMNS, ABOUT_COLUMN, N_VALUES):
        found = _fields(found, number)
    return sum(value for value in found if isinstance(value, int))


def _fields(value: Value, number: int) -> list[Value]:
    """What stands in one field of a struct, or of each struct in a list."""
    structs = value if isinstance(value, list) else [value]
    found = [struct[number] for struct in structs if isinstance(struct, dict) and number in struct]
    return [inner for some in found for inner in (some if isinstance(some, list) else [some])]


class _Thrift:
    """Values one after the other; texts and broken numbers are passed over."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self) -> dict[int, Value]:
        """{number of a field: its value}"""
        fields: dict[int, Value] = {}
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.signed()
            fields[number] = self.value(head & 15)
        return fields

    def value(self, kind: int) -> Value:
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind in WHOLE_NUMBERS:
            return self.signed()
        if kind == STRUCT:
            return self.struct()
        if kind in (LIST, SET):
            head = self.byte()
            n = head >> 4 if head >> 4 < 15 else self.unsigned()
            if n > len(self.data):
                raise ValueError(f"its footer has a list of {n:,} values, more than it can hold")
            return [self.value(BYTE if head & 15 in (TRUE, FALSE) else head & 15) for _ in range(n)]
        if kind not in (BYTE, FLOAT, TEXT):
            raise ValueError(f"its footer has a value of the unknown kind {kind}")
        size = {BYTE: 1, FLOAT: 8}.get(kind) or self.unsigned()
        self.at += size
        return None

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def unsigned(self) -> int:
        """Seven bits a byte, the lowest first."""
        number, shift = 0, 0
        while (byte := self.byte()) > 127:
            number, shift = number | (byte & 127) << shift, shift + 7
        return number | byte << shift

    def signed(self) -> int:
        number = self.unsigned()
        return number >> 1 ^ -(number & 1)
