"""Nothing in README, documentation, cards and lessons points to what is not there. External addresses are only read."""

import importlib.util
import os.path
import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest
from pages import FILES, HISTORY, PAGES, ROOT, anchors, code, links, markdown

each_page = pytest.mark.parametrize("page", PAGES)

# By commands; git ignores them, or they lie where a teacher works.
MADE_LATER = tuple("build/ site/ out/ .venv/ interp/ grades/ students/ done/ submitted/ exam-folder/".split())
PATH = re.compile(r"(?<![\w./-])[\w-]+(?:/[\w.-]+)+(?:\.\w+|/)")
FILE_OR_FOLDER = re.compile(r"[\w.-]+(?:/[\w.-]+)*(?:/|\.(?:py|js|css|ipynb|yml|toml))")
FOLDERS = {f"{parent}/" for name in FILES for parent in PurePosixPath(name).parents}
TOP = {name.split("/")[0] for name in FILES if "/" in name}


def test_there_are_pages():
    assert {"README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "docs/benchmarks.md", "notebooks/00_tour.ipynb"} <= {
        *PAGES
    }


@each_page
def test_links_lead_somewhere(page):
    for link in links(markdown(page)):
        address, _, anchor = link.partition("#")
        if urlsplit(address).scheme:
            continue
        target = os.path.normpath(PurePosixPath(page).parent / address) if address else page
        assert target in FILES, f"{page} links to {link}"
        if anchor:
            assert anchor in anchors(markdown(target)), f"{page} links to {link}: no such heading"


@each_page
def test_external_addresses_have_the_form_of_one(page):
    for link in re.findall(r"\bhttps?:[^\s)>\"'`\]]*", markdown(page)):
        parts = urlsplit(link)
        local = parts.hostname in ("localhost", "127.0.0.1")
        assert local or (parts.scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.hostname or "")), link


@pytest.mark.parametrize("page", [page for page in PAGES if page != HISTORY])
def test_files_that_are_named_exist(page):
    """A path may leave out where it begins (`graphs/sweep.py`); a folder ends in a slash."""
    text = markdown(page) + "\n".join(code(page))
    words = {word for quoted in re.findall(r"`([^`\n]+)`", text) for word in quoted.split()}
    paths = {path for path in PATH.findall(text) if path.split("/")[0] in TOP}
    paths |= {word for word in words if FILE_OR_FOLDER.fullmatch(word)}
    missing = {path for path in paths if not path.startswith(MADE_LATER) and not exists(path)}
    assert not missing


def exists(path: str) -> bool:
    known = FOLDERS if path.endswith("/") else FILES
    return any(name == path or name.endswith("/" + path) for name in known)


@pytest.mark.parametrize("page", [page for page in PAGES if page != HISTORY])
def test_commands_that_are_named_exist(page):
    text = markdown(page) + "\n".join(code(page))
    targets = {*re.findall(r"`make ([a-z][\w-]*)", text)}
    makefile = (ROOT / "Makefile").read_text()
    assert not {target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)}
    modules = {*re.findall(r"python -m ([\w.]+)", text)}
    assert not {module for module in modules if not importlib.util.find_spec(module)}
