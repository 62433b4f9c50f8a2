"""What a prompt chose: where its rows went, and how its pool was mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from softprompts.prompts.prompt import PromptOutput


@final
@dataclass
class ChoiceLog:
    """Collects the choices of one or more batches.

    Attributes:
        splits: rows in front of each input. Shape `(batch,)` each.
        logits: the position's logits, where it is learned. Shape `(batch, length + 1)` each.
        mixtures: weights of the pool, where there is one. Shape `(batch, pool)` each.
        answers: first right column of each input, -1 where there is none. Shape `(batch,)` each.
    """

    splits: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    mixtures: list[Tensor] = field(default_factory=list)
    answers: list[Tensor] = field(default_factory=list)

    def add(self, output: PromptOutput, answers: Tensor) -> None:
        """Take note of a batch.

        Args:
            output: what the prompt emitted.
            answers: first right column of each input, -1 where there is none. Shape `(batch,)`.
        """
        if output.placement.logits is not None:
            self.splits.append(output.placement.split.detach())
            self.logits.append(output.placement.logits.detach())
        if output.mixture is not None:
            self.mixtures.append(output.mixture.detach())
        self.answers.append(answers)

    def extend(self, other: ChoiceLog) -> None:
        """Take over what another log has collected."""
        self.splits += other.splits
        self.logits += other.logits
        self.mixtures += other.mixtures
        self.answers += other.answers

    def summary(self, labels: Sequence[str] = ()) -> dict[str, Any]:
        """Return the choices as JSON can hold them; empty where nothing is chosen.

        Args:
            labels: label names, to split the pool's weights by class.

        Returns:
            `position`: how many inputs had each split, and the mean entropy of the selector in
            nats. `pool`: mean weight of each set, and by class where labels are given.
        """
        found: dict[str, Any] = {}
        if self.splits:
            logits = torch.cat(self.logits).float()  # (inputs, length + 1)
            logs = logits.log_softmax(dim=1)
            found["position"] = {
                "counts": torch.cat(self.splits).bincount(minlength=logits.shape[1]).tolist(),
                "entropy": float(-(logs.exp() * logs).sum(dim=1).mean()),
            }
        if self.mixtures:
            mixtures, answers = torch.cat(self.mixtures), torch.cat(self.answers)
            found["pool"] = {"weights": mixtures.mean(dim=0).tolist()}
            by_class = {
                label: mixtures[answers == column].mean(dim=0).tolist()
                for column, label in enumerate(labels)
                if bool((answers == column).any())
            }
            if by_class:
                found["pool"]["by_class"] = by_class
        return found
