"""What lesson 03 claims, checked in its own kernel after its last cell: the names are those that its cells left."""

assert not set(texts) & set(held), "it never trains on what it measures with"
assert last["NMSE"] < 0.05, "a few per cent are missed"
assert last["L0"] <= 8, "at most 8 features are on for a token"

nmse, top1 = report.baselines["NMSE"], report.baselines["top-1"]
assert 0.9 < nmse["mean output"] < 1.1, "the mean explains nothing"
assert nmse["affine map"] < 0.25, "the affine map explains most of it"
assert 3 * nmse["transcoder"] < nmse["affine map"], "the transcoder misses several times less"
assert top1["transcoder"] > top1["affine map"] + 0.1, "its next token is more often the model's own"
affine = report.layers["NMSE of an affine map"]
assert affine.idxmax() == 0, "the affine map does worst in layer 0"
assert affine[:2].min() > 2 * affine[3:].max(), "the first two MLPs are no straight line, the last three nearly are"

for kind in ("cross-layer", "per-layer"):
    sparse, dense = table.loc[(kind, 2)], table.loc[(kind, 8)]
    assert sparse["NMSE"] / 2 < dense["NMSE"] < sparse["NMSE"], f"{kind}: NMSE falls, nowhere near to a quarter"
    assert dense["replacement"] > sparse["replacement"], f"{kind}: the graphs gain from more features"
assert 0 < gain < 0.1, "cross-layer gains a few hundredths"

assert burnt["dead"] > 2 * calm["dead"], "more features die at ten times the learning rate"
assert burnt["L0"] < 6, "fewer than six of the eight places are filled"
assert burnt["NMSE"] > 1.3 * calm["NMSE"], "more is missed at ten times the learning rate"
assert few.summary["dead"] > 1.5 * report.summary["dead"], "many silent features were only waiting for their words"

assert shipped.scores["replacement"] > mine.scores["replacement"], "the shipped transcoder explains more"
assert len(shipped.features) < len(mine.features), "the shipped transcoder has fewer features on"
by_layer = mine.errors.groupby("layer")["influence"].sum()
assert by_layer.idxmax() == report.layers["NMSE"].idxmax() == 0, "layer 0 has most of the errors and the highest NMSE"

ours, affine = (real["baselines"][name] for name in ("transcoder", "affine map"))
assert 0.3 < ours["NMSE"] < 0.4, "SmolLM2: more than a third is missed"
assert 0.48 < affine["NMSE"] < 0.55, "SmolLM2: a straight line misses a half"
assert ours["top-1"] < 0.35, "SmolLM2: in three places of ten the next token is the model's own"
assert 0.5 < real["graphs"]["replacement"] < 0.6, "SmolLM2: almost half of the influence starts at error nodes"
by_layer = pd.DataFrame(real["layers"]).set_index("layer")
assert (by_layer["NMSE"] < by_layer["NMSE of an affine map"]).all(), "SmolLM2: no layer is better off with a line"
assert worst.index[0] == 11, "SmolLM2: layer 11 is the best rebuilt"
assert set(worst.index[-3:]) == {3, 4, 5}, "SmolLM2: layers 3 to 5 are the worst rebuilt"
