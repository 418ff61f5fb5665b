"""Every lesson as Binder runs it: two gigabytes and one core, in a control group, with JupyterLab's server beside it;
and the course, all lessons one after another in one kernel, as by someone who never restarts it.

    python benchmarks/binder.py             a quarter of an hour; all, or those named: 06_how_sure_is_it course

Needs Linux and the right to make control groups (root, or in a container that has its own). What runs the cells,
nbclient, is in the group too, and takes some 100 MB that Binder would not need. MB is the most that the kernel and its
processes held (1 MB is 1,024,000 bytes), files that the system keeps in case they are read again included; kernel MB
leaves out the processes, of which there is one: LIT, from lesson 09 on. "killed" is what the group says.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parent.parent
MEMORY, CORES, PERIOD = 2_000_000_000, 1, 100_000  # bytes; microseconds
GROUPS = Path("/sys/fs/cgroup")
RUN = """
import json, sys
import nbformat
from docs import lessons
paths = [lesson for lesson in lessons.LESSONS if sys.argv[1] in (lesson.stem, "course")]
notebook, *others = [nbformat.read(path, as_version=4) for path in paths]
for other in others:
    notebook.cells += other.cells
print(json.dumps(lessons._run(notebook, lessons._checks(paths[-1]))))
"""


class Group:
    """A control group (cgroup) of either version, with the limits above; gone when the block ends."""

    def __init__(self, name: str) -> None:
        older = (GROUPS / "memory").is_dir()
        self.folders = [GROUPS / part / name for part in (("memory", "cpu") if older else ("",))]
        limits = {"memory.limit_in_bytes": MEMORY, "cpu.cfs_period_us": PERIOD, "cpu.cfs_quota_us": CORES * PERIOD}
        newer = {"memory.max": MEMORY, "memory.swap.max": 0, "cpu.max": f"{CORES * PERIOD} {PERIOD}"}
        self.limits, self.events = (limits, "memory.oom_control") if older else (newer, "memory.events")

    def __enter__(self) -> "Group":
        for folder in self.folders:
            folder.mkdir()
        for name, value in self.limits.items():
            for folder in self.folders:
                if (folder / name).exists():
                    (folder / name).write_text(str(value))
        return self

    def __exit__(self, *_: object) -> None:
        for folder in self.folders:
            for _ in range(50):  # the kernel needs a moment until the last process is gone
                for line in (folder / "cgroup.procs").read_text().split():
                    os.kill(int(line), 9)
                time.sleep(0.1)
                if not (folder / "cgroup.procs").read_text():
                    break
            folder.rmdir()

    def start(self, *command: str, **options: object) -> subprocess.Popen:
        """A process that is in the group from its start."""
        enter = " && ".join(f"echo $$ > {folder}/cgroup.procs" for folder in self.folders)
        return subprocess.Popen(["sh", "-c", f'{enter} && exec "$@"', "sh", *command], cwd=ROOT, text=True, **options)

    @property
    def killed(self) -> int:
        """How many processes the system has killed for want of memory."""
        lines = (self.folders[0] / self.events).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def run(lesson: str) -> dict[str, object]:
    """What became of a lesson, or of the "course"."""
    with Group(f"binder-{os.getpid()}") as group:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        server = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", "notebooks"]
        group.start(*server, **quiet)
        time.sleep(10)
        start = time.monotonic()
        process = group.start(
            sys.executable, "-c", RUN, lesson, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        out, said = process.communicate()
        ran = json.loads(out.splitlines()[-1]) if process.returncode == 0 else {}
        if not ran:
            print(said[-8000:], file=sys.stderr)  # the cell and its error
        return {
            "lesson": lesson, "ended": "well" if ran else "badly", "killed": group.killed,
            "MB": round(ran.get("megabytes", 0)), "kernel MB": round(ran.get("kernel_megabytes", 0)),
            "CPU s": round(ran.get("seconds", 0)), "s": round(time.monotonic() - start),
        }  # fmt: skip


def main(names: list[str]) -> None:
    rows = []
    for lesson in names or [*(path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))), "course"]:
        rows.append(run(lesson))
        print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
