"""The same seed gives the same bytes, in any process; with another number of threads, nearly the same numbers."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
# The largest difference between runs of one and of two threads, as a share of the largest number: products are then
# added up in another order. docs/trust.md has what was measured.
OF_TWO_THREADS = 5e-5


def repeated(folder, threads=1):
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    environment |= {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, HERE / "repeated.py", folder, str(threads)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return repeated(tmp_path_factory.mktemp("runs") / "first")


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_processes_give_the_same_bytes(first, tmp_path):
    one, two = files(first), files(repeated(tmp_path / "second"))
    assert len(one) > 10 and one.keys() == two.keys()
    assert [str(name) for name in one if one[name] != two[name]] == []


def test_two_threads_give_nearly_the_same_numbers(first, tmp_path):
    one, two = (np.load(folder / "results.npz") for folder in (first, repeated(tmp_path / "threads", 2)))
    differences = {name: float(np.nanmax(abs(one[name] - two[name])) / np.nanmax(abs(one[name]))) for name in one}
    assert len(differences) == 9 and max(differences.values()) < OF_TWO_THREADS, differences
