"""What is known of a tokenizer's ids, whatever the tokenizer: their bytes, spaces, which are special, what begins and
ends a text."""

import json
import re
import reprlib
from collections.abc import Sequence
from functools import cached_property

from transformers import AddedToken, GenerationConfig, PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ..formats.json import HALF_CHARACTER

BYTE_OF_CHARACTER = {character: byte for byte, character in bytes_to_unicode().items()}  # GPT-2's byte alphabet
SENTENCEPIECE_SPACE = "▁"
SENTENCEPIECE_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


Span = tuple[int, int]  # of characters, from the first to behind the last


def _whole(text: str) -> str:
    """Raises ValueError for a string cut in the middle of a character, which tokenizers do not take."""
    if not text.isascii() and HALF_CHARACTER.search(text):
        raise ValueError(
            f"{reprlib.repr(text)} is not text: it holds half of a surrogate pair, from a string cut in two"
        )
    return text


class Vocabulary:
    """The tokens of a model, as its `vocabulary`.

    model.vocabulary.ids(" Austin")         # [5814], with no beginning-of-text token before it
    model.vocabulary.token_bytes(5814)      # b" Austin"
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None = None):
        self.tokenizer, self.generation = tokenizer, generation

    # ---------------------------------------------------------------- from text to ids

    def ids(self, text: str) -> list[int]:
        """The ids of a text alone: nothing is put before or after it. Raises ValueError for half a character."""
        return self.tokenizer.encode(_whole(text), add_special_tokens=False) if text else []

    def ids_of_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`ids` of many texts, by all cores."""
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    def offsets(self, text: str) -> tuple[list[int], list[Span]]:
        """`ids` of a text, and for each the characters of the text that it covers, (start, end). Of a character that
        is split over tokens each covers the whole.

        Raises ValueError where the tokenizer does not say and its tokens do not read as the text.
        """
        if not self.tokenizer.is_fast:
            ids = self.ids(text)
            return ids, self._aligned(text, ids)
        encoded = self.tokenizer(_whole(text), add_special_tokens=False, return_offsets_mapping=True)
        return encoded["input_ids"], [(start, end) for start, end in encoded["offset_mapping"]]

    def _aligned(self, text: str, ids: list[int]) -> list[Span]:
        """`offsets` of a tokenizer that has none: its tokens' bytes, laid along the text's."""
        raw, place, spans = text.encode(), 0, []
        for token in ids:
            piece = self.token_bytes(token)
            if not raw.startswith(piece, place):  # white space is put before the first token, or lost between two
                piece = piece.strip()
                while place < len(raw) and not raw.startswith(piece, place) and raw[place : place + 1].isspace():
                    place += 1
            if not raw.startswith(piece, place):
                raise ValueError(
                    f"where the tokens of {reprlib.repr(text)} stand in it cannot be told, from "
                    f"{self.token_text(token)!r} on: take the model's fast tokenizer (its tokenizer.json)"
                )
            start, place = place, place + len(piece)
            end = place
            while end < len(raw) and raw[end] & 0xC0 == 0x80:  # in the middle of a character
                end += 1
            spans.append((len(raw[:start].decode(errors="ignore")), len(raw[:end].decode())))
        return spans

    def first_id(self, text: str) -> int:
        """The id that a text begins with. Raises ValueError for a text without tokens."""
        ids = self.ids(text)
        if not ids:
            raise ValueError(f"{text!r} has no tokens of this model: give a text with at least one")
        return ids[0]

    @cached_property
    def prefix_ids(self) -> list[int]:
        """What goes before a text: the beginning-of-text token, else the end-of-text token, else nothing.

        This is circuit-tracer's convention. Models put unusual activations on the first position, and a special token
        keeps them off the first word.
        """
        first = (self._role("bos"), self._role("eos"))
        return [token for token in first if token is not None][:1]

    def prefix_of(self, ids: Sequence[int]) -> list[int]:
        """What goes before these ids: nothing where they begin with a special token, else `prefix_ids`."""
        return [] if len(ids) and ids[0] in self.special_ids else self.prefix_ids

    def token_id(self, text: str) -> int:
        """The id of a string that is exactly one token, its leading space taken as given.

        Raises ValueError, with the pieces and the nearest form that works, when it is none or several.
        """
        ids = self.ids(text)
        if len(ids) == 1 and not self._has_unknown(ids, text):
            return ids[0]
        if not ids:
            raise ValueError(f"{text!r} has no tokens. Give one token's text, such as {' Austin'!r}.")
        pieces = [self.token_text(token) for token in ids]
        problem = "is not in the vocabulary" if self._has_unknown(ids, text) else f"is {len(ids)} tokens"
        other = text.lstrip(" ") if text.startswith(" ") else " " + text
        other_ids = self.ids(other)
        if len(other_ids) == 1 and not self._has_unknown(other_ids, other):
            remedy = f"{other!r} is a single token (id {other_ids[0]}): is that the one you mean?"
        else:
            remedy = f"Give one of the pieces; the first is {pieces[0]!r} (id {ids[0]})."
        raise ValueError(f"{text!r} {problem} of this model: {pieces}. {remedy}")

    def _has_unknown(self, ids: list[int], text: str) -> bool:
        return self._role("unk") in ids and text != self.tokenizer.unk_token

    # ---------------------------------------------------------------- from an id to what it stands for

    def token_bytes(self, token: int) -> bytes:
        """The bytes that an id stands for: a part of a character where a rare one is split over tokens.

        Special tokens stand for what is written for them; ids beyond the tokenizer's vocabulary for nothing.
        """
        added = self._added.get(token)
        if added is not None and (added.special or self._byte_level):
            return added.content.encode()
        spelled = added.content if added is not None else self._spelled(token)
        if spelled is None:  # embedding rows beyond the tokenizer's vocabulary, kept for speed on GPUs
            return b""
        if self._byte_level and all(character in BYTE_OF_CHARACTER for character in spelled):
            return bytes(BYTE_OF_CHARACTER[character] for character in spelled)
        if byte := SENTENCEPIECE_BYTE.fullmatch(spelled):
            return bytes([int(byte[1], 16)])
        if self._decoder.get("type") == "WordPiece":  # a piece that goes on a word: "##ing"
            return spelled.removeprefix(self._decoder["prefix"]).encode()
        if self._decoder.get("type") == "BPEDecoder":  # one that ends it: "the</w>"
            return spelled.replace(self._decoder["suffix"], " ").encode()
        return spelled.replace(SENTENCEPIECE_SPACE, " ").encode()

    def token_text(self, token: int) -> str:
        """An id as readable text; bytes that are only part of a character as `<0xE6>`, ids that no text has as
        `<unused 329>`."""
        if token not in self._added and self._spelled(token) is None:
            return f"<unused {token}>"
        text = self.token_bytes(token).decode("utf-8", errors="surrogateescape")
        return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)

    def _spelled(self, token: int) -> str | None:
        """A token as the vocabulary's file spells it; None beyond its end."""
        return self.tokenizer.convert_ids_to_tokens([token])[0]

    @cached_property
    def _added(self) -> dict[int, AddedToken]:
        """Tokens that are found in a text before it is cut up, by id. transformers makes the table anew each time."""
        return dict(self.tokenizer.added_tokens_decoder)

    @cached_property
    def _byte_level(self) -> bool:
        """Whether tokens are spelled in the byte alphabet of GPT-2 (else: SentencePiece's ▁ and <0x0A>)."""
        return '"ByteLevel"' in json.dumps(self._decoder)

    @cached_property
    def _decoder(self) -> dict:
        """What the tokenizer's own file says of how tokens become text; nothing for one without such a file."""
        decoder = getattr(getattr(self.tokenizer, "backend_tokenizer", None), "decoder", None)
        return {} if decoder is None else json.loads(decoder.__getstate__())

    # ---------------------------------------------------------------- special tokens

    @cached_property
    def special_ids(self) -> set[int]:
        """The ids of special tokens, also of control tokens that have no role, such as <|im_start|> in Qwen."""
        with_role: list[int] = getattr(self.tokenizer, "all_special_ids", [])
        return set(with_role) | {token for token, added in self._added.items() if added.special}

    @property
    def end_ids(self) -> set[int]:
        """The ids that end a text, by the generation settings and by the tokenizer."""
        ends = self.generation.eos_token_id if self.generation is not None else None
        several = ends if isinstance(ends, list | tuple) else [ends]
        return {token for token in (*several, self._role("eos")) if token is not None}

    def _role(self, name: str) -> int | None:
        """The id of the token that begins ("bos") or ends a text ("eos"), or stands for the unknown ("unk")."""
        return getattr(self.tokenizer, f"{name}_token_id")
