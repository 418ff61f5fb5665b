"""The Language Interpretability Tool on a model of the kit, in a notebook or alone (Tenney et al. 2020, "The Language
Interpretability Tool"): generated text, candidates for the next token, salience maps, counterfactuals.

LIT runs in a process and an environment of its own (see `environment`), with `app` as its programme.
"""

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from ..formats.json import write_json
from .environment import lit_python

CONFIG, STATUS, LOG, WEIGHTS = "config.json", "status.json", "lit.log", "model"  # in a server's folder
STEPS = ("loading LIT", "loading the model", "opening the page", "ready")
CANDIDATES, A_PROMPT = 20, 10  # next tokens offered in all, and of one prompt
HEIGHT = 900  # of the frame in a notebook, pixels
LOG_LINES = 15  # of the log in an error

_open: dict[str, "LitServer"] = {}  # by the model's name; also keeps a server alive that is shown and not assigned


class LitServer:
    """A running LIT, made by `open_lit`; shown by a notebook as a frame. Closed by `close`, at the end of a `with`
    block, or when this Python process ends, however it ends.

    Attributes: name (the model's), prompts (how many), port, log (path of what LIT said), url (what the reader's
    browser opens, the first prompt selected).
    """

    def __init__(self, name: str, prompts: int, folder: Path, process: subprocess.Popen):
        self.name, self.prompts, self.log = name, prompts, folder / LOG
        self.port, self.first = None, ""  # once it is up: where, and LIT's name of the first prompt
        self._folder, self._process = folder, process

    @property
    def url(self) -> str:
        return f"{lit_url(self.port)}?selection={self.first}"

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> None:
        """Returns when LIT has ended."""
        self._process.wait()

    def close(self) -> None:
        """Ends LIT and removes its files; doing it twice is no error."""
        self._process.stdin.close()  # the process ends when this does
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        if _open.get(self.name) is self:
            del _open[self.name]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __repr__(self):
        where = self.url if self.running else "closed"
        return f"LitServer({self.name!r}, {self.prompts} prompts, {where})"

    def _repr_html_(self):
        name, url = html.escape(self.name), html.escape(self.url)
        if not self.running:
            return f"<p>LIT on {name} is closed. <code>open_lit</code> opens it again.</p>"
        return (
            f'<iframe src="{url}" title="Language Interpretability Tool on {name}" width="100%" height="{HEIGHT}" '
            f'style="border: 1px solid #ccc"></iframe><p>LIT on {name}: <a href="{url}" target="_blank">open it in a '
            "tab of its own</a>. It runs as long as this notebook's kernel does; in a saved notebook, without a "
            "kernel, the frame is empty.</p>"
        )


def open_lit(model, texts, candidates=None, port: int = 0, timeout: float = 300) -> LitServer:
    """Starts the Language Interpretability Tool on a model: a `LitServer`, which a notebook shows.

    texts: the prompts, a list of strings or a table with the column prompt and, if wanted, target (the text that should
        follow, with its leading space), whose salience LIT then explains.
    candidates: next tokens, each one token of the model (" Austin"), whose probabilities are listed and explained; not
        given, the first tokens of the targets and the likeliest of all prompts, 20 in all.
    port: of this machine, 0 for a free one; timeout: seconds that starting may take.

    LIT listens on 127.0.0.1 and has no password: other users of the same machine can open it too. Behind JupyterHub or
    Binder the page comes through jupyter-server-proxy. It runs on the CPU, from the model's own folder (a model that
    has none is written to a temporary one). Opening LIT again on a model of the same name closes the earlier one. The
    page takes its fonts from the web: offline its icons are words.

    Raises FileNotFoundError, with the command to run, where LIT is not installed; TypeError and ValueError for texts
    and candidates that are none; TimeoutError, and RuntimeError when LIT ends before it is up, both quoting its log.
    """
    python = lit_python()
    examples = _examples(model, texts)
    config = {
        "name": re.sub(r"[^\w.-]+", "-", Path(model.name).name),  # goes into addresses
        "dtype": str(model.dtype).removeprefix("torch."),
        "fingerprint": model.fingerprint,
        "examples": examples,
        "candidates": _candidate_ids(model, examples, candidates),
        "port": port,
    }
    if model.name in _open:
        _open[model.name].close()
    folder = Path(tempfile.mkdtemp(prefix="interp_kit-lit-"))
    server = None
    try:
        config["model"] = str(_weights(model, folder / WEIGHTS))
        write_json(config, folder / CONFIG)
        server = LitServer(model.name, len(examples), folder, _start(python, folder))
        server.port, server.first = _wait_until_up(server, folder, time.monotonic() + timeout)
    except BaseException:
        server.close() if server else shutil.rmtree(folder, ignore_errors=True)
        raise
    _open[model.name] = server
    return server


def lit_url(port: int) -> str:
    """What a browser opens: on JupyterHub and Binder a path of the notebook server, which jupyter-server-proxy leads
    to the port; else the port itself."""
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    return f"{prefix.rstrip('/')}/proxy/{port}/" if prefix else f"http://127.0.0.1:{port}/"


# ---------------------------------------------------------------------- what LIT is told


def _examples(model, texts):
    """[{"prompt": str, "target": str}], no two alike, each known to fit into the context."""
    if isinstance(texts, str):
        raise TypeError("texts should be a list of prompts, or a table with the column prompt; got one string")
    table = texts if isinstance(texts, pd.DataFrame) else pd.DataFrame({"prompt": list(texts)})
    if "prompt" not in table:
        raise ValueError(f"a table of texts needs a column prompt; it has {list(table.columns)}")
    # LIT knows an example by its content.
    examples = (
        table.reindex(columns=["prompt", "target"], fill_value="").fillna("").drop_duplicates().to_dict("records")
    )
    if not examples:
        raise ValueError("texts are empty: give LIT at least one prompt")
    for example in examples:
        model.encode(example["prompt"])
        if example["target"]:
            model.encode(example["prompt"] + example["target"])
    return examples


def _candidate_ids(model, examples, candidates):
    """Token ids, no two of which read alike: LIT knows them by their text."""
    if candidates is not None:
        ids = [model.token_id(text) for text in candidates]
        if not ids:
            raise ValueError("candidates are empty: give at least one token, or None")
    else:
        bar = tqdm(examples, desc="likeliest next tokens", leave=False)
        tables = [model.next_tokens(example["prompt"], k=A_PROMPT) for example in bar]
        likeliest = pd.concat(tables).groupby(level="id")["probability"].max()
        ids = [*_first_tokens(model, examples), *likeliest.sort_values(ascending=False, kind="stable").index]
        ids = list(dict.fromkeys(ids))[:CANDIDATES]
    by_text = {}
    for text, token in zip(model.tokens(ids), ids):
        by_text.setdefault(text, int(token))
    return list(by_text.values())


def _first_tokens(model, examples):
    """Of each target the token that comes after its prompt."""
    for example in examples:
        if example["target"]:
            place = len(model.encode(example["prompt"]))
            yield from model.encode(example["prompt"] + example["target"]).tolist()[place : place + 1]


def _weights(model, folder):
    """A folder with the model's weights: the one it was loaded from, else `folder`, written now."""
    origin = Path(model.hf.name_or_path or folder)
    if (origin / "config.json").is_file():
        return origin.resolve()
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


# ---------------------------------------------------------------------- the process


def _start(python, folder):
    """LIT as a child that ends when its standard input does: also when this process is killed."""
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "HF_HUB_OFFLINE": "1"}
    with open(folder / LOG, "wb") as log:
        return subprocess.Popen(
            [python, "-m", "interp_kit.lit.app", folder], env=environment, stdin=subprocess.PIPE, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,  # or a notebook's stop button would end LIT
        )  # fmt: skip


def _wait_until_up(server, folder, deadline):
    """The port, once LIT answers on it, and LIT's name of the first prompt."""
    with tqdm(total=len(STEPS) - 1, desc=STEPS[0]) as bar:
        while time.monotonic() < deadline:
            status = _read(folder / STATUS)
            if status["step"] > bar.n:
                bar.set_description(STEPS[status["step"]], refresh=False)
                bar.update(status["step"] - bar.n)
            if status["port"]:
                return status["port"], status["first"]
            if not server.running:
                raise RuntimeError(f"LIT ended before it was up. The end of its log:\n{_tail(server.log)}")
            time.sleep(0.1)
    raise TimeoutError(f"LIT was not up in time (see `timeout`). The end of its log:\n{_tail(server.log)}")


def _read(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"step": 0, "port": None}


def _tail(log):
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])
