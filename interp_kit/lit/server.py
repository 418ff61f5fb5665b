"""The Language Interpretability Tool on a model of the kit, in a notebook or alone (Tenney et al. 2020, "The Language
Interpretability Tool"): generated text, candidates for the next token, salience maps, counterfactuals.

LIT runs in a process and an environment of its own (see `environment`), with `app` as its programme.
"""

import html
import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from ..formats.json import write_json
from ..models import LanguageModel
from ..models.arguments import checked
from ..models.targets import Token, token_ids
from ..storage.atomic import always
from ..widgets.plain_text import literal, printable
from ..widgets.progress import ProgressBar
from .environment import lit_python

CONFIG, STATUS, LOG, WEIGHTS = "config.json", "status.json", "lit.log", "model"  # in a server's folder
STEPS = ("loading LIT", "loading the model", "opening the page", "ready")
N_CANDIDATES, N_OF_A_PROMPT = 20, 10  # next tokens offered in all, and of one prompt
HUB_PREFIX = "JUPYTERHUB_SERVICE_PREFIX"  # in the environment of a notebook on JupyterHub or Binder
HEIGHT = 900  # of the frame in a notebook, pixels
LOG_LINES = 15  # of the log in an error

Example = dict[str, str]  # a prompt, and as target the text that should follow it, which may be empty

_open: dict[str, "LitServer"] = {}  # by the model's name; also keeps a server alive that is shown and not assigned


class LitServer:
    """A running LIT, made by `open_lit`; shown by a notebook as a frame. Closed by `close`, at the end of a `with`
    block, or when this Python process ends, however it ends.

    name: the model's.
    prompts: how many.
    port: of this machine.
    log: the path of what LIT said.
    """

    def __init__(
        self, name: str, prompts: int, folder: Path, process: subprocess.Popen[bytes], port: int, first: str, token: str
    ):
        self.name, self.prompts, self.port, self.log = name, prompts, port, folder / LOG
        self._folder, self._process, self._first, self._token = folder, process, first, token

    @property
    def url(self) -> str:
        """What the reader's browser opens, the first prompt selected. Whoever has it can use this LIT."""
        return f"{lit_url(self.port, self._token)}?selection={self._first}"

    @property
    def running(self) -> bool:
        """Whether LIT has not ended."""
        return self._process.poll() is None

    def wait(self) -> None:
        """Returns when LIT has ended."""
        self._process.wait()

    def close(self) -> None:
        """Ends LIT and removes its files; doing it twice is no error."""
        _end(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)
        if _open.get(self.name) is self:
            del _open[self.name]

    def __enter__(self) -> "LitServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return printable(f"LitServer({self.name!r}, {self.prompts} prompts, {self.url if self.running else 'closed'})")

    def _repr_html_(self) -> str:
        name, url = html.escape(self.name), html.escape(self.url)
        if not self.running:
            return literal(f"<p>LIT on {name} is closed. <code>open_lit</code> opens it again.</p>")
        return literal(
            f'<iframe src="{url}" title="Language Interpretability Tool on {name}" width="100%" height="{HEIGHT}" '
            f'style="border: 1px solid #ccc"></iframe><p>LIT on {name}: <a href="{url}" target="_blank">open it in a '
            "tab of its own</a>. It runs as long as this notebook's kernel does; in a saved notebook, without a "
            "kernel, the frame is empty.</p>"
        )


@checked
def open_lit(
    model: LanguageModel,
    texts: Sequence[str] | pd.DataFrame,
    candidates: Sequence[Token] | None = None,
    port: int = 0,
    timeout: float = 300,
    web_fonts: bool = False,
) -> LitServer:
    """Starts the Language Interpretability Tool on a model: a `LitServer`, which a notebook shows.

    texts: the prompts, a list of strings or a table with the column prompt and, if wanted, target (the text that should
        follow, with its leading space), whose salience LIT then explains.
    candidates: next tokens, each its text (" Austin") or its id, whose probabilities are listed and explained; not
        given, the first tokens of the targets and the likeliest of all prompts, 20 in all.
    port: of this machine, 0 for a free one.
    timeout: seconds that starting may take.
    web_fonts: whether the page may ask fonts.googleapis.com for its fonts, which then learns that it was opened; its
        icons are words without them.

    LIT listens on 127.0.0.1, and answers only under the address that is given here: a secret in it, drawn anew each
    time, keeps out other users of the machine and other pages of the browser. Behind JupyterHub or Binder the page
    comes through jupyter-server-proxy. It runs on the CPU, from the model's own folder (a model that
    has none is written to a temporary one). Opening LIT again on a model of the same name closes the earlier one.

        ik.lit.open_lit(model, ["The capital of Texas is"])

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
        "token": secrets.token_urlsafe(24),
        "proxied": HUB_PREFIX in os.environ,
        "web_fonts": bool(web_fonts),
    }
    if model.name in _open:
        _open[model.name].close()
    folder = Path(tempfile.mkdtemp(prefix="interp_kit-lit-"))
    process = None
    try:
        config["model"] = str(_weights(model, folder / WEIGHTS))
        write_json(config, folder / CONFIG, always)
        process = _start(python, folder)
        port, first = _wait_until_up(process, folder, time.monotonic() + timeout)
    except BaseException:
        if process is not None:
            _end(process)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _open[model.name] = LitServer(model.name, len(examples), folder, process, port, first, config["token"])
    return _open[model.name]


def lit_url(port: int, token: str) -> str:
    """What a browser opens: on JupyterHub and Binder a path of the notebook server, which jupyter-server-proxy leads
    to the port; else the port itself."""
    prefix = os.environ.get(HUB_PREFIX)
    return f"{prefix.rstrip('/')}/proxy/{port}/{token}/" if prefix else f"http://127.0.0.1:{port}/{token}/"


# ---------------------------------------------------------------------- what LIT is told


def _examples(model: LanguageModel, texts: Sequence[str] | pd.DataFrame) -> list[Example]:
    """No two alike, each known to fit into the context."""
    if isinstance(texts, str):
        raise TypeError("texts should be a list of prompts, or a table with the column prompt; got one string")
    table = texts if isinstance(texts, pd.DataFrame) else pd.DataFrame({"prompt": list(texts)})
    if "prompt" not in table:
        raise ValueError(f"a table of texts needs a column prompt; it has {list(table.columns)}")
    table = table.reindex(columns=["prompt", "target"], fill_value="").fillna("")
    table = table.drop_duplicates()  # LIT knows an example by its content
    examples = [{"prompt": prompt, "target": target} for prompt, target in zip(table["prompt"], table["target"])]
    if not examples:
        raise ValueError("texts are empty: give LIT at least one prompt")
    for example in examples:
        model.encode(example["prompt"])
        if example["target"]:
            model.encode(example["prompt"] + example["target"])
    return examples


def _candidate_ids(model: LanguageModel, examples: list[Example], candidates: Sequence[Token] | None) -> list[int]:
    """Token ids, no two of which read alike: LIT knows them by their text."""
    if candidates is not None:
        ids = [id for token in candidates for id in token_ids(model, token)]
        if not ids:
            raise ValueError("candidates are empty: give at least one token, or None")
    else:
        bar = ProgressBar(examples, desc="likeliest next tokens", leave=False)
        tables = [model.next_tokens(example["prompt"], k=N_OF_A_PROMPT) for example in bar]
        highest = pd.concat(tables)["probability"].groupby(level="id").max()
        likeliest = highest.sort_values(ascending=False, kind="stable").index.tolist()
        ids = list(dict.fromkeys([*_first_tokens(model, examples), *likeliest]))[:N_CANDIDATES]
    by_text: dict[str, int] = {}
    for text, token in zip(model.tokens(ids), ids):
        by_text.setdefault(text, token)
    return list(by_text.values())


def _first_tokens(model: LanguageModel, examples: list[Example]) -> Iterator[int]:
    """Of each target the token that comes after its prompt."""
    for example in examples:
        if example["target"]:
            place = len(model.encode(example["prompt"]))
            yield from model.encode(example["prompt"] + example["target"]).tolist()[place : place + 1]


def _weights(model: LanguageModel, folder: Path) -> Path:
    """A folder with the model's weights: the one it was loaded from, else `folder`, written now."""
    origin = Path(model.hf.name_or_path or folder)
    if (origin / "config.json").is_file():
        return origin.resolve()
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


# ---------------------------------------------------------------------- the process


def _start(python: Path, folder: Path) -> subprocess.Popen[bytes]:
    """LIT as a child that ends when its standard input does: also when this process is killed."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "HF_HUB_OFFLINE": "1"}
    with open(folder / LOG, "wb") as log:
        return subprocess.Popen(
            [python, "-m", "interp_kit.lit.app", folder], env=environment, stdin=subprocess.PIPE, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,  # or a notebook's stop button would end LIT
        )  # fmt: skip


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None, "it was started with a pipe"
    process.stdin.close()  # the process ends when this does
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_up(process: subprocess.Popen[bytes], folder: Path, deadline: float) -> tuple[int, str]:
    """The port, once LIT answers on it, and LIT's name of the first prompt."""
    with ProgressBar(total=len(STEPS) - 1, desc=STEPS[0]) as bar:
        while time.monotonic() < deadline:
            status = _read(folder / STATUS)
            if status["step"] > bar.n:
                bar.set_description(STEPS[status["step"]], refresh=False)
                bar.update(status["step"] - bar.n)
            if status["port"] is not None and status["first"] is not None:
                return status["port"], status["first"]
            if process.poll() is not None:
                raise RuntimeError(f"LIT ended before it was up. The end of its log:\n{_tail(folder / LOG)}")
            time.sleep(0.1)
    raise TimeoutError(f"LIT was not up in time (see `timeout`). The end of its log:\n{_tail(folder / LOG)}")


def _read(path: Path) -> dict:
    """How far LIT is: the number of one of STEPS; once it is up, where, and what it calls the first prompt."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"step": 0, "port": None, "first": None}


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])
