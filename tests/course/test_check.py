"""Each puzzle takes right answers however they are written, and no wrong one; its solution is what the kit computes."""

import html

import numpy as np
import pytest
import torch
from puzzle_answers import RIGHT, WRONG
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.course import PUZZLES
from interp_kit.models.frozen import FrozenModel
from interp_kit.transcoders.training.jumprelu import BANDWIDTH, JumpReLU

PROMPT = "Dallas is in Texas"
SEEDS = range(20)


@pytest.mark.parametrize("name", PUZZLES)
def test_right_answers_pass_however_they_are_written(name):
    assert len(RIGHT[name]) >= 2
    for seed in SEEDS:
        for mine in RIGHT[name]:
            assert (found := ik.course.check(name, mine, seed)), found


@pytest.mark.parametrize(("name", "what"), [(name, what) for name in PUZZLES for what, *_ in WRONG[name]])
def test_wrong_answers_do_not_and_get_the_hint_that_fits(name, what):
    ((mine, words),) = [(mine, words) for said, mine, words in WRONG[name] if said == what]
    found = [ik.course.check(name, mine, seed) for seed in SEEDS]
    assert not any(found)
    assert all(words in each.hint for each in found), {each.hint for each in found if words not in each.hint}


@pytest.mark.parametrize("name", PUZZLES)
def test_each_known_mistake_is_one_and_gets_its_own_hint(name):
    assert len(WRONG[name]) >= 3
    for hint, mistake in PUZZLES[name].mistakes.items():
        for seed in SEEDS:
            found = ik.course.check(name, mistake, seed)
            assert not found and found.hint == hint, (seed, found)


@pytest.mark.parametrize("name", PUZZLES)
def test_nothing_written_yet(name):
    def mine(*_):
        raise NotImplementedError

    found = ik.course.check(name, mine)
    assert not found and found.message == "Nothing is written yet."
    assert PUZZLES[name].asks in html.unescape(found._repr_html_())


def test_an_error_is_told_with_its_line():
    def mine(pre, k):
        return pre @ torch.zeros(1000)

    found = ik.course.check("topk", mine)
    assert not found and "RuntimeError" in found.message and "pre @ torch.zeros(1000)" in found.message


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (lambda pre, k: None, "returns nothing"),
        (lambda pre, k: "many", "Expected numbers"),
        (lambda pre, k: pre.topk(k).values.relu(), "its feature's place"),
        (lambda pre, k: loop(pre, k)[:-1], "The shape is"),
        (lambda pre, k: 2 * loop(pre, k), "a factor of 2"),
        (lambda pre, k: loop(pre, k) / 0, "not finite"),
        (lambda pre, k: pre.mul_(loop(pre, k) > 0), "changes what it is given"),
        (lambda pre, k: loop(pre, k).tolist(), "Right on all"),
        (lambda pre, k: list(loop(pre, k)), "Right on all"),
        (lambda pre, k: [], "The shape is"),
        (lambda pre, k: (pre > 0) @ (pre > 0).T, "NotImplementedError"),
    ],
)
def test_what_else_may_come_out(mine, words):
    found = ik.course.check("topk", mine)
    assert words in found.message + found.hint and "topk" in found._repr_html_()
    assert bool(found) == ("Right on all" in words)


def loop(pre, k):
    return RIGHT["topk"][0](pre, k)


def test_a_puzzle_that_there_is_not():
    with pytest.raises(ValueError, match="no puzzle 'top_k'. Did you mean 'topk'"):
        ik.course.check("top_k", loop)


def test_the_function_itself_is_wanted():
    with pytest.raises(TypeError, match="takes the function itself, and this is Tensor: my_topk without"):
        ik.course.check("topk", torch.zeros(3))


def test_the_picture_marks_the_cells_that_differ():
    second = torch.tensor([1])
    mine = lambda out, a, decoders, bias: (out - a @ decoders - bias).index_fill(0, second, 9.0)  # noqa: E731
    found = ik.course.check("error_node", mine)
    cells = dict(found.card().tables)
    marked = [[differs for *_, differs in row] for row in cells["yours"]]
    assert [any(row) for row in marked] == [i == 1 for i in range(len(marked))]
    assert not any(differs for row in cells["expected"] for *_, differs in row)
    assert found._repr_html_().count("≠") == 8 and "yours" in found.picture().svg


# ---------------------------------------------------------------------- what the kit computes


def test_topk_and_its_gradient_are_the_transcoders():
    clt = tiny_transcoder(tiny_model())
    pre = torch.randn(7, clt.n_features)
    torch.testing.assert_close(PUZZLES["topk"].solution(pre, clt.config.k), clt.activate(pre, torch.zeros(1)))
    pre, threshold = torch.randn(1, 30, 5) + 1, torch.rand(1, 5).requires_grad_()
    upstream = torch.randn(1, 30, 5)
    JumpReLU.apply(pre, threshold).backward(upstream)
    pre = pre.where(pre > 0, 9.0)  # the kit leaves out what is below zero, where the window may reach
    mine = PUZZLES["jumprelu_gradient"].solution(pre[0], threshold[0].detach(), BANDWIDTH, upstream[0])
    torch.testing.assert_close(mine, threshold.grad[0])


def test_the_logit_lens_is_the_kits():
    model = tiny_model()
    frozen = FrozenModel(model, PROMPT)
    stream = torch.cat([frozen.residual_pre[1:], frozen.residual_final[None]])
    mine = PUZZLES["logit_lens"].solution(stream, model.hf.model.norm, model.hf.lm_head.weight)
    theirs = ik.lenses.logit_lens(model, PROMPT).tokens.iloc[1:]  # the first row is the embedding
    assert [model.tokens(row) for row in mine] == theirs.to_numpy().tolist()


@pytest.mark.parametrize("changes", [{}, {"span": 1}])
def test_edges_and_error_nodes_are_the_graphs(changes):
    """Of one layer to the next at one position the graph's edges also pass attention; of a layer's last features to the
    logits they do not: they are read there by the final norm and the unembedding."""
    model = tiny_model()
    clt = tiny_transcoder(model, **changes)
    graph = ik.attribute(model, clt, PROMPT, max_features=None, zero_first_position=False)
    frozen, last = FrozenModel(model, PROMPT), model.n_layers - 1
    x = frozen.transcoder_input(clt.config.feature_input_hook)
    a, end = clt.encode(x), len(graph.tokens) - 1
    here = graph.nodes.query("kind == 'feature' and layer == @last and position == @end")
    head, logits = model.hf.lm_head.weight.detach(), graph.logits
    readers = head[torch.tensor(logits["feature"].to_numpy())] - head.mean(0)
    own, rms = torch.tensor(here["feature"].to_numpy()), frozen.residual_final[-1].pow(2).mean().sqrt()
    gain = model.hf.model.norm.weight.detach()
    mine = PUZZLES["edge"].solution(a[last, end, own], clt.W_dec[last][own, 0], readers, gain, rms)
    edges = torch.from_numpy(graph.adjacency[np.ix_(logits.index, here.index)])
    torch.testing.assert_close(mine, edges, rtol=1e-4, atol=1e-5)
    if not changes:
        return
    errors = PUZZLES["error_node"].solution(frozen.mlp_out[last], a[last], clt.W_dec[last][:, 0], clt.b_dec[last])
    at = graph.nodes.query("kind == 'error' and layer == @last and position == @end").index
    to_logits = PUZZLES["edge"].solution(torch.ones(1), errors[-1:], readers, gain, rms)
    torch.testing.assert_close(
        to_logits, torch.from_numpy(graph.adjacency[np.ix_(logits.index, at)]), rtol=1e-4, atol=1e-5
    )
