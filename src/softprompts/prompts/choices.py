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
        chosen: what each selector chose, by axis: rows in front of each input for `position`,
            active rows for `length`. Shape `(batch,)` each.
        logits: the selector's logits, likewise. Shape `(batch, length + 1)` each.
        mixtures: weights of the pool, where there is one. Shape `(batch, pool)` each.
        answers: first right column of each input, -1 where there is none. Shape `(batch,)` each.
    """

    chosen: dict[str, list[Tensor]] = field(default_factory=dict)
    logits: dict[str, list[Tensor]] = field(default_factory=dict)
    mixtures: list[Tensor] = field(default_factory=list)
    answers: list[Tensor] = field(default_factory=list)

    def add(self, output: PromptOutput, answers: Tensor) -> None:
        """Take note of a batch.

        `answers` are the first right columns, -1 where there is none. Shape `(batch,)`.
        """
        for name, choice in (("position", output.placement), ("length", output.activity)):
            if choice.logits is not None and choice.weights is not None:
                self.chosen.setdefault(name, []).append(choice.weights.detach().argmax(dim=1))
                self.logits.setdefault(name, []).append(choice.logits.detach())
        if output.mixture is not None:
            self.mixtures.append(output.mixture.detach())
        self.answers.append(answers)

    def extend(self, other: ChoiceLog) -> None:
        """Take over what another log has collected."""
        for name, values in other.chosen.items():
            self.chosen.setdefault(name, []).extend(values)
            self.logits.setdefault(name, []).extend(other.logits[name])
        self.mixtures += other.mixtures
        self.answers += other.answers

    def summary(self, labels: Sequence[str] = ()) -> dict[str, Any]:
        """Return the choices as JSON can hold them; empty where nothing is chosen.

        Args:
            labels: label names, to split the pool's weights by class.

        Returns:
            `position`: how many inputs had each split, and the mean entropy of the selector in
            nats. `length`: likewise how many had each number of active rows. `pool`: mean weight
            of each set and its standard deviation over inputs (that of these inputs, divided by
            their number), and both by class where labels are given.
        """
        found: dict[str, Any] = {}
        for name, chosen in self.chosen.items():
            logits = torch.cat(self.logits[name]).float()  # (inputs, length + 1)
            logs = logits.log_softmax(dim=1)
            found[name] = {
                "counts": torch.cat(chosen).bincount(minlength=logits.shape[1]).tolist(),
                "entropy": float(-(logs.exp() * logs).sum(dim=1).mean()),
            }
        if self.mixtures:
            mixtures, answers = torch.cat(self.mixtures), torch.cat(self.answers)
            classes = {
                label: mixtures[answers == column]
                for column, label in enumerate(labels)
                if bool((answers == column).any())
            }
            parts: dict[Any, Tensor] = {None: mixtures, **classes}
            means = {name: part.mean(dim=0).tolist() for name, part in parts.items()}
            stds = {name: part.std(dim=0, correction=0).tolist() for name, part in parts.items()}
            found["pool"] = {"weights": means.pop(None), "stds": stds.pop(None)}
            if classes:
                found["pool"] |= {"by_class": means, "stds_by_class": stds}
        return found
