"""A language model behind an OpenAI-compatible endpoint, asked for labels or to judge them."""

import hashlib
import json
import os
from pathlib import Path

import pandas as pd

from ..storage.atomic import atomic_file
from .store import TO_LABEL

RETRIES = 5  # of the client: it waits longer each time, as the server says
CHARACTERS = 4  # of a token of English, about
LABEL_TOKENS, JUDGE_TOKENS = 40, 20
SHOWN = 12
STRONG = 0.3  # tokens at which a feature is at least this share of its highest are marked

LABEL = """You name features of a language model. A feature is a direction that is active on some tokens. You see \
texts in which it is active, the tokens on which it is strongly so between << and >>, strongest first, and the tokens \
it makes likelier. Say in at most six words what those tokens, or what comes after them, have in common. If they have \
nothing in common, name two or three of the things. Answer with the name alone."""
DETECT = """A feature of a language model is described as: {label}
Below are numbered texts. For each say whether the feature is active anywhere in it: 1 for yes, 0 for no. Answer with \
the digits alone, separated by commas."""
FUZZ = """A feature of a language model is described as: {label}
Below are numbered texts with some tokens between << and >>. For each say whether the feature would be active on the \
marked tokens: 1 for yes, 0 for no. Answer with the digits alone, separated by commas."""


class LLM:
    """An endpoint that speaks OpenAI's chat completions.

    model, base_url, api_key: what is not given comes from the environment, OPENAI_MODEL, OPENAI_BASE_URL and
        OPENAI_API_KEY.
    prices: dollars for a million tokens (read, written); without them an estimate has tokens only.
    cache: a folder in which every answer is kept, so that no question is paid for twice.

    Raises ValueError when no model is named.
    """

    def __init__(self, model=None, base_url=None, api_key=None, prices=None, cache: str | Path = "build/llm"):
        import openai  # slow to import, and most never ask an LLM

        self.model = model or os.environ.get("OPENAI_MODEL")
        if not self.model:
            raise ValueError("no model: give LLM(model=...), or set OPENAI_MODEL")
        self.client = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=RETRIES)
        self.prices, self.cache = prices, Path(cache)

    def ask(self, messages: list[dict], max_tokens: int) -> str:
        """The answer, from the cache if the same was asked before. Raises openai's errors after its retries."""
        path = self._path(messages, max_tokens)
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))["answer"]
        response = self.client.chat.completions.create(
            model=self.model, messages=messages, max_completion_tokens=max_tokens, temperature=0
        )
        answer = (response.choices[0].message.content or "").strip()
        with atomic_file(path) as temporary:
            kept = {"model": self.model, "messages": messages, "answer": answer}
            temporary.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        return answer

    def estimate(self, questions: list[list[dict]], max_tokens: int) -> pd.Series:
        """What asking them would take: calls, those of them cached, tokens read and written at most, dollars."""
        new = [q for q in questions if not self._path(q, max_tokens).exists()]
        read = sum(len(m["content"]) for q in new for m in q) / CHARACTERS
        written = len(new) * max_tokens
        dollars = (read * self.prices[0] + written * self.prices[1]) / 1e6 if self.prices else float("nan")
        return pd.Series(
            {"calls": len(new), "cached": len(questions) - len(new), "tokens read": round(read),
             "tokens written": written, "dollars": dollars}
        )  # fmt: skip

    def _path(self, messages, max_tokens):
        asked = json.dumps([str(self.client.base_url), self.model, messages, max_tokens], sort_keys=True)
        return self.cache / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.json"


def label_prompt(store, layer: int, feature: int) -> list[dict]:
    """The messages that ask an LLM to name a feature. They show nothing that was kept aside for testing."""
    row = store.row(layer, feature)
    examples = store.of(layer, feature)
    shown = examples[examples["group"].isin(TO_LABEL)].head(SHOWN).itertuples()
    lines = [f"{i + 1}. {marked(e.tokens, strong(e.activations))}" for i, e in enumerate(shown)]
    text = "\n".join(lines) + "\nMakes likelier: " + ", ".join(map(repr, row["promotes"]))
    return [{"role": "system", "content": LABEL}, {"role": "user", "content": text}]


def judge_prompt(label: str, texts: list[str], fuzz: bool) -> list[dict]:
    """The messages that ask whether a feature of that label is active in each text."""
    numbered = "\n".join(f"{i + 1}. {text}" for i, text in enumerate(texts))
    return [
        {"role": "system", "content": (FUZZ if fuzz else DETECT).format(label=label)},
        {"role": "user", "content": numbered},
    ]


def strong(activations) -> list[int]:
    """The positions at which a feature is strong, compared with the highest of this text."""
    highest = max(map(abs, activations), default=0)
    return [i for i, a in enumerate(activations) if highest and abs(a) > STRONG * highest]


def marked(tokens, positions) -> str:
    """The text with << and >> around those tokens; neighbours share one pair."""
    positions, text = set(positions), ""
    for i, token in enumerate(tokens):
        text += "<<" if i in positions and i - 1 not in positions else ""
        text += token
        text += ">>" if i in positions and i + 1 not in positions else ""
    return " ".join(text.split())
