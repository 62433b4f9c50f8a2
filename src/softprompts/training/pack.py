"""The one training loop: runs side by side through one frozen forward."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.sources import first_line
from softprompts.errors import BackboneError, SoftPromptsWarning
from softprompts.training.member import Member
from softprompts.training.memory import Room, free_memory, is_out_of_memory
from softprompts.training.micro_batches import cut
from softprompts.training.objective import accumulate
from softprompts.training.progress import Progress, Silent


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
    while active := [member for member in members if not member.is_done]:
        update_pack(backbone, active, room)
        for member in active:
            member.evaluate()
        keeper.keep(backbone, active)
        progress.update(sum(_steps(member) for member in members), total)
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
    losses = _try_backward(backbone, members, room)
    while isinstance(losses, str):
        # outside of the handler, where the failed attempt's tensors are free
        text = room.halve(losses)
        free_memory(backbone.device)
        warnings.warn(text, SoftPromptsWarning, stacklevel=2)
        about = {"most_positions": room.most_positions}
        losses = _try_backward(backbone, members, room)
    for member, loss in zip(members, losses, strict=True):
        member.counters.most_positions = room.most_positions
        member.update(loss, about)
    share = (time.perf_counter() - began) / len(members)
    for member in members:
        member.counters.training_seconds += share
        member.counters.seconds += share


def _try_backward(backbone: Backbone, members: Sequence[Member], room: Room) -> list[float] | str:
    """Return every run's mean loss, or what the allocator said when memory ran out."""
    try:
        return _backward(backbone, members, room)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return first_line(error)


def _backward(backbone: Backbone, members: Sequence[Member], room: Room) -> list[float]:
    """Accumulate every run's gradient over the micro-batches and return its mean loss."""
    losses = [0.0] * len(members)
    for shares in cut(members, backbone, room):
        found = accumulate(backbone, [share for _, share in shares])
        for (run, _), loss in zip(shares, found, strict=True):
            losses[run] += loss
    return losses


def _steps(member: Member) -> int:
    """Return the updates that a run has done or will not need."""
    return member.plan.total_steps if member.is_done else member.counters.step
