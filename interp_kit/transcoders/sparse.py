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

import torch
import torch.nn.functional as F

# torch says each once in a process, some versions though `check_invariants` is named.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")


@dataclass
class ActiveFeatures:
    """Which features are on at which tokens: pairs, in the order of features, as all values [pair] are."""

    tokens: torch.Tensor
    "each pair's token [pair]"
    starts: torch.Tensor
    "where each feature's pairs start, and the end [feature + 1]"
    by_token: torch.Tensor
    "the same pairs in the order of tokens: where each is in the order of features [pair]"
    features_by_token: torch.Tensor
    "in the order of tokens: each pair's feature [pair]"
    token_starts: torch.Tensor
    "in the order of tokens: where each token's pairs start, and the end [token + 1]"

    @classmethod
    def of_pairs(cls, tokens: torch.Tensor, features: torch.Tensor, shape: torch.Size) -> "ActiveFeatures":
        """tokens and features [pair] in the order of tokens, and how many there are of either: (token, feature)."""
        n_tokens, n_features = shape
        order, by_token = features.argsort(stable=True), torch.empty_like(features)
        by_token[order] = torch.arange(len(order), device=order.device)
        starts, token_starts = _starts(features[order], n_features), _starts(tokens, n_tokens)
        return cls(tokens[order], starts, by_token, features, token_starts)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def features(self) -> torch.Tensor:
        """Each pair's feature [pair]."""
        return torch.arange(len(self.starts) - 1, device=self.starts.device).repeat_interleave(self.starts.diff())

    def dots(self, of_tokens: torch.Tensor, of_features: torch.Tensor) -> torch.Tensor:
        """of_tokens [token, width], of_features [feature, width] -> [pair]."""
        zeros, shape = of_tokens.new_zeros(len(self)), (len(of_features), len(of_tokens))
        pattern = torch.sparse_csr_tensor(
            self.starts, self.tokens, zeros, shape, device=zeros.device, check_invariants=False
        )
        return torch.sparse.sampled_addmm(pattern, of_features, of_tokens.T, beta=0.0).values()

    def decode(self, values: torch.Tensor, of_features: torch.Tensor) -> torch.Tensor:
        """values [pair], of_features [feature, width] -> [token, width]."""
        return _sums(values[self.by_token], self.features_by_token, of_features, self.token_starts)

    def gather(self, values: torch.Tensor, of_tokens: torch.Tensor) -> torch.Tensor:
        """values [pair], of_tokens [token, width] -> [feature, width]."""
        return _sums(values, self.tokens, of_tokens, self.starts)


def joined(parts: Sequence[ActiveFeatures]) -> ActiveFeatures:
    """The features of several layers, at the same tokens, as those of one layer.

    The second layer's features are numbered after the first's, and its pairs follow the first's, and so on.
    """
    if len(parts) == 1:
        return parts[0]
    counts = torch.stack([part.token_starts.diff() for part in parts])  # [layer, token]
    ends = counts.sum(0).cumsum(0)  # of each token's pairs, in the order of tokens
    firsts = ends - counts.flip(0).cumsum(0).flip(0)  # of a token's pairs, those of earlier layers come first
    by_token, features = ends.new_empty(2, int(ends[-1]))
    n_pairs, n_features = 0, 0  # of the layers so far
    for part, first, count in zip(parts, firsts, counts):
        here = (first - part.token_starts[:-1]).repeat_interleave(count) + torch.arange(len(part), device=ends.device)
        by_token.scatter_(0, here, part.by_token + n_pairs)  # several times faster than by_token[here] = ...
        features.scatter_(0, here, part.features_by_token + n_features)
        n_pairs, n_features = n_pairs + len(part), n_features + len(part.starts) - 1
    starts = F.pad(torch.cat([part.starts.diff() for part in parts]).cumsum(0), (1, 0))
    tokens, token_starts = torch.cat([part.tokens for part in parts]), F.pad(ends, (1, 0))
    return ActiveFeatures(tokens, starts, by_token, features, token_starts)


def top_features(pre: torch.Tensor, k: int) -> ActiveFeatures:
    """The k largest of each token's pre-activations [token, feature], as far as they are positive."""
    top = pre.topk(k, dim=-1)
    on = top.values > 0
    return ActiveFeatures.of_pairs(on.nonzero()[:, 0], top.indices[on], pre.shape)


def features_where(on: torch.Tensor) -> ActiveFeatures:
    """Those that `on` [token, feature] says are on."""
    tokens, features = on.nonzero(as_tuple=True)
    return ActiveFeatures.of_pairs(tokens, features, on.shape)


def _starts(sorted_ids: torch.Tensor, n: int) -> torch.Tensor:
    """Where each of 0 to n - 1 starts in `sorted_ids`, and the end [n + 1]."""
    return torch.searchsorted(sorted_ids, torch.arange(n + 1, device=sorted_ids.device))


def _sums(values: torch.Tensor, indices: torch.Tensor, rows: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """For each start the sum of values * rows[indices] up to the next one."""
    return F.embedding_bag(indices, rows, starts, mode="sum", per_sample_weights=values, include_last_offset=True)
