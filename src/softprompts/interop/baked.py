"""A trained prompt as other programs can hold it: the same rows at the same places of any input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from softprompts.backbones.memory import KeyValues, Slot
from softprompts.encoding.template import num_marks
from softprompts.errors import BackboneError, DataError, PromptError
from softprompts.prompts.positions.base import Edges
from softprompts.prompts.prompt import Prompt
from softprompts.results import Result
from softprompts.tasks.rows import shown
from softprompts.training.trainable import Track


@final
@dataclass(frozen=True)
class Baked:
    """One task's prompt without what trained it.

    Attributes:
        rows: rows in the input, float32. Shape `(length, embedding)`; no rows where they are read
            in every layer.
        num_front: rows in front of the input.
        num_marked: rows at each mark of the template.
        prefixes: rows in every layer, a batch of one; none where they stand in the input.
    """

    rows: Tensor
    num_front: int
    num_marked: tuple[int, ...]
    prefixes: Mapping[Slot, KeyValues]


def check_exported(result: Result) -> None:
    """Check that it is a run's result, and that its backbone is one that others have."""
    if not isinstance(result, Result):
        raise DataError(f"`result` must be a Result, as sp.load returns, but is {shown(result)}.")
    adaptation = result.config.adaptation
    if adaptation is not None and adaptation.kind != "none":
        raise BackboneError(
            f"`adaptation` must be none for a prompt that leaves by itself, but is "
            f"{adaptation.kind!r}: its backbone is the run's own."
        )


@torch.no_grad()
def bake(prompt: Prompt, num_marks: int = 0) -> Baked:
    """Return a prompt as inference reads it."""
    if not prompt.length:
        raise PromptError("`prompt.length` must be at least 1 for an export, but is 0.")
    if prompt.changes_tokens:
        raise PromptError(
            "`prompt.rows` must leave tokens as they are embedded to be exported, but changes "
            "them: other programs embed tokens themselves."
        )
    for axis, part in (
        ("pool", prompt.pool),
        ("position", prompt.position),
        ("active_length", prompt.active_length),
    ):
        if part.needs_instances:
            raise PromptError(
                f"`prompt.{axis}` must be the same for every input to be exported, but depends on "
                "it: train with the kind `task` or a fixed one."
            )
    behind = num_marks + 1
    device = next((p.device for p in prompt.state_dict().values()), torch.device("cpu"))
    places = torch.arange(behind + 1, device=device)[None]
    output = prompt(Edges(places[:, 0], places[:, behind], places[:, 1:behind]))
    gates = output.activity.gates
    if gates is not None and bool((gates == 0).any()):
        count = int((gates > 0).sum())
        raise PromptError(
            f"`prompt.active_length` must be all {prompt.length} rows for an export, but is "
            f"{count}: rows that are off keep their places here and nowhere else. Train "
            f"{count} rows instead."
        )
    counts = torch.bincount(output.anchors[0], minlength=behind + 1).tolist()
    rows = output.rows[0].detach().float()
    return Baked(rows, counts[0], tuple(counts[1:behind]), output.prefixes)


def bake_task(track: Track, target: str = "") -> Baked:
    """Return the rows of a task, shared out among the marks of its template.

    For a `target`, they must stand in the input.
    """
    baked = bake(track.prompt, num_marks(track.readout.template.source))
    if baked.prefixes and target:
        raise PromptError(
            f"`prompt.depth` must be input for {target}, but is every-layer: keys and values are "
            "no embeddings. `--to peft` takes them."
        )
    return baked
