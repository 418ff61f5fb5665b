"""The environment that the Language Interpretability Tool runs in, made by one command, `python -m interp_kit lit`.

LIT's last release asks for numpy 1 and an old shap, though what the kit uses of it runs on the present ones. So it is
installed without its declared dependencies, into an environment of its own that lies within this one, borrows its
packages (torch is not installed twice) and goes when it goes.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from filelock import FileLock

from ..storage.atomic import cache_entry
from ..widgets.progress import ProgressBar

LIT = "lit-nlp==1.3.1"
COMMAND = "python -m interp_kit lit"
ABOUT = "made_of.json"  # written last, so an environment that has it is whole


def lit_folder() -> Path:
    """Where the environment lies: the folder "lit" in this Python environment, or $INTERP_KIT_LIT."""
    return Path(os.environ.get("INTERP_KIT_LIT") or Path(sys.prefix) / "lit").expanduser()


def lit_python() -> Path:
    """The interpreter that has LIT. Raises FileNotFoundError, with the command that makes it, where there is none or
    it was made of other packages or for another Python than this one."""
    folder = lit_folder()
    try:
        made_of = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        made_of = None
    if made_of != _wanted():
        what = "is out of date" if made_of else "has not been made yet"
        raise FileNotFoundError(
            f"The Language Interpretability Tool runs in an environment of its own, and that {what} (looked in "
            f"{str(folder)!r}). Make it once, in a minute and up to 250 MB: `make lit` in a clone, or `{COMMAND}`."
        )
    return _python(folder)


def make_lit_environment() -> Path:
    """Makes the environment where it is missing or out of date; returns its interpreter.

    Raises RuntimeError, quoting pip, when a package cannot be installed or LIT does not start; what was there stays.
    """
    folder = lit_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        try:
            return lit_python()
        except FileNotFoundError:
            with cache_entry(folder) as temporary:
                _fill(temporary)
    return lit_python()


def _fill(folder: Path) -> None:
    needs = _packages()
    if not needs:
        raise RuntimeError("This installation of interp_kit predates its extra `lit`. Renew it: pip install -e .")
    pip = ["-m", "pip", "install", "--disable-pip-version-check", "--no-warn-script-location"]
    steps = {
        "an empty environment": lambda: _empty(folder),
        "LIT": lambda: _run(folder, *pip, "--no-deps", LIT),
        "what LIT needs": lambda: _run(folder, *pip, *needs),
        "does it start?": lambda: _run(folder, "-c", "import lit_nlp.app"),
    }
    with ProgressBar(total=len(steps), desc="environment of LIT") as bar:
        for name, step in steps.items():
            bar.set_postfix_str(name)
            step()
            bar.update()
    (folder / ABOUT).write_text(json.dumps(_wanted()), encoding="utf-8")


def _empty(folder: Path) -> None:
    """A bare virtual environment that also finds the packages of this one, pip among them."""
    venv.create(folder, symlinks=os.name != "nt")
    site = next(folder.glob("lib/python*/site-packages"), folder / "Lib" / "site-packages")
    ours = sysconfig.get_path("purelib")
    (site / "interp_kit_parent.pth").write_text(f"import site; site.addsitedir({ours!r})\n", encoding="utf-8")


def _run(folder: Path, *arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [_python(folder), *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise RuntimeError(f"The environment of LIT could not be made: `python {' '.join(arguments)}` said\n{tail}")


def _python(folder: Path) -> Path:
    windows = folder / "Scripts" / "python.exe"
    return windows if windows.exists() else folder / "bin" / "python"


def _wanted() -> dict[str, object]:
    """What the environment should be made of: pip's requirements, its Python, and the packages that it borrows."""
    return {"packages": [LIT, *_packages()], "python": sys.version, "borrows_from": sysconfig.get_path("purelib")}


def _packages() -> list[str]:
    """What LIT needs: the extra `lit` of pyproject.toml."""
    lines = importlib.metadata.requires("interp_kit") or []
    return [line.split(";")[0].strip() for line in lines if "extra == 'lit'" in line.replace('"', "'")]
