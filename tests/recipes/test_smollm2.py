"""The real model's transcoder that ships: its size, that it fits the model, and that its report is true."""

import json

import pytest

import interp_kit as ik
from interp_kit.storage.shipped import data_folder

FOLDER = data_folder() / "smollm2-transcoder"


@pytest.fixture(scope="module")
def report():
    return json.loads((FOLDER / "report.json").read_text())


def test_it_is_small_enough_for_a_clone():
    sizes = [path.stat().st_size for path in FOLDER.iterdir()]
    assert sum(sizes) <= 45e6 and max(sizes) < 10e6


def test_it_fits_the_model_and_its_report_is_true(report, smollm2):
    """On other and simpler text than the report's, so nothing may be worse, and damaged features would be far off."""
    clt = ik.load_transcoder("smollm2")
    texts = [
        "Bees make honey from the nectar of flowers, and plants need bees to spread their pollen.",
        smollm2.chat("What is the capital of Texas?") + "The capital of Texas is Austin.",
        "The function returns a list of all files in the folder, sorted by name.",
    ]
    found = ik.evaluate_transcoder(smollm2, clt, texts, baselines=False).summary
    told = report["baselines"]["transcoder"]
    assert told["NMSE"] - 0.2 < found["NMSE"] < told["NMSE"]
    assert found["L0"] == pytest.approx(report["L0"], rel=0.4)
    assert found["replacement loss"] - found["loss"] < 1.5 * (told["loss"] - report["loss"])


def test_the_report_says_how_it_compares(report):
    ours, affine, mean = (report["baselines"][name] for name in ("transcoder", "affine map", "mean output"))
    assert ours["NMSE"] < affine["NMSE"] < mean["NMSE"] and ours["top-1"] > mean["top-1"]
    assert report["graphs"]["n_prompts"] == 50 and 0 < report["graphs"]["replacement"] < 1
    assert [row["layer"] for row in report["layers"]] == list(range(30))
