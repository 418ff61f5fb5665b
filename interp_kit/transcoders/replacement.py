"""The replacement model: the same model with its MLPs' outputs overwritten by a transcoder's."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from transformers import PreTrainedModel

from ..models.families import anatomy
from ..models.hooks import hooked
from .module import CrossLayerTranscoder


@contextmanager
def replaced_mlps(hf: PreTrainedModel, clt: CrossLayerTranscoder) -> Iterator[None]:
    """Inside the block, every transcoded MLP of `hf` writes what `clt` rebuilds from the replaced stream.

    Nothing is frozen: features are computed from the replacement's own residual stream, so errors add up
    (Ameisen et al. 2025). A first position that the transcoder was not trained on keeps its MLP.
    """
    inputs: dict[int, torch.Tensor] = {}  # what the index-th transcoded layer reads
    written: dict[int, torch.Tensor] = {}  # what features of the layers so far write to the index-th

    def write(index: int, original: torch.Tensor) -> torch.Tensor:
        x = inputs.pop(index).to(clt.b_enc)  # its type and device; what it writes has the model's
        rebuilt = clt.b_dec[index] if clt.W_skip is None else clt.b_dec[index] + x @ clt.W_skip[index].T
        for j, part in enumerate(clt.written(index, clt.encode_layer(index, x)).unbind(-2)):
            written[index + j] = written.get(index + j, 0) + part
        out = (written.pop(index) + rebuilt).to(original)
        if clt.config.excludes_first_position:
            out = torch.cat([original[:, :1], out[:, 1:]], dim=1)
        return out

    blocks, hooks = [anatomy(hf).blocks[layer] for layer in clt.layers], []
    for index, block in enumerate(blocks):
        hooks.append(block.feature_input_hook(clt.config.feature_input_hook, partial(inputs.__setitem__, index)))
        hooks.append(block.feature_output_hook(partial(write, index)))
    with hooked(*hooks):
        yield
