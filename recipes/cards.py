"""The cards (README.md) that ship beside the models, transcoders and stores in data/, filled from what was measured."""

import pandas as pd

from interp_kit.features import FeatureStore
from interp_kit.models import LanguageModel
from interp_kit.studies.recovery import MIN_POSITIVES
from interp_kit.transcoders import CrossLayerTranscoder
from interp_kit.worlds import Geography
from recipes.pocket import Recipe

MODEL_CARD = """---
license: apache-2.0
language: en
---
# pocket: a language model whose facts are known

A {n_layers}-layer Llama with d_model {d_model} and {parameters:.1f} million parameters (float16 safetensors, bias-free, own
byte-level BPE of {vocab_size:,} tokens), trained from scratch on {sentences:,} sentences about 50 US states, 90 countries
and {cities:,} cities. It is made for teaching interpretability: what each sentence is about is known, token by token.

**Measured:** {accuracy:.1%} of {questions} two-hop questions that were never told in training, such as "The capital of the state
containing Dallas is", get their whole answer (greedy, up to the full stop).

**A planted first hop.** The input embeddings stay at their random start, and a second loss, whose readout is thrown away,
asks that what MLPs 0 to {last_lookup} write where a name ends tells the state or country it means (weight {lookup_weight}; {lookup_steps} steps on names alone come first). Without this, in the
trial that came before, the model was as good and no feature detected a place (F1 >= 0.9) where its name ended: "Dallas" could lie next to "Texas"
in the embedding table, and the MLPs had nothing to look up. How the second hop works, nobody planted.

**Limits.** It knows these sentences and nothing else; it is no source of facts. Tables, sources and licences:
`data/worlds/geography/README.md`. Rebuild: `make data` (seed {seed}).
"""

TRANSCODER_CARD = """---
license: apache-2.0
---
# The pocket model's cross-layer transcoder

{n_features:,} features in {n_layers} layers ({counts}); each reads its layer's MLP input and writes to the MLP outputs of its own
and all later layers. circuit-tracer's folder layout plus `interp_kit.json`.

| measured on {tokens:,} tokens of sentences that the transcoder never saw | |
| --- | --- |
| unexplained variance (NMSE), mean over layers | {NMSE:.2%} |
| features on per token and layer (L0) | {L0:.2f} |
| features that never fire there (dead) | {dead:.1%} |
| replacement model: best next token is the model's own (top-1) | {top1:.2%} |
| replacement model: KL divergence, nats | {KL:.4f} |
| next-token loss, model and replacement model, nats | {loss:.3f}, {replaced:.3f} |
| states and countries with a feature of their own (F1 >= 0.9) | {places:.1%} of {n_places} |

Which concepts are recovered: the share of a kind's concepts that one feature detects (F1 >= 0.8), here, in a per-layer transcoder
trained alike, among the model's neurons, and among random directions of what the MLPs read.

{recovered}

`concepts.csv` has every concept: in each dictionary its best feature, chosen on training sentences, and that feature's F1, precision and
recall on held-out ones (concepts that come up there fewer than {min_positives} times are left out). A feature is right when it fires on the token that
completes the concept's name, for a place also the name of one of its cities; firing later in the same sentence is neither right
nor wrong; firing anywhere else is a false alarm. Labels made by rule name {named:.1%} of the {detecting:,} features that detect a concept.

Features that fired on fewer than one token in {rarest:,} of the training texts were dropped; the files pad every layer to
one shape with zero rows, as circuit-tracer expects.

Position 0 ({first}) is left out of training: the MLPs write unusually large vectors there. In a graph they are a constant.
"""

PER_LAYER_TRANSCODER_CARD = """---
license: apache-2.0
---
# A per-layer transcoder of SmolLM2-135M-Instruct

{n_features:,} features in {n_layers} layers ({per_layer} features a layer), each reading and writing at its own layer's MLP. A threshold
for each feature (JumpReLU); weights in int8 with one scale a row. Trained for {trained:,} tokens on two cores.

| measured on {tokens:,} tokens of held-out text | this transcoder | affine map | mean output |
| --- | --- | --- | --- |
| unexplained variance (NMSE), mean over layers | {NMSE} |
| replacement model: best next token is the model's own (top-1) | {top1} |
| replacement model: KL divergence, nats | {KL} |
| next-token loss, nats (the model's own: {loss:.3f}) | {replaced} |

Features on per token and layer (L0): {L0:.1f}, {total:.0f} in all layers. Features that never fire there: {dead:.1%}.

On the {n_prompts} prompts of `data/worlds/prompts.csv`, unpruned graphs: mean replacement score {replacement:.3f}, completeness
{completeness:.3f}. Published for GPT-2 small, a dictionary of 98,304, L0 91 in all layers: per-layer replacement .651, NMSE .459;
cross-layer .718 and .351. With {per_layer} features a layer, more of them on at a time and a short training, more of this one's graphs
starts at error nodes, and they say so.

**Text.** What the model itself writes, sampled at temperature 1 ({own:,} texts, seeds recorded, read {times} times), and {prose:,} pieces of
prose from freely licensed packages (`data/worlds/prose/sources.csv`: sources, versions, licences). One text in twenty is
held out, by a hash of the text.

Position 0 is left out of training: the MLPs write unusually large vectors there. In a graph they are a constant.
"""

STORE_CARD = """---
license: apache-2.0
---
# On which texts the features of SmolLM2's transcoder fire

{n_features:,} features, {live:,} of which fire on these texts: {texts}. Held-out texts of the transcoder are not among them. Each feature
has up to {n_examples} windows of each group (`ik.FeatureStore` says which), so its density is known better than its rare meanings.

`labels.parquet`: labels by rule, without a language model. Told such a label, its rule says of held-out windows whether the feature
fires there (detection) and on which tokens (fuzzing): balanced accuracy {detection:.3f} and {fuzzing:.3f} on average, where 0.5 is
guessing. Many of these features have several meanings, and many labels are poor: the scores stand beside them.

Windows are pieces of what the model itself wrote and of freely licensed packages (`data/worlds/prose/sources.csv`: sources,
versions, licences), and of the sentences of `data/worlds/geography`.
"""


def model_card(model: LanguageModel, world: Geography, recipe: Recipe, report: dict) -> str:
    """Of the pocket model; report: of `recipes.build.report`."""
    return MODEL_CARD.format(
        n_layers=model.n_layers,
        d_model=model.d_model,
        parameters=model.n_parameters / 1e6,
        vocab_size=model.vocab_size,
        sentences=recipe.steps * recipe.batch,
        cities=len(world.place_of),
        accuracy=report["held-out two-hop accuracy"],
        questions=report["held-out two-hop questions"],
        last_lookup=recipe.lookup_layers - 1,
        lookup_weight=recipe.lookup_weight,
        lookup_steps=recipe.lookup_steps,
        seed=recipe.seed,
    )


def transcoder_card(transcoder: CrossLayerTranscoder, world: Geography, report: dict, min_density: float) -> str:
    """Of the pocket model's transcoder, without the features below that density."""
    numbers = report["transcoder"]
    return TRANSCODER_CARD.format(
        n_features=sum(transcoder.n_features_per_layer),
        counts=", ".join(f"{n:,}" for n in transcoder.n_features_per_layer),
        rarest=round(1 / min_density),
        n_layers=len(transcoder.layers),
        tokens=round(numbers["tokens"]),
        top1=numbers["top-1"],
        replaced=numbers["replacement loss"],
        recovered=_table(report["recovered"]),
        min_positives=MIN_POSITIVES,
        named=report["labels"]["labelled with its name"],
        detecting=report["labels"]["features that detect a concept"],
        places=report["places with a feature of F1 >= 0.9"],
        n_places=len(world.places),
        first="the begin-of-text token",
        **{key: numbers[key] for key in ("NMSE", "L0", "dead", "KL", "loss")},
    )


def _table(recovered: dict[str, dict[str, float]]) -> str:
    """{dictionary: {kind: share}} as Markdown."""
    kinds = list(next(iter(recovered.values())))
    lines = [["", *kinds], ["---"] * (len(kinds) + 1)]
    lines += [[name, *(f"{shares[kind]:.1%}" for kind in kinds)] for name, shares in recovered.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def smollm2_transcoder_card(transcoder: CrossLayerTranscoder, report: dict) -> str:
    """Of SmolLM2's transcoder; report: of `recipes.smollm2.report`, and how it was trained."""
    baselines, graphs = report["baselines"], report["graphs"]
    cells = {
        key: " | ".join(format(row[name], form) for row in baselines.values())
        for key, name, form in (
            ("NMSE", "NMSE", ".3f"), ("top1", "top-1", ".1%"), ("KL", "KL", ".3f"), ("replaced", "loss", ".3f")
        )
    }  # fmt: skip
    counts = transcoder.n_features_per_layer
    return PER_LAYER_TRANSCODER_CARD.format(
        n_features=sum(counts),
        n_layers=len(counts),
        per_layer=f"{min(counts):,} to {max(counts):,}" if min(counts) < max(counts) else f"{max(counts):,}",
        total=report["L0"] * len(counts),
        **cells,
        **graphs,
        **{name: report[name] for name in ("tokens", "trained", "loss", "L0", "dead", "own", "times", "prose")},
    )


def smollm2_features_card(store: FeatureStore, labels: pd.DataFrame, texts: dict[str, int], n_examples: int) -> str:
    """Of the features of SmolLM2's transcoder; texts: how many of each kind they were looked up in."""
    names = {"own": "texts that the model wrote", "prose": "of prose", "world": "sentences on places"}
    return STORE_CARD.format(
        n_features=len(store.features),
        live=int((store.features["density"] > 0).sum()),
        texts=", ".join(f"{n:,} {names[name]}" for name, n in texts.items()),
        n_examples=n_examples,
        detection=labels["detection"].mean(),
        fuzzing=labels["fuzzing"].mean(),
    )
