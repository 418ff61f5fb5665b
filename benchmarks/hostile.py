"""What becomes of files that something happened to? Every reader of the kit, many accidents, none of them odd.

    python benchmarks/hostile.py                        10,000 trials, a quarter of an hour or so on one core
    python benchmarks/hostile.py 500 --seed 3           fewer, and others
    python benchmarks/hostile.py --only "graph, ours"   all trials on one reader
    python benchmarks/hostile.py --replay "graph, ours" 12 --seed 3     one trial again, with the traceback

The trials are those of tests/accidents: a reader's good files are written, one is changed, it is read and used. They
run in a process of their own, so that a crash is counted and not the end. It needs what the tests need.
"""

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
sys.path.append(str(Path(__file__).parents[1] / "tests"))

import pandas as pd
from accidents import Outcome, trial
from accidents.readers import BY_NAME
from tqdm.auto import tqdm

SILENT = 120  # seconds without an answer from the process: it hangs where Python cannot interrupt it
A_PROCESS = 1000  # trials; what earlier ones leave in memory should not count


class Task(NamedTuple):
    """A trial: the number decides, with the reader and the seed, what happens to the files."""

    reader: str
    number: int
    seed: int


def tasks(n, seed, names):
    """As many for each reader, give or take one."""
    return [Task(name, i, seed) for k, name in enumerate(names) for i in range(len(range(k, n, len(names))))]


def tried(task):
    rng = random.Random(f"{task.seed}-{task.reader}-{task.number}")
    with tempfile.TemporaryDirectory(prefix="hostile-") as place:
        return trial(BY_NAME[task.reader], Path(place), rng)


def work(pipe, some):
    """In a process of its own: one trial after another; its output, such as warnings, would fill the screen."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    for task in some:
        found = tried(task)
        if isinstance(found.error, BaseException):  # not all of them can be sent
            found.error = f"{type(found.error).__name__}: {found.error}"
        pipe.send((found.kind, found.what, found.error))


def outcomes(todo):
    """(task, outcome) of each; a process that ends or hangs is that trial's outcome, and another goes on behind it."""
    start = multiprocessing.get_context("spawn")
    while todo:
        here, there = start.Pipe()
        process = start.Process(target=work, args=(there, todo[:A_PROCESS]))
        process.start()
        there.close()
        for task in todo[:A_PROCESS]:
            found = _received(here, process)
            todo = todo[1:]
            yield task, found
            if not found.what:  # the process is gone
                break
        process.join(10)
        process.kill()


def _received(pipe, process):
    if not pipe.poll(SILENT):
        process.kill()
        process.join()
        return Outcome("odd", "", f"hung: no answer in {SILENT} seconds")
    try:
        return Outcome(*pipe.recv())
    except EOFError:
        process.join()
        return Outcome("odd", "", f"the process ended with {process.exitcode}, a signal if below 0")


def replay(task):
    found = tried(task)
    print(f"{task}: {found.kind}; {found.what}")
    if isinstance(found.error, BaseException):
        traceback.print_exception(found.error)
    else:
        print(found.error or "")


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("n", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=BY_NAME, metavar="READER")
    parser.add_argument("--replay", nargs=2, metavar=("READER", "NUMBER"))
    return parser.parse_args()


def main():
    chosen = options()
    if chosen.replay:
        return replay(Task(chosen.replay[0], int(chosen.replay[1]), chosen.seed))
    todo = tasks(chosen.n, chosen.seed, [chosen.only] if chosen.only else list(BY_NAME))
    counts = {name: Counter() for name in BY_NAME if not chosen.only or name == chosen.only}
    for task, found in tqdm(outcomes(todo), total=len(todo), mininterval=5):
        counts[task.reader][found.kind] += 1
        if found.kind == "odd":
            tqdm.write(f"odd: --replay {task.reader!r} {task.number} --seed {task.seed}\n  {found.what}: {found.error}")
    table = pd.DataFrame(counts).T.reindex(columns=["refused", "loaded", "odd"]).fillna(0).astype(int)
    table.insert(0, "tried", table.sum(axis=1))
    table.loc["all"] = table.sum()
    print(f"seed {chosen.seed}\n{table.to_string()}")


if __name__ == "__main__":
    main()
