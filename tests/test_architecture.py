"""The rooms of the package: imports point one way, and an editor sees every public name."""

import ast
from collections import defaultdict
from pathlib import Path

import jedi
import pytest

import interp_kit as ik

PACKAGE = Path(ik.__file__).parent

# From the ground up: a room may import those in the lines before its own, and itself. Rooms of one line do not know
# each other.
FLOORS = [
    {"hardware", "statistics", "widgets"},
    {"storage"},
    {"formats"},
    {"models"},
    {"text"},
    {"transcoders"},
    {"graphs"},
    {"features"},
    {"worlds"},
    {"lenses"},
    {"studies"},
    {"course"},
    {"lit"},
    {"__init__"},
    {"__main__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module: str) -> str:
    """ "interp_kit.graphs.sweep" -> "graphs"; the package itself is "__init__"."""
    return (module.split(".") + ["__init__"])[1]


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in it. What is named for the type checker alone is left
    out: it never runs."""
    module = ["interp_kit", *path.relative_to(PACKAGE).with_suffix("").parts]
    found, tree = set(), ast.parse(path.read_text(encoding="utf-8"))
    unused = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in set(ast.walk(tree)) - unused:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module[: -node.level] if node.level else []
            name = ".".join([*base, *filter(None, [node.module])])
            found |= {f"{name}.{alias.name}" for alias in node.names} if name == "interp_kit" else {name}
    return {name for name in found if name.split(".")[0] == "interp_kit"}


def arrows() -> dict[tuple[str, str], set[str]]:
    """(room, room that it imports): the files in which it does."""
    found = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        room = room_of(f"interp_kit.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}")
        for module in imports_of(path):
            if room_of(module) not in (room, "__version__"):
                found[room, room_of(module)].add(path.relative_to(PACKAGE).as_posix())
    return found


def drawn(found) -> str:
    return "\n".join(f"{a} -> {b}   ({', '.join(sorted(files))})" for (a, b), files in sorted(found.items()))


def test_no_import_runs_back_up():
    found = arrows()
    assert found and {room for pair in found for room in pair} <= FLOOR_OF.keys(), drawn(found)
    up = {pair: files for pair, files in found.items() if FLOOR_OF[pair[1]] >= FLOOR_OF[pair[0]]}
    assert not up, f"these arrows point up or sideways:\n{drawn(up)}"


def test_nothing_lies_loose_at_the_top():
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == {
        "__init__.py", "__init__.pyi", "__main__.py", "py.typed", "hardware.py", "statistics.py",
    }  # fmt: skip


def opens_text_without_encoding(node: ast.AST) -> bool:
    """Whether a call reads or writes text in whatever encoding the machine happens to have."""
    if not isinstance(node, ast.Call) or any(keyword.arg in ("encoding", None) for keyword in node.keywords):
        return False
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    if name in ("read_text", "write_text"):
        return isinstance(node.func, ast.Attribute)  # not the door of that name
    mode = [
        *node.args[1 if isinstance(node.func, ast.Name) else 0 :][:1],
        *(k.value for k in node.keywords if k.arg == "mode"),
    ]
    binary = any(isinstance(m, ast.Constant) and isinstance(m.value, str) and "b" in m.value for m in mode)
    whose = getattr(getattr(node.func, "value", None), "id", "")
    return (
        name in ("open", "NamedTemporaryFile", "fdopen")
        and whose not in ("os", "zipfile", "archive", "Image")
        and not binary
    )


def test_no_text_is_read_or_written_in_the_machines_own_encoding():
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if opens_text_without_encoding(node)
    ]
    assert not found
    for bad in (
        "open(p)",
        "open(p, 'w')",
        "path.open()",
        "path.read_text()",
        "path.write_text(t)",
        "open(p, mode='r')",
    ):
        assert opens_text_without_encoding(ast.parse(bad).body[0].value), bad
    for good in ("open(p, 'rb')", "path.open('wb')", "read_text(p)", "open(p, encoding='utf-8')", "os.open(p, 1)"):
        assert not opens_text_without_encoding(ast.parse(good).body[0].value), good


# ---------------------------------------------------------------------- what an editor sees


def completions(code: str) -> dict[str, str]:
    """{name: docstring} that an editor offers after `code`, without running it."""
    script = jedi.Script(f"import interp_kit as ik\n{code}", project=jedi.Project(PACKAGE.parent))
    found = script.complete(2, len(code))
    return {name.name: name for name in found if not name.name.startswith("_")}


def test_an_editor_completes_the_main_job():
    offered = completions("ik.")
    assert set(ik.__all__) <= offered.keys()
    assert len([name for name in ik.__all__ if not (PACKAGE / name).is_dir()]) <= 24, "about twenty flat names"


@pytest.mark.parametrize("room", ["features", "lenses", "worlds", "studies", "transcoders", "graphs", "models"])
def test_an_editor_completes_and_explains_a_room(room):
    names = getattr(ik, room).__all__
    offered = completions(f"ik.{room}.")
    assert set(names) <= offered.keys()
    for name in names:
        assert offered[name].docstring(raw=True), f"ik.{room}.{name} has no docstring that an editor finds"


def test_an_editor_explains_attribute():
    assert "attribution graph" in completions("ik.attr")["attribute"].docstring()


# ---------------------------------------------------------------------- names that moved


def test_a_flat_name_that_moved_still_works_and_says_where_it_went():
    with pytest.warns(DeprecationWarning, match=r"ik\.decompose is now ik\.lenses\.decompose"):
        old = ik.decompose
    assert old is ik.lenses.decompose


@pytest.mark.parametrize("name", sorted(ik._MOVED))
def test_every_name_that_moved_exists_and_is_not_listed(name):
    with pytest.warns(DeprecationWarning):
        assert callable(getattr(ik, name))
    assert name not in dir(ik)
