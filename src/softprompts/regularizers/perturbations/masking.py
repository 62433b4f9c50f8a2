"""Random words of the input replaced by a mask token or others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Generator

from softprompts.backbones.backbone import Backbone
from softprompts.errors import BackboneError
from softprompts.regularizers.base import Inputs, Perturbed, Seen
from softprompts.regularizers.perturbations.base import Perturbation
from softprompts.regularizers.perturbations.drawing import own_draws, replaced
from softprompts.regularizers.words import Word, words_of

_MOST_SENTINELS = 100


@final
class Masking(Perturbation):
    """Replaces `max(1, round(fraction * words))` words of each example, all of their tokens.

    Reference:
        Chen et al. (2023), arXiv 2305.02423, PTP with random noise in text space.

    Differences:
        Whole words are replaced, and at least one of each example.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        fraction: float = 0.15,
        replacement: str = "auto",
        kept_fields: Sequence[str] = (),
    ) -> None:
        super().__init__(backbone)
        self.backbone, self.fraction = backbone, fraction
        self.kept_fields, self.is_idle = frozenset(kept_fields), fraction == 0
        tokens = _tokens(backbone)
        if replacement == "auto":
            replacement = next(name for name, found in tokens.items() if found)
        if not tokens[replacement]:
            raise BackboneError(
                f"`replacement` must be one of {', '.join(n for n, t in tokens.items() if t)} for "
                f"{backbone.name}, but is {replacement!r}."
            )
        self.replacement, self.tokens = replacement, tokens[replacement]

    def perturb(self, inputs: Inputs, copy: int, seen: Seen | None) -> Perturbed:
        """Return the inputs with words of their own choice replaced per example."""
        swaps, counts = [], []
        given = zip(words_of(inputs.batch, self.kept_fields), own_draws(inputs, copy), strict=True)
        for words, (_, generator) in given:
            swap, count = self._swap(words, generator)
            swaps.append(swap)
            counts.append(count)
        found = replaced(inputs, self.backbone, swaps)
        words_changed = torch.tensor(counts, dtype=torch.float32, device=found.changed.device)
        return replace(found, about={"words_changed": words_changed})

    def _swap(self, words: Sequence[Word], generator: Generator) -> tuple[dict[int, int], int]:
        """Return new tokens by number, and how many words they are of."""
        if not words:
            return {}, 0
        count = max(1, round(self.fraction * len(words)))
        chosen = sorted(torch.randperm(len(words), generator=generator)[:count].tolist())
        numbers = [(order, n) for order, word in enumerate(chosen) for n in words[word].numbers]
        if self.replacement == "random":
            drawn = torch.randint(len(self.tokens), (len(numbers),), generator=generator).tolist()
            return {n: self.tokens[i] for (_, n), i in zip(numbers, drawn, strict=True)}, count
        return {n: self.tokens[order % len(self.tokens)] for order, n in numbers}, count


def _tokens(backbone: Backbone) -> dict[str, list[int]]:
    """Return the tokens of each replacement, the one to prefer first."""
    tokenizer = backbone.tokenizer
    vocabulary = tokenizer.get_vocab()
    names = [f"<extra_id_{number}>" for number in range(_MOST_SENTINELS)]
    unknown = tokenizer.unk_token_id
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ordinary = sorted(i for i in vocabulary.values() if i not in special)
    found = {
        "mask": [tokenizer.mask_token_id],
        "sentinel": [vocabulary[name] for name in names if name in vocabulary],
        "unknown": [] if unknown == tokenizer.eos_token_id else [unknown],
        "random": ordinary,
    }
    size = backbone.vocabulary_size
    return {name: [i for i in ids if i is not None and i < size] for name, ids in found.items()}
