"""Turns a grammar into rows.

One draw takes a family, one of its records and, for each label, one frame; it yields one row per
label. So labels are balanced, and no topic, name or hypothesis goes with one label.

In a frame, `{dish}` stands for the record's column `dish`, `{dish.2}` for a second, different
choice of it, `{a dish}` for it with its article. `{was}`, `{it}` and the like agree with the
record, whose column `pronoun` is `it` (when absent), `they`, `she` or `he`. A filler may hold
places too. Within a draw a place keeps its filler.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Final, Generic, TypeVar

from bundled_grammar.grammar import Family, Grammar, Split
from softprompts.errors import DataError

T = TypeVar("T")
Row = tuple[str, str, str]
"""The first field, the second (or ""), and the label."""

_PLACE = re.compile(r"\{(a )?([a-z_]+)(?:\.([2-9]))?\}")
_START = re.compile(r"(^|[.?!] )([a-z])")
_CONSONANT_SOUND = re.compile(r"(uni|use|usu|euro|one\b|ewe)")
_VOWEL_SOUND = re.compile(r"([aeiou]|hour|hones|hono|heir)")
_MAX_DEPTH = 4
_MAX_REJECTED = 2000

_AGREEMENT: Final[Mapping[str, Mapping[str, str]]] = {
    "it": {"it": "it", "them": "it", "their": "its", "was": "was", "is": "is", "has": "has"},
    "she": {"it": "she", "them": "her", "their": "her", "was": "was", "is": "is", "has": "has"},
    "he": {"it": "he", "them": "him", "their": "his", "was": "was", "is": "is", "has": "has"},
    "they": {"it": "they", "them": "them", "their": "their", "was": "were", "is": "are"}
    | {"has": "have"},
}


class Deck(Generic[T]):
    """Items in shuffled order, over and over, so that each comes up equally often.

    Args:
        items: at least one item.
        rng: shuffles them.
    """

    def __init__(self, items: Sequence[T], rng: random.Random) -> None:
        self._items = list(items)
        self._rng = rng
        self._left: list[T] = []

    def draw(self) -> T:
        """Return the next item."""
        if not self._left:
            self._left = self._rng.sample(self._items, len(self._items))
        return self._left.pop()


class Binding:
    """The choices of one draw.

    Args:
        columns: what each place may be filled with.
        rng: chooses.
        file: the grammar's name, for errors.
    """

    def __init__(self, columns: Mapping[str, Sequence[str]], rng: random.Random, file: str) -> None:
        self._columns = columns
        self._rng = rng
        self._file = file
        self._orders: dict[str, list[str]] = {}

    def fill(self, frame: str) -> str:
        """Return the sentence that `frame` becomes, with capitals at its starts.

        Raises:
            DataError: if a place has no column, or too few fillers, or a brace is left over.
        """
        text = frame
        for _ in range(_MAX_DEPTH):
            text = _PLACE.sub(self._replace, text)
        if "{" in text or "}" in text:
            raise DataError(f"places must be filled, but is {text!r}.", file=self._file)
        return _START.sub(lambda match: match[1] + match[2].upper(), text)

    def _replace(self, match: re.Match[str]) -> str:
        name, place = match[2], int(match[3] or 1)
        if name not in self._columns:
            raise DataError(f"place must name a column, but is {match[0]!r}.", file=self._file)
        if name not in self._orders:
            options = self._columns[name]
            self._orders[name] = self._rng.sample(list(options), len(options))
        if place > len(self._orders[name]):
            raise DataError(
                f"place {match[0]!r} must have {place} fillers, but has {self._orders[name]}.",
                file=self._file,
            )
        text = self._orders[name][place - 1]
        return with_article(text) if match[1] else text


def with_article(noun: str) -> str:
    """Return `noun` after "a" or "an", by its first sound.

    Args:
        noun: a singular noun phrase without a determiner.

    Returns:
        The noun phrase with its article.

    Example:
        >>> with_article("oven"), with_article("hour"), with_article("uniform")
        ('an oven', 'an hour', 'a uniform')
    """
    start = noun.lower()
    has_vowel = _VOWEL_SOUND.match(start) and not _CONSONANT_SOUND.match(start)
    return f"{'an' if has_vowel else 'a'} {noun}"


def expand(
    grammar: Grammar,
    split: Split,
    seed: int = 0,
    file: str = "grammar",
    *,
    is_shuffled: bool = True,
) -> list[Row]:
    """Draw the rows of one split.

    Args:
        grammar: the grammar.
        split: the split.
        seed: the seed of a generator of its own.
        file: the grammar's name, for errors.
        is_shuffled: whether rows of one draw are parted.

    Returns:
        `grammar.rows[split]` different rows, each label equally often.

    Raises:
        DataError: if the grammar has no such split, a place cannot be filled, or there are too few
            different rows.
    """
    if split not in grammar.rows:
        raise DataError(f"must be one of {', '.join(grammar.rows)}, but is {split!r}.", file=file)
    rng = random.Random(seed)
    sampler = _Sampler(grammar, split, rng, file)
    rows: list[Row] = []
    texts: set[tuple[str, str]] = set()
    rejected = 0
    while len(rows) < grammar.rows[split]:
        drawn = sampler.draw()
        fresh = {row[:2] for row in drawn}
        if len(fresh) < len(drawn) or fresh & texts:
            rejected += 1
            if rejected > _MAX_REJECTED:
                raise DataError(
                    f"must give {grammar.rows[split]} different rows, but gave {len(rows)}.",
                    file=file,
                    field=f"rows.{split}",
                )
            continue
        texts |= fresh
        rows += drawn
    if is_shuffled:
        rng.shuffle(rows)
    return rows


class _Sampler:
    """Draws one row per label, going evenly through families, records and frames."""

    def __init__(self, grammar: Grammar, split: Split, rng: random.Random, file: str) -> None:
        self._rng, self._file = rng, file
        families = [family for family in grammar.families if split in family.splits]
        if not families:
            raise DataError("must have a family.", file=file, field=split)
        numbers = [n for n, family in enumerate(families) for _ in range(family.weight)]
        self._numbers = Deck(numbers, rng)
        self._records = [Deck(_columns(grammar, family, split), rng) for family in families]
        self._pairs = [Deck(family.pair or ("",), rng) for family in families]
        self._frames = [
            {label: Deck(frames, rng) for label, frames in family.frames.items()}
            for family in families
        ]

    def draw(self) -> list[Row]:
        number = self._numbers.draw()
        binding = Binding(self._records[number].draw(), self._rng, self._file)
        pair = self._pairs[number].draw()
        return [
            (binding.fill(deck.draw()), binding.fill(pair), label)
            for label, deck in self._frames[number].items()
        ]


def _columns(grammar: Grammar, family: Family, split: Split) -> list[dict[str, Sequence[str]]]:
    """Return the columns of every record that a family may draw."""
    words = grammar.words.get(split, {})
    found: list[dict[str, Sequence[str]]] = []
    for name in family.tables:
        table = grammar.tables[name][split]
        for record in table.records:
            pronoun = record.get("pronoun", ("it",))[0]
            if pronoun not in _AGREEMENT:
                raise DataError(
                    f"must be one of {', '.join(_AGREEMENT)}, but is {pronoun!r}.",
                    field=f"tables.{name}.{split}.pronoun",
                )
            agreement = {key: (word,) for key, word in _AGREEMENT[pronoun].items()}
            found.append({**agreement, **words, **table.shared, **record})
    return found
