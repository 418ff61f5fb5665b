"""`grade`: runs a class's submissions, compares what they answer with what is expected, and keeps the results.

Two kinds of process take part. This one draws inputs, knows what is expected, and gives points. A student's process
(runner.py, in a sandbox) is given inputs and hands answers back; a score is nothing that it could write.
"""

import hashlib
import json
import multiprocessing
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tqdm.auto import tqdm

from ... import __version__
from ...formats.json import read_json, write_json
from ...formats.validation import check_type
from ...storage.atomic import always
from ...storage.locking import locked
from ..assignments import Assignment, assignments_folder, grade_id, is_test, load_assignment, read_notebook
from ..compare import problem, same
from ..predict import FILE as PREDICTIONS
from ..questions import N_CASES, FunctionQuestion, Question, ValueQuestion, answer_of, cases
from .marks import give_marks, read_marks, write_marks
from .report import write_report
from .results import UNREAD, WAITS, Graded, Result, keep_result, kept_result
from .runner import NOTHING, Asked, Cell
from .sandbox import end_with_parent
from .submission import Answers, run_submission
from .values import packed, unpacked

STUDENT = "STUDENT"  # the name in a notebook that says whose it is


@dataclass(frozen=True)
class Expected:
    """An assignment, with what is asked of each submission: arguments in files of `given`, and the answers to them.

    answers: of each question, the right ones and, by hint, those of one who makes that mistake.
    """

    assignment: Assignment
    given: Path
    answers: dict[str, tuple[list[object], dict[str, list[object]]]]

    def n(self, question: Question) -> int:
        """How many answers there should be."""
        return len(self.answers[question.id][0]) if isinstance(question, FunctionQuestion) else 1

    def of(self, question: Question, student: str) -> tuple[list[object], dict[str, list[object]]]:
        """The answers to a question, of a student's variant where there are some."""
        if isinstance(question, FunctionQuestion):
            return self.answers[question.id]
        assert isinstance(question, ValueQuestion)
        inputs = question.inputs(student)
        key = f"{question.id} {inputs!r}"
        if key not in self.answers:
            self.answers[key] = _answered(question, [inputs])
        return self.answers[key]


def _answered(question: Question, drawn: list[tuple]) -> tuple[list[object], dict[str, list[object]]]:
    mistakes = {hint: [answer_of(mistake, inputs) for inputs in drawn] for hint, mistake in question.mistakes.items()}
    return [question.solution(*inputs) for inputs in drawn], mistakes


def grade(
    submissions: Path, out: Path, jobs: int = 1, folder: Path | None = None, due: Mapping[str, datetime] = {}
) -> list[Result]:
    """Grades all submissions, <student>/<assignment>/<notebook>.ipynb, and writes the report (report.py) into `out`.
    What is there already, and has not changed, is not run again; marks that a person gave in marks.csv are kept.

    jobs: submissions that run at once. folder: of the assignments (assignments.py). due: when each was due.

    Raises FileNotFoundError where there is nothing to grade, ValueError for an assignment that does not fit its
    questions, or an `out` with something else in it; OSError where no process can be started.

    >>> grade(Path("submissions"), Path("grades"), jobs=2)
    """
    results = graded_submissions(submissions, out, jobs, folder or assignments_folder(), due)
    marks = read_marks(out / "marks.csv")
    write_marks(out / "marks.csv", results, marks)
    give_marks(results, marks)
    write_report(results, out)
    return results


def graded_submissions(
    submissions: Path, out: Path, jobs: int, folder: Path, due: Mapping[str, datetime]
) -> list[Result]:
    """The results, before a person's marks."""
    found = sorted(find_submissions(submissions)) if submissions.is_dir() else []
    if not found:
        raise FileNotFoundError(
            f"there is nothing to grade in {str(submissions)!r}: expected <student>/<assignment>/<notebook>.ipynb there"
        )
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()) and not (out / "seed.json").exists():
        raise ValueError(f"{str(out)!r} holds something else: expected an empty folder, or that of an earlier grading")
    seed = _seed(out)
    with locked(out / "seed.json"), tempfile.TemporaryDirectory(prefix="interp_kit-") as place:
        digests = {name: _digest_of_assignment(folder, name) for name in {each.name for each in found}}
        results, todo = [], []
        for each in found:
            digest = f"{digest_of_folder(each)} {digests[each.name]} {seed}"
            kept = kept_result(out, each.parent.name, each.name)
            if kept and kept.digest == digest:
                results.append(kept)
            else:
                todo.append((each, digest))
        expected = {
            name: prepared(load_assignment(name, folder), seed, Path(place))
            for name in sorted({each.name for each, _ in todo if digests[each.name]})
        }
        results += _run(todo, expected, out, jobs)
    for result in results:
        result.late = lateness(submissions / result.student / result.assignment, due.get(result.assignment))
    return sorted(results, key=lambda each: (each.student, each.assignment))


def find_submissions(submissions: Path) -> Iterator[Path]:
    """The folders <student>/<assignment> that hold something."""
    for student in submissions.iterdir():
        if student.is_dir() and not student.is_symlink() and not student.name.startswith("."):
            for place in student.iterdir():
                if place.is_dir() and not place.is_symlink() and not place.name.startswith("."):
                    yield place


def prepared(assignment: Assignment, seed: str, place: Path) -> Expected:
    """Draws the inputs, and answers them."""
    given = place / assignment.name
    given.mkdir()
    answers = {}
    for question in assignment.questions:
        if isinstance(question, FunctionQuestion):
            drawn = cases(question, f"{seed} {assignment.name}")
            for number, inputs in enumerate(drawn):
                text = json.dumps([packed(each, given) for each in inputs])
                (given / f"{question.id}-{number}.json").write_text(text, encoding="utf-8")
            answers[question.id] = _answered(question, drawn)
    return Expected(assignment, given, answers)


# ---------------------------------------------------------------------- running


def _run(todo: Sequence[tuple[Path, str]], expected: dict[str, Expected], out: Path, jobs: int) -> list[Result]:
    """Each result is kept as soon as it is there. A worker runs one submission at a time and holds no answer."""
    results = []
    context = multiprocessing.get_context("spawn")  # no copy of this process's memory, where the answers are
    with (
        ProcessPoolExecutor(jobs, context, end_with_parent) as pool,
        tqdm(total=len(todo), desc="submissions", unit="") as bar,
    ):
        waiting: dict[Future[Answers], tuple[Path, str, Submitted]] = {}
        for place, digest in todo:
            mine = submitted(place, expected.get(place.name))
            if mine.problem:
                results.append(
                    keep_result(out, Result(place.parent.name, place.name, digest, mine.missed, [mine.problem]))
                )
                bar.update()
            else:
                given = expected[place.name].given
                waiting[pool.submit(run_submission, place, mine.cells, mine.asked, given)] = (place, digest, mine)
        for future in as_completed(waiting):
            place, digest, mine = waiting.pop(future)
            results.append(keep_result(out, scored(place, digest, mine, future.result(), expected[place.name])))
            bar.update()
    return results


@dataclass
class Submitted:
    """What a folder holds. problem: why it cannot be run, and what it gets then."""

    cells: list[Cell] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problem: str = ""
    missed: list[Graded] = field(default_factory=list)


def submitted(place: Path, expected: Expected | None) -> Submitted:
    """The notebook of a folder, and what is to be asked of it."""
    if expected is None:
        return Submitted(problem=f"there is no assignment {place.name}")
    assignment = expected.assignment
    missed = [Graded(name, 0.0, most, UNREAD) for name, most in assignment.points.items()]
    notebooks = sorted(path for path in place.glob("*.ipynb") if path.is_file() and not path.is_symlink())
    named = [path for path in notebooks if path.stem == assignment.name] or notebooks
    if len(named) != 1:
        what = ", ".join(path.name for path in named) or "no notebook"
        return Submitted(problem=f"expected {assignment.name}.ipynb, found {what}", missed=missed)
    try:
        notebook = read_notebook(named[0])
        texts = {grade_id(cell): str(cell.source) for cell in notebook.cells if grade_id(cell)}
        code = [cell for cell in notebook.cells if cell.cell_type == "code" and not is_test(cell)]
        cells = [Cell(id=grade_id(cell), code=str(cell.source)) for cell in code]
    except (ValueError, AttributeError, TypeError) as error:
        return Submitted(problem=f"{named[0].name} cannot be read: {error}", missed=missed)
    notes = [] if named[0].stem == assignment.name else [f"the notebook is called {named[0].name}"]
    asked = [Asked(question=STUDENT, name=STUDENT, cases=[])]
    for question in assignment.questions:
        if question.id in texts:
            n = N_CASES if isinstance(question, FunctionQuestion) else 0
            files = [f"{question.id}-{number}.json" for number in range(n)]
            asked.append(Asked(question=question.id, name=question.answer, cases=files))
    return Submitted(cells, asked, texts, notes)


# ---------------------------------------------------------------------- points


def scored(place: Path, digest: str, mine: Submitted, answers: Answers, expected: Expected) -> Result:
    """What the answers are worth."""
    assignment, student = expected.assignment, place.parent.name
    result = Result(student, place.name, digest, notes=list(mine.notes), seconds=answers.seconds, memory=answers.memory)
    if answers.ended:
        result.notes.append(answers.ended)
    said = answers.values.get(STUDENT, [None])[0]
    if isinstance(said, str) and said.strip().lower() not in (student.lower(), "..."):
        result.notes.append(f"the notebook says {STUDENT} = {said!r}")
    for question in assignment.questions:
        most, text = assignment.points[question.id], mine.texts.get(question.id, "")
        note = "missing" if question.id not in mine.texts else _trouble(question, answers, expected)
        hint = "" if note else _wrong(question, student, answers, expected)
        result.questions.append(Graded(question.id, 0.0 if note or hint else most, most, note, hint, text))
    for name in assignment.written:
        text = mine.texts.get(name)
        waits = text is not None and text.strip() != assignment.stubs[name].strip()
        note, hint = WAITS if waits else "missing" if text is None else "", "" if waits else NOTHING
        result.questions.append(Graded(name, None if waits else 0.0, assignment.points[name], note, hint, text or ""))
    order = list(assignment.points)
    result.questions.sort(key=lambda each: order.index(each.question))
    result.predictions = _predictions(place)
    return result


def _trouble(question: Question, answers: Answers, expected: Expected) -> str:
    """Why there is no whole answer, in words; "" where there is one."""
    if question.id not in answers.errors and len(answers.values.get(question.id, [])) == expected.n(question):
        return ""
    found = answers.cells.get(question.id) or answers.errors.get(question.id) or answers.ended or "no answer"
    return "" if found == NOTHING else found


def _wrong(question: Question, student: str, answers: Answers, expected: Expected) -> str:
    """Why an answer is not right, in words that do not tell the right one; "" where it is."""
    given = answers.values.get(question.id, [])
    if len(given) != expected.n(question):
        return NOTHING
    try:
        right, mistaken = expected.of(question, student)
        values = [unpacked(each) for each in given]
    except (ValueError, TypeError, RecursionError) as error:  # also of a name that has no variant
        return f"not graded: {error}"[:300]
    if wrong := next((words for got, wanted in zip(values, right) if (words := problem(got, wanted))), ""):
        return wrong
    good = sum(same(got, wanted) for got, wanted in zip(values, right))
    if good == len(right):
        return ""
    fitting = (hint for hint, theirs in mistaken.items() if all(map(_alike, values, theirs)))
    return next(fitting, f"right in {good} of {len(right)} trials" if len(right) > 1 else "not right")


def _alike(given: object, mistaken: object) -> bool:
    return mistaken is not None and same(given, mistaken)


def _predictions(place: Path) -> dict[str, str]:
    """The last answer to each, from the file that `ik.course.predict` keeps."""
    try:
        content = read_json(place / PREDICTIONS)
        kept = content["predictions"] if isinstance(content, dict) else {}
        return {str(name): str(each["answers"][-1]["answer"])[:200] for name, each in kept.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return {}


# ---------------------------------------------------------------------- what is kept


def _seed(out: Path) -> str:
    """Of the inputs: drawn once for a class, so that all are asked the same, also after a rerun. A secret."""
    path = out / "seed.json"
    try:
        return str(check_type(dict[str, str], read_json(path))["seed"])
    except FileNotFoundError:
        write_json({"seed": secrets.token_hex(16)}, path, always)
        path.chmod(0o600)
        return _seed(out)
    except KeyError:
        raise ValueError(f"{str(path)!r} holds no seed: choose another folder for the grades") from None


def digest_of_folder(place: Path) -> str:
    """Of all plain files in it."""
    digest = hashlib.sha256()
    for path in sorted(place.rglob("*")):
        if path.is_file() and not path.is_symlink():
            digest.update(f"{path.relative_to(place)} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _digest_of_assignment(folder: Path, name: str) -> str:
    """Of its notebook and questions, and the kit; "" for an assignment that there is not."""
    source = folder / "source" / name / f"{name}.ipynb"
    if not source.is_file():
        return ""
    digest = hashlib.sha256(__version__.encode())
    for path in [source, *sorted((folder / "questions").glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def lateness(place: Path, due: datetime | None) -> str:
    """By how much it came after `due`, in words. timestamp.txt, which nbgrader's exchange writes, says when it came,
    else the notebook's own time."""
    if due is None:
        return ""
    try:
        text = (place / "timestamp.txt").read_text(encoding="utf-8")
        came = datetime.fromisoformat(text.strip().replace(" UTC", "+00:00"))
    except (OSError, ValueError):
        files = [path.stat().st_mtime for path in place.glob("*.ipynb")]
        came = datetime.fromtimestamp(max(files)) if files else due
    minutes = ((came.astimezone() - due.astimezone()).total_seconds()) / 60
    if minutes <= 0:
        return ""
    hours, minutes = divmod(int(minutes) or 1, 60)
    return "late by " + (f"{hours} h {minutes} min" if hours else f"{minutes} min")
