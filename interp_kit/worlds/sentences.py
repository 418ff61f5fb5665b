"""A sentence that knows what it is about.

`fill("The capital of {p} is {a}.", p=Slot("Texas", ("place:Texas",)), a=Slot("Austin", ("answer:capital=Austin",)))`
gives the text and, for every slot, where it stands and which concepts it carries. `token_concepts` carries that
knowledge over to a tokenizer's tokens, so that a feature can be graded token by token.

A concept is a string "kind:name": place:Texas, relation:capital, answer:capital=Austin. The kinds are yours to choose.
"""

from dataclasses import dataclass
from string import Formatter

from transformers import PreTrainedTokenizerBase

from ..models import Vocabulary


@dataclass(frozen=True)
class Slot:
    """What is put into a template, and the concepts ("kind:name") that it names."""

    text: str
    concepts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sentence:
    """A text, and where its concepts stand.

    spans: (start, end, concepts), start and end in characters of `text`; in order.
    """

    text: str
    spans: tuple[tuple[int, int, tuple[str, ...]], ...] = ()


def fill(template: str, **slots: Slot) -> Sentence:
    """The template with a slot in place of each {name}. Raises KeyError for a name without a slot.

    >>> fill("{a} is a city.", a=Slot("Dallas", ("city:Dallas", "place:Texas")))
    Sentence(text='Dallas is a city.', spans=((0, 6, ('city:Dallas', 'place:Texas')),))
    """
    text, spans = "", []
    for literal, name, _, _ in Formatter().parse(template):
        text += literal
        if name is not None and name not in slots:
            raise KeyError(f"the template {template!r} has {{{name}}}, and no slot is given for it")
        if name is not None:
            slot = slots[name]
            spans.append((len(text), len(text) + len(slot.text), slot.concepts))
            text += slot.text
    return Sentence(text, tuple(spans))


def token_concepts(sentence: Sentence, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[frozenset[str]]]:
    """Token ids of the sentence (no special tokens) and, per token, the concepts it *completes*.

    A concept is known once its last character is read, so it belongs to the token that holds that character:
    "Salt Lake City" names Utah at "City", not before.

    Raises ValueError where no token holds that character, such as a space that the tokenizer drops.

    >>> ids, concepts = ik.worlds.token_concepts(sentence, model.tokenizer)
    """
    ids, spans = Vocabulary(tokenizer).offsets(sentence.text)
    concepts = [set() for _ in ids]
    for _, end, names in sentence.spans:
        holds = [i for i, (a, b) in enumerate(spans) if a < end <= b]
        if not holds:
            raise ValueError(f"no token holds the last character of {sentence.text[:end]!r} in {sentence.text!r}")
        concepts[holds[-1]].update(names)  # of a character that is split over tokens the last completes it
    return ids, [frozenset(c) for c in concepts]
