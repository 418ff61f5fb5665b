"""How inputs are drawn and variants chosen; what the pieces of the grading say when something is missing."""

import sys
from collections import Counter
from pathlib import Path

import pytest

from interp_kit.course import FunctionQuestion, ValueQuestion, assignments, variant
from interp_kit.course.assignments import assignments_folder, is_right, load_questions, read_notebook
from interp_kit.course.grading.marks import read_marks
from interp_kit.course.grading.submission import run_submission
from interp_kit.course.otter import export_otter
from interp_kit.course.questions import answer_of, cases

CITIES = ["Dallas", "Oakland", "Miami"]
DOUBLE = FunctionQuestion(
    "q1", "double", lambda x: 2 * x, {"This is the square.": lambda x: x * x}, lambda d: (d.choice([2, 2, 2, 3]),)
)


def test_a_variant_is_always_the_same_and_spread_over_a_class():
    assert variant("Ada ", "city", CITIES) == variant("ada", "city", CITIES)
    counts = Counter(variant(f"student-{n}", "city", CITIES) for n in range(300))
    assert set(counts) == set(CITIES) and min(counts.values()) > 70
    assert len({variant("ada", f"q{n}", CITIES) for n in range(20)}) == 3


@pytest.mark.parametrize("name", ["", "  ", "...", None])
def test_a_variant_needs_a_name(name):
    with pytest.raises(ValueError, match="student: expected your name as your teacher has it"):
        variant(name, "city", CITIES)


def test_a_variant_needs_options():
    with pytest.raises(ValueError, match="none to choose from"):
        variant("ada", "city", [])


def test_inputs_are_drawn_until_each_mistake_shows():
    """2 doubled is 2 squared: only a 3 tells them apart."""
    for seed in range(50):
        drawn = cases(DOUBLE, str(seed))
        assert (3,) in drawn and drawn == cases(DOUBLE, str(seed))


def test_a_mistake_that_is_none():
    hidden = FunctionQuestion("q1", "double", lambda x: 2 * x, {"Not one.": lambda x: x + x}, lambda draw: (1,))
    with pytest.raises(ValueError, match="q1: this mistake is never seen in what is drawn: Not one."):
        cases(hidden, "s")


def test_right_and_wrong_answers():
    letter = ValueQuestion("q2", "letter", lambda city: city[0], {}, lambda name: (variant(name, "city", CITIES),))
    assert is_right(DOUBLE, lambda x: x + x) and not is_right(DOUBLE, lambda x: x * x) and not is_right(DOUBLE, 4)
    assert is_right(letter, variant("ada", "city", CITIES)[0], "ada") and not is_right(letter, "?", "ada")
    assert answer_of(lambda x: 1 / 0, (1,)) is None


def test_without_a_clone(monkeypatch):
    monkeypatch.setattr(assignments, "__file__", "/usr/lib/somewhere/interp_kit/course/assignments.py")
    with pytest.raises(FileNotFoundError, match="there are no assignments in .* work in a clone"):
        assignments_folder()


def test_what_is_no_notebook_and_what_is_not_there(tmp_path):
    (tmp_path / "mine.ipynb").write_text("{half")
    with pytest.raises(ValueError, match="mine.ipynb is not a notebook"):
        read_notebook(tmp_path / "mine.ipynb")
    with pytest.raises(FileNotFoundError, match="release it"):
        read_notebook(tmp_path / "other.ipynb")
    with pytest.raises(FileNotFoundError, match="where the questions are answered"):
        load_questions(tmp_path / "ps9.py")
    with pytest.raises(FileNotFoundError, match="there is no assignment 'ps9'"):
        export_otter("ps9", tmp_path / "out")


def test_without_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nbformat", None)
    with pytest.raises(ImportError):
        read_notebook(tmp_path / "mine.ipynb")


def test_marks_without_their_columns(tmp_path):
    (tmp_path / "marks.csv").write_text("name,points\nada,3\n")
    with pytest.raises(ValueError, match="expected the columns student, assignment, question, mark"):
        read_marks(tmp_path / "marks.csv")
    assert read_marks(tmp_path / "none.csv") == {}


def test_a_process_that_cannot_start(monkeypatch, tmp_path):
    monkeypatch.setattr("interp_kit.course.grading.submission.student_user", lambda: None)
    monkeypatch.setattr(sys, "executable", str(Path(tmp_path, "no-python")))
    (tmp_path / "given").mkdir()
    with pytest.raises(OSError, match="no-python"):
        run_submission(tmp_path, [], [], tmp_path / "given")
