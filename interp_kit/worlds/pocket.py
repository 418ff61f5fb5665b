"""The pocket model: a small Llama trained from scratch on a world's sentences.

    python -m interp_kit.worlds.pocket      trains into data/pocket (about 25 minutes on two cores)

Batch `i` is a function of (seed, i) alone and the checkpoint holds weights, optimizer and step, so a
killed run goes on where it stopped and ends with the weights it would have had.
"""

import random
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..files import atomic_folder, data_folder
from ..checkpoint import load_checkpoint, save_checkpoint

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
    steps: int = 4500
    batch: int = 64  # sentences a step
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warmup: int = 100
    seed: int = 0


def train_tokenizer(world, recipe: Recipe) -> PreTrainedTokenizerFast:
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


def batch_of(world, tokenizer, recipe: Recipe, step: int) -> torch.Tensor:
    """Token ids [sentence, position]: BOS, the sentence, EOS, padding.

    Sixteen batches' worth of sentences is sorted by length first, so that a batch holds little padding.
    """
    block, inside = divmod(step, 16)
    rng = random.Random(f"pocket-{recipe.seed}-{block}")
    texts = [world.sentence(rng).text for _ in range(16 * recipe.batch)]
    rows = sorted(tokenizer(texts, add_special_tokens=False)["input_ids"], key=len)
    order = rng.sample(range(16), 16)
    rows = rows[order[inside] * recipe.batch :][: recipe.batch]
    width = 2 + max(map(len, rows))
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    for i, row in enumerate(rows):
        ids[i, : len(row) + 2] = torch.tensor([tokenizer.bos_token_id, *row, tokenizer.eos_token_id])
    return ids


def new_model(tokenizer, recipe: Recipe) -> LlamaForCausalLM:
    torch.manual_seed(recipe.seed)
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
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def rate(step: int, recipe: Recipe) -> float:
    """Warm-up, then a straight line down to zero."""
    return recipe.learning_rate * min((step + 1) / recipe.warmup, 1 - step / recipe.steps)


def train_pocket(world, folder: Path, recipe: Recipe, checkpoint: Path, every: int = 250) -> None:
    """Trains and writes a Hugging Face model folder (float16 safetensors) to `folder`."""
    tokenizer = train_tokenizer(world, recipe)
    model = new_model(tokenizer, recipe)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    start, _ = load_checkpoint(checkpoint, model, optimizer)
    bar = tqdm(range(start, recipe.steps), initial=start, total=recipe.steps, desc="pocket model", mininterval=5)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = rate(step, recipe)
        ids = batch_of(world, tokenizer, recipe, step)
        labels = ids.masked_fill(ids == tokenizer.pad_token_id, -100)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % every == 0:
            save_checkpoint(checkpoint, model, optimizer, step + 1)
    with atomic_folder(folder) as temporary:
        model.half().save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def two_hop_accuracy(model, questions, batch: int = 256) -> list[bool]:
    """Whether the greedy continuation of each question is its whole answer followed by a full stop.

    One forward pass a batch: every token of "answer." must be the argmax given the true ones before it,
    which is the same as greedy decoding giving exactly that text.
    """
    tokenizer, right = model.tokenizer, []
    encode = lambda s: tokenizer(s, add_special_tokens=False)["input_ids"]  # noqa: E731
    for i in range(0, len(questions), batch):
        some = questions[i : i + batch]
        rows = [(encode(q.prompt), encode(f"{q.prompt} {q.answer}.")) for q in some]
        width = 1 + max(len(whole) for _, whole in rows)
        ids = torch.full((len(rows), width), tokenizer.pad_token_id)
        for row, (_, whole) in zip(ids, rows, strict=True):
            row[: len(whole) + 1] = torch.tensor([tokenizer.bos_token_id, *whole])
        with torch.no_grad():
            best = model.hf(input_ids=ids).logits.argmax(-1)
        for row, guess, (prompt, whole) in zip(ids, best, rows, strict=True):
            ask = slice(len(prompt), len(whole))  # position len(prompt) predicts the answer's first token
            right.append(bool((guess[ask] == row[len(prompt) + 1 : len(whole) + 1]).all()))
    return right


if __name__ == "__main__":
    from . import load_world

    target = Path(sys.argv[1]) if len(sys.argv) > 1 else data_folder() / "pocket"
    train_pocket(load_world("geography"), target, Recipe(), Path("build") / "pocket")
