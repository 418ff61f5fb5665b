"""marks.csv: where a person reads the answers that no test can judge, and gives marks. What stands there is kept."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ...storage.atomic import always, atomic_file
from ...storage.reading import read_text
from .results import WAITS, Result

COLUMNS = ["student", "assignment", "question", "mark", "most", "comment", "answer"]
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs a cell that begins so


@dataclass(frozen=True)
class Mark:
    """Of one answer. mark: the text in the column, "" while there is none. answer: what was read."""

    mark: str
    comment: str
    answer: str


Key = tuple[str, str, str]  # student, assignment, question


def read_marks(path: Path) -> dict[Key, Mark]:
    """What a person wrote so far.

    Raises ValueError for a file without its columns.
    """
    if not path.exists():
        return {}
    text = read_text(path).lstrip("\ufeff")
    rows = list(csv.DictReader(text.splitlines(keepends=True), delimiter=_delimiter(text)))
    if rows and not set(COLUMNS) - {"most"} <= set(rows[0]):
        raise ValueError(f"{str(path)!r}: expected the columns {', '.join(COLUMNS)}")
    return {
        (row["student"], row["assignment"], row["question"]): Mark(
            (row["mark"] or "").strip(), row["comment"] or "", row["answer"] or ""
        )
        for row in rows
    }


def give_marks(results: Iterable[Result], marks: dict[Key, Mark]) -> None:
    """Puts a person's marks where they belong; one that is no number, or too large, is told and waits."""
    for result in results:
        for each in result.questions:
            mine = marks.get((result.student, result.assignment, each.question))
            if each.note != WAITS or mine is None or not mine.mark:
                continue
            points = _number(mine.mark)
            if points is None or not 0 <= points <= each.most:
                each.note = f"{WAITS}: {mine.mark!r} is not between 0 and {each.most:g}"
                continue
            changed = mine.answer != plain(each.text)
            each.points, each.hint = points, mine.comment
            each.note = "the answer has changed since it was marked" if changed else ""


def write_marks(path: Path, results: Iterable[Result], marks: dict[Key, Mark]) -> None:
    """The answers to read, below each other, of `results` before `give_marks`; the marks that are there stay, also of
    submissions that are gone."""
    rows: dict[Key, dict[str, object]] = {
        key: dict(zip(COLUMNS, [*key, mark.mark, "", mark.comment, mark.answer])) for key, mark in marks.items()
    }
    for result in results:
        for each in result.questions:
            if each.note == WAITS:
                key = (result.student, result.assignment, each.question)
                kept = marks.get(key)
                answer = kept.answer if kept and kept.mark else each.text  # what was marked
                rows[key] = dict(
                    zip(COLUMNS, [*key, kept.mark if kept else "", each.most, kept.comment if kept else "", answer])
                )
    write_table(pd.DataFrame(rows.values(), columns=COLUMNS).sort_values(["assignment", "question", "student"]), path)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """A CSV file that a spreadsheet opens without running what a student wrote."""
    safe = table.map(lambda value: plain(value) if isinstance(value, str) else value)
    safe.columns = [plain(str(name)) for name in safe.columns]
    with atomic_file(path, always) as temporary:
        safe.to_csv(temporary, index=False, encoding="utf-8")


def plain(text: str) -> str:
    """With a quote before what a spreadsheet would take for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _number(text: str) -> float | None:
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _delimiter(text: str) -> str:
    """Some spreadsheets save with semicolons."""
    first = text.partition("\n")[0]
    return ";" if first.count(";") > first.count(",") else ","
