"""A class is graded: right answers count, wrong ones do not, and nobody's trouble is another's."""

import csv
import json
import os
import subprocess
import sys
from datetime import datetime

import nbformat
import pandas as pd
import psutil
import pytest
from course.grading import classroom
from course.grading.classroom import NAME, STUBS, submit

from interp_kit.course.__main__ import main
from interp_kit.course.grading.grade import grade, lateness

TIME = datetime.fromisoformat("2026-11-01T18:00+00:00")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A class, graded once."""
    place = tmp_path_factory.mktemp("class")
    classroom.assignments(place / "assignments")
    class_ = place / "submissions"
    submit(class_, "ada")
    submit(
        class_, "bob", {"q1": "def double(x):\n    return x * x", "q2": "def mean_of(rows):\n    return rows.mean(1)"}
    )
    submit(class_, "blank", STUBS)
    submit(class_, "deleted", without=["q2"])
    submit(class_, "endless", {"q1": "def double(x):\n    return 2 * x\nwhile True: pass"})
    submit(class_, "ends", {"q2": "import os\nos._exit(0)"})
    submit(class_, "eve's <b>own", {"q4": "=HYPERLINK(1) <script>alert(1)</script>"})
    submit(class_, "renamed", name="ps0-Copy1.ipynb")
    submit(
        class_,
        "other",
        {"q1": "double = 5", "q2": "def mean_of(rows):\n    return [r.nope for r in rows]", "q3": "letter = 7"},
    )
    (class_ / "broken" / NAME).mkdir(parents=True)
    (class_ / "broken" / NAME / f"{NAME}.ipynb").write_text("{half")
    (class_ / "empty" / NAME).mkdir(parents=True)
    (class_ / "ada" / "ps9").mkdir()
    (class_ / "ada" / NAME / "timestamp.txt").write_text("2026-11-01 20:05:00.123456 UTC")
    kept = {"predictions": {"austin": {"question": "Where?", "answers": [{"answer": "layer 4", "at": "2026"}]}}}
    (class_ / "ada" / NAME / "predictions.json").write_text(json.dumps(kept))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp_kit.course.grading.submission.CELL_SECONDS", 5.0)
        grade(class_, place / "grades", 1, place / "assignments", {NAME: TIME})
    return place


@pytest.fixture(scope="module")
def rows(place):
    return {(row["student"], row["assignment"]): row for row in read(place, "grades")}


def read(place, name):
    with open(place / "grades" / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("student", "score", "notes"),
    [
        ("ada", 6, "late by 2 h 5 min; q4 waits for a mark"),
        ("bob", 1, "q4 waits for a mark"),
        ("blank", 0, ""),
        ("deleted", 3, "q2 missing; q4 waits for a mark"),
        ("endless", 6, "q4 waits for a mark"),
        ("ends", 3, "q2 it ended the whole process, or would not end; q4 waits for a mark"),
        ("eve's <b>own", 6, "q4 waits for a mark"),
        ("renamed", 6, "the notebook is called ps0-Copy1.ipynb; q4 waits for a mark"),
        (
            "other",
            0,
            "q1 double is not a function; q2 AttributeError: 'Tensor' object has no attribute 'nope'; "
            "q4 waits for a mark",
        ),
    ],
)
def test_what_each_student_gets(rows, student, score, notes):
    row = rows[student, NAME]
    late = "" if student == "ada" else "late by "  # the others came when the test ran
    said = "; ".join(part for part in row["notes"].split("; ") if not late or not part.startswith(late))
    assert float(row["score"]) == score and float(row["max_score"]) == 10
    assert said == notes


def test_what_cannot_be_read_is_told(rows):
    assert "ps0.ipynb is not a notebook" in rows["broken", NAME]["notes"] and float(rows["broken", NAME]["score"]) == 0
    assert rows["empty", NAME]["notes"].startswith("expected ps0.ipynb, found no notebook; q1 nothing to grade")
    assert rows["ada", "ps9"]["notes"] == "there is no assignment ps9"


def test_hints_go_to_the_student_and_answers_to_nobody(place):
    page = (place / "grades" / "students" / "bob.html").read_text()
    assert "This is the square." in page and "The mean is over the other axis." in page
    told = {row["question"]: row["note"] for row in read(place, "questions") if row["student"] == "other"}
    assert told["q1"] == "double is not a function" and told["q3"].startswith("not right")
    whole = "".join(path.read_text() for path in (place / "grades").rglob("*") if path.suffix in (".html", ".csv"))
    assert "the answers of the whole course" not in whole and "tensor(" not in whole


def test_what_a_student_wrote_runs_nowhere(place):
    (page,) = (place / "grades" / "students").glob("eve*")
    assert "<script>" not in page.read_text() and "<b>own" not in page.read_text() + read_text(place, "index.html")
    assert "\"'=HYPERLINK" in read_text(place, "marks.csv") or "'=HYPERLINK" in read_text(place, "marks.csv")


def read_text(place, name):
    return (place / "grades" / name).read_text()


def test_the_class_page(place):
    page = read_text(place, "index.html")
    assert "layer 4" in page and "This is the square. (1)" in page
    items = {row["question"]: row for row in read(place, "items")}
    assert 0 < float(items["q1"]["share"]) < 1 and -1 <= float(items["q1"]["discrimination"]) <= 1
    assert items["q4"]["share"] == "0.0"


def test_columns_for_moodle_and_canvas(place):
    moodle, canvas = pd.read_csv(place / "grades" / "moodle.csv"), pd.read_csv(place / "grades" / "canvas.csv")
    assert moodle.set_index("username").loc["ada", NAME] == 6
    assert canvas.columns[:5].tolist() == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    assert canvas.iloc[0]["Student"] == "Points Possible" and canvas.iloc[0][NAME] == 10
    assert canvas.set_index("Student").loc["ada", NAME] == 6


def test_marks_are_kept_and_only_what_changed_runs_again(place, monkeypatch):
    marks, out = place / "grades" / "marks.csv", place / "grades"
    table = pd.read_csv(marks, dtype=str, keep_default_na=False)
    assert len(table) == 8 and table.columns.tolist()[:4] == ["student", "assignment", "question", "mark"]
    table.loc[table["student"] == "ada", ["mark", "comment"]] = ["3,5", "Which head?"]
    table.loc[table["student"] == "bob", "mark"] = "5"
    table.loc[table["student"] == "deleted", "mark"] = "2"
    table.to_csv(marks, index=False, sep=";")
    submit(place / "submissions", "deleted", {"q4": "The MLP."})
    before = {path: path.stat().st_mtime_ns for path in (out / "done").rglob("*.json")}
    grade(place / "submissions", out, 1, place / "assignments", {NAME: TIME})
    changed = {path.parent.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {"deleted"}
    scores = {
        row["student"]: (float(row["score"]), row["notes"])
        for row in read(place, "grades")
        if row["max_score"] == "10.0"
    }
    assert scores["ada"] == (9.5, "late by 2 h 5 min")
    assert scores["bob"][0] == 1 and "'5' is not between 0 and 4" in scores["bob"][1]
    assert scores["deleted"][0] == 8 and "the answer has changed since it was marked" in scores["deleted"][1]
    assert "Which head?" in (out / "students" / "ada.html").read_text()
    again = pd.read_csv(marks, dtype=str, keep_default_na=False).set_index("student")
    assert again.loc["ada", ["mark", "comment"]].tolist() == ["3,5", "Which head?"] and again.loc["bob", "mark"] == "5"


def test_killed_halfway_the_rerun_grades_only_the_rest(place, tmp_path):
    class_ = tmp_path / "submissions"
    for name in ("ada", "bob", "eve"):
        submit(class_, name)
    command = [sys.executable, "-m", "interp_kit.course", "grade", class_, tmp_path / "out", "--assignments"]
    path = os.pathsep.join(sys.path)
    with subprocess.Popen([*command, place / "assignments"], env={**os.environ, "PYTHONPATH": path}) as process:
        done = tmp_path / "out" / "done"
        while process.poll() is None and not list(done.rglob("*.json")):
            pass
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert psutil.wait_procs(family, timeout=10)[1] == []  # nobody is left behind
    first = {path: path.stat().st_mtime_ns for path in done.rglob("*.json")}
    assert 1 <= len(first) < 3
    results = grade(class_, tmp_path / "out", 1, place / "assignments")
    assert [sum(each.points or 0 for each in result.questions) for result in results] == [6, 6, 6]
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())


def test_the_command(place, tmp_path, capsys):
    class_ = tmp_path / "submissions"
    submit(class_, "ada")
    arguments = ["grade", str(class_), str(tmp_path / "out"), "--assignments", str(place / "assignments")]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--due", f"{NAME}=2999-01-01T00:00"])
    assert ended.value.code == 0 and "1 answers wait for a mark" in capsys.readouterr().out
    submit(class_, "ada", without=["q1"])
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1 and "ada ps0: q1 missing" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--jobs", "0"], ["--due", "tomorrow"]])
def test_arguments_that_make_no_sense(arguments, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["grade", str(tmp_path), str(tmp_path), *arguments])
    assert ended.value.code == 2


def test_nothing_to_grade_and_a_folder_with_something_else(place, tmp_path):
    with pytest.raises(
        FileNotFoundError, match="nothing to grade in .* expected <student>/<assignment>/<notebook>.ipynb"
    ):
        grade(tmp_path, tmp_path / "out", 1, place / "assignments")
    submit(tmp_path / "submissions", "ada")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        grade(tmp_path / "submissions", tmp_path / "out", 1, place / "assignments")
    assert os.listdir(tmp_path / "out") == ["thesis.txt"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-11-01 17:59:59 UTC", ""),
        ("2026-11-01 18:00:30 UTC", "late by 1 min"),
        ("2026-11-01T20:00:00+01:00", "late by 1 h 0 min"),
    ],
)
def test_lateness(tmp_path, text, words):
    (tmp_path / "timestamp.txt").write_text(text)
    assert lateness(tmp_path, TIME) == words and lateness(tmp_path, None) == ""


def test_without_a_timestamp_the_notebooks_own_time_counts(tmp_path):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "a.ipynb")
    os.utime(tmp_path / "a.ipynb", (TIME.timestamp() + 120,) * 2)
    assert lateness(tmp_path, TIME) == "late by 2 min"
