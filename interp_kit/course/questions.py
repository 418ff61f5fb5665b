"""What a graded question is made of: how its inputs are drawn, a solution, and the mistakes that are often made.

A teacher's file of an assignment, `questions/<assignment>.py`, lists them in QUESTIONS. It never reaches a student's
process: that is given inputs, and hands back answers (grading/).
"""

import copy
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .compare import same

Option = TypeVar("Option")
N_CASES = 6  # times that a function is called
MOST_DRAWS = 20


@dataclass(frozen=True)
class Question:
    """What both kinds of question have."""

    id: str
    "of the student's cell in the notebook, its grade_id: q1"
    answer: str
    "the name that the cell should give a value to"
    solution: Callable[..., object]
    "the expected answer, from the inputs; written to be read"
    mistakes: Mapping[str, Callable[..., object]]
    "what is often answered instead, by the hint that helps then"


@dataclass(frozen=True)
class FunctionQuestion(Question):
    """The student writes a function; it is called with inputs that the grader draws afresh.

    >>> FunctionQuestion("q1", "share_alive", solution, {"...": mistake}, draw=lambda draw: (normal(draw, 5, 8),))
    """

    draw: Callable[[random.Random], tuple]
    "random arguments: numbers, texts, tensors, lists and dictionaries of them, attribution graphs"


@dataclass(frozen=True)
class ValueQuestion(Question):
    """The student finds a value; each has a variant of the question.

    >>> ValueQuestion("q4", "strongest", solution, {}, inputs=lambda student: (variant(student, "q4", CITIES),))
    """

    inputs: Callable[[str], tuple]
    "of the student's variant, by the student's name"


def variant(student: str, question: str, options: Sequence[Option]) -> Option:
    """Which of the options is this student's, for one question: always the same, and spread evenly over a class.

    student: the name as the folder of the submissions has it; case and blanks at its ends do not matter.

    Raises ValueError for an empty name, or no options.

    >>> ik.course.variant("ada", "q4", ["Dallas", "Oakland", "Miami"])
    'Oakland'
    """
    if not isinstance(student, str) or not student.strip() or student.strip() == "...":
        raise ValueError(f"student: expected your name as your teacher has it, got {student!r}")
    if not options:
        raise ValueError("options: there are none to choose from")
    digest = hashlib.sha256(f"{question} {student.strip().lower()}".encode()).digest()
    return options[int.from_bytes(digest[:8], "big") % len(options)]


def cases(question: FunctionQuestion, seed: str) -> list[tuple]:
    """The arguments with which a function is called; another seed draws others. They are drawn again until each known
    mistake gives itself away in one of them.

    Raises ValueError where a mistake never does: it is none.
    """
    for trial in range(MOST_DRAWS):
        drawn = [question.draw(random.Random(f"{seed} {question.id} {trial} {number}")) for number in range(N_CASES)]
        right = [question.solution(*inputs) for inputs in drawn]
        hidden = [hint for hint, mistake in question.mistakes.items() if _passes(mistake, drawn, right)]
        if not hidden:
            return drawn
    raise ValueError(f"{question.id}: this mistake is never seen in what is drawn: {hidden[0]}")


def answer_of(function: Callable[..., object], inputs: tuple) -> object:
    """What it returns; None where it raises, as a mistake may on some inputs."""
    try:
        return function(*copy.deepcopy(inputs))
    except Exception:
        return None


def _passes(mistake: Callable[..., object], drawn: list[tuple], right: list[object]) -> bool:
    return all(same(answer_of(mistake, inputs), expected) for inputs, expected in zip(drawn, right))
