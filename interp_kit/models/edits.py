"""Run a model with what its parts hold replaced or added to: several versions of one prompt at once.

    edits = Edits([[Edit("MLP", 3, zeros)], [Edit("MLP", 4, zeros)]])       # two versions, each without one MLP
    logits = edits.run(model.hf, ids.expand(2, -1))                         # [version, position, vocabulary]

Four sites: "residual", the stream before a layer [d_model]; "attention" and "MLP", what they write [d_model]; "heads",
what the heads bring before it is projected to the stream, side by side [heads * width].
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from .cache import read_on
from .families import Block, anatomy
from .hooks import Callback, Hook, hooked

Site = Literal["residual", "attention", "MLP", "heads"]
SITES: tuple[Site, ...] = get_args(Site)
Place = tuple[Site, int]  # a site of a layer


class Edit(NamedTuple):
    """`values` [position, width], or what broadcasts to that, in place of what a site holds, or added to it.

    positions: where. part: a slice of the site's width.
    """

    site: Site
    layer: int
    values: torch.Tensor
    positions: slice = slice(None)
    part: slice = slice(None)
    add: bool = False


class Edits:
    """The edits of each version in a batch. A hook on an earlier module may put in more while the model runs."""

    def __init__(self, versions: Sequence[Sequence[Edit]] = ()):
        self._at: dict[Place, list[tuple[int | slice, Edit]]] = defaultdict(list)
        for version, edits in enumerate(versions):
            for edit in edits:
                self.put(version, edit)

    def put(self, version: int | slice, edit: Edit) -> None:
        """One more edit, of one version or a slice of them; those of a site are made in the order they were put in."""
        self._at[edit.site, edit.layer].append((version, edit))

    @property
    def places(self) -> list[Place]:
        """The sites, by layer, that have edits so far."""
        return list(self._at)

    def make(self, site: Site, layer: int, x: torch.Tensor) -> torch.Tensor | None:
        """What a site holds [version, position, width], edited; None where nothing is to be done."""
        edits = self._at.get((site, layer))
        if edits is None:
            return None
        x = x.clone()
        for version, edit in edits:
            place = version, edit.positions, edit.part
            x[place] = x[place] + edit.values if edit.add else edit.values
        return x

    @torch.no_grad()
    def run(
        self,
        hf: PreTrainedModel,
        ids: torch.Tensor,
        hooks: Sequence[Hook] = (),
        places: Sequence[Place] | None = None,
        cache: DynamicCache | None = None,
        **options: object,
    ) -> torch.Tensor:
        """The logits [version, position, vocabulary] of ids [version, position] with the edits made.

        hooks: further ones. They may put in edits while the model runs, for the sites that `places` names.
        cache, options: as in `read_on`.
        """
        blocks, places = anatomy(hf).blocks, self.places if places is None else places
        makers = [site_hook(blocks[layer], site, partial(self.make, site, layer)) for site, layer in places]
        with hooked(*hooks, *makers):
            return read_on(hf, ids, cache, **options)


def site_hook(block: Block, site: Site, callback: Callback) -> Hook:
    """For `hooked`: `callback` sees what a site holds [batch, position, width].

    Raises NotImplementedError for "attention" and "heads" where their projection is not known.
    """
    if site == "residual":
        return block.layer, "in", callback
    if site == "MLP":
        return block.feature_output_hook(callback)
    if site == "attention":
        return head_projection(block), "out", callback
    return head_projection(block), "in", callback


def head_projection(block: Block) -> nn.Module:
    """The module that takes the heads, side by side, to the stream."""
    if block.projection is None:
        kind = type(block.attention).__name__
        raise NotImplementedError(f"where {kind} brings its heads together is not known: see models/families.py")
    return block.projection


@torch.no_grad()
def record(hf: PreTrainedModel, ids: torch.Tensor, sites: Sequence[Site]) -> dict[Site, torch.Tensor]:
    """What sites hold on one prompt: {site: [layer, position, width]}; ids [position]."""
    found: dict[Site, list[torch.Tensor]] = {site: [] for site in sites}
    hooks = [site_hook(block, site, found[site].append) for site in sites for block in anatomy(hf).blocks]
    with hooked(*hooks):
        hf.base_model(input_ids=ids[None], use_cache=False)
    return {site: torch.cat(values) for site, values in found.items()}
