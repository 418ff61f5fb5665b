"""Labels and judgements by an LLM, through the real client, from a server on this machine."""

import pytest
from local_openai import local_openai
from tiny import tiny_model, tiny_texts, tiny_transcoder

import interp_kit as ik
from interp_kit.features.llm import marked


@pytest.fixture(scope="module")
def store():
    model = tiny_model()
    return ik.collect_features(model, tiny_transcoder(model), tiny_texts(200), n_examples=4)


ONLY = [(0, 1), (1, 4), (2, 7)]


def test_labels(store, tmp_path):
    with local_openai(lambda messages: ' "Texan cities." ') as (url, seen):
        llm = ik.features.LLM("a-model", base_url=url, api_key="secret", cache=tmp_path)
        labels = ik.label_features(store, llm=llm, only=ONLY)
    assert labels["label"].tolist() == ["Texan cities"] * 3 and set(labels["source"]) == {"llm"}
    assert all(r["path"] == "/v1/chat/completions" and r["model"] == "a-model" for r in seen)
    assert seen[0]["key"] == "Bearer secret"
    assert seen[0]["messages"] == ik.features.label_prompt(store, 0, 1)


def test_the_prompt_shows_nothing_that_was_kept_aside(store):
    for layer, feature in ONLY:
        text = ik.features.label_prompt(store, layer, feature)[1]["content"]
        shown = store.examples_of(layer, feature)
        top = shown[shown["group"] == "top"].iloc[0]
        assert marked(top["tokens"], [top["peak"]]).split(">>")[0].split("<<")[1] in text
        lines = {line.split(". ", 1)[-1].replace("<<", "").replace(">>", "") for line in text.splitlines()}
        held = shown[shown["group"].isin(["held_out", "hard_negative", "non_activating"])]
        assert not lines & {" ".join("".join(t).split()) for t in held["tokens"]}


def test_nothing_is_paid_for_twice_and_the_cost_is_known_before(store, tmp_path):
    questions = [ik.features.label_prompt(store, *at) for at in ONLY]
    with local_openai(lambda messages: "x") as (url, seen):
        llm = ik.features.LLM("a-model", base_url=url, api_key="k", prices=(1.0, 2.0), cache=tmp_path)
        before = llm.estimate(questions, 40)
        assert before["calls"] == 3 and before["cached"] == 0 and before["tokens written"] == 120
        assert before["dollars"] == pytest.approx((before["tokens read"] + 2 * 120) / 1e6, rel=0.01)
        ik.label_features(store, llm=llm, only=ONLY)
        ik.label_features(store, llm=llm, only=ONLY)
        assert len(seen) == 3
        after = llm.estimate(questions, 40)
        assert (after["calls"], after["cached"], after["dollars"]) == (0, 3, 0)
        other = ik.features.LLM("another-model", base_url=url, api_key="k", cache=tmp_path)
        assert other.estimate(questions, 40)["calls"] == 3


def test_it_tries_again(store, tmp_path):
    with local_openai(lambda messages: "x", fail_first=2) as (url, seen):
        llm = ik.features.LLM("a-model", base_url=url, api_key="k", cache=tmp_path)
        assert llm.ask(ik.features.label_prompt(store, 0, 1), 40) == "x" and len(seen) == 3
    with local_openai(lambda messages: "x", fail_first=99) as (url, seen):
        llm = ik.features.LLM("a-model", base_url=url, api_key="k", cache=tmp_path / "new")
        with pytest.raises(OSError, match="RateLimitError.*run it again"):
            llm.ask(ik.features.label_prompt(store, 0, 1), 40)


def test_what_it_needs(monkeypatch):
    monkeypatch.delenv("OPENAI_MODEL", raising=False)
    with pytest.raises(ValueError, match="OPENAI_MODEL"):
        ik.features.LLM(api_key="k")
    monkeypatch.setenv("OPENAI_MODEL", "m")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    llm = ik.features.LLM()
    assert llm.model == "m" and "127.0.0.1:9" in str(llm.client.base_url)


def test_as_a_judge(store, tmp_path):
    """A judge that sees the marks says 1 where the marked word is Texas."""
    labels = ik.features.student_labels({at: "Texas" for at in ONLY})

    def answer(messages):
        texts = messages[1]["content"].splitlines()
        return ", ".join(str(int("Texas" in text)) for text in texts)

    with local_openai(answer) as (url, seen):
        llm = ik.features.LLM("a-model", base_url=url, api_key="k", cache=tmp_path)
        asked = ik.score_labels(store, labels, judge=llm)
    plain = ik.score_labels(store, labels, judge=lambda label, texts, marks: ["Texas" in t for t in texts])
    assert asked["detection"].tolist() == plain["detection"].tolist()
    with local_openai(lambda messages: "I cannot say") as (url, seen):
        llm = ik.features.LLM("another", base_url=url, api_key="k", cache=tmp_path)
        scored = ik.score_labels(store, labels, judge=llm)
    assert scored["detection"].isna().all() and (scored["unread"] > 0).all() and (asked["unread"] == 0).all()


def test_marks():
    assert marked([" in", " Salt", " Lake", " City", " is"], [1, 2, 3]) == "in<< Salt Lake City>> is"
