"""Where is the answer decided? Of two prompts that differ in a word, the activations of one are put into the other, one
place at a time: activation patching, in the denoising direction (Vig et al. 2020; Meng et al. 2022; Heimersheim and
Nanda 2024)."""

import html
from dataclasses import dataclass

import pandas as pd

from ...models.arguments import checked
from ...models.edits import SITES, Edit, Site, record
from ...models.language_model import LanguageModel, Prompt
from ...models.precision import as_numpy
from ...models.targets import Target, Tokens
from ...widgets.chart import Chart
from ...widgets.heat_map import heat_map, places
from ...widgets.plain_text import literal, printable
from .edits import head_slice, n_heads, run

ALIKE = (
    "both prompts have the same answer, so there is no difference to restore: give prompts with other answers, or a "
    "target and a contrast on which they differ"
)


@dataclass(repr=False)
class ActivationPatching:
    """What `patch_activations` found.

    question: target and contrast in words, "' Austin' rather than ' Sacramento'".
    what: "residual", "attention", "MLP" or "heads".
    table: [layer, position], or [layer, head]: which share of the difference between the two prompts a single
        replacement restores: 0 leaves the corrupted prompt's answer, 1 gives the clean one's.
    clean, corrupted: the measure, the target's logit less the contrast's, on the prompts themselves.
    """

    question: str
    what: Site
    table: pd.DataFrame
    clean: float
    corrupted: float

    def show(self) -> Chart:
        """A plotly heat map."""
        title = f"{self.what}: share of {self.question} that one replacement restores"
        columns = self.table.columns if self.what == "heads" else places(self.table.columns)
        return heat_map(self.table, columns, self.table.index, title, 1).update_yaxes(title="layer", dtick=1)

    def __repr__(self) -> str:
        return printable(f"ActivationPatching({self.what}, {self.question})")

    def _repr_html_(self) -> str:
        title = f"{self.what}, {self.question}: {self.clean:.2f} on the clean prompt, {self.corrupted:.2f} on the other"
        return literal(f"<p>{html.escape(title)}</p>{self.table.to_html(float_format='{:.2f}'.format)}")


@checked
def patch_activations(
    model: LanguageModel,
    clean: Prompt,
    corrupted: Prompt,
    what: Site = "residual",
    target: Tokens | None = None,
    contrast: Tokens | None = None,
) -> ActivationPatching:
    """Runs the corrupted prompt with the clean prompt's activations put in, one place at a time.

    what: "residual" (the stream before a layer), "attention", "MLP" (what they write), each by layer and position;
        "heads", by layer and head, at all positions together.
    target: the clean prompt's answer, contrast: the corrupted prompt's; text (" Austin") or id, a list is a mean.
        Without them each prompt's likeliest next token.

        ik.lenses.patch_activations(model, "The capital of Texas is", "The capital of Ohio is").show()

    Raises ValueError for prompts of different lengths in tokens (then places do not correspond), for prompts whose
    answers are the same, and for an unknown `what`.
    """
    if what not in SITES:
        raise ValueError(f"what={what!r}: expected one of {', '.join(SITES)}")
    ids, other_ids = model.input_ids(clean), model.input_ids(corrupted)
    if len(ids) != len(other_ids):
        raise ValueError(
            f"the prompts have {len(ids)} and {len(other_ids)} tokens, so their places do not correspond: "
            f"{model.tokens(ids)} and {model.tokens(other_ids)}. Exchange a word for one of as many tokens."
        )
    logits, other_logits = model.logits(ids)[-1], model.logits(other_ids)[-1]
    if target is None and contrast is None and logits.argmax() == other_logits.argmax():
        raise ValueError(ALIKE)
    asked = Target.of(model, target, int(other_logits.argmax()) if contrast is None else contrast, logits)
    best, worst = float(asked.score(logits)), float(asked.score(other_logits))
    if best == worst:
        raise ValueError(ALIKE)
    values, rows = record(model.hf, ids, [what])[what], range(model.n_layers)
    if what == "heads":
        columns = [f"head {h}" for h in range(n_heads(model.hf))]
        parts = [head_slice(model.hf, h) for h in range(len(columns))]
        versions = [[Edit(what, l, values[l][:, part], part=part)] for l in rows for part in parts]
    else:
        columns = [a if a == b else f"{a}/{b}" for a, b in zip(model.tokens(ids), model.tokens(other_ids))]
        spots = [slice(p, p + 1) for p in range(len(ids))]
        versions = [[Edit(what, l, values[l, place], place)] for l in rows for place in spots]
    restored = (run(model.hf, other_ids, versions, asked.score, f"patching {what}") - worst) / (best - worst)
    index = pd.RangeIndex(model.n_layers, name="layer")
    table = pd.DataFrame(as_numpy(restored.view(len(index), -1).double()), index, columns)
    return ActivationPatching(asked.name, what, table, best, worst)
