"""Whatever writes is killed at random moments (SIGKILL): run again, it ends as if nothing had happened.

Three moments a job; `make test-long` tries fifty.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from local_openai import local_openai
from tiny_gguf import make_llama, make_tokenizer, write_gguf

from interp_kit.storage.atomic import PREFIX
from interp_kit.storage.folders import LIST

HERE = Path(__file__).parent
JOBS = ("train", "collect", "save", "convert", "build", "score")


class Runner:
    """The program killed_jobs.py, which runs a job at a time."""

    def __init__(self, environment):
        path = os.pathsep.join([str(HERE.parent), str(HERE)])
        self.process = subprocess.Popen(
            [sys.executable, HERE / "killed_jobs.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, bufsize=1, env=os.environ | environment | {"PYTHONPATH": path},
        )  # fmt: skip
        self.said = []
        threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()

    def run(self, job, folder, kill_after=None, largest=-1):
        """Seconds that the job took, and how it ended (0: well)."""
        folder.mkdir(exist_ok=True)
        self.process.stdin.write(f"{job} {largest} {folder}\n")
        child, start = int(self.process.stdout.readline()), time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it was done before
        status = int(self.process.stdout.readline())
        return time.monotonic() - start, status


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    tokenizer, path = make_tokenizer(), tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, make_llama(len(tokenizer)), tokenizer)
    with local_openai(lambda messages: "words about " + messages[-1]["content"][-20:]) as (address, _):
        runner = Runner({"KILLED_GGUF": str(path), "KILLED_LLM": address})
        yield runner
        runner.process.stdin.close()
        runner.process.wait()


def result(folder):
    """What a job leaves, but for a conversion's lock and its note of where the file lay."""
    files = [path for path in sorted((folder / "result").rglob("*")) if path.is_file()]
    files = [path for path in files if path.suffix != ".lock" and not path.name.startswith("source-")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def leftovers(folder):
    return [path for path in folder.rglob("*") if path.name.startswith(PREFIX) and path.name != LIST]


def check_kills(runner, job, tmp_path, moments):
    whole = tmp_path / "whole"
    seconds, status = runner.run(job, whole)
    assert status == 0, "".join(runner.said)
    expected, draw, killed = result(whole), random.Random(f"kills-{job}"), 0
    assert expected
    for moment in range(moments):
        folder = tmp_path / f"killed-{moment}"
        folder.mkdir()
        (folder / "notes.md").write_text("mine")
        killed += runner.run(job, folder, draw.uniform(0.02, 1) * seconds)[1] == signal.SIGKILL
        assert runner.run(job, folder)[1] == 0, "".join(runner.said)
        assert result(folder) == expected
        assert not leftovers(folder) and (folder / "notes.md").read_text() == "mine"
    assert killed > moments / 3  # the others were done before


@pytest.mark.parametrize("job", JOBS)
def test_a_full_disk_is_named_and_leaves_nothing(runner, job, tmp_path):
    whole = tmp_path / "whole"
    assert runner.run(job, whole)[1] == 0
    expected, sizes = result(whole), sorted(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "notes.md").write_text("mine")
    for largest in {0, sizes[-1] // 3, sizes[-1] - 1}:
        runner.said.clear()
        assert runner.run(job, folder, largest=largest)[1] == 256
        time.sleep(0.2)  # what it said comes by another way
        assert "could not be saved" in runner.said[-1] and "was there is unchanged" in runner.said[-1], runner.said
        assert not leftovers(folder) and (folder / "notes.md").read_text() == "mine"
        assert result(folder) in ({}, expected)
    assert runner.run(job, folder)[1] == 0 and result(folder) == expected


@pytest.mark.parametrize("job", JOBS)
def test_a_read_only_folder_is_named_and_left(runner, job, tmp_path):
    folder = tmp_path / "read-only"
    assert runner.run(job, folder)[1] == 0
    entries, before = [folder, *folder.rglob("*")], {path: path.read_bytes() for path in folder.rglob("*.*")}
    for path in entries:
        path.chmod(0o555 if path.is_dir() else 0o444)
    runner.said.clear()
    status = runner.run(job, folder)[1]
    time.sleep(0.2)
    for path in entries:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    if job == "convert":  # nothing is to be written: the entry is there
        assert status == 0, runner.said
    else:
        assert status == 256 and str(folder) in runner.said[-1], runner.said


@pytest.mark.parametrize("job", JOBS)
def test_what_was_saved_in_the_future_is_saved_again(runner, job, tmp_path):
    """By a clock that was wrong, or in a time zone that a network drive forgot."""
    folder = tmp_path / "future"
    assert runner.run(job, folder)[1] == 0
    expected, names = result(folder), sorted(folder.rglob("*"))
    for path in [folder, *names]:
        os.utime(path, (4e9, 4e9))
    assert runner.run(job, folder)[1] == 0, "".join(runner.said)
    assert result(folder) == expected and sorted(folder.rglob("*")) == names


@pytest.mark.parametrize("job", JOBS)
def test_killed_and_run_again_a_job_ends_as_if_nothing_had_happened(runner, job, tmp_path):
    check_kills(runner, job, tmp_path, 3)


@pytest.mark.long
@pytest.mark.parametrize("job", JOBS)
def test_killed_at_fifty_moments(runner, job, tmp_path):
    check_kills(runner, job, tmp_path, 50)
