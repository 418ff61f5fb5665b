"""`export_otter`: an assignment as otter-grader wants it, with the same tests.

https://otter-grader.readthedocs.io: a notebook that students get, and tests/<question>.py, a doctest each, of which the
hidden case stays with the teacher. It calls `ik.course.hidden_test`, so the grading machine needs the kit's clone.
"""

import ast
import pprint
import shutil
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

from ..storage.atomic import atomic_file, never
from .assignments import TESTS, assignments_folder, grade_id, graded, load_assignment, read_notebook

HIDDEN = ("### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS")


def export_otter(name: str, out: Path, folder: Path | None = None) -> None:
    """Writes `out`/student/ (the notebook and the visible tests) and `out`/autograder/tests/ (the same tests with their
    hidden cases) for the assignment `name` of a folder of assignments, by default the kit's own.

    Raises FileNotFoundError for an assignment that there is not, FileExistsError where `out` is not empty.

    >>> export_otter("ps1_residual_stream", Path("otter"))
    """
    folder = folder or assignments_folder()
    assignment = load_assignment(name, folder)
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{str(out)!r} is there already: choose an empty folder")
    source = read_notebook(folder / "source" / name / f"{name}.ipynb")
    cells = {grade_id(cell): str(cell.source) for cell in graded(source)}
    for question in assignment.questions:
        visible, hidden = _parted(cells[TESTS + question.id])
        points = assignment.points[question.id]
        _write_test(out / "student" / "tests" / f"{question.id}.py", question.id, points, visible, "")
        _write_test(out / "autograder" / "tests" / f"{question.id}.py", question.id, points, visible, hidden)
    for part in (folder / "release" / name).iterdir():
        if part.suffix != ".ipynb":
            shutil.copy(part, out / "student" / part.name)
    released = read_notebook(folder / "release" / name / f"{name}.ipynb")
    path = out / "student" / f"{name}.ipynb"
    with atomic_file(path, never) as temporary:
        temporary.write_text(nbformat.writes(_with_checks(released, name)) + "\n", encoding="utf-8")


def _parted(text: str) -> tuple[str, str]:
    """The visible and the hidden part of a cell of tests."""
    before, _, rest = text.partition(HIDDEN[0])
    inside, _, after = rest.partition(HIDDEN[1])
    return before.strip() + after, inside.strip()


def _write_test(path: Path, name: str, points: float, visible: str, hidden: str) -> None:
    shown = [{"code": _doctest(code), "hidden": code is hidden, "locked": False} for code in (visible, hidden) if code]
    suite = {"cases": shown, "scored": True, "setup": "", "teardown": "", "type": "doctest"}
    test = {"name": name, "points": points, "suites": [suite]}
    with atomic_file(path, never) as temporary:
        temporary.write_text(f"OK_FORMAT = True\n\ntest = {pprint.pformat(test, sort_dicts=False)}\n", encoding="utf-8")


def _doctest(code: str) -> str:
    """Statements as they are typed at a prompt. An assertion prints nothing where it holds."""
    lines = code.splitlines()
    typed = []
    for statement in ast.parse(code).body:
        first, *others = lines[statement.lineno - 1 : statement.end_lineno]
        typed += [f">>> {first}", *(f"... {line}" for line in others)]
    return "\n".join(typed)


def _with_checks(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """The cells of tests become otter's checks."""
    start = new_code_cell(f'import otter\n\ngrader = otter.Notebook("{name}.ipynb")', id="otter")
    for cell in notebook.cells:
        if grade_id(cell).startswith(TESTS):
            cell.source = f'grader.check("{grade_id(cell).removeprefix(TESTS)}")'
        cell.metadata.pop("nbgrader", None)
    notebook.cells.insert(0, start)
    return notebook
