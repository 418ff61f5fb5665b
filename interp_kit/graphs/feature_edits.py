"""The mechanics of interventions: run the real model with features changed, many versions of one prompt at once.

The change is added to the real model's MLP outputs, which are never replaced: (wanted activation - current one)
times the feature's decoder rows, in every layer that the feature writes to. What reacts depends on the mode, by
circuit-tracer's names:

- freeze_attention=True: attention patterns stay; MLPs, norms and features recompute, and the current activation is
  that of the changed run ("iterative patching");
- freeze_attention=False: everything recomputes;
- constrained_layers=range(a, b): in these layers MLPs write what they wrote on the prompt, plus the changes, which act
  there only; the current activation is the prompt's. Over all layers norms are frozen as well: this is the graph's
  own linear model, and an effect is an edge.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from transformers import DynamicCache

from ..formats.node_id import NodeId
from ..models.cache import new_cache
from ..models.edits import Edit, Edits, Place
from ..models.frozen import FrozenModel, frozen_attention, frozen_norms
from ..models.hooks import Hook
from ..transcoders import CrossLayerTranscoder

ALL_VERSIONS = slice(None)
Rule = Literal["factor", "value", "add"]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True)
class FeatureEdit:
    """One feature at some positions, with an open end also on generated tokens; `index` counts transcoded layers."""

    index: int
    feature: int
    positions: slice
    rule: Rule
    amount: float

    def wanted(self, activation: torch.Tensor) -> torch.Tensor:
        """What `activation` [...] should become."""
        if self.rule == "value":
            return torch.full_like(activation, self.amount)
        return activation * self.amount if self.rule == "factor" else activation + self.amount


@dataclass
class Run:
    """What the versions of a prompt came to.

    logits [version, position, vocabulary]; uncapped, the same as the unembedding writes them, which is what a graph
    explains (Gemma 2 caps them, Granite scales them); preactivations, one [version, position, feature] a transcoded
    layer; final, the stream after the last layer [version, position, d_model].
    """

    logits: torch.Tensor
    uncapped: torch.Tensor
    preactivations: list[torch.Tensor]
    final: torch.Tensor


class FeatureEdits:
    """One prompt's run, on which versions with changed features are built.

    `activations` [layer, position, feature] are the prompt's own.
    """

    def __init__(self, frozen: FrozenModel, transcoder: CrossLayerTranscoder):
        self.frozen, self.transcoder = frozen, transcoder
        self.x = frozen.transcoder_input(transcoder.config.feature_input_hook)[transcoder.layers]
        self.preactivations = transcoder.preactivations(self.x)
        self.activations = transcoder.encode(self.x)

    @torch.no_grad()
    def run(
        self,
        versions: Sequence[Sequence[FeatureEdit]],
        constrained_layers: range | None = None,
        freeze_attention: bool = True,
        cache: DynamicCache | None = None,
    ) -> Run:
        """The prompt with the changes of each version.

        Raises ValueError for constrained layers that are none, and for a feature changed twice at one position.
        """
        hf, ids, uncapped, final = self.frozen.hf, self.frozen.ids.expand(len(versions), -1), [], []
        parts = self.frozen.parts
        ends: list[Hook] = [(parts.unembedding, "out", uncapped.append), (parts.final_norm, "in", final.append)]
        for changes in versions:
            self._check_once(changes)
        constrained = self._constrained(constrained_layers)
        with ExitStack() as stack:
            if freeze_attention or constrained:
                stack.enter_context(frozen_attention(hf, self.frozen.patterns))
            if len(constrained) == self.frozen.n_layers:
                stack.enter_context(frozen_norms(self.frozen))
            logits, preactivations = self._forward(ids, versions, constrained, cache, hooks=ends)
        return Run(logits, uncapped[0], preactivations, final[0])

    def _check_once(self, changes: Sequence[FeatureEdit]) -> None:
        """Each change goes from the current activation to the wanted one: two of them would overshoot."""
        taken = set()
        for c in changes:
            here = {(c.index, c.feature, p) for p in range(self.frozen.n_positions)[c.positions]}
            if here & taken:
                name = NodeId(self.transcoder.layers[c.index], c.feature)
                raise ValueError(f"feature {name} is changed twice at one position: give one Steer for it there")
            taken |= here

    @torch.no_grad()
    def generate(
        self,
        changes: Sequence[FeatureEdit],
        n: int,
        stops: set[int],
        constrained_layers: range | None = None,
        freeze_attention: bool = True,
    ) -> list[int]:
        """Up to n new tokens, greedily. The prompt is changed in the given mode; on new tokens the open-ended changes
        (of positions from p on) keep acting, and nothing is frozen."""
        cache = new_cache(self.frozen.hf)
        token = int(self.run([changes], constrained_layers, freeze_attention, cache).logits[0, -1].argmax())
        tokens, lasting = [], [change for change in changes if change.positions.stop is None]
        while token not in stops:
            tokens.append(token)
            if len(tokens) == n:
                break
            logits, _ = self._forward(torch.tensor([[token]]), [lasting], set(), cache, new_token=True)
            token = int(logits[0, -1].argmax())
        return tokens

    def _constrained(self, layers: range | None) -> set[int]:
        if layers is None:
            return set()
        last = self.frozen.n_layers - 1
        chosen = set(layers) if isinstance(layers, Iterable) else set()
        if not chosen or not chosen <= set(range(last + 1)):
            raise ValueError(f"constrained_layers {layers}: expected a range of layers, from 0 to {last}")
        return chosen

    # ------------------------------------------------------------------ what happens inside

    def _forward(
        self,
        ids: torch.Tensor,
        versions: Sequence[Sequence[FeatureEdit]],
        constrained: set[int],
        cache: DynamicCache | None,
        new_token: bool = False,
        hooks: Sequence[Hook] = (),
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The logits of ids [version, position] with the changes made, and the pre-activations of every transcoded
        layer, [version, position, feature] each."""
        transcoder, blocks = self.transcoder, self.frozen.parts.blocks
        changed = [(version, change) for version, changes in enumerate(versions) for change in changes]
        edits, seen = Edits(), []
        for layer in constrained:
            edits.put(ALL_VERSIONS, Edit("MLP", layer, self.frozen.mlp_out[layer]))

        def read(index: int, x: torch.Tensor) -> None:
            """At the index-th encoder's input: what its features and skip connection will write is put in."""
            pre = x @ transcoder.W_enc[index].T + transcoder.b_enc[index]
            seen.append(pre)
            if transcoder.W_skip is not None and constrained:
                edits.put(ALL_VERSIONS, self._through_skip(index, x, transcoder.W_skip[index]))
            for version, change in changed:
                if change.index == index:
                    for edit in self._edits(change, pre[version], bool(constrained), new_token):
                        edits.put(version, edit)

        # With all layers constrained norms are frozen: also the one that a "normalized" transcoder reads behind.
        fixed = self.frozen.norms if len(constrained) == self.frozen.n_layers else {}
        reads = []
        for i, block in enumerate(blocks[layer] for layer in transcoder.layers):
            norm = fixed.get(block.mlp_norm)
            reads.append(block.feature_input_hook(transcoder.config.feature_input_hook, partial(read, i), norm))
        # In constrained layers alone the changes act: what is put in for others is not made.
        writes: list[Place] = [("MLP", layer) for layer in constrained or transcoder.layers]
        return edits.run(self.frozen.hf, ids, [*reads, *hooks], writes, cache), seen

    def _through_skip(self, index: int, x: torch.Tensor, skip: torch.Tensor) -> Edit:
        """What a constrained MLP still writes, because x [version, position, d_model] moved: skip paths stay open."""
        moved = x - self.x[index]
        if self.transcoder.config.excludes_first_position:
            moved[:, 0] = 0
        return Edit("MLP", self.transcoder.layers[index], moved @ skip.T, add=True)

    def _edits(self, change: FeatureEdit, pre: torch.Tensor, constrained: bool, new_token: bool) -> Iterator[Edit]:
        """What one changed feature adds to each layer that it writes to; pre [position, feature] are the
        pre-activations of its layer in this version."""
        transcoder, index = self.transcoder, change.index
        positions = slice(None) if new_token else change.positions
        current = transcoder.activate(pre[positions], transcoder.threshold[index])[:, change.feature]
        if transcoder.config.excludes_first_position and not new_token:
            current = torch.where(torch.arange(len(pre))[positions] == 0, 0, current)
        start = current if new_token else self.activations[index, positions, change.feature]
        current = start if constrained else current
        for j in range(transcoder.n_targets(index)):
            row = transcoder.decoder_rows(index, torch.tensor([change.feature]), index + j)
            delta = (change.wanted(start) - current)[:, None] * row
            yield Edit("MLP", transcoder.layers[index + j], delta, positions, add=True)
