"""States below the layers in which rows are read: read once per input, and kept.

With rows in upper layers only, a step runs those layers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.lower_states import can_skip_layers, pad_states, read_lower_states
from softprompts.encoding.batch import Batch
from softprompts.prompts.prompt import PromptOutput
from softprompts.training.known import known_of

_Input = tuple[tuple[int, ...], tuple[int, ...]]


@final
@dataclass(frozen=True, eq=False)
class Below:
    """What is known of a batch's inputs below a layer.

    Attributes:
        num_layers: layers below.
        states: what the last of them gives. Shape `(tokens, hidden)` each.
    """

    num_layers: int
    states: Sequence[Tensor]


def read_below(backbone: Backbone, batch: Batch, output: PromptOutput) -> Below | None:
    """Return the states that enter the first layer in which a prompt is read.

    Args:
        backbone: the model that is read.
        batch: the batch, with embeddings of its own.
        output: what the prompt emitted for it.

    Returns:
        What is known; `None` where all layers are to be run: the prompt is read in the first one or
        stands in the input, the backbone is trained, a caller's autocast is on, or the layers hand
        on more than states.
    """
    stack = backbone.stacks[0].name
    num_layers = min((slot.layer for slot in output.prefixes if slot.stack == stack), default=0)
    is_cast = torch.is_autocast_enabled(backbone.device.type)
    if not num_layers or not backbone.is_frozen or is_cast:
        return None
    known = known_of(backbone)
    if not known.is_able(f"skip {num_layers}", lambda: can_skip_layers(backbone, num_layers)):
        return None
    first = next(iter(output.prefixes.values()))
    num_keys = first.keys.shape[2] if backbone.family == "decoder" else 0
    tokens = zip(
        batch.ids.tolist(),
        batch.segments.tolist(),
        batch.attention_mask.sum(dim=1).tolist(),
        strict=True,
    )
    wanted = [(tuple(ids[:count]), tuple(segments[:count])) for ids, segments, count in tokens]

    def read(group: Sequence[_Input]) -> list[Tensor]:
        return _read(backbone, group, (num_layers, num_keys))

    return Below(num_layers, known.find(f"below {num_layers} {num_keys}", wanted, read))


def joint_below(known: Sequence[Below], width: int) -> tuple[int, Tensor]:
    """Return what is known of several batches as one, as a memory takes it.

    Args:
        known: of batches that are read from the same layer on, at least one.
        width: positions to pad to.
    """
    states = [one for below in known for one in below.states]
    return known[0].num_layers, pad_states(states, width)


def _read(backbone: Backbone, group: Sequence[_Input], given: tuple[int, int]) -> list[Tensor]:
    """Read several inputs. Shape `(tokens, hidden)` each."""
    num_layers, num_keys = given
    lengths = [len(ids) for ids, _ in group]
    padded = [
        torch.nn.utils.rnn.pad_sequence([torch.tensor(one[part]) for one in group], True)
        for part in (0, 1)
    ]
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    states = read_lower_states(
        backbone,
        backbone.embed(padded[0]),
        mask.to(backbone.device),
        padded[1].to(backbone.device),
        num_layers,
        num_keys,
    )
    return [one[:length].clone() for one, length in zip(states, lengths, strict=True)]
