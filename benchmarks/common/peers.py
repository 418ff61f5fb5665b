"""The programs that ours is compared with: an environment for each, and a process for each run, ours too."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent.parent


def environment(name: str, installs: list[list[str]]) -> Path:
    """The interpreter of build/peers/<name>/env, made at the first use; `installs`: what pip is asked for, in order."""
    folder = Path("build/peers") / name
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
        for what in installs:
            subprocess.run([folder / "env/bin/pip", "install", "--quiet", *what], check=True)
        (folder / "done").touch()
    return folder / "env/bin/python"


def run(python, *arguments, first: Path | None = None, **environment) -> dict:
    """The numbers that a script prints as json in its last line. first: a checkout of the kit, by default this one."""
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"} | environment
    environment["PYTHONPATH"] = os.pathsep.join([str(first or Path.cwd()), str(HERE)])
    done = subprocess.run([str(python), *map(str, arguments)], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
