"""What LIT's page is told about a model, asked over HTTP as the page does, against the model itself."""

import json
import os
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import tiny_model

import interp_kit as ik

PROMPTS = ["the capital of Texas is", "Dallas is a city in a state", "Ohio"]
TARGET = " Austin ."
OTHER = "(any other)"


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def server(lit, model):
    texts = pd.DataFrame({"prompt": PROMPTS, "target": [TARGET, "", ""]})
    with ik.lit.open_lit(model, texts, candidates=["Austin", "Dallas", "Ohio", "state"]) as server:
        yield server


@pytest.fixture(scope="module")
def ask(server):
    """ask(what, inputs, config, **parameters) as LIT's page asks."""

    def post(what, inputs=(), config=None, **parameters):
        address = f"{server.url.partition('?')[0]}{what}?{urllib.parse.urlencode(parameters)}"
        body = json.dumps({"inputs": list(inputs), "config": config}).encode()
        request = urllib.request.Request(address, data=body, headers={"Content-Type": "text/plain"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    return post


def example(**fields):
    return {"id": None, "data": fields, "meta": {"added": True}}


def gradient(model, text, positions):
    """Of the summed log-probability of the tokens at `positions`, with respect to the embeddings: worked out through
    ids and a hook, where LIT's wrapper feeds embeddings; also the embeddings."""
    held = []
    hook = model.hf.get_input_embeddings().register_forward_hook(lambda *call: held.append(call[2].requires_grad_()))
    ids = model.encode(text)
    logprobs = model.hf(input_ids=ids[None]).logits[0].log_softmax(-1)
    hook.remove()
    total = sum(logprobs[place - 1, token] for place, token in positions)
    (gradients,) = torch.autograd.grad(total, held[0])
    return gradients[0], held[0][0].detach()


def test_what_the_page_offers(ask, model):
    info = ask("get_info")
    assert set(info["models"]) == {"tiny-llama", "_tiny-llama_salience", "_tiny-llama_tokenizer"}
    assert info["models"]["tiny-llama"]["interpreters"] == ["classification", "Grad L2 Norm", "Grad ⋅ Input", "LIME"]
    assert info["models"]["tiny-llama"]["generators"] == ["Word Replacer"]
    assert info["defaultLayout"] == "interp_kit" and info["demoMode"]
    data = [row["data"] for row in ask("get_dataset", dataset_name="prompts")]
    assert [(row["prompt"], row["target"]) for row in data] == list(zip(PROMPTS, [TARGET, "", ""]))


def test_predictions_are_the_models(ask, model):
    found = ask("get_preds", [example(prompt=prompt) for prompt in PROMPTS], model="tiny-llama")
    ids = [model.token_id(word) for word in ("Austin", "Dallas", "Ohio", "state")]
    for prompt, answer in zip(PROMPTS, found):
        expected = model.logits(prompt)[-1].softmax(-1)[ids]
        np.testing.assert_allclose(answer["next_token"], [*expected, 1 - expected.sum()], atol=1e-6)
        assert answer["tokens"] == model.tokens(prompt) and answer["tokens"][0] == "<bos>"
        assert answer["response"] == model.complete(prompt, max_new_tokens=12)
        assert answer["explain"] == ["Austin", "Dallas", "Ohio", "state"][expected.argmax()]


@pytest.mark.parametrize("word", ["Austin", "state"])
def test_salience_maps_are_gradients_of_the_chosen_candidate(ask, model, word):
    """Asked for together, so that padding of the shorter prompts would show."""
    inputs = [example(prompt=prompt, explain=word) for prompt in PROMPTS]
    where = {"model": "tiny-llama", "dataset_name": "prompts"}
    norms = ask("get_interpretations", inputs, interpreter="Grad L2 Norm", **where)
    products = ask("get_interpretations", inputs, interpreter="Grad ⋅ Input", **where)
    for prompt, norm, product in zip(PROMPTS, norms, products):
        end = len(model.encode(prompt))
        gradients, embeddings = gradient(model, f"{prompt} {word}", [(end, model.token_id(word))])
        expected = gradients[:end].norm(dim=-1)
        np.testing.assert_allclose(norm["gradients"]["salience"], expected / expected.sum(), atol=1e-5)
        expected = (gradients * embeddings)[:end].sum(-1)
        np.testing.assert_allclose(product["gradients"]["salience"], expected / expected.abs().sum(), atol=1e-5)
        assert norm["gradients"]["tokens"] == model.tokens(prompt)


def test_all_others_can_be_explained(ask, model):
    (answer,) = ask("get_preds", [example(prompt=PROMPTS[0], explain=OTHER)], model="tiny-llama")
    assert answer["explain"] == OTHER and np.isfinite(answer["gradients"]).all() and np.any(answer["gradients"])


def test_lime_weighs_each_word(ask):
    """All of the words are left out in some samples, also those of a prompt of one word."""
    inputs = [example(prompt=prompt) for prompt in PROMPTS]
    where = {"model": "tiny-llama", "dataset_name": "prompts"}
    for prompt, found in zip(PROMPTS, ask("get_interpretations", inputs, interpreter="LIME", **where)):
        assert found["prompt"]["tokens"] == prompt.split()
        assert np.abs(found["prompt"]["salience"]).sum() == pytest.approx(1, abs=1e-4)


def test_sequence_salience_explains_the_masked_tokens(ask, model):
    text, end = PROMPTS[0] + TARGET, len(model.encode(PROMPTS[0]))
    (tokens,) = ask("get_preds", [example(prompt=PROMPTS[0], target=TARGET)], model="_tiny-llama_tokenizer")
    assert tokens["tokens"] == model.tokens(text) and len(tokens["tokens"]) == end + 2
    ids = model.encode(text).tolist()
    for places in ([end], [end, end + 1]):
        mask = [int(place in places) for place in range(len(ids))]
        asked = example(prompt=PROMPTS[0], target=TARGET, target_mask=mask)
        (found,) = ask("get_preds", [asked], model="_tiny-llama_salience")
        gradients, embeddings = gradient(model, text, [(place, ids[place]) for place in places])
        np.testing.assert_allclose(found["grad_l2"], gradients.norm(dim=-1), atol=1e-5)
        np.testing.assert_allclose(found["grad_dot_input"], (gradients * embeddings).sum(-1), atol=1e-5)
        assert not np.any(found["grad_l2"][max(places) :])  # nothing reads what comes later
    first = example(prompt=PROMPTS[0], target=TARGET, target_mask=[1])
    (found,) = ask("get_preds", [first], model="_tiny-llama_salience")
    assert not np.any(found["grad_l2"])  # no token predicts the first


def test_words_are_replaced(ask):
    row = ask("get_dataset", dataset_name="prompts")[0]
    config = {"Substitutions": "Texas -> Ohio", "Fields to replace": ["prompt"]}
    where = {"model": "tiny-llama", "dataset_name": "prompts", "generator": "Word Replacer"}
    ((new,),) = ask("get_generated", [row["id"]], config, **where)
    assert new["data"]["prompt"] == "the capital of Ohio is"


def test_a_visitor_writes_no_file(ask, tmp_path):
    target = tmp_path / "written"
    assert ask("save_datapoints", [], dataset_name="prompts", path=str(target)) is None
    for what in ("create_dataset", "create_model"):
        with pytest.raises(urllib.error.HTTPError):
            ask(what, config={"new_name": "x"}, dataset_name="prompts", model_name="tiny-llama")
    assert not list(tmp_path.iterdir())


def test_every_family_is_wrapped_alike(lit):
    here = Path(__file__).parent
    paths = os.pathsep.join([str(Path(ik.__file__).parents[1]), str(here.parent)])
    done = subprocess.run(
        [lit, here / "lit_families.py"], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 9


def test_weights_changed_since_loading_are_noticed(lit):
    model = ik.load_model("pocket")
    next(model.hf.parameters()).data += 1
    with pytest.raises(RuntimeError, match="not those in.*save_pretrained"):
        ik.lit.open_lit(model, PROMPTS)


def test_it_answers_to_nobody_without_its_address(server):
    """On this machine alone, under its secret alone, and its page asks the web for nothing."""
    page = urllib.request.urlopen(server.url, timeout=60)
    assert b"fonts.googleapis" not in page.read() and "default-src 'self'" in page.headers["Content-Security-Policy"]
    root = f"http://127.0.0.1:{server.port}/"
    secret = server.url.removeprefix(root).partition("/")[0]
    for address, headers in (
        (root, {}), (f"{root}get_info", {}), (f"{root}{secret[:-1]}/", {}),
        (f"{root}{secret}/", {"Host": "evil.example"}), (f"{root}{secret}/get_info", {"Host": "evil.example:80"}),
    ):  # fmt: skip
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60)
    request = urllib.request.Request(f"{root}{secret}/get_info", b"{}", headers={"Origin": "http://evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=60)
    with socket.socket() as elsewhere, pytest.raises(OSError):
        elsewhere.settimeout(2)
        elsewhere.connect(("127.0.0.2", server.port))  # also this machine
