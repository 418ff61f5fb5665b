"""Every lesson is run once: the tests check the executed copy, and the documentation shows it.

python docs/lessons.py                 run the lessons that changed since they last ran (`make docs` begins with it)
python docs/lessons.py keep 00_tour    write a lesson's outputs into the notebook: for the one that is read first

An executed copy lies in build/lessons/. It holds what it was made of: a hash of the notebook, its checks, the package
and the shipped data. While that stays the same, the copy is used again. It also holds what running it took, and who in
it tried to reach out of this machine: there is no network for a lesson.
"""

import hashlib
import os
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from filelock import FileLock
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
CHECKS = ROOT / "tests" / "lessons"  # <lesson>.py: what must hold for the names that the lesson's cells leave
EXECUTED = ROOT / "build" / "lessons"
NO_NETWORK = ROOT / "tests" / "no_network"  # closes a Python's way out of this machine, where it is searched first
MADE_OF = [ROOT / "interp_kit", ROOT / "data", NO_NETWORK, Path(__file__)]

LIVE_VIEW = "application/vnd.jupyter.widget-view+json"

LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))
LONGEST = 600  # seconds that one cell may take on a busy machine
# As a file, so that a failed check shows its file and line.
RUN_CHECKS = "exec(compile(open({0!r}, encoding='utf-8').read(), {0!r}, 'exec'))"
# What a library warns of in a call of ours is shown too, though Python hides it from those who did not write the call:
# tests/test_notebooks.py fails on any warning.
SHOW_WARNINGS = """
import warnings
for kind in (DeprecationWarning, PendingDeprecationWarning):
    warnings.filterwarnings("default", category=kind, module="interp_kit")
"""
# One thread: the sums do not differ from run to run.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
# The most memory that the kernel has held, and each of the processes that it started, in MB.
TELL_MEMORY = """
import psutil
def _most(process):
    lines = open(f"/proc/{process.pid}/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
_me = psutil.Process()
print(*map(_most, [_me, *_me.children(recursive=True)]))
"""


def executed(lesson: Path) -> nbformat.NotebookNode:
    """The lesson with its outputs, run now if it has changed since it last ran.

    `metadata.interp_kit` tells the processor seconds that it took, the MB of memory, and the attempts to reach out of
    this machine. Raises nbclient's CellExecutionError where a cell or the lesson's checks fail; then nothing is kept.
    """
    EXECUTED.mkdir(parents=True, exist_ok=True)
    with FileLock(EXECUTED / f"{lesson.stem}.lock"):  # tests may run side by side
        if kept := _kept(lesson):
            return kept
        notebook = nbformat.read(lesson, as_version=4)
        notebook.metadata["interp_kit"] = _run(notebook, _checks(lesson)) | {"made_of": _made_of(lesson)}
        nbformat.write(notebook, EXECUTED / lesson.name)
    return notebook


def keep_outputs(lesson: Path) -> None:
    """Writes the outputs into the notebook itself, without the live views: nothing answers them there, and each has
    left its picture."""
    notebook, ran = nbformat.read(lesson, as_version=4), executed(lesson)
    for cell, copy in zip(notebook.cells, ran.cells):
        if cell.cell_type == "code":
            cell.execution_count = copy.execution_count
            cell.outputs = [output for output in copy.outputs if LIVE_VIEW not in output.get("data", {})]
    nbformat.write(notebook, lesson)


def _kept(lesson) -> nbformat.NotebookNode | None:
    """The executed copy, where there is one of just this lesson and code."""
    if not (EXECUTED / lesson.name).exists():
        return None
    notebook = nbformat.read(EXECUTED / lesson.name, as_version=4)
    return notebook if notebook.metadata.interp_kit.made_of == _made_of(lesson) else None


def _run(notebook, checks) -> dict[str, object]:
    """Fill in the outputs; returns seconds, megabytes (of the kernel and its own processes, and of the kernel alone)
    and network. The seconds are those that the kernel and its own processes computed, not wall time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    client = NotebookClient(
        notebook,
        timeout=LONGEST,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOKS)}},
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],  # of the kernel itself, not of what it runs
    )
    search_path = os.pathsep.join([str(NO_NETWORK), str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    with TemporaryDirectory() as folder:
        log = Path(folder, "network.log")
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": search_path, "NETWORK_LOG": str(log)}
        environment.pop("HF_HUB_OFFLINE", None)  # as a reader has it
        environment.pop("PYTEST_CURRENT_TEST", None)  # with it a kernel does not show what is written past Python
        with client.setup_kernel(env=environment):
            _run_unseen(client, SHOW_WARNINGS)
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
            megabytes = list(map(float, _run_unseen(client, TELL_MEMORY).split()))
            if checks.exists():
                _run_unseen(client, RUN_CHECKS.format(str(checks)))
        network = log.read_text(encoding="utf-8") if log.exists() else ""
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "megabytes": sum(megabytes), "kernel_megabytes": megabytes[0], "network": network}


def _run_unseen(client, source) -> str:
    """What it prints; in the lesson's kernel, but not a cell of its copy."""
    client.nb.cells.append(nbformat.v4.new_code_cell(source))
    cell = client.execute_cell(client.nb.cells[-1], len(client.nb.cells) - 1, store_history=False)
    client.nb.cells.pop()
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def _checks(lesson) -> Path:
    return CHECKS / f"{lesson.stem}.py"


def _made_of(lesson) -> str:
    return _hash([lesson, _checks(lesson)]) + _shared_hash()


@cache
def _shared_hash() -> str:
    files = [file for path in MADE_OF for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return _hash(file for file in files if "__pycache__" not in file.parts)


def _hash(files) -> str:
    total = hashlib.sha256()
    for file in files:
        if file.is_file():
            total.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _report(lesson) -> str:
    ran = executed(lesson).metadata.interp_kit
    return f"{lesson.stem}: {ran.seconds:.0f} s, {ran.megabytes:,.0f} MB"


if __name__ == "__main__":
    if sys.argv[1:2] == ["keep"]:
        keep_outputs(NOTEBOOKS / f"{sys.argv[2]}.ipynb")
        sys.exit()
    if changed := [lesson for lesson in LESSONS if not _kept(lesson)]:
        print(f"Running {len(changed)} of {len(LESSONS)} lessons (all of them take some minutes) ...", flush=True)
    with ProcessPoolExecutor(max_workers=2) as pool:
        for line in pool.map(_report, changed):
            print(f"  {line}", flush=True)
