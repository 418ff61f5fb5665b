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
    """Which features are on at which tokens: pairs, in the order of features (`tokens` [pair], and where each feature's
    pairs start, and the end: `starts` [feature + 1]).

    `by_token`: the same pairs in the order of tokens: their places among the others, features, starts [token + 1].
    """

    def __init__(self, tokens, starts, by_token):
        self.tokens, self.starts, self.by_token = tokens, starts, by_token

    @classmethod
    def of_pairs(cls, tokens: torch.Tensor, features: torch.Tensor, n_tokens: int, n_features: int):
        """Of pairs in the order of tokens."""
        order, places = features.argsort(stable=True), torch.empty_like(features)
        places[order] = torch.arange(len(order), device=order.device)
        return cls(tokens[order], _starts(features[order], n_features), (places, features, _starts(tokens, n_tokens)))

    def __len__(self):
        return len(self.tokens)

    @property
    def features(self) -> torch.Tensor:
        """[pair]"""
        n = len(self.starts) - 1
        return torch.arange(n, device=self.starts.device).repeat_interleave(self.starts.diff())

    def dots(self, of_tokens: torch.Tensor, of_features: torch.Tensor) -> torch.Tensor:
        """of_tokens [token, width], of_features [feature, width] -> [pair]."""
        zeros, shape = of_tokens.new_zeros(len(self)), (len(of_features), len(of_tokens))
        pattern = torch.sparse_csr_tensor(self.starts, self.tokens, zeros, shape, check_invariants=False)
        return torch.sparse.sampled_addmm(pattern, of_features, of_tokens.T, beta=0.0).values()

    def decode(self, values: torch.Tensor, of_features: torch.Tensor) -> torch.Tensor:
        """values [pair], of_features [feature, width] -> [token, width]."""
        places, features, starts = self.by_token
        return _sums(values[places], features, of_features, starts)

    def gather(self, values: torch.Tensor, of_tokens: torch.Tensor) -> torch.Tensor:
        """values [pair], of_tokens [token, width] -> [feature, width]."""
        return _sums(values, self.tokens, of_tokens, self.starts)


def joined(parts: list[ActiveFeatures]) -> ActiveFeatures:
    """The features of several layers at the same tokens as those of one, numbered on; its pairs are theirs, one layer's
    after the other's."""
    if len(parts) == 1:
        return parts[0]
    counts = torch.stack([part.by_token[2].diff() for part in parts])  # [layer, token]
    ends = counts.sum(0).cumsum(0)
    firsts = ends - counts.flip(0).cumsum(0).flip(0)  # of the pairs of a token, those of earlier layers come first
    places, features = ends.new_empty(2, int(ends[-1]))
    before, numbered = 0, 0
    for part, first, count in zip(parts, firsts, counts, strict=True):
        their_places, their_features, starts = part.by_token
        here = (first - starts[:-1]).repeat_interleave(count) + torch.arange(len(part), device=ends.device)
        places.scatter_(0, here, their_places + before)  # several times faster than places[here] = ...
        features.scatter_(0, here, their_features + numbered)
        before, numbered = before + len(part), numbered + len(part.starts) - 1
    starts = F.pad(torch.cat([part.starts.diff() for part in parts]).cumsum(0), (1, 0))
    by_token = places, features, F.pad(ends, (1, 0))
    return ActiveFeatures(torch.cat([part.tokens for part in parts]), starts, by_token)


def top_features(pre: torch.Tensor, k: int) -> ActiveFeatures:
    """The k largest of each token's pre-activations [token, feature], as far as they are positive."""
    top = pre.topk(k, dim=-1)
    on = top.values > 0
    return ActiveFeatures.of_pairs(on.nonzero()[:, 0], top.indices[on], *pre.shape)


def features_where(on: torch.Tensor) -> ActiveFeatures:
    """Those that `on` [token, feature] says are on."""
    return ActiveFeatures.of_pairs(*on.nonzero(as_tuple=True), *on.shape)


def _starts(sorted_ids, n):
    return torch.searchsorted(sorted_ids, torch.arange(n + 1, device=sorted_ids.device))


def _sums(values, indices, rows, starts):
    return F.embedding_bag(indices, rows, starts, mode="sum", per_sample_weights=values, include_last_offset=True)
