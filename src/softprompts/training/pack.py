"""The one training loop: runs side by side through one frozen forward."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import final

import torch

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.sources import first_line
from softprompts.encoding.batch import cut_by_size
from softprompts.errors import BackboneError, MemoryShortageError, SoftPromptsWarning
from softprompts.machine_memory import free_memory, is_out_of_memory
from softprompts.training.member import Member, Taken
from softprompts.training.objective import Share, accumulate
from softprompts.training.progress import Progress, Silent
from softprompts.training.reader import find_reader

_OVERHEAD_TOKENS = defaultdict(lambda: 8192, cpu=128)
"""What one more micro-batch costs, in token positions; where padding is not read, it saves none."""


class Keeper(ABC):
    """Makes a pack durable."""

    @abstractmethod
    def keep(self, backbone: Backbone, members: Sequence[Member]) -> None:
        """Keep what is due.

        Args:
            backbone: the frozen model.
            members: the runs of the last update; some may be done by now.
        """


@final
class KeepEach(Keeper):
    """Each run has a journal of its own, and checkpoints when its plan says so."""

    def keep(self, backbone: Backbone, members: Sequence[Member]) -> None:
        """Checkpoint the runs whose turn it is."""
        for member in members:
            if member.is_checkpoint_due:
                member.save(backbone)


@final
class Room:
    """Bounds the micro-batches of a pack; the bound falls where memory does not hold one.

    Args:
        most_positions: most positions in a micro-batch, padding included; `None` sets no bound.
    """

    def __init__(self, most_positions: int | None = None) -> None:
        self.most_positions = most_positions
        self._positions = self._num_examples = 0

    def enter(self, positions: int, num_examples: int) -> None:
        """Take note of the micro-batch that is read now."""
        self._positions, self._num_examples = positions, num_examples

    def halve(self, reason: str) -> str:
        """Bound later micro-batches to half of the one that memory did not hold.

        Args:
            reason: what the allocator said.

        Returns:
            What to tell the user.

        Raises:
            MemoryShortageError: if that was a single example.
        """
        if self._num_examples <= 1:
            raise MemoryShortageError(
                f"one example of {self._positions} positions must fit in memory, but does not: "
                f"{reason} Shorten `task.max_tokens`, set `backbone.gradient_checkpointing`, or "
                "choose a smaller backbone."
            )
        self.most_positions = max(1, self._positions // 2)
        return (
            f"memory does not hold a micro-batch of {self._num_examples} examples, "
            f"{self._positions} positions; from here on they have at most {self.most_positions}."
        )


@torch.inference_mode(False)
@torch.enable_grad()
def train_pack(
    backbone: Backbone,
    members: Sequence[Member],
    progress: Progress | None = None,
    keeper: Keeper | None = None,
    most_positions: int | None = None,
) -> None:
    """Train runs that share a frozen backbone, all in one batch; a single run is a pack of one.

    Each run keeps its own data order, optimizer, schedule, clipping and selection, and leaves the
    pack when it is done or diverges, without disturbing the others. Where memory does not hold a
    micro-batch, the update is done again in smaller ones, which is the same sum, and a warning says
    so.

    Args:
        backbone: the frozen model.
        members: the runs; they may be at different steps.
        progress: told of every update.
        keeper: makes the runs durable; each by itself when `None`.
        most_positions: most positions in a micro-batch, padding included; `None` sets no bound.

    Raises:
        BackboneError: if a run reads through another backbone, as one that trains its own does.
        MemoryShortageError: if memory does not hold one example.
    """
    strangers = [member for member in members if member.backbone is not backbone]
    if strangers:
        raise BackboneError(
            "runs of a pack must read through the pack's backbone, but "
            f"{len(strangers)} of {len(members)} read through another: train them alone."
        )
    progress, keeper = progress or Silent(), keeper or KeepEach()
    bounds = [most_positions, *(member.counters.most_positions for member in members)]
    room = Room(min((bound for bound in bounds if bound is not None), default=None))
    total = sum(member.plan.total_steps for member in members)
    active = [member for member in members if not member.is_done]
    while active:
        update_pack(backbone, active, room)
        for member in active:
            member.evaluate()
        keeper.keep(backbone, active)
        active, done = [member for member in active if not member.is_done], total
        for member in active:
            done -= member.plan.total_steps - member.counters.step
        progress.update(done, total)
    for member in members:
        member.select_last()


def update_pack(
    backbone: Backbone,
    members: Sequence[Member],
    room: Room | None = None,
) -> None:
    """Do one update of each run; its time is shared out evenly.

    Args:
        backbone: the model that they read through.
        members: runs that are not done.
        room: bounds micro-batches; no bound when `None`.

    Raises:
        MemoryShortageError: if memory does not hold one example.
    """
    room, began, about = room or Room(), time.perf_counter(), {}
    losses = _backward(backbone, members, room)
    while isinstance(losses, str):
        # outside of the handler, where the failed attempt's tensors are free
        text = room.halve(losses)
        free_memory(backbone.device)
        warnings.warn(text, SoftPromptsWarning, stacklevel=2)
        about = {"most_positions": room.most_positions}
        losses = _backward(backbone, members, room)
    for member, loss in zip(members, losses, strict=True):
        member.counters.most_positions = room.most_positions
        member.update(loss, about)
    share = (time.perf_counter() - began) / len(members)
    for member in members:
        member.counters.training_seconds += share
        member.counters.seconds += share


def _backward(backbone: Backbone, members: Sequence[Member], room: Room) -> list[float] | str:
    """Accumulate every run's gradient over the micro-batches.

    Returns:
        Every run's mean loss, or what the allocator said when memory ran out.
    """
    losses = [0.0] * len(members)
    try:
        for runs, shares in cut(members, backbone, room):
            for run, loss in zip(runs, accumulate(backbone, shares), strict=True):
                losses[run] += loss
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return first_line(error)
    return losses


def cut(
    members: Sequence[Member], backbone: Backbone, room: Room | None = None
) -> Iterator[tuple[list[int], list[Share]]]:
    """Draw the next update of each run, and cut all examples together into micro-batches.

    Runs are not paired batch by batch: examples of like length meet, whosever they are. A
    micro-batch has at most as many examples as the runs' batch sizes together.

    Args:
        members: runs that are not done.
        backbone: the model that they read through.
        room: bounds a micro-batch, and is told of each; no bound when `None`.

    Yields:
        The shares of a micro-batch, one per run and task, and the number of each one's run.
    """
    room, most = room or Room(), 0
    taken: list[tuple[int, Taken]] = []
    widths: list[int] = []
    counts: list[int] = []
    for run, member in enumerate(members):
        most += member.plan.batch_size
        reads = member.penalties.num_reads if member.penalties.regularizers else 1
        for one in member.draw():
            taken.append((run, one))
            widths.append(one.width)
            counts.append(len(one.encoded.inputs) * reads)
    kind = backbone.device.type if find_reader().reads_padding(backbone) else "joined"
    groups = cut_by_size(
        widths,
        max_count=most,
        overhead=_OVERHEAD_TOKENS[kind],
        counts=counts,
        most=room.most_positions,
    )
    for group in groups:
        positions = 0
        shares: dict[tuple[int, str], list[Taken]] = {}
        for i in group:
            run, one = taken[i]
            shares.setdefault((run, one.task), []).append(one)
            positions += counts[i] * widths[group[0]]  # the widest
        room.enter(positions, len(group))
        runs: list[int] = []
        parts: list[Share] = []
        for (run, _), own in shares.items():
            runs.append(run)
            parts.append(members[run].share(own, backbone))
        yield runs, parts
