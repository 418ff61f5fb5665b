"""A causal language model and its tokenizer, with the few verbs a notebook needs."""

import hashlib
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from html import escape

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import TypeIs  # of typing from Python 3.13

from ..formats.provenance import About
from ..storage.reading import in_short
from ..widgets.plain_text import literal, printable
from .cache import keeps_cache, new_cache, read_on
from .precision import at_least_float32
from .vocabulary import Vocabulary

# The facts that go into a fingerprint. Floats (norm epsilon, RoPE base) stay out: a round trip through
# float32 in a GGUF header changes their last digits, and the weights tell models apart already.
FINGERPRINT_FIELDS = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads",
)  # fmt: skip
FINGERPRINT_SAMPLES = 32  # weights read from each parameter

Ids = torch.Tensor | np.ndarray | Sequence[int] | int  # token ids in any form
Messages = Sequence[Mapping[str, str]]  # of a chat: [{"role": "user", "content": "Why?"}]
Prompt = str | Ids | Messages  # what `prompt=` takes


class LanguageModel:
    """A decoder-only language model: `.hf` (the transformers model) and `.tokenizer`.

    Usually made by `interp_kit.load_model`. The model is put in evaluation mode, its parameters no
    longer ask for gradients, and its attention is set to transformers' "eager" implementation: with
    "sdpa" (the default) `output_attentions=True` returns nothing in transformers 5.

    Attributes:
        hf: the `transformers.PreTrainedModel`.
        tokenizer: the `transformers` tokenizer.
        vocabulary: what is known of its ids: a `Vocabulary`.
        name: what the model was loaded as, for display.
        family: the architecture, such as "llama" or "gpt2".
        n_layers, d_model, vocab_size: whole numbers; `vocab_size` is the length of a logit vector.
        context_length: the most tokens a prompt may have, or None where the architecture has no limit.
        n_parameters: weights, with tied ones counted once.
    """

    def __init__(self, hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str):
        self.hf = hf.eval().requires_grad_(False)
        self.hf.set_attn_implementation("eager")
        self.tokenizer, self.name = tokenizer, str(name)
        self.vocabulary = Vocabulary(tokenizer, getattr(hf, "generation_config", None))
        config = hf.config.get_text_config()  # the decoder's part, where a config also describes images
        self.family = hf.config.model_type
        self.n_layers, self.d_model, self.vocab_size = config.num_hidden_layers, config.hidden_size, config.vocab_size
        self.context_length = getattr(config, "max_position_embeddings", None)
        self.n_parameters = sum(parameter.numel() for parameter in hf.parameters())

    @property
    def device(self) -> torch.device:
        """The `torch.device` of the weights."""
        return self.hf.device

    @property
    def dtype(self) -> torch.dtype:
        """The `torch.dtype` of the weights and of the logits."""
        return self.hf.dtype

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that tell whether a transcoder was made for this model.

        A hash of the architecture's sizes and of up to 32 evenly spaced weights of every parameter,
        rounded to float16. So it is the same in every load of the same folder, for weights stored as
        float16 and loaded as float16, float32 or float64, and for float32 weights loaded as float32
        or float64. Where `load_model` rounds further (bfloat16), it takes it of the stored weights. A
        quantized copy of a model (the GGUF of "smollm2") has its own fingerprint: its weights differ,
        and so do its activations.
        """
        config = self.hf.config.get_text_config()
        sizes = [getattr(config, key, None) for key in FINGERPRINT_FIELDS]
        digest = hashlib.sha256(json.dumps(sizes).encode())
        for name, parameter in sorted(self.hf.named_parameters()):
            flat = parameter.detach().reshape(-1)
            stride = max(1, flat.numel() // FINGERPRINT_SAMPLES)
            sample = flat[::stride][:FINGERPRINT_SAMPLES].cpu().to(torch.float16)
            digest.update(f"{name}{tuple(parameter.shape)}".encode() + sample.numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def about(self) -> About:
        """Its name and fingerprint, which what is made with it keeps."""
        return About(model=self.name, fingerprint=self.fingerprint)

    # ---------------------------------------------------------------- text and tokens

    def encode(self, text: str) -> torch.Tensor:
        """The ids a forward pass reads: `LongTensor [position]`, on the model's device.

        A prompt that does not begin with a special token gets `prefix_ids` put before it. Control tokens
        written in the text, such as `<|im_start|>`, are recognised as such.

        Raises TypeError for anything but a string, ValueError for an empty prompt or one that is
        longer than the context.
        """
        _require_text(text, "a prompt")
        ids = self.vocabulary.ids(text)
        if not ids:
            raise ValueError(f"The prompt {text!r} has no tokens. Give at least one word.")
        return self._checked(self.vocabulary.prefix_of(ids) + ids)

    def decode(self, ids: Ids) -> str:
        """The text of ids (a tensor `[position]`, a list or one id); special tokens as they are written.

        `decode(encode(text))` is the text after the special token that `encode` put first.
        """
        ids = self._id_tensor(ids).tolist()
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def tokens(self, ids_or_text: str | Ids) -> list[str]:
        """What each position holds, as readable text: a list of strings, one for each position.

        Leading spaces are kept and special tokens appear as they are written. Bytes that are only
        part of a character (a rare script split over tokens) are shown as `<0xE6>`. A text is encoded
        first, so that the list lines up with `encode`, `logits` and a graph's positions.
        """
        ids = self.encode(ids_or_text) if isinstance(ids_or_text, str) else self._id_tensor(ids_or_text)
        return [self.vocabulary.token_text(token) for token in ids.tolist()]

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token id stands for: a part of a character where a rare one is split over tokens.

        Special tokens stand for what is written for them.
        """
        return self.vocabulary.token_bytes(token)

    def token_id(self, text: str) -> int:
        """The id of a string that is exactly one token, its leading space taken as given.

        Raises TypeError for anything but a string; ValueError, with the pieces and the nearest form
        that works, when the string is none or several tokens.
        """
        _require_text(text, "a token")
        return self.vocabulary.token_id(text)

    @property
    def prefix_ids(self) -> list[int]:
        """The ids that `encode` puts before a text, one or none: see `Vocabulary.prefix_ids`."""
        return list(self.vocabulary.prefix_ids)

    @property
    def special_ids(self) -> set[int]:
        """The ids of special tokens, with or without a role."""
        return self.vocabulary.special_ids

    @property
    def end_ids(self) -> set[int]:
        """The ids that end a text, by the generation settings and by the tokenizer."""
        return self.vocabulary.end_ids

    def chat(self, question: str | Messages, system: str | None = None) -> str:
        """The prompt string that asks `question` in the model's chat format, up to its own turn.

        `question` is a text, or messages, each with a role and a content; where the last one is the assistant's,
        the prompt ends with it, and the model goes on. `system` is the system message; without one the format's own
        default applies.

        Raises TypeError for anything but texts; ValueError when the model has no chat format, or
        one without system messages, and for messages that it refuses.

        >>> model.chat([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because"}])
        """
        messages = [{"role": "user", "content": question}] if not is_messages(question) else [*map(dict, question)]
        for message in messages:
            _require_text(message.get("role"), "a message's role")
            _require_text(message.get("content"), "a question" if isinstance(question, str) else "a message's content")
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"{self.name!r} has no chat format: its tokenizer carries no chat template. Write the prompt "
                "as plain text to be continued, or load a model tuned for chat, such as 'smollm2'."
            )
        if system is not None:
            _require_text(system, "a system message")
            messages.insert(0, {"role": "system", "content": system})
        goes_on = messages[-1]["role"] == "assistant"
        try:
            prompt = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=not goes_on, continue_final_message=goes_on, tokenize=False
            )
            return str(prompt)
        except Exception as error:  # a template is a program, which may end in any way
            raise ValueError(f"The chat format of {self.name!r} refused these messages: {in_short(error)}") from error

    # ---------------------------------------------------------------- predictions

    def logits(self, prompt: Prompt) -> torch.Tensor:
        """What the model says comes next at each position: `FloatTensor [position, vocab]`.

        Row `p` scores the token after position `p`; the last row, the token after the prompt. Takes a
        string (encoded as `encode` does), messages of a chat, or ids `[position]` (taken as they are). No gradients.

        Raises TypeError and ValueError as `encode` does, and ValueError for ids outside the vocabulary.
        """
        with torch.no_grad():
            return self.hf(input_ids=self.input_ids(prompt)[None], use_cache=False).logits[0]

    def next_tokens(self, prompt: Prompt, k: int = 10) -> pd.DataFrame:
        """The `k` likeliest next tokens: a DataFrame, likeliest first.

        The index, named "id", is the token's id; the columns are `token` (readable text),
        `probability` (0 to 1, over the whole vocabulary) and `logprob` (natural logarithm). Ties are
        in the order of ids. A `k` above the vocabulary's size gives the whole vocabulary.

        Raises ValueError for a `k` below 1, TypeError and ValueError as `logits` does.
        """
        _require_count(k, "k")
        last = self.logits(prompt)[-1]
        logprobs = torch.log_softmax(at_least_float32(last), dim=-1)
        logprobs, ids = (x[:k].cpu() for x in torch.sort(logprobs, descending=True, stable=True))
        columns = {"token": self.tokens(ids), "probability": logprobs.exp().numpy(), "logprob": logprobs.numpy()}
        return pd.DataFrame(columns, index=pd.Index(ids.numpy(), name="id"))

    def complete(self, prompt: Prompt, max_new_tokens: int = 20, stop: str | None = None) -> str:
        """The model's greedy continuation of a prompt (a string or ids): only the new text.

        Always the likeliest token, so the same prompt gives the same text. Ends after
        `max_new_tokens`, at the model's end-of-text token, where the context is full, or where the
        string `stop` appears; neither the end-of-text token nor `stop` is in the result.

        Raises ValueError for `max_new_tokens` below 1 or an empty `stop`, TypeError and ValueError as
        `logits` does.
        """
        _require_count(max_new_tokens, "max_new_tokens")
        if stop is not None:
            _require_text(stop, "`stop`")
            if not stop:
                raise ValueError("`stop` is empty, and every text contains that. Give a string, or None.")
        prompt_ids = self.input_ids(prompt)
        new, text = [], ""
        for token in self.greedy(prompt_ids, max_new_tokens):
            new.append(token)
            text = self.continuation(prompt_ids, new)
            if stop is not None and stop in text:
                return text.partition(stop)[0]
        return text

    @torch.no_grad()
    def greedy(self, ids: torch.Tensor, most: int) -> Iterator[int]:
        """Yield up to `most` likeliest next ids after ids `[position]`, one forward pass each, keys and values kept
        where the family keeps them."""
        room = most if self.context_length is None else min(most, self.context_length - len(ids) + 1)
        step, cache = ids[None], new_cache(self.hf) if keeps_cache(self.hf) else None
        for _ in range(room):
            new = read_on(self.hf, step, cache)[:, -1:].argmax(-1)
            token = int(new)
            if token in self.end_ids:
                return
            yield token
            step = torch.cat([step, new], 1) if cache is None else new

    def continuation(self, prompt_ids: torch.Tensor, new: list[int]) -> str:
        """The text of new ids (a list) after a prompt's `LongTensor [position]`.

        Decoded together with the prompt: SentencePiece decoders drop the leading space of what they get.
        """
        before, both = self.decode(prompt_ids), self.decode(prompt_ids.tolist() + new)
        return both[len(before) :] if both.startswith(before) else self.decode(new)

    # ---------------------------------------------------------------- checks and lookups

    def _id_tensor(self, ids: Ids) -> torch.Tensor:
        """Ids in any form -> LongTensor [position] on the model's device, each in the vocabulary."""
        try:
            tensor = torch.as_tensor(ids)
        except (TypeError, ValueError, RuntimeError, OverflowError):  # torch's own words are about arrays
            said = reprlib.repr(ids)
            raise TypeError(
                f"Expected one prompt, as a string or as the ids of its tokens; got the {type(ids).__name__} {said}. "
                "Ask about several prompts one by one."
            ) from None
        if tensor.numel() == 0:
            tensor = tensor.long()  # an empty list becomes a float tensor
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
            raise TypeError(f"Token ids are whole numbers; got {tensor.dtype}.")
        if tensor.dim() > 1:
            raise ValueError(f"Give the ids of one prompt, shape [position]; got shape {list(tensor.shape)}.")
        tensor = tensor.reshape(-1).to(self.device, torch.long)
        last = self.vocab_size - 1
        outside = tensor[(tensor < 0) | (tensor > last)]
        if len(outside):
            raise ValueError(f"Token id {outside[0].item()} is not in the vocabulary: ids run from 0 to {last}.")
        return tensor

    def _checked(self, ids: Ids) -> torch.Tensor:
        ids = self._id_tensor(ids)
        if len(ids) == 0:
            raise ValueError("The prompt has no tokens. Give at least one id.")
        if self.context_length is not None and len(ids) > self.context_length:
            raise ValueError(
                f"The prompt has {len(ids)} tokens, but {self.name!r} reads at most {self.context_length}. "
                "Shorten the prompt."
            )
        return ids

    def input_ids(self, prompt: Prompt) -> torch.Tensor:
        """`LongTensor [position]` of a text, encoded; of messages, in the chat format (see `chat`); or of ids in any
        form, which are checked."""
        text = self.chat(prompt) if is_messages(prompt) else prompt
        return self.encode(text) if isinstance(text, str) else self._checked(text)

    def text_of(self, prompt: Prompt) -> str:
        """A prompt as it is read: the text itself, messages in the chat format, ids decoded."""
        if isinstance(prompt, str):
            return prompt
        return self.chat(prompt) if is_messages(prompt) else self.decode(self.input_ids(prompt))

    # ---------------------------------------------------------------- display

    def __repr__(self) -> str:
        sizes = f"{self.n_layers} layers, d_model {self.d_model}, {self.n_parameters:,} parameters"
        return printable(f"LanguageModel({self.name!r}: {self.family}, {sizes})")

    def _repr_html_(self) -> str:
        facts = {
            "model": self.name, "family": self.family, "layers": self.n_layers, "d_model": self.d_model,
            "vocabulary": f"{self.vocab_size:,} tokens", "parameters": f"{self.n_parameters:,}",
        }  # fmt: skip
        rows = (f"<tr><th scope='row'>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in facts.items())
        return literal(f"<table>{''.join(rows)}</table>")


def is_messages(prompt: Prompt) -> TypeIs[Messages]:
    """Whether a prompt is the messages of a chat."""
    if isinstance(prompt, str) or not isinstance(prompt, Sequence):
        return False
    return len(prompt) > 0 and all(isinstance(message, Mapping) for message in prompt)


def _require_text(value: object, what: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"Expected {what} as a string; got {type(value).__name__}.")


def _require_count(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` must be a whole number of at least 1; got {value!r}.")
