"""`predict`: a box that keeps what a student expects to see, before it is seen.

All predictions of a course lie in one JSON file, which outlives the kernel and can be handed in. A prediction that is
changed keeps what it was: a file holds every answer with its time.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
from typing_extensions import TypedDict

from ..formats.json import read_json, write_json
from ..formats.validation import check_type
from ..storage.atomic import resolved
from ..storage.locking import locked
from ..widgets.live import Live
from ..widgets.picture import Picture
from ..widgets.plain_text import printable
from ..widgets.sheet import Run, Sheet, quiet

FILE = "predictions.json"


class Answer(TypedDict):
    """What was predicted, and when (UTC, ISO 8601)."""

    answer: str
    at: str


class Kept(TypedDict):
    """A question, and its answers from the first to the last."""

    question: str
    answers: list[Answer]


class PredictionsFile(TypedDict):
    """Of predictions.json."""

    predictions: dict[str, Kept]


class Prediction(Live, widgets.VBox):
    """A question and a box for the answer, which is kept in `file` when typing ends.

    name: of the question in the file. answer: what is in the box; settable.

    >>> box = ik.course.predict("austin", "After which layer is Austin the likeliest token?")
    >>> box.answer
    ''
    """

    def __init__(self, name: str, question: str, options: Sequence[str] | None, file: Path) -> None:
        self.name, self.question, self.file = name, question, file
        kept = _read(file).get(name)
        answer = kept["answers"][-1]["answer"] if kept else ""
        if options is None:
            self._box = widgets.Textarea(answer, placeholder="your prediction", continuous_update=False, rows=2)
        else:
            chosen = answer if answer in options else None
            self._box = widgets.ToggleButtons(options=list(options), value=chosen)
        self._box.layout.width = "100%"
        self._note = widgets.HTML(_when(kept))
        self._box.observe(self._keep, "value")
        super().__init__([widgets.HTML(f"<b>{escape(question)}</b>"), self._box, self._note])

    @property
    def answer(self) -> str:
        """What is in the box."""
        return self._box.value or ""

    @answer.setter
    def answer(self, text: str) -> None:
        if isinstance(self._box, widgets.ToggleButtons):
            self._box.value = text or None
        else:
            self._box.value = text

    def picture(self) -> Picture:
        """The question and the answer."""
        sheet = Sheet(f"prediction: {self.question}")
        sheet.flow([Run(self.question, bold=True)])
        sheet.flow([Run(self.answer) if self.answer else quiet("no prediction yet")])
        return Picture(sheet.finished(), f"{sheet.about} {self.answer}")

    def __repr__(self) -> str:
        return printable(f"Prediction({self.question!r}: {self.answer!r})")

    def _keep(self, _: object) -> None:
        try:
            kept = _add(self.file, self.name, self.question, self.answer)
        except (OSError, ValueError) as error:  # typing should not raise, and nothing be lost silently
            self._note.value = f"<b>not kept:</b> {escape(str(error))}"
        else:
            self._note.value = _when(kept)


def predict(
    name: str, question: str = "Your prediction", options: Sequence[str] | None = None, file: str | Path = FILE
) -> Prediction:
    """A box for a prediction. What is typed into it is kept in `file`, in the folder of the notebook, and is there
    again after the kernel's restart.

    name: of the question in the file. question: what is asked, where the text above does not say it. options: answers
        to choose from, instead of a text.

    Raises ValueError for a name or a question that is empty, options that are not different texts, and a file that
    holds something else.

    >>> ik.course.predict("austin", "After which layer is Austin the likeliest token?")
    """
    for what, text in (("name", name), ("question", question)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{what}: expected some words, got {text!r}")
    texts = [] if isinstance(options, str) else [each for each in options or () if isinstance(each, str) and each]
    if options is not None and not 2 <= len(set(texts)) == len(options):
        raise ValueError(f"options: expected different texts to choose from, got {options!r:.100}")
    return Prediction(name, question, options, resolved(file))


def predictions(file: str | Path = FILE) -> pd.DataFrame:
    """What was predicted: one row a question, in the order of the first answers.

    Columns: name, question, answer (the last one), first_answer, at (when the first was given, UTC) and n_answers.

    Raises FileNotFoundError where nothing was predicted yet, ValueError for a file that holds something else.

    >>> ik.course.predictions()
    """
    path = resolved(file)
    if not path.exists():
        raise FileNotFoundError(f"there is no {str(path)!r}: ik.course.predict(name, question) keeps predictions there")
    rows = []
    for name, kept in _read(path).items():
        first, last = kept["answers"][0], kept["answers"][-1]
        rows.append((name, kept["question"], last["answer"], first["answer"], first["at"], len(kept["answers"])))
    columns = ["name", "question", "answer", "first_answer", "at", "n_answers"]
    return pd.DataFrame(rows, columns=columns).sort_values("at", kind="stable", ignore_index=True)


def _read(file: Path) -> dict[str, Kept]:
    """Raises ValueError for a file that holds no predictions."""
    if not file.exists():
        return {}
    try:
        found = check_type(PredictionsFile, read_json(file))["predictions"]
        if empty := [name for name, kept in found.items() if not kept["answers"]]:
            raise ValueError(f"predictions.{empty[0]} has no answer")
    except ValueError as error:
        raise ValueError(f"{str(file)!r} does not hold predictions ({error}): move it away, or give file=") from None
    return found


def _add(file: Path, name: str, question: str, answer: str) -> Kept:
    """Keeps an answer after those that are there. Another notebook may write to the same file meanwhile."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.parent):
        found = _read(file)
        before = found[name]["answers"] if name in found else []
        now = Answer(answer=answer, at=datetime.now(UTC).isoformat(timespec="seconds"))
        found[name] = Kept(question=question, answers=[*before, now])
        write_json({"predictions": found}, file, replaces=_is_ours)
    return found[name]


def _is_ours(file: Path) -> bool:
    _read(file)  # or ValueError
    return True


def _when(kept: Kept | None) -> str:
    if not kept:
        return "<i>kept when you leave the box</i>"
    last = kept["answers"][-1]
    return f"<i>kept {escape(last['at'].replace('T', ' ').removesuffix('+00:00'))} UTC</i>"
