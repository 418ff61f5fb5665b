"""A transcoder's fingerprint: whether the features of two are the same ones, by number.

It covers the sizes, the activation and, of every layer, all biases and thresholds, four encoder weights of every
feature, the decoder rows of the first eight features and as many rows of the skip map, all rounded to float16. So a
feature that was trained further, moved or dropped changes it, and hardly anything is read of a decoder that lies on the
disk (rows here and there would be: a page of it comes with each, and its neighbours). A copy in
float16 or float64 has the same one; one in int8 or bfloat16 has other weights and another fingerprint. What was loaded
from a folder has that of the folder, whatever type it was loaded in.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from .int8_rows import Int8Rows

if TYPE_CHECKING:  # which imports this file
    from .module import TranscoderConfig

N_ENCODER_WEIGHTS = 4  # of every feature
N_DECODER_ROWS = 8  # of every layer
FIELDS = ("d_model", "n_features", "layers", "span", "activation", "skip", "n_features_per_layer")


def layer_digest(tensors: Mapping[str, torch.Tensor | Int8Rows]) -> bytes:
    """Of one layer: W_enc [F, d], b_enc [F], b_dec [d], W_dec [F, targets, d] and, where it has them, threshold [F] and
    W_skip [d, d]."""
    digest = hashlib.sha256()
    for name in ("W_enc", "b_enc", "threshold", "b_dec", "W_dec", "W_skip"):
        if name in tensors:
            part = _part(name, tensors[name])
            numbers = part.detach().to("cpu", torch.float16).contiguous().numpy()
            digest.update(f"{name}{numbers.shape}".encode() + numbers.tobytes())
    return digest.digest()


def _part(name: str, tensor: torch.Tensor | Int8Rows) -> torch.Tensor:
    if name == "W_enc":
        return tensor[:][:, :: max(1, tensor.shape[1] // N_ENCODER_WEIGHTS)][:, :N_ENCODER_WEIGHTS]
    return tensor[:] if len(tensor.shape) == 1 else tensor[:N_DECODER_ROWS]


def fingerprint(config: "TranscoderConfig", layers: Iterable[bytes]) -> str:
    """16 hex digits of the sizes and of the digests of the layers."""
    sizes = json.dumps([getattr(config, field) for field in FIELDS])
    return hashlib.sha256(sizes.encode() + b"".join(layers)).hexdigest()[:16]
