"""How many two-hop questions does a model answer?"""

import torch


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
