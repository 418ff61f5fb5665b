"""What a judge said of several texts, however it put it."""

import json
import re

VERDICTS = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}
WORD = r"\W{0,3}\b(yes|no|true|false|[10](?![.:)=][ \t]*\w))\b"  # what "1: 0" begins with is a number, no verdict
AFTER_NUMBER = r"(?:\s*[:)=]|\s+[\u2013\u2014-]\s|\.(?=\s))"
NUMBERED = re.compile(rf"(?<![\w.])(\d{{1,3}}){AFTER_NUMBER}{WORD}")  # "1. yes", "text 2: 0"
AT_BEGINNING = re.compile(WORD)
ANYWHERE = re.compile(r"\b(1|0|yes|no|true|false)\b")

Verdicts = list[bool | None]


def read_verdicts(said: str, n: int) -> Verdicts:
    """What a judge says of n texts: "1, 0, 1", "101", "1: yes, 2: no", a line for each, or JSON. None where it does not
    say, or says both.

    >>> read_verdicts("1. yes\\n2. no", 2)
    [True, False]
    """
    if (content := _json(said)) is not None:
        return _of_json(content, n)
    said = re.sub(r"[*_`]", "", said).lower()  # without Markdown
    if re.fullmatch(r"[01\s,;]+", said):
        return _if_all([VERDICTS[c] for c in said if c in "01"], n)
    if numbered := NUMBERED.findall(said):
        return _of_numbers(numbered, n)
    lines = [AT_BEGINNING.match(line) for line in said.splitlines() if line.strip()]
    if len(lines) == n and all(lines):
        return [VERDICTS[line[1]] for line in lines if line]
    return _if_all([VERDICTS[word] for word in ANYWHERE.findall(said)], n)


def _if_all(found: list[bool], n: int) -> Verdicts:
    """Without numbers, fewer or more than n could be anybody's."""
    return list(found) if len(found) == n else [None] * n


def _of_numbers(numbered: list[tuple[str, str]], n: int) -> Verdicts:
    found: dict[int, set[bool]] = {}
    for number, word in numbered:
        found.setdefault(int(number), set()).add(VERDICTS[word])
    said = [found.get(i + 1, set()) for i in range(n)]
    return [words.pop() if len(words) == 1 else None for words in said]


def _json(said: str) -> object:
    """The list or object that an answer is, perhaps in a fence; None for one that is neither."""
    inside = re.sub(r"^```\w*\n|```$", "", said.strip()).strip()
    try:
        return json.loads(inside) if inside[:1] in ("[", "{") else None
    except (ValueError, RecursionError):
        return None


def _of_json(content: object, n: int) -> Verdicts:
    """Of a list of n, of an object with "1" to "n", or of an object that has either inside."""
    if isinstance(content, dict) and len(content) == 1:
        (inner,) = content.values()
        content = inner if isinstance(inner, list | dict) else [inner]
    if isinstance(content, dict):
        by_number = {"".join(re.findall(r"\d+", key)): value for key, value in content.items()}
        content = [by_number.get(str(i + 1)) for i in range(n)]
    if not isinstance(content, list) or len(content) != n:
        return [None] * n
    return [VERDICTS.get(str(value).strip().lower().removesuffix(".0")) for value in content]
