"""The Markdown that readers see: files and lessons, and the pieces of it that the tests of the documentation check."""

import re
import subprocess
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent


def files_of_the_repository() -> list[str]:
    """What git tracks, or would track if everything here were added; relative to the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return sorted(name for name in names.split("\0") if (ROOT / name).is_file())


FILES = files_of_the_repository()
PAGES = [name for name in FILES if name.endswith(".md") or (name.startswith("notebooks/") and name.endswith(".ipynb"))]
# Tells what things were called before.
HISTORY = "CHANGELOG.md"


def markdown(name: str) -> str:
    """The page's Markdown; of a lesson, its prose."""
    if name.endswith(".md"):
        return (ROOT / name).read_text(encoding="utf-8")
    cells = nbformat.read(ROOT / name, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def code(name: str) -> list[str]:
    """The page's Python, block by block; of a lesson, its cells and what its prose shows as code."""
    blocks = re.findall(r"^```python\n(.*?)^```", markdown(name), re.DOTALL | re.MULTILINE)
    if name.endswith(".ipynb"):
        cells = nbformat.read(ROOT / name, as_version=4).cells
        blocks += [cell.source for cell in cells if cell.cell_type == "code"]
    return blocks


def prose(text: str) -> str:
    """Markdown without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def links(text: str) -> list[str]:
    """Addresses of links and pictures."""
    return re.findall(r"\]\(([^)\s]*)", prose(text)) + re.findall(r'\b(?:src|href)="([^"]*)"', prose(text))


def anchors(text: str) -> set[str]:
    """What GitHub calls the page's headings."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
