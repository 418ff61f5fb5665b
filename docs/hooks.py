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
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
NAMES_AND_ROOMS = [
    "`ik.` has the names for the main job; the rooms have the rest.",
    "",
    "| name | what it is |",
    "| --- | --- |",
]


def _in_site() -> dict[str, str]:
    """{file of the repository: page or picture of the site}, both as relative addresses."""
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    return (
        {f"docs/{page}": page for page in pages}
        | {"README.md": "index.md"}
        | {name: name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")}
        | {"data/pocket/tour.svg": "assets/tour.svg"}
        | {path.relative_to(ROOT).as_posix(): f"pictures/{path.name}" for path in ROOT.glob("docs/pictures/*.svg")}
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
        "Reference": ["reference/index.md", *(f"reference/{room}.md" for room in ROOMS)],
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
    package = griffe.load(PACKAGE.name, search_paths=[ROOT], resolve_aliases=True)
    for room in ROOMS:
        files.append(File.generated(config, f"reference/{room}.md", content=_room_page(package, room)))
    files.append(File.generated(config, "reference/index.md", content=_index_page(package)))
    files.append(File.generated(config, "assets/plotly.js", content=plotly.offline.get_plotlyjs()))
    return files


def _room_page(package, room) -> str:
    """What the room is for, and each public name that its `__init__.py` lists."""
    module = package[room]
    parts = [f"# ik.{room}", module.docstring.value if module.docstring else ""]
    for name in module.exports or []:
        parts.append(f"::: {_path(package, room, name)}")
    return "\n\n".join(map(str, parts))


def _path(package, room, name) -> str:
    """Where a name is documented. A function may be called as the file that it lies in: then the file hides it."""
    found = package[room].members[name]
    return f"{PACKAGE.name}.{room}.{name}" + (f".{name}" if found.is_module else "")


def _index_page(package) -> str:
    """The names of `ik.` itself, as the stub lists them, each with the first sentence of its docstring."""
    rows = []
    for line in ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(line, ast.ImportFrom) and line.module:
            for name in (alias.name for alias in line.names):
                path = _path(package, line.module, name)
                docstring = package[path.removeprefix(f"{PACKAGE.name}.")].docstring.value
                first = " ".join(re.split(r"(?<=[.:;])\s", docstring)[0].split()).rstrip(".:;")
                rows.append(f"| [`ik.{name}`]({line.module}.md#{path}) | {first} |")
    return "\n".join(["# Reference", "", *NAMES_AND_ROOMS, *rows])


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
