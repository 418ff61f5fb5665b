"""Every name of the package that documentation and lessons cite is there."""

import re

import pytest
from pages import HISTORY, PAGES, code, markdown

import interp_kit as ik


@pytest.mark.parametrize("page", [page for page in PAGES if page != HISTORY])
def test_names_exist(page, recwarn):
    """A name that moved would still be found, with a DeprecationWarning: that counts as missing."""
    for name in set(re.findall(r"\bik((?:\.[A-Za-z_]\w*)+)", markdown(page) + "\n".join(code(page)))):
        place = ik
        for part in name[1:].split("."):
            assert hasattr(place, part), f"{page} cites ik{name}"
            place = getattr(place, part)
    assert not [
        str(w.message) for w in recwarn if issubclass(w.category, DeprecationWarning) and "ik." in str(w.message)
    ]
