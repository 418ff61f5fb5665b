"""Every public function says what it takes and what it returns, and a type checker believes it."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import interp_kit as ik

PACKAGE = Path(ik.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
EXCEPTIONS = 20  # bare `Any` and `type: ignore` that the whole package may have


def public_functions(path: Path):
    """(name, node) of the functions and methods that a reader may call; `__init__`, `__call__` and their like too."""
    todo = [(path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8")))]
    while todo:
        place, parent = todo.pop()
        for node in parent.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                todo.append((f"{place}:{node.name}", node))
            elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name.endswith("__")):
                yield f"{place}:{node.name}", node


def missing_annotations(node: ast.FunctionDef, is_method: bool) -> list[str]:
    arguments = [*node.args.posonlyargs, *node.args.args]
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
    arguments = arguments[1:] if is_method and not static else arguments
    extra = [star for star in (node.args.vararg, node.args.kwarg) if star]
    missing = [a.arg for a in [*arguments, *node.args.kwonlyargs, *extra] if a.annotation is None]
    return missing + (["return"] if node.returns is None and node.name != "__init__" else [])


def test_every_public_function_is_annotated():
    found = {
        name: missing
        for path in FILES
        for name, node in public_functions(path)
        if (missing := missing_annotations(node, name.count(":") > 1))
    }
    assert not found, "\n".join(f"{name}: {', '.join(missing)}" for name, missing in found.items())


def test_exceptions_are_few():
    used = []
    for path in FILES:
        for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
            any_ = token.type == tokenize.NAME and token.string == "Any"
            ignored = token.type == tokenize.COMMENT and re.search(r"(type|pyright): ignore", token.string)
            if any_ or ignored:
                used.append(f"{path.name}:{token.start[0]}")
    assert len(used) <= EXCEPTIONS, used


@pytest.mark.parametrize("options", [[], pytest.param(["--pythonversion", "3.14"], marks=pytest.mark.long)])
def test_the_type_checker_finds_nothing(options):
    """As Python 3.11 reads the package, and in `make test-long` as 3.14 does."""
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--level", "error", *options]
    out = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout
