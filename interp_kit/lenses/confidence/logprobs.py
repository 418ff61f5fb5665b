"""How sure was it, word by word? Log-probabilities in the shape of OpenAI's API, of a local model or of a response.

Local ones are of the raw logits (temperature 1), with entropies over the whole vocabulary; a response has only its top
list.
"""

import math
from dataclasses import dataclass
from typing import TypedDict

import pandas as pd
import torch

from ...models.arguments import checked
from ...models.language_model import LanguageModel, Prompt
from ...widgets.plain_text import printable
from ...widgets.token_strip import TokenStrip

UNLISTED = -9999.0  # what the API gives for a token outside its top list
MAX_TOP_LOGPROBS = 20  # alternatives that the API gives at most


class Alternative(TypedDict):
    """One token of a top list, as the API writes it. logprob: in nats. bytes: of its text, each 0 to 255."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(Alternative):
    """One token of a text, as the API writes it, with the likeliest tokens in its place, the likeliest first."""

    top_logprobs: list[Alternative]


@dataclass(repr=False)
class Logprobs:
    """What `logprobs` or `read_logprobs` found.

    content: a record a token.
    entropies: of every token's distribution, in nats, where they are known exactly; else None.
    """

    content: list[TokenLogprob]
    entropies: list[float] | None = None

    @property
    def text(self) -> str:
        """The records' bytes, put together and decoded: characters that were split over tokens are whole again."""
        return b"".join(bytes(record["bytes"]) for record in self.content).decode("utf-8", errors="replace")

    @property
    def table(self) -> pd.DataFrame:
        """A row a token: token, probability, logprob (nats), surprisal (bits), entropy (bits), alternative (the
        likeliest other token) and alternative_probability. Without the whole distribution, entropy is the least it can
        be: all that the top list leaves out counted as one token."""
        rows = []
        for i, record in enumerate(self.content):
            others = [a for a in record["top_logprobs"] if a["bytes"] != record["bytes"]]
            best = max(others, key=lambda a: a["logprob"], default=None)
            entropy = self.entropies[i] if self.entropies else _least_entropy(record)
            rows.append(
                {"token": record["token"], "probability": math.exp(record["logprob"]), "logprob": record["logprob"],
                 "surprisal": -record["logprob"] / math.log(2), "entropy": entropy / math.log(2),
                 "alternative": best["token"] if best else None,
                 "alternative_probability": math.exp(best["logprob"]) if best else None}
            )  # fmt: skip
        return pd.DataFrame(rows)

    def to_chat(self) -> dict[str, list[TokenLogprob] | None]:
        """As in a chat completion: `choices[i].logprobs`."""
        return {"content": self.content, "refusal": None}

    def to_responses(self) -> list[TokenLogprob]:
        """As in the Responses API: `output[i].content[j].logprobs`."""
        return self.content

    def show(self) -> TokenStrip:
        """The text, the less certain a token the deeper its colour (one minus its probability); alternatives where the
        pointer rests."""
        table, tips = self.table, []
        for record, row in zip(self.content, table.to_dict("records")):
            lines = [f"{math.exp(a['logprob']):7.1%}  {a['token']!r}" for a in record["top_logprobs"]]
            sure = f"{row['probability']:.1%}, {row['surprisal']:.2f} bits; entropy {row['entropy']:.2f} bits"
            tips.append("\n".join([f"{record['token']!r}: {sure}", *lines]))
        doubt = [-(1 - p) for p in table["probability"]] if len(table) else []
        note = "deeper orange: less certain (1 - probability); rest the pointer on a token for the alternatives"
        return TokenStrip([record["token"] for record in self.content], doubt, tips, note=note, limit=1.0)

    def _repr_html_(self) -> str:
        return self.show()._repr_html_()

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        data, metadata = self.show()._repr_mimebundle_()
        return data | {"text/plain": repr(self)}, metadata

    def __repr__(self) -> str:
        mean = sum(record["logprob"] for record in self.content) / max(len(self.content), 1)
        return printable(f"Logprobs({self.text!r}: {len(self.content)} tokens, mean logprob {mean:.3f})")


def _least_entropy(record: TokenLogprob) -> float:
    """In nats, with all that the top list leaves out counted as one token."""
    listed = {bytes(a["bytes"]): math.exp(a["logprob"]) for a in record["top_logprobs"]}
    listed.setdefault(bytes(record["bytes"]), math.exp(record["logprob"]))
    rest = max(0.0, 1 - sum(listed.values()))
    return -sum(p * math.log(p) for p in (*listed.values(), rest) if p > 0)


@checked
@torch.no_grad()
def logprobs(
    model: LanguageModel,
    text: str | None = None,
    *,
    prompt: Prompt | None = None,
    top_logprobs: int = 5,
    max_new_tokens: int = 40,
) -> Logprobs:
    """What the model gave every token of a text, and what it would rather have written there.

    text: read after `prompt`, or alone: then all tokens are scored that follow another. Without a text the model's own
        greedy continuation of the prompt is scored, of at most `max_new_tokens`.
    prompt: text, or ids [position]; for a chat model `model.chat(question)`. Its own tokens are not scored.
    top_logprobs: 0 to 20 alternatives.

        ik.lenses.logprobs(model, prompt=model.chat("What is the capital of Texas?"))

    Raises ValueError for neither text nor prompt, or for `top_logprobs` outside, and what `encode` raises.
    """
    if isinstance(top_logprobs, bool) or not isinstance(top_logprobs, int) or not 0 <= top_logprobs <= MAX_TOP_LOGPROBS:
        raise ValueError(f"top_logprobs={top_logprobs!r}: expected 0 to {MAX_TOP_LOGPROBS}, as in the API")
    if prompt is None:
        if text is None:
            raise ValueError("give a text to be scored, or a prompt to be continued")
        ids, n = model.encode(text), 1  # the first token has nothing before it
    else:
        start = model.input_ids(prompt)
        new = list(model.greedy(start, max_new_tokens)) if text is None else model.vocabulary.ids(text)
        ids, n = torch.cat([start, start.new_tensor(new)]), len(start)
    scores = model.logits(ids)[n - 1 : -1].float().log_softmax(-1)
    entropies = -(scores.exp() * scores.clamp(min=-1e4)).sum(-1)
    best, alternatives = scores.topk(min(top_logprobs, scores.shape[1]), -1)
    own = scores.gather(1, ids[n:, None])[:, 0]
    columns = (values.tolist() for values in (ids[n:], own, alternatives, best))
    content = [
        TokenLogprob(**_record(model, token, logprob), top_logprobs=[_record(model, *a) for a in zip(others, values)])
        for token, logprob, others, values in zip(*columns, strict=True)
    ]
    return Logprobs(content, entropies.tolist())


def _record(model: LanguageModel, token: int, logprob: float) -> Alternative:
    """One token as the API writes it. A part of a character reads as U+FFFD, and has its bytes."""
    data = model.token_bytes(token)
    return {"token": data.decode("utf-8", errors="replace"), "logprob": max(logprob, UNLISTED), "bytes": list(data)}
