"""One update of several runs, cut into micro-batches by the length of all their examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from softprompts.backbones.backbone import Backbone
from softprompts.training.member import Member, Taken
from softprompts.training.memory import Room
from softprompts.training.objective import Share
from softprompts.training.reader import find_reader
from softprompts.training.size_groups import cut_by_size

_OVERHEAD_TOKENS = defaultdict(lambda: 8192, cpu=128)
"""What one more micro-batch costs, in token positions; where padding is not read, it saves none."""


def cut(
    members: Sequence[Member], backbone: Backbone, room: Room | None = None
) -> Iterator[list[tuple[int, Share]]]:
    """Draw the next update of each run, and cut all examples together into micro-batches.

    Runs are not paired batch by batch: examples of like length meet, whosever they are. A
    micro-batch has at most as many examples as the runs' batch sizes together.

    Args:
        members: runs that are not done.
        backbone: the model that they read through.
        room: bounds a micro-batch, and is told of each; no bound when `None`.

    Yields:
        The shares of a micro-batch, one per run and task, each with its run's number.
    """
    room = room or Room()
    taken = [(run, one) for run, member in enumerate(members) for one in member.draw()]
    reads = [member.penalties.num_reads for member in members]
    counts = [len(one.encoded.inputs) * reads[run] for run, one in taken]
    kind = backbone.device.type if find_reader().reads_padding(backbone) else "joined"
    groups = cut_by_size(
        [one.width for _, one in taken],
        max_count=sum(member.plan.batch_size for member in members),
        overhead=_OVERHEAD_TOKENS[kind],
        counts=counts,
        most=room.most_positions,
    )
    for group in groups:
        widest = max(taken[i][1].width for i in group)
        room.enter(widest * sum(counts[i] for i in group), len(group))
        shares: dict[tuple[int, str], list[Taken]] = {}
        for i in group:
            run, one = taken[i]
            shares.setdefault((run, one.task), []).append(one)
        yield [(run, members[run].share(own, backbone)) for (run, _), own in shares.items()]
