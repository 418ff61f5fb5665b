"""What a visitor does first, from nothing: a clone and `make demo`, or `pip install` without a clone. Each builds an
environment of its own with only the core dependencies, 1.7 GB: `make test-long`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent

PYTHON = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")

pytestmark = pytest.mark.long


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
    """`make test` has the test tools installed: a dependency missing from the core list shows only here."""
    make_demo = ["make", "--no-print-directory", "demo", f"PYTHON={PYTHON}"]
    assert "Traceback" not in output_of(*make_demo, folder=clone)
    again = output_of(*make_demo, folder=clone)
    assert again.strip() and "Installing" not in again

    installed = output_of(".venv/bin/python", "-m", "pip", "list", "--format=freeze", folder=clone)
    assert "jupyterlab==" not in installed, "the demo needs no JupyterLab"
    assert "nvidia" not in installed, "torch must be the CPU build"
    assert output_of("git", "status", "--porcelain", folder=clone) == "", "the demo leaves files behind"


def test_pip_install_without_a_clone(clone, tmp_path):
    """As in Colab: an empty environment, the wheel and what it asks for, and a folder that is no clone."""
    output_of(PYTHON, "-m", "venv", "env", folder=tmp_path)
    python = tmp_path / "env/bin/python"
    torch = re.search(r"^TORCH \?= (torch==\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    output_of(python, "-m", "pip", "install", "--quiet", torch, folder=tmp_path)  # on Colab it is there already
    output_of(python, "-m", "pip", "install", "--quiet", clone, folder=tmp_path)
    shutil.rmtree(clone)
    clone.mkdir()  # the fixture removes it again
    assert "Austin" in output_of(python, "-m", "interp_kit", "demo", folder=tmp_path)
    assert "missing smollm2-transcoder" in output_of(python, "-m", "interp_kit", "doctor", folder=tmp_path)


def test_what_binder_installs_runs_the_first_lesson(clone):
    """The pip lines of environment.yml in an empty environment, then postBuild, as repo2docker does it."""
    lines = yaml.safe_load((clone / "environment.yml").read_text())["dependencies"][-1]["pip"]
    (clone / "requirements.txt").write_text("\n".join(lines))
    output_of(PYTHON, "-m", "venv", "env", folder=clone)
    torch = re.search(r"^TORCH \?= (torch==\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    output_of("env/bin/python", "-m", "pip", "install", "--quiet", torch, folder=clone)  # Binder's index has it
    output_of("env/bin/python", "-m", "pip", "install", "--quiet", "-r", "requirements.txt", folder=clone)
    output_of("bash", "-c", "PATH=$PWD/env/bin:$PATH ./postBuild", folder=clone)
    runs(clone / "notebooks" / "00_tour.ipynb", clone / "env")


def test_the_bundle_installs_without_a_network_and_runs_the_first_lesson(clone, tmp_path):
    output_of("make", "--no-print-directory", "bundle", f"PYTHON={PYTHON}", folder=clone)
    bundle = clone / "out" / "interp_kit-offline"
    shutil.rmtree(clone / ".venv")
    start = re.findall(r"^    (interp/bin/pip .*)$", (bundle / "START.md").read_text(), re.MULTILINE)
    assert len(start) == 2 and all("--no-index" in line for line in start)
    output_of(PYTHON, "-m", "venv", "interp", folder=bundle)
    for line in start:
        output_of("bash", "-c", line, folder=bundle)
    runs(bundle / "00_tour.ipynb", bundle / "interp")
    assert (bundle / "assignments" / "ps1_residual_stream" / "ps1_residual_stream.ipynb").is_file()


def runs(notebook: Path, environment: Path) -> None:
    """From its first cell to its last, as Lab would."""
    convert = "-m nbconvert --to notebook --execute --output-dir done".split()
    output_of(environment / "bin" / "python", *convert, notebook.name, folder=notebook.parent)
    assert (notebook.parent / "done" / notebook.name).is_file()
