"""What is kept of inputs by themselves, of the insides of a frozen backbone: read once, and kept.

Like readings, but too large for the disk: keys and values, and states between layers. The latest
used are kept within a limit.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar, final

import torch
from torch import Tensor

from softprompts.fast.cache_key import read_switches

MOST_BYTES = 2**31
"""Most bytes that are kept of a backbone; on an accelerator a quarter of what is free."""

_AT_ONCE = defaultdict(lambda: 32, cpu=1)
"""Inputs read in one batch, by device type; alone, they have the same bits in any company."""

T = TypeVar("T", bound=Hashable)


@final
class Kept:
    """What is kept of the inputs that one backbone read.

    Args:
        device: where it is kept.
        most_bytes: most bytes to keep; see `MOST_BYTES` when `None`.

    Attributes:
        num_bytes: bytes that are kept.
        num_read: inputs that were read so far.
    """

    def __init__(self, device: torch.device, most_bytes: int | None = None) -> None:
        self.most_bytes = _most_bytes(device) if most_bytes is None else most_bytes
        self.num_bytes = self.num_read = 0
        self._at_once = _AT_ONCE[device.type]
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._latest: dict[Hashable, Tensor] = {}
        self._is_able: dict[str, bool] = {}

    def is_able(self, what: str, find_out: Callable[[], bool]) -> bool:
        """Return whether the backbone can do something, found out once.

        Args:
            what: says what it is.
            find_out: tries it.
        """
        if what not in self._is_able:
            self._is_able[what] = find_out()
        return self._is_able[what]

    def find(
        self, what: str, wanted: Sequence[T], read: Callable[[Sequence[T]], Sequence[Tensor]]
    ) -> list[Tensor]:
        """Return what is known of inputs, read where it is not kept.

        What is read while gradients are off, as in an evaluation, is kept where there is room and
        displaces nothing; what all inputs of a call share, as demonstrations, is so until the next
        that share something else.

        Args:
            what: says what is read of them.
            wanted: the inputs, by all that a reading depends on.
            read: reads several.

        Returns:
            A tensor for each.
        """
        switches = read_switches()
        found: dict[T, Tensor] = {}
        missing = []
        for one in dict.fromkeys(wanted):
            key = (what, switches, one)
            if key in self._kept:
                self._kept.move_to_end(key)
                found[one] = self._kept[key]
            elif key in self._latest:
                found[one] = self._latest[key]
            else:
                missing.append(one)
        for start in range(0, len(missing), self._at_once):
            group = missing[start : start + self._at_once]
            with torch.no_grad():
                values = read(group)
            self.num_read += len(group)
            for one, value in zip(group, values, strict=True):
                found[one] = value
                self._keep((what, switches, one), value)
        if len(found) == 1:
            self._latest = {(what, switches, one): value for one, value in found.items()}
        return [found[one] for one in wanted]

    def _keep(self, key: Hashable, value: Tensor) -> None:
        is_full = self.num_bytes + value.nbytes > self.most_bytes
        if value.nbytes > self.most_bytes or (is_full and not torch.is_grad_enabled()):
            return
        while self.num_bytes + value.nbytes > self.most_bytes:
            self.num_bytes -= self._kept.popitem(last=False)[1].nbytes
        self._kept[key] = value
        self.num_bytes += value.nbytes


def _most_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] // 4)
    return MOST_BYTES
