"""From recipes to finished runs, side by side: a pack that survives any kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from softprompts.backbones.backbone import Backbone
from softprompts.errors import FolderInUseError, StorageError
from softprompts.machine_memory import is_out_of_memory
from softprompts.recipes.identity import identity
from softprompts.recipes.schema import RunConfig
from softprompts.storage import is_there
from softprompts.training.execution import Setup, set_up
from softprompts.training.footprint import bound_positions
from softprompts.training.journal import Checkpoint, RunFolder, check_free
from softprompts.training.member import Member
from softprompts.training.pack import Keeper, train_pack
from softprompts.training.pack_folder import PackedRun, PackFolder
from softprompts.training.progress import Progress
from softprompts.training.resources import Resources

Report = Callable[[str, dict[str, Any] | None, Exception | None], None]
"""Is told how a run ended: its identity, its result, and its error."""


@final
@dataclass(frozen=True)
class Seat:
    """A run's place in a pack.

    Attributes:
        config: the run, resolved.
        folder: the run's folder.
        resources: loads its tasks, and shares encoded rows between runs.
    """

    config: RunConfig
    folder: Path
    resources: Resources


def execute_pack(
    seats: Sequence[Seat],
    backbone: Backbone,
    folder: Path,
    report: Report,
    *,
    progress: Progress | None = None,
) -> None:
    """Train runs through one frozen forward, and finish each as it leaves.

    Runs that are finished are left as they are. All others checkpoint together, so that an
    interrupted pack goes on in the same company. A run that cannot be built does not disturb the
    others; if they are under way by the time it can, it is left to be trained alone.

    Args:
        seats: the runs; none trains the backbone, and all read with its head, or none.
        backbone: the frozen model.
        folder: the pack's folder.
        report: told how each run ended.
        progress: told of every update.

    Raises:
        FolderInUseError: if another process has the pack, or a run of it.
        SoftPromptsError: if the pack as a whole cannot go on.
    """
    with ExitStack() as stack:
        pack = stack.enter_context(PackFolder(folder, [identity(seat.config) for seat in seats]))
        kept, joint = pack.restore(), _Joint(pack, report)
        for seat in seats:
            name = identity(seat.config)
            if is_there(seat.folder / "result.json"):
                pack.drop(name)
                continue
            if kept and name not in kept:
                continue
            try:
                joint.add(seat, backbone, stack, kept.get(name))
            except (FolderInUseError, StorageError):
                raise
            except Exception as error:
                report(name, None, error)
        joint.conclude()
        bound = None if kept else _bound(backbone, joint.members)
        train_pack(backbone, joint.members, progress, joint, bound)


def _bound(backbone: Backbone, members: Sequence[Member]) -> int | None:
    """Return the most positions of a micro-batch; a checkpoint has it from then on."""
    if not members:
        return None
    try:
        return bound_positions(backbone, members)
    except Exception as error:  # training meets it too, and says what to do
        if not is_out_of_memory(error):
            raise
        return None


@final
class _Joint(Keeper):
    """Keeps a pack, and finishes the runs that leave it.

    Args:
        pack: the pack's folder.
        report: told how each run ended.
    """

    def __init__(self, pack: PackFolder, report: Report) -> None:
        self._pack, self._report = pack, report
        self._left: dict[str, tuple[Setup, Member]] = {}

    @property
    def members(self) -> list[Member]:
        """The runs that are not finished."""
        return [member for _, member in self._left.values()]

    def add(
        self,
        seat: Seat,
        backbone: Backbone,
        stack: ExitStack,
        checkpoint: Checkpoint | None,
    ) -> None:
        """Make a run ready to train, in its folder; it goes on where it stood."""
        tasks = seat.resources.tasks(seat.config)
        setup = set_up(seat.config, backbone, tasks, seat.resources)
        check_free(seat.folder, setup.about)
        folder = stack.enter_context(RunFolder(seat.folder, setup.about))
        packed, observer = PackedRun(folder, self._pack, checkpoint), seat.resources.observer
        journal = observer.observe(packed, folder.path, setup.about, stack, self._pack.after_commit)
        self._left[folder.identity] = (setup, setup.member(journal))

    def keep(self, backbone: Backbone, members: Sequence[Member]) -> None:
        """Checkpoint all runs where one of them is due or done; finish those that are done."""
        if any(member.is_checkpoint_due or member.is_done for member in members):
            for member in members:
                member.save(backbone)
            self._pack.commit()
            self.conclude()

    def conclude(self) -> None:
        """Finish the runs that are done: their last state must be durable."""
        for name, (setup, member) in list(self._left.items()):
            if not member.is_done:
                continue
            del self._left[name]
            try:
                member.select_last()
                result = setup.finish(member)
            except StorageError:
                raise
            except Exception as error:
                self._report(name, None, error)
                continue
            self._pack.drop(name)
            self._report(name, result, None)
