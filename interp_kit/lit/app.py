"""LIT's side: a model of the kit as LIT wants to see one, and its page. Runs in LIT's environment, started by `lit`:

python -m interp_kit.lit.app FOLDER

LIT is told three models. The visible one predicts the next token, generates, and gives gradients of one candidate's
log-probability for the salience maps. Two hidden ones, named as LIT's sequence salience looks for them, split a prompt
with its continuation into tokens and explain the tokens chosen there.
"""

# pyright: reportMissingImports=false
# LIT, and what only it needs, are in an environment of their own.

import os
import shutil
import sys
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import lit_nlp
import torch
from lit_nlp.api import layout
from lit_nlp.api import types as lit
from lit_nlp.api.dataset import Dataset, input_hash
from lit_nlp.api.model import BatchedModel, Model
from lit_nlp.app import LitApp
from lit_nlp.components.gradient_maps import GradientDotInput, GradientNorm
from lit_nlp.components.lime_explainer import LIME
from lit_nlp.components.word_replacer import WordReplacer
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from ..formats.json import read_json, write_json
from ..models import LanguageModel, load_model
from ..storage.atomic import always
from ..text.batches import pad
from .guard import guarded, local_page
from .server import CONFIG, STATUS, STEPS, Example

NEW_TOKENS = 12  # generated
AT_ONCE = 8  # prompts in a forward pass
LIME_SAMPLES = 128  # each a forward pass with some of the words left out
OTHER = "(any other)"
CLIENT = Path(lit_nlp.__path__[0]) / "client" / "build" / "default"

_Modules = layout.LitModuleName
LAYOUT = layout.LitCanonicalLayout(
    upper={"Prompts": [_Modules.DataTableModule, _Modules.DatapointEditorModule]},
    lower={
        "Next token": [_Modules.ClassificationModule, _Modules.GeneratedTextModule, _Modules.SalienceMapModule],
        "Sequence salience": [_Modules.SequenceSalienceModule],
        "Replace words": [_Modules.GeneratorModule],
    },
    layoutSettings=layout.LayoutSettings(mainHeight=35),
    description="A language model: its next token, what it generates, and what drew them",
)


class Candidates(BatchedModel):
    """Probabilities of the candidates for the next token, in the whole vocabulary, and of all others together.

    ids: of the candidates; no two read alike.
    """

    def __init__(self, model: LanguageModel, ids: Sequence[int]):
        self.model, self.ids = model, torch.tensor(ids)
        self.vocab = [*model.tokens(ids), OTHER]
        self.embed = model.hf.get_input_embeddings()
        self.first = model.prefix_ids  # the begin-of-text token that prompts get, if any

    def max_minibatch_size(self) -> int:
        """Prompts in a forward pass."""
        return AT_ONCE

    def input_spec(self) -> lit.Spec:
        """The fields that LIT gives."""
        return {"prompt": lit.TextSegment(), "explain": lit.CategoryLabel(vocab=self.vocab, required=False)}

    def output_spec(self) -> lit.Spec:
        """The fields that LIT gets back."""
        return {"next_token": lit.MulticlassPreds(vocab=self.vocab, parent="explain", autosort=True)}

    @torch.no_grad()
    def predict_minibatch(self, inputs: Iterable[lit.JsonDict]) -> list[lit.JsonDict]:
        """An answer for each example, as `output_spec` says."""
        rows = [self.encode(example["prompt"]) for example in inputs]
        logprobs = self.logprobs(self.embed(pad(rows)[0]), rows)
        return [{"next_token": row.exp().numpy()} for row in logprobs]

    def encode(self, text: str) -> list[int]:
        """LIME leaves out all words at times: what is left is the position that every prompt begins with."""
        return self.first if self.first and not text.strip() else self.model.encode(text).tolist()

    def logprobs(self, embedded: torch.Tensor, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """From embedded rows [row, position, d_model], padded on the right, [row, candidate or other]."""
        logits = self.model.hf(inputs_embeds=embedded, use_cache=False).logits
        last = logits[torch.arange(len(rows)), [len(row) - 1 for row in rows]]
        logprobs = torch.log_softmax(last.float(), dim=-1)
        others = logprobs.index_fill(-1, self.ids, -torch.inf).logsumexp(-1, keepdim=True)
        return torch.cat([logprobs[:, self.ids], others], dim=-1)


class Prompts(Candidates):
    """A causal language model: its next token, its tokens' embeddings, and the gradient of the log-probability of one
    candidate (the likeliest, unless another is chosen) with respect to them."""

    def output_spec(self) -> lit.Spec:
        """The fields that LIT gets back."""
        return super().output_spec() | {
            "response": lit.GeneratedText(parent="target"),
            "tokens": lit.Tokens(parent="prompt"),
            "embeddings": lit.TokenEmbeddings(align="tokens"),
            "gradients": lit.TokenGradients(align="tokens", grad_for="embeddings", grad_target_field_key="explain"),
            "explain": lit.CategoryLabel(vocab=self.vocab, required=False),
        }

    def predict_minibatch(self, inputs: Iterable[lit.JsonDict]) -> list[lit.JsonDict]:
        """An answer for each example, as `output_spec` says."""
        rows = [self.encode(example["prompt"]) for example in inputs]
        embedded = self.embed(pad(rows)[0]).detach().requires_grad_()
        logprobs = self.logprobs(embedded, rows)
        explained = [self.explained(example, row) for example, row in zip(inputs, logprobs)]
        chosen = logprobs[torch.arange(len(rows)), explained].sum()  # a row depends on its own embeddings alone
        (gradients,) = torch.autograd.grad(chosen, embedded)
        return [
            {
                "next_token": logprobs[i].detach().exp().numpy(),
                "response": self.response(example["prompt"]),
                "tokens": self.model.tokens(row),
                "embeddings": embedded[i, : len(row)].detach().float().numpy(),
                "gradients": gradients[i, : len(row)].float().numpy(),
                "explain": self.vocab[explained[i]],
            }
            for i, (example, row) in enumerate(zip(inputs, rows))
        ]

    def explained(self, example: lit.JsonDict, logprobs: torch.Tensor) -> int:
        """Which candidate's gradient is wanted: the one that was chosen, else the likeliest of logprobs [candidate]."""
        asked = example.get("explain")
        return self.vocab.index(asked) if asked in self.vocab else int(logprobs[:-1].argmax())

    @cache  # noqa: B019  LIT asks again for the same prompt when another candidate is explained
    def response(self, prompt: str) -> str:
        """What the model writes after a prompt."""
        return self.model.complete(self.encode(prompt), NEW_TOKENS)


class Tokenizer(BatchedModel):
    """The tokens of a prompt with its continuation; hidden."""

    def __init__(self, model: LanguageModel):
        self.model = model

    def input_spec(self) -> lit.Spec:
        """The fields that LIT gives."""
        return {"prompt": lit.TextSegment(), "target": lit.TextSegment(required=False)}

    def output_spec(self) -> lit.Spec:
        """The fields that LIT gets back."""
        return {"tokens": lit.Tokens(parent="")}

    def predict_minibatch(self, inputs: Iterable[lit.JsonDict]) -> list[lit.JsonDict]:
        """An answer for each example, as `output_spec` says."""
        return [{"tokens": self.model.tokens(self.encode(example))} for example in inputs]

    def encode(self, example: lit.JsonDict) -> torch.Tensor:
        """The ids of a prompt with its continuation: [position]."""
        return self.model.encode(example["prompt"] + (example.get("target") or ""))


class Salience(Tokenizer):
    """The gradient of the summed log-probability of the tokens that a mask marks, with respect to the embeddings of all
    tokens; hidden."""

    def input_spec(self) -> lit.Spec:
        """The fields that LIT gives."""
        return super().input_spec() | {"target_mask": lit.TokenScores(align="", required=False)}

    def output_spec(self) -> lit.Spec:
        """The fields that LIT gets back."""
        scores = {name: lit.TokenScores(align="tokens") for name in ("grad_dot_input", "grad_l2")}
        return super().output_spec() | scores

    def predict_minibatch(self, inputs: Iterable[lit.JsonDict]) -> list[lit.JsonDict]:
        """An answer for each example, as `output_spec` says."""
        return [self.explain(example) for example in inputs]

    def explain(self, example: lit.JsonDict) -> lit.JsonDict:
        """Tokens and their saliences, for the tokens that `target_mask` marks."""
        ids = self.encode(example)
        marked = [place for place, mark in enumerate(example.get("target_mask") or []) if mark and 0 < place < len(ids)]
        embedded = self.model.hf.get_input_embeddings()(ids)[None].detach().requires_grad_()
        logits = self.model.hf(inputs_embeds=embedded, use_cache=False).logits[0]
        logprobs = torch.log_softmax(logits[:-1].float(), dim=-1).gather(1, ids[1:, None])[:, 0]  # of tokens 1, 2, ..
        (gradients,) = torch.autograd.grad(logprobs[[place - 1 for place in marked]].sum(), embedded)
        embedded, gradients = embedded[0].detach().float(), gradients[0].float()
        return {
            "tokens": self.model.tokens(ids),
            "grad_dot_input": (embedded * gradients).sum(-1).numpy(),
            "grad_l2": gradients.norm(dim=-1).numpy(),
        }


class WordsLeftOut(LIME):
    """LIT's LIME on the candidates alone: the model of the page would generate a text for each of its samples."""

    def __init__(self, candidates: Candidates):
        super().__init__(mask_token="", num_samples=LIME_SAMPLES, seed=0)
        self.candidates = candidates

    def run(
        self, inputs: list[lit.JsonDict], model: Model, *rest: object, **options: object
    ) -> list[lit.JsonDict] | None:
        """The salience of each word, whichever model the page asks about."""
        return super().run(inputs, self.candidates, *rest, **options)


def lit_dataset(examples: Sequence[Example]) -> Dataset:
    """The prompts, and the targets where there are any."""
    fields = ["prompt", "target"] if any(example["target"] for example in examples) else ["prompt"]
    rows = [{field: example[field] for field in fields} for example in examples]
    return Dataset({field: lit.TextSegment() for field in fields}, rows, description="the texts given to open_lit")


def lit_app(model: LanguageModel, name: str, dataset: Dataset, ids: Sequence[int]) -> LitApp:
    """LIT as a WSGI application. Nothing of it reads or writes a file that a visitor of the page names."""
    hidden = {f"_{name}_salience": Salience(model), f"_{name}_tokenizer": Tokenizer(model)}
    lime = WordsLeftOut(Candidates(model, ids))
    salience = {"Grad L2 Norm": GradientNorm(), "Grad ⋅ Input": GradientDotInput(), "LIME": lime}
    return LitApp(
        models={name: Prompts(model, ids)} | hidden, datasets={"prompts": dataset}, interpreters=salience,
        generators={"Word Replacer": WordReplacer()}, metrics={}, dataset_loaders={}, model_loaders={},
        layouts={"interp_kit": LAYOUT}, default_layout="interp_kit",
        demo_mode=True, client_root=str(CLIENT), page_title=f"LIT: {name}",
    )  # fmt: skip


def with_script(app: WSGIApplication, web_fonts: bool) -> WSGIApplication:
    """The application with our script in its page, and without the web's fonts unless they are asked for."""
    page = (CLIENT / "static" / "index.html").read_text(encoding="utf-8")
    page = page if web_fonts else local_page(page)
    script = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    ours = Response(page.replace("</body>", f"<script>\n{script}</script></body>"), mimetype="text/html")

    def serve(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        return ours(environ, start) if environ["PATH_INFO"] in ("", "/") else app(environ, start)

    return serve


def main(folder: Path) -> None:
    """Serves the model that the folder's configuration names, until the parent ends."""
    threading.Thread(target=_end_with_parent, args=[folder], daemon=True).start()
    config = read_json(folder / CONFIG)
    _say(folder, 1)
    model = load_model(Path(config["model"]), getattr(torch, config["dtype"]))
    if model.fingerprint != config["fingerprint"]:
        sys.exit(
            f"The model's weights in memory are not those in {config['model']!r}, which it was loaded from. Save it "
            "and its tokenizer to another folder with save_pretrained, and open LIT on load_model(that folder)."
        )
    _say(folder, 2)
    dataset = lit_dataset(config["examples"])
    app = lit_app(model, config["name"], dataset, config["candidates"])
    page = with_script(app, config["web_fonts"])
    closed = guarded(page, config["token"], config["proxied"], config["web_fonts"])
    server = make_server("127.0.0.1", config["port"], closed)  # one request at a time, as LIT itself serves
    _say(folder, 3, server.port, input_hash(dataset.examples[0]))
    server.serve_forever()


def _say(folder: Path, step: int, port: int | None = None, first: str | None = None) -> None:
    print(STEPS[step], flush=True)
    write_json({"step": step, "port": port, "first": first}, folder / STATUS, always)


def _end_with_parent(folder: Path) -> None:
    """Standard input ends when the parent does, however it does; then so do we, and our files."""
    os.read(sys.stdin.fileno(), 1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
