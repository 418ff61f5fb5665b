"""What mkdocs asks us while it builds the site: the pages that are not written in docs/, and every page's links.

Links in Markdown are those of the repository, so they also work where the repository is shown: `../notebooks/x.ipynb`.
Here they become links between pages, or, for a file that is no page, an address of the public repository.
"""

import ast
import os
import re
from pathlib import Path, PurePosixPath

import griffe
import plotly.offline
from mkdocs.structure.files import File
from notebook_page import fill_in, lesson_page

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "interp_kit"
PUBLIC = "https://github.com/interp-kit/interp_kit/blob/HEAD/"

CARDS = sorted(ROOT.glob("data/**/README.md"))
LESSONS = sorted(ROOT.glob("notebooks/*.ipynb"))
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))


def _in_site() -> dict[str, str]:
    """{file of the repository: page or picture of the site}, both as relative addresses."""
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    return (
        {f"docs/{page}": page for page in pages}
        | {"README.md": "index.md"}
        | {name: name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")}
        | {"data/pocket/tour.svg": "assets/tour.svg"}
        | {path.relative_to(ROOT).as_posix(): f"lessons/{path.stem}.md" for path in LESSONS}
        | {path.relative_to(ROOT).as_posix(): f"cards/{path.parent.name}.md" for path in CARDS}
    )


IN_SITE = _in_site()
IN_REPOSITORY = {page: file for file, page in IN_SITE.items()}
outputs_of: dict[str, list[str]] = {}  # of each lesson's page, filled in after Markdown has been read


def on_config(config):
    listed = {
        "Lessons": [IN_SITE[path.relative_to(ROOT).as_posix()] for path in LESSONS],
        "Cards": [IN_SITE[path.relative_to(ROOT).as_posix()] for path in CARDS],
        "Reference": ["reference/index.md", *(f"reference/{room.name}.md" for room in ROOMS)],
    }
    config.nav = _filled(config.nav, listed)
    return config


def _filled(nav, listed):
    if isinstance(nav, list):
        return [_filled(entry, listed) for entry in nav]
    if isinstance(nav, dict):
        return {name: listed[name] if entry == "..." else _filled(entry, listed) for name, entry in nav.items()}
    return nav


def on_files(files, config):
    for name, page in IN_SITE.items():
        if name.startswith("docs/"):
            continue
        if name.endswith(".ipynb"):
            text, outputs_of[page] = lesson_page(ROOT / name)
        else:
            text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    for room in ROOMS:
        files.append(File.generated(config, f"reference/{room.name}.md", content=_room_page(room)))
    files.append(File.generated(config, "reference/index.md", content=_index_of_names()))
    files.append(File.generated(config, "assets/plotly.js", content=plotly.offline.get_plotlyjs()))
    return files


def _room_page(room) -> str:
    return f"# ik.{room.name}\n\n::: {PACKAGE.name}.{room.name}\n"


def _index_of_names() -> str:
    """The names of `ik.` itself, as the stub lists them, each with the first sentence of its docstring."""
    package = griffe.load(PACKAGE.name, search_paths=[ROOT], resolve_aliases=True)
    rows = []
    for line in ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(line, ast.ImportFrom) and line.module:
            for name in (alias.name for alias in line.names):
                path = f"{PACKAGE.name}.{line.module}.{name}"
                first = re.split(r"(?<=[.:;])\s", package[f"{line.module}.{name}"].docstring.value)[0]
                rows.append(f"| [`ik.{name}`]({line.module}.md#{path}) | {' '.join(first.split()).rstrip(':;')} |")
    return "# Reference\n\nThe names for the main job; the rooms have the rest.\n\n| | |\n| --- | --- |\n" + "\n".join(
        rows
    )


def on_page_markdown(markdown, page, config, files):
    file = IN_REPOSITORY.get(page.file.src_uri)
    return _without_badges(_with_links_of_site(markdown, file, page.file.src_uri)) if file else markdown


def _with_links_of_site(markdown, file, page) -> str:
    """Relative links of a file of the repository, as links between the site's pages."""

    def moved(match):
        address, anchor = match[2], match[3] or ""
        if re.match(r"[a-z]+:|#|/", address):
            return match[0]
        target = os.path.normpath(PurePosixPath(file).parent / address)
        if target in IN_SITE:
            return match[1] + os.path.relpath(IN_SITE[target], PurePosixPath(page).parent) + anchor
        # What is neither a page nor a file stays as it is, and mkdocs complains.
        return match[1] + (PUBLIC + target if (ROOT / target).exists() else address) + anchor

    return re.sub(r'(\]\(|\b(?:src|href)=")([^)\s"#]+)(#[^)\s"]*)?', moved, markdown)


def _without_badges(markdown) -> str:
    """Badges are pictures from elsewhere, and the site asks for nothing from elsewhere; their links stay as words."""
    return re.sub(r"\[!\[([^]]*)\]\(https?://[^)]*\)\]", r"[\1]", markdown)


def on_page_content(html, page, config, files):
    return fill_in(html, outputs_of.get(page.file.src_uri, []))
