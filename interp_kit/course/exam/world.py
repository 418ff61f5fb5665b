"""A world that nobody has written about, and a model that learns it: places with invented names, and their capitals."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ...models import LanguageModel
from ...transcoders import CrossLayerTranscoder, train_transcoder

CONSONANTS, VOWELS = "b d f g k l m n p r s t v z br dr gr kl pl st tr".split(), "a e i o u".split()
N_STATES, STATES_CITIES = 10, 5
STEPS, BATCH, LEARNING_RATE = 700, 64, 3e-3
N_FEATURES, K, TRANSCODER_STEPS = 160, 6, 500
SPECIAL = ["<bos>", "<eos>", "<pad>"]
QUESTION = "the capital of the land of {city} is"
SENTENCES = (
    "{city} is a city in {state}",
    "people of {city} live in {state}",
    "the capital of {state} is {capital}",
    "{capital} rules over {state}",
    QUESTION + " {capital}",
    "the land of {city} is {state}",
)


@dataclass(frozen=True)
class InventedWorld:
    """state_of: {city: state}. capital_of: {state: capital}."""

    state_of: dict[str, str]
    capital_of: dict[str, str]

    def sentences(self) -> list[str]:
        """All facts, in all their forms."""
        return sorted(
            form.format(city=city, state=state, capital=self.capital_of[state])
            for city, state in self.state_of.items()
            for form in SENTENCES
        )


def invent(seed: str, n_cities: int) -> InventedWorld:
    """A world of at least `n_cities` cities; another seed gives other names.

    >>> invent("spring", 30).state_of
    {'Dravo': 'Kletu', ...}
    """
    draw = random.Random(f"world {seed}")
    each = max(STATES_CITIES, -(-n_cities // N_STATES))
    names = _names(draw)
    states = [next(names) for _ in range(N_STATES)]
    capital_of = {state: next(names) for state in states}
    return InventedWorld({next(names): state for state in states for _ in range(each)}, capital_of)


def _names(draw: random.Random) -> Iterator[str]:
    seen: set[str] = set()
    while True:
        name = "".join(draw.choice(CONSONANTS) + draw.choice(VOWELS) for _ in range(draw.randint(2, 3))).capitalize()
        if name not in seen:
            seen.add(name)
            yield name


def learn(world: InventedWorld, seed: int) -> tuple[LanguageModel, CrossLayerTranscoder]:
    """A small Llama that knows the world by heart, and its cross-layer transcoder. A minute or two on one core."""
    texts = world.sentences()
    model = _train(texts, _tokenizer(texts), seed)
    run = train_transcoder(
        model, texts, N_FEATURES, k=K, steps=TRANSCODER_STEPS, batch=512, dtype=torch.float32, seed=seed
    )
    return model, run.transcoder


def save_model(model: LanguageModel, folder: Path) -> None:
    """What `ik.load_model(folder)` reads."""
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A token a word, as the invented names are."""
    words = sorted({word for text in texts for word in text.split()})
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*SPECIAL, *words])}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def _train(texts: list[str], tokenizer: PreTrainedTokenizerFast, seed: int) -> LanguageModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=32, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    model, draw = LlamaForCausalLM(config), random.Random(seed)
    ids = [[0, *tokenizer.encode(text, add_special_tokens=False), 1] for text in texts]
    longest = max(map(len, ids))
    rows = torch.tensor([row + [2] * (longest - len(row)) for row in ids])
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, STEPS)
    for _ in tqdm(range(STEPS), desc="learning the world", unit="step"):
        batch = rows[draw.sample(range(len(rows)), min(BATCH, len(rows)))]
        loss = model(batch, labels=batch.where(batch != 2, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return LanguageModel(model.eval().requires_grad_(False), tokenizer, "exam")
