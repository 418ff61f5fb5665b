"""Predictions outlive the kernel, keep what they were before, and leave alone what is not theirs."""

import json
import multiprocessing
from pathlib import Path

import pytest

import interp_kit as ik

QUESTION = "After which layer is Austin the likeliest token?"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_what_is_typed_is_there_again_after_a_restart():
    box = ik.course.predict("austin", QUESTION)
    assert box.answer == "" and not Path("predictions.json").exists()
    box._box.value = "after layer 4"
    box._box.value = "after layer 5"
    ik.course.predict("why", "Why?", options=["attention", "the MLP"]).answer = "the MLP"
    again = ik.course.predict("austin", QUESTION)
    assert again.answer == "after layer 5" and "kept" in again._note.value
    assert ik.course.predict("why", "Why?", options=["attention", "the MLP"]).answer == "the MLP"
    assert ik.course.predict("why", "Why?", options=["other", "answers"]).answer == ""
    table = ik.course.predictions()
    assert table["name"].tolist() == ["austin", "why"] and table["n_answers"].tolist() == [2, 1]
    assert table.loc[0, ["first_answer", "answer"]].tolist() == ["after layer 4", "after layer 5"]


def test_the_answer_can_be_set_and_read():
    box = ik.course.predict("austin", QUESTION)
    box.answer = "5"
    assert box.answer == "5" and "'5'" in repr(box) and "5" in box.picture().svg
    chosen = ik.course.predict("why", options=["attention", "the MLP"])
    chosen.answer = "the MLP"
    chosen.answer = ""
    assert chosen.answer == "" and ik.course.predictions()["answer"].tolist() == ["5", ""]


def test_a_file_that_holds_something_else_is_left_alone():
    Path("predictions.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match="does not hold predictions"):
        ik.course.predict("austin", QUESTION)
    with pytest.raises(ValueError, match="does not hold predictions"):
        ik.course.predictions()
    assert Path("predictions.json").read_text() == '{"mine": 1}'


def test_what_cannot_be_kept_is_said_at_the_box():
    box = ik.course.predict("austin", QUESTION)
    Path("predictions.json").write_text("{")
    box.answer = "5"
    assert "not kept" in box._note.value and Path("predictions.json").read_text() == "{"


def test_a_question_without_an_answer_is_no_prediction():
    Path("predictions.json").write_text(json.dumps({"predictions": {"a": {"question": "?", "answers": []}}}))
    with pytest.raises(ValueError, match=r"predictions\.a has no answer"):
        ik.course.predictions()


def test_nothing_was_predicted_yet():
    with pytest.raises(FileNotFoundError, match=r"there is no '.*predictions\.json'"):
        ik.course.predictions()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("", QUESTION), "name: expected some words"),
        (("austin", " "), "question: expected some words"),
        ((7, QUESTION), "name: expected some words, got 7"),
        (("austin", QUESTION, ["one"]), "options: expected different texts"),
        (("austin", QUESTION, ["a", "a"]), "options: expected different texts"),
        (("austin", QUESTION, ["a", 2]), "options: expected different texts"),
        (("austin", QUESTION, "abc"), "options: expected different texts"),
    ],
)
def test_what_is_no_question(arguments, words):
    with pytest.raises(ValueError, match=words):
        ik.course.predict(*arguments)


def _predict(folder, i):
    ik.course.predict(f"question {i}", "How many?", file=Path(folder) / "predictions.json").answer = str(i)


def test_two_notebooks_that_write_at_once_lose_nothing(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(_predict, [(tmp_path, i) for i in range(24)])
    assert sorted(ik.course.predictions()["answer"].astype(int)) == list(range(24))
