"""Encoded rows: what a readout makes of an example, before tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """Tokens whose likelihood is one column's score.

    Attributes:
        column: the label or choice that the tokens spell.
        tokens: the label's tokens; token `i` is read at slot `i` of its input.
    """

    column: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EncodedInput:
    """One token sequence for the backbone.

    Attributes:
        ids: token ids, special tokens included, without padding.
        segments: segment id per token.
        roles: `Role` per token.
        start: index before which the prompt's first rows stand.
        end: index before which its last rows stand.
        column: the choice that this input scores, or -1 when it scores every label.
        slots: indices of the mask tokens (cloze), else empty.
        num_continuation_tokens: label tokens after `end` (decoders).
        targets: what is read from this input by a language head.
        marks: indices before which rows at marked places stand, in order.
        starts: 1 for a token that starts a word, 0 for one that goes on with it; empty where that
            is not known, and each token counts as a word.
        fields: name of the row's field that a token comes from, or ""; empty where not known.
        lead: tokens at the front that are the same in all inputs of a run, as demonstrations are.
    """

    ids: tuple[int, ...]
    segments: tuple[int, ...]
    roles: tuple[int, ...]
    start: int
    end: int
    column: int = -1
    slots: tuple[int, ...] = ()
    num_continuation_tokens: int = 0
    targets: tuple[Target, ...] = ()
    marks: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    fields: tuple[str, ...] = ()
    lead: int = 0

    def followed_by(self, tokens: Sequence[int], role: int) -> EncodedInput:
        """Return the input with label tokens as its continuation."""
        size = len(tokens)
        return replace(
            self,
            ids=(*self.ids, *tokens),
            segments=(*self.segments, *([0] * size)),
            roles=(*self.roles, *([role] * size)),
            starts=(*self.starts, *([1] * size)),
            fields=(*self.fields, *([""] * size)),
            num_continuation_tokens=size,
        )

    @property
    def alone(self) -> EncodedInput:
        """The input without label tokens: what text is written after."""
        size = len(self.ids) - self.num_continuation_tokens
        names = ("ids", "segments", "roles", "starts", "fields")
        parts: dict[str, Any] = {name: getattr(self, name)[:size] for name in names}
        return replace(self, **parts, num_continuation_tokens=0, targets=())

    def behind(self, shown: Sequence[int], place: int, role: int) -> EncodedInput:
        """Return the input with tokens before the one at `place`; rows keep their tokens."""
        size = len(shown)

        def moved(places: Sequence[int]) -> tuple[int, ...]:
            return tuple(one + size * (one >= place) for one in places)

        def put(values: tuple[Any, ...], more: Sequence[Any]) -> tuple[Any, ...]:
            return (*values[:place], *more, *values[place:]) if values else values

        segment = self.segments[place] if place < len(self.segments) else 0
        return replace(
            self,
            ids=put(self.ids, shown),
            segments=put(self.segments, [segment] * size),
            roles=put(self.roles, [role] * size),
            starts=put(self.starts, [1] * size),
            fields=put(self.fields, [""] * size),
            start=self.start if self.start < place else self.start + size,
            end=self.end + size,
            slots=moved(self.slots),
            marks=moved(self.marks),
            lead=place + size,
        )


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """One example as the inputs that score its columns.

    Attributes:
        inputs: one or more token sequences.
        num_columns: labels, or this example's choices.
        answers: the columns that are right; empty when unlabelled.
        is_cut: whether a field had to be shortened.
    """

    inputs: tuple[EncodedInput, ...]
    num_columns: int
    answers: tuple[int, ...]
    is_cut: bool

    @property
    def num_tokens(self) -> int:
        """Tokens of the longest input, for sorting by length."""
        return max([len(item.ids) for item in self.inputs])
