"""A language model behind an OpenAI-compatible endpoint, asked for labels or to judge them."""

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import cast

import pandas as pd

from ..formats.feature_json import example_rows
from ..formats.json import write_json
from ..storage.atomic import always
from .examples import LABEL_GROUPS
from .store import FeatureStore

MAX_RETRIES = 5  # of the client: it waits longer each time, as the server says
CHARACTERS_PER_TOKEN = 4  # of English, about
MAX_LABEL_TOKENS, MAX_JUDGE_TOKENS = 40, 20  # of an answer
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


class LLM:
    """An endpoint that speaks OpenAI's chat completions.

    model, base_url, api_key: what is not given comes from the environment, OPENAI_MODEL, OPENAI_BASE_URL and
        OPENAI_API_KEY.
    prices: dollars for a million tokens (read, written); without them an estimate has tokens only.
    cache: a folder in which every answer is kept, so that no question is paid for twice.

    Raises ValueError when no model is named.

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
    ) -> None:
        import openai  # slow to import, and most never ask an LLM

        self.model = model or os.environ.get("OPENAI_MODEL", "")
        if not self.model:
            raise ValueError("no model: give LLM(model=...), or set OPENAI_MODEL")
        self.client = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=MAX_RETRIES)
        self.prices, self.cache = prices, Path(cache)

    def ask(self, messages: Messages, max_tokens: int) -> str:
        """The answer, from the cache if the same was asked before. Raises openai's errors after its retries."""
        path = self._path(messages, max_tokens)
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))["answer"]
        response = self.client.chat.completions.create(
            model=self.model, messages=cast("list", messages), max_completion_tokens=max_tokens, temperature=0
        )
        answer = (response.choices[0].message.content or "").strip()
        write_json({"model": self.model, "messages": messages, "answer": answer}, path, always)
        return answer

    def estimate(self, questions: Sequence[Messages], max_tokens: int) -> pd.Series:
        """What asking them would take: calls, those of them cached, tokens read and written at most, dollars.

        >>> llm.estimate([ik.features.label_prompt(store, 1, 4)], max_tokens=40)
        """
        new = [q for q in questions if not self._path(q, max_tokens).exists()]
        read = sum(len(m["content"]) for q in new for m in q) / CHARACTERS_PER_TOKEN
        written = len(new) * max_tokens
        dollars = (read * self.prices[0] + written * self.prices[1]) / 1e6 if self.prices else float("nan")
        found = {"calls": len(new), "cached": len(questions) - len(new)}
        return pd.Series(found | {"tokens read": round(read), "tokens written": written, "dollars": dollars})

    def _path(self, messages: Messages, max_tokens: int) -> Path:
        asked = json.dumps([str(self.client.base_url), self.model, messages, max_tokens], sort_keys=True)
        return self.cache / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.json"


def label_prompt(store: FeatureStore, layer: int, feature: int) -> Messages:
    """The messages that ask an LLM to name a feature. They show nothing that was kept aside for testing.

    Raises KeyError for a feature that the store does not have.

    >>> ik.features.label_prompt(store, 1, 4)
    """
    row, examples = store.row(layer, feature), store.examples_of(layer, feature)
    shown = example_rows(examples[examples["group"].isin(LABEL_GROUPS)].head(N_EXAMPLES_SHOWN))
    lines = [f"{i + 1}. {marked(e.tokens, strong(e.activations))}" for i, e in enumerate(shown)]
    text = "\n".join(lines) + "\nMakes likelier: " + ", ".join(map(repr, row["top_logits"]))
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
