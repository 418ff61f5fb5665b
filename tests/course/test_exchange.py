"""What a JupyterHub does: a teacher releases through nbgrader's exchange, three students fetch and submit, the teacher
collects; the kit's command grades what was collected as it lies there."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from course.grading import classroom
from course.grading.classroom import NAME, RIGHT

from interp_kit.course.grading.grade import grade

STUDENTS = {"ada": RIGHT, "bob": RIGHT | {"q1": "def double(x):\n    return x"}, "eve": {}}
CONFIG = """
c = get_config()
c.Exchange.root = {root!r}
c.CourseDirectory.course_id = "interp_kit"
c.ExchangeCollect.check_owner = False  # all three students are one user here
"""


def nbgrader(folder, *arguments):
    """In the folder of a student, or of the teacher."""
    programs = Path(sys.executable).parent
    path = os.pathsep.join([str(programs), os.environ["PATH"]])  # nbgrader starts alembic by its name
    environment = {**os.environ, "HOME": str(folder), "PATH": path}
    command = [programs / "nbgrader", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_release_fetch_submit_collect_grade(tmp_path):
    exchange, teacher = tmp_path / "exchange", tmp_path / "teacher"
    exchange.mkdir()
    exchange.chmod(0o777)
    classroom.assignments(teacher)
    for place in (teacher, *(tmp_path / name for name in STUDENTS)):
        place.mkdir(exist_ok=True)
        (place / "nbgrader_config.py").write_text(CONFIG.format(root=str(exchange)))
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
