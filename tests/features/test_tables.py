"""Tables and files that a user, or anybody, may hand over: read, or refused with words; never wrong in silence."""

import json
import shutil
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import tiny_model, tiny_texts, tiny_transcoder

import interp_kit as ik
from interp_kit.features.examples import TEST_GROUPS, Examples
from interp_kit.features.rules import Rule, with_rules
from interp_kit.formats.parquet import read_parquet

SEVEN = ["the capital of Texas is Austin .", "Dallas is a city", "Ohio is a state", "a city is a state .",
         "the state of Texas", "Austin is the capital", "of Dallas"]  # fmt: skip


@pytest.fixture(scope="module")
def setting():
    model = tiny_model()
    clt = tiny_transcoder(model, n_features=8)
    store = ik.collect_features(model, clt, tiny_texts(40), n_examples=3)
    return model, clt, store, ik.label_features(store)


@pytest.fixture(scope="module")
def folder(setting, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores") / "store"
    setting[2].save(folder, ik.score_labels(setting[2], setting[3]))
    return folder


@pytest.fixture(scope="module")
def json_folder(setting, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores") / "json"
    setting[2].save_json(folder, only=[(0, 1), (1, 4), (3, 7)])
    return folder


# ---------------------------------------------------------------- nothing is dropped in silence


def test_every_feature_that_fires_has_a_row_and_one_without_a_label_its_reason():
    model = tiny_model()
    clt = tiny_transcoder(model, n_features=200)
    store = ik.collect_features(model, clt, SEVEN)
    labels = ik.label_features(store)
    assert len(labels) == (store.features["density"] > 0).sum()
    without = labels[labels["label"] == ""]
    aside = store.examples.groupby(["layer", "feature"])["group"].agg(lambda g: set(g) <= set(TEST_GROUPS))
    assert len(without) > 0 and aside[list(zip(without["layer"], without["feature"]))].all()
    assert set(without["evidence"]) == {"fires only in texts that were kept aside for tests: read more"}
    assert without[["rule", "words", "source"]].isna().all(axis=None)
    assert ik.score_labels(store, labels).loc[without.index, "detection"].isna().all()
    graph = ik.attribute(model, clt, SEVEN[0]).annotate(store, labels)
    assert (graph.nodes["label"].str.len() > 0).all()
    steered = ik.features.steering_scores(model, clt, store, without[:1])
    assert steered["steering"].isna().all()


def test_a_feature_that_is_asked_for_is_labelled_or_refused(setting):
    store = setting[2]
    features = store.features.assign(density=store.features["density"].mask(store.features.index == 0, 0.0))
    silent = ik.FeatureStore(features, store._examples)
    none = ik.FeatureStore(features, store.examples[:0])
    assert ik.label_features(none, only=[(0, 0), (1, 4)])["evidence"].tolist() == [
        "never fires in these texts", "no example is known",
    ]  # fmt: skip
    assert len(ik.label_features(silent)) == (features["density"] > 0).sum()
    for ask in (
        lambda only: ik.label_features(store, only=only),
        lambda only: ik.score_labels(store, setting[3], only=only),
        lambda only: ik.features.steering_scores(*setting[:2], store, setting[3], only=only),
        lambda only: store.save_json("/nowhere", only=only),
    ):
        with pytest.raises(ValueError, match=r"no .*feature.* \(9, 9\)"):
            ask([(1, 4), (9, 9)])


def test_a_store_of_files_that_do_not_say_how_often_a_feature_fires_is_labelled(json_folder, tmp_path):
    shutil.copytree(json_folder, tmp_path / "json")
    for path in (tmp_path / "json").glob("[0-9]*"):
        content = json.loads(path.read_text())
        del content["activation_frequency"]
        path.write_text(json.dumps(content))
    store = ik.features.load_feature_json(tmp_path / "json")
    assert len(ik.label_features(store)) == 3
    assert "unknown" in store.show(1, 4)._repr_html_()


# ---------------------------------------------------------------- a user's table of labels


@pytest.mark.parametrize("options", [{}, {"keep_default_na": False}, {"dtype": object}])
def test_labels_through_a_csv_file_have_the_same_scores(options, setting, tmp_path):
    store, labels = setting[2], setting[3]
    labels = pd.concat([labels, ik.features.student_labels({(1, 4): "Texas"}, store)], ignore_index=True)
    labels.loc[len(labels)] = [0, 0, "", "never", None, None, None]
    labels.to_csv(tmp_path / "labels.csv", index=False)
    read = pd.read_csv(tmp_path / "labels.csv", **options)
    if "dtype" in options:
        read = read.astype({"layer": int, "feature": float})
    read.attrs["about"] = store.about
    columns = ["layer", "feature", "label", "detection", "fuzzing", "n"]
    before, after = ik.score_labels(store, labels)[columns], ik.score_labels(store, read)[columns]
    pd.testing.assert_frame_equal(after, before, check_dtype=False)


def test_a_label_that_a_csv_file_loses_is_missed(setting, tmp_path):
    labels = ik.features.student_labels({(1, 4): "NA", (1, 5): "Texas"}, setting[2])
    labels.to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(ValueError, match="'label' has nothing in row 0.*keep_default_na=False"):
        setting[2].show(1, 4, pd.read_csv(tmp_path / "labels.csv"))


def rule(kind, words):
    return lambda t: t.assign(rule=kind, words=pd.Series([words] * len(t), t.index, object))


WRONG = {
    "no column": (lambda t: t.drop(columns="label"), "needs the column 'label'; this one has 'layer'"),
    "another name": (lambda t: t.rename(columns={"feature": "index"}), "needs the column 'feature'"),
    "a column twice": (lambda t: pd.concat([t, t[["layer"]]], axis=1), "the column 'layer' twice"),
    "texts for numbers": (lambda t: t.assign(layer=t["layer"].map(str)), "'layer' should hold whole numbers.* '0'"),
    "half a layer": (lambda t: t.assign(layer=t["layer"] + 0.5), "'layer' should hold whole numbers.*0.5"),
    "below zero": (lambda t: t.assign(feature=-1), "'feature' should hold whole numbers from 0 up.*-1"),
    "no number": (lambda t: t.assign(layer=np.nan), "'layer' should hold whole numbers.*nan"),
    "endless": (lambda t: t.assign(layer=np.inf), "'layer' should hold whole numbers.*inf"),
    "huge": (lambda t: t.assign(layer=2**40), "'layer' should hold whole numbers"),
    "booleans": (lambda t: t.assign(layer=True), "'layer' should hold whole numbers.*True"),
    "labels that are numbers": (lambda t: t.assign(label=1), "'label' should hold texts.*1"),
    "labels that are lists": (lambda t: t.assign(label=[["a"]] * len(t)), "'label' should hold texts"),
}
WRONG_RULES = {
    "an unknown rule": (rule("guess", ("a",)), "'rule' and 'words' hold no rule in row 0: rule 'guess'"),
    "no words": (rule("word", None), "no rule in row 0: expected a list of words"),
    "other words": (rule("word", 7), "no rule in row 0: expected a list of words, got '7'"),
    "numbers for words": (rule("word", (7,)), "no rule in row 0: rule 'word' needs words"),
    "too few": (rule("after", ("a",)), "rule 'after' needs 2 of words"),
    "no class": (rule("class", ("cities",)), "'cities' is no class of words"),
    "code": (rule("word", "__import__('os').system('false')"), "expected a list of words, got the text"),
    "deep": (rule("word", "[" * 5000), "expected a list of words"),
    "long": (rule("word", "['a']" * 9000), "expected a list of words"),
    "without words": (lambda t: t.drop(columns="words"), "a column 'rule' and none 'words'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_table_that_is_none_of_labels_is_refused_everywhere(name, setting):
    model, clt, store, labels = setting
    change, message = WRONG[name]
    wrong = change(labels)
    graph = ik.attribute(model, clt, SEVEN[0])
    for join in (
        lambda: ik.score_labels(store, wrong),
        lambda: graph.annotate(store, wrong),
        lambda: store.show(1, 4, wrong),
        lambda: store.browse(wrong),
        lambda: store.save("/nowhere", wrong),
        lambda: ik.features.steering_scores(model, clt, store, wrong),
    ):
        with pytest.raises(ValueError, match=message):
            join()


@pytest.mark.parametrize("name", WRONG_RULES)
def test_a_rule_that_is_none_is_refused(name, setting):
    change, message = WRONG_RULES[name]
    with pytest.raises(ValueError, match=message):
        ik.score_labels(setting[2], change(setting[3]))


def test_two_labels_for_a_feature(setting):
    model, clt, store, labels = setting
    twice = pd.concat([labels, labels[:2]])
    for join in (lambda: ik.attribute(model, clt, SEVEN[0]).annotate(store, twice), lambda: store.show(1, 4, twice)):
        with pytest.raises(
            ValueError, match="feature 0 of layer 0 has several labels, as have 2 rows .*drop_duplicates"
        ):
            join()
    assert len(ik.score_labels(store, twice)) == len(twice)  # to compare them


def test_more_columns_and_other_whole_numbers_are_welcome(setting):
    model, clt, store, labels = setting
    table = labels[["layer", "feature", "label"]].astype({"layer": float, "feature": "int16"}).assign(mine=object())
    table.attrs = labels.attrs
    named = ik.attribute(model, clt, SEVEN[0]).annotate(store, table)
    assert named.nodes["label"].tolist() == named.annotate(store, labels).nodes["label"].tolist()
    assert ik.score_labels(store, table)["layer"].tolist() == labels["layer"].tolist()


def test_wrong_things(setting):
    model, clt, store, labels = setting
    graph = ik.attribute(model, clt, SEVEN[0])
    for call, message in (
        (lambda: graph.annotate(labels), "expected a FeatureStore .*got DataFrame"),
        (lambda: graph.annotate(labels, store), "expected a FeatureStore"),
        (lambda: graph.annotate(None), "got NoneType"),
        (lambda: graph.annotate(store, {(0, 1): "x"}), "student_labels"),
        (lambda: graph.annotate(store, store), "got FeatureStore"),
        (lambda: graph.save("/nowhere/g.json", features=labels), "got DataFrame"),
        (lambda: ik.score_labels(labels, store), "store should be a FeatureStore, got DataFrame"),
        (lambda: ik.score_labels(store, [1]), "labels should be a DataFrame, got list"),
        (lambda: ik.label_features(labels), "got DataFrame"),
        (
            lambda: ik.features.steering_scores(model, clt, labels, store),
            "store should be a FeatureStore, got DataFrame",
        ),
        (lambda: ik.features.student_labels([(1, 4)]), "browser.labels"),
        (lambda: ik.features.student_labels({4: "x"}), "browser.labels"),
        (lambda: ik.features.student_labels({(1, 4): 5}), "browser.labels"),
        (lambda: ik.FeatureStore([], []), "table of features"),
        (lambda: ik.FeatureStore(store.features, []), "table of examples"),
    ):
        with pytest.raises(TypeError, match=message):
            call()


# ---------------------------------------------------------------- a user's tables of features and examples


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("features", lambda t: t.drop(columns="density"), "needs the column 'density'"),
        ("features", lambda t: pd.concat([t, t[:1]]), "feature 0 of layer 0 twice"),
        ("features", lambda t: t.assign(density=2.0), "'density' should hold numbers from 0 to 1, and row 0"),
        ("features", lambda t: t.assign(max_activation=-np.inf), "'max_activation' should hold numbers finite"),
        ("features", lambda t: t.assign(density="much"), "'density' of the features should hold numbers"),
        ("features", lambda t: t.assign(top_logits="['a']"), "'top_logits' should hold lists of texts"),
        ("features", lambda t: t.assign(top_logits=[[1]] * len(t)), "'top_logits' should hold lists of texts"),
        ("features", lambda t: t.assign(log_histogram="[1]"), "'log_histogram' should hold lists of numbers"),
        ("examples", lambda t: t.drop(columns="peak"), "needs the column 'peak'"),
        ("examples", lambda t: t.assign(peak=99), "row 0 of the examples should have .* its peak among them"),
        ("examples", lambda t: t.assign(group=1), "'group' should hold texts, and row 0"),
        ("examples", lambda t: t.assign(tokens=t["tokens"].map(str)), "'tokens' should hold lists of texts"),
        ("examples", lambda t: t.assign(tokens=[[]] * len(t)), "'tokens' should hold lists of texts"),
        ("examples", lambda t: t.assign(activations=[[np.nan]] * len(t)), "a finite activation for each of its"),
        ("examples", lambda t: t.assign(activations=t["activations"].map(str)), "a finite activation for each of its"),
        ("examples", lambda t: t.assign(layer=t["layer"].map(str)), "'layer' should hold whole numbers"),
    ],
)
def test_a_store_of_wrong_tables(table, change, message, setting):
    tables = {"features": setting[2].features, "examples": setting[2].examples}
    tables[table] = change(tables[table])
    with pytest.raises(ValueError, match=message):
        ik.FeatureStore(**tables)


# ---------------------------------------------------------------- files from anywhere

HOSTILE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2**65), st.floats(), st.text(max_size=5), st.just([1]), st.just({}),
    st.just("<script>alert(1)</script>"), st.just("../../../etc/passwd"), st.just(10**400),
)  # fmt: skip


def use(store, labels=None):
    """All that one does first with a store."""
    repr(store), len(store._examples), store.windows(["top"]), store.browse(labels)
    for layer, feature in list(store._rows)[:6]:
        store.examples_of(layer, feature)
        store.card(layer, feature)
        store.show(layer, feature, labels)._repr_html_()
    ik.label_features(store)
    ik.score_labels(store, ik.label_features(store) if labels is None else labels)


def is_refused_or_works(folder, load):
    """Whether a file was refused with words that name the folder or a file in it; what is loaded must work."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load()
    except (ValueError, FileNotFoundError, MemoryError) as error:
        assert type(error) in (ValueError, FileNotFoundError, MemoryError), repr(error)
        # A second label of one feature is a table's matter: to compare the two is allowed.
        assert folder.name in str(error) or "has several labels" in str(error), str(error)
        return True
    return False


def load_and_use(folder):
    def load():
        use(ik.load_features(folder), ik.load_labels(folder))

    return load


def rewritten(folder, name, change):
    """A file of a store with its table changed."""
    pq.write_table(change(pq.read_table(folder / name)), folder / name)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("features.parquet", lambda t: t.append_column("density", t["layer"]), "'density' twice"),
        ("features.parquet", lambda t: t.append_column("promotes", t["top_logits"]), "its old and its new name"),
        ("examples_0.parquet", lambda t: t.append_column("rank", t["peak"]), "'rank' twice"),
        ("examples_0.parquet", lambda t: t.append_column("layer", t["peak"]), "the column 'layer', which its name"),
        ("features.parquet", lambda t: t.rename_columns(["x" * 10**6, *t.column_names[1:]]), "lacks the column"),
    ],
)  # fmt: skip
def test_columns_that_would_be_two(file, change, said, folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "store")
    rewritten(place, file, change)
    with pytest.raises(ValueError, match=f"{file}.*{said}") as caught:
        ik.load_features(place)
    assert len(str(caught.value)) < 2000


def test_what_a_file_says_to_pandas_is_passed_over(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "store")
    for path in place.glob("*.parquet"):
        about = {b"pandas": b'{"index_columns": ["nobody"], "columns": 3}'}
        rewritten(place, path.name, lambda t, about=about: t.replace_schema_metadata(about))
    use(ik.load_features(place))
    assert len(ik.load_labels(place))


def test_a_store_without_a_list_of_tokens_is_shown_and_saved(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "store")
    rewritten(place, "features.parquet", lambda t: t.drop_columns(["bottom_logits"]))
    store = ik.load_features(place)
    use(store)
    store.save_json(tmp_path / "json")
    back = ik.features.load_feature_json(tmp_path / "json")
    at = store.features["layer"].iloc[0], store.features["feature"].iloc[0]
    assert store.card(*at)["bottom_logits"] == back.card(*at)["bottom_logits"] == []


@st.composite
def damage(draw, content):
    """Bytes cut short, flipped, doubled, or of something else."""
    kind = draw(st.sampled_from(["cut", "flip", "zero", "double", "swap", "other"]))
    at = draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        return content[:at]
    if kind == "flip":
        flipped = bytearray(content)
        for place in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
            flipped[place] ^= draw(st.integers(1, 255))
        return bytes(flipped)
    if kind == "zero":
        return content[:at] + bytes(min(8, len(content) - at)) + content[at + 8 :]
    if kind == "double":
        return content[:at] + content[at // 2 :]
    if kind == "swap":
        return content[at:] + content[:at]
    return draw(st.sampled_from([b"", b"PAR1", b"PAR1PAR1", b"version https://git-lfs.github.com/spec/v1\n", b"{}"]))


@HOSTILE
@given(data=st.data())
def test_damaged_bytes_of_a_store(data, folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("damaged") / "a-store"
    shutil.copytree(folder, place)
    path = data.draw(st.sampled_from(sorted(p for p in place.iterdir() if not p.name.startswith("."))))
    path.write_bytes(data.draw(damage(path.read_bytes())))
    is_refused_or_works(place, load_and_use(place))


@st.composite
def changed(draw, table):
    """A table with one column changed: gone, renamed, of another type, with a gap, or with another value."""
    name = draw(st.sampled_from(table.column_names))
    at, column = table.column_names.index(name), table.column(name)
    kind = draw(st.sampled_from(["gone", "renamed", "texts", "gap", "value", "nothing", "lists", "shuffled", "more"]))
    if kind == "gone":
        return table.drop_columns([name])
    if kind == "renamed":
        return table.rename_columns([c + "s" if c == name else c for c in table.column_names])
    values = column.to_pylist()
    row = draw(st.integers(0, max(0, len(values) - 1)))
    if kind == "texts":
        values = [str(value) for value in values]
    elif kind == "nothing":
        values = [None] * len(values)
    elif kind == "lists":
        values = [[value] for value in values]
    elif kind == "shuffled":
        values = values[::-1]
    elif kind == "more":
        return pa.concat_tables([table, table.slice(row, 1)])
    elif values:
        values[row] = None if kind == "gap" else draw(strange(values[row]))
    try:
        return table.set_column(at, name, pa.array(values))
    except (pa.ArrowException, OverflowError):
        return table.set_column(at, name, pa.array([repr(value) for value in values]))


def strange(value):
    """Values of the same type that are out of any range."""
    if isinstance(value, list) and value:
        return st.sampled_from([[], value[:1], value * 2, [None, *value[1:]], value[::-1]])
    if isinstance(value, int):
        return st.sampled_from([-1, 10**6, 2**31 - 1, 2**62])
    if isinstance(value, float):
        return st.sampled_from([float("nan"), float("inf"), -1.0, 1e300])
    return st.sampled_from(["", "\0", "<b>", "x" * 1000])


@HOSTILE
@given(data=st.data())
def test_strange_tables_of_a_store(data, folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("strange") / "a-store"
    shutil.copytree(folder, place)
    path = data.draw(st.sampled_from(sorted(place.glob("*.parquet"))))
    pq.write_table(data.draw(changed(pq.read_table(path))), path)
    is_refused_or_works(place, load_and_use(place))


@st.composite
def mutated(draw, content):
    """JSON with one place of it taken out, doubled, or of another value."""
    content = json.loads(json.dumps(content))
    inner = content
    for _ in range(draw(st.integers(0, 5))):
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        if not (deeper := [key for key in keys if isinstance(inner[key], dict | list) and inner[key]]):
            break
        inner = inner[draw(st.sampled_from(deeper))]
    key = draw(st.sampled_from(list(inner) if isinstance(inner, dict) else range(len(inner))))
    if draw(st.booleans()):
        del inner[key]
    else:
        inner[key] = draw(VALUES)
    return content


@HOSTILE
@given(data=st.data())
def test_strange_feature_files(data, json_folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("strange") / "a-store"
    shutil.copytree(json_folder, place)
    path = data.draw(st.sampled_from(sorted(place.glob("[0-9]*"))))
    if data.draw(st.booleans()):
        path.write_text(json.dumps(data.draw(mutated(json.loads(path.read_text())))))
    else:
        path.write_bytes(data.draw(damage(path.read_bytes())))

    def load():
        store = ik.features.load_feature_json(place)
        use(store)
        store.save_json(place.parent / "again")
        store.save(place.parent / "parquet")
        use(ik.load_features(place.parent / "parquet"))

    is_refused_or_works(place, load)


@HOSTILE
@given(data=st.data())
def test_strange_tables_of_labels(data, setting):
    """A table in memory: refused with words, or scored and shown."""
    model, clt, store, labels = setting
    table = pa.Table.from_pandas(labels[:20], preserve_index=False).replace_schema_metadata(None)
    table = data.draw(changed(table)).to_pandas()
    table.attrs = labels.attrs
    try:
        ik.score_labels(store, table)
        store.browse(table)
        ik.attribute(model, clt, "Texas").annotate(store, table).prune().paths()
    except (ValueError, TypeError) as error:
        assert type(error) in (ValueError, TypeError) and len(str(error)) > 30, repr(error)


def test_names_of_feature_files(json_folder, tmp_path):
    shutil.copytree(json_folder, tmp_path / "json")
    for name in ("007.json", "\u0663.json", "9" * 200 + ".json", "-1.json", "1.5.json"):
        shutil.copy(tmp_path / "json" / "19.json" if (tmp_path / "json" / "19.json").exists() else next(
            (tmp_path / "json").glob("[0-9]*")), tmp_path / "json" / name)  # fmt: skip
    assert len(ik.features.load_feature_json(tmp_path / "json").features) == 3


def test_a_layers_examples_that_are_gone(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "f")
    (tmp_path / "f" / "examples_2.parquet").unlink()
    with pytest.raises(ValueError, match="examples_2.parquet is missing"):
        ik.load_features(tmp_path / "f")


def test_a_layer_without_examples_is_saved_as_such(setting, tmp_path):
    store = setting[2]
    ik.FeatureStore(store.features, store.examples.query("layer == 1")).save(tmp_path / "f")
    back = ik.load_features(tmp_path / "f")
    assert back.examples_of(2, 3).empty and set(back.examples["layer"]) == {1}
    use(back)


def with_column(name, value):
    return lambda t: t.set_column(t.column_names.index(name), name, pa.array([value(v) for v in t[name].to_pylist()]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_column("window", lambda w: w + 10**6), "the column 'window' should hold windows, which number"),
        (with_column("peak", lambda p: -1), "example 0 should have .* its peak among them"),
        (with_column("activations", lambda a: a[:-1]), "example 0 should have a finite activation for each"),
        (with_column("activations", lambda a: [float("nan")] * len(a)), "example some should have a finite"),
        (with_column("activations", lambda a: [None] * len(a)), "'activations' (has .* gaps|holds list<)"),
        (with_column("feature", lambda f: -f), "the column 'feature' should hold in order|should hold"),
        (with_column("group", lambda g: None), "'group' (has|holds)"),
    ],
)
def test_examples_are_checked_when_they_are_read(change, message, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "f")
    rewritten(tmp_path / "f", "examples_1.parquet", change)
    with pytest.raises(ValueError, match=message) as caught:
        ik.load_features(tmp_path / "f").examples_of(1, 4)
    assert "examples_1.parquet" in str(caught.value)


def test_a_group_of_rows_without_a_name_of_a_group(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "store")
    table = pq.read_table(place / "examples_1.parquet")
    names = pa.array([None, *table["group"].to_pylist()[1:]])
    table = table.set_column(table.column_names.index("group"), "group", names)
    pq.write_table(table, place / "examples_1.parquet", row_group_size=1)
    with pytest.raises(ValueError, match="examples_1.parquet: the column 'group' has 1 gaps"):
        _ = ik.load_features(place).examples


def test_parquet_files_have_one_door(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "f")
    path = tmp_path / "f" / "windows.parquet"
    columns = {"tokens": "lists of texts"}
    for change, message in (
        (lambda t: t.rename_columns(["words"]), "lacks the column 'tokens'; it has 'words'"),
        (lambda t: pa.table([t["tokens"], t["tokens"]], ["tokens", "tokens"]), "has the column 'tokens' twice"),
        (lambda t: pa.table({"tokens": ["a"]}), "the column 'tokens' holds .*, expected lists of texts"),
        (lambda t: pa.table({"tokens": [["a", None]]}), "the column 'tokens' has 1 gaps"),
    ):
        whole = path.read_bytes()
        rewritten(tmp_path / "f", "windows.parquet", change)
        with pytest.raises(ValueError, match=message):
            read_parquet(path, columns)
        path.write_bytes(whole)
    rewritten(tmp_path / "f", "windows.parquet", lambda t: pa.table({"tokens": [["a"], []]}))
    with pytest.raises(ValueError, match="window 1 has no token"):
        Examples.load(tmp_path / "f")
    for content in (whole[:4] + b"x" * 40 + whole[44:], whole[:-9]):  # a page, and the footer
        path.write_bytes(content)
        with pytest.raises(ValueError, match="windows.parquet is damaged"):
            read_parquet(path, columns)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match="git lfs pull"):
        read_parquet(path, columns)
    path.write_bytes(whole)
    monkeypatch.setattr("interp_kit.formats.parquet.BYTES_PER_VALUE", 1e15)
    with pytest.raises(MemoryError, match="windows.parquet"):
        read_parquet(path, columns)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="windows.parquet"):
        Examples.load(tmp_path / "f")
    with pytest.raises(FileNotFoundError, match="windows.parquet"):
        read_parquet(path, columns)


def test_what_else_is_refused(setting, json_folder, tmp_path):
    model, clt, store, labels = setting
    graph = ik.attribute(model, clt, SEVEN[0])
    with pytest.raises(TypeError, match="got list"):
        with_rules([])
    with pytest.raises(ValueError, match="rule 'x'"):
        Rule("x", ("a",))
    with pytest.raises(TypeError, match="belongs_to"):
        ik.features.load_feature_json(json_folder, belongs_to=7)
    with pytest.raises(KeyError, match="no feature 99 of layer 1"):
        ik.features.label_prompt(store, 1, 99)
    for dictionary in (ik.features.Neurons, lambda m, layers: ik.features.RandomDirections(m, 4, layers)):
        with pytest.raises(ValueError, match="layer"):
            dictionary(model, [9])
    (tmp_path / "mine.json").write_text("my notes")
    with pytest.raises(FileExistsError, match="mine.json"):
        graph.save(tmp_path / "mine.json")
    with pytest.raises(FileExistsError, match="mine.json"):
        graph.to_html(tmp_path / "mine.json")
    with pytest.raises(FileNotFoundError, match="none.json"):
        ik.load_graph(tmp_path / "none.json")
