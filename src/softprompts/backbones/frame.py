"""What a backbone asks of a tokenizer, and the special tokens that it puts around texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from softprompts.errors import BackboneError

_PROBES = ("the", "of")


@final
@dataclass(frozen=True)
class Frame:
    """Special tokens around an input, found by probing a tokenizer.

    One text is `prefix, text, single_suffix`; a pair is `prefix, first, middle, second, suffix`.
    Of a pair, `second` and `suffix` carry the second segment id; all else carries the first.

    Attributes:
        prefix: before the first text, such as `[CLS]`.
        middle: between the texts of a pair, such as `[SEP]`.
        suffix: after the second text of a pair.
        single_suffix: after a text that stands alone.
        segments: segment ids of the first and the second text; `(0, 0)` for a model without
            token types.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    single_suffix: tuple[int, ...]
    segments: tuple[int, int]

    def wrap(
        self, first: Sequence[int], second: Sequence[int] | None = None
    ) -> tuple[list[int], list[int]]:
        """Return token ids and segment ids of one text or a pair, special tokens included."""
        if second is None:
            ids = [*self.prefix, *first, *self.single_suffix]
            return ids, [self.segments[0]] * len(ids)
        head = [*self.prefix, *first, *self.middle]
        tail = [*second, *self.suffix]
        return head + tail, [self.segments[0]] * len(head) + [self.segments[1]] * len(tail)


def probe_frame(tokenizer: Any, num_segments: int) -> Frame:
    """Return the frame of a tokenizer, by encoding one text and one pair.

    A model of fewer than two `num_segments` has none. A tokenizer that builds its inputs in a way
    that no frame can express is refused.
    """
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in _PROBES)
    single, pair = (
        tokenizer(*texts, return_token_type_ids=True) for texts in (_PROBES[:1], _PROBES)
    )
    ids, owners = single["input_ids"], single.sequence_ids(0)
    if 0 not in owners or 1 not in pair.sequence_ids(0):
        raise BackboneError(f"tokenizer must make tokens of {_PROBES}, but makes {ids}.")
    start, stop = _span(owners, 0)
    pair_ids, pair_owners = pair["input_ids"], pair.sequence_ids(0)
    first_start, first_stop = _span(pair_owners, 0)
    second_start, second_stop = _span(pair_owners, 1)
    types = pair["token_type_ids"]
    has_segments = num_segments > 1
    frame = Frame(
        prefix=tuple(ids[:start]),
        middle=tuple(pair_ids[first_stop:second_start]),
        suffix=tuple(pair_ids[second_stop:]),
        single_suffix=tuple(ids[stop:]),
        segments=(types[first_start], types[second_start]) if has_segments else (0, 0),
    )
    expected = [(single, frame.wrap(first)), (pair, frame.wrap(first, second))]
    for encoded, (built_ids, built_segments) in expected:
        is_typed = not has_segments or encoded["token_type_ids"] == built_segments
        if encoded["input_ids"] != built_ids or not is_typed:
            raise BackboneError(
                "tokenizer must put the same special tokens around one text and a pair, but gives "
                f"{encoded['input_ids']} with segments {encoded['token_type_ids']}."
            )
    return frame


def _span(owners: Sequence[int | None], text: int) -> tuple[int, int]:
    """Return the first index of `text` and the index after its last."""
    places = [index for index, owner in enumerate(owners) if owner == text]
    return places[0], places[-1] + 1


def check_fast(tokenizer: Any, name: str) -> None:
    """Check that a tokenizer says which characters a token covers."""
    if not getattr(tokenizer, "is_fast", False):
        raise BackboneError(
            f"backbone {name!r} must have a fast tokenizer, since only those say which "
            f"characters a token covers, but has {type(tokenizer).__name__}."
        )


def set_padding(tokenizer: Any, model: Any) -> None:
    """Let a tokenizer pad at the right, with a token that a model's table has.

    Masks hide it, so any one will do.
    """
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    num_rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id < num_rows:
        return
    end = tokenizer.eos_token_id
    is_usable = end is not None and end < num_rows
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(end if is_usable else 0)
