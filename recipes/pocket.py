"""The pocket model: a small Llama trained from scratch on a world's sentences, its first hop planted.

    python -m recipes.pocket [folder]     trains into data/pocket, or the folder (about 17 minutes on two cores)

A model this small would rather keep "Dallas" next to "Texas" in its embedding table and leave its MLPs little to do.
Large models look such facts up in their early MLPs, and that is what a lesson should show. So the input embeddings stay
random, and a second loss asks that what the first two MLPs write where a name ends tells which state or country it
means. How that is done, and all that follows from it, is the model's own; where it happens is known truth.

Batch `i` is a function of (seed, i) alone and the checkpoint holds weights, optimizer and step, so a
killed run goes on where it stopped and ends with the weights it would have had.
"""

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from interp_kit.storage.checkpoint import load_checkpoint, save_checkpoint
from interp_kit.storage.folders import saved_folder
from interp_kit.storage.shipped import data_folder
from interp_kit.worlds import Geography, Sentence, load_world, token_concepts

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"


@dataclass
class Recipe:
    """What the pocket model is and how it is trained."""

    vocab_size: int = 5120
    d_model: int = 192
    d_mlp: int = 512
    n_layers: int = 6
    n_heads: int = 6
    context: int = 64
    embedding_std: float = 0.2  # of the input embeddings, which are never trained
    steps: int = 3500
    batch: int = 64  # sentences a step
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warmup: int = 100
    lookup_layers: int = 2  # the MLPs, from the first on, that must tell the place where a name ends
    lookup_steps: int = 80  # steps on names alone before the sentences, all names in each
    lookup_weight: float = 0.3
    seed: int = 0


def train_tokenizer(world: Geography, recipe: Recipe) -> PreTrainedTokenizerFast:
    """Byte-level BPE from the world's own sentences; a name gets the same token at the start of a sentence."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(f"tokenizer-{recipe.seed}")
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((world.sentence(rng).text for _ in range(60_000)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD)


def special_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int, int]:
    """The ids of BOS, EOS and PAD, which `train_tokenizer` gave it."""
    ids = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    return cast("tuple[int, int, int]", ids)


@dataclass
class Batch:
    """ids [sentence, position]: BOS, the sentence, EOS, padding. places [sentence, position]: the number of the state
    or country that a name ending there means; -1 elsewhere."""

    ids: torch.Tensor
    places: torch.Tensor


def batch_of(world: Geography, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, step: int) -> Batch:
    """Sixteen batches' worth of sentences is sorted by length first, so that a batch holds little padding."""
    block, inside = divmod(step, 16)
    rng = random.Random(f"pocket-{recipe.seed}-{block}")
    sentences = [world.sentence(rng) for _ in range(16 * recipe.batch)]
    sentences.sort(key=lambda s: len(s.text))
    first = rng.sample(range(16), 16)[inside] * recipe.batch
    return encode_batch(world, tokenizer, sentences[first : first + recipe.batch])


def encode_batch(world: Geography, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sentence]) -> Batch:
    """The sentences as they are, padded."""
    number = {f"place:{place}": i for i, place in enumerate(world.places)}
    rows = [token_concepts(sentence, tokenizer) for sentence in sentences]
    width = 2 + max(len(row) for row, _ in rows)
    bos, eos, pad = special_ids(tokenizer)
    ids = torch.full((len(rows), width), pad)
    places = torch.full((len(rows), width), -1)
    for i, (row, concepts) in enumerate(rows):
        ids[i, : len(row) + 2] = torch.tensor([bos, *row, eos])
        named = [next((number[c] for c in cs if c in number), -1) for cs in concepts]
        places[i, 1 : len(row) + 1] = torch.tensor(named)
    return Batch(ids, places)


def all_names(world: Geography, tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Every city, state and country by itself."""
    places = {**world.place_of, **{place: place for place in world.places}}
    sentences = [Sentence(name, ((0, len(name), (f"place:{place}",)),)) for name, place in places.items()]
    return encode_batch(world, tokenizer, sentences)


def new_model(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> LlamaForCausalLM:
    """A random Llama whose input embeddings will not be trained."""
    bos, eos, pad = special_ids(tokenizer)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.d_model,
        intermediate_size=recipe.d_mlp,
        num_hidden_layers=recipe.n_layers,
        num_attention_heads=recipe.n_heads,
        num_key_value_heads=recipe.n_heads,
        max_position_embeddings=recipe.context,
        initializer_range=0.04,
        tie_word_embeddings=False,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
    )
    model = LlamaForCausalLM(config)
    embedding = model.model.embed_tokens.weight.requires_grad_(False)
    torch.nn.init.normal_(embedding, std=recipe.embedding_std)
    return model


class Lookup(torch.nn.Module):
    """Reads the place off what the first MLPs write; thrown away after training."""

    def __init__(self, model: LlamaForCausalLM, recipe: Recipe, n_places: int) -> None:
        super().__init__()
        self.readout = torch.nn.Linear(recipe.d_model, n_places, bias=False)
        self.written: list[torch.Tensor] = []
        for block in model.model.layers[: recipe.lookup_layers]:
            block.get_submodule("mlp").register_forward_hook(self._keep)

    def _keep(self, _: torch.nn.Module, args: tuple, out: torch.Tensor) -> None:
        self.written.append(out)

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """The loss of the forward pass just made, over the positions where a name ends."""
        written, here = cast("torch.Tensor", sum(self.written)), places >= 0
        self.written.clear()
        return torch.nn.functional.cross_entropy(self.readout(written[here]), places[here])


def rate(step: int, recipe: Recipe) -> float:
    """Warm-up, then a straight line down to zero."""
    return recipe.learning_rate * min((step + 1) / recipe.warmup, 1 - step / recipe.steps)


def train_pocket(world: Geography, folder: Path, recipe: Recipe, checkpoint: Path, every: int = 250) -> None:
    """Trains and writes a Hugging Face model folder (float16 safetensors) to `folder`."""
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(world, recipe)
    model, (_, _, pad) = new_model(tokenizer, recipe), special_ids(tokenizer)
    lookup = Lookup(model, recipe, len(world.places))
    both = torch.nn.ModuleDict({"model": model, "lookup": lookup})
    trained = [p for p in both.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)

    def update(loss: torch.Tensor) -> None:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    start, _ = load_checkpoint(checkpoint, both, optimizer, last=recipe.steps)
    if start == 0:
        learn_names(world, tokenizer, model, lookup, recipe, update)
    bar = tqdm(range(start, recipe.steps), initial=start, total=recipe.steps, desc="pocket model", mininterval=5)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = rate(step, recipe)
        batch = batch_of(world, tokenizer, recipe, step)
        labels = batch.ids.masked_fill(batch.ids == pad, -100)
        loss, missed = model(input_ids=batch.ids, labels=labels).loss, lookup(batch.places)
        update(loss + recipe.lookup_weight * missed)
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}", lookup=f"{missed.item():.3f}")
        if (step + 1) % every == 0:
            save_checkpoint(checkpoint, both, optimizer, step + 1)
    with saved_folder(folder) as stage:
        model.half().save_pretrained(stage)
        tokenizer.save_pretrained(stage)


def learn_names(
    world: Geography,
    tokenizer: PreTrainedTokenizerBase,
    model: LlamaForCausalLM,
    lookup: Lookup,
    recipe: Recipe,
    update: Callable[[torch.Tensor], None],
) -> None:
    """The first MLPs alone, on every name by itself: which state or country does it mean?"""
    names, layers = all_names(world, tokenizer), model.model.layers
    model.model.layers = layers[: recipe.lookup_layers]
    bar = tqdm(range(recipe.lookup_steps), desc="names", mininterval=5)
    for _ in bar:
        model.model(input_ids=names.ids, use_cache=False)
        missed = lookup(names.places)
        update(missed)
        bar.set_postfix(lookup=f"{missed.item():.3f}")
    model.model.layers = layers


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else data_folder() / "pocket"
    train_pocket(load_world("geography"), target, Recipe(), Path("build") / "pocket")
