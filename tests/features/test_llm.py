"""Labels and judgements by an LLM, through the real client, from a server on this machine."""

import json

import pytest
from local_openai import completion, ends, local_openai, refuses
from tiny import tiny_model, tiny_texts, tiny_transcoder

import interp_kit as ik
from interp_kit.features.llm import AnswerRefused, marked, one_line
from interp_kit.features.verdicts import read_verdicts


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


# ---------------------------------------------------------------- an endpoint is not trusted

QUESTION = [{"role": "user", "content": "what is it?"}]


def asked(whole, cache, times=1, **options):
    """The answers, and the requests that the server got."""
    with local_openai(whole=whole) as (url, seen):
        llm = ik.features.LLM("a-model", base_url=url, api_key="sk-secret-1234", cache=cache, **options)
        return [llm.ask([*QUESTION, {"role": "user", "content": str(i)}], 40) for i in range(times)], seen


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    "options", [["temperature"], ["max_completion_tokens"], ["temperature", "max_completion_tokens"]]
)
def test_what_an_endpoint_does_not_take_is_left_out_from_then_on(options, status, tmp_path):
    answers, seen = asked(refuses(*options, status=status), tmp_path, times=3)
    assert answers == ["an answer"] * 3 and len(seen) == 3 + len(options)
    assert not set(options) & set(seen[-1]) and {"max_tokens", "max_completion_tokens"} & set(seen[-1])


def test_an_endpoint_that_takes_nothing_is_not_asked_for_ever(tmp_path):
    with pytest.raises(OSError, match="BadRequestError.*max_tokens"):
        asked(refuses("temperature", "max_completion_tokens", "max_tokens"), tmp_path)


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        (ends("length", "half an ans"), "cut off.*thinking_tokens"),
        (ends("stop", ""), "it is empty"),
        (ends("stop", None), "it is empty"),
        (ends("stop", "  \n "), "it is empty"),
        (ends("stop", [{"type": "text"}]), "no text"),
        (ends("stop", "<think>hm"), "only thoughts"),
        (ends("stop", None, refusal="I will not"), "refused: I will not"),
        (ends("content_filter", "x"), "refused: content_filter"),
        (lambda path, request: completion(request, "x") | {"choices": []}, "no choices"),
        (lambda path, request: completion(request, "x") | {"choices": None}, "no choices"),
        (lambda path, request: completion(request, "x") | {"choices": "yes"}, "no choices"),
        (lambda path, request: completion(request, "x") | {"choices": [1]}, "it is empty"),
        (lambda path, request: [1, 2], None),
        (lambda path, request: {}, "no choices"),
    ],
)
def test_an_answer_that_is_none_is_refused_and_not_kept(whole, message, tmp_path):
    with pytest.raises((AnswerRefused, OSError), match=message):
        asked(whole, tmp_path)
    assert not list(tmp_path.iterdir())
    assert asked(refuses(), tmp_path)[0] == ["an answer"]


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"{", b"", b"null"])
def test_a_server_that_speaks_something_else(body, tmp_path):
    with pytest.raises((AnswerRefused, OSError)):
        asked(lambda path, request: body, tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_key_in_a_message_or_in_the_cache(tmp_path):
    with pytest.raises(OSError, match="the key") as caught:
        asked(lambda path, request: (401, {"error": {"message": "wrong key sk-secret-1234"}}), tmp_path)
    assert "sk-secret" not in str(caught.value) and caught.value.__suppress_context__
    asked(refuses(), tmp_path)
    (kept,) = tmp_path.iterdir()
    assert "sk-secret" not in kept.read_text() and "127.0.0.1" not in kept.read_text()
    assert "sk-secret" not in repr(ik.features.LLM("m", api_key="sk-secret-1234"))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"answer": ""}', '{"answer": null}', '{"answer": 1}', "[" * 9999])
def test_a_damaged_answer_in_the_cache_is_asked_for_again(damage, tmp_path):
    asked(refuses(), tmp_path)
    (kept,) = tmp_path.iterdir()
    with local_openai(whole=refuses()) as (url, seen):
        llm = ik.features.LLM("a-model", base_url=url, api_key="k", cache=tmp_path)
        llm.ask(QUESTION, 40)
        (kept,) = set(tmp_path.iterdir()) - {kept}
        kept.write_text(damage)
        assert llm.estimate([QUESTION], 40)["calls"] == 1
        assert llm.ask(QUESTION, 40) == "an answer" and len(seen) == 2
        assert json.loads(kept.read_text())["answer"] == "an answer"


def test_what_was_answered_before_a_server_broke_down_is_kept(store, tmp_path):
    """The third question fails; the rerun asks the two that are missing alone."""
    state = {"broken": True}

    def whole(path, request):
        if state["broken"] and len(seen) == 3:
            return 400, {"error": {"message": "no"}}
        return completion(request, "a name")

    with local_openai(whole=whole) as (url, seen):
        llm = ik.features.LLM("a-model", base_url=url, api_key="k", cache=tmp_path)
        only = [(0, 1), (1, 4), (2, 7), (3, 3)]
        with pytest.raises(OSError, match="run it again, and only what is missing is asked"):
            ik.label_features(store, llm=llm, only=only)
        state["broken"] = False
        assert (ik.label_features(store, llm=llm, only=only)["label"] == "a name").all() and len(seen) == 5


def test_features_without_an_answer_are_counted(store, tmp_path):
    def whole(path, request):
        reason = "length" if len(seen) == 2 else "stop"
        return ends(reason, "<b>Texas</b>\x1b[2J\nand more")(path, request)

    with local_openai(whole=whole) as (url, seen):
        llm = ik.features.LLM("a-model", base_url=url, api_key="k", cache=tmp_path)
        with pytest.warns(UserWarning, match="no usable answer for 1 of 3 features"):
            labels = ik.label_features(store, llm=llm, only=ONLY)
    assert labels["label"].tolist() == ["<b>Texas</b>\\x1b[2J and more", "", "<b>Texas</b>\\x1b[2J and more"]
    assert "cut off" in labels["evidence"][1] and labels["source"].isna()[1]
    assert "<b>Texas" not in store.show(0, 1, labels)._repr_html_()
    assert pd_isna(ik.score_labels(store, labels)["detection"]) == [False, True, False]


def pd_isna(column):
    return column.isna().tolist()


def test_a_model_that_thinks_first_may(tmp_path):
    answers, seen = asked(ends("stop", "<think>\nhm, 1 or 0?\n</think>\n Texas"), tmp_path, thinking_tokens=1000)
    assert answers == ["Texas"] and seen[0]["max_completion_tokens"] == 1040


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("1, 0, 1", [True, False, True]),
        ("101", [True, False, True]),
        ("1\n0\n1", [True, False, True]),
        ("1. 1\n2. 0\n3. 1", [True, False, True]),
        ("1: yes\n2: no\n3: yes", [True, False, True]),
        ("1) Yes, 2) No, 3) Yes", [True, False, True]),
        ("**1.** 1\n**2.** 0\n**3.** 1", [True, False, True]),
        ("Text 1: Yes.\nText 2: No.\nText 3: Yes.", [True, False, True]),
        ("1 - yes\n2 \u2013 no\n3 - yes", [True, False, True]),
        ("3: yes\n1: yes\n2: no", [True, False, True]),
        ("Yes\nNo\nYes", [True, False, True]),
        ("Yes, it names Texas\nNo, it is about Ohio\nYes, 1 city of it", [True, False, True]),
        ("The answers are: 1, 0, 1.", [True, False, True]),
        ("[1, 0, 1]", [True, False, True]),
        ('{"1": true, "2": false, "3": true}', [True, False, True]),
        ('```json\n{"answers": ["yes", "no", 1.0]}\n```', [True, False, True]),
        ('{"text_1": 1, "text_2": 0, "text_3": 1}', [True, False, True]),
        ("1: yes\n3: no", [True, None, False]),
        ("1: yes\n1: no\n2: no\n3: no", [None, False, False]),
        ("1-0-1", [True, False, True]),
        ("", [None] * 3),
        ("I cannot say", [None] * 3),
        ("1, 0", [None] * 3),
        ("1, 0, 1, 1", [None] * 3),
        ("[1, 0, 7]", [True, False, None]),
        ("[" * 99999, [None] * 3),
        ("{}", [None] * 3),
        ("1.5, 2.5", [None] * 3),
    ],
)
def test_what_a_judge_says_is_read_however_it_puts_it(said, expected):
    assert read_verdicts(said, 3) == expected


def test_one_text():
    assert read_verdicts("Yes, it does.", 1) == [True] == read_verdicts('{"active": true}', 1)
    assert read_verdicts("Yes and no", 1) == [True]  # its first word


def test_half_an_answer_is_half_used(store, tmp_path):
    """Of each question the last text is not answered: it is left out, and counted."""

    def answer(messages):
        texts = messages[1]["content"].splitlines()
        return "\n".join(f"{i + 1}: yes" for i in range(len(texts) - 1)) or "?"

    labels = ik.features.student_labels({at: "Texas" for at in ONLY}, store)
    with local_openai(answer) as (url, seen):
        llm = ik.features.LLM("a-model", base_url=url, api_key="k", cache=tmp_path)
        scored = ik.score_labels(store, labels, judge=llm)
    assert (scored["unread"] > 0).all() and (scored["unread"] < scored["n"] * 3).all()
    assert scored["detection"].dropna().tolist() == [0.5] * scored["detection"].notna().sum()


def test_a_judge_that_does_not_answer_for_each_text(store):
    labels = ik.features.student_labels({ONLY[0]: "Texas"}, store)
    with pytest.raises(ValueError, match="was shown .* texts and gave 1 answers"):
        ik.score_labels(store, labels, judge=lambda label, texts, marks: [True])


def test_a_text_on_one_line():
    assert one_line("a\tb\n c \x9b31m") == "a b c \\x9b31m"


def test_no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        ik.features.LLM("m")


def test_an_endpoint_that_breaks_down_while_it_judges(store, tmp_path):
    labels = ik.features.student_labels({ONLY[0]: "Texas"}, store)
    with local_openai(whole=lambda path, request: (400, {"error": {"message": "no"}})) as (url, seen):
        llm = ik.features.LLM("a-model", base_url=url, api_key="k", cache=tmp_path)
        with pytest.raises(OSError, match="did not answer"):
            ik.score_labels(store, labels, judge=llm)
