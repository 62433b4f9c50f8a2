"""What pools, positions and active lengths have in common."""

from __future__ import annotations

from abc import ABC

from torch import nn


class Part(nn.Module, ABC):
    """A part of a prompt that may look at the input, and may differ between tasks.

    Attributes:
        needs_instances: whether it looks at instance vectors.
        draws: whether it selects by a draw while training, at a temperature.
        task_tensors: names of its tensors that belong to one task: tasks of a mixture share all
            others.
    """

    needs_instances = False
    draws = False
    task_tensors: tuple[str, ...] = ()
