"""Keys of what a decoder reads in front of a prompt, or of all inputs: read once, and kept.

Tokens in front of the first row see neither it nor anything else that is trained. Their keys and
values are read once per input, one input at a time as all that is read of inputs alone, and a
step runs what stands behind them only: rows, the template's tail and label tokens. So it is with
demonstrations, which stand in front of every input of a run without rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.input_keys import can_read_on, input_memory, read_input_keys
from softprompts.backbones.memory import Memory, Slot
from softprompts.encoding.batch import Batch
from softprompts.encoding.inputs import EncodedExample, EncodedInput
from softprompts.prompts.positions.base import Position
from softprompts.prompts.prompt import Prompt, PromptOutput
from softprompts.prompts.splice import Spliced
from softprompts.training.known import known_of

_LEAST_GAIN = 2
"""How many times narrower a batch must get, so that reading on is worth its while."""


@final
@dataclass(frozen=True, eq=False)
class Ahead:
    """What is known of the first tokens of a batch's inputs.

    Attributes:
        lead: how many of them need not be read again. Shape `(inputs,)`.
        kept: their keys and values, of these tokens or more. Shape `(tokens, width)` each.
        slots: the attentions that keys and values belong to.
    """

    lead: Tensor
    kept: Sequence[Tensor]
    slots: Sequence[Slot]


def read_ahead(
    backbone: Backbone, batch: Batch, output: PromptOutput, given: tuple[Spliced, Tensor]
) -> Ahead | None:
    """Return how much of each input need not be read again, and the keys that stand for it.

    That is what stands in front of the first row and of all places whose output is read. A
    selector of positions that is trained looks at the gradient of all tokens, so then nothing is
    left out; nor where rows are read in every layer, where the backbone is trained, under a
    caller's autocast, and where less than half of the batch's width would be saved. Without rows,
    it is what stands in front of all inputs.

    Args:
        backbone: the model that is read.
        batch: the batch, with embeddings of its own.
        output: what the prompt emitted for it.
        given: the spliced batch, and the places whose output is read. Shape of these
            `(inputs, slots)`.

    Returns:
        What is known; `None` where the whole input is to be read.
    """
    spliced, places = given
    weights = output.placement.weights
    is_blind = weights is None or not weights.requires_grad
    if backbone.family != "decoder" or not backbone.is_frozen or not is_blind:
        return None
    if torch.is_autocast_enabled(backbone.device.type) or output.prefixes:
        return None
    if output.rows.shape[1]:
        first = spliced.row_positions.min(dim=1).values  # (inputs,): tokens in front of all rows
    else:
        first = torch.tensor([item.lead for item in batch.items], device=places.device)
    lead = torch.minimum(first, places.min(dim=1).values)  # (inputs,)
    rest = (spliced.lengths - lead).max()
    if bool(_LEAST_GAIN * rest > spliced.lengths.max()):
        return None
    if not _can_read_on(backbone):
        return None
    # Read are the tokens in front of the rows, not of `lead`: that place may hang on the prompt.
    counts = first.clamp(min=1).tolist()
    wanted = [tuple(ids[:count]) for ids, count in zip(batch.ids.tolist(), counts, strict=True)]
    kept = known_of(backbone).find("keys", wanted, lambda group: read_input_keys(backbone, group))
    return Ahead(lead, kept, backbone.stacks[0].slots or ())


def num_positions(
    backbone: Backbone, prompt: Prompt, example: EncodedExample, is_read_on: bool = True
) -> int:
    """Return how many positions of an example's longest input are read at each step, with rows.

    Args:
        backbone: the model that is read.
        prompt: the prompt.
        example: the example.
        is_read_on: whether inputs may be read on from kept keys; not so where they are perturbed.
    """
    num_rows = prompt.length if prompt.depth.is_input else 0
    whole = example.num_tokens + num_rows
    if backbone.family != "decoder" or not num_rows or not is_read_on:
        return whole
    rest = num_rows + max(len(i.ids) - _place_of_rows(prompt.position, i) for i in example.inputs)
    is_less = _LEAST_GAIN * rest <= whole and backbone.is_frozen
    return rest if is_less and _can_read_on(backbone) else whole


def joint_memory(known: Sequence[Ahead]) -> Memory:
    """Return what is known of several batches as one memory, in order.

    Args:
        known: of batches of one backbone, at least one.
    """
    kept = [one for ahead in known for one in ahead.kept]
    return input_memory(known[0].slots, kept, torch.cat([ahead.lead for ahead in known]))


def _place_of_rows(position: Position, item: EncodedInput) -> int:
    """Return the index before which the first row of an input stands at the earliest."""
    if position.has_front:
        return item.start
    return item.marks[0] if position.needs_marks and item.marks else item.end


def _can_read_on(backbone: Backbone) -> bool:
    return known_of(backbone).is_able("read on", lambda: can_read_on(backbone))
