"""Words that stand near each other in a backbone's own table of input embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor
from torch.nn import functional

from softprompts.backbones.backbone import Backbone

_STOP_WORDS = """
    a about above after again against all also am an and any are as at be because been before
    being below between both but by can cannot could did do does doing down during each either
    else even ever every few for from further had has have having he her here hers herself him
    himself his how however if in into is it its itself just least less let like many may me
    might mine more most much must my myself neither never no nobody none nor not nothing now
    of off often on once only onto or other others ought our ours ourselves out over own per
    rather same shall she should since so some such than that the their theirs them themselves
    then there these they this those though through thus to too toward under until up upon us
    very was we were what when where whether which while who whom whose why will with within
    without would yet you your yours yourself yourselves
"""

STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that are neither replaced nor put in the place of others."""

_ROWS_AT_ONCE = 8192
_MARKERS = ("▁", "Ġ")
_SHARE = 0.05


@final
@dataclass(frozen=True)
class Neighbour:
    """A word near another one.

    Attributes:
        id: its token.
        cosine: between the embeddings of both.
    """

    id: int
    cosine: float


@final
class Neighbours:
    """Finds the nearest words of words that are one token, and keeps what it found.

    The table is gone through in blocks, for the words that are asked for only, so that a vocabulary
    of any size fits memory. Where the table itself is trained, its first state counts.

    Args:
        backbone: whose table is looked at.
        block: rows looked at together.
    """

    def __init__(self, backbone: Backbone, block: int = _ROWS_AT_ONCE) -> None:
        self._tokenizer, self._size = backbone.tokenizer, backbone.vocabulary_size
        self._block = block
        self._device = backbone.device
        self._found: dict[tuple[int, int], list[Neighbour]] = {}
        self._backbone = ref(backbone)  # which keeps this object
        self._table: Tensor | None = None
        if not backbone.is_frozen:
            every = torch.arange(self._size, device=backbone.device)
            self._table = backbone.embed(every).detach().clone()

    @cached_property
    def words(self) -> dict[int, str]:
        """Words by token: letters only, at least two, and no stop-word."""
        tokenizer = self._tokenizer
        ids = range(min(len(tokenizer), self._size))
        tokens = tokenizer.convert_ids_to_tokens(list(ids))
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        marker = _marker(tokens)
        found = {}
        for token_id, token in zip(ids, tokens, strict=True):
            if token_id in special or token is None or not token.startswith(marker):
                continue
            text = token.removeprefix(marker)
            if marker == "Ġ":
                text = tokenizer.convert_tokens_to_string([token]).strip()
            if len(text) > 1 and text.isalpha() and text.lower() not in STOP_WORDS:
                found[token_id] = text
        return found

    def find(self, ids: Sequence[int], count: int) -> list[list[Neighbour]]:
        """Return the nearest words of each word, nearest first.

        A neighbour is another word in the same case: not the word itself written otherwise.

        Args:
            ids: words that are in `words`.
            count: most neighbours of each.
        """
        new = [i for i in dict.fromkeys(ids) if (i, count) not in self._found]
        if new:
            for token_id, near in zip(new, self._search(new, count), strict=True):
                self._found[token_id, count] = near
        return [self._found[token_id, count] for token_id in ids]

    @torch.no_grad()
    def _search(self, ids: list[int], count: int) -> list[list[Neighbour]]:
        """Go through all words, block by block."""
        own = functional.normalize(self._vectors(ids), dim=1)
        best: list[list[Neighbour]] = [[] for _ in ids]
        others = list(self.words)
        for start in range(0, len(others), self._block):
            block = others[start : start + self._block]
            cosines = own @ functional.normalize(self._vectors(block), dim=1).T
            for row, token_id in enumerate(ids):
                order = cosines[row].argsort(descending=True, stable=True).tolist()
                near = []
                for column in order:
                    if self._may_stand_for(token_id, block[column]):
                        near.append(Neighbour(block[column], float(cosines[row, column])))
                    if len(near) == count:
                        break
                best[row] = sorted([*best[row], *near], key=lambda one: -one.cosine)[:count]
        return best

    def _may_stand_for(self, token_id: int, other: int) -> bool:
        text, new = self.words[token_id], self.words[other]
        is_same_case = (text.islower(), text.isupper()) == (new.islower(), new.isupper())
        return is_same_case and text.lower() != new.lower()

    def _vectors(self, ids: list[int]) -> Tensor:
        """Return embeddings, float32. Shape `(words, embedding)`."""
        rows, backbone = torch.tensor(ids, device=self._device), self._backbone()
        if self._table is not None:
            return self._table[rows].float()
        assert backbone is not None
        return backbone.embed(rows).float()


def _marker(tokens: Sequence[str | None]) -> str:
    """Return the sign that a tokenizer puts before a word, or "" where pieces have the sign."""
    held = [token for token in tokens if token is not None]
    for marker in _MARKERS:
        if sum(token.startswith(marker) for token in held) > _SHARE * len(held):
            return marker
    return ""


_KEPT: WeakKeyDictionary[Backbone, Neighbours] = WeakKeyDictionary()


def neighbours_of(backbone: Backbone) -> Neighbours:
    """Return the neighbours of a backbone's words, shared by all runs that read through it.

    Args:
        backbone: whose table is looked at.
    """
    if backbone not in _KEPT:
        _KEPT[backbone] = Neighbours(backbone)
    return _KEPT[backbone]
