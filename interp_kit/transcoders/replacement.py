"""The replacement model: the same model with its MLPs' outputs overwritten by a transcoder's."""

from contextlib import contextmanager

import torch

from ..models.anatomy import anatomy


@contextmanager
def replaced_mlps(hf, clt):
    """Inside the block, every transcoded MLP of `hf` writes what `clt` rebuilds from the replaced stream.

    Nothing is frozen: features are computed from the replacement's own residual stream, so errors add up
    (Ameisen et al. 2025). A first position that the transcoder was not trained on keeps its MLP.
    """
    blocks = anatomy(hf).blocks
    written, handles = {}, []

    def overwrite(index, x, original):
        rebuilt = clt.b_dec[index] if clt.W_skip is None else clt.b_dec[index] + x @ clt.W_skip[index].T
        wide = clt.encode_layer(index, x) @ clt.W_dec[index].flatten(1).to(x.dtype)
        for j, part in enumerate(wide.split(clt.config.d_model, dim=-1)):
            written[index + j] = written.get(index + j, 0) + part
        out = written.pop(index) + rebuilt
        if clt.config.excludes_first_position:
            out = torch.cat([original[:, :1], out[:, 1:]], dim=1)
        return out

    def watch(index, block):
        seen = {}
        handles.append(block.on_read(clt.config.feature_input_hook, lambda x: seen.update(x=x)))
        handles.append(block.on_write(lambda out: overwrite(index, seen["x"], out)))

    for index, layer in enumerate(clt.layers):
        watch(index, blocks[layer])
    try:
        yield hf
    finally:
        for handle in handles:
            handle.remove()
