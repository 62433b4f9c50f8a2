"""The prompt: rows, where they go, how many take part, and each of these axes at its plainest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, final, get_args

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from softprompts.backbones.memory import KeyValues, Slot
from softprompts.errors import PromptError
from softprompts.prompts.active_lengths.base import ALL, ActiveLength, Activity, check_count
from softprompts.prompts.depths.base import Depth
from softprompts.prompts.depths.input import InputDepth
from softprompts.prompts.draws import Draws
from softprompts.prompts.part import Part
from softprompts.prompts.pools.base import Pool
from softprompts.prompts.positions.base import Edges, Placement, Position
from softprompts.prompts.rows.base import Rows

InstanceKind = Literal["states", "embeddings"]
"""What an instance vector is: the mean of the last hidden state, or of the embeddings."""


@dataclass(frozen=True)
class PromptOutput:
    """What a prompt emits for a batch.

    Attributes:
        rows: rows that stand in the input, float32. Shape `(batch, length, hidden)`; without rows
            where they are read in every layer.
        anchors: token index before which each of them stands. Shape `(batch, length)`.
        placement: the choice of the position.
        mixture: weights of the pool, or `None`. Shape `(batch, pool)`.
        activity: the choice of the active length.
        prefixes: rows that are read in every layer; none where they stand in the input.
        has_choices: whether a selector chose places or a number, or a pool weights.
    """

    rows: Tensor
    anchors: Tensor
    placement: Placement
    mixture: Tensor | None
    activity: Activity = ALL
    prefixes: Mapping[Slot, KeyValues] = field(default_factory=dict)
    has_choices: bool = False


@final
class SinglePool(Pool):
    """The first and only set of rows."""

    def __init__(self, sets: Sequence[Rows], width: int, generator: Generator) -> None:
        super().__init__(sets, width, generator)
        (self.rows,) = sets
        self.changes_tokens = self.rows.changes_tokens

    @torch.no_grad()
    def bake(self) -> Tensor:
        """Return the set. Shape `(1, length, hidden)`."""
        rows: Tensor = self.rows(None)
        return rows.detach().clone()[None]

    def embed(self, embeddings: Tensor, ids: Tensor, places: Tensor) -> Tensor:
        """Return what the set makes of tokens. Shape `(batch, tokens, hidden)`."""
        return self.rows.embed(embeddings, ids, places)

    def forward(
        self, batch: int, instances: Tensor | None, draws: Draws | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the same rows for every input."""
        dropout = draws.generator("dropout") if draws is not None and self.rows.draws else None
        rows: Tensor = self.rows(dropout)
        return rows.expand(batch, -1, -1), None


@final
class FixedPosition(Position):
    """`[P_1..P_s ; X ; P_{s+1}..P_l]` with a fixed `s`.

    Rows in front of an encoder's input always stand behind the tokens that it begins with.
    """

    def __init__(
        self,
        length: int,
        width: int = 0,
        generator: Generator | None = None,
        split: int | None = None,
        after_bos: bool = False,
    ) -> None:
        super().__init__(length, width, generator or Generator())
        if split is not None and not 0 <= split <= length:
            raise PromptError(f"`prompt.position.split` must be 0 to {length}, but is {split}.")
        self.split = length if split is None else split
        self.has_front = self.split > 0
        self.after_bos = after_bos
        is_front = torch.arange(length) < self.split
        self.register_buffer("_is_front", is_front, persistent=False)

    def forward(self, edges: Edges, instances: Tensor | None, draws: Draws | None) -> Placement:
        """Return the same split for every input."""
        return Placement(
            torch.where(self.get_buffer("_is_front"), edges.start[:, None], edges.end[:, None])
        )


@final
class FixedActiveLength(ActiveLength):
    """The first `count` rows are active, the others are there but hidden from attention."""

    def __init__(
        self,
        length: int,
        width: int = 0,
        generator: Generator | None = None,
        *,
        count: int | None = None,
    ) -> None:
        super().__init__(length, width, generator or Generator())
        check_count("count", count, length)
        self.count = length if count is None else count
        self.is_whole = self.count == length
        weights = functional.one_hot(torch.tensor(self.count), length + 1).float()
        self.register_buffer("_weights", weights, persistent=False)

    def forward(self, batch: int, instances: Tensor | None, draws: Draws | None) -> Activity:
        """Return the same number for every input."""
        if self.is_whole:
            return ALL
        return Activity(self.get_buffer("_weights").expand(batch, -1))


@final
class Prompt(nn.Module):
    """The trainable prompt; it knows nothing of tasks, losses or model families.

    Args:
        rows: how the rows are parameterized, or a pool of several sets.
        position: where they go, if they stand in the input.
        active_length: how many of them take part; all when `None`.
        depth: where they are read; in the input when `None`.
        instance: what an instance vector is.

    Attributes:
        length: number of rows.
        changes_tokens: whether `embed` changes how input tokens are embedded; else tokens are
            frozen.
        needs_instances: whether rows, places or numbers depend on instance vectors.

    Raises:
        PromptError: if `instance` is unknown, or named although nothing looks at instance vectors.
    """

    def __init__(
        self,
        rows: Rows | Pool,
        position: Position,
        active_length: ActiveLength | None = None,
        depth: Depth | None = None,
        *,
        instance: InstanceKind = "states",
    ) -> None:
        super().__init__()
        if isinstance(rows, Rows):
            rows = SinglePool([rows], 0, Generator())
        self.pool: Pool = rows
        self.position: Position = position
        self.active_length: ActiveLength = active_length or FixedActiveLength(position.length)
        self.depth: Depth = depth or InputDepth()
        self.instance: InstanceKind = instance
        self.length, self.changes_tokens = self.active_length.length, self.pool.changes_tokens
        parts: tuple[Part, ...] = (rows, position, self.active_length)
        self.needs_instances = any(part.needs_instances for part in parts)
        known = get_args(InstanceKind)
        if instance not in known:
            raise PromptError(
                f"`prompt.instance` must be one of {', '.join(known)}, but is {instance!r}."
            )
        if instance != "states" and not self.needs_instances:
            raise PromptError(
                "`prompt.instance` must be left out where nothing looks at instance vectors, but "
                f"is {instance!r}."
            )

    @property
    def task_tensors(self) -> frozenset[str]:
        """Names, in the prompt's state, of the tensors that belong to one task."""
        parts: dict[str, Part] = {
            "pool": self.pool,
            "position": self.position,
            "active_length": self.active_length,
        }
        return frozenset(f"{axis}.{n}" for axis, part in parts.items() for n in part.task_tensors)

    @property
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by what they are: `rows`, `network`, `selector`, and a kind's own.

        Rows, and what scales them, are measured in the prompt's unit; networks make rows of rows;
        selectors weigh, place and count them; kinds of rows may name further groups (see `Rows`).
        Each wants a learning rate of its own.
        """
        groups: dict[str, list[nn.Parameter]] = {"rows": [], "network": [], "selector": []}
        kinds: dict[nn.Parameter, str] = {}
        for rows in self.pool.modules():
            if isinstance(rows, Rows):
                for name, parameter in rows.named_parameters():
                    own = (rows.groups[part] for part in name.split(".") if part in rows.groups)
                    kinds[parameter] = next(own, kinds.get(parameter, "rows"))
        for parameter in self.parameters():
            if parameter.requires_grad:
                groups.setdefault(kinds.get(parameter, "selector"), []).append(parameter)
        return groups

    def embed(self, embeddings: Tensor, ids: Tensor, places: Tensor) -> Tensor:
        """Return what the backbone reads for input tokens: what it embeds, or what rows make of it.

        Those given are of the frozen table; what rows make of them has a gradient. Shapes
        `(batch, tokens, hidden)` of both; see `Rows.embed`.
        """
        return self.pool.embed(embeddings, ids, places)

    def forward(
        self,
        edges: Edges,
        instances: Tensor | None = None,
        draws: Draws | None = None,
    ) -> PromptOutput:
        """Return rows and places for a batch.

        Args:
            edges: where rows may stand.
            instances: instance vectors, where they are needed. Shape `(batch, width)`.
            draws: noise, temperature and dropout; `None` means evaluation.
        """
        batch, activity = len(edges.start), ALL
        rows, mixture = self.pool(batch, instances, draws)
        placement: Placement = self.position(edges, instances, draws)
        if not self.active_length.is_whole:
            activity = self.active_length(batch, instances, draws)
        prefixes: Mapping[Slot, KeyValues] = {}
        if not self.depth.is_input:
            prefixes, rows = self.depth.prefixes(rows), rows[:, :0]
        places = placement.anchors[:, : rows.shape[1]]
        has_choices = mixture is not None or placement.logits is not None
        has_choices = has_choices or activity.logits is not None
        return PromptOutput(rows, places, placement, mixture, activity, prefixes, has_choices)

    def bake(self) -> Tensor:
        """Return the rows as inference needs them, without the network that trained them.

        Returns:
            A detached copy, float32. Shape `(length, width)`, or `(pool, length, width)` where
            there are several sets; the width is that of an embedding, or of all keys and values.
        """
        sets = self.pool.bake()
        return sets[0] if len(sets) == 1 else sets
