"""What a visitor does first: clone, `make demo`. From nothing, with only the core dependencies installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(
    not (os.environ.get("CI") or os.environ.get("INTERP_KIT_FRESH")),
    reason="builds a second environment, minutes and 1.7 GB: set INTERP_KIT_FRESH=1 (CI always runs it)",
)


@pytest.fixture
def clone(tmp_path):
    """A clone of HEAD, removed afterwards: pytest would keep its 1.7 GB for three runs."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    yield folder
    shutil.rmtree(folder)


def output_of(*command, folder: Path) -> str:
    """What a visitor sees: their own environment, not that of this test run and the `make` around it."""
    ours = ("OMP_", "HF_", "TOKENIZERS_", "PYTEST_", "MAKE", "MFLAGS", "VIRTUAL_ENV", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    out = subprocess.run(command, cwd=folder, env=environment, text=True, timeout=1200, **pipes)
    assert out.returncode == 0, out.stdout
    return out.stdout


def test_demo_in_a_fresh_clone(clone):
    """CI itself is a fresh clone, but one with the test tools installed: a dependency missing from the core
    list shows only here. `make demo` runs no tests, so this nests no further."""
    python = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    make_demo = ["make", "--no-print-directory", "demo", f"PYTHON={python}"]
    assert "Traceback" not in output_of(*make_demo, folder=clone)
    again = output_of(*make_demo, folder=clone)
    assert again.strip() and "Installing" not in again

    installed = output_of(".venv/bin/python", "-m", "pip", "list", "--format=freeze", folder=clone)
    assert "jupyterlab==" not in installed, "the demo needs no JupyterLab"
    assert "nvidia" not in installed, "torch must be the CPU build"
    assert output_of("git", "status", "--porcelain", folder=clone) == "", "the demo leaves files behind"
