"""All lenses on one prompt, on one page: what each can tell, what it says here, and what it cost."""

import contextlib
import html
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd

from ..features import FeatureStore
from ..features.store import check_set
from ..graphs import AttributionGraph, attribute
from ..models.arguments import checked
from ..models.language_model import LanguageModel, Prompt
from ..models.targets import Tokens
from ..transcoders import CrossLayerTranscoder
from ..widgets.plain_text import literal, printable
from ..widgets.progress import ProgressBar
from ..widgets.text_table import text_table
from .components.attention import AttentionPatterns, attention_patterns
from .components.decomposition import Decomposition, decompose
from .components.logit_lens import LogitLens, logit_lens
from .confidence.logprobs import Logprobs, logprobs
from .reasoning.chain_of_thought import cot_faithfulness
from .reasoning.faithfulness import CotFaithfulness
from .reasoning.problems import Problem
from .tokens.masking import Baseline
from .tokens.methods import import_shap
from .tokens.token_attribution import TokenAttribution, explain_tokens

Found = Logprobs | LogitLens | Decomposition | AttentionPatterns | TokenAttribution | CotFaithfulness | AttributionGraph


@dataclass(repr=False)
class SideBySide:
    """What `side_by_side` found; `page["SHAP"]` is one lens's result.

    prompt: as text.
    results: what each lens returned, by its name.
    table: a row a lens: what it can tell (tells), what it finds on this prompt (says), and CPU seconds.
    """

    prompt: str
    results: dict[str, Found]
    table: pd.DataFrame

    def __getitem__(self, lens: str) -> Found:
        return self.results[lens]

    def __repr__(self) -> str:
        return printable(f"SideBySide({self.prompt!r})\n{self.table.to_string()}")

    def _repr_html_(self) -> str:
        parts = [
            f"<details><summary><b>{html.escape(name)}</b></summary>{result._repr_html_()}</details>"
            for name, result in self.results.items()
        ]
        return literal(f"<p><code>{html.escape(self.prompt)}</code></p>{text_table(self.table)}{''.join(parts)}")


@checked
def side_by_side(
    model: LanguageModel,
    prompt: Prompt,
    target: Tokens | None = None,
    contrast: Tokens | None = None,
    *,
    transcoder: CrossLayerTranscoder | None = None,
    features: FeatureStore | None = None,
    labels: pd.DataFrame | None = None,
    problem: Problem | None = None,
    baseline: Baseline | str = "space",
) -> SideBySide:
    """Looks at one prompt through every lens.

    prompt: text, messages of a chat, or ids [position].
    target, contrast: the next token asked about, and rather than which other one: text (" Austin") or id; a list is a
        mean. Without a target the likeliest. With a contrast, decomposition, token attributions and the graph ask why
        the one rather than the other; the others follow the target alone, or all tokens.
    transcoder: for the attribution graph, with `features` and `labels` for its names.
    problem: an `ik.lenses.Problem`, the same question with room to reason, for the chain of thought.
    baseline: of the token attributions, as in `explain_tokens`.

    What is not given is left out, and so are SHAP and LIME where the extra `xai` is not installed, and attention for a
    family whose heads cannot be told apart; the table says so.

        ik.side_by_side(model, prompt, target=" Austin", contrast=" Sacramento", transcoder=clt)

    Raises ValueError for a transcoder, features or labels that belong to another model, and what the lenses raise.
    """
    check_set(model, transcoder, features, labels)
    explain = partial(explain_tokens, model, prompt, target, contrast, baseline=baseline)
    looks: dict[str, Callable[[], Found]] = {
        "log-probabilities": lambda: logprobs(model, prompt=prompt, max_new_tokens=1),
        "logit lens": lambda: logit_lens(model, prompt, target),
        "decomposition": lambda: decompose(model, prompt, target, contrast),
        "attention": lambda: attention_patterns(model, prompt),
        "integrated gradients": lambda: explain(method="integrated_gradients"),
        "SHAP": lambda: explain(method="shap"),
        "LIME": lambda: explain(method="lime"),
    }
    if problem is not None:
        looks["chain of thought"] = lambda: cot_faithfulness(model, [problem], ("early", "mistakes"))
    if transcoder is not None:

        def graph() -> AttributionGraph:
            whole = attribute(model, transcoder, prompt, target, contrast)
            return (whole if features is None else whole.annotate(features, labels)).prune()

        looks["attribution graph"] = graph
    load = importlib.import_module
    for loaded in (partial(load, "captum.attr"), import_shap, partial(load, "lime.lime_text")):  # not the lenses' cost
        with contextlib.suppress(ModuleNotFoundError):
            loaded()
    results, rows = {}, {}
    bar = ProgressBar(looks.items(), desc="lenses", leave=False)
    for name, look in bar:
        bar.set_postfix_str(name)
        tells, say = LENSES[name]
        start = time.process_time()
        try:
            results[name] = look()
            says = say(results[name])
        except (ModuleNotFoundError, NotImplementedError) as error:
            says = str(error)
        rows[name] = {"tells": tells, "says": says, "CPU seconds": time.process_time() - start}
    return SideBySide(model.text_of(prompt), results, pd.DataFrame.from_dict(rows, orient="index"))


# ---------------------------------------------------------------- each lens in a sentence


def _say_logprobs(found: Logprobs) -> str:
    if not found.content:
        return "the model ends the text here"
    row = found.table.iloc[0]
    return f"{row['token']!r} with {row['probability']:.1%}; entropy {row['entropy']:.2f} bits"


def _say_logit_lens(found: LogitLens) -> str:
    """The likeliest token of the last position, where it changes, from the first layer of the upper half on."""
    words = found.tokens.iloc[len(found.tokens) // 2 :, -1]
    return "; ".join(f"{word!r} after {layer}" for layer, word in words[words != words.shift()].items())


def _say_decomposition(found: Decomposition) -> str:
    parts = ", ".join(f"{kind} {value:+.1f}" for kind, value in found.kinds.items())
    if found.table.dropna(subset=["head"]).empty:
        return parts
    brought = found.heads_by_source()
    return f"{parts}; heads brought most from {list(brought.index)[brought.to_numpy().argmax()]!r}"


def _say_attention(found: AttentionPatterns) -> str:
    top = found.strongest(k=1).iloc[0]
    return f"head {top['layer']}.{top['head']} moves most to the end, from {top['token']!r}"


def _say_tokens(found: TokenAttribution) -> str:
    top = (f"{token!r} {value:+.1f}" for token, value in found.table.nlargest(2, "value").itertuples(index=False))
    return f"{found.question}: {', '.join(top)}"


def _say_thought(found: CotFaithfulness) -> str:
    own, mistakes = found.own.iloc[0], found.table[found.table["test"] == "mistakes"]
    changed = f"{(~mistakes['same']).sum()} of {len(mistakes)} mistakes in it change that"
    return f"{own['reasoning'].strip()!r}, hence {own['answer']!r}; {changed}"


def _say_graph(found: AttributionGraph) -> str:
    features, names = found.features, []
    if "label" in features:
        names = list(features.groupby("label")["influence"].sum().nlargest(3).index)
    scores = f"replacement {found.scores['replacement']:.2f}, completeness {found.scores['completeness']:.2f}"
    return f"{', '.join(map(repr, names))}; {scores}" if names else f"{len(features)} features; {scores}"


# What a lens can tell, and what says in a sentence what it found.
LENSES: dict[str, tuple[str, Callable[..., str]]] = {
    "log-probabilities": ("how sure it was of the answer, and what else it considered", _say_logprobs),
    "logit lens": ("what it would say if it stopped after a layer", _say_logit_lens),
    "decomposition": ("which parts wrote the answer, and from which word heads brought it", _say_decomposition),
    "attention": ("where heads look and what they move, for any answer", _say_attention),
    "integrated gradients": ("which words decide the answer, by slopes on the way from no words to all", _say_tokens),
    "SHAP": ("which words decide the answer, by fair shares over orders of revealing them", _say_tokens),
    "LIME": ("which words decide the answer, by the straight line that fits best", _say_tokens),
    "chain of thought": ("what it says when it may reason first, and whether the answer follows that", _say_thought),
    "attribution graph": ("through which features words became the answer, and how much nobody explains", _say_graph),
}
