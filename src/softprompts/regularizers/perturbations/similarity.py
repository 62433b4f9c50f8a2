"""A floor under how alike inputs must stay when their words are swapped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from softprompts.regularizers.base import Inputs, Perturbed


def keep_similar(
    inputs: Inputs,
    replaced: Callable[[Sequence[Mapping[int, int]]], Perturbed],
    swaps: Sequence[Mapping[int, int]],
    gains: Sequence[Mapping[int, float]],
    floor: float,
) -> tuple[list[dict[int, int]], dict[str, Tensor]]:
    """Undo swaps, from the weakest gain, until every example is as similar as it must be.

    An example is as similar as the least similar of its inputs. Each round reads the examples that
    broke the floor in the round before, all in one forward of the bare backbone.

    Returns the swaps that are left, and per example `similarity`, 1 where no swap is left, and
    `swaps_undone`. Shape `(batch,)` each.
    """
    kept = [dict(swap) for swap in swaps]
    similarities = torch.ones(len(kept), device=inputs.embeddings.device)
    wanted = [example for example, swap in enumerate(kept) if swap]
    while wanted:
        found = _similarities(inputs, replaced(kept).embeddings, wanted)
        similarities[wanted] = found
        broken = [e for e, one in zip(wanted, found.tolist(), strict=True) if not one >= floor]
        for example in broken:
            own = gains[example]
            del kept[example][min(kept[example], key=lambda number: (own[number], number))]
            similarities[example] = 1.0
        wanted = [example for example in broken if kept[example]]
    undone = [float(len(old) - len(new)) for old, new in zip(swaps, kept, strict=True)]
    about = {"similarity": similarities, "swaps_undone": similarities.new_tensor(undone)}
    return kept, about


def _similarities(inputs: Inputs, embeddings: Tensor, wanted: Sequence[int]) -> Tensor:
    """Return the similarity of some examples. Shape `(batch,)`."""
    examples = inputs.batch.examples
    numbers = torch.tensor(wanted, device=examples.device)
    chosen = torch.where(torch.isin(examples, numbers))[0]
    cosines = inputs.similarity(embeddings[chosen].detach(), chosen)
    least = cosines.new_full((inputs.batch.size,), float("inf"))
    return least.scatter_reduce(0, examples[chosen], cosines, "amin")[numbers]
