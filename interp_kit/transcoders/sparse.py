"""The arithmetic of few features on among many: a sparse [token, feature] matrix and its products.

With k of F features on, a product with the decoder costs k / F of the dense one, forward and back. Each product here
reads a row of weights for every feature that is on and nothing else:

    dots       <row of the token, row of the feature>, for every pair that is on      (sampled dense-dense product)
    decode     sum over a token's features of value * row of the feature              (embedding bag)
    gather     sum over a feature's tokens of value * row of the token                (the same, transposed)

`dots` gives activations from the encoder's rows, `decode` what they write; backwards, `dots` gives the gradient of the
activations from the decoder's rows, `gather` the gradients of both kinds of rows.
"""

import warnings

import torch
import torch.nn.functional as F

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


class ActiveFeatures:
    """Which features are on at which tokens. `tokens` (ascending) and `features` [pair]; `by_feature`: the pairs in the
    order of features, and where each feature's start, and the end [feature + 1]."""

    def __init__(self, tokens: torch.Tensor, features: torch.Tensor, n_tokens: int, n_features: int, by_feature=None):
        self.tokens, self.features = tokens, features
        self.shape = (n_tokens, n_features)
        self.starts = _starts(tokens, n_tokens)  # of each token's pairs, and the end: [token + 1]
        if by_feature is None:
            order = features.argsort(stable=True)
            by_feature = order, _starts(features[order], n_features)
        self.by_feature = by_feature

    def __len__(self):
        return len(self.tokens)

    def dots(self, of_tokens: torch.Tensor, of_features: torch.Tensor) -> torch.Tensor:
        """of_tokens [token, width], of_features [feature, width] -> [pair]."""
        zeros = of_tokens.new_zeros(len(self))
        pattern = torch.sparse_csr_tensor(self.starts, self.features, zeros, self.shape, check_invariants=False)
        return torch.sparse.sampled_addmm(pattern, of_tokens, of_features.T, beta=0.0).values()

    def decode(self, values: torch.Tensor, of_features: torch.Tensor) -> torch.Tensor:
        """values [pair], of_features [feature, width] -> [token, width]."""
        return _sums(values, self.features, of_features, self.starts)

    def gather(self, values: torch.Tensor, of_tokens: torch.Tensor) -> torch.Tensor:
        """values [pair], of_tokens [token, width] -> [feature, width]."""
        order, starts = self.by_feature
        return _sums(values[order], self.tokens[order], of_tokens, starts)


def joined(parts: list[ActiveFeatures]) -> tuple[ActiveFeatures, list[torch.Tensor]]:
    """The features of several layers, at the same tokens, as those of one, numbered on from layer to layer; and for
    each layer's pairs their places among all."""
    if len(parts) == 1:
        return parts[0], [slice(None)]
    counts = torch.stack([part.starts.diff() for part in parts])  # [layer, token]
    ends = counts.sum(0).cumsum(0)
    firsts = ends - counts.flip(0).cumsum(0).flip(0)  # a token's pairs stand in the order of layers
    places = [
        (first - part.starts[:-1])[part.tokens] + torch.arange(len(part), device=ends.device)
        for part, first in zip(parts, firsts, strict=True)
    ]
    tokens, features = ends.new_empty(2, int(ends[-1]))
    n_tokens, n_features = parts[0].shape
    for i, (part, place) in enumerate(zip(parts, places, strict=True)):
        tokens[place], features[place] = part.tokens, part.features + i * n_features
    orders, starts = zip(*(part.by_feature for part in parts), strict=True)
    order = torch.cat([place[order] for place, order in zip(places, orders, strict=True)])
    starts = F.pad(torch.cat([some.diff() for some in starts]).cumsum(0), (1, 0))  # sorting again would cost more
    return ActiveFeatures(tokens, features, n_tokens, len(parts) * n_features, (order, starts)), places


def top_features(pre: torch.Tensor, k: int) -> ActiveFeatures:
    """The k largest of each token's pre-activations [token, feature], as far as they are positive."""
    top = pre.topk(k, dim=-1)
    on = top.values > 0
    return ActiveFeatures(on.nonzero()[:, 0], top.indices[on], *pre.shape)


def features_where(on: torch.Tensor) -> ActiveFeatures:
    """Those that `on` [token, feature] says are on."""
    return ActiveFeatures(*on.nonzero(as_tuple=True), *on.shape)


def _starts(sorted_ids, n):
    return torch.searchsorted(sorted_ids, torch.arange(n + 1, device=sorted_ids.device))


def _sums(values, indices, rows, starts):
    return F.embedding_bag(indices, rows, starts, mode="sum", per_sample_weights=values, include_last_offset=True)
