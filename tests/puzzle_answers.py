"""Answers to the puzzles: right ones, written differently, and wrong ones, of kinds that students write."""

import torch


def loop_topk(pre, k):
    out = torch.zeros_like(pre)
    for token, row in enumerate(pre):
        out[token, row.topk(k).indices] = row.topk(k).values.clamp(min=0)
    return out


def threshold_topk(pre, k):
    level = pre.sort(dim=-1, descending=True).values[:, k - 1 : k]
    return pre * ((pre >= level) & (pre > 0))


def einsum_edges(activations, decoders, encoders, gain, rms):
    return torch.einsum("td,d,sd,s->ts", encoders, gain, decoders, activations) / rms


def matmul_edges(activations, decoders, encoders, gain, rms):
    return (encoders * gain) @ decoders.T * activations / rms


def by_columns(windowed):
    """The gradient of one feature after the other."""

    def gradient(pre, threshold, width, upstream):
        return torch.stack([windowed(*each, width) for each in zip(pre.T, threshold, upstream.T)])

    return gradient


def masked_gradient(pre, threshold, width, upstream):
    near = (pre - threshold).abs() < width / 2
    return -(upstream * near).sum(0) * threshold / width


def best_f1(tokens, fires):
    def f1(word):
        both = len([1 for token, on in zip(tokens, fires) if on and token == word])
        precision, recall = both / tokens.count(word), both / sum(fires)
        return 2 * precision * recall / (precision + recall) if both else 0

    return max(set(tokens), key=f1)


def counted_f1(tokens, fires):
    from collections import Counter

    seen, both = Counter(tokens), Counter(token for token, on in zip(tokens, fires) if on)
    return max(both, key=lambda word: both[word] / (seen[word] + sum(fires)))


RIGHT = {
    "topk": [loop_topk, threshold_topk],
    "jumprelu_gradient": [
        masked_gradient,
        by_columns(lambda pre, theta, up, width: -(up[(pre - theta).abs() < width / 2] * theta / width).sum()),
    ],
    "logit_lens": [
        lambda stream, norm, unembed: (norm(stream) @ unembed.T).argmax(-1),
        lambda stream, norm, unembed: torch.stack([(unembed @ norm(x).T).max(0).indices for x in stream]),
    ],
    "edge": [einsum_edges, matmul_edges],
    "error_node": [
        lambda out, a, decoders, bias: out - a @ decoders - bias,
        lambda out, a, decoders, bias: torch.stack([o - (x[:, None] * decoders).sum(0) - bias for o, x in zip(out, a)]),
    ],
    "label_rule": [best_f1, counted_f1],
}  # fmt: skip


def firing(tokens, fires):
    return [token for token, on in zip(tokens, fires) if on]


def most_precise(tokens, fires):
    return max(sorted(set(tokens)), key=lambda word: firing(tokens, fires).count(word) / tokens.count(word))


def each_token(pre, theta, width, up):
    """The gradient of each token alone."""
    return torch.stack([masked_gradient(p[None], theta, width, u[None]) for p, u in zip(pre, up)])


# What is wrong with each, and words of the hint that it should get.
WRONG = {
    "topk": [
        ("a constant", lambda pre, k: torch.ones_like(pre), "the same"),
        ("transposed", lambda pre, k: loop_topk(pre, k).T, "transposed"),
        ("below zero", lambda pre, k: pre * (pre >= pre.topk(k).values[:, -1:]), "below zero"),
        ("over tokens", lambda pre, k: loop_topk(pre.T, k).T, "over the tokens"),
        ("no k", lambda pre, k: pre.clamp(min=0), "only the k strongest"),
    ],
    "jumprelu_gradient": [
        ("a constant", lambda pre, theta, width, up: torch.zeros(len(theta)), "the same"),
        ("of each token", each_token, "add up"),
        ("the sign", lambda *given: -masked_gradient(*given), "sign"),
        ("the jump's height", lambda pre, theta, *rest: masked_gradient(pre, theta, *rest) / theta, "height"),
        ("the chain rule", lambda *given: masked_gradient(*given[:3], torch.ones_like(given[3])), "chain rule"),
    ],
    "logit_lens": [
        ("a constant", lambda stream, norm, unembed: torch.zeros(stream.shape[:2]), "the same"),
        ("transposed", lambda stream, norm, unembed: (norm(stream) @ unembed.T).argmax(-1).T, "transposed"),
        ("no norm", lambda stream, norm, unembed: (stream @ unembed.T).max(2).indices, "norm is missing"),
        ("logits", lambda stream, norm, unembed: norm(stream) @ unembed.T, "logits"),
    ],
    "edge": [
        ("a constant", lambda a, decoders, encoders, *_: torch.ones(len(encoders), len(decoders)), "the same"),
        ("transposed", lambda *given: matmul_edges(*given).T, "transposed"),
        ("no norm", lambda a, decoders, encoders, gain, rms: encoders @ decoders.T * a, "norm is missing"),
        ("no activations", lambda a, *rest: matmul_edges(torch.ones_like(a), *rest), "activations are missing"),
    ],
    "error_node": [
        ("a constant", lambda out, a, decoders, bias: torch.zeros_like(out), "the same"),
        ("transposed", lambda out, a, decoders, bias: (out - a @ decoders - bias).T, "transposed"),
        ("no bias", lambda out, a, decoders, bias: out - torch.einsum("pf,fd->pd", a, decoders), "bias is missing"),
        ("the sign", lambda out, a, decoders, bias: a @ decoders + bias - out, "sign"),
    ],
    "label_rule": [
        ("a constant", lambda tokens, fires: "nothing", ""),
        ("recall alone", lambda tokens, fires: max(set(tokens), key=firing(tokens, fires).count), "by chance"),
        ("precision alone", most_precise, "precision"),
        ("the commonest", lambda tokens, fires: max(set(tokens), key=tokens.count), "commonest"),
    ],
}
