"""Words of the input replaced by near ones, where the loss rises most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.regularizers.base import Inputs, Perturbed, Seen
from softprompts.regularizers.neighbours import neighbours_of
from softprompts.regularizers.perturbations.base import Perturbation
from softprompts.regularizers.perturbations.drawing import replaced
from softprompts.regularizers.words import Word, words_of


@final
class WordSubstitution(Perturbation):
    """Swaps words for neighbours by the gradient of the clean loss, all at once.

    Words are ranked by the norm of the loss's gradient `g` at their embedding. Each in turn gets
    the neighbour with the highest first-order gain `g . (e_new - e_old)`, if that is positive,
    until the budget of `max(least_words, fraction * words)` is used up. Only words that are one
    token can be swapped; stop-words are not, and no word is swapped or put in twice.

    With `min_similarity`, swaps are undone, from the weakest gain, until the mean-pooled states of
    the bare backbone for an input before and after have at least that cosine.

    Reference:
        Yoo and Qi (2021), arXiv 2109.00544, section 3; Chen et al. (2023), arXiv 2305.02423.

    Differences:
        All swaps are chosen from one gradient instead of one after the other with a forward each;
        neighbours come from the backbone's own table unless another is given; sentences are
        compared by the run's backbone instead of a sentence encoder; there is no tagger.
    """

    needs_forward = True
    needs_gradient = True
    draws = False

    def __init__(
        self,
        backbone: Backbone,
        *,
        fraction: float = 0.1,
        least_words: int = 4,
        num_candidates: int = 20,
        min_cosine: float = 0.4,
        kept_fields: Sequence[str] = ("premise",),
        min_similarity: float | None = None,
        word_vectors: str | None = None,
        word_vectors_digest: str | None = None,
    ) -> None:
        super().__init__(backbone)
        self.backbone = backbone
        self.neighbours = neighbours_of(backbone, word_vectors, word_vectors_digest)
        self.min_similarity = min_similarity
        self.fraction, self.least_words = fraction, least_words
        self.num_candidates, self.min_cosine = num_candidates, min_cosine
        self.kept_fields = frozenset(kept_fields)
        self.is_idle = fraction == 0 and least_words == 0

    def budget(self, num_words: int) -> int:
        """Return how many words of an example may be swapped."""
        return max(self.least_words, int(self.fraction * num_words))

    def perturb(self, inputs: Inputs, copy: int, seen: Seen | None) -> Perturbed:
        """Return the inputs with words swapped."""
        assert seen is not None
        assert seen.gradient is not None
        words = words_of(inputs.batch)
        given = zip(words, seen.gradient.float(), strict=True)
        swaps = [self._swaps(own, gradient) for own, gradient in given]
        about: dict[str, Tensor] = {}
        if self.min_similarity is not None:
            gains = [self._gains(*one) for one in zip(words, swaps, seen.gradient, strict=True)]
            floor = self.min_similarity
            swaps, about = _keep_similar(inputs, self.backbone, swaps, gains, floor)
        found = replaced(inputs, self.backbone, swaps)
        counts = torch.tensor([float(len(swap)) for swap in swaps], device=found.changed.device)
        return replace(found, about={"words_changed": counts, **about})

    def _swaps(self, words: Sequence[Word], gradient: Tensor) -> dict[int, int]:
        """Return new tokens by the numbers of those that they replace."""
        places = {
            word.numbers[0]: word.ids[0]
            for word in words
            if len(word.ids) == 1
            and word.ids[0] in self.neighbours.words
            and word.field not in self.kept_fields
        }
        norms = torch.linalg.vector_norm(gradient, dim=1).tolist()
        ranked = sorted(places, key=lambda number: (-norms[number], number))
        near = self.neighbours.find([places[n] for n in ranked], self.num_candidates)
        swaps: dict[int, int] = {}
        used: set[int] = set()
        for number, candidates in zip(ranked, near, strict=True):
            if len(swaps) >= self.budget(len(words)):
                break
            old = places[number]
            allowed = [c.id for c in candidates if c.cosine >= self.min_cosine and c.id not in used]
            if old in used or not allowed:
                continue
            new, gain = self._best(old, allowed, gradient[number])
            if gain > 0:
                swaps[number] = new
                used |= {old, new}
        return swaps

    @torch.no_grad()
    def _best(self, old: int, allowed: Sequence[int], gradient: Tensor) -> tuple[int, float]:
        """Return the word with the highest first-order gain, and the gain."""
        ids = torch.tensor([old, *allowed], device=gradient.device)
        values = self.backbone.embed(ids).float() @ gradient
        gains = values[1:] - values[0]
        best = int(gains.argmax())
        return allowed[best], float(gains[best])

    def _gains(
        self, words: Sequence[Word], swaps: dict[int, int], gradient: Tensor
    ) -> dict[int, float]:
        """Return the first-order gain of each swap, by number."""
        old = {word.numbers[0]: word.ids[0] for word in words}
        given = swaps.items()
        return {n: self._best(old[n], [new], gradient[n].float())[1] for n, new in given}


def _keep_similar(
    inputs: Inputs,
    backbone: Backbone,
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
        found = _similarities(inputs, replaced(inputs, backbone, kept).embeddings, wanted)
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
