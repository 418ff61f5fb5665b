"""The puzzles of the lessons: each stands in one, unsolved, and the solution behind its fold solves it."""

import re

import nbformat
import pytest
import torch

import interp_kit as ik
from docs.lessons import LESSONS
from interp_kit.course import PUZZLES

CALL = re.compile(r'^ik\.course\.check\("(\w+)", (\w+)\)$', re.M)
SOLUTION = re.compile(r"<details><summary>Solution</summary>\n\n```python\n(.*?)```", re.S)


def puzzles() -> list[tuple[str, str, str]]:
    """(name, the cell as the student finds it, the solution of the cell below) of each puzzle in a lesson."""
    found = []
    for path in LESSONS:
        cells = nbformat.read(path, as_version=4).cells
        for cell, following in zip(cells, cells[1:]):
            if cell.cell_type == "code" and (call := CALL.search(cell.source)):
                found.append((call[1], cell.source, SOLUTION.search(following.source)[1]))
    return found


def test_each_puzzle_stands_in_one_lesson():
    assert sorted(name for name, *_ in puzzles()) == sorted(PUZZLES)


@pytest.mark.parametrize(("name", "cell", "solution"), puzzles(), ids=[name for name, *_ in puzzles()])
def test_the_solution_behind_the_fold_solves_it(name, cell, solution):
    names = {"ik": ik, "torch": torch}
    exec(cell, names)
    mine = CALL.search(cell)[2]
    assert ik.course.check(name, names[mine]).message == "Nothing is written yet."
    exec(solution, names)
    assert ik.course.check(name, names[mine])
