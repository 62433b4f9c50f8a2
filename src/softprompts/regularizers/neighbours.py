"""Words that stand near each other in a backbone's own table, or in one that is given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, final
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor
from torch.nn import functional

from softprompts.backbones.backbone import Backbone
from softprompts.errors import DataError, StorageError
from softprompts.regularizers.word_vectors import read_word_vectors
from softprompts.storage import file_digest, reporting

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
_WORDS_AT_ONCE = 256
_MARKERS = ("▁", "Ġ")
_SHARE = 0.05


class Neighbour(NamedTuple):
    """A word near another one: its token, and the cosine between the embeddings of both."""

    id: int
    cosine: float


@final
class Neighbours:
    """Finds the nearest words of words that are one token, and keeps what it found.

    All words are gone through in blocks, for the words that are asked for only, so that a
    vocabulary of any size fits memory. Where the backbone's table itself is trained, its first
    state counts.

    The table is the backbone's, or vectors that are `given`, float32, and the words that have them.
    """

    def __init__(
        self,
        backbone: Backbone,
        given: tuple[Mapping[str, int], Tensor] | None = None,
        block: int = _ROWS_AT_ONCE,
    ) -> None:
        self._tokenizer, self._size = backbone.tokenizer, backbone.vocabulary_size
        self._block, self._given = block, given
        self._device = backbone.device
        self._found: dict[tuple[int, int], list[Neighbour]] = {}
        self._backbone = ref(backbone)  # which keeps this object
        self._table: Tensor | None = None
        if given is not None:
            self._table = given[1].to(backbone.device)
        elif not backbone.is_frozen:
            every = torch.arange(self._size, device=backbone.device)
            self._table = backbone.embed(every).detach().clone()

    @cached_property
    def words(self) -> dict[int, str]:
        """Words by token: letters only, at least two, no stop-word, and with a vector."""
        words = single_token_words(self._tokenizer, self._size)
        if self._given is None:
            return words
        return {i: text for i, text in words.items() if find_word(text, self._given[0]) is not None}

    def find(self, ids: Sequence[int], count: int) -> list[list[Neighbour]]:
        """Return the nearest words of each word, nearest first.

        A neighbour is another word in the same case: not the word itself written otherwise.

        They are at most `count`, of words that are in `words`.
        """
        new = [i for i in dict.fromkeys(ids) if (i, count) not in self._found]
        for start in range(0, len(new), _WORDS_AT_ONCE):
            some = new[start : start + _WORDS_AT_ONCE]
            for token_id, near in zip(some, self._search(some, count), strict=True):
                self._found[token_id, count] = near
        return [self._found[token_id, count] for token_id in ids]

    @torch.no_grad()
    def _search(self, ids: list[int], count: int) -> list[list[Neighbour]]:
        """Go through all words, block by block."""
        own = functional.normalize(self._vectors(ids), dim=1)
        ranks = {token_id: rank for rank, token_id in enumerate(self._others)}
        asked = torch.tensor([ranks[token_id] for token_id in ids])
        cases, stems = self._classes
        best = torch.full((len(ids), 0), -torch.inf)
        where = torch.zeros(len(ids), 0, dtype=torch.long)
        for start in range(0, len(self._others), self._block):
            block = self._others[start : start + self._block]
            span = slice(start, start + len(block))
            cosines = (own @ functional.normalize(self._vectors(block), dim=1).T).cpu()
            may_stand = (cases[span] == cases[asked][:, None]) & (
                stems[span] != stems[asked][:, None]
            )  # (words, block)
            cosines = cosines.masked_fill(~may_stand, -torch.inf)
            values, columns = cosines.topk(min(count, len(block)), dim=1)
            best, where = torch.cat([best, values], 1), torch.cat([where, columns + start], 1)
            best, order = best.topk(min(count, best.shape[1]), dim=1)
            where = where.gather(1, order)
        found = []
        for cosines, places in zip(best.tolist(), where.tolist(), strict=True):
            pairs = sorted(zip(cosines, places, strict=True), key=lambda one: (-one[0], one[1]))
            near = [Neighbour(self._others[rank], cosine) for cosine, rank in pairs]
            found.append([one for one in near if math.isfinite(one.cosine)])
        return found

    @cached_property
    def _others(self) -> list[int]:
        return list(self.words)

    @cached_property
    def _classes(self) -> tuple[Tensor, Tensor]:
        """For each word its case, and what it is without case: who may stand for whom."""
        texts = list(self.words.values())
        stems: dict[str, int] = {}
        return (
            torch.tensor([2 * text.islower() + text.isupper() for text in texts]),
            torch.tensor([stems.setdefault(text.lower(), len(stems)) for text in texts]),
        )

    def _vectors(self, ids: list[int]) -> Tensor:
        """Return the vectors of words, float32. Shape `(words, width)`."""
        places: Sequence[int | None] = ids
        if self._given is not None:
            places = [find_word(self.words[token_id], self._given[0]) for token_id in ids]
        rows = torch.tensor(places, device=self._device)
        if self._table is not None:
            return self._table[rows].float()
        backbone = self._backbone()
        assert backbone is not None
        return backbone.embed(rows).float()


def find_word(text: str, words: Mapping[str, int]) -> int | None:
    """Return what a mapping has for a word, or else for the word in lower case."""
    return words.get(text, words.get(text.lower()))


def single_token_words(tokenizer: Any, size: int) -> dict[int, str]:
    """Return the words that are one token: letters only, at least two, and no stop-word."""
    ids = range(min(len(tokenizer), size))
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


def _marker(tokens: Sequence[str | None]) -> str:
    """Return the sign that a tokenizer puts before a word, or "" where pieces have the sign."""
    held = [token for token in tokens if token is not None]
    for marker in _MARKERS:
        if sum(token.startswith(marker) for token in held) > _SHARE * len(held):
            return marker
    return ""


_KEPT: WeakKeyDictionary[Backbone, dict[str, Neighbours]] = WeakKeyDictionary()


def neighbours_of(
    backbone: Backbone, word_vectors: str | None = None, digest: str | None = None
) -> Neighbours:
    """Return the neighbours of a backbone's words, shared by all runs that read through it.

    With a file of `word_vectors`, which must have the `digest`, these are looked at instead.
    """
    kept = _KEPT.setdefault(backbone, {})
    if word_vectors is None:
        return kept.get("") or kept.setdefault("", Neighbours(backbone))
    path = Path(word_vectors)
    with reporting(path, "read"):
        found = file_digest(path)
    if digest not in (None, found):
        raise StorageError(
            f"{path} must be the file that the run was made with, with digest {digest}, but has "
            f"digest {found}."
        )
    if found not in kept:
        words = single_token_words(backbone.tokenizer, backbone.vocabulary_size)
        wanted = {form for text in words.values() for form in (text, text.lower())}
        given = read_word_vectors(path, wanted)
        if not given[0]:
            raise DataError(
                f"must have vectors of words that are one token of {backbone.name}, but has none "
                "of them.",
                file=path,
            )
        kept[found] = Neighbours(backbone, given)
    return kept[found]
