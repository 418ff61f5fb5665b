"""Where is the answer decided? Of two prompts that differ in a word, the activations of one are put into the other, one
place at a time: activation patching (Vig et al. 2020; Meng et al. 2022; Heimersheim and Nanda 2024)."""

import html
from dataclasses import dataclass

import pandas as pd
from tqdm.auto import tqdm

from ...models.edits import SITES, Edit, record
from ...models.targets import named, score, token_of
from .edits import head_slice, n_heads, run


@dataclass(repr=False)
class Patched:
    """table: DataFrame [layer, position], or [layer, head]: which share of the difference between the two prompts a
    single replacement restores: 0 leaves the corrupted prompt's answer, 1 gives the clean one's. clean, corrupted: the
    measure (target's logit less contrast's) on the prompts themselves."""

    question: str
    what: str
    table: pd.DataFrame
    clean: float
    corrupted: float

    def show(self):
        """A plotly heat map."""
        from ...widgets.heat_map import heat_map, places

        title = f"{self.what}: share of {self.question} that one replacement restores"
        columns = self.table.columns if self.what == "heads" else places(self.table.columns)
        return heat_map(self.table, columns, self.table.index, title, 1).update_yaxes(title="layer", dtick=1)

    def __repr__(self):
        return f"Patched({self.what}, {self.question})"

    def _repr_html_(self):
        title = f"{self.what}, {self.question}: {self.clean:.2f} on the clean prompt, {self.corrupted:.2f} on the other"
        return f"<p>{html.escape(title)}</p>{self.table.to_html(float_format='{:.2f}'.format)}"


def patch_activations(model, clean, corrupted, what: str = "residual", target=None, contrast=None) -> Patched:
    """Runs the corrupted prompt with the clean prompt's activations put in, one place at a time.

    what: "residual" (the stream before a layer), "attention", "MLP" (what they write), each by layer and position;
    "heads", by layer and head, at all positions together. target: the clean prompt's answer, contrast: the corrupted
    prompt's; without them each prompt's likeliest next token.

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
    plain, other = model.logits(ids)[-1], model.logits(other_ids)[-1]
    aim, against = token_of(model, target, plain), token_of(model, contrast, other)
    best, worst = float(score(plain, aim, against)), float(score(other, aim, against))
    if aim == against or best == worst:
        raise ValueError(f"both prompts say {model.tokens([aim])[0]!r}: there is no difference to restore")
    values, rows = record(model.hf, ids, [what])[what], range(model.n_layers)
    if what == "heads":
        columns = [f"head {h}" for h in range(n_heads(model.hf))]
        parts = [head_slice(model.hf, h) for h in range(len(columns))]
        versions = [[Edit(what, l, values[l][:, part], part=part)] for l in rows for part in parts]
    else:
        columns = [a if a == b else f"{a}/{b}" for a, b in zip(model.tokens(ids), model.tokens(other_ids))]
        spots = [slice(p, p + 1) for p in range(len(ids))]
        versions = [[Edit(what, l, values[l, place], place)] for l in rows for place in spots]
    with tqdm(total=len(versions), desc=f"patching {what}", leave=False) as bar:
        found = run(model.hf, other_ids, versions, lambda logits: score(logits, aim, against), bar)
    restored = (found - worst) / (best - worst)
    table = pd.DataFrame(
        restored.view(model.n_layers, -1).double().numpy(), pd.RangeIndex(model.n_layers, name="layer"), columns
    )
    return Patched(named(model, aim, against), what, table, best, worst)
