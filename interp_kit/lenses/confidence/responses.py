"""Log-probabilities out of what an OpenAI-compatible server answered, in any of the forms that it comes in.

What comes in is checked as it is unpacked, so all of it is `object` until then.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from ...formats.json import read_json
from .logprobs import UNLISTED, Alternative, Logprobs, TokenLogprob

CHUNKS = ("chat.completion.chunk", "text_completion")  # what the parts of a stream are called
HELP = {
    "chat": "ask with logprobs=True (and top_logprobs=5)",
    "responses": 'ask with include=["message.output_text.logprobs"] (and top_logprobs=5)',
}


@runtime_checkable
class Dumpable(Protocol):
    """An answer of `openai`'s client: a pydantic model."""

    def model_dump(self) -> dict[str, object]:
        """As dicts, lists and numbers."""
        ...


def read_logprobs(source: Dumpable | Iterable[object] | str | bytes | Path, choice: int = 0) -> Logprobs:
    """The log-probabilities of a response.

    source: what `openai`'s client returned (of chat completions, of the Responses API, of the older completions, or the
        chunks or events of a stream), the same as a dict or JSON, or a file of it. Also `logprobs` itself, or its list
        of records. Where a server gave no bytes, they are those of the token's text.
    choice: which of several answers.

        response = client.chat.completions.create(..., logprobs=True, top_logprobs=5)
        ik.lenses.read_logprobs(response)

    Raises FileNotFoundError, and ValueError, naming the place, for a response without log-probabilities and for
    content that is none of these.
    """
    content = _plain(source)
    if isinstance(content, list) and content and all(_is_part_of_stream(part) for part in content):
        records = [record for part in content for record in _of_part(part, choice)]
        if not records:
            raise ValueError(f"the stream carries no log-probabilities: {HELP['chat']}, or {HELP['responses']}")
    else:
        records = _records(content, choice)
    return Logprobs([_token_record(record, f"token {i}") for i, record in enumerate(records)])


def _plain(source: object) -> object:
    """Lists, dicts and numbers, whatever it came as."""
    if isinstance(source, Dumpable):
        return source.model_dump()
    if isinstance(source, bytes):
        source = source.decode("utf-8")
    if isinstance(source, str) and not source.strip():
        raise ValueError("an empty text: expected a response, JSON, or the path of a file")
    if isinstance(source, Path) or (isinstance(source, str) and not source.lstrip().startswith(("{", "["))):
        return read_json(Path(source))
    if isinstance(source, str):
        return json.loads(source)
    if isinstance(source, Iterable) and not isinstance(source, dict):
        return [part.model_dump() if isinstance(part, Dumpable) else part for part in source]
    return source


def _records(content: object, choice: int) -> list[object]:
    if isinstance(content, dict) and "choices" in content:
        choices = _list(content["choices"], "choices")
        if not 0 <= choice < len(choices):
            raise ValueError(f"choice {choice}: the response has choices 0 to {len(choices) - 1}")
        where = f"choices[{choice}]"
        content = _dict(choices[choice], where).get("logprobs")
        if content is None:
            raise ValueError(f"{where}.logprobs is empty: {HELP['chat']}; not every model and server gives them")
    elif isinstance(content, dict) and "output" in content:
        found = []
        for item in _list(content["output"], "output"):
            for part in _list(_dict(item, "output").get("content") or [], "output.content"):
                found += _list(_dict(part, "output.content").get("logprobs") or [], "output.content.logprobs")
        if not found:
            raise ValueError(f"the response's output carries no log-probabilities: {HELP['responses']}")
        return found
    if isinstance(content, dict) and "tokens" in content:
        return _legacy(content)
    if isinstance(content, dict) and (content.get("content") or content.get("refusal")):
        content = content.get("content") or content["refusal"]
    if not isinstance(content, list):
        expected = "a response of chat completions, of the Responses API or of completions, or a list of token records"
        raise ValueError(f"a {type(content).__name__} without log-probabilities: expected {expected}")
    return content


def _legacy(columns: dict[str, object]) -> list[object]:
    """The parallel lists of the older completions; the first token of an echoed prompt has no log-probability."""
    tokens, values = _list(columns["tokens"], "tokens"), _list(columns.get("token_logprobs"), "token_logprobs")
    tops = _list(columns.get("top_logprobs") or [None] * len(tokens), "top_logprobs")
    if not len(tokens) == len(values) == len(tops):
        raise ValueError(
            f"tokens, token_logprobs and top_logprobs differ in length ({len(tokens)}, {len(values)}, ...)"
        )
    return [
        {"token": token, "logprob": value,
         "top_logprobs": [{"token": t, "logprob": p} for t, p in _dict(top or {}, "top_logprobs").items()]}
        for token, value, top in zip(tokens, values, tops)
        if value is not None
    ]  # fmt: skip


def _is_part_of_stream(part: object) -> bool:
    return isinstance(part, dict) and ("sequence_number" in part or part.get("object") in CHUNKS)


def _of_part(part: object, choice: int) -> list[object]:
    """The records in one part of a stream: a chunk of completions, or an event of the Responses API."""
    part = _dict(part, "a part of the stream")
    if part.get("type") == "response.output_text.delta":
        return _list(part.get("logprobs") or [], "logprobs")
    found = []
    for each in _list(part.get("choices") or [], "choices"):
        each = _dict(each, "choices")
        if each.get("index", 0) == choice:
            logprobs = _dict(each.get("logprobs") or {}, "logprobs")
            content = logprobs.get("content") or logprobs.get("refusal") or []
            found += _legacy(logprobs) if "tokens" in logprobs else _list(content, "logprobs.content")
    return found


def _token_record(value: object, where: str) -> TokenLogprob:
    record = _record(value, where)
    others = _list(_dict(value, where).get("top_logprobs") or [], f"{where}, top_logprobs")
    return TokenLogprob(**record, top_logprobs=[_record(other, f"{where}, top_logprobs") for other in others])


def _record(value: object, where: str) -> Alternative:
    value = _dict(value, where)
    token, logprob, data = value.get("token"), value.get("logprob"), value.get("bytes")
    if not isinstance(token, str):
        raise ValueError(f"{where}: expected a token's text, got {type(token).__name__}")
    if isinstance(logprob, bool) or not isinstance(logprob, int | float) or not logprob <= 1e-3 or math.isnan(logprob):
        raise ValueError(f"{where}, {token!r}: a log-probability is a number of at most 0, got {logprob!r}")
    token = token.encode("utf-8", errors="replace").decode()  # half a surrogate pair could not be shown
    if data is None:
        data = list(token.encode("utf-8", errors="replace"))
    if not isinstance(data, list) or any(type(b) is not int or not 0 <= b < 256 for b in data):
        raise ValueError(f"{where}, {token!r}: bytes should be a list of numbers from 0 to 255")
    return Alternative(token=token, logprob=max(float(logprob), UNLISTED), bytes=data)


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list, got {type(value).__name__}")
    return value


def _dict(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object, got {type(value).__name__}")
    return value
