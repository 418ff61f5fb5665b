"""A run goes on from its own checkpoint alone: of the same texts and settings, of a step that it has."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import tiny_model

import interp_kit as ik
from interp_kit.text.rows import TextRows
from interp_kit.transcoders.training import fingerprint
from interp_kit.transcoders.training import trainer as module
from interp_kit.transcoders.training.fingerprint import text_fingerprint
from interp_kit.transcoders.training.trainer import Trainer

TEXTS = ["the capital of Texas is Austin .", "Dallas is a city", "Ohio is a state the capital of Ohio is a city ."] * 20
OTHERS = ["Ohio Ohio Ohio", "a state of the state", "Austin Dallas Texas . . ."] * 40
SMALL = {"n_features": 48, "k": 5, "steps": 60, "batch": 64, "progress": False, "activation": "batchtopk"}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def half_done(model, tmp_path_factory):
    """The checkpoint of a run that was killed after 30 steps."""
    folder = tmp_path_factory.mktemp("run")
    killed_after(30, lambda: ik.train_transcoder(model, TEXTS, checkpoint=folder, **SMALL))
    return folder / "checkpoint.safetensors"


def killed_after(steps, train):
    real = Trainer.step

    def step(self, batch):
        if batch.step == steps:
            raise SystemExit
        real(self, batch)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(module, "SAVE_SECONDS", 0)
        patch.setattr(Trainer, "step", step)
        train()


def copied(half_done, folder, change=lambda notes: None, tensors=lambda tensors: None, **about):
    """The checkpoint as an older version could have written it, but for a change."""
    with safe_open(half_done, "pt") as file:
        said, weights = file.metadata(), {name: file.get_tensor(name).clone() for name in file.keys()}
    notes = json.loads(said["notes"])
    change(notes)
    tensors(weights)
    del said["digest"]
    save_file(weights, folder / half_done.name, said | {"notes": json.dumps(notes)} | about)
    return folder


def resumed(model, folder, texts=TEXTS, **changes):
    return ik.train_transcoder(model, texts, checkpoint=folder, **SMALL | changes)


def test_an_older_checkpoint_goes_on_where_its_scales_tell_the_text(model, half_done, tmp_path):
    """Before 0.3 nothing named the texts; the scales follow from their first block."""
    whole = ik.train_transcoder(model, TEXTS, **SMALL)
    forget = lambda notes: notes["settings"].pop("texts")  # noqa: E731
    again = resumed(model, copied(half_done, tmp_path, forget))
    assert torch.equal(whole.transcoder.W_enc, again.transcoder.W_enc) and whole.history.equals(again.history)
    with pytest.raises(ValueError, match="of a run on other texts"):
        resumed(model, copied(half_done, tmp_path, forget), OTHERS)


@pytest.mark.parametrize("texts", [OTHERS, TEXTS[:-1], TEXTS[::-1], [*TEXTS[:-1], TEXTS[-1] + " ."], iter(TEXTS)])
def test_other_texts_are_refused(model, half_done, tmp_path, texts):
    with pytest.raises(ValueError, match="of another run .texts 'list-[0-9a-f]+', now '(list|stream)-"):
        resumed(model, copied(half_done, tmp_path), texts)


WRONG = {
    "null": (lambda notes: notes.update(history=None), "history should be a valid list"),
    "settings of null": (lambda notes: notes.update(settings=None), "settings should be an object"),
    "no notes": (lambda notes: notes.clear(), "lacks 'history'"),
    "no settings": (lambda notes: notes.pop("settings"), "lacks 'settings'"),
    "empty settings": (lambda notes: notes.update(settings={}), "of another run .*activation 'absent'"),
    "one setting absent": (
        lambda notes: notes["settings"].pop("n_features_per_layer"),
        "n_features_per_layer 'absent'",
    ),
    "a setting of another kind": (lambda notes: notes["settings"].update(k="5"), "k '5', now 5"),
    "history of strings": (lambda notes: notes["history"][0].update(loss="low"), r"history\[0\].loss should be"),
    "history without a column": (lambda notes: notes["history"][0].pop("L0"), r"history\[0\] lacks 'L0'"),
    "history with another column": (lambda notes: notes["history"][0].update(x=1), r"history\[0\] should be a line"),
    "history of other steps": (lambda notes: notes["history"][0].update(step=26), "history should be lines of steps"),
    "history cut off": (lambda notes: notes["history"].clear(), "history should be lines of steps"),
    "history of other tokens": (lambda notes: notes["history"][0].update(tokens=1), r"history\[0\].tokens"),
    "history of NaN": (lambda notes: notes["history"][0].update(NMSE=float("nan")), "NMSE should be"),
}


@pytest.mark.parametrize("case", WRONG)
def test_notes_that_no_run_wrote(model, half_done, tmp_path, case):
    change, message = WRONG[case]
    folder = copied(half_done, tmp_path, change)
    with pytest.raises(ValueError, match=message) as error:
        resumed(model, folder)
    assert str(folder / half_done.name) in str(error.value)


@pytest.mark.parametrize("step", ["-5", "61", "1000000000", "29", "31", "0"])
def test_steps_that_the_run_does_not_have(model, half_done, tmp_path, step):
    with pytest.raises(ValueError, match="step"):
        resumed(model, copied(half_done, tmp_path, step=step))


def test_a_moment_of_one_number_does_not_reach_adam(model, half_done, tmp_path):
    short = lambda tensors: tensors.update({"optimizer.0.exp_avg": torch.zeros(1)})  # noqa: E731
    with pytest.raises(ValueError, match="'optimizer.0.exp_avg' should be"):
        resumed(model, copied(half_done, tmp_path, tensors=short))


def test_numbers_that_explode_are_not_trained_on(model, half_done, tmp_path):
    """Finite in the file, and no longer in the first step."""
    large = lambda tensors: [tensors[name].fill_(1e14) for name in ("model.W_enc.0", "model.W_dec.0")]  # noqa: E731
    with pytest.raises(ValueError, match="gradient of a step is not finite"):
        resumed(model, copied(half_done, tmp_path, tensors=large))


# ---------------------------------------------------------------- fingerprints


def of(model, texts):
    return text_fingerprint(TextRows(model, texts))


def test_a_file_is_known_by_what_it_holds(model, tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "BLOCK", 8)
    monkeypatch.setattr(fingerprint, "BLOCKS", 4)
    a, b = tmp_path / "a.txt", tmp_path / "deeper" / "b.txt"
    b.parent.mkdir()
    for text in ("Dallas", "Dallas is a city . " * 20):
        a.write_text(text)
        b.write_text(text)
        assert of(model, a) == of(model, b)
        for other in ("x" + text[1:], text[:-1] + "x", text + " "):
            b.write_text(other)
            assert of(model, a) != of(model, b)


def test_a_stream_is_known_by_its_beginning_which_is_not_used_up(model):
    rows = TextRows(model, iter(TEXTS))
    before = text_fingerprint(rows)
    assert before == text_fingerprint(rows) == of(model, iter(TEXTS)) != of(model, iter(OTHERS))
    assert len(list(rows.epoch())) == len(list(TextRows(model, TEXTS).epoch()))


def test_texts_and_rows_with_a_text_are_alike_and_their_bounds_count(model):
    assert of(model, TEXTS) == of(model, [{"text": text, "id": i} for i, text in enumerate(TEXTS)])
    assert of(model, ["ab", "c"]) != of(model, ["a", "bc"]) != of(model, ["abc"])
