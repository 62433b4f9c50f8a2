"""The one training loop: runs side by side through one frozen forward."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import zip_longest

from softprompts.backbones.backbone import Backbone
from softprompts.errors import BackboneError
from softprompts.training.member import Member
from softprompts.training.objective import accumulate
from softprompts.training.progress import Progress, Silent


def train_pack(
    backbone: Backbone,
    members: Sequence[Member],
    progress: Progress | None = None,
) -> None:
    """Train runs that share a frozen backbone, all in one batch; a single run is a pack of one.

    Each run keeps its own data order, optimizer, schedule, clipping and selection, and leaves the
    pack when it is done or diverges, without disturbing the others.

    Args:
        backbone: the frozen model.
        members: the runs; they may be at different steps.
        progress: told of every update.

    Raises:
        BackboneError: if a run reads through another backbone, as one that trains its own does.
    """
    strangers = [member for member in members if member.backbone is not backbone]
    if strangers:
        raise BackboneError(
            "runs of a pack must read through the pack's backbone, but "
            f"{len(strangers)} of {len(members)} read through another: train them alone."
        )
    progress = progress or Silent()
    while active := [member for member in members if not member.is_done]:
        began = time.perf_counter()
        update_pack(backbone, active)
        spent = time.perf_counter() - began
        for member in active:
            member.counters.training_seconds += spent
            member.after_update(backbone)
        furthest = max(active, key=lambda member: member.counters.step)
        progress.update(furthest.counters.step, furthest.plan.total_steps)
    for member in members:
        member.select_last()


def update_pack(backbone: Backbone, members: Sequence[Member]) -> None:
    """Do one update of each run.

    Args:
        backbone: the model that they read through.
        members: runs that are not done.
    """
    losses = _backward(backbone, members)
    for member, loss in zip(members, losses, strict=True):
        member.update(loss)


def _backward(backbone: Backbone, members: Sequence[Member]) -> list[float]:
    """Accumulate every run's gradient over its micro-batches and return its mean loss.

    Micro-batch `k` of all runs shares a forward.
    """
    losses = [0.0] * len(members)
    for group in zip_longest(*(member.shares(backbone) for member in members)):
        present = [(run, share) for run, share in enumerate(group) if share is not None]
        found = accumulate(backbone, [share for _, share in present])
        for (run, _), loss in zip(present, found, strict=True):
            losses[run] += loss
    return losses
