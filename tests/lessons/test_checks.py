"""What a lesson claims is checked beside it, never in the cells that a student reads.

Each `<lesson>.py` here is run by docs/lessons.py in the lesson's own kernel, after its last cell.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from docs.lessons import LESSONS, _run

CHECKS = sorted(Path(__file__).parent.glob("[0-9]*.py"))


def asserts(source: str) -> list[ast.Assert]:
    python = "\n".join(line for line in source.splitlines() if not line.startswith("%"))
    return [node for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Assert)]


def test_each_lesson_has_its_checks():
    assert [path.stem for path in CHECKS] == [path.stem for path in LESSONS]


@pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.stem)
def test_each_check_says_its_claim(path):
    found = asserts(path.read_text(encoding="utf-8"))
    assert found
    assert not [ast.unparse(node) for node in found if node.msg is None]


def test_the_readme_knows_how_long_each_takes():
    said = re.findall(r"\(notebooks/(\w+)\.ipynb\) \| (\d+) \|", Path("README.md").read_text(encoding="utf-8"))
    first = {path.stem: nbformat.read(path, as_version=4).cells[0].source for path in LESSONS}
    assert dict(said) == {name: re.search(r"\*\*Time:\*\* (\d+) minutes", text)[1] for name, text in first.items()}


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_cells_only_teach(path):
    cells = nbformat.read(path, as_version=4).cells
    assert not [cell.source for cell in cells if cell.cell_type == "code" and asserts(cell.source)]


def test_a_failure_names_the_lesson_and_the_claim(tmp_path):
    cells = [nbformat.v4.new_code_cell(source) for source in ("n = 1", "n += 1")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    checks = tmp_path / "03_counting.py"
    checks.write_text('assert n == 2, "it counts to two"\n')
    _run(notebook, checks)
    assert notebook.cells == cells, "the checks are not part of the lesson"
    checks.write_text('assert n == 3, "it counts to three"\n')
    with pytest.raises(CellExecutionError, match=r"(?s)03_counting\.py.*it counts to three"):
        _run(notebook, checks)
