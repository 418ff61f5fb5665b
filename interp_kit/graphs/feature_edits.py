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

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from ..models.anatomy import NORMALIZED, RESIDUAL
from ..models.frozen.model import frozen_attention, frozen_norms


@dataclass(frozen=True)
class FeatureEdit:
    """One feature at some positions. `index` counts transcoded layers; `rule` is "factor", "value" or "add"."""

    index: int
    feature: int
    positions: slice
    rule: str
    amount: float

    def wanted(self, activation: torch.Tensor) -> torch.Tensor:
        if self.rule == "value":
            return torch.full_like(activation, self.amount)
        return activation * self.amount if self.rule == "factor" else activation + self.amount

    @property
    def open_ended(self) -> bool:
        return self.positions.stop is None


@dataclass
class Run:
    """logits [version, position, vocabulary]; uncapped, the same as the unembedding writes them, which is what a graph
    explains (Gemma 2 caps them, Granite scales them); preactivations, one [version, position, feature] a transcoded
    layer."""

    logits: torch.Tensor
    uncapped: torch.Tensor
    preactivations: list[torch.Tensor]


class FeatureEdits:
    """One prompt's run, on which versions with changed features are built.

    `activations` [layer, position, feature] are the prompt's own.
    """

    def __init__(self, frozen, transcoder):
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
        hf, ids, uncapped = self.frozen.hf, self.frozen.ids.expand(len(versions), -1), []
        for changes in versions:
            self._check_once(changes)
        constrained = self._constrained(constrained_layers)
        with ExitStack() as stack:
            if freeze_attention or constrained:
                stack.enter_context(frozen_attention(hf, self.frozen.patterns))
            if len(constrained) == self.frozen.n_layers:
                stack.enter_context(frozen_norms(self.frozen))
            seen = stack.enter_context(self._hooks(versions, constrained))
            unembedding = self.frozen.parts.unembedding
            stack.callback(unembedding.register_forward_hook(lambda _, args, out: uncapped.append(out)).remove)
            logits = hf(input_ids=ids, past_key_values=cache, use_cache=cache is not None).logits
        return Run(logits, uncapped[0], seen)

    def _check_once(self, changes):
        """Each change goes from the current activation to the wanted one: two of them would overshoot."""
        taken = set()
        for c in changes:
            here = {(c.index, c.feature, p) for p in range(self.frozen.n_positions)[c.positions]}
            if here & taken:
                name = f"{self.transcoder.layers[c.index]}_{c.feature}"
                raise ValueError(f"feature {name} is changed twice at one position: give one Steer for it there")
            taken |= here

    @torch.no_grad()
    def generate(self, changes: Sequence[FeatureEdit], n: int, stops: set[int], **mode) -> list[int]:
        """Up to n new tokens, greedily. The prompt is changed in the given mode; on new tokens the open-ended changes
        (of positions from p on) keep acting, and nothing is frozen."""
        cache, hf = DynamicCache(config=self.frozen.hf.config), self.frozen.hf
        token = int(self.run([changes], cache=cache, **mode).logits[0, -1].argmax())
        tokens, lasting = [], [change for change in changes if change.open_ended]
        while token not in stops:
            tokens.append(token)
            if len(tokens) == n:
                break
            with self._hooks([lasting], set(), new_token=True) if lasting else nullcontext():
                out = hf(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True)
            token = int(out.logits[0, -1].argmax())
        return tokens

    def _constrained(self, layers):
        if layers is None:
            return set()
        last = self.frozen.n_layers - 1
        chosen = set(layers) if isinstance(layers, Iterable) else set()
        if not chosen or not chosen <= set(range(last + 1)):
            raise ValueError(f"constrained_layers {layers}: expected a range of layers, from 0 to {last}")
        return chosen

    # ------------------------------------------------------------------ what happens inside

    @contextmanager
    def _hooks(self, versions, constrained, new_token=False):
        """Hooks on every MLP; yields the pre-activations as they come."""
        transcoder, seen, inputs, added, handles = self.transcoder, [], {}, {}, []

        def read(index, x):
            inputs[index] = x
            seen.append(x @ transcoder.W_enc[index].T + transcoder.b_enc[index])
            self._add_changes(index, seen[-1], versions, constrained, new_token, added)

        def write(layer, out):
            index = transcoder.layers.index(layer) if layer in transcoder.layers else None
            if layer in constrained:
                out = self.frozen.mlp_out[layer].expand_as(out)
                if transcoder.W_skip is not None and index is not None:  # the graph's skip paths stay open
                    moved = inputs[index] - self.x[index]
                    if transcoder.config.excludes_first_position:
                        moved[:, 0] = 0
                    out = out + moved @ transcoder.W_skip[index].T
            elif constrained:
                return out
            out = out.clone()
            for version, positions, rows in added.get(index, ()):
                out[version, positions] += rows
            return out

        for index, layer in enumerate(transcoder.layers):
            handles.append(self._on_read(layer, len(constrained), lambda x, index=index: read(index, x)))
        for layer, block in enumerate(self.frozen.parts.blocks):
            handles.append(block.on_write(lambda out, layer=layer: write(layer, out)))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def _on_read(self, layer, n_constrained, callback):
        """With all layers constrained norms are frozen: also the one that a "normalised" transcoder reads behind."""
        block, feature_input_hook = self.frozen.parts.blocks[layer], self.transcoder.config.feature_input_hook
        if feature_input_hook != NORMALIZED or n_constrained < self.frozen.n_layers:
            return block.on_read(feature_input_hook, callback)
        norm, scale = self.frozen.norms[block.mlp_norm]
        return block.on_read(RESIDUAL, lambda x: callback(norm.normalised(x, scale)))

    def _add_changes(self, index, seen, versions, constrained, new_token, added):
        """What the changed features of one layer, with pre-activations `seen`, add to each layer that they write to."""
        transcoder = self.transcoder
        for version, changes in enumerate(versions):
            for change in changes:
                if change.index != index:
                    continue
                positions = slice(None) if new_token else change.positions
                pre = seen[version, positions]
                current = transcoder.activate(pre, transcoder.threshold[index])[:, change.feature]
                if transcoder.config.excludes_first_position and not new_token:
                    current = torch.where(torch.arange(seen.shape[1])[positions] == 0, 0, current)
                start = current
                if not new_token:
                    start = self.activations[index, positions, change.feature]
                    current = start if constrained else current
                for j in range(transcoder.n_targets(index)):
                    row = transcoder.decoder_rows(index, torch.tensor([change.feature]), index + j)
                    delta = (change.wanted(start) - current)[:, None] * row
                    added.setdefault(index + j, []).append((version, positions, delta))
