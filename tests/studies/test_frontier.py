"""A sweep's numbers are those of its runs, it resumes, stops when asked, and draws itself."""

import pytest
from tiny import tiny_model

import interp_kit as ik
from interp_kit.transcoders.training.trainer import Trainer

TEXTS = ["the capital of Texas is Austin .", "Dallas is a city", "Ohio is a state the capital of Ohio is a city ."] * 20
PROMPTS = ["the capital of Texas is", "Dallas is a"]
SMALL = {"n_features": 48, "steps": 60, "batch": 64}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def sweep(model):
    return ik.studies.frontier(model, TEXTS, TEXTS[:3], PROMPTS, ks=(2, 8), **SMALL)


def test_a_row_is_what_its_run_measures(model, sweep):
    assert list(zip(sweep.table["kind"], sweep.table["k"])) == list(sweep.runs)
    assert len(sweep.table) == 4
    for row, ((kind, k), run) in zip(sweep.table.to_dict("records"), sweep.runs.items()):
        assert run.transcoder.config.span == {"cross-layer": 4, "per-layer": 1}[kind] and run.transcoder.config.k == k
        measured = ik.evaluate_transcoder(model, run.transcoder, TEXTS[:3])
        for name in ("NMSE", "top-1", "KL", "dead"):
            assert row[name] == measured.summary[name]
        assert row["L0"] == pytest.approx(4 * measured.summary["L0"], rel=1e-5)
        for name in ("replacement", "completeness"):
            scores = [ik.attribute(model, run.transcoder, prompt).scores[name] for prompt in PROMPTS]
            assert row[name] == pytest.approx(sum(scores) / 2)
    assert sweep.baselines.equals(measured.baselines.loc[["affine map", "mean output"]])


def test_it_shows_itself(sweep):
    assert "cross-layer" in repr(sweep) and "affine map" in sweep._repr_html_()
    affine, mean, *curves = sweep.show().data
    assert (affine.line.dash, mean.line.dash) == ("dash", "dot")
    assert set(affine.y) == {sweep.baselines.loc["affine map", "NMSE"]}
    assert [curve.name for curve in curves] == ["cross-layer"] * 2 + ["per-layer"] * 2
    assert [curve.xaxis for curve in curves] == ["x", "x2"] * 2
    assert list(curves[1].y) == sweep.table.query("kind == 'cross-layer'")["replacement"].tolist()
    assert curves[0].marker.symbol != curves[2].marker.symbol


def test_jumprelu_is_swept_by_its_penalty(model):
    options = {"activation": "jumprelu", "sparsities": (0.1, 5), "kinds": ("per-layer",)}
    table = ik.studies.frontier(model, TEXTS, TEXTS[:3], PROMPTS, **options, **SMALL).table
    assert table["sparsity"].tolist() == [0.1, 5] and table["L0"][1] < table["L0"][0]


def test_a_killed_sweep_goes_on_where_it_was(model, sweep, tmp_path, monkeypatch):
    def until(n):
        steps = []

        def step(self, batch):
            steps.append(batch.step)
            if len(steps) > n:
                raise SystemExit
            return original(self, batch)

        monkeypatch.setattr(Trainer, "step", step)

    original = Trainer.step
    arguments = model, TEXTS, TEXTS[:3], PROMPTS, (2, 8)
    until(3 * 60 + 20)
    with pytest.raises(SystemExit):
        ik.studies.frontier(*arguments, checkpoint=tmp_path, **SMALL)
    until(60)  # the fourth run is all that is left to do
    resumed = ik.studies.frontier(*arguments, checkpoint=tmp_path, **SMALL)
    assert resumed.table.equals(sweep.table)


def test_the_stop_button_returns_what_was_finished(model, sweep, monkeypatch):
    original = Trainer.step

    def stop(after):
        seen = []

        def step(self, batch):
            seen.append(batch)
            if len(seen) > after:
                raise KeyboardInterrupt
            return original(self, batch)

        monkeypatch.setattr(Trainer, "step", step)

    stop(after=100)
    stopped = ik.studies.frontier(model, TEXTS, TEXTS[:3], PROMPTS, ks=(2, 8), **SMALL)
    assert stopped.table.equals(sweep.table[:1]) and len(stopped.show().data) == 4
    stop(after=10)
    with pytest.raises(KeyboardInterrupt):
        ik.studies.frontier(model, TEXTS, TEXTS[:3], PROMPTS, ks=(2, 8), **SMALL)


def test_bad_input(model):
    with pytest.raises(TypeError, match="generator"):
        ik.studies.frontier(model, iter(TEXTS), TEXTS, PROMPTS)
    for prompts in ([], "one prompt"):
        with pytest.raises(ValueError, match="list of at least one prompt"):
            ik.studies.frontier(model, TEXTS, TEXTS, prompts)
    with pytest.raises(ValueError, match="kind"):
        ik.studies.frontier(model, TEXTS, TEXTS, PROMPTS, kinds=("cross",))
