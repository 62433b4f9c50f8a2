"""Keys of the inputs of a decoder whose prompt stands behind them: read once, and kept.

Tokens in front of the first row see neither it nor anything else that is trained. Their keys and
values are read once per input, one input at a time as all that is read of inputs alone, and a
step runs what stands behind them only: rows, the template's tail and label tokens.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from softprompts.backbones.attention import Memory, Slot
from softprompts.backbones.backbone import Backbone
from softprompts.backbones.input_keys import can_read_on, input_memory, read_input_keys
from softprompts.encoding.batch import Batch
from softprompts.prompts.prompt import PromptOutput
from softprompts.prompts.splice import Spliced
from softprompts.training.surroundings import read_switches

MOST_BYTES = 2**31
"""Most bytes of keys that are kept of a backbone; on an accelerator a quarter of what is free."""

_AT_ONCE = defaultdict(lambda: 32, cpu=1)
"""Inputs read in one batch, by device type; alone, they have the same bits in any company."""

_LEAST_GAIN = 2
"""How many times narrower a batch must get, so that reading on is worth its while."""

_Ids = tuple[int, ...]


@final
class InputKeys:
    """The keys and values of inputs that one backbone read, the latest used within a limit.

    Args:
        most_bytes: most bytes to keep.

    Attributes:
        num_bytes: bytes that are kept.
        num_read: token sequences that were read so far.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.num_bytes = most_bytes, 0
        self.num_read = 0
        self._kept: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()

    def find(self, backbone: Backbone, wanted: Sequence[_Ids]) -> list[Tensor]:
        """Return keys and values of token sequences, read where they are not kept.

        What is read while gradients are off, as in an evaluation, is kept where there is room and
        displaces nothing.

        Args:
            backbone: the frozen decoder.
            wanted: token sequences, none of them empty.

        Returns:
            As `read_input_keys` does. Shape `(tokens, width)` each.
        """
        switches = read_switches()
        found: dict[_Ids, Tensor] = {}
        for ids in dict.fromkeys(wanted):
            value = self._kept.get((switches, ids))
            if value is not None:
                self._kept.move_to_end((switches, ids))
                found[ids] = value
        missing = [ids for ids in dict.fromkeys(wanted) if ids not in found]
        at_once = _AT_ONCE[backbone.device.type]
        for start in range(0, len(missing), at_once):
            group = missing[start : start + at_once]
            with torch.inference_mode(False):
                values = read_input_keys(backbone, group)
            self.num_read += len(group)
            for ids, value in zip(group, values, strict=True):
                found[ids] = value
                self._keep((switches, ids), value)
        return [found[ids] for ids in wanted]

    def _keep(self, key: tuple[object, ...], value: Tensor) -> None:
        is_full = self.num_bytes + value.nbytes > self.most_bytes
        if value.nbytes > self.most_bytes or (is_full and not torch.is_grad_enabled()):
            return
        while self.num_bytes + value.nbytes > self.most_bytes:
            self.num_bytes -= self._kept.popitem(last=False)[1].nbytes
        self._kept[key] = value
        self.num_bytes += value.nbytes


_INPUT_KEYS: WeakKeyDictionary[Backbone, InputKeys | None] = WeakKeyDictionary()


def input_keys_of(backbone: Backbone) -> InputKeys | None:
    """Return the kept keys of a backbone; `None` where it cannot read on from them.

    Args:
        backbone: the model, which is tried at its first call.
    """
    if backbone not in _INPUT_KEYS:
        is_able = can_read_on(backbone)
        _INPUT_KEYS[backbone] = InputKeys(_most_bytes(backbone.device)) if is_able else None
    return _INPUT_KEYS[backbone]


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
    caller's autocast, and where less than half of the batch's width would be saved.

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
    if not output.rows.shape[1] or torch.is_autocast_enabled(backbone.device.type):
        return None
    first = spliced.row_positions.min(dim=1).values  # (inputs,): tokens in front of all rows
    lead = torch.minimum(first, places.min(dim=1).values)  # (inputs,)
    rest = (spliced.lengths - lead).max()
    if bool(_LEAST_GAIN * rest > spliced.lengths.max()):
        return None
    keys = input_keys_of(backbone)
    if keys is None:
        return None
    # Read are the tokens in front of the rows, not of `lead`: that place may hang on the prompt.
    counts = first.clamp(min=1).tolist()
    wanted = [tuple(ids[:count]) for ids, count in zip(batch.ids.tolist(), counts, strict=True)]
    return Ahead(lead, keys.find(backbone, wanted), backbone.stacks[0].slots or ())


def joint_memory(known: Sequence[Ahead]) -> Memory:
    """Return what is known of several batches as one memory, in order.

    Args:
        known: of batches of one backbone, at least one.
    """
    kept = [one for ahead in known for one in ahead.kept]
    return input_memory(known[0].slots, kept, torch.cat([ahead.lead for ahead in known]))


def _most_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] // 4)
    return MOST_BYTES
