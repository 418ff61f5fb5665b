"""`check`: tries what a student wrote on random input, and draws what comes out beside what was expected."""

import copy
import difflib
import random
import traceback
from collections.abc import Callable, Sequence

from ..widgets.answer_card import AnswerCard
from ..widgets.picture import Picture
from ..widgets.plain_text import printable
from .compare import CLOSE, numbers, problem, same
from .puzzles import PUZZLES, Puzzle
from .questions import answer_of

N_TRIALS = 6


class Check:
    """What came of a puzzle, shown by a notebook; true where it is solved.

    solved: whether all trials were right. message: what came out, in a sentence. hint: what may help, or "". given,
    expected: of the first trial that was wrong, else of the last; None where nothing came out.
    """

    def __init__(
        self, puzzle: Puzzle, solved: bool, message: str, hint: str = "", given: object = None, expected: object = None
    ) -> None:
        self.puzzle, self.solved, self.message, self.hint = puzzle, solved, message, hint
        self.given, self.expected = given, expected

    def __bool__(self) -> bool:
        return self.solved

    def card(self) -> AnswerCard:
        """What the notebook shows."""
        tables = {} if self.given is None else {"yours": _rows(self.given), "expected": _rows(self.expected)}
        lines = [self.message, *([f"Hint: {self.hint}"] if self.hint else [])]
        if not self.solved:
            lines.append(self.puzzle.asks + ".")
        return AnswerCard(f"{self.puzzle.name}: {'solved' if self.solved else 'not yet'}", self.solved, lines, tables)

    def picture(self) -> Picture:
        """The card, drawn."""
        return self.card().picture()

    def _repr_html_(self) -> str:
        return self.card()._repr_html_()

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        data, metadata = self.card()._repr_mimebundle_()
        return {**data, "text/plain": repr(self)}, metadata

    def __repr__(self) -> str:
        hint = f" Hint: {self.hint}" if self.hint else ""
        return printable(f"Check({self.puzzle.name}: {'solved' if self.solved else 'not yet'}. {self.message}{hint})")


def check(name: str, mine: Callable[..., object], seed: int = 0) -> Check:
    """Whether the function `mine` solves the puzzle `name`: it is called with random arguments, several times, and what
    it returns is compared with what a slow, obvious solution returns.

    What it returns is a tensor, or anything that becomes one; an error of its own is shown with its line.

    Raises ValueError for a puzzle that there is not, with the nearest name; TypeError for what cannot be called.

    >>> ik.course.check("topk", my_topk)
    """
    puzzle = _find(name)
    if not callable(mine):
        raise TypeError(f"check takes the function itself, and this is {type(mine).__name__}: my_{name} without (...)")
    draw = random.Random(f"{name} {seed}")
    trials = [puzzle.draw(draw) for _ in range(N_TRIALS)]
    given: object = None
    for number, inputs in enumerate(trials, 1):
        arguments, expected = _copied(inputs), puzzle.solution(*inputs)
        try:
            given = mine(*arguments)
        except Exception as error:  # whatever the student's function may raise
            if isinstance(error, NotImplementedError) and not error.args:  # torch's own say what is not implemented
                return Check(puzzle, False, "Nothing is written yet.")
            return Check(puzzle, False, f"It stopped with {type(error).__name__}: {error}{_line(error)}.")
        if wrong := problem(given, expected):
            return Check(puzzle, False, wrong)
        if not same(given, expected):
            hint = _hint(puzzle, mine, trials, given, expected)
            return Check(puzzle, False, f"Trial {number} of {N_TRIALS} came out otherwise.", hint, given, expected)
        if not all(same(now, before) for now, before in zip(arguments, inputs) if not callable(before)):
            return Check(puzzle, False, "Right, but the function changes what it is given: let it work on a copy.")
    return Check(puzzle, True, f"Right on all {N_TRIALS} trials.", given=given, expected=puzzle.solution(*trials[-1]))


def _find(name: str) -> Puzzle:
    if name not in PUZZLES:
        near = difflib.get_close_matches(str(name), PUZZLES, n=1)
        suggestion = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no puzzle {name!r}.{suggestion} There are: {', '.join(PUZZLES)}")
    return PUZZLES[name]


def _copied(inputs: tuple) -> list:
    return [copy.deepcopy(each) for each in inputs]


def _line(error: Exception) -> str:
    """Where in the student's function it happened, or in what that called."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is ours
    return f", in line {frames[0].lineno} of its cell: {frames[0].line}" if frames and frames[0].line else ""


# ---------------------------------------------------------------------- hints


def _hint(puzzle: Puzzle, mine: Callable, trials: Sequence[tuple], given: object, expected: object) -> str:
    """The first that fits of: a known mistake, a transposed answer, another shape, a constant, a factor."""
    answers = [answer_of(mine, inputs) for inputs in trials]
    for hint, mistake in puzzle.mistakes.items():
        if all(same(answer_of(mistake, inputs), answer) for inputs, answer in zip(trials, answers)):
            return hint
    x, y = numbers(given), numbers(expected)
    if x is None or y is None:
        return ""
    axes = f"[{', '.join(puzzle.axes)}]"
    if x.ndim == 2 and same(x.T, y):
        return f"This is transposed: expected {axes}."
    if x.shape != y.shape:
        return f"The shape is {list(x.shape)}, expected {axes}, here {list(y.shape)}."
    if not bool(x.isfinite().all()):
        return "Some numbers are not finite."
    if x.numel() > 1 and float(x.max() - x.min()) == 0:
        return "All numbers are the same: does the result depend on what the function is given?"
    ratio = float((x * y).sum() / (y * y).sum().clamp(min=1e-30))
    if ratio and same(x, y * ratio):
        return f"Right but for a factor of {ratio:.3g}."
    wrong = int(((x - y).abs() > CLOSE * float(y.abs().max())).sum())
    return f"{wrong} of {x.numel()} numbers differ: look at which." if wrong < x.numel() else ""


def _rows(value: object) -> list[list[object]]:
    """For a table: rows of numbers, or one text."""
    tensor = numbers(value)
    if tensor is None:
        return [[str(value)]]
    return tensor.reshape(-1, tensor.shape[-1] if tensor.ndim else 1).tolist() if tensor.numel() else [["nothing"]]
