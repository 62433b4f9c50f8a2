"""What takes part in a race: something that does one update at a time; and what of it is ours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.inputs import EncodedExample
from softprompts.examples import Example, TaskFormat
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.training.building import build_model, build_optimizer, build_plan
from softprompts.training.evaluation import EncodedSplit
from softprompts.training.journal import NoJournal
from softprompts.training.member import Member
from softprompts.training.mixing import update_indices
from softprompts.training.pack import update_pack


class Contestant(ABC):
    """Does one update at a time."""

    name: str

    @abstractmethod
    def step(self) -> int:
        """Do one update and return the tokens it read, rows of prompts included, padding not."""


def build_member(
    backbone: Backbone,
    rows: tuple[TaskFormat, Sequence[Example]],
    *,
    readout: str = "linear",
    length: int = 10,
    batch_size: int = 16,
    max_tokens: int | None = None,
    seed: int = 0,
) -> Member:
    """Return a run that is ready to train and is never done."""
    format, examples = rows
    recipe = {
        "backbone": {"name": "minilm"},
        "task": {"name": "custom", "max_tokens": max_tokens},
        "readout": {"kind": readout},
        "prompt": {"method": "prompt-tuning", "length": length},
        "training": {
            "steps": 1_000_000,
            "selection": "last",
            "num_evaluations": 1,
            "batch_size": batch_size,
        },
        "seed": seed,
    }
    config = resolve(parse_run(recipe))
    model = build_model(config, backbone, format)
    split = EncodedSplit(tuple(examples), tuple(map(model.readout.encode, examples)))
    splits = {name: {"train": split, "held_out": EncodedSplit((), ())} for name in model.tracks}
    plan = build_plan(config.training, len(examples), config.seed)
    return Member(model, build_optimizer(config.training, model), plan, splits, NoJournal())


@final
class MatrixProducts(Contestant):
    """The limit: products of square matrices, whose operations stand in the place of tokens.

    Args:
        dtype: of the matrices.
        num_products: products of an update.
        size: rows and columns.
    """

    name = "limit"

    def __init__(self, dtype: torch.dtype, num_products: int = 4, size: int = 2048) -> None:
        self._matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).to(dtype)
        self._count = num_products

    def step(self) -> int:
        """Take the products and return their operations."""
        for _ in range(self._count):
            self._matrix @ self._matrix
        return 2 * len(self._matrix) ** 3 * self._count


@final
class Ours(Contestant):
    """softprompts: a pack of one or more runs.

    Args:
        backbone: the frozen model.
        members: the runs.
    """

    def __init__(
        self, backbone: Backbone, members: Sequence[Member], name: str = "softprompts"
    ) -> None:
        self.backbone, self.members, self.name = backbone, list(members), name

    def step(self) -> int:
        """Do one update of each run."""
        tokens = sum(map(self._tokens, self.members))
        update_pack(self.backbone, self.members)
        return tokens

    def _tokens(self, member: Member) -> int:
        """Return the tokens of a run's next update."""
        plan, rows = member.plan, encoded_of(member)
        chosen = update_indices(len(rows), plan.batch_size, plan.seed, member.counters.step)
        items = [item for i in chosen for item in rows[i].inputs]
        return sum(len(item.ids) + member.model.prompt.length for item in items)


def encoded_of(member: Member) -> tuple[EncodedExample, ...]:
    """Return the encoded training rows of a run of one task."""
    (split,) = member.train.values()
    return split.encoded
