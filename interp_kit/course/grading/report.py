"""What a teacher gets: tables of grades, a page a student, and a page of the class."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pandas as pd

from ...storage.atomic import always, atomic_file
from .marks import write_table
from .results import UNREAD, WAITS, Result
from .runner import NOTHING

HERE = Path(__file__).parent
TEMPLATES = jinja2.Environment(autoescape=True, trim_blocks=True, loader=jinja2.FileSystemLoader(HERE))


def grades(results: Sequence[Result]) -> pd.DataFrame:
    """One row a submission: student, assignment, score, max_score, notes."""
    rows = [
        (each.student, each.assignment, score(each), sum(question.most for question in each.questions), notes(each))
        for each in results
    ]
    return pd.DataFrame(rows, columns=["student", "assignment", "score", "max_score", "notes"])


def score(result: Result) -> float:
    """The points so far; an answer that waits for its mark counts none."""
    return sum(question.points or 0.0 for question in result.questions)


def notes(result: Result) -> str:
    """What the teacher should know: what is odd, missing, or could not be graded. Hints are the student's."""
    about = [f"{each.question} {each.note}" for each in result.questions if each.note]
    return "; ".join([*result.notes, *([result.late] if result.late else []), *about])


def questions(results: Sequence[Result]) -> pd.DataFrame:
    """One row a question of each submission: student, assignment, question, points (NA while it waits), max_points,
    note."""
    rows = [
        (result.student, result.assignment, each.question, each.points, each.most, each.note or each.hint)
        for result in results
        for each in result.questions
    ]
    columns = ["student", "assignment", "question", "points", "max_points", "note"]
    return pd.DataFrame(rows, columns=columns).astype({"points": "Float64"})


def item_analysis(table: pd.DataFrame) -> pd.DataFrame:
    """Which question sorts good from weak: one row a question, from the rows of `questions`.

    share: of its points that the class got. discrimination: the correlation of a student's points in it with their
    points in the others, -1 to 1; below .2 the question sorts badly, below 0 it sorts the wrong way; NA where all have
    the same. commonest: what most of those who wrote something wrong were told, and how many they are. Who handed in
    nothing that could be read is left out.
    """
    rows, table = [], table[table["note"] != UNREAD]
    for (assignment, question), part in table.groupby(["assignment", "question"], sort=False):
        points, others = _aligned(table, str(assignment), str(question))
        told = part.loc[(part["points"] < part["max_points"]) & ~part["note"].isin(["", NOTHING]), "note"]
        lost = Counter(told).most_common(1)
        rows.append(
            (
                assignment, question, len(part), part["points"].sum() / max(part["max_points"].sum(), 1e-30),
                points.corr(others) if points.nunique() > 1 and others.nunique() > 1 else pd.NA,
                f"{lost[0][0]} ({lost[0][1]})" if lost else "",
            )
        )  # fmt: skip
    columns = ["assignment", "question", "n", "share", "discrimination", "commonest"]
    return pd.DataFrame(rows, columns=columns).astype({"share": "Float64", "discrimination": "Float64"})


def write_report(results: Sequence[Result], out: Path) -> None:
    """grades.csv, questions.csv, items.csv, moodle.csv, canvas.csv, students/<student>.html and index.html in `out`."""
    table, by_question = grades(results), questions(results)
    items = item_analysis(by_question)
    write_table(table, out / "grades.csv")
    write_table(by_question, out / "questions.csv")
    write_table(items, out / "items.csv")
    write_table(moodle(table), out / "moodle.csv")
    write_table(canvas(table), out / "canvas.csv")
    pages = {name: f"students/{page_name(name)}.html" for name in dict.fromkeys(table["student"])}
    for name, page in pages.items():
        mine = [each for each in results if each.student == name]
        _write("student_page.html", out / page, student=name, results=mine, score=score, notes=notes, waits=WAITS)
    _write(
        "class_page.html", out / "index.html", table=table, items=items, pages=pages,
        predictions=predictions(results), pd=pd,
    )  # fmt: skip


def predictions(results: Sequence[Result]) -> dict[str, list[tuple[str, int]]]:
    """Of each thing predicted, the answers with how many gave them, the commonest first."""
    found: dict[str, Counter[str]] = {}
    for result in results:
        for name, answer in result.predictions.items():
            if answer:
                found.setdefault(name, Counter())[answer] += 1
    return {name: counts.most_common() for name, counts in sorted(found.items())}


def moodle(table: pd.DataFrame) -> pd.DataFrame:
    """A row a student and a column an assignment, for Grades > Import > CSV file."""
    wide = _wide(table)
    return wide.rename(columns={"student": "username"})


def canvas(table: pd.DataFrame) -> pd.DataFrame:
    """As Canvas exports its gradebook, with the points possible in the second line; students by their SIS login."""
    wide = _wide(table)
    most = table.groupby("assignment", sort=True)["max_score"].max()
    blank = pd.DataFrame(
        {"Student": wide["student"], "ID": "", "SIS User ID": "", "SIS Login ID": wide["student"], "Section": ""}
    )
    rows = pd.concat([blank, wide.drop(columns="student")], axis=1)
    possible = {"Student": "Points Possible", **dict(zip(rows.columns[1:5], [""] * 4)), **most.to_dict()}
    return pd.concat([pd.DataFrame([possible]), rows], ignore_index=True)


def page_name(student: str) -> str:
    """A file's name that a web address can hold as it is."""
    return re.sub(r"[^\w.-]", lambda odd: f"%{ord(odd[0]):x}", student)


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    return table.pivot(index="student", columns="assignment", values="score").rename_axis(columns=None).reset_index()


def _aligned(table: pd.DataFrame, assignment: str, question: str) -> tuple[pd.Series, pd.Series]:
    """Each student's points in the question, and in the others of the assignment."""
    wide = table[table["assignment"] == assignment].pivot(index="student", columns="question", values="points")
    wide = wide.astype("Float64").fillna(0).astype(float)
    return wide[question], wide.drop(columns=question).sum(axis=1)


def _write(template: str, path: Path, **values: object) -> None:
    page = TEMPLATES.get_template(template).render(**values)
    with atomic_file(path, always) as temporary:
        temporary.write_text(page, encoding="utf-8")
