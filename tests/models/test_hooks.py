import pytest
import torch
from torch import nn

from interp_kit.models.hooks import hooked, replaced_forwards


def doubling():
    layer = nn.Linear(3, 3, bias=False)
    layer.weight.data = 2 * torch.eye(3)
    return layer


def test_hooks_see_what_is_read_and_written_and_go_again():
    module, x, seen = doubling(), torch.ones(1, 3), []
    with hooked((module, "in", seen.append), (module, "out", seen.append)):
        module(x)
    assert [values.tolist() for values in seen] == [[[1, 1, 1]], [[2, 2, 2]]]
    module(x)
    assert len(seen) == 2


def test_what_a_callback_returns_takes_the_place_in_the_order_given():
    module, x = doubling(), torch.ones(1, 3)
    hooks = (module, "in", lambda x: x + 1), (module, "in", lambda x: x * 10), (module, "out", lambda y: y + 0.5)
    with hooked(*hooks):
        assert module(x).tolist() == [[40.5] * 3]
    assert module(x).tolist() == [[2] * 3]


def test_a_call_hook_sees_all_arguments():
    class Adds(nn.Module):
        def forward(self, x, y, times=1):
            return (x + y) * times

    module, seen = Adds(), []
    with hooked((module, "call", lambda args, kwargs: seen.append((args, kwargs)))):
        assert module(1, 2, times=3) == 9
    assert seen == [((1, 2), {"times": 3})]


def test_hooks_go_when_the_block_or_a_callback_fails():
    module, seen = doubling(), []

    def fail(_):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError), hooked((module, "in", seen.append), (module, "out", fail)):
        module(torch.ones(1, 3))
    with pytest.raises(AttributeError), hooked((module, "in", seen.append), (None, "out", fail)):
        pass
    module(torch.ones(1, 3))
    assert len(seen) == 1


def test_a_module_that_writes_several_tensors_is_named():
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    module = Two()
    with pytest.raises(ValueError, match="Two writes a tuple, expected one tensor"):
        with hooked((module, "out", lambda y: None)):
            module(torch.ones(1))


def test_forwards_are_replaced_and_put_back():
    plain, own = doubling(), doubling()
    own.forward = lambda x: -x
    x = torch.ones(1, 3)
    with pytest.raises(RuntimeError), replaced_forwards({plain: torch.zeros_like, own: torch.zeros_like}):
        assert not plain(x).any() and not own(x).any()
        raise RuntimeError
    assert plain(x).tolist() == [[2] * 3] and own(x).tolist() == [[-1] * 3]
    assert "forward" not in vars(plain)
