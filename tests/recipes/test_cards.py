"""The cards that ship are those that the recipes would write, of the reports that ship."""

import json

import interp_kit as ik
from interp_kit.storage.shipped import data_folder
from recipes import build, cards, smollm2
from recipes.pocket import Recipe


def report(folder):
    return json.loads((data_folder() / folder / "report.json").read_text())


def shipped(folder):
    return (data_folder() / folder / "README.md").read_text()


def test_pocket():
    world, numbers = ik.load_world(), report("pocket-transcoder")
    assert cards.model_card(ik.load_model("pocket"), world, Recipe(), numbers) == shipped("pocket")
    transcoder = ik.load_transcoder("pocket")
    assert cards.transcoder_card(transcoder, world, numbers, build.MIN_DENSITY) == shipped("pocket-transcoder")


def test_smollm2():
    transcoder, numbers = ik.load_transcoder("smollm2"), report("smollm2-transcoder")
    assert cards.smollm2_transcoder_card(transcoder, numbers) == shipped("smollm2-transcoder")
    store, labels = ik.load_features("smollm2"), ik.load_labels("smollm2")
    card = cards.smollm2_features_card(store, labels, smollm2.N_LOOKED_UP, smollm2.N_EXAMPLES)
    assert card == shipped("smollm2-features")
