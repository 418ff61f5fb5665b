"""A checkpoint is restored whole and as it was written, or refused with the file's name, and nothing is restored."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from interp_kit.storage.checkpoint import NAME, is_checkpoint, load_checkpoint, save_checkpoint


def run(steps=0, seed=0):
    """A model, its fused Adam after some steps, and a tensor beside them."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2, bias=False))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).pow(2).sum().backward()
        optimizer.step()
    return model, optimizer, {"scale": torch.full((2, 1), float(steps))}


def everything(model, optimizer, extra):
    moments = [t for state in optimizer.state_dict()["state"].values() for _, t in sorted(state.items())]
    return [t.clone() for t in (*model.state_dict().values(), *moments, *extra.values())]


@pytest.fixture
def saved(tmp_path):
    model, optimizer, extra = run(7)
    save_checkpoint(tmp_path, model, optimizer, 7, extra, {"history": [1]})
    return tmp_path


def edited(folder, change=lambda tensors: None, **about):
    """The checkpoint with other tensors or notes; without its digest, as older versions wrote it."""
    path = folder / NAME
    with safe_open(path, "pt") as file:
        notes, tensors = file.metadata(), {name: file.get_tensor(name).clone() for name in file.keys()}
    change(tensors)
    notes.pop("digest", None)
    save_file(tensors, path, notes | about)
    return path


def test_what_was_saved_is_restored_and_goes_on_alike(saved):
    there, here = run(7), run(0, seed=1)
    assert load_checkpoint(saved, *here, last=9) == (7, {"history": [1]})
    for a, b in zip(everything(*there), everything(*here), strict=True):
        assert torch.equal(a, b)
    x = torch.randn(4, 3)
    for model, optimizer, _ in (there, here):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
    assert torch.equal(there[0][0].weight, here[0][0].weight)


def test_without_a_digest_it_is_restored_too(saved):
    edited(saved)
    assert load_checkpoint(saved, *run())[0] == 7


def test_nothing_is_restored_from_no_file(tmp_path):
    here = run()
    assert load_checkpoint(tmp_path / "nothing", *here) == (0, None)


def put(name, value):
    return lambda tensors: tensors.__setitem__(name, value)


def filled(name, index, value):
    return lambda tensors: tensors[name].view(-1).__setitem__(index, value)


WRONG = {
    "a moment of one number": (put("optimizer.0.exp_avg", torch.zeros(1)), r"'optimizer.0.exp_avg' should be float32 "),
    "a moment of no number": (put("optimizer.1.exp_avg_sq", torch.zeros(0)), r"float32 \[5\], found float32 \[0\]"),
    "a moment of another layout": (put("optimizer.0.exp_avg", torch.zeros(3, 5)), r"\[5, 3\], found float32 \[3, 5\]"),
    "a moment in half": (put("optimizer.0.exp_avg", torch.zeros(5, 3).half()), r"found float16 \[5, 3\]"),
    "a moment of integers": (put("optimizer.2.exp_avg_sq", torch.zeros(2, 5).int()), "found int32"),
    "a step in a list": (put("optimizer.0.step", torch.tensor([7.0])), r"float32 \[\], found float32 \[1\]"),
    "half a step": (put("optimizer.0.step", torch.tensor(7.5)), "Adam's least step"),
    "steps before the first": (put("optimizer.0.step", torch.tensor(-5.0)), "Adam's least step -5"),
    "steps that are none": (put("optimizer.0.step", torch.tensor(float("nan"))), "NaN"),
    "no moment": (lambda tensors: tensors.pop("optimizer.0.exp_avg"), "lacks 'optimizer.0.exp_avg'"),
    "no optimizer": (
        lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("optimizer")],
        "lacks 'optimizer.0.exp_avg'",
    ),
    "no weight": (lambda tensors: tensors.pop("model.1.weight"), "lacks 'model.1.weight'"),
    "no scale": (lambda tensors: tensors.pop("extra.scale"), "lacks 'extra.scale'"),
    "a scale to broadcast": (put("extra.scale", torch.ones(1)), r"\[2, 1\], found float32 \[1\]"),
    "another parameter": (put("optimizer.9.step", torch.tensor(7.0)), "has 'optimizer.9.step', which this run"),
    "another moment": (put("optimizer.0.max_exp_avg_sq", torch.zeros(5, 3)), "does not know"),
    "NaN": (filled("model.0.weight", 3, float("nan")), "'model.0.weight' holds NaN"),
    "infinity": (filled("optimizer.0.exp_avg", 0, float("inf")), "holds NaN, infinite"),
    "absurd": (filled("extra.scale", 0, -1e30), "absurdly large"),
    "a negative square": (filled("optimizer.0.exp_avg_sq", 3, -1e-9), "holds negative numbers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_tensors_that_do_not_fit_are_refused_before_anything_is_restored(saved, case):
    path = edited(saved, WRONG[case][0])
    here = run(2, seed=3)
    before = everything(*here)
    with pytest.raises(ValueError, match=WRONG[case][1]) as error:
        load_checkpoint(saved, *here)
    assert str(path) in str(error.value)
    for a, b in zip(before, everything(*here), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("step", ["-5", "1000000000", "8", "7.0", "", "٧", "seven", "9" * 5000, "6", "0"])
def test_a_step_that_is_none_or_not_the_optimizers(saved, step):
    edited(saved, step=step)
    with pytest.raises(ValueError, match="step"):
        load_checkpoint(saved, *run(), last=7)


@pytest.mark.parametrize("notes", ["", "{", "[" * 100_000, "9" * 10_000])
def test_notes_that_are_no_json(saved, notes):
    path = edited(saved, notes=notes)
    with pytest.raises(ValueError) as error:
        load_checkpoint(saved, *run())
    assert str(path) in str(error.value)


def test_notes_that_the_caller_refuses(saved):
    def refuse(step, notes):
        assert (step, notes) == (7, {"history": [1]})
        raise ValueError("not mine")

    here = run(0, seed=1)
    before = everything(*here)
    with pytest.raises(ValueError, match="not mine"):
        load_checkpoint(saved, *here, check_notes=refuse)
    assert all(torch.equal(a, b) for a, b in zip(before, everything(*here), strict=True))


def test_one_other_byte_is_noticed(saved):
    path = saved / NAME
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="changed or damaged"):
        load_checkpoint(saved, *run())


@pytest.mark.parametrize(
    "content", [b"", b"essay", b"\x80\x04\x95pickle", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_a_file_that_is_not_ours_is_neither_read_nor_replaced(tmp_path, content):
    path = tmp_path / NAME
    path.write_bytes(content)
    with pytest.raises(ValueError, match=NAME):
        load_checkpoint(tmp_path, *run())
    model, optimizer, extra = run(1)
    with pytest.raises(FileExistsError, match="left as it is"):
        save_checkpoint(tmp_path, model, optimizer, 1, extra)
    assert path.read_bytes() == content


def test_somebody_elses_tensors_are_neither_read_nor_replaced(tmp_path):
    path = tmp_path / NAME
    save_file({"weight": torch.ones(2)}, path, {"step": "1", "notes": json.dumps(None)})
    with pytest.raises(ValueError, match="no checkpoint of interp_kit"):
        load_checkpoint(tmp_path, *run())
    model, optimizer, extra = run(1)
    with pytest.raises(FileExistsError):
        save_checkpoint(tmp_path, model, optimizer, 1, extra)
    assert not is_checkpoint(path)


def test_a_folder_or_a_file_in_the_way(tmp_path):
    (tmp_path / NAME).mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        load_checkpoint(tmp_path, *run())
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="expected the folder of a checkpoint"):
        load_checkpoint(tmp_path / "file", *run())


def test_a_link_that_leads_to_itself_is_refused_before_a_run_begins(tmp_path):
    (tmp_path / NAME).symlink_to(tmp_path / NAME)
    with pytest.raises(OSError, match="leads nowhere"):
        load_checkpoint(tmp_path, *run())


def test_the_next_checkpoint_replaces_the_last(saved):
    model, optimizer, extra = run(8)
    save_checkpoint(saved, model, optimizer, 8, extra)
    assert load_checkpoint(saved, *run())[0] == 8
