"""Run a model with some of what its parts write replaced: many versions of one prompt at once.

Four sites: "residual", the stream before a layer [d_model]; "attention" and "MLP", what they write [d_model]; "heads",
what the heads bring before it is projected to the stream, side by side [heads * width].
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch

from ...models.anatomy import anatomy

SITES = ("residual", "attention", "MLP", "heads")
AT_ONCE = 64  # versions in one forward


class Edit(NamedTuple):
    """In one version: `values` [position, width], or broadcast to that, in place of a site's at some positions; `part`
    is a slice of its width."""

    site: str
    layer: int
    values: torch.Tensor
    positions: slice = slice(None)
    part: slice = slice(None)


def n_heads(hf) -> int:
    return hf.config.get_text_config().num_attention_heads


def head_slice(hf, head: int) -> slice:
    """Where a head's own values are in the site "heads"."""
    projection = _projection(anatomy(hf).blocks[0])
    width = (projection.nx if hasattr(projection, "nx") else projection.in_features) // n_heads(hf)
    return slice(head * width, (head + 1) * width)


@torch.no_grad()
def record(hf, ids: torch.Tensor, sites: Sequence[str]) -> dict[str, torch.Tensor]:
    """What the sites hold on one prompt: {site: [layer, position, width]}; ids [position]."""
    found, blocks = {site: [] for site in sites}, anatomy(hf).blocks
    with ExitStack() as hooks:
        for site in sites:
            for block in blocks:
                hooks.callback(on(block, site, lambda x, site=site: found[site].append(x[0])).remove)
        hf.base_model(input_ids=ids[None], use_cache=False)
    return {site: torch.stack(values) for site, values in found.items()}


@torch.no_grad()
def run(hf, ids: torch.Tensor, versions: Sequence[Sequence[Edit]], measure, bar=None) -> torch.Tensor:
    """measure(logits [some versions, vocabulary] at the last position) of all versions, put together; ids [position].

    bar: a tqdm bar, advanced by the versions that were run.
    """
    blocks, measured = anatomy(hf).blocks, []
    for first in range(0, len(versions), AT_ONCE):
        some = versions[first : first + AT_ONCE]
        with ExitStack() as hooks:
            for site, layer in {(edit.site, edit.layer) for edits in some for edit in edits}:
                hooks.callback(on(blocks[layer], site, _replacing(some, site, layer)).remove)
            batch = ids.expand(len(some), -1)
            measured.append(measure(hf(input_ids=batch, use_cache=False, logits_to_keep=1).logits[:, -1].float()))
        if bar is not None:
            bar.update(len(some))
    return torch.cat(measured)


def _replacing(versions, site, layer):
    mine = [(i, e) for i, edits in enumerate(versions) for e in edits if (e.site, e.layer) == (site, layer)]

    def replace(x):
        x = x.clone()
        for i, edit in mine:
            x[i, edit.positions, edit.part] = edit.values
        return x

    return replace


def on(block, site: str, callback):
    """Calls `callback` with a site's values [batch, position, width] in every forward; a tensor that it returns takes
    their place. Returns the hook's handle."""
    if site == "MLP":
        return block.on_write(callback)
    if site == "attention":
        return _projection(block).register_forward_hook(lambda _, args, out: callback(out))
    module = block.layer if site == "residual" else _projection(block)

    def before(_, args):
        new = callback(args[0])
        return None if new is None else (new, *args[1:])

    return module.register_forward_pre_hook(before)


def _projection(block):
    if block.projection is None:
        kind = type(block.attention).__name__
        raise NotImplementedError(f"where {kind} brings its heads together is not known: see models/anatomy.py")
    return block.projection
