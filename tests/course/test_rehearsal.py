"""A class of thirty goes through release, submission, collection, grading, marking, feedback and export.

All thirty in `make test-long`; a few in `make test`. The machine is as it was before.
"""

import csv
import shutil
import tempfile
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
from course.grading.classroom import exchange_in, nbgrader, save, started_since
from course.grading.thirty import CLASS, NAME, POINTS, TEXT, written

from interp_kit.course.assignments import assignments_folder, read_notebook
from interp_kit.course.grading.grade import grade

FEW = ("boris", "blank", "mistake two", "deleted", "forges")


def collected(students, place):
    """Released, fetched, submitted and collected through a local exchange; those whose notebook has another name are
    filed by hand, as the exchange would refuse them."""
    teacher, settings = place / "teacher", (assignments_folder() / "nbgrader_config.py").read_text()
    for part in ("source", "questions", "release"):
        shutil.copytree(assignments_folder() / part, teacher / part)
    (teacher / "nbgrader_config.py").write_text(settings + exchange_in(place / "exchange"))
    nbgrader(teacher, "generate_assignment", NAME, "--create", "--force")
    nbgrader(teacher, "release_assignment", NAME)
    released = read_notebook(teacher / "release" / NAME / f"{NAME}.ipynb")
    home = place / "home"
    home.mkdir()
    shutil.copy(teacher / "nbgrader_config.py", home)
    for student in students:
        notebook = written(student, nbformat.from_dict(released))
        if CLASS[student].name != f"{NAME}.ipynb":
            save(teacher / "submitted" / student / NAME / CLASS[student].name, notebook)
            continue
        shutil.rmtree(home / NAME, ignore_errors=True)
        nbgrader(home, "fetch_assignment", NAME)
        save(home / NAME / f"{NAME}.ipynb", notebook)
        nbgrader(home, "submit", NAME, f"--student={student}")
    nbgrader(teacher, "collect", NAME)
    return teacher


@pytest.mark.parametrize(
    "students", [pytest.param(FEW, id="a few"), pytest.param(tuple(CLASS), id="all thirty", marks=pytest.mark.long)]
)
def test_a_class(students, tmp_path, monkeypatch):
    temporary, running = Path(tempfile.mkdtemp()), psutil.Process().children()
    temporary.chmod(0o711)  # pytest's own folders are closed to other users
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    teacher = collected(students, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in teacher.rglob("*") if path.is_file()}
    grades = tmp_path / "grades"
    results = {result.student: result for result in grade(teacher / "submitted", grades, 2, teacher)}
    assert sorted(results) == sorted(students)
    for student in students:
        expected, found = CLASS[student], {each.question: each for each in results[student].questions}
        assert {name: found[name].points for name in POINTS} == expected.points, student
        for name, hint in expected.hints.items():
            assert found[name].hint.startswith(hint) and found[name].hint, (student, name, found[name])
        assert expected.notes in csv_of(grades)[student]["notes"], student
        assert found["q8"].points == (0 if expected.blank else None)
    mark_all(grades)
    grade(teacher / "submitted", grades, 2, teacher)
    for student, row in csv_of(grades).items():
        written_points = 0 if CLASS[student].blank else 3
        assert float(row["score"]) == sum(CLASS[student].points.values()) + written_points, student
    moodle = pd.read_csv(grades / "moodle.csv").set_index("username")[NAME]
    assert moodle.to_dict() == {student: float(row["score"]) for student, row in csv_of(grades).items()}
    assert len(list((grades / "students").iterdir())) == len(students)
    assert {path: path.stat().st_mtime_ns for path in teacher.rglob("*") if path.is_file()} == before
    assert list(temporary.glob("interp_kit-*")) == []
    assert started_since(running) == []
    shutil.rmtree(temporary)


def csv_of(grades):
    with open(grades / "grades.csv", newline="", encoding="utf-8") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def mark_all(grades):
    """Three points for whoever wrote something."""
    table = pd.read_csv(grades / "marks.csv", dtype=str, keep_default_na=False)
    assert set(table["answer"]) == {TEXT}
    table["mark"] = "3"
    table.to_csv(grades / "marks.csv", index=False)
