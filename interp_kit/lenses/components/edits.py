"""Components as edits: where a head is, and a model asked again with each of many edits."""

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from ...models.edits import Edit, Edits, head_projection
from ...models.families import anatomy
from ...widgets.progress import ProgressBar

AT_ONCE = 64  # versions in one forward


def n_heads(hf: PreTrainedModel) -> int:
    """Attention heads in a layer."""
    return hf.config.get_text_config().num_attention_heads


def head_slice(hf: PreTrainedModel, head: int) -> slice:
    """Where a head's own values are in the site "heads"."""
    projection = head_projection(anatomy(hf).blocks[0])
    inputs = getattr(projection, "in_features", None) or getattr(projection, "nx", 0)  # nx in transformers' Conv1D
    width = inputs // n_heads(hf)
    return slice(head * width, (head + 1) * width)


def run(
    hf: PreTrainedModel,
    ids: torch.Tensor,
    versions: Sequence[Sequence[Edit]],
    measure: Callable[[torch.Tensor], torch.Tensor],
    desc: str,
) -> torch.Tensor:
    """measure(logits [some versions, vocabulary] at the last position) of all versions, put together; ids [position].

    desc: beside the progress bar.
    """
    measured = []
    with ProgressBar(total=len(versions), desc=desc, leave=False) as bar:
        for first in range(0, len(versions), AT_ONCE):
            some = versions[first : first + AT_ONCE]
            logits = Edits(some).run(hf, ids.expand(len(some), -1), logits_to_keep=1)
            measured.append(measure(logits[:, -1].float()))
            bar.update(len(some))
    return torch.cat(measured)
