"""One submission: what it holds, and what its notebook answers in a process of its own."""

import json
import os
import shutil
import stat
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from .runner import ANSWERS, GIVEN, TASK, Asked, Cell, Task
from .sandbox import Limits, run_limited, student_user

CELL_SECONDS, CALL_SECONDS = 30.0, 20.0
RESTARTS = 5  # of a process that a cell ended
MOST_ANSWERS = 64 * 2**20  # bytes that are read of what a student's process wrote
LIMITS = Limits()
VARIABLES = {  # of its environment
    "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1",
}  # fmt: skip


@dataclass
class Answers:
    """What a student's process handed back. Nothing in it is trusted.

    values: of each question, packed, one for each case. errors: of questions, cells: of cells, in words. ended: why
    the process was stopped; "" where it ended well. seconds, memory: what it took (bytes).
    """

    values: dict[str, list[object]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    cells: dict[str, str] = field(default_factory=dict)
    ended: str = ""
    seconds: float = 0.0
    memory: int = 0


def run_submission(
    folder: Path, cells: list[Cell], asked: list[Asked], given: Path, limits: Limits = LIMITS
) -> Answers:
    """Runs the cells in a copy of the student's folder, and asks.

    given: the folder with arguments (values.py). A cell that ends the whole process is left out, and the rest runs
    again, within the same time.

    Raises OSError where a process cannot be started.
    """
    task = Task(cells=cells, asked=asked, cell_seconds=CELL_SECONDS, call_seconds=CALL_SECONDS, skipped=[], slow=[])
    start, memory, answers = time.monotonic(), 0, Answers()
    for _ in range(RESTARTS):
        left = replace(limits, seconds=limits.seconds - (time.monotonic() - start))
        with tempfile.TemporaryDirectory(prefix="interp_kit-", ignore_cleanup_errors=True) as place:
            work = Path(place)
            copy_plain_files(folder, work)
            shutil.copytree(given, work / GIVEN)
            (work / TASK).write_text(json.dumps(task), encoding="utf-8")
            # -P, -s: a student's own json.py does not take the place of Python's before the process is closed
            command = [sys.executable, "-P", "-s", "-m", f"{__package__}.runner"]
            ended = run_limited(command, work, left, VARIABLES | _path(), user=student_user())
            lines = _lines(work / ANSWERS)
        memory, answers = max(memory, ended.memory), _read(lines)
        answers.ended = ended.stopped or ("" if lines and lines[-1].get("finished") else "its process ended early")
        last = next((str(line["begins"]) for line in reversed(lines) if "begins" in line), "")
        if not answers.ended or ended.stopped or last in task["skipped"] or not last:
            break
        task["skipped"].append(last)
        task["slow"] = [str(line["slow"]) for line in lines if line.get("slow")]
    answers.seconds, answers.memory = time.monotonic() - start, memory
    return answers


def copy_plain_files(source: Path, target: Path, most: int = 50 * 2**20) -> None:
    """Copies files and folders, no links or devices, as long as they are not too large together."""
    for place, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".") and not Path(place, name).is_symlink()]
        for name in names:
            path = Path(place, name)
            status = path.lstat()
            most -= status.st_size
            if stat.S_ISREG(status.st_mode) and most > 0:
                copy = target / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


def _path() -> dict[str, str]:
    """Where the kit lies, for a process that starts elsewhere."""
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _lines(path: Path) -> list[dict]:
    """Of the answers, as far as they can be read."""
    lines = []
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return []
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file.read(MOST_ANSWERS).splitlines():
                lines.append(json.loads(line))
    except (OSError, ValueError, RecursionError):
        pass  # the line that a killed process did not finish, or something forged
    return [line for line in lines if isinstance(line, dict)]


def _read(lines: list[dict]) -> Answers:
    answers = Answers()
    for line in lines:
        question, cell = line.get("question"), line.get("cell")
        if isinstance(question, str) and "answer" in line:
            answers.values.setdefault(question, []).append(line["answer"])
        elif isinstance(question, str):
            answers.errors[question] = str(line.get("error"))[:300]
        elif isinstance(cell, str):
            answers.cells.setdefault(cell, str(line.get("ended"))[:300])
    return answers
