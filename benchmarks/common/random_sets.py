"""Random transcoders that behave like trained ones where speed is concerned: a given share of features is active.

For measurements of time and memory, not of meaning: encoders and decoders are random, biases are set so that the
share holds on one prompt, and decoders are scaled so that what they rebuild is about half as large as what the MLP
writes.
"""

import torch

from interp_kit.models.frozen.model import FrozenModel
from interp_kit.transcoders import CrossLayerTranscoder, TranscoderConfig


@torch.no_grad()
def random_transcoder(model, prompt, n_features, span=1, skip=False, threshold=False, share=0.02, seed=0):
    """All layers of `model`, `n_features` each, of which `share` is active on `prompt` (its first token apart).

    A per-layer set reads what the MLP reads; a cross-layer one the residual stream. With `threshold` JumpReLU.
    """
    torch.manual_seed(seed)
    frozen = FrozenModel(model, prompt)
    n, d = model.n_layers, model.d_model
    config = TranscoderConfig(
        d_model=d,
        n_features=n_features,
        layers=list(range(n)),
        span=span,
        activation="jumprelu" if threshold else "relu",
        feature_input_hook="mlp.hook_in" if span == 1 else "hook_resid_mid",
        skip=skip,
        model={"name": model.name, "fingerprint": model.fingerprint},
    )
    clt = CrossLayerTranscoder(config).requires_grad_(False)
    x, y = frozen.transcoder_input(config.feature_input_hook)[:, 1:], frozen.mlp_out[:, 1:]
    torch.nn.init.normal_(clt.W_enc, std=d**-0.5)
    pre = x @ clt.W_enc.mT
    level = torch.stack([torch.quantile(p.flatten(), 1 - share) for p in pre])
    half = level / 2 if threshold else 0 * level
    clt.b_enc[:] = (half - level)[:, None]
    clt.threshold[:] = half[:, None]
    active = torch.where(pre > level[:, None, None], pre + clt.b_enc[:, None], 0)
    for source in range(n):
        for j in range(clt.n_targets(source)):
            size = y[source + j].norm(dim=-1).mean() / active[source].norm(dim=-1).mean()
            torch.nn.init.normal_(clt.W_dec[source][:, j], std=float(size) / 2 / (j + 1) * d**-0.5)
    torch.nn.init.normal_(clt.b_dec, std=0.01)
    if skip:
        torch.nn.init.normal_(clt.W_skip, std=0.02)
    return clt
