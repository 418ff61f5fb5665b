"""The command line of a course: python -m interp_kit.course grade | exam | otter."""

import argparse
import sys
from datetime import datetime
from pathlib import Path

from ..widgets.plain_text import printable


def main(arguments: list[str] | None = None) -> None:
    """Runs one command; `arguments` are those of the command line, by default this process's own."""
    parser = argparse.ArgumentParser(prog="python -m interp_kit.course", description="Assignments and their grading.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("grade", help="grade a class's submissions", description=grade.__doc__)
    one.set_defaults(function=grade)
    one.add_argument("submissions", type=Path, help="<student>/<assignment>/<notebook>.ipynb are in it")
    one.add_argument("out", type=Path, help="an empty folder, or that of the last time")
    one.add_argument("--jobs", type=_at_least_one, default=1, help="submissions that run at once (about 1 GB each)")
    one.add_argument("--due", type=_due, action="append", default=[], metavar="NAME=2026-12-01T18:00",
                     help="when an assignment was due, by this machine's clock or with +01:00")  # fmt: skip
    one.add_argument("--assignments", type=Path, help="a folder with source/ and questions/; by default the kit's")
    one = commands.add_parser("exam", help="make an exam on a world of its own", description=exam.__doc__)
    one.set_defaults(function=exam)
    one.add_argument("out", type=Path, help="an empty folder outside of the repository")
    one.add_argument("--seed", required=True, help="of the world; keep it secret")
    one.add_argument("--students", required=True, help="how many, or a text file with a name a line")
    one = commands.add_parser("otter", help="an assignment for otter-grader", description=otter.__doc__)
    one.set_defaults(function=otter)
    one.add_argument("name", help="of the assignment")
    one.add_argument("out", type=Path, help="an empty folder")
    one.add_argument("--assignments", type=Path, help="a folder with source/ and questions/; by default the kit's")
    given = vars(parser.parse_args(arguments))
    function = given.pop("function")
    given.pop("command")
    try:
        sys.exit(function(**given))
    except (ImportError, MemoryError, OSError, RuntimeError, ValueError) as error:
        sys.exit(printable(str(error)))


def grade(submissions: Path, out: Path, jobs: int, due: list[tuple[str, datetime]], assignments: Path | None) -> int:
    """Runs each submission in a process of its own and writes grades.csv, a page a student, index.html for the class,
    and marks.csv for the answers that a person reads: put marks there, and run the command again. Exit code 1:
    something is missing or could not be graded; the notes in grades.csv say what."""
    _check_extra()
    from .grading import grade as grading
    from .grading import report

    results = grading.grade(submissions, out, jobs, assignments, dict(due))
    table = report.grades(results)
    print(printable(f"{len(table)} submissions: {out / 'index.html'}"))
    waiting = sum(each.points is None for result in results for each in result.questions)
    if waiting:
        print(f"{waiting} answers wait for a mark in {printable(str(out / 'marks.csv'))}")
    for row in table[[bool(result.problems) for result in results]].itertuples():
        print(printable(f"{row.student} {row.assignment}: {row.notes}"))
    return int(any(result.problems for result in results))


def exam(out: Path, seed: str, students: str) -> int:
    """Invents a world, trains a model on it, and writes for each student a notebook with questions of their own
    (students/), the key that grades it (key/), and three questions for a conversation (oral/)."""
    _check_extra()
    from .exam import make_exam

    if students.isdecimal():
        names = [f"student-{number:02d}" for number in range(1, int(students) + 1)]
    else:
        names = [line.strip() for line in Path(students).read_text(encoding="utf-8").splitlines() if line.strip()]
    make_exam(seed, names, out)
    print(printable(f"{len(names)} exams: {out / 'students'}. To grade them: grade SUBMISSIONS OUT "
                    f"--assignments {out / 'key'}"))  # fmt: skip
    return 0


def otter(name: str, out: Path, assignments: Path | None) -> int:
    """Writes an assignment as otter-grader wants it: student/ to hand out, autograder/tests/ to grade with."""
    _check_extra()
    from .otter import export_otter

    export_otter(name, out, assignments)
    print(printable(f"{name}: {out / 'student'} for students, {out / 'autograder'} for otter-grader"))
    return 0


def _check_extra() -> None:
    try:
        import nbformat  # noqa: F401  of the extra
    except ImportError:
        raise ImportError('this needs the extra: pip install "interp_kit[grading]"') from None


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return number


def _due(text: str) -> tuple[str, datetime]:
    name, _, time = text.partition("=")
    try:
        return name, datetime.fromisoformat(time)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NAME=2026-12-01T18:00, got {text!r}") from None


if __name__ == "__main__":
    main()
