"""Labels follow the evidence, and a label's rule can be asked what it expects."""

import pandas as pd
import pytest
from tiny import tiny_model, tiny_texts, tiny_transcoder

import interp_kit as ik
from interp_kit.features.corpus import Corpus
from interp_kit.features.labels import Evidence, Rule


def corpus(*texts, filler=0):
    """With so many other texts that a word in a few is rare."""
    return Corpus([tokens(text) for text in (*texts, *(f"some other word{i} there" for i in range(filler)))])


def tokens(text):
    return tuple(" " + word for word in text.split(" "))


def evidence(given, *examples):
    """Each example: text, word on which the feature fires, how strongly."""
    rows = []
    for text, word, strength in examples:
        words = tokens(text)
        peak = words.index(" " + word)
        rows.append((words, [strength * (i == peak) for i in range(len(words))], peak))
    return Evidence(pd.DataFrame(rows, columns=["tokens", "activations", "peak"]), given)


def label(given, *examples):
    rule, name, _ = evidence(given, *examples).label()
    return rule.kind, name


def test_one_word():
    given = corpus("in Dallas there", filler=99)
    assert label(given, ("in Dallas there", "Dallas", 1.0)) == ("word", "Dallas")


def test_what_ties_several_words_together_names_them():
    """The state is named with its cities, its capital and its code; the capital hardly ever with the code."""
    about = [f"{city} lies in Texas {i}" for city in ("Dallas", "Waco", "Plano", "Austin") for i in range(6)]
    about += [f"Austin leads Texas {i}" for i in range(6)] + [f"TX means Texas {i}" for i in range(6)]
    about += [f"{city} has Austin {i}" for city in ("Dallas", "Waco", "Plano") for i in range(4)]
    given = corpus(*about, filler=999)
    cities = [(f"{city} lies in Texas 1", city, a) for city, a in (("Dallas", 3.0), ("Waco", 2.0), ("Plano", 1.5))]
    rule, name, why = evidence(given, *cities).label()
    assert (rule.kind, name) == ("tied", "Texas") and set(rule.words) == {"Dallas", "Waco", "Plano", "Texas"}
    assert why.startswith("fires on Dallas 1.00, Waco 0.67, Plano 0.50; Texas goes along with them in ")
    unrelated = [(f"{word} lies there", word, a) for word, a in (("Dallas", 3.0), ("Nice", 2.0), ("46", 1.8))]
    others = [f"Nice makes wine n{i}" for i in range(9)] + [f"46 is even e{i}" for i in range(9)]
    given = corpus(*about, *others, filler=999)
    assert label(given, *unrelated) == ("words", "Dallas / Nice / 46")


def test_what_follows():
    texts = [f"the word{i} is Austin" for i in range(9)] + [f"so it is word{i}" for i in range(99)]
    given = corpus(*texts)
    assert label(given, *[(text, "is", 1.0) for text in texts[:9]]) == ("say", "say Austin")


def test_a_class():
    common = corpus(*[f"7 8 9 3 4 then {i}" for i in range(300)])
    examples = [(f"was {n} then word{n}", str(n), a) for n, a in ((7, 1.0), (8, 1.0), (9, 0.9), (3, 0.8), (4, 0.8))]
    assert label(common, *examples) == ("class", "a number")


def test_what_came_before():
    after = [f"the capital {w} is {answer}" for w, answer in (("it", "Austin"), ("so", "Paris"), ("this", "Rome"))]
    given = corpus(*after, *[f"so the it this is word{i}" for i in range(99)])
    assert label(given, *[(text, "is", 1.0) for text in after]) == ("after", "capital … is")
    plain = [f"this is word{i}" for i in range(3)]
    assert label(given, *[(text, "is", 1.0) for text in plain]) == ("word", "is")


def test_a_phrase():
    """Of what stands right before a word nearly always, the part that is rare elsewhere; a name needs none."""
    texts = [f"so the year of statehood is {i}" for i in range(9)]
    given = corpus(*texts, *[f"so the city of Austin is city{i}" for i in range(99)])
    assert label(given, *[(text, "statehood", 1.0) for text in texts]) == ("phrase", "year of statehood")
    city = [(f"so the city of Austin is city{i}", "city", 1.0) for i in range(9)]
    assert label(given, *city) == ("word", "city")


def test_what_is_no_name_is_not_tied():
    about = [f"the {word} flickers here {i}" for word in ("fire", "warm", "flames") for i in range(9)]
    given = corpus(*about, filler=999)
    examples = [(f"the {word} flickers here 1", word, a) for word, a in (("fire", 1.0), ("warm", 0.9), ("flames", 0.8))]
    assert label(given, *examples) == ("words", "fire / warm / flames")


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        (Rule("word", ("Dallas",)), "in dallas and Waco", ["dallas"]),
        (Rule("tied", ("Dallas", "Texas")), "Dallas in Texas", ["Dallas", "Texas"]),
        (Rule("say", ("Austin",)), "it is Austin", ["is"]),
        (Rule("class", ("a number",)), "in 1,845 or 3 days", ["1,845", "3"]),
        (Rule("phrase", ("largest", "city")), "a city the largest city", [" city"]),
        (Rule("after", ("capital", "is")), "is the capital is here", [" is"]),
    ],
)
def test_a_rule_says_where_it_expects_its_feature(rule, text, expected):
    words = corpus(text).words(tokens(text))
    found = [words.read[i] for i in range(len(tokens(text))) if rule.expects(words, i)]
    assert found == [word.strip() for word in expected]


def test_every_live_feature_gets_a_label_and_nothing_kept_aside_is_used():
    model = tiny_model()
    store = ik.collect_features(model, tiny_transcoder(model), tiny_texts(), n_examples=3)
    labels = ik.label_features(store)
    assert len(labels) == (store.features["density"] > 0).sum() and labels["label"].str.len().min() > 0
    assert set(labels["source"]) == {"rule"}
    held = store.examples["group"].isin(["held_out", "non_activating", "hard_negative"])
    without = ik.FeatureStore(store.features, store.examples[~held])
    pd.testing.assert_frame_equal(ik.label_features(without), labels)
    assert len(ik.label_features(store, only=[(1, 4), (2, 3)])) == 2


def test_typed_labels():
    table = ik.features.student_labels({(1, 4): "cities in Texas"})
    assert table[["layer", "feature", "label", "source"]].values.tolist() == [[1, 4, "cities in Texas", "student"]]
