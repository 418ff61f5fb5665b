"""An assignment for otter-grader: its tests are ours. (Those of q1 ran in otter-grader 7.0.0 itself, too.)"""

import doctest
import importlib.util

import nbformat
import pytest
import torch

import interp_kit as ik
from interp_kit.course.__main__ import main
from interp_kit.course.assignments import assignments_folder, load_assignment, load_questions
from interp_kit.course.otter import export_otter

NAME = "ps1_residual_stream"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    place = tmp_path_factory.mktemp("otter") / "out"
    export_otter(NAME, place)
    return place


def content_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.test


def passes(case, **names):
    parsed = doctest.DocTestParser().get_doctest(case["code"] + "\n", {"ik": ik, "torch": torch, **names}, "q", None, 0)
    return doctest.DocTestRunner(verbose=False).run(parsed, out=lambda _: None).failed == 0


def test_each_question_has_its_tests_and_points(out):
    assignment = load_assignment(NAME)
    for question in assignment.questions:
        test = content_of(out / "autograder" / "tests" / f"{question.id}.py")
        assert test["points"] == assignment.points[question.id]
        assert [case["hidden"] for case in test["suites"][0]["cases"]] == [False, True]
        shown = content_of(out / "student" / "tests" / f"{question.id}.py")["suites"][0]["cases"]
        assert [case["hidden"] for case in shown] == [False] and "hidden_test" not in str(shown)


def test_they_tell_right_from_wrong(out):
    question = load_questions(assignments_folder() / "questions" / f"{NAME}.py")[0]
    cases = content_of(out / "autograder" / "tests" / "q1.py")["suites"][0]["cases"]
    assert [passes(case, streams=question.solution) for case in cases] == [True, True]
    for mistake in question.mistakes.values():
        assert not passes(cases[1], streams=mistake)


def test_the_notebook_calls_otter(out):
    notebook = nbformat.read(out / "student" / f"{NAME}.ipynb", 4)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert 'grader = otter.Notebook("ps1_residual_stream.ipynb")' in notebook.cells[0].source
    assert text.count("grader.check(") == len(load_assignment(NAME).questions) and "SOLUTION" not in text


def test_the_command_and_a_folder_that_is_not_empty(out, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["otter", NAME, str(out)])
    assert "is there already: choose an empty folder" in str(ended.value.code)
    with pytest.raises(FileExistsError):
        export_otter(NAME, out)
