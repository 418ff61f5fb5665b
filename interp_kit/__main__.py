"""The command line: python -m interp_kit demo [MODEL], or lit [MODEL] [PROMPT ...]."""

import argparse
import sys
import time
from pathlib import Path

import interp_kit as ik

POCKET_PROMPT = "The capital of the state containing Dallas is"
QUESTION, ANSWER_START = "What is the capital of Texas?", "The capital of Texas is"
OUT = Path("out")
N_TEXTS = 600  # that features are looked up in where no store ships
LIT_PROMPTS = ["The capital of Texas is", "The capital of the state containing Dallas is", "Dallas is a city in"]


def main(arguments: list[str] | None = None) -> None:
    """Runs one command; `arguments` are those of the command line, by default this process's own."""
    parser = argparse.ArgumentParser(prog="python -m interp_kit", description="See what a language model is thinking.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("demo", help="a prompt goes in, a labelled attribution graph comes out")
    one.add_argument("model", nargs="?", default="pocket", help="pocket, smollm2, a Hub id, a folder or a .gguf file")
    tool = commands.add_parser("lit", help="the Language Interpretability Tool; without a model, only install it")
    tool.add_argument("model", nargs="?")
    tool.add_argument("prompts", nargs="*", default=LIT_PROMPTS)
    given = parser.parse_args(arguments)
    try:
        if given.command == "demo":
            demo(given.model)
        else:
            lit(given.model, given.prompts)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(str(error))


# ---------------------------------------------------------------- demo


def demo(name: str) -> None:
    """From a prompt to a labelled attribution graph, in one go."""
    started = time.time()
    model = ik.load_model(name)
    say(f"{model}")
    prompt = prompt_for(model)
    say(f"\nPrompt: {prompt!r}\n\nWhat the model says next:")
    say(model.next_tokens(prompt, k=5)[["token", "probability"]].to_string(index=False, float_format="{:.3f}".format))
    transcoder, features, labels = reading_aids(model, name)
    graph = ik.attribute(model, transcoder, prompt).annotate(features, labels)
    describe(graph)
    path = OUT / f"{name}.html"
    graph.to_html(path)
    say(f"\nThe graph to click through: {path} (one file, opens in any browser; {time.time() - started:.0f} s in all)")
    say("To go on: make lab, and open 00_tour.ipynb")


def prompt_for(model) -> str:
    """A chat model is asked in its chat format, up to the word where its answer names the city."""
    if not model.tokenizer.chat_template:
        return POCKET_PROMPT
    chat = model.chat(QUESTION)
    say(f"Question: {QUESTION}\nIts answer: {model.complete(chat, max_new_tokens=24).strip()}")
    return chat + ANSWER_START


def reading_aids(model, name):
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


def describe(graph) -> None:
    say(f"\n{graph}")
    for name, value in graph.scores.items():
        say(f"  {name.replace('_', ' ')}: {value:.3f}")
    say("\nThe strongest path of each token through named features, the strongest tokens first:")
    for row in graph.prune().paths().head(6).itertuples():
        say(f"  {row.strength:.3f}  {'+' if row.sign > 0 else '-'}  {row.steps}")


def say(text: str) -> None:
    print(text, flush=True)


# ---------------------------------------------------------------- LIT


def lit(name: str | None, prompts: list[str]) -> None:
    """Installs the Language Interpretability Tool, or serves a model with it until Ctrl-C."""
    if name is None:
        from .lit.environment import make_lit_environment

        print(f"LIT is ready: {make_lit_environment()}")
        return
    with ik.lit.open_lit(ik.load_model(name), prompts) as server:
        print(f"LIT on {name}: {server.url}\nCtrl-C ends it.", flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
