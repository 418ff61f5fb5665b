"""The logit lens with a translator: what does the stream after a layer usually become by the end?

The logit lens reads an early stream as if it were the last. The Jacobian lens (2026) first multiplies it by the mean
derivative of the last stream with respect to it, over many texts:

    J[l] = mean over texts and positions p of the sum over p' >= p of  d h_final[p'] / d h_l[p]

and reads norm(J[l] h). What early layers hold for later use, in another direction than its word's, is then found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import torch

from ...formats.provenance import About, check_belongs
from ...hardware import check_memory
from ...models.arguments import checked
from ...models.edits import site_hook
from ...models.families import anatomy
from ...models.frozen import FrozenModel
from ...models.hooks import hooked
from ...models.language_model import LanguageModel, Prompt
from ...models.targets import Target, Tokens
from ...text.batches import TOKENS_AT_ONCE, of_similar_size, pad
from ...widgets.plain_text import literal, printable
from ...widgets.progress import ProgressBar
from .logit_lens import LogitLens, read_streams

COPIES = 20  # of the streams of one batch, alive with their graph


@dataclass(repr=False)
class JacobianLens:
    """What `fit_jacobian_lens` found.

    jacobians [layer, d_model, d_model]: from the stream before each layer to that after the last. n_texts: read. about:
    the model.
    """

    jacobians: torch.Tensor
    n_texts: int
    about: About

    @checked
    @torch.no_grad()
    def read(
        self, model: LanguageModel, prompt: Prompt, target: Tokens | None = None, contrast: Tokens | None = None
    ) -> LogitLens:
        """The next token that the stream after each layer would usually come to, at every position; see
        `ik.lenses.logit_lens`. The last row is the model's own prediction.

        Raises ValueError for another model than the one it was fitted on, and what `logit_lens` raises.

        >>> lens.read(model, prompt, target=" Austin").show()
        """
        check_belongs(self, "lens", model, "model", keys=["fingerprint"])
        frozen = FrozenModel(model, prompt)
        asked = Target.of(model, target, contrast, frozen.logits[-1])
        streams = [h @ j.T for h, j in zip(frozen.residual_pre, self.jacobians, strict=True)]
        return read_streams(model, frozen, asked, [*streams, frozen.residual_final])

    def __repr__(self) -> str:
        return printable(
            f"JacobianLens({self.about.get('model', '')!r}, {len(self.jacobians)} layers, {self.n_texts} texts)"
        )

    def _repr_html_(self) -> str:
        return literal(f"<p>{escape(repr(self))}</p>")


@checked
def fit_jacobian_lens(model: LanguageModel, texts: Sequence[str]) -> JacobianLens:
    """The mean Jacobians over `texts`; 100 to 200 texts are enough. One backward pass for each of d_model directions,
    of many texts at once.

    Raises ValueError for texts without tokens; MemoryError where the streams of a batch would not fit.

    >>> lens = ik.lenses.fit_jacobian_lens(model, [s.text for s in world.sentences(200, "train")])
    >>> lens.read(model, "The capital of the state containing Dallas is")
    """
    rows = sorted((ids for text in texts if (ids := model.encode(text).tolist())), key=len)
    if not rows:
        raise ValueError("there is no text to read: give texts with at least one token each")
    n_layers, d = model.n_layers, model.d_model
    check_memory(COPIES * n_layers * TOKENS_AT_ONCE * d * 4, "fitting a Jacobian lens")
    total = torch.zeros(n_layers, d, d)
    parts = list(of_similar_size(rows))
    with ProgressBar(total=len(parts) * d, desc="fitting the lens", delay=1, leave=False) as bar:
        for part in parts:
            streams, final, real = _streams(model, part)
            for i in range(d):
                found = torch.autograd.grad(final[..., i][real].sum(), streams, retain_graph=True)
                total[:, i] += torch.stack([g[real].sum(0) for g in found]).float().cpu()
                bar.update()
    return JacobianLens(total / sum(map(len, rows)), len(rows), model.about)


@torch.enable_grad()
def _streams(model: LanguageModel, rows: list[list[int]]) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """The stream before each layer, one [row, position, d_model] a layer, and that after the last, with their graph;
    which positions are real [row, position]."""
    ids, real = pad(rows, model.device)
    streams, final = [], []
    hooks = [site_hook(block, "residual", streams.append) for block in anatomy(model.hf).blocks]
    hooks.append((anatomy(model.hf).final_norm, "in", final.append))
    embedded = model.hf.get_input_embeddings()(ids).detach().requires_grad_()  # the weights need no gradient
    with hooked(*hooks):
        model.hf.base_model(inputs_embeds=embedded, use_cache=False)
    return streams, final[0], real
