"""The assignments of a course: what a notebook asks, what each question is worth, and how it is graded.

A folder of assignments, by default notebooks/assignments/ of the clone, holds source/<name>/<name>.ipynb with solutions
(nbgrader's format), questions/<name>.py with what is expected, and release/<name>/<name>.ipynb, what students get. A
translation, <name>_ru, asks the questions of <name>: its notebook's metadata say so.
"""

import importlib.util
import secrets
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..storage.reading import in_short
from .compare import problem, same
from .questions import FunctionQuestion, Question, ValueQuestion, cases

if TYPE_CHECKING:
    from nbformat import NotebookNode

TESTS = "test_"  # before a question's id: the cell that carries its points


@dataclass(frozen=True)
class Assignment:
    """name: of its folder. questions: graded by the kit, in order. points: of each question, also of those that a
    person reads (`written`: their ids). stubs: what stands in those cells before anything is written."""

    name: str
    questions: tuple[Question, ...]
    points: dict[str, float]
    written: tuple[str, ...]
    stubs: dict[str, str]


def assignments_folder() -> Path:
    """Where the kit's own assignments lie in a clone.

    Raises FileNotFoundError where the kit was installed without one.
    """
    folder = Path(__file__).parents[2] / "notebooks" / "assignments"
    if not (folder / "source").is_dir():
        raise FileNotFoundError(f"there are no assignments in {str(folder)!r}: work in a clone of the repository")
    return folder


def load_assignment(name: str, folder: Path | None = None) -> Assignment:
    """The assignment `name` of a folder of assignments, by default the kit's own.

    Raises FileNotFoundError for one that there is not, or was not released; ValueError where its notebook and its
    questions do not belong together.

    >>> load_assignment("ps1_residual_stream").points
    {'q1': 2.0, ...}
    """
    folder = folder or assignments_folder()
    path = folder / "source" / name / f"{name}.ipynb"
    if not path.is_file():
        known = sorted(each.parent.name for each in folder.glob("source/*/*.ipynb"))
        raise FileNotFoundError(f"there is no assignment {name!r} in {str(folder)!r}: there are {', '.join(known)}")
    notebook = read_notebook(path)
    asked = notebook.metadata.get("interp_kit", {}).get("questions", name)
    questions = load_questions(folder / "questions" / f"{asked}.py")
    points = {grade_id(cell).removeprefix(TESTS): float(_settings(cell)["points"]) for cell in graded(notebook)}
    written = [grade_id(cell) for cell in graded(notebook) if _settings(cell)["solution"]]
    found, expected = set(points) - set(written), {question.id for question in questions}
    if found != expected:
        raise ValueError(
            f"{path.name} gives points to {', '.join(sorted(found))}, and questions/{asked}.py answers "
            f"{', '.join(sorted(expected))}"
        )
    released = read_notebook(folder / "release" / name / f"{name}.ipynb")
    stubs = {grade_id(cell): str(cell.source) for cell in graded(released) if grade_id(cell) in written}
    return Assignment(name, questions, points, tuple(written), stubs)


def load_questions(path: Path) -> tuple[Question, ...]:
    """QUESTIONS of a teacher's file.

    Raises FileNotFoundError for a file that there is not, ValueError for one that does not run or lists no questions.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {str(path)!r}, where the questions are answered")
    spec = importlib.util.spec_from_file_location(f"questions_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a teacher's file may raise
        raise ValueError(f"{path.name} does not run: {type(error).__name__}: {in_short(error)}") from error
    found = getattr(module, "QUESTIONS", None)
    if not isinstance(found, Sequence) or not all(isinstance(each, Question) for each in found) or not found:
        raise ValueError(f"{path.name}: expected QUESTIONS, a list of FunctionQuestion and ValueQuestion")
    return tuple(found)


def hidden_test(assignment: str, question: str, mine: object, student: str = "") -> None:
    """What a hidden test of a notebook calls, for who grades with nbgrader or otter-grader alone: is the answer right?
    It runs in the student's process, which could forge it; `python -m interp_kit.course grade` could not be.

    Raises AssertionError where it is wrong, without what was expected.

    >>> ik.course.hidden_test("ps1_residual_stream", "q1", streams)
    """
    asked = {each.id: each for each in _loaded(assignment).questions}[question]
    assert is_right(asked, mine, student), f"{question} is not right yet"


def is_right(question: Question, mine: object, student: str = "") -> bool:
    """Whether an answer, a function or a value, is right; here in this process."""
    if isinstance(question, FunctionQuestion):
        drawn = cases(question, secrets.token_hex())
        return callable(mine) and all(_agree(mine(*inputs), question.solution(*inputs)) for inputs in drawn)
    assert isinstance(question, ValueQuestion)
    return _agree(mine, question.solution(*question.inputs(student)))


def _agree(given: object, expected: object) -> bool:
    return not problem(given, expected) and same(given, expected)


@cache
def _loaded(name: str) -> Assignment:
    return load_assignment(name)


# ---------------------------------------------------------------------- a notebook in nbgrader's format


def read_notebook(path: Path) -> "NotebookNode":
    """Raises ValueError for what is no notebook, ImportError where the extra [grading] is missing."""
    import nbformat

    try:
        with warnings.catch_warnings(action="ignore"):  # of cells without an id, as some editors save them
            return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {str(path)!r}: release it (nbgrader generate_assignment)") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path.name} is not a notebook: {in_short(error)}") from None


def graded(notebook: "NotebookNode") -> list["NotebookNode"]:
    """The cells that carry points: the tests, and the answers that a person reads."""
    return [cell for cell in notebook.cells if _settings(cell).get("grade")]


def is_test(cell: "NotebookNode") -> bool:
    """Whether it carries points without being an answer: the kit's own questions take its place."""
    settings = _settings(cell)
    return bool(settings.get("grade")) and not settings.get("solution")


def grade_id(cell: "NotebookNode") -> str:
    """The name that nbgrader gives a cell; "" where it has none."""
    return str(_settings(cell).get("grade_id", ""))


def _settings(cell: "NotebookNode") -> dict:
    settings = cell.get("metadata", {}).get("nbgrader", {})
    return settings if isinstance(settings, dict) else {}
