"""`make_exam`: what students get, what grades it, and what to ask them in a conversation."""

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from tqdm.auto import tqdm
from typing_extensions import TypedDict

from ...formats.json import read_json, write_json
from ...formats.validation import check_type
from ...storage.atomic import never
from ..grading.values import packed, unpacked
from ..questions import Question, ValueQuestion
from .questions import QUESTIONS, Asked, Case, oral
from .world import invent, learn, save_model


class Entry(TypedDict):
    """Of a student's question: the right answer and, by hint, what mistakes give; packed (values.py)."""

    answer: object
    mistakes: dict[str, object]


Key = dict[str, dict[str, Entry]]  # of exam.json: by student, by question
NAME = "exam"
POINTS = {"auto": 3.0, "written": 6.0}
WRITTEN = f"q{len(QUESTIONS) + 1}"
STUB = "*Your answer, in at most 200 words.*"
QUESTIONS_FILE = '''"""The answers of this exam, by student: in exam.json, beside this file."""

from pathlib import Path

from interp_kit.course.exam import exam_questions

QUESTIONS = exam_questions(Path(__file__).with_name("exam.json"))
'''
ABOUT = """# Exam

**Time:** {minutes} minutes. **Points:** {points:g}, of which {written:g} are for the last question, which a person
reads.

The model in this folder has learnt a world that was invented for today; so has its transcoder. Your prompt is your own,
and so are the numbers in the questions. Every answer is the value of a variable: leave its name, and write what it is.
You may use the kit, its documentation, and all that you wrote in the problem sets."""
SETUP = """import interp_kit as ik

model = ik.load_model("model")
transcoder = ik.load_transcoder("transcoder")
prompt = "{prompt}"
answer = "{answer}"
graph = ik.attribute(model, transcoder, prompt, target=answer)
graph.prune().show()"""
ASSAY = """## {number} · What would you say? ({points:g} points, read by a person)

In at most 200 words: how does the model get from your city to its answer? Name two features with what they stand for,
the evidence for it, and one sentence that your graph seems to say and that you do not believe, with the experiment
that would decide."""


def make_exam(seed: str, students: Sequence[str], out: Path) -> None:
    """Writes `out`/students/<student>/exam/ with a notebook, the model and its transcoder; `out`/key/, a folder of
    assignments with which `python -m interp_kit.course grade ... --assignments out/key` grades; and
    `out`/oral/<student>.md with three questions on the student's own graph. Two or three minutes on one core, and some
    seconds a student.

    seed: of names, weights and questions; keep it as secret as the key.

    Raises FileExistsError where `out` is not empty, ValueError for names that no folder can have, or that occur twice,
    and for an `out` inside a clone of the kit.

    >>> make_exam("spring", ["ada", "bob"], Path("exam"))
    """
    _check(students, out)
    world = invent(seed, len(students))
    model, transcoder = learn(world, random.Random(f"weights {seed}").randrange(2**31))
    cities = random.Random(f"cities {seed}").sample(sorted(world.state_of), len(students))
    shared = out / "key" / "world"
    save_model(model, shared / "model")
    transcoder.save(shared / "transcoder")
    answers: Key = {}
    for student, city in tqdm(list(zip(students, cities)), desc="exams", unit="student"):
        case = Case(world, model, transcoder, city, random.Random(f"{seed} {city}"))
        asked = [question(case) for question in QUESTIONS]
        answers[student.lower()] = {f"q{number}": _entry(each) for number, each in enumerate(asked, 1)}
        folder = out / "students" / student / NAME
        shutil.copytree(shared, folder)
        _save(_notebook(case, asked), folder / f"{NAME}.ipynb")
        (out / "oral").mkdir(exist_ok=True)
        talk = "\n\n".join(f"{number}. {text}\n\n   {known}" for number, (text, known) in enumerate(oral(case), 1))
        (out / "oral" / f"{student}.md").write_text(f"# {student}: {case.prompt}\n\n{talk}\n", encoding="utf-8")
    _save_key(out / "key", answers)


def exam_questions(path: Path) -> tuple[Question, ...]:
    """The questions of an exam's key, exam.json.

    Raises ValueError for another file.
    """
    try:
        answers = check_type(Key, read_json(path))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not the key of an exam: {error}") from None
    if not answers:
        raise ValueError(f"{str(path)!r} is not the key of an exam: it holds no student")
    ids, hints = list(next(iter(answers.values()))), sorted(
        {(name, hint) for each in answers.values() for name in each for hint in each[name]["mistakes"]}
    )  # fmt: skip
    return tuple(
        ValueQuestion(
            name,
            name,
            lambda entry: unpacked(entry["answer"]),
            {hint: lambda entry, hint=hint: unpacked(entry["mistakes"].get(hint)) for of, hint in hints if of == name},
            lambda student, name=name: (_of_student(answers, student)[name],),
        )
        for name in ids
    )


def _of_student(answers: Key, student: str) -> dict[str, Entry]:
    if student.strip().lower() not in answers:
        raise ValueError(f"there is no exam for {student!r}")
    return answers[student.strip().lower()]


def _entry(asked: Asked) -> Entry:
    mistakes = {hint: packed(value) for hint, value in asked.mistakes.items() if value != asked.answer}
    return Entry(answer=packed(asked.answer), mistakes=mistakes)


def _check(students: Sequence[str], out: Path) -> None:
    names = [name.strip().lower() for name in students]
    for name in students:
        if not name.strip() or Path(name).name != name or name.startswith("."):
            raise ValueError(f"{name!r} cannot be the name of a student's folder")
    if len(set(names)) < len(names) or not names:
        raise ValueError("expected the names of students, each once")
    if any((parent / "notebooks" / "assignments").is_dir() for parent in out.resolve().parents):
        raise ValueError(f"{str(out)!r} lies in a clone of the kit, where its key would be committed: choose another")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{str(out)!r} is there already: an exam needs an empty folder")
    out.mkdir(parents=True, exist_ok=True)


# ---------------------------------------------------------------------- notebooks


def _notebook(case: Case, asked: Sequence[Asked]) -> nbformat.NotebookNode:
    total = POINTS["auto"] * len(asked) + POINTS["written"]
    cells = [
        new_markdown_cell(ABOUT.format(minutes=90, points=total, written=POINTS["written"])),
        new_code_cell(SETUP.format(prompt=case.prompt, answer=case.capital)),
    ]
    for number, each in enumerate(asked, 1):
        cells.append(new_markdown_cell(f"## {number} ({POINTS['auto']:g} points)\n\n{each.text}"))
        cells.append(new_code_cell(f"q{number} = ...", metadata=_graded(f"q{number}", solution=True)))
        test = _graded(f"test_q{number}", points=POINTS["auto"], locked=True)
        cells.append(new_code_cell(f'assert q{number} is not ..., "not answered yet"', metadata=test))
    cells.append(new_markdown_cell(ASSAY.format(number=len(asked) + 1, points=POINTS["written"])))
    cells.append(new_markdown_cell(STUB, metadata=_graded(WRITTEN, solution=True, points=POINTS["written"])))
    for number, cell in enumerate(cells):
        cell.id = str(number)
    about = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}}
    return new_notebook(cells=cells, metadata=about)


def _graded(name: str, solution: bool = False, points: float | None = None, locked: bool = False) -> dict:
    """nbgrader's metadata of a cell."""
    settings = {"grade_id": name, "schema_version": 3, "solution": solution, "locked": locked, "task": False}
    return {"nbgrader": settings | ({"grade": False} if points is None else {"grade": True, "points": points})}


def _save_key(key: Path, answers: Key) -> None:
    """As a folder of assignments: any student's notebook tells ids and points."""
    blank = next(key.parent.glob(f"students/*/{NAME}/{NAME}.ipynb"))
    for part in ("source", "release"):
        (key / part / NAME).mkdir(parents=True)
        shutil.copy(blank, key / part / NAME)
    (key / "questions").mkdir()
    (key / "questions" / f"{NAME}.py").write_text(QUESTIONS_FILE, encoding="utf-8")
    write_json(answers, key / "questions" / "exam.json", never)


def _save(notebook: nbformat.NotebookNode, path: Path) -> None:
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
