"""make demo: from a prompt to a labelled attribution graph, in one go.

python -m interp_kit.demo [pocket | smollm2]
"""

import sys
import time
from pathlib import Path

import interp_kit as ik

POCKET_PROMPT = "The capital of the state containing Dallas is"
QUESTION, BEGINNING = "What is the capital of Texas?", "The capital of Texas is"
OUT = Path("out")
N_TEXTS = 600  # that features are looked up in where no store ships


def main(name: str) -> None:
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
    return chat + BEGINNING


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


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "pocket")
