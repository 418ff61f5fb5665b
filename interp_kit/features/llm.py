"""A language model behind an OpenAI-compatible endpoint, asked for labels or to judge them."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import cast

import pandas as pd

from ..formats.feature_json import example_rows
from ..formats.json import HALF_CHARACTER, read_json, write_json
from ..storage.atomic import always
from ..widgets.plain_text import printable
from .examples import LABEL_GROUPS
from .store import FeatureStore

MAX_RETRIES = 5  # of the client: it waits longer each time, as the server says
TIMEOUT_SECONDS = 120  # without a byte of an answer
LIMIT_NAMES = ("max_completion_tokens", "max_tokens")  # today's name of that option, and the one before
SECRET_CHARACTERS = 8  # of a key, at least
MAX_COMPLAINT = 300  # characters of what an endpoint says that are repeated
THOUGHTS = re.compile(r"^\s*<think>.*?(</think>|\Z)", re.DOTALL)  # what some models write before their answer
CHARACTERS_PER_TOKEN = 4  # of English, about
MAX_LABEL_TOKENS, MAX_JUDGE_TOKENS = 40, 60  # of an answer
N_EXAMPLES_SHOWN = 12
MARKED_SHARE = 0.3  # tokens at which a feature is above this share of its strongest are marked

Messages = list[dict[str, str]]  # of a chat: {"role": ..., "content": ...}

LABEL_INSTRUCTION = """You name features of a language model. A feature is a direction that is active on some \
tokens. You see texts in which it is active, the tokens on which it is strongly so between << and >>, strongest \
first, and the tokens it makes likelier. Say in at most six words what those tokens, or what comes after them, have \
in common. If they have nothing in common, name two or three of the things. Answer with the name alone."""
DETECTION_INSTRUCTION = """A feature of a language model is described as: {label}
Below are numbered texts. For each say whether the feature is active anywhere in it: 1 for yes, 0 for no. Answer with \
the digits alone, separated by commas."""
FUZZING_INSTRUCTION = """A feature of a language model is described as: {label}
Below are numbered texts with some tokens between << and >>. For each say whether the feature would be active on the \
marked tokens: 1 for yes, 0 for no. Answer with the digits alone, separated by commas."""


class AnswerRefused(ValueError):
    """An answer that cannot be used: cut off, empty, or none. It is not kept, so that it is asked for again."""


class LLM:
    """An endpoint that speaks OpenAI's chat completions.

    model, base_url, api_key: what is not given comes from the environment, OPENAI_MODEL, OPENAI_BASE_URL and
        OPENAI_API_KEY.
    prices: dollars for a million tokens (read, written); without them an estimate has tokens only.
    cache: a folder in which every answer is kept, so that no question is paid for twice.
    thinking_tokens: what a model that reasons before it answers may write in addition, for each question.

    Raises ValueError when no model is named, or no key.

    >>> llm = ik.features.LLM("a-model", base_url="http://localhost:8000/v1", api_key="none")
    >>> labels = ik.label_features(store, llm=llm)
    """

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        prices: tuple[float, float] | None = None,
        cache: str | Path = "build/llm",
        thinking_tokens: int = 0,
    ) -> None:
        import openai  # slow to import, and most never ask an LLM

        self.model = model or os.environ.get("OPENAI_MODEL", "")
        if not self.model:
            raise ValueError("no model: give LLM(model=...), or set OPENAI_MODEL")
        if not (api_key or os.environ.get("OPENAI_API_KEY")):
            raise ValueError("no key: give LLM(api_key=...), or set OPENAI_API_KEY; a local server takes any, 'none'")
        self.client = openai.OpenAI(
            base_url=base_url, api_key=api_key or None, max_retries=MAX_RETRIES, timeout=TIMEOUT_SECONDS
        )
        self.prices, self.cache, self.thinking_tokens = prices, Path(cache).expanduser(), thinking_tokens
        self._limit_name, self._options = LIMIT_NAMES[0], {"temperature": 0}  # as far as the endpoint takes them

    def __repr__(self) -> str:
        return printable(f"LLM({self.model!r})")

    def ask(self, messages: Messages, max_tokens: int) -> str:
        """The answer, from the cache if the same was asked before.

        Raises AnswerRefused, a ValueError, for an answer that is cut off, empty or none; OSError where the endpoint
        does not answer after some tries or does not take the question. What was answered before stays in the cache.
        """
        path = self._path(messages, max_tokens)
        if (kept := _kept(path)) is not None:
            return kept
        answer = _checked(self._request(messages, max_tokens + self.thinking_tokens))
        write_json({"model": self.model, "messages": messages, "answer": answer}, path, replaces=always)
        return answer

    def _request(self, messages: Messages, max_tokens: int) -> object:
        """The endpoint's response. What it does not take, of our options, is left out from then on."""
        import openai

        while True:
            options = {self._limit_name: max_tokens, **self._options}
            try:
                return self.client.chat.completions.create(
                    model=self.model, messages=cast("list", messages), **cast("dict", options)
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if not self._adapts(str(error)):
                    raise OSError(self._words(error)) from None
            except (openai.OpenAIError, ValueError) as error:  # ValueError: a body that is no JSON
                raise OSError(self._words(error)) from None

    def _adapts(self, complaint: str) -> bool:
        """Whether something can be left out that the endpoint complains of; then it is."""
        if "temperature" in self._options and "temperature" in complaint:
            del self._options["temperature"]
            return True
        if self._limit_name == LIMIT_NAMES[0] and ("max_completion_tokens" in complaint or "max_tokens" in complaint):
            self._limit_name = LIMIT_NAMES[1]
            return True
        return False

    def _words(self, error: Exception) -> str:
        """What went wrong, without the key, which some servers repeat, and without the rest of a page of HTML."""
        said, key = one_line(str(error)), self.client.api_key
        if len(key) >= SECRET_CHARACTERS:  # shorter ones, such as "none", are words of the message
            said = said.replace(key, "(the key)")
        address = self.client.base_url.copy_with(username=None, password=None)
        return (
            f"{self.model!r} at {address} did not answer ({type(error).__name__}: {said[:MAX_COMPLAINT]}). Answers so "
            f"far are kept in {str(self.cache)!r}: run it again, and only what is missing is asked"
        )

    def estimate(self, questions: Sequence[Messages], max_tokens: int) -> pd.Series:
        """What asking them would take: calls, those of them cached, tokens read and written at most, dollars.

        >>> llm.estimate([ik.features.label_prompt(store, 1, 4)], max_tokens=40)
        """
        new = [q for q in questions if _kept(self._path(q, max_tokens)) is None]
        read = sum(len(m["content"]) for q in new for m in q) / CHARACTERS_PER_TOKEN
        written = len(new) * (max_tokens + self.thinking_tokens)
        dollars = (read * self.prices[0] + written * self.prices[1]) / 1e6 if self.prices else float("nan")
        found = {"calls": len(new), "cached": len(questions) - len(new)}
        return pd.Series(found | {"tokens read": round(read), "tokens written": written, "dollars": dollars})

    def _path(self, messages: Messages, max_tokens: int) -> Path:
        asked = json.dumps([str(self.client.base_url), self.model, messages, max_tokens], sort_keys=True)
        return self.cache / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.json"


def _kept(path: Path) -> str | None:
    """The answer in a file of the cache; None where there is none, or what is there is no answer."""
    try:
        content = read_json(path)
    except (OSError, ValueError, MemoryError):
        return None
    answer = content.get("answer") if isinstance(content, dict) else None
    return answer if isinstance(answer, str) and answer.strip() else None


def _checked(response: object) -> str:
    """The text of a response. Raises AnswerRefused where it has none, or not all of it."""
    choices = getattr(response, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise AnswerRefused("the answer has no choices: is this address an endpoint for chat completions?")
    message, reason = getattr(choices[0], "message", None), getattr(choices[0], "finish_reason", None)
    content, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
    if reason == "length":
        raise AnswerRefused("it was cut off; a model that reasons first needs LLM(thinking_tokens=1000), or more")
    if reason == "content_filter" or refusal:
        raise AnswerRefused(f"the model refused: {one_line(str(refusal or reason))[:MAX_COMPLAINT]}")
    if not isinstance(content, str) or HALF_CHARACTER.search(content):
        raise AnswerRefused("it is empty" if content is None else "it is no text")
    answer = THOUGHTS.sub("", content).strip()
    if not answer:
        raise AnswerRefused("it is only thoughts" if content.strip() else "it is empty")
    return answer


def one_line(text: str) -> str:
    """A text from elsewhere on one line, with control characters (a terminal would obey them) spelled out."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in " ".join(text.split()))


def label_prompt(store: FeatureStore, layer: int, feature: int) -> Messages:
    """The messages that ask an LLM to name a feature. They show nothing that was kept aside for testing.

    Raises KeyError for a feature that the store does not have.

    >>> ik.features.label_prompt(store, 1, 4)
    """
    row, examples = store.row(layer, feature), store.examples_of(layer, feature)
    shown = example_rows(examples[examples["group"].isin(LABEL_GROUPS)].head(N_EXAMPLES_SHOWN))
    lines = [f"{i + 1}. {marked(e.tokens, strong(e.activations))}" for i, e in enumerate(shown)]
    text = "\n".join(lines) + "\nMakes likelier: " + ", ".join(map(repr, row.get("top_logits", [])))
    return [{"role": "system", "content": LABEL_INSTRUCTION}, {"role": "user", "content": text}]


def judge_prompt(label: str, texts: Sequence[str], fuzzing: bool) -> Messages:
    """The messages that ask whether a feature of that label is active in each text; `fuzzing`: on its marked tokens."""
    numbered = "\n".join(f"{i + 1}. {text}" for i, text in enumerate(texts))
    instruction = FUZZING_INSTRUCTION if fuzzing else DETECTION_INSTRUCTION
    return [{"role": "system", "content": instruction.format(label=label)}, {"role": "user", "content": numbered}]


def strong(activations: Sequence[float]) -> list[int]:
    """The positions at which a feature is strong, compared with the strongest of this text."""
    largest = max(map(abs, activations), default=0)
    return [i for i, a in enumerate(activations) if largest and abs(a) > MARKED_SHARE * largest]


def marked(tokens: Sequence[str], positions: Collection[int]) -> str:
    """The text with << and >> around those tokens; neighbours share one pair."""
    text = ""
    for i, token in enumerate(tokens):
        text += "<<" if i in positions and i - 1 not in positions else ""
        text += token
        text += ">>" if i in positions and i + 1 not in positions else ""
    return " ".join(text.split())
