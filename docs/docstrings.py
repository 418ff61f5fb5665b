"""Docstrings as the reference shows them: the house's `name: what it is` lines become a list."""

import re

import griffe

ENTRY = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*)((?: \[[^]]*\])?): (?=\S)")


class HouseDocstrings(griffe.Extension):
    """Named in mkdocs.yml; griffe calls `on_object` for whatever it finds in the source."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """Lines such as `target, contrast: two tokens` and `adjacency [target, source]: effects` as list entries.

    An entry ends with its paragraph, or where it is said what is raised. Everything else stays as it is.
    """
    lines, inside = [], False
    for line in docstring.splitlines():
        entry = ENTRY.match(line)
        if bool(entry) > inside or (inside and line.startswith("Raises ")):
            lines.append("")  # Markdown wants a gap before a list and after it
        if entry:
            names = ", ".join(f"`{name}`" for name in entry[1].split(", "))
            line = f"- {names}{entry[2]}: {line[entry.end() :]}"
        inside = bool(entry) or (inside and line.strip() != "" and not line.startswith("Raises "))
        lines.append(f"    {line.strip()}" if inside and not entry else line)
    return "\n".join(lines)
