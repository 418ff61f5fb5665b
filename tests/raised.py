"""Which of the errors that docstrings name do the tests really raise?

A docstring's clause, "Raises ValueError for ...", counts as tested when an error of that type passed through that
function and was expected by a test (`pytest.raises`). A whole run of the tests fails where one did not;
docs/errors.md is the table of all clauses, each with a message as a test saw it: `make errors` writes it.
"""

import ast
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "interp_kit"
TABLE = ROOT / "docs" / "errors.md"
CLAUSE = re.compile(r"\bRaises\b(.*?)(?:\n\s*\n|\Z)", re.DOTALL)
ERROR = re.compile(r"\b[A-Z]\w*Error\b")

Clause = tuple[str, str]  # "graphs/attribution.py:attribute", "ValueError"
Raised = dict[Clause, str]  # with a message


def documented() -> dict[Clause, str]:
    """All clauses of the package's docstrings, with what they say."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "lit") and path.name == "app.py":
            continue  # runs in LIT's environment, where these tests do not
        for name, docstring in _docstrings(ast.parse(path.read_text(encoding="utf-8"))):
            for clause in CLAUSE.findall(docstring):
                said = " ".join(clause.split())
                for error in ERROR.findall(said):
                    found[f"{path.relative_to(PACKAGE).as_posix()}:{name}", error] = said
    return found


def _docstrings(parent: ast.AST, inside: str = "") -> Iterator[tuple[str, str]]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            name = f"{inside}{node.name}"
            yield name, ast.get_docstring(node) or ""
            if isinstance(node, ast.ClassDef):
                yield from _docstrings(node, name + ".")


class Expected:
    """`pytest.raises` that remembers through which functions the error came."""

    raised: Raised = {}

    def __init__(self, context: pytest.RaisesExc) -> None:
        self.context = context

    def __enter__(self) -> pytest.ExceptionInfo:
        return self.context.__enter__()

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> bool:
        expected = self.context.__exit__(kind, error, traceback)
        if expected and error is not None:
            self.remember(error, traceback)
        return expected

    @classmethod
    def remember(cls, error: BaseException, traceback: TracebackType | None) -> None:
        message = _plain(str(error))
        types = [kind.__name__ for kind in type(error).__mro__]
        while traceback is not None:
            code, traceback = traceback.tb_frame.f_code, traceback.tb_next
            if code.co_filename.startswith(str(PACKAGE)):
                place = Path(code.co_filename).relative_to(PACKAGE).as_posix()
                parts = code.co_qualname.split(".")
                for name in {".".join(parts[: n + 1]) for n in range(len(parts))}:
                    for kind in types:
                        cls.raised.setdefault((f"{place}:{name}", kind), message)


def _plain(message: str) -> str:
    """On one line, without the folder of this run and without addresses."""
    message = re.sub(re.escape(tempfile.gettempdir()) + r"/[^'\" :]*/", "", message).replace(str(ROOT), "")
    message = " ".join(re.sub(r"https?://[^\s)'\"]+", "(an address)", message).split())
    return message if len(message) <= 300 else message[:297].rpartition(" ")[0] + " ..."


def table(raised: Raised) -> str:
    """docs/errors.md, from the clauses and what the tests raised."""
    lines = [
        "# Errors", "",
        "Every error that a docstring names, with a message as the tests see it. Each is raised by a test;",
        "`make errors` runs them all and writes this page.", "",
        "| where | error | for | such as |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for (place, error), said in sorted(documented().items()):
        message = raised.get((place, error), "")
        lines.append(f"| `{place}` | `{error}` | {_cell(said)} | {_cell(message)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"([|<>*\[\]`\\])", r"\\\1", text)
