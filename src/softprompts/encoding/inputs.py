"""Encoded rows: what a readout makes of an example, before tensors."""

from __future__ import annotations

from dataclasses import dataclass


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
        return max(len(item.ids) for item in self.inputs)
