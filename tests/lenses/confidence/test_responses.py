"""Log-probabilities through the real client, from a server on this machine that answers as OpenAI's does."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_openai import local_openai
from openai import OpenAI
from tiny import tiny_model

import interp_kit as ik

PROMPT = "the capital of Texas is"


@pytest.fixture(scope="module")
def local():
    """What the served model says, and a function that answers requests with it."""
    return ik.lenses.logprobs(tiny_model(), prompt=PROMPT, max_new_tokens=3, top_logprobs=4)


def client(url):
    return OpenAI(base_url=url, api_key="local")


def same(found, local):
    assert found.content == local.content and found.text == local.text


def chat(local, **more):
    message = {"role": "assistant", "content": local.text}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": local.to_chat()} | more
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


def responses(local):
    text = {"type": "output_text", "text": local.text, "annotations": [], "logprobs": local.to_responses()}
    message = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    reasoning = {"id": "r", "type": "reasoning", "summary": []}
    body = {"id": "x", "object": "response", "created_at": 0, "model": "m", "status": "completed", "tools": []}
    return body | {"output": [reasoning, message], "parallel_tool_calls": False, "tool_choice": "auto"}


def test_chat_completions(local):
    with local_openai(whole=lambda path, request: chat(local)) as (url, seen):
        response = client(url).chat.completions.create(
            model="m", messages=[{"role": "user", "content": PROMPT}], logprobs=True, top_logprobs=4
        )
    assert seen[0]["path"] == "/v1/chat/completions" and seen[0]["logprobs"] is True
    same(ik.lenses.read_logprobs(response), local)


def test_responses_api(local):
    with local_openai(whole=lambda path, request: responses(local)) as (url, seen):
        include = ["message.output_text.logprobs"]
        response = client(url).responses.create(model="m", input=PROMPT, include=include, top_logprobs=4)
    assert seen[0]["path"] == "/v1/responses"
    same(ik.lenses.read_logprobs(response), local)


def test_streamed_chat(local):
    chunks = [
        {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m",
         "choices": [{"index": 0, "delta": {"content": r["token"]}, "logprobs": {"content": [r], "refusal": None}}]}
        for r in local.content
    ]  # fmt: skip
    end = chunks[0] | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "logprobs": None}]}
    with local_openai(whole=lambda path, request: [*chunks, end]) as (url, _):
        stream = client(url).chat.completions.create(model="m", messages=[], logprobs=True, stream=True)
        same(ik.lenses.read_logprobs(stream), local)


def test_streamed_responses_have_no_bytes(local):
    """They are those of the tokens' texts then."""
    events = [
        {"type": "response.output_text.delta", "sequence_number": i, "item_id": "m", "output_index": 0,
         "content_index": 0, "delta": r["token"], "logprobs": [{"token": r["token"], "logprob": r["logprob"],
         "top_logprobs": [{"token": a["token"], "logprob": a["logprob"]} for a in r["top_logprobs"]]}]}
        for i, r in enumerate(local.content)
    ]  # fmt: skip
    with local_openai(whole=lambda path, request: events) as (url, _):
        stream = client(url).responses.create(model="m", input=PROMPT, stream=True)
        same(ik.lenses.read_logprobs(stream), local)


def test_saved_in_any_form(local, tmp_path):
    path = tmp_path / "response.json"
    for body in (chat(local), responses(local), local.to_chat(), local.content, local.to_responses()):
        same(ik.lenses.read_logprobs(body), local)
        same(ik.lenses.read_logprobs(json.dumps(body)), local)
        path.write_text(json.dumps(body))
        same(ik.lenses.read_logprobs(path), local)
        same(ik.lenses.read_logprobs(str(path)), local)


def test_the_older_completions():
    columns = {
        "tokens": ["The", " end"], "token_logprobs": [None, -0.5], "text_offset": [0, 3],
        "top_logprobs": [None, {" end": -0.5, " sky": -1.5}],
    }  # fmt: skip
    found = ik.lenses.read_logprobs({"choices": [{"text": "The end", "logprobs": columns}]})
    assert [r["token"] for r in found.content] == [" end"]  # the first has nothing before it
    assert found.table["alternative"][0] == " sky"


def test_the_older_completions_streamed():
    def chunk(token):
        columns = {"tokens": [token], "token_logprobs": [-0.5], "top_logprobs": [{token: -0.5}], "text_offset": [0]}
        choice = {"index": 0, "text": token, "logprobs": columns, "finish_reason": None}
        return {"id": "x", "object": "text_completion", "created": 0, "model": "m", "choices": [choice]}

    with local_openai(whole=lambda path, request: [chunk("The"), chunk(" end")]) as (url, _):
        stream = client(url).completions.create(model="m", prompt=PROMPT, logprobs=1, stream=True)
        assert ik.lenses.read_logprobs(stream).text == "The end"


def test_bytes_and_half_characters(local):
    same(ik.lenses.read_logprobs(json.dumps(local.content).encode()), local)
    found = ik.lenses.read_logprobs([{"token": "\ud83d", "logprob": -1.0}])
    assert found._repr_html_().encode() and found.content[0]["token"] == "?"
    with pytest.raises(ValueError, match="an empty text"):
        ik.lenses.read_logprobs(" ")


def test_another_choice(local):
    body = chat(local)
    body["choices"].append(body["choices"][0] | {"index": 1, "logprobs": {"content": local.content[:1]}})
    assert len(ik.lenses.read_logprobs(body, choice=1).content) == 1
    with pytest.raises(ValueError, match="choices 0 to 1"):
        ik.lenses.read_logprobs(body, choice=2)


def test_entropy_of_a_response_is_the_least_it_can_be(local):
    """The top list in place of the whole vocabulary: never more than the truth, and close when little is left out."""
    table, exact = ik.lenses.read_logprobs(local.content).table, local.table
    assert (table["entropy"] <= exact["entropy"] + 1e-6).all()
    whole = ik.lenses.logprobs(tiny_model(), prompt=PROMPT, max_new_tokens=3, top_logprobs=15)
    read = ik.lenses.read_logprobs(whole.content).table["entropy"]
    assert list(read) == pytest.approx(list(whole.table["entropy"]), rel=1e-3)


def test_a_refusal_is_read(local):
    assert len(ik.lenses.read_logprobs({"content": None, "refusal": local.content}).content) == len(local.content)


def test_minus_9999_stays_finite():
    found = ik.lenses.read_logprobs([{"token": "a", "logprob": -9999.0, "bytes": None, "top_logprobs": []}])
    assert found.table["probability"][0] == 0 and math.isfinite(found.table["entropy"][0])
    assert "<span" in found._repr_html_()


BAD = [
    ({"choices": [{"message": {}, "logprobs": None}]}, "logprobs=True"),
    ({"output": [{"content": [{"type": "output_text", "text": "x"}]}]}, "output_text.logprobs"),
    ({"error": {"message": "no"}}, "without log-probabilities"),
    ([{"token": 3, "logprob": -1}], "token 0: expected a token's text, got int"),
    ([{"token": "a", "logprob": 0.5}], "at most 0, got 0.5"),
    ([{"token": "a", "logprob": "-1"}], "at most 0"),
    ([{"token": "a", "logprob": float("nan")}], "at most 0"),
    ([{"token": "a", "logprob": -1, "bytes": [300]}], "0 to 255"),
    ([{"token": "a", "logprob": -1, "top_logprobs": {"b": 1}}], "expected a list, got dict"),
    ([3], "expected an object, got int"),
    ({"choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": []}}]}, "differ in length"),
    ({"choices": {}}, "choices: expected a list"),
    (3, "a int without"),
]


@pytest.mark.parametrize("content, message", BAD)
def test_what_is_wrong_is_said(content, message):
    with pytest.raises(ValueError, match=message):
        ik.lenses.read_logprobs(content)


def test_a_stream_without_them():
    chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "logprobs": None}]}
    with pytest.raises(ValueError, match="the stream carries no"):
        ik.lenses.read_logprobs(iter([chunk]))


# ---------------------------------------------------------------------- other services


RECORDS = [
    {"token": "The", "logprob": -0.1, "bytes": [84, 104, 101], "top_logprobs": [{"token": "A", "logprob": -2.5}]},
    {"token": " end", "logprob": -0.5, "top_logprobs": []},
]
OLLAMA = {"model": "m", "created_at": "now", "message": {"role": "assistant", "content": "The end"}, "done": True}
LLAMA_CPP = [{"id": 7, "top_logprobs": [], **record} for record in RECORDS]


@pytest.mark.parametrize(
    "answer",
    [
        OLLAMA | {"logprobs": RECORDS},
        {"model": "m", "response": "The end", "done": True, "logprobs": RECORDS},
        [{"model": "m", "response": r["token"], "done": i == 1, "logprobs": [r]} for i, r in enumerate(RECORDS)],
        [*({"message": {}, "done": False, "logprobs": [r]} for r in RECORDS), {"done": True}],
        {"content": "The end", "tokens_predicted": 2, "completion_probabilities": LLAMA_CPP},
        [{"content": r["token"], "stop": False, "completion_probabilities": [r]} for r in LLAMA_CPP],
        {"custom_id": "1", "error": None, "response": {"status_code": 200, "body": {"choices": [
            {"index": 0, "logprobs": {"content": RECORDS}}]}}},
        {"choices": [{"logprobs": {"tokens": ["The", " end"], "token_logprobs": [-0.1, -0.5]}}]},
    ],
)  # fmt: skip
def test_what_other_services_answer(answer, tmp_path):
    text = json.dumps(answer)
    lines = "\n".join(json.dumps(part) for part in answer) if isinstance(answer, list) else text
    events = "\n\n".join(f"data: {line}" for line in lines.split("\n")) + "\n\ndata: [DONE]\n"
    (tmp_path / "answer.jsonl").write_text(lines + "\n")
    (tmp_path / "answer.json").write_text(text)
    sources = [answer, text, text.encode(), lines, events, tmp_path / "answer.jsonl", str(tmp_path / "answer.json")]
    for source in sources:
        found = ik.lenses.read_logprobs(source)
        assert found.text == "The end" and [r["logprob"] for r in found.content] == [-0.1, -0.5]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (OLLAMA, "ask with .logprobs.: true"),
        (OLLAMA | {"logprobs": 3}, "logprobs: expected a list, got int"),
        ({"completion_probabilities": [{"content": "a", "probs": [{"tok_str": "a", "prob": 1}]}]}, "after sampling"),
        ({"completion_probabilities": [{"token": "a", "prob": 0.5, "top_probs": []}]}, "post_sampling_probs"),
        ({"candidates": [{"logprobsResult": {}}]}, "Gemini's API: its numbers are in"),
        ({"generated_text": "a", "details": {"tokens": []}}, "text-generation-inference"),
        ({"type": "message", "content": [{"type": "text", "text": "a"}], "stop_reason": "end"}, "Anthropic's API"),
        ({"custom_id": "r-1", "response": None, "error": {"code": "x"}}, "the request 'r-1' of this Batch was not"),
        ({"custom_id": "r-1", "response": {"status_code": 400}}, "was not answered: {'status_code': 400}"),
        ([{"custom_id": "1"}, {"custom_id": "2"}], "Batch's output with 2 answers: read them one by one"),
        ({"tokens": ["a", "b"], "token_logprobs": [-1, None]}, "token 1, 'b': a log-probability is a number"),
        ("{'single': 'quotes'}", "the text is no JSON"),
        ('{"choices": [', "the text is no JSON .is it cut short"),
        ('data: {"a": 1}\ndata: {"b"', "nor is each of its lines"),
        ("[" * 100_000, "nested without end"),
        (b"\xff\xfe{", "bytes that are not UTF-8"),
        ("a" * 5000, "neither JSON nor the path of a file"),
        ("a\0b", "neither JSON nor the path of a file"),
    ],
)
def test_an_answer_that_cannot_be_read_is_named(answer, message):
    with pytest.raises(ValueError, match=message):
        ik.lenses.read_logprobs(answer)


def test_numbers_of_numpy_and_of_any_size():
    content = [
        {"token": "a", "logprob": np.float32(-0.5), "bytes": [np.int64(97)]},
        {"token": "b", "logprob": -(10**400), "bytes": b"b"},
        {"token": "c", "logprob": float("-inf"), "bytes": ()},
        {"token": "d", "logprob": 1e-4},
    ]
    found = ik.lenses.read_logprobs(content)
    assert [r["logprob"] for r in found.content] == [-0.5, -9999, -9999, 0]
    assert np.isfinite(found.table[["probability", "surprisal", "entropy"]].to_numpy()).all()
    assert json.loads(json.dumps(found.content)) == found.content
    for bad in (10**400, np.float64("nan"), np.bool_(True), 1 + 0j, None, [-1]):
        with pytest.raises(ValueError, match="a number of at most 0"):
            ik.lenses.read_logprobs([{"token": "a", "logprob": bad}])
    assert ik.lenses.read_logprobs(found) is found


def test_forms_within_forms_without_end():
    answer = {"choices": []}
    for _ in range(5000):
        answer = {"custom_id": "1", "response": {"body": answer}}
    with pytest.raises(ValueError, match="nested without end"):
        ik.lenses.read_logprobs(answer)


def test_a_choice_is_a_whole_number(local):
    for choice in ("0", 0.0, None, True):
        with pytest.raises(TypeError, match="choice should be a whole number"):
            ik.lenses.read_logprobs(chat(local), choice)
    with pytest.raises(FileNotFoundError, match="there is no file 'nowhere.json'"):
        ik.lenses.read_logprobs("nowhere.json")


# ---------------------------------------------------------------------- mutated answers


GOOD = [
    {"choices": [{"index": 0, "logprobs": {"content": RECORDS, "refusal": None}}]},
    {"output": [{"content": [{"type": "output_text", "logprobs": RECORDS}]}]},
    {"choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"c": -2}]}}]},
    OLLAMA | {"logprobs": RECORDS},
    {"completion_probabilities": LLAMA_CPP},
    {"custom_id": "1", "response": {"body": {"choices": [{"logprobs": {"content": RECORDS}}]}}},
    [{"object": "chat.completion.chunk", "choices": [{"index": 0, "logprobs": {"content": RECORDS}}]}],
    RECORDS,
]  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.binary(max_size=4), st.just([]),
    st.just({}), st.just(10**400), st.just([[[]]]), st.just({"token": 1}), st.just({"logprobs": {"content": [3]}}),
)  # fmt: skip


def places(value, at=()):
    """All that can be exchanged in a nested value: the ways to it."""
    yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*at, key))


def changed(value, at, new):
    """The value with what is at a place exchanged; NotImplemented: taken out."""
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(at) == 1 and new is NotImplemented:
        del copy[at[0]]
    else:
        copy[at[0]] = changed(copy[at[0]], at[1:], new)
    return copy


@settings(deadline=None)
@given(st.data())
def test_a_changed_answer_is_refused_with_words_or_read_and_finite(data):
    answer = data.draw(st.sampled_from(GOOD))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(sorted(places(answer), key=str)))
        answer = changed(answer, at, data.draw(st.just(NotImplemented) | ODD) if at else data.draw(ODD))
    try:
        found = ik.lenses.read_logprobs(answer)
    except (ValueError, FileNotFoundError) as error:
        assert 15 < len(str(error)) < 600
        return
    table = found.table
    if len(table):
        assert np.isfinite(table[["probability", "logprob", "surprisal", "entropy"]].to_numpy(float)).all()
    assert isinstance(found.text, str) and found._repr_html_()


@settings(deadline=None)
@given(st.sampled_from(GOOD), st.data())
def test_cut_or_damaged_text_is_refused_with_words(answer, data):
    raw = bytearray(json.dumps(answer).encode())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = ik.lenses.read_logprobs(bytes(raw))
    except (ValueError, FileNotFoundError) as error:
        assert 15 < len(str(error)) < 600
    else:
        assert found._repr_html_()
