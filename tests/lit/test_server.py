"""LIT as a child process: what it is told, how it is shown, how it begins and ends. LIT itself is not needed here."""

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from tiny import tiny_model

import interp_kit as ik
from interp_kit.lit import environment as lit_environment
from interp_kit.lit import server as lit_room
from interp_kit.lit.server import lit_url

ROOT = str(Path(ik.__file__).parents[1])
PROMPTS = ["the capital of Texas is", "Dallas is a city"]


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """stand_in(script): a shell script in the place of LIT, run with the server's folder in $FOLDER."""
    monkeypatch.setattr(lit_room.tempfile, "mkdtemp", lambda prefix: str(_made(tmp_path / "server")))

    def use(script):
        path = tmp_path / "python"
        path.write_text(f'#!/bin/sh\nFOLDER="$3"\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setattr(lit_room, "lit_python", lambda: path)
        return tmp_path / "server"

    return use


def _made(folder):
    folder.mkdir()
    return folder


UP = """echo '{"step": 3, "port": 4321, "first": "abc"}' > "$FOLDER/status.json"; exec cat"""


# ---- what it is told ----


def test_candidates_are_the_targets_and_the_likeliest(model):
    table = pd.DataFrame({"prompt": PROMPTS + PROMPTS[1:], "target": [" Austin .", None, None]})
    examples = lit_room._examples(model, table)
    assert examples == [{"prompt": PROMPTS[0], "target": " Austin ."}, {"prompt": PROMPTS[1], "target": ""}]
    ids = lit_room._candidate_ids(model, examples, None)
    assert ids[0] == model.token_id("Austin") and len(set(ids)) == len(ids)
    likeliest = [model.next_tokens(prompt, k=1).index[0] for prompt in PROMPTS]
    assert set(likeliest) <= set(ids)
    assert lit_room._candidate_ids(model, examples, ["Ohio", "Texas", "Ohio"]) == [
        model.token_id("Ohio"),
        model.token_id("Texas"),
    ]


@pytest.mark.parametrize(
    ("texts", "candidates", "error", "match"),
    [
        ("one string", None, TypeError, "list of prompts"),
        ([], None, ValueError, "at least one prompt"),
        ([3], None, TypeError, "a prompt as a string"),
        (["the " * 40], None, ValueError, "reads at most 32"),
        (pd.DataFrame({"text": ["the"]}), None, ValueError, r"column prompt; it has \['text'\]"),
        (PROMPTS, ["Texas Ohio"], ValueError, "is 2 tokens"),
        (PROMPTS, [], ValueError, "candidates are empty"),
    ],
)
def test_wrong_texts_are_refused_before_anything_starts(model, stand_in, texts, candidates, error, match):
    folder = stand_in(UP)
    with pytest.raises(error, match=match):
        ik.lit.open_lit(model, texts, candidates)
    assert not folder.exists()


def test_a_model_goes_by_its_own_folder_or_a_written_one(model, tmp_path):
    assert lit_room._weights(ik.load_model("pocket"), tmp_path / "unused") == (
        Path(ik.__file__).parents[1] / "data/pocket"
    )
    assert not (tmp_path / "unused").exists()
    again = ik.load_model(lit_room._weights(model, tmp_path / "written"))
    assert again.fingerprint == model.fingerprint


# ---- how it is shown ----


def test_address(monkeypatch):
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)
    assert lit_url(5432, "secret") == "http://127.0.0.1:5432/secret/"
    for prefix in ("/user/ada/", "/user/ada"):
        monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", prefix)
        assert (
            lit_url(5432, "secret") == "/user/ada/proxy/5432/secret/"
        )  # relative addresses of the page need the last slash


def test_what_a_notebook_shows(model, stand_in, monkeypatch):
    stand_in(UP)
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", '/user/"ada"/')
    model.name = "<script>&"
    server = ik.lit.open_lit(model, PROMPTS)
    shown = server._repr_html_()
    token = server.url.split("/")[-2]
    assert (
        f'<iframe src="/user/&quot;ada&quot;/proxy/4321/{token}/?selection=abc"' in shown
        and len(token) == 32
        and "&lt;script&gt;&amp;" in shown
    )
    assert "<script>" not in shown and "without a kernel" in shown and "proxy/4321/" in repr(server)
    server.close()
    assert "iframe" not in server._repr_html_() and "is closed" in server._repr_html_() and "closed" in repr(server)


# ---- how it begins and ends ----


def test_it_ends_with_its_block_and_leaves_nothing(model, stand_in):
    folder = stand_in(UP)
    with ik.lit.open_lit(model, PROMPTS) as server:
        assert server.running and server.port == 4321 and folder.exists()
    assert not server.running and not folder.exists()
    server.close()


def test_opening_again_closes_the_earlier_one(model, stand_in):
    stand_in(UP)
    first = ik.lit.open_lit(model, PROMPTS)
    with ik.lit.open_lit(model, PROMPTS) as second:
        assert second.running and not first.running
        first.close()
        assert second.running


def test_what_it_said_when_it_did_not_start(model, stand_in):
    folder = stand_in("echo no such layout; exit 3")
    with pytest.raises(RuntimeError, match="no such layout"):
        ik.lit.open_lit(model, PROMPTS)
    assert not folder.exists()


def test_it_is_not_waited_for_without_end(model, stand_in):
    folder = stand_in("echo still thinking; exec cat")
    with pytest.raises(TimeoutError, match="still thinking"):
        ik.lit.open_lit(model, PROMPTS, timeout=0.5)
    assert not folder.exists()


# ---- its environment ----


def test_the_message_when_it_is_missing(model, monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_KIT_LIT", str(tmp_path / "lit"))
    with pytest.raises(FileNotFoundError, match="has not been made yet.*make lit.*python -m interp_kit lit"):
        ik.lit.open_lit(model, PROMPTS)
    (tmp_path / "lit").mkdir()
    (tmp_path / "lit" / "made_of.json").write_text('{"packages": ["lit-nlp==1.1"]}')
    with pytest.raises(FileNotFoundError, match="is out of date"):
        ik.lit.open_lit(model, PROMPTS)


def test_the_command_says_so_too(tmp_path):
    command = [sys.executable, "-m", "interp_kit", "lit", "pocket"]
    environment = os.environ | {"INTERP_KIT_LIT": str(tmp_path), "PYTHONPATH": ROOT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "make lit" in done.stderr and "Traceback" not in done.stderr


def test_a_build_that_fails_leaves_what_was_there(monkeypatch, tmp_path):
    monkeypatch.setenv("INTERP_KIT_LIT", str(tmp_path / "lit"))
    (tmp_path / "lit").mkdir()
    (tmp_path / "lit" / "old").touch()
    monkeypatch.setattr(lit_environment, "LIT", "no-such-package @ file:///nowhere")
    with pytest.raises(RuntimeError, match="no-such-package"):
        lit_environment.make_lit_environment()
    assert {path.name for path in tmp_path.iterdir()} <= {"lit", "lit.lock"}
    assert [path.name for path in (tmp_path / "lit").iterdir()] == ["old"]


# ---- with LIT ----


def test_it_dies_with_a_killed_parent(lit, tmp_path):
    """As when a kernel is killed: nothing of the parent's own code runs then."""
    code = (
        "import interp_kit as ik, sys, time\n"
        "server = ik.lit.open_lit(ik.load_model('pocket'), ['The capital of Texas is'])\n"
        "print(server._process.pid, server.log.parent, server.url, flush=True)\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": ROOT}
    )
    pid, folder, url = parent.stdout.readline().split()
    assert b"<lit-app>" in urllib.request.urlopen(url, timeout=30).read()
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while Path(folder).exists() or _alive(int(pid)):
        assert time.monotonic() < deadline, "LIT outlived its parent"
        time.sleep(0.1)


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")  # an orphan that nobody reaps is a zombie, and dead
    return not (state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z")
