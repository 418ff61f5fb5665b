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
        wide = clt.encode_layer(index, x) @ clt.W_dec[index].flatten(1)
        for j, part in enumerate(wide.split(clt.config.d_model, dim=-1)):
            written[index + j] = written.get(index + j, clt.b_dec[index + j]) + part
        out = written.pop(index)
        if clt.config.skips_first:
            out = torch.cat([original[:, :1], out[:, 1:]], dim=1)
        return out

    def watch(index, block):
        seen = {}
        reader = block.reader(clt.config.reads)
        handles.append(reader.register_forward_pre_hook(lambda _, args: seen.update(x=args[0])))
        handles.append(block.mlp.register_forward_hook(lambda _, args, out: overwrite(index, seen["x"], out)))

    for index, layer in enumerate(clt.layers):
        watch(index, blocks[layer])
    try:
        yield hf
    finally:
        for handle in handles:
            handle.remove()
