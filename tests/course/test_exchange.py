"""What a JupyterHub does: a teacher releases through nbgrader's exchange, three students fetch and submit, the teacher
collects; the kit's command grades what was collected as it lies there."""

import nbformat
from course.grading import classroom
from course.grading.classroom import NAME, RIGHT, exchange_in, nbgrader

from interp_kit.course.grading.grade import grade

STUDENTS = {"ada": RIGHT, "bob": RIGHT | {"q1": "def double(x):\n    return x"}, "eve": {}}


def test_release_fetch_submit_collect_grade(tmp_path):
    teacher, config = tmp_path / "teacher", exchange_in(tmp_path / "exchange")
    classroom.assignments(teacher)
    for place in (teacher, *(tmp_path / name for name in STUDENTS)):
        place.mkdir(exist_ok=True)
        (place / "nbgrader_config.py").write_text(config)
    nbgrader(teacher, "generate_assignment", NAME, "--create", "--force")
    nbgrader(teacher, "release_assignment", NAME)
    for name, answers in STUDENTS.items():
        home = tmp_path / name
        nbgrader(home, "fetch_assignment", NAME)
        path = home / NAME / f"{NAME}.ipynb"
        notebook = nbformat.read(path, 4)
        for cell in notebook.cells:
            cell.source = cell.source.replace("STUDENT = '...'", f"STUDENT = {name!r}")
            cell.source = answers.get(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
        nbformat.write(notebook, path)
        nbgrader(home, "submit", NAME, f"--student={name}")
    nbgrader(teacher, "collect", NAME)
    assert sorted(path.name for path in (teacher / "submitted").iterdir()) == sorted(STUDENTS)
    results = {result.student: result for result in grade(teacher / "submitted", tmp_path / "grades", 1, teacher)}
    points = {name: [each.points for each in result.questions] for name, result in results.items()}
    assert points == {"ada": [2, 3, 1, None], "bob": [0, 3, 1, None], "eve": [0, 0, 0, 0]}
    assert all((teacher / "submitted" / name / NAME / "timestamp.txt").exists() for name in STUDENTS)
