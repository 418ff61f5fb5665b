"""A small assignment and its submissions, for tests of the grading: arithmetic, so that a process ends soon."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

NAME = "ps0"
POINTS = {"q1": 2.0, "q2": 3.0, "q3": 1.0, "q4": 4.0}
RIGHT = {
    "q1": "def double(x):\n    return 2 * x",
    "q2": "def mean_of(rows):\n    return rows.mean(0)",
    "q3": 'letter = {"Dallas": "D", "Miami": "M"}[ik.course.variant(STUDENT, "city", ["Dallas", "Miami"])]',
    "q4": "Attention moved it.",
}
STUBS = {
    "q1": "def double(x):\n    raise NotImplementedError",
    "q2": "def mean_of(rows):\n    raise NotImplementedError",
    "q3": "letter = ...",
    "q4": "*Your answer.*",
}
QUESTIONS = """
from interp_kit.course import FunctionQuestion, ValueQuestion, variant
from interp_kit.course.puzzles.puzzle import normal

SECRET = "the answers of the whole course"
QUESTIONS = [
    FunctionQuestion("q1", "double", lambda x: x + x, {"This is the square.": lambda x: x * x},
                     lambda draw: (draw.randint(3, 9),)),
    FunctionQuestion("q2", "mean_of", lambda rows: sum(rows) / len(rows),
                     {"The mean is over the other axis.": lambda rows: rows.mean(1)},
                     lambda draw: (normal(draw, 3, 4),)),
    ValueQuestion("q3", "letter", lambda city: city[0], {"This is the last letter.": lambda city: city[-1]},
                  lambda student: (variant(student, "city", ["Dallas", "Miami"]),)),
]
"""


def notebook(student, answers, without=(), extra=()):
    """answers: of each question's cell. without: cells that are deleted. extra: cells of code at the end."""
    cells = [new_code_cell("import interp_kit as ik"), new_code_cell(f"STUDENT = {student!r}")]
    for name in POINTS:
        if name in without:
            continue
        written = name == "q4"
        settings = {"grade_id": name, "schema_version": 3, "solution": True, "locked": False, "task": False}
        settings |= {"grade": True, "points": POINTS[name]} if written else {"grade": False}
        make = new_markdown_cell if written else new_code_cell
        cells.append(make(answers[name], metadata={"nbgrader": settings}))
        if not written:
            test = {**settings, "grade_id": f"test_{name}", "grade": True, "solution": False, "points": POINTS[name]}
            cells.append(new_code_cell("assert False, 'a test'", metadata={"nbgrader": test}))
    return new_notebook(cells=cells + [new_code_cell(code) for code in extra])


def assignments(folder):
    """source/, questions/ and release/ of the assignment, in `folder`."""
    for kind, answers in (("source", RIGHT), ("release", STUBS)):
        save(folder / kind / NAME / f"{NAME}.ipynb", notebook("...", answers))
    (folder / "questions").mkdir()
    (folder / "questions" / f"{NAME}.py").write_text(QUESTIONS)
    return folder


def submit(submissions, student, changes=None, without=(), extra=(), name=f"{NAME}.ipynb"):
    """What a student hands in: right but for the changes."""
    save(submissions / student / NAME / name, notebook(student, RIGHT | (changes or {}), without, extra))


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(content, path)


def started_since(before):
    """The processes that this one has started since then and that still run; Python's own resource_tracker may."""
    now = [process for process in psutil.Process().children() if process not in before]
    return [process for process in now if "resource_tracker" not in str(process.cmdline())]


def exchange_in(folder):
    """Lines of an nbgrader_config.py: an exchange in a new folder that all may write to."""
    folder.mkdir()
    folder.chmod(0o777)
    return f"""
c = get_config()
c.Exchange.root = {str(folder)!r}
c.CourseDirectory.course_id = "interp_kit"
c.ExchangeCollect.check_owner = False  # all students are one user here
"""


def nbgrader(folder, *arguments):
    """In the folder of a student, or of the teacher, which is also their home."""
    programs = Path(sys.executable).parent
    path = os.pathsep.join([str(programs), os.environ["PATH"]])  # nbgrader starts alembic by its name
    environment = {**os.environ, "HOME": str(folder), "PATH": path}
    command = [programs / "nbgrader", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
