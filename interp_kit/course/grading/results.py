"""What a grading found, and how it is kept: one file a submission in done/, so that a rerun grades only the rest."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from ...formats.json import read_json, write_json
from ...formats.validation import adapter_of
from ...storage.atomic import always

WAITS = "waits for a mark"
UNREAD = "nothing to grade"


@dataclass
class Graded:
    """Of one question. points: None while it waits for a person's mark. note: what kept it from being graded, for the
    teacher as well. hint: what the student is told of the answer. text: what a person reads, else the student's code.
    """

    question: str
    points: float | None
    most: float
    note: str = ""
    hint: str = ""
    text: str = ""


@dataclass
class Result:
    """Of one submission. digest: of all that it depends on, so that a rerun knows what is done. notes: for the teacher.
    late: in words, or "". seconds, memory: that its process took."""

    student: str
    assignment: str
    digest: str
    questions: list[Graded] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    late: str = ""
    predictions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    memory: int = 0

    @property
    def problems(self) -> list[str]:
        """What a teacher should look at: what is missing, or kept the grader from its work."""
        return [*self.notes, *(each.question for each in self.questions if each.note == "missing")]


def _place_of(out: Path, student: str, assignment: str) -> Path:
    return out / "done" / student / f"{assignment}.json"


def kept_result(out: Path, student: str, assignment: str) -> Result | None:
    """The result of an earlier grading, None where there is none that can be read."""
    try:
        return adapter_of(Result).validate_python(read_json(_place_of(out, student, assignment)))
    except (FileNotFoundError, ValueError):
        return None


def keep_result(out: Path, result: Result) -> Result:
    """Keeps it for a rerun, and returns it."""
    path = _place_of(out, result.student, result.assignment)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(asdict(result), path, always)
    return result
