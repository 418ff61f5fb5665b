"""The code of the README and of the how-to pages runs as it stands, page by page, from top to bottom."""

import pytest
from pages import PAGES, code

WITH_CODE = [page for page in PAGES if page.startswith(("README", "docs/how-to/")) and code(page)]


def test_there_is_code():
    assert len(WITH_CODE) >= 6


@pytest.mark.parametrize("page", WITH_CODE)
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, block in enumerate(code(page)):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
