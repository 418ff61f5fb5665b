"""All lenses on one prompt, on one page: what each can tell, what it says here, and what it cost."""

import contextlib
import html
import importlib
import time
from dataclasses import dataclass

import pandas as pd
from tqdm.auto import tqdm

from ..graphs import attribute
from ..widgets.text_table import text_table
from .components.attention import attention_patterns
from .components.decomposition import decompose
from .components.logit_lens import logit_lens
from .confidence.logprobs import logprobs
from .reasoning.chain_of_thought import cot_faithfulness
from .tokens.token_attribution import explain_tokens

TELLS = {
    "log-probabilities": "how sure it was of the answer, and what else it considered",
    "logit lens": "what it would say if it stopped after a layer",
    "decomposition": "which parts wrote the answer, and from which word heads brought it",
    "attention": "where heads look and what they move, for any answer",
    "integrated gradients": "which words decide the answer, by slopes on the way from no words to all",
    "SHAP": "which words decide the answer, by fair shares over orders of revealing them",
    "LIME": "which words decide the answer, by the straight line that fits best",
    "chain of thought": "what it says when it may reason first, and whether the answer follows that",
    "attribution graph": "through which features words became the answer, and how much nobody explains",
}
METHODS = {"integrated gradients": "integrated_gradients", "SHAP": "shap", "LIME": "lime"}


@dataclass(repr=False)
class SideBySide:
    """results: what each lens returned, by its name. table: a row a lens: what it can tell (tells), what it finds on
    this prompt (says), and CPU seconds."""

    prompt: str
    results: dict
    table: pd.DataFrame

    def __getitem__(self, lens):
        return self.results[lens]

    def __repr__(self):
        return f"SideBySide({self.prompt!r})\n{self.table.to_string()}"

    def _repr_html_(self):
        parts = [
            f"<details><summary><b>{html.escape(name)}</b></summary>{_page(result)}</details>"
            for name, result in self.results.items()
        ]
        return f"<p><code>{html.escape(self.prompt)}</code></p>{text_table(self.table)}{''.join(parts)}"


def side_by_side(
    model,
    prompt,
    target=None,
    contrast=None,
    *,
    transcoder=None,
    features=None,
    labels=None,
    problem=None,
    baseline="space",
) -> SideBySide:
    """Looks at one prompt through every lens.

    prompt, target, contrast: as in `decompose`; with a contrast, decomposition and token attributions ask why the one
    rather than the other. transcoder: for the attribution graph, with `features` and `labels` for its names. problem:
    an `ik.lenses.Problem`, the same question with room to reason, for the chain of thought. What is not given is
    left out,
    and so are SHAP and LIME where the extra `xai` is not installed, and attention for a family
    whose heads cannot be told apart; the table says so. baseline: of the token
    attributions.

    Raises what the lenses raise.
    """
    explain = {
        name: lambda method=method: explain_tokens(model, prompt, target, contrast, method=method, baseline=baseline)
        for name, method in METHODS.items()
    }
    looks = {
        "log-probabilities": lambda: logprobs(model, prompt=prompt, max_new_tokens=1),
        "logit lens": lambda: logit_lens(model, prompt, target),
        "decomposition": lambda: decompose(model, prompt, target, contrast),
        "attention": lambda: attention_patterns(model, prompt),
        **explain,
    }
    if problem is not None:
        looks["chain of thought"] = lambda: cot_faithfulness(model, [problem], ("early", "mistakes"))
    if transcoder is not None:
        looks["attribution graph"] = lambda: _graph(model, transcoder, prompt, features, labels)
    for library in ("captum.attr", "shap", "lime.lime_text"):  # loading them is not the lenses' cost
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(library)
    results, rows = {}, {}
    bar = tqdm(looks.items(), desc="lenses", leave=False)
    for name, look in bar:
        bar.set_postfix_str(name)
        start = time.process_time()
        try:
            results[name] = look()
            says = _SAYS.get(name, _say_tokens)(results[name])
        except (ModuleNotFoundError, NotImplementedError) as error:
            says = str(error)
        rows[name] = {"tells": TELLS[name], "says": says, "CPU seconds": time.process_time() - start}
    prompt = prompt if isinstance(prompt, str) else model.decode(prompt)
    return SideBySide(prompt, results, pd.DataFrame.from_dict(rows, orient="index"))


def _graph(model, transcoder, prompt, features, labels):
    graph = attribute(model, transcoder, prompt)
    return (graph if features is None else graph.annotate(features, labels)).prune()


def _page(result):
    return result._repr_html_() if hasattr(result, "_repr_html_") else f"<pre>{html.escape(repr(result))}</pre>"


# ---------------------------------------------------------------- each lens in a sentence


def _say_logprobs(found):
    if not found.content:
        return "the model ends the text here"
    row = found.table.iloc[0]
    return f"{row['token']!r} with {row['probability']:.1%}; entropy {row['entropy']:.2f} bits"


def _say_logit_lens(found):
    """The likeliest token of the last position, where it changes, from the first layer of the upper half on."""
    words, said = found.tokens.iloc[:, -1], []
    for layer, word in words.iloc[len(words) // 2 :].items():
        if not said or said[-1][1] != word:
            said.append((layer, word))
    return "; ".join(f"{word!r} after {layer}" for layer, word in said)


def _say_decomposition(found):
    kinds = found.table.groupby("kind")["contribution"].sum()
    heads = found.table["head"].notna().to_numpy()
    parts = ", ".join(f"{kind} {value:+.1f}" for kind, value in kinds.items())
    if not heads.any():
        return parts
    origin = found.sources[heads].sum().to_numpy()
    return f"{parts}; heads brought most from {found.sources.columns[origin.argmax()]!r}"


def _say_attention(found):
    top = found.strongest(k=1).iloc[0]
    return f"head {top['layer']}.{top['head']} moves most to the end, from {top['token']!r}"


def _say_tokens(found):
    top = found.table.nlargest(2, "value")
    return f"{found.question}: " + ", ".join(f"{row.token!r} {row.value:+.1f}" for row in top.itertuples())


def _say_thought(found):
    own, mistakes = found.own.iloc[0], found.table[found.table["test"] == "mistakes"]
    changed = f"{(~mistakes['same']).sum()} of {len(mistakes)} mistakes in it change that"
    return f"{own['reasoning'].strip()!r}, hence {own['answer']!r}; {changed}"


def _say_graph(found):
    features = found.features
    names = features.groupby("label")["influence"].sum().nlargest(3).index if "label" in features else []
    scores = f"replacement {found.scores['replacement']:.2f}, completeness {found.scores['completeness']:.2f}"
    return f"{', '.join(map(repr, names))}; {scores}" if len(names) else f"{len(features)} features; {scores}"


_SAYS = {
    "log-probabilities": _say_logprobs,
    "logit lens": _say_logit_lens,
    "decomposition": _say_decomposition,
    "attention": _say_attention,
    "chain of thought": _say_thought,
    "attribution graph": _say_graph,
}
