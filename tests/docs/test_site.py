"""The built site: complete, without a broken link, and it asks nobody else for anything."""

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from pages import FILES, ROOT

LESSONS = [Path(name).stem for name in FILES if re.fullmatch(r"notebooks/[^/]+\.ipynb", name)]
ROOMS = [name.split("/")[1] for name in FILES if re.fullmatch(r"interp_kit/\w+/__init__\.py", name)]
# What a browser loads by itself.
LOADED = {
    ("link", "href"),
    ("script", "src"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "srcset"),
    ("object", "data"),
}


class Page(HTMLParser):
    """ids, links, and addresses that are loaded."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id" or (tag == "a" and name == "name"):
                self.ids.add(value)
            elif (tag, name) in LOADED:
                self.loaded.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Shows the executed lessons: those that no test has run yet are run now."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--quiet", "--site-dir", folder]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    out = subprocess.run(command, cwd=ROOT, env=environment, text=True, **pipes)
    assert out.returncode == 0 and not out.stdout, out.stdout
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site, pages):
    elsewhere = {address for page in pages.values() for address in page.loaded if urlsplit(address).netloc}
    styles = "\n".join(path.read_text(encoding="utf-8") for path in [*site.rglob("*.css"), *pages])
    elsewhere |= {
        *re.findall(r"url\(\s*['\"]?((?:https?:)?//[^)]*)\)", styles),
        *re.findall(r"@import[^;]*//[^;]*", styles),
    }
    assert not elsewhere


def test_links_lead_somewhere(site, pages):
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its addresses are those of the site's root
            continue
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in pages[target].ids):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken


@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_is_shown_with_its_outputs(site, lesson):
    text = (site / "lessons" / f"{lesson}.html").read_text(encoding="utf-8")
    assert text.count('<div class="output"') >= 3
    assert "data-output" not in text, "a place that no output was filled into"


def test_views_are_visible(site):
    """The graph by its static twin, and charts by plotly, which the site brings."""
    tour = (site / "lessons" / "00_tour.html").read_text(encoding="utf-8")
    assert re.search(r'<(svg|img)[^>]*(aria-label|alt)="Attribution graph of: The capital', tour)
    assert "Plotly.newPlot" in tour and (site / "assets" / "plotly.js").stat().st_size > 1e6


@pytest.mark.parametrize("room", ROOMS)
def test_reference_has_every_public_name(room, site, pages):
    ids = pages[site / "reference" / f"{room}.html"].ids
    public = getattr(importlib.import_module(f"interp_kit.{room}"), "__all__", [])
    # Twice the name where a function is called as its file.
    assert not {n for n in public if not ids & {f"interp_kit.{room}.{n}", f"interp_kit.{room}.{n}.{n}"}}
