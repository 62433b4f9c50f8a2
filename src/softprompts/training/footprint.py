"""What training takes of memory: measured on one example, and scaled.

Formulas over layers and widths miss what they do not know: an attention that keeps its weights, a
head, perturbed copies, rows in every layer. So the longest example of a run is read once by itself
and once twice, forward and backward, while tensors are counted. What the second one adds is what
an example takes.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.finding_fast import find_fast
from softprompts.errors import SoftPromptsWarning
from softprompts.machine_memory import free_bytes, total_bytes
from softprompts.training.member import Member, Taken
from softprompts.training.objective import accumulate
from softprompts.training.reader import find_reader
from softprompts.training.trainable import Model

_COPIES = 6
"""Parameters, gradient, two moments, the best so far, and a checkpoint that is being written."""

_SHARES = {"cpu": 0.5, "cuda": 0.9}
"""The part of a device's memory that training may count on: a processor's has other users."""

_sharers = 1
"""Processes that share the processor's memory; see `share_memory`."""


@final
@dataclass(frozen=True)
class Footprint:
    """What a run takes of memory, beside the backbone.

    Attributes:
        position_bytes: what one more position of a micro-batch takes, at the longest example.
        fixed_bytes: what a micro-batch takes whatever its size.
        state_bytes: parameters of the run and what is kept of their size.
        example_positions: positions of the longest example, perturbed copies included.
        batch_size: most examples per micro-batch and run.
    """

    position_bytes: float
    fixed_bytes: int
    state_bytes: int
    example_positions: int
    batch_size: int


def measure_footprint(member: Member) -> Footprint:
    """Measure what a run takes; the run is left as it was.

    Args:
        member: a run before its first update.
    """
    backbone = member.backbone
    reads = member.penalties.num_reads
    longest = member.longest()
    positions = longest.width * len(longest.encoded.inputs) * reads
    peaks = []
    least = 1 if find_reader().reads_padding(backbone) else 2  # one alone would be
    for count in (least, least, 2 * least):  # the first reading pays for what is done once
        member.draw()
        read = [longest] * count
        peaks.append(_peak(backbone, partial(_read, member, read)))
    member.draw()
    marginal = max(peaks[2] - peaks[1], 0) / least
    return Footprint(
        position_bytes=marginal / positions,
        fixed_bytes=max(int(peaks[1] - least * marginal), 0),
        state_bytes=state_bytes(member.model),
        example_positions=positions,
        batch_size=member.plan.batch_size,
    )


def bound_positions(backbone: Backbone, members: Sequence[Member]) -> int | None:
    """Return how many positions a micro-batch of a pack may have, by the machine's memory.

    Where the estimate exceeds the memory that is free now, a warning says so.

    Args:
        backbone: the frozen model.
        members: the runs before their first update; one stands for others of its shape.

    Returns:
        The bound; `None` where the largest micro-batch that the runs could ask for fits.
    """
    by_kind: dict[tuple[int, ...], Footprint] = {}
    kinds = []
    for member in members:
        numbers = (member.model.num_parameters, member.penalties.num_reads)
        kind = (*numbers, member.longest().width, member.plan.batch_size)
        if kind not in by_kind:
            by_kind[kind] = measure_footprint(member)
        kinds.append(by_kind[kind])
    budget = budget_bytes(backbone.device) - estimate_bytes(backbone, kinds, 0)
    each = max(one.position_bytes for one in kinds)
    wanted = sum(one.batch_size * one.example_positions for one in kinds)
    bound = None if each * wanted <= max(budget, 0) else max(1, int(budget / each))
    warn_if_short(backbone, estimate_bytes(backbone, kinds, bound))
    return bound


def describe_memory(member: Member) -> str:
    """Return how much memory a run is estimated to take, in one line; warn where that is not free.

    Args:
        member: the run before its first update; left as it was.
    """
    backbone = member.backbone
    estimate = estimate_bytes(backbone, [measure_footprint(member)])
    warn_if_short(backbone, estimate)
    device, weights = backbone.device, show_bytes(weight_bytes(backbone))
    free, total = show_bytes(free_bytes(device)), show_bytes(total_bytes(device))
    return (
        f"estimated memory: {show_bytes(estimate)}, the backbone's {weights} included; {free} of "
        f"{total} are free"
    )


def warn_if_short(backbone: Backbone, estimate: int) -> None:
    """Warn where a run or pack is likely to need more memory than is free.

    Args:
        backbone: the frozen model, whose weights are there already.
        estimate: from `estimate_bytes`.
    """
    free = free_bytes(backbone.device)
    if estimate - weight_bytes(backbone) > free:
        text = (
            f"training is estimated to take {show_bytes(estimate)} of memory, the backbone's "
            f"weights included, but only {show_bytes(free)} are free: micro-batches get smaller "
            "where memory runs out."
        )
        warnings.warn(text, SoftPromptsWarning, stacklevel=2)


def estimate_bytes(
    backbone: Backbone, footprints: Sequence[Footprint], most_positions: int | None = None
) -> int:
    """Return about how much memory a pack takes, the backbone's weights included.

    Args:
        backbone: the frozen model.
        footprints: one per run.
        most_positions: most positions in a micro-batch; `None` sets no bound.
    """
    positions = sum(one.batch_size * one.example_positions for one in footprints)
    largest = max(one.example_positions for one in footprints)
    if most_positions is not None:
        positions = min(positions, max(most_positions, largest))
    each = max(one.position_bytes for one in footprints)
    fixed = max(one.fixed_bytes for one in footprints)
    states = sum(one.state_bytes for one in footprints)
    return int(weight_bytes(backbone) + states + fixed + positions * each)


def state_bytes(model: Model) -> int:
    """Return the bytes of what a run trains, and of all that is kept of its size."""
    return _COPIES * sum(p.numel() * p.element_size() for p in model.parameters)


def weight_bytes(backbone: Backbone) -> int:
    """Return the bytes of a backbone's parameters and buffers on its device, packed ones too."""
    model = backbone.model
    tensors = (t for t in (*model.parameters(), *model.buffers()) if t.device == backbone.device)
    fast = find_fast()
    extra = 0 if fast is None else int(fast.laid_out_bytes(model))
    return extra + sum(int(t.numel() * t.element_size()) for t in tensors)


def budget_bytes(device: torch.device) -> int:
    """Return how much memory training may count on, whoever uses it at the moment.

    It depends on the machine alone, so that the same study has the same packs tomorrow.
    """
    share = _SHARES.get(device.type, 0.5) / (_sharers if device.type == "cpu" else 1)
    return int(total_bytes(device) * share)


def share_memory(num_processes: int) -> None:
    """Let this process count on its part of the processor's memory alone, from now on.

    Args:
        num_processes: processes of one study that train on the processor.
    """
    global _sharers
    _sharers = num_processes


def show_bytes(count: float) -> str:
    """Return a number of bytes in words.

    Example:
        >>> show_bytes(2_340_000_000), show_bytes(53_000_000)
        ('2.3 GB', '53 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _read(member: Member, taken: Sequence[Taken]) -> None:
    """Read examples forward and backward, as an update does."""
    accumulate(member.backbone, [member.share(taken, member.backbone)])


def _peak(backbone: Backbone, read: Callable[[], Any]) -> int:
    """Return the most bytes that tensors made meanwhile take at one time."""
    if backbone.device.type == "cuda":
        torch.cuda.synchronize(backbone.device)
        torch.cuda.reset_peak_memory_stats(backbone.device)
        before = torch.cuda.memory_allocated(backbone.device)
        read()
        return int(torch.cuda.max_memory_allocated(backbone.device) - before)
    live = _Live()
    with live:
        read()
    return live.peak


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are made while it lasts, and live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {id(t.untyped_storage()) for t in tree_leaves(args) if _is_counted(t)}
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if _is_counted(tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in given and storage not in self._seen:
                    self._add(storage)
        return found

    def _add(self, storage: Any) -> None:
        size = storage.nbytes()
        self._seen.add(storage)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._remove, size)

    def _remove(self, size: int) -> None:
        self._now -= size


def _is_counted(leaf: Any) -> bool:
    """Return whether something is a tensor that lies in a storage; packed weights lie in none."""
    return isinstance(leaf, Tensor) and not leaf.is_mkldnn
