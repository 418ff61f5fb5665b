"""Errors that docstrings name: their table is of today, and its messages say something."""

import re

import pytest
from raised import TABLE, Expected, documented

from interp_kit.hardware import bytes_of
from interp_kit.transcoders import TranscoderConfig


def rows() -> dict[tuple[str, str], str]:
    found = re.findall(r"^\| `(.*?)` \| `(.*?)` \| (?:.*?) \| (.*) \|$", TABLE.read_text(encoding="utf-8"), re.M)
    return {(place, error): message for place, error, message in found}


def test_the_table_has_every_clause_and_no_other():
    assert set(rows()) == set(documented()), "run `make errors`, which writes docs/errors.md"


def test_every_message_says_something():
    mute = [clause for clause, message in rows().items() if len(message.split()) < 3]
    assert not mute, f"no test raises these, or their message is no sentence: {mute}"


def test_an_expected_error_is_remembered_with_where_it_came_through():
    with pytest.raises(ValueError, match="no amount"):
        bytes_of("much")
    assert "'much' is no amount" in Expected.raised["hardware.py:bytes_of", "ValueError"]
    with pytest.raises(ValueError):
        TranscoderConfig(4, 4, [0], span=2)
    assert ("transcoders/module.py:TranscoderConfig", "ValueError") in Expected.raised
    assert ("hardware.py:bytes_of", "MemoryError") not in Expected.raised
