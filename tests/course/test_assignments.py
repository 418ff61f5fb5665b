"""The kit's own assignments: as they were released, one in both languages, and each question tells right from wrong."""

import ast
import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from course.grading.classroom import nbgrader, save
from nbgrader.apps import NbGraderAPI
from traitlets.config import PyFileConfigLoader

from interp_kit.course import hidden_test
from interp_kit.course.assignments import (
    assignments_folder,
    graded,
    is_right,
    load_assignment,
    load_questions,
    read_notebook,
)
from interp_kit.course.compare import same
from interp_kit.course.grading.grade import grade
from interp_kit.course.questions import FunctionQuestion, answer_of, cases

FOLDER = assignments_folder()
ALL = sorted(path.name for path in (FOLDER / "source").iterdir())
ENGLISH = [name for name in ALL if not name.endswith("_ru")]
STUDENTS = "ada bob eve ivan mia olga petr wu".split()


def source(name):
    return read_notebook(FOLDER / "source" / name / f"{name}.ipynb")


def released(name):
    return read_notebook(FOLDER / "release" / name / f"{name}.ipynb")


def test_there_are_five_in_two_languages():
    assert len(ENGLISH) >= 5 and ALL == sorted([*ENGLISH, *(f"{name}_ru" for name in ENGLISH)])


@pytest.mark.parametrize("name", ALL)
def test_each_has_six_questions_for_the_kit_and_one_for_a_person(name):
    assignment = load_assignment(name)
    assert len(assignment.questions) >= 6 and len(assignment.written) == 1
    assert all(len(question.mistakes) >= 3 for question in assignment.questions)


@pytest.mark.parametrize("name", ALL)
def test_minutes_and_points_are_those_of_the_headings(name):
    cells = source(name).cells
    numbers = re.findall(r"\*\*[^*]+:\*\* (\d+)", cells[0].source)
    headings = [
        line
        for cell in cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    inside = [re.search(r"\((\d+) \D+, (\d+) ", line) for line in headings]
    points, minutes = (sum(int(found[n]) for found in inside if found) for n in (1, 2))
    assert len([found for found in inside if found]) == len(load_assignment(name).points)
    assert 60 <= int(numbers[0]) <= 90 and abs(minutes - int(numbers[0])) <= 5
    assert points == sum(load_assignment(name).points.values()) and str(points) in numbers


@pytest.mark.parametrize("name", ENGLISH)
def test_the_questions_of_both_languages_are_the_same(name):
    ours, theirs = source(name), source(f"{name}_ru")
    assert [cell.cell_type for cell in ours.cells] == [cell.cell_type for cell in theirs.cells]
    assert [cell.metadata for cell in ours.cells] == [cell.metadata for cell in theirs.cells]
    for mine, other in zip(ours.cells, theirs.cells):
        if mine.cell_type == "code":
            assert code_of(mine.source) == code_of(other.source)
        elif len(mine.source) > 40:
            assert re.search("[а-я]{3}", other.source), other.source
            assert re.findall(r"`[^`]+`", mine.source).sort() == re.findall(r"`[^`]+`", other.source).sort()


def code_of(text):
    """Without comments, and without texts that a student reads."""
    tree = ast.parse(re.sub(r"^### .*$", "", text, flags=re.M))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            node.msg = None
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("predict", "print")):
            node.args = node.args[:1] if ast.unparse(node.func).endswith("predict") else []
    return ast.unparse(tree)


def test_what_is_released_is_not_stale(tmp_path, monkeypatch):
    """As `nbgrader generate_assignment` does it, with the settings of the folder, in one process for all."""
    shutil.copytree(FOLDER / "source", tmp_path / "source")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    settings = PyFileConfigLoader("nbgrader_config.py", str(FOLDER)).load_config()
    settings.CourseDirectory.root = str(tmp_path)
    api = NbGraderAPI(config=settings)
    for name in ALL:
        made = api.generate_assignment(name, create=True)
        assert made["success"], made["log"]
        ours, committed = (folder / "release" / name / f"{name}.ipynb" for folder in (tmp_path, FOLDER))
        assert ours.read_bytes() == committed.read_bytes(), f"{name}: release it again"


@pytest.mark.parametrize("name", ALL)
def test_students_see_no_solution_and_no_hidden_test(name):
    text = "\n".join(cell.source for cell in released(name).cells)
    assert "SOLUTION" not in text and "HIDDEN" not in text and "hidden_test" not in text
    assert not (FOLDER / "release" / name / "questions.py").exists()
    assert [cell.source for cell in graded(released(name))] != [cell.source for cell in graded(source(name))]


@pytest.mark.parametrize("name", ENGLISH)
def test_each_known_mistake_is_one(name):
    """Of functions on fresh inputs, of values for every student's variant; and two mistakes are not the same."""
    for question in load_questions(FOLDER / "questions" / f"{name}.py"):
        if isinstance(question, FunctionQuestion):
            drawn = [inputs for seed in "abc" for inputs in cases(question, seed)]
            mistaken = {
                hint: [answer_of(wrong, inputs) for inputs in drawn] for hint, wrong in question.mistakes.items()
            }
            for hint, answers in mistaken.items():
                assert not is_right(question, question.mistakes[hint]), hint
                others = [other for told, other in mistaken.items() if told != hint]
                assert not any(all(map(same, answers, other)) for other in others if None not in other), hint
            assert is_right(question, question.solution)
            continue
        variants = {repr(question.inputs(student)): question.inputs(student) for student in STUDENTS}
        right = {key: question.solution(*inputs) for key, inputs in variants.items()}
        for key, inputs in variants.items():
            for hint, wrong in question.mistakes.items():
                assert not same(answer_of(wrong, inputs), right[key]), (question.id, hint, key)
        assert len({repr(answer) for answer in right.values()}) > 1, f"{question.id} has one answer for all"


@pytest.mark.parametrize("name", ENGLISH)
def test_a_hidden_test_kills_a_wrong_answer_and_tells_nothing(name):
    text = "\n".join(cell.source for cell in source(name).cells)
    for question in load_assignment(name).questions:
        assert f'hidden_test("{name}", "{question.id}", {question.answer}' in text
        with pytest.raises(AssertionError) as told:
            hidden_test(name, question.id, lambda *_: "nonsense", "ada")
        assert str(told.value).split("\n")[0] == f"{question.id} is not right yet"


@pytest.mark.parametrize(
    "name", [*ENGLISH[:1], *(pytest.param(name, marks=pytest.mark.long) for name in ALL if name != ENGLISH[0])]
)
def test_a_blank_one_has_no_point_and_the_solution_all(name, tmp_path):
    save(tmp_path / "class" / "blank" / name / f"{name}.ipynb", released(name))
    for student in ("ada", "ivan"):
        solved = source(name)
        for cell in solved.cells:
            cell.source = cell.source.replace('STUDENT = "..."', f'STUDENT = "{student}"')
        save(tmp_path / "class" / student / name / f"{name}.ipynb", solved)
    results = {result.student: result for result in grade(tmp_path / "class", tmp_path / "grades")}
    written = load_assignment(name).written
    assert all(each.points == 0 for each in results["blank"].questions)
    for student in ("ada", "ivan"):
        for each in results[student].questions:
            assert each.points == (None if each.question in written else each.most), each
        assert results[student].seconds < 90 and results[student].memory < 1.5 * 2**30


@pytest.mark.long
def test_feedback_of_nbgrader_tells_no_answer(tmp_path):
    name = ENGLISH[0]
    for part in ("source", "questions"):
        shutil.copytree(FOLDER / part, tmp_path / part)
    shutil.copy(FOLDER / "nbgrader_config.py", tmp_path)
    nbgrader(tmp_path, "generate_assignment", name, "--create")
    wrong = read_notebook(tmp_path / "release" / name / f"{name}.ipynb")
    for cell in wrong.cells:
        cell.source = cell.source.replace('STUDENT = "..."', 'STUDENT = "bob"')
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "q1":
            cell.source = (
                "def streams(embedding, attention, mlp):\n    return torch.zeros(len(mlp) + 1, len(embedding))"
            )
    save(tmp_path / "submitted" / "bob" / name / f"{name}.ipynb", wrong)
    nbgrader(tmp_path, "autograde", name, "--create")
    nbgrader(tmp_path, "generate_feedback", name)
    (page,) = (tmp_path / "feedback" / "bob" / name).glob("*.html")
    text = re.sub("<[^>]+>", "", page.read_text())
    assert "q1 is not right yet" in text and "solution" not in text.lower().replace("solution cell", "")
    answers = (FOLDER / "questions" / f"{name}.py").read_text().splitlines()
    assert not [line for line in answers if len(line.strip()) > 25 and line.strip() in text]


def test_an_assignment_that_does_not_fit_its_questions(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "mine")
    path = tmp_path / "mine" / "source" / ENGLISH[0] / f"{ENGLISH[0]}.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") != "test_q2"]
    nbformat.write(notebook, path)
    with pytest.raises(ValueError, match="gives points to q1, q3, .* answers q1, q2"):
        load_assignment(ENGLISH[0], tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="there is no assignment 'ps77' .* there are ps1_"):
        load_assignment("ps77", tmp_path / "mine")
    questions = tmp_path / "mine" / "questions" / f"{ENGLISH[0]}.py"
    for text, words in (("1 / 0", "does not run: ZeroDivisionError"), ("QUESTIONS = 5", "expected QUESTIONS, a list")):
        questions.write_text(text)
        with pytest.raises(ValueError, match=words):
            load_questions(questions)
