"""What a run trains: a prompt and a readout per task, and maybe parts of the backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar, final

from torch import Tensor, nn

from softprompts.backbones.backbone import Backbone
from softprompts.errors import DataError, StorageError
from softprompts.examples import TaskFormat
from softprompts.prompts.prompt import Prompt
from softprompts.readouts.base import Readout
from softprompts.recipes.schema import RunConfig

T = TypeVar("T")


@final
@dataclass(frozen=True)
class Track:
    """What a run trains for one of its tasks.

    Attributes:
        prompt: the task's prompt; tasks of a mixture share all of its modules that are not the
            task's own.
        readout: the task's readout.
        format: the task's labels, templates and metrics.
    """

    prompt: Prompt
    readout: Readout
    format: TaskFormat


@dataclass(frozen=True)
class _Holder:
    """A module with a state, and where its tensors are kept.

    Attributes:
        label: what to call it in an error.
        module: the module.
        shared: what the names of its shared tensors begin with.
        own: what the names of a task's own tensors begin with.
        names: the names, in the module, of the task's own tensors.
    """

    label: str
    module: nn.Module
    shared: str
    own: str = ""
    names: frozenset[str] = frozenset()

    def place(self, name: str) -> str:
        """Return where a tensor of the module is kept."""
        return (self.own if name in self.names else self.shared) + name

    def find(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the module's state among the tensors of a run, whatever else is kept there."""
        shared = {k: v for k, v in under(self.shared, tensors).items() if k not in self.names}
        return {**shared, **(under(self.own, tensors) if self.own else {})}


@final
@dataclass(frozen=True)
class Model:
    """What a run trains: a prompt and a readout per task on one backbone.

    Attributes:
        tracks: prompt and readout by the task's name; one in a run of one task.
        backbone: what the run reads through: the frozen backbone, or the run's own copy.
        adaptation: holds what is trained of that copy, by name.
        is_mixture: whether the run is of a mixture, where tensors are named by task.
    """

    tracks: Mapping[str, Track]
    backbone: Backbone
    adaptation: nn.Module
    is_mixture: bool = False

    def track(self, name: str | None = None) -> Track:
        """Return the track of a task.

        Args:
            name: the task's name; `None` where there is only one.

        Raises:
            DataError: if there is none of that name, or several and no name.
        """
        if name is None and len(self.tracks) == 1:
            return next(iter(self.tracks.values()))
        if name is None or name not in self.tracks:
            said = "was not given" if name is None else f"is {name!r}"
            raise DataError(f"`task` must be one of {', '.join(self.tracks)}, but {said}.")
        return self.tracks[name]

    @property
    def prompt(self) -> Prompt:
        """The prompt of a run of one task."""
        return self.track().prompt

    @property
    def readout(self) -> Readout:
        """The readout of a run of one task."""
        return self.track().readout

    @property
    def groups(self) -> dict[str, list[Tensor]]:
        """Trainable parameters, each once: a prompt's groups, then `backbone` and `readout`."""
        groups: dict[str, dict[Tensor, None]] = {}
        for track in self.tracks.values():
            for name, parameters in track.prompt.parameter_groups.items():
                groups.setdefault(name, {}).update(dict.fromkeys(parameters))
        others = {
            "backbone": _trainable([self.adaptation]),
            "readout": _trainable([track.readout for track in self.tracks.values()]),
        }
        for name, found in others.items():
            groups.setdefault(name, {}).update(dict.fromkeys(found))
        return {name: list(parameters) for name, parameters in groups.items()}

    @property
    def prompt_parameters(self) -> list[Tensor]:
        """Trainable parameters of the prompts, each once, in the order that prompts have them."""
        return _trainable([track.prompt for track in self.tracks.values()])

    @property
    def parameters(self) -> list[Tensor]:
        """Trainable parameters, those of the prompts first."""
        return [parameter for group in self.groups.values() for parameter in group]

    @property
    def num_parameters(self) -> int:
        """Trainable numbers."""
        return sum(p.numel() for p in self.parameters)

    def state(self) -> dict[str, Tensor]:
        """Return every tensor that a run must keep, by name; those that tasks share once."""
        return {
            holder.place(name): tensor
            for holder in self._holders()
            for name, tensor in holder.module.state_dict().items()
        }

    def load(self, tensors: Mapping[str, Tensor], where: str = "a state") -> None:
        """Put a state into all that is trained.

        Args:
            tensors: as `state` returns them; others beside them are left alone.
            where: what holds the tensors, in an error.

        Raises:
            StorageError: if a tensor is missing or has another shape.
        """
        for holder in self._holders():
            try:
                holder.module.load_state_dict(holder.find(tensors))
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise StorageError(
                    f"{where} must hold the run's {holder.label}, but does not: {reason}"
                ) from error

    def bake(self) -> Tensor:
        """Return the rows as inference needs them; tasks share them."""
        return next(iter(self.tracks.values())).prompt.bake()

    def _holders(self) -> Iterator[_Holder]:
        yield _Holder("adaptation", self.adaptation, "adaptation.")
        for name, track in self.tracks.items():
            if self.is_mixture:
                start, names = f"tasks.{name}.", track.prompt.task_tensors
                label = f"prompt of task {name}"
                yield _Holder(label, track.prompt, "prompt.", f"{start}prompt.", names)
                yield _Holder(f"readout of task {name}", track.readout, f"{start}readout.")
            else:
                yield _Holder("prompt", track.prompt, "prompt.")
                yield _Holder("readout", track.readout, "readout.")


def per_task(config: RunConfig, given: T | Mapping[str, T], what: str) -> dict[str, T]:
    """Return what belongs to each task of a run, in the run's order.

    Args:
        config: the run.
        given: one for the only task, or one per task by name.
        what: what is given, in an error.

    Raises:
        DataError: if the names are not those of the run's tasks.
    """
    names = list(config.tasks)
    if not isinstance(given, Mapping):
        given = {names[0]: given} if len(names) == 1 else {}
    if set(given) != set(names):
        held = ", ".join(map(str, given)) or "one without a name"
        raise DataError(f"{what} must be given for {', '.join(names)}, but are: {held}.")
    return {name: given[name] for name in names}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, by the rest of their names."""
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _trainable(modules: list[nn.Module] | list[Prompt] | list[Readout]) -> list[Tensor]:
    """Return the trainable parameters of modules that may share some, each once."""
    found = (p for module in modules for p in module.parameters() if p.requires_grad)
    return list(dict.fromkeys(found))
