"""A causal language model and its tokenizer, with the few verbs a notebook needs."""

import hashlib
import html
import json
import re
from functools import cached_property

import pandas as pd
import torch
from jinja2 import TemplateError
from transformers.convert_slow_tokenizer import bytes_to_unicode

# The facts that go into a fingerprint. Floats (norm epsilon, RoPE base) stay out: a round trip through
# float32 in a GGUF header changes their last digits, and the weights tell models apart already.
_FINGERPRINT_CONFIG = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads",
)  # fmt: skip
_FINGERPRINT_SAMPLES = 32  # weights read from each parameter

_BYTE_OF = {character: byte for byte, character in bytes_to_unicode().items()}


class LanguageModel:
    """A decoder-only language model: `.hf` (the transformers model) and `.tokenizer`.

    Usually made by `interp_kit.load_model`. The model is put in evaluation mode, its parameters no
    longer ask for gradients, and its attention is set to transformers' "eager" implementation: with
    "sdpa" (the default) `output_attentions=True` returns nothing in transformers 5.

    Attributes:
        hf: the `transformers.PreTrainedModel`.
        tokenizer: the `transformers` tokenizer.
        name: what the model was loaded as, for display.
        family: the architecture, such as "llama" or "gpt2".
        n_layers, d_model, vocab_size: whole numbers; `vocab_size` is the length of a logit vector.
        context_length: the most tokens a prompt may have, or None where the architecture has no limit.
        n_parameters: weights, with tied ones counted once.
    """

    def __init__(self, hf, tokenizer, name):
        self.hf = hf.eval().requires_grad_(False)
        self.hf.set_attn_implementation("eager")
        self.tokenizer = tokenizer
        self.name = str(name)
        config = hf.config.get_text_config()  # the decoder's part, where a config also describes images
        self.family = hf.config.model_type
        self.n_layers = config.num_hidden_layers
        self.d_model = config.hidden_size
        self.vocab_size = config.vocab_size
        self.context_length = getattr(config, "max_position_embeddings", None)
        self.n_parameters = sum(parameter.numel() for parameter in hf.parameters())

    @property
    def device(self):
        """The `torch.device` of the weights."""
        return self.hf.device

    @property
    def dtype(self):
        """The `torch.dtype` of the weights and of the logits."""
        return self.hf.dtype

    @cached_property
    def fingerprint(self):
        """16 hex digits that tell whether a transcoder was made for this model.

        A hash of the architecture's sizes and of up to 32 evenly spaced weights of every parameter,
        rounded to float16. So it is the same in every load of the same folder, for weights stored as
        float16 and loaded as float16, float32 or float64, and for float32 weights loaded as float32
        or float64. A quantized copy of a model (the GGUF of "smollm2") has its own fingerprint: its
        weights differ, and so do its activations.
        """
        config = self.hf.config.get_text_config()
        sizes = [getattr(config, key, None) for key in _FINGERPRINT_CONFIG]
        digest = hashlib.sha256(json.dumps(sizes).encode())
        for name, parameter in sorted(self.hf.named_parameters()):
            flat = parameter.detach().reshape(-1)
            stride = max(1, flat.numel() // _FINGERPRINT_SAMPLES)
            sample = flat[::stride][:_FINGERPRINT_SAMPLES].cpu().to(torch.float16)
            digest.update(f"{name}{tuple(parameter.shape)}".encode())
            digest.update(sample.numpy().tobytes())
        return digest.hexdigest()[:16]

    # ---------------------------------------------------------------- text and tokens

    def encode(self, text):
        """The ids a forward pass reads: `LongTensor [position]`, on the model's device.

        A prompt that does not begin with a special token gets one: the tokenizer's beginning-of-text
        token, else its end-of-text token, else none. This is circuit-tracer's convention; models put
        unusual activations on the first position, and a special token keeps them off the first word.
        Control tokens written in the text, such as `<|im_start|>`, are recognised as such.

        Raises TypeError for anything but a string, ValueError for an empty prompt or one that is
        longer than the context.
        """
        _require_text(text, "a prompt")
        ids = self.tokenizer.encode(text, add_special_tokens=False) if text else []
        if not ids:
            raise ValueError(f"The prompt {text!r} has no tokens. Give at least one word.")
        if ids[0] not in self.special_ids:
            first = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
            ids = [token for token in first if token is not None][:1] + ids
        return self._checked(torch.tensor(ids))

    def decode(self, ids):
        """The text of ids (a tensor `[position]`, a list or one id); special tokens as they are written.

        `decode(encode(text))` is the text after the special token that `encode` put first.
        """
        return self.tokenizer.decode(
            self._id_tensor(ids).tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def tokens(self, ids_or_text):
        """What each position holds, as readable text: a list of strings, one for each position.

        Leading spaces are kept and special tokens appear as they are written. Bytes that are only
        part of a character (a rare script split over tokens) are shown as `<0xE6>`. A text is encoded
        first, so that the list lines up with `encode`, `logits` and a graph's positions.
        """
        ids = self.encode(ids_or_text) if isinstance(ids_or_text, str) else self._id_tensor(ids_or_text)
        return [self._token_text(token) for token in ids.tolist()]

    def token_bytes(self, token):
        """The bytes that a token id stands for: a part of a character where a rare one is split over tokens.

        Special tokens stand for what is written for them.
        """
        if token in self.tokenizer.added_tokens_decoder:
            return self.tokenizer.added_tokens_decoder[token].content.encode()
        spelled = self.tokenizer.convert_ids_to_tokens(token)
        if spelled is None:  # embedding rows beyond the tokenizer's vocabulary, kept for speed on GPUs
            return b""
        if self._byte_level and all(character in _BYTE_OF for character in spelled):
            return bytes(_BYTE_OF[character] for character in spelled)
        if re.fullmatch(r"<0x[0-9A-F]{2}>", spelled):
            return bytes([int(spelled[3:5], 16)])
        return spelled.replace("▁", " ").encode()

    def token_id(self, text):
        """The id of a string that is exactly one token, its leading space taken as given.

        Raises TypeError for anything but a string; ValueError, with the pieces and the nearest form
        that works, when the string is none or several tokens.
        """
        _require_text(text, "a token")
        ids = self._pieces(text)
        if len(ids) == 1 and not self._has_unknown(ids, text):
            return ids[0]
        if not ids:
            raise ValueError(f"{text!r} has no tokens. Give one token's text, such as {' Austin'!r}.")
        pieces = [self._token_text(token) for token in ids]
        problem = "is not in the vocabulary" if self._has_unknown(ids, text) else f"is {len(ids)} tokens"
        other = text.lstrip(" ") if text.startswith(" ") else " " + text
        other_ids = self._pieces(other)
        if len(other_ids) == 1 and not self._has_unknown(other_ids, other):
            remedy = f"{other!r} is a single token (id {other_ids[0]}): is that the one you mean?"
        else:
            remedy = f"Give one of the pieces; the first is {pieces[0]!r} (id {ids[0]})."
        raise ValueError(f"{text!r} {problem} of this model: {pieces}. {remedy}")

    def chat(self, question, system=None):
        """The prompt string that asks `question` in the model's chat format, up to its own turn.

        `system` is the system message; without one the format's own default applies.

        Raises TypeError for anything but strings; ValueError when the model has no chat format, or
        one without system messages.
        """
        _require_text(question, "a question")
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"{self.name!r} has no chat format: its tokenizer carries no chat template. Write the prompt "
                "as plain text to be continued, or load a model tuned for chat, such as 'smollm2'."
            )
        messages = [{"role": "user", "content": question}]
        if system is not None:
            _require_text(system, "a system message")
            messages.insert(0, {"role": "system", "content": system})
        try:
            return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except TemplateError as error:
            raise ValueError(f"The chat format of {self.name!r} refused these messages: {error}") from error

    # ---------------------------------------------------------------- predictions

    def logits(self, text_or_ids):
        """What the model says comes next at each position: `FloatTensor [position, vocab]`.

        Row `p` scores the token after position `p`; the last row, the token after the prompt. Takes a
        string (encoded as `encode` does) or ids `[position]` (taken as they are). No gradients.

        Raises TypeError and ValueError as `encode` does, and ValueError for ids outside the vocabulary.
        """
        with torch.no_grad():
            return self.hf(input_ids=self.input_ids(text_or_ids)[None], use_cache=False).logits[0]

    def next_tokens(self, prompt, k=10):
        """The `k` likeliest next tokens: a DataFrame, likeliest first.

        The index, named "id", is the token's id; the columns are `token` (readable text),
        `probability` (0 to 1, over the whole vocabulary) and `logprob` (natural logarithm). Ties are
        in the order of ids. A `k` above the vocabulary's size gives the whole vocabulary.

        Raises ValueError for a `k` below 1, TypeError and ValueError as `logits` does.
        """
        _require_count(k, "k")
        last = self.logits(prompt)[-1]
        logprobs = torch.log_softmax(last.to(torch.promote_types(last.dtype, torch.float32)), dim=-1)
        logprobs, ids = torch.sort(logprobs, descending=True, stable=True)
        logprobs, ids = logprobs[:k].cpu(), ids[:k].cpu()
        columns = {
            "token": self.tokens(ids), "probability": logprobs.exp().numpy(), "logprob": logprobs.numpy(),
        }  # fmt: skip
        return pd.DataFrame(columns, index=pd.Index(ids.numpy(), name="id"))

    def complete(self, prompt, max_new_tokens=20, stop=None):
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
    def greedy(self, ids, most):
        """Yield up to `most` likeliest next ids after ids `[position]`, one forward pass each, keys and values kept."""
        room = most if self.context_length is None else min(most, self.context_length - len(ids) + 1)
        step, cache = ids[None], None
        for _ in range(room):
            out = self.hf(input_ids=step, past_key_values=cache, use_cache=True)
            step, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
            if step.item() in self.end_ids:
                return
            yield step.item()

    def continuation(self, prompt_ids, new):
        """The text of new ids (a list) after a prompt's `LongTensor [position]`.

        Decoded together with the prompt: SentencePiece decoders drop the leading space of what they get.
        """
        before, both = self.decode(prompt_ids), self.decode(prompt_ids.tolist() + new)
        return both[len(before) :] if both.startswith(before) else self.decode(new)

    # ---------------------------------------------------------------- checks and lookups

    def _id_tensor(self, ids):
        """Ids in any form -> LongTensor [position] on the model's device, each in the vocabulary."""
        tensor = torch.as_tensor(ids)
        if tensor.numel() == 0:
            tensor = tensor.long()  # an empty list becomes a float tensor
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
            raise TypeError(f"Token ids are whole numbers; got {tensor.dtype}.")
        if tensor.dim() > 1:
            raise ValueError(f"Give the ids of one prompt, shape [position]; got shape {list(tensor.shape)}.")
        tensor = tensor.reshape(-1).to(self.device, torch.long)
        outside = tensor[(tensor < 0) | (tensor >= self.vocab_size)]
        if len(outside):
            raise ValueError(
                f"Token id {outside[0].item()} is not in the vocabulary: ids run from 0 to {self.vocab_size - 1}."
            )
        return tensor

    def _checked(self, ids):
        ids = self._id_tensor(ids)
        if len(ids) == 0:
            raise ValueError("The prompt has no tokens. Give at least one id.")
        if self.context_length is not None and len(ids) > self.context_length:
            raise ValueError(
                f"The prompt has {len(ids)} tokens, but {self.name!r} reads at most {self.context_length}. "
                "Shorten the prompt."
            )
        return ids

    def input_ids(self, text_or_ids):
        """`LongTensor [position]` of a text, encoded, or of ids in any form, which are checked."""
        return self.encode(text_or_ids) if isinstance(text_or_ids, str) else self._checked(text_or_ids)

    @cached_property
    def special_ids(self):
        """The ids of special tokens: a set."""
        # `all_special_ids` alone leaves out control tokens without a role, such as <|im_start|> in Qwen.
        added = self.tokenizer.added_tokens_decoder.items()
        return set(self.tokenizer.all_special_ids) | {token for token, about in added if about.special}

    @cached_property
    def end_ids(self):
        """The ids that end a text: a set, of the generation settings and the tokenizer."""
        generation = getattr(self.hf, "generation_config", None)
        ends = generation.eos_token_id if generation is not None else None
        ends = set(ends if isinstance(ends, (list, tuple)) else [ends])
        return (ends | {self.tokenizer.eos_token_id}) - {None}

    @cached_property
    def _byte_level(self):
        """Whether tokens are spelled in the byte alphabet of GPT-2 (else: SentencePiece's ▁ and <0x0A>)."""
        decoder = getattr(getattr(self.tokenizer, "backend_tokenizer", None), "decoder", None)
        return decoder is not None and b'"ByteLevel"' in decoder.__getstate__()

    def _token_text(self, token):
        if token in self.tokenizer.added_tokens_decoder:
            return self.tokenizer.added_tokens_decoder[token].content
        if self.tokenizer.convert_ids_to_tokens(token) is None:
            return f"<unused {token}>"
        text = self.token_bytes(token).decode("utf-8", errors="surrogateescape")
        return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)

    def _pieces(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False) if text else []

    def _has_unknown(self, ids, text):
        return self.tokenizer.unk_token_id in ids and text != self.tokenizer.unk_token

    # ---------------------------------------------------------------- display

    def __repr__(self):
        return (
            f"LanguageModel({self.name!r}: {self.family}, {self.n_layers} layers, d_model {self.d_model}, "
            f"{self.n_parameters:,} parameters)"
        )

    def _repr_html_(self):
        facts = {
            "model": self.name, "family": self.family, "layers": self.n_layers, "d_model": self.d_model,
            "vocabulary": f"{self.vocab_size:,} tokens", "parameters": f"{self.n_parameters:,}",
        }  # fmt: skip
        cells = "".join(
            f"<tr><th scope='row'>{html.escape(key)}</th><td>{html.escape(str(value))}</td></tr>"
            for key, value in facts.items()
        )
        return f"<table>{cells}</table>"


def _require_text(value, what):
    if not isinstance(value, str):
        raise TypeError(f"Expected {what} as a string; got {type(value).__name__}.")


def _require_count(value, name):
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` must be a whole number of at least 1; got {value!r}.")
