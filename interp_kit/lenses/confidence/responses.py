"""Log-probabilities out of what a service answered, in any of the forms that they come in.

What comes in is checked as it is unpacked, so all of it is `object` until then.
"""

from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from reprlib import repr as shortened
from typing import TypeGuard

from .answers import Dumpable, plain
from .logprobs import UNLISTED, Alternative, Logprobs, TokenLogprob

CHUNKS = ("chat.completion.chunk", "text_completion")  # what the parts of a stream of OpenAI's are called
HELP = {
    "chat": "ask with logprobs=True (and top_logprobs=5)",
    "responses": 'ask with include=["message.output_text.logprobs"] (and top_logprobs=5)',
    "ollama": 'ask with "logprobs": true (and "top_logprobs": 5), of ollama 0.12.11 or later',
    "llama.cpp": 'ask with "n_probs": 5, and without "post_sampling_probs"',
}
EXPECTED = (
    "a response of chat completions, of the Responses API or of completions, of ollama or llama.cpp, or a list of "
    "token records"
)
# Answers that are known and not read, by a key that only they have.
UNREAD = {
    "candidates": "Gemini's API: its numbers are in candidates[0].logprobsResult; give them as a list of records, "
    '[{"token": ..., "logprob": ...}, ...]',
    "generated_text": "text-generation-inference's own API: ask its address /v1/chat/completions, with logprobs=true",
    "stop_reason": "Anthropic's API, which gives no log-probabilities",
}


def read_logprobs(source: Dumpable | Iterable[object] | str | bytes | Path | Logprobs, choice: int = 0) -> Logprobs:
    """The log-probabilities of a response.

    source: what `openai`'s client returned (of chat completions, of the Responses API, of the older completions, or the
        chunks or events of a stream), the same as a dict or JSON, a line of a Batch's output, or a file of it; what
        ollama and llama.cpp's server answer of their own, whole or streamed. Also `logprobs` itself, or its list of
        records. Where a server gave no bytes, they are those of the token's text.
    choice: which of several answers.

        response = client.chat.completions.create(..., logprobs=True, top_logprobs=5)
        ik.lenses.read_logprobs(response)

    Raises FileNotFoundError; TypeError for a `choice` that is no whole number; ValueError, naming the place, for a
    response without log-probabilities and for content that is none of these, saying what it is where that is known.
    """
    if isinstance(choice, bool) or not isinstance(choice, Integral):
        raise TypeError(f"choice should be a whole number, got {choice!r}")
    if isinstance(source, Logprobs):
        return source
    content = plain(source)
    try:
        records = _of_stream(content, int(choice)) if _is_in_parts(content) else _records(content, int(choice))
    except RecursionError:
        raise ValueError("the response is nested without end: a form within a form within a form") from None
    return Logprobs([_token_record(record, f"token {i}") for i, record in enumerate(records)])


# ---------------------------------------------------------------------- the forms


def _records(content: object, choice: int) -> list[object]:
    """The records of one whole answer."""
    if isinstance(content, dict):
        for key, read in FORMS.items():
            if key in content:
                return read(content, choice)
        if known := [about for key, about in UNREAD.items() if key in content]:
            raise ValueError(f"this is an answer of {known[0]}")
        if content.get("content") or content.get("refusal"):
            content = content.get("content") or content["refusal"]
    if not isinstance(content, list):
        raise ValueError(f"a {type(content).__name__} without log-probabilities: expected {EXPECTED}")
    return content


def _of_stream(parts: list[object], choice: int) -> list[object]:
    """The records of the parts of a stream, put together."""
    if len(parts) > 1 and any("custom_id" in _dict(part, "a line") for part in parts):
        raise ValueError(
            f"this is a Batch's output with {len(parts)} answers: read them one by one, a line each, "
            "[ik.lenses.read_logprobs(line) for line in path.read_text(encoding='utf-8').splitlines()]"
        )
    if len(parts) == 1 and not _is_part_of_stream(parts[0]):
        return _records(parts[0], choice)
    records = [record for part in parts for record in _of_part(_dict(part, "a part of the stream"), choice)]
    if not records:
        raise ValueError(f"the stream carries no log-probabilities: {HELP['chat']}, or {HELP['responses']}")
    return records


def _is_in_parts(content: object) -> TypeGuard[list[object]]:
    """A list, of anything but records of tokens."""
    return (
        isinstance(content, list) and bool(content) and all(isinstance(p, dict) and "token" not in p for p in content)
    )


def _is_part_of_stream(part: object) -> bool:
    return isinstance(part, dict) and ("sequence_number" in part or part.get("object") in CHUNKS)


def _of_part(part: dict[str, object], choice: int) -> list[object]:
    """The records in one part of a stream: a chunk of completions, an event of the Responses API, a line of ollama's or
    llama.cpp's."""
    if "completion_probabilities" in part:
        return _of_llama_cpp(part, choice)
    if "choices" not in part:  # an event, or a line of ollama's
        own = part.get("type") == "response.output_text.delta" or "done" in part
        return _list(part.get("logprobs") or [], "logprobs") if own else []
    found = []
    for each in _list(part.get("choices") or [], "choices"):
        each = _dict(each, "choices")
        if each.get("index", 0) == choice:
            logprobs = _dict(each.get("logprobs") or {}, "logprobs")
            content = logprobs.get("content") or logprobs.get("refusal") or []
            found += _of_columns(logprobs, choice) if "tokens" in logprobs else _list(content, "logprobs.content")
    return found


def _of_batch(content: dict[str, object], choice: int) -> list[object]:
    """A line of a Batch's output file: the response is inside."""
    response = content.get("response")
    if not isinstance(response, dict) or content.get("error") or "body" not in response:
        said = shortened(content.get("error") or response)
        raise ValueError(f"the request {shortened(content['custom_id'])} of this Batch was not answered: {said}")
    return _records(response["body"], choice)


def _of_choices(content: dict[str, object], choice: int) -> list[object]:
    """Chat completions, or the older completions."""
    choices = _list(content["choices"], "choices")
    if not 0 <= choice < len(choices):
        raise ValueError(f"choice {choice}: the response has choices 0 to {len(choices) - 1}")
    where = f"choices[{choice}]"
    logprobs = _dict(choices[choice], where).get("logprobs")
    if logprobs is None:
        raise ValueError(f"{where}.logprobs is empty: {HELP['chat']}; not every model and server gives them")
    return _records(logprobs, choice)


def _of_output(content: dict[str, object], choice: int) -> list[object]:
    """The Responses API."""
    found = []
    for item in _list(content["output"], "output"):
        for part in _list(_dict(item, "output").get("content") or [], "output.content"):
            found += _list(_dict(part, "output.content").get("logprobs") or [], "output.content.logprobs")
    if not found:
        raise ValueError(f"the response's output carries no log-probabilities: {HELP['responses']}")
    return found


def _of_columns(content: dict[str, object], choice: int) -> list[object]:
    """The parallel lists of the older completions; the first token of an echoed prompt has no log-probability."""
    tokens, values = _list(content["tokens"], "tokens"), _list(content.get("token_logprobs"), "token_logprobs")
    tops = _list(content.get("top_logprobs") or [None] * len(tokens), "top_logprobs")
    if not len(tokens) == len(values) == len(tops):
        raise ValueError(
            f"tokens, token_logprobs and top_logprobs differ in length ({len(tokens)}, {len(values)}, {len(tops)})"
        )
    return [
        {"token": token, "logprob": value,
         "top_logprobs": [{"token": t, "logprob": p} for t, p in _dict(top or {}, "top_logprobs").items()]}
        for i, (token, value, top) in enumerate(zip(tokens, values, tops))
        if i or value is not None
    ]  # fmt: skip


def _of_llama_cpp(content: dict[str, object], choice: int) -> list[object]:
    """llama.cpp's own /completion. What it gives after its sampler is not how likely the model found a token."""
    records = _list(content["completion_probabilities"], "completion_probabilities")
    if any(isinstance(record, dict) and "logprob" not in record for record in records):
        raise ValueError(
            "these are llama.cpp's probabilities after sampling, which temperature and cuts have changed: "
            f"{HELP['llama.cpp']}, of a recent server, or ask its address /v1/chat/completions with logprobs=true"
        )
    return records


def _of_ollama(content: dict[str, object], choice: int) -> list[object]:
    """ollama's own /api/chat and /api/generate."""
    if not content.get("logprobs"):
        raise ValueError(f"the answer of ollama carries no log-probabilities: {HELP['ollama']}")
    return _list(content["logprobs"], "logprobs")


# By a key that only answers of the form have, in the order in which they are looked for.
FORMS: dict[str, Callable[[dict[str, object], int], list[object]]] = {
    "custom_id": _of_batch, "choices": _of_choices, "output": _of_output, "tokens": _of_columns,
    "completion_probabilities": _of_llama_cpp, "done": _of_ollama,
}  # fmt: skip


# ---------------------------------------------------------------------- one token


def _token_record(value: object, where: str) -> TokenLogprob:
    record = _record(value, where)
    others = _list(_dict(value, where).get("top_logprobs") or [], f"{where}, top_logprobs")
    return TokenLogprob(**record, top_logprobs=[_record(other, f"{where}, top_logprobs") for other in others])


def _record(value: object, where: str) -> Alternative:
    value = _dict(value, where)
    token, logprob, data = value.get("token"), value.get("logprob"), value.get("bytes")
    if not isinstance(token, str):
        raise ValueError(f"{where}: expected a token's text, got {type(token).__name__}")
    if isinstance(logprob, bool) or not isinstance(logprob, Real) or not logprob <= 1e-3:  # NaN neither; rounding may
        said = shortened(logprob)  # lift it a little above 0
        raise ValueError(f"{where}, {shortened(token)}: a log-probability is a number of at most 0, got {said}")
    token = token.encode("utf-8", errors="replace").decode()  # half a surrogate pair could not be shown
    if data is None:
        data = list(token.encode("utf-8", errors="replace"))
    data = _bytes(data, f"{where}, {shortened(token)}")
    return Alternative(token=token, logprob=min(float(max(logprob, UNLISTED)), 0.0), bytes=data)


def _bytes(value: object, where: str) -> list[int]:
    if isinstance(value, list | tuple | bytes | bytearray):
        whole = [int(b) for b in value if isinstance(b, Integral) and not isinstance(b, bool)]
        if len(whole) == len(value) and all(0 <= b < 256 for b in whole):
            return whole
    raise ValueError(f"{where}: bytes should be a list of numbers from 0 to 255")


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: expected a list, got {type(value).__name__}")
    return list(value)


def _dict(value: object, where: str) -> dict[str, object]:
    if isinstance(value, Dumpable):
        return value.model_dump()
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected an object, got {type(value).__name__}")
    return dict(value)
