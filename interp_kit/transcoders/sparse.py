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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


class TokenOrder(NamedTuple):
    """Pairs in the order of tokens."""

    places: torch.Tensor
    "where each pair is in the order of features [pair]"
    features: torch.Tensor
    "each pair's feature [pair]"
    starts: torch.Tensor
    "where each token's pairs start, and the end [token + 1]"


@dataclass
class ActiveFeatures:
    """Which features are on at which tokens: pairs, in the order of features, as all values [pair] are."""

    tokens: torch.Tensor
    "each pair's token [pair]"
    starts: torch.Tensor
    "where each feature's pairs start, and the end [feature + 1]"
    by_token: TokenOrder
    "the same pairs in the order of tokens"

    @classmethod
    def of_pairs(cls, tokens: torch.Tensor, features: torch.Tensor, n_tokens: int, n_features: int) -> "ActiveFeatures":
        """tokens and features [pair], in the order of tokens."""
        order, places = features.argsort(stable=True), torch.empty_like(features)
        places[order] = torch.arange(len(order), device=order.device)
        by_token = TokenOrder(places, features, _starts(tokens, n_tokens))
        return cls(tokens[order], _starts(features[order], n_features), by_token)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def features(self) -> torch.Tensor:
        """Each pair's feature [pair]."""
        n = len(self.starts) - 1
        return torch.arange(n, device=self.starts.device).repeat_interleave(self.starts.diff())

    def dots(self, of_tokens: torch.Tensor, of_features: torch.Tensor) -> torch.Tensor:
        """of_tokens [token, width], of_features [feature, width] -> [pair]."""
        zeros, shape = of_tokens.new_zeros(len(self)), (len(of_features), len(of_tokens))
        pattern = torch.sparse_csr_tensor(self.starts, self.tokens, zeros, shape, check_invariants=False)
        return torch.sparse.sampled_addmm(pattern, of_features, of_tokens.T, beta=0.0).values()

    def decode(self, values: torch.Tensor, of_features: torch.Tensor) -> torch.Tensor:
        """values [pair], of_features [feature, width] -> [token, width]."""
        return _sums(values[self.by_token.places], self.by_token.features, of_features, self.by_token.starts)

    def gather(self, values: torch.Tensor, of_tokens: torch.Tensor) -> torch.Tensor:
        """values [pair], of_tokens [token, width] -> [feature, width]."""
        return _sums(values, self.tokens, of_tokens, self.starts)


def joined(parts: Sequence[ActiveFeatures]) -> ActiveFeatures:
    """The features of several layers, at the same tokens, as those of one layer.

    The second layer's features are numbered after the first's, and its pairs follow the first's, and so on.
    """
    if len(parts) == 1:
        return parts[0]
    counts = torch.stack([part.by_token.starts.diff() for part in parts])  # [layer, token]
    ends = counts.sum(0).cumsum(0)  # of each token's pairs, in the order of tokens
    firsts = ends - counts.flip(0).cumsum(0).flip(0)  # of a token's pairs, those of earlier layers come first
    places, features = ends.new_empty(2, int(ends[-1]))
    n_pairs, n_features = 0, 0  # of the layers so far
    for part, first, count in zip(parts, firsts, counts):
        shift = (first - part.by_token.starts[:-1]).repeat_interleave(count)
        here = shift + torch.arange(len(part), device=ends.device)
        places.scatter_(0, here, part.by_token.places + n_pairs)  # several times faster than places[here] = ...
        features.scatter_(0, here, part.by_token.features + n_features)
        n_pairs, n_features = n_pairs + len(part), n_features + len(part.starts) - 1
    starts = F.pad(torch.cat([part.starts.diff() for part in parts]).cumsum(0), (1, 0))
    by_token = TokenOrder(places, features, F.pad(ends, (1, 0)))
    return ActiveFeatures(torch.cat([part.tokens for part in parts]), starts, by_token)


def top_features(pre: torch.Tensor, k: int) -> ActiveFeatures:
    """The k largest of each token's pre-activations [token, feature], as far as they are positive."""
    top = pre.topk(k, dim=-1)
    on = top.values > 0
    return ActiveFeatures.of_pairs(on.nonzero()[:, 0], top.indices[on], *pre.shape)


def features_where(on: torch.Tensor) -> ActiveFeatures:
    """Those that `on` [token, feature] says are on."""
    return ActiveFeatures.of_pairs(*on.nonzero(as_tuple=True), *on.shape)


def _starts(sorted_ids: torch.Tensor, n: int) -> torch.Tensor:
    """Where each of 0 to n - 1 starts in `sorted_ids`, and the end [n + 1]."""
    return torch.searchsorted(sorted_ids, torch.arange(n + 1, device=sorted_ids.device))


def _sums(values: torch.Tensor, indices: torch.Tensor, rows: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """For each start the sum of values * rows[indices] up to the next one."""
    return F.embedding_bag(indices, rows, starts, mode="sum", per_sample_weights=values, include_last_offset=True)
