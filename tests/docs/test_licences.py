"""The table of licences has whatever ships in data/ and whatever pyproject.toml names."""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = dict(re.findall(r"^\| (\S+) \| (.+?) \|", (ROOT / "docs" / "licences.md").read_text(encoding="utf-8"), re.M))


def test_every_dependency_has_a_licence():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = {re.match(r"[\w.-]+", one)[0] for one in listed} - {"interp_kit"}
    assert len(names) > 40 and not names - set(ROWS)


def test_whatever_ships_has_a_licence():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "data"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.splitlines()
    places = {re.match(r"data/(worlds/[^/]+|[^/]+)", file)[1] for file in files}
    assert len(places) > 5 and not places - set(ROWS)
