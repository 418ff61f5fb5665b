"""The process in which a student's notebook runs: python -m interp_kit.course.grading.runner

It works in its folder, and nowhere else. task.json names the cells and what is asked afterwards; given/ holds inputs;
answers.jsonl gets a line for each thing that begins or ends. No score is known here, nor what is expected.
"""

import faulthandler
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from typing_extensions import TypedDict

from ...storage.shipped import cache_folder, data_folder
from .landlock import close_all_but, landlock_version

T = TypeVar("T")
TASK, GIVEN, ANSWERS = "task.json", "given", "answers.jsonl"
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/dev/urandom", "/proc", "/sys")
DEVICES = ("/dev/null", "/dev/zero")
NOTHING, ENDED = "nothing is written yet", "it ended the whole process, or would not end"
SECOND_SECONDS = 2.0
LATE_SECONDS = 3  # a cell that goes on for so long after its time ends the process


class Cell(TypedDict):
    """A cell of code. id: its grade_id, or "" for one that is not graded."""

    id: str
    code: str


class Asked(TypedDict):
    """What is asked about once the cells have run. cases: the files of given/ with arguments for a function; empty for
    a value."""

    question: str
    name: str
    cases: list[str]


class Task(TypedDict):
    """Of task.json. skipped: what ended the process before, so that it does not again ("cell 3", "q2 case 0").
    slow: cells that ran out of time before; they get `SECOND_SECONDS` now."""

    cells: list[Cell]
    asked: list[Asked]
    cell_seconds: float
    call_seconds: float
    skipped: list[str]
    slow: list[str]


class OutOfTimeError(BaseException):
    """No Exception: a cell that catches its own errors should not catch this one."""


def main() -> None:
    """Runs the cells, then asks for the answers."""
    task: Task = json.loads(Path(TASK).read_text(encoding="utf-8"))
    given = {
        name: json.loads(Path(GIVEN, name).read_text(encoding="utf-8"))
        for each in task["asked"]
        for name in each["cases"]
    }
    folder = Path.cwd()
    if landlock_version():
        kit = [Path(__file__).parents[2], data_folder(), Path(sys.prefix), Path(sys.base_prefix)]
        close_all_but([*map(Path, SYSTEM), *kit, cache_folder()], [folder, *map(Path, DEVICES)])
    sys.path.insert(0, str(folder))  # a student's own modules
    with open(folder / ANSWERS, "a", encoding="utf-8") as answers:

        def say(**line: object) -> None:
            answers.write(json.dumps(line) + "\n")
            answers.flush()

        names = _run_cells(task, say)
        for asked in task["asked"]:
            _ask(asked, names, given, task, folder / GIVEN, say)
        say(finished=True)


def _run_cells(task: Task, say: Callable[..., None]) -> dict[str, object]:
    """What the cells left, by name."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}, InteractiveShell={"colors": "NoColor"}))
    for number, cell in enumerate(task["cells"]):
        step = f"cell {number}"
        if step in task["skipped"]:
            say(cell=cell["id"], ended=ENDED)
            continue
        say(begins=step)
        seconds = SECOND_SECONDS if step in task["slow"] else task["cell_seconds"]
        result, late = _in_time(lambda code=cell["code"]: shell.run_cell(code), seconds)
        error = late or (result and (result.error_before_exec or result.error_in_exec))
        if error:
            slow = step if isinstance(error, OutOfTimeError) else ""
            say(cell=cell["id"], ended=_in_words(error, task["cell_seconds"]), slow=slow)
    return shell.user_ns


def _ask(
    asked: Asked, names: dict[str, object], given: dict[str, list], task: Task, folder: Path, say: Callable[..., None]
) -> None:
    from .values import packed

    question, mine, seconds = asked["question"], names.get(asked["name"]), task["call_seconds"]
    if asked["name"] not in names:
        say(question=question, error=f"there is no {asked['name']}")
    elif mine is ...:
        say(question=question, error=NOTHING)
    elif not asked["cases"]:
        answer, error = _in_time(lambda: packed(mine), seconds)
        say(question=question, **({"error": _in_words(error, seconds)} if error else {"answer": answer}))
    elif not callable(mine):
        say(question=question, error=f"{asked['name']} is not a function")
    else:
        _call(mine, asked, given, task, folder, say)


def _call(
    function: Callable[..., object], asked: Asked, given: dict[str, list], task: Task, folder: Path,
    say: Callable[..., None],
) -> None:  # fmt: skip
    """The student's function, on one input after another until something goes wrong."""
    from .values import packed, unpacked

    question, seconds = asked["question"], task["call_seconds"]
    for number, name in enumerate(asked["cases"]):
        step = f"{question} case {number}"
        if step in task["skipped"]:
            say(question=question, error=ENDED)
            break
        say(begins=step)
        arguments = [unpacked(each, folder) for each in given[name]]
        answer, error = _in_time(lambda inputs=arguments: packed(function(*inputs)), seconds)
        if error:
            say(question=question, error=_in_words(error, seconds))
            break
        say(question=question, answer=answer)


def _in_time(function: Callable[[], T], seconds: float) -> tuple[T | None, BaseException | None]:
    """What it returns or raises. If it goes on after its time, what runs in the process is interrupted; if that does
    not help, the process ends."""

    def interrupt(*_: object) -> None:
        raise OutOfTimeError

    signal.signal(signal.SIGALRM, interrupt)
    faulthandler.dump_traceback_later(seconds + LATE_SECONDS, exit=True, file=_nowhere)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return function(), None
    except BaseException as error:  # whatever a student's function may raise, SystemExit as well
        return None, error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def _in_words(error: BaseException, seconds: float) -> str:
    if isinstance(error, OutOfTimeError):
        return f"it took over {seconds:g} seconds"
    if isinstance(error, NotImplementedError) and not error.args:
        return NOTHING
    return f"{type(error).__name__}: {error}"[:300]


_nowhere = open(os.devnull, "w", encoding="utf-8")  # of what faulthandler prints


if __name__ == "__main__":
    main()
