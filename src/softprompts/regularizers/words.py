"""The words of an example's fields, as tokens that perturbations may replace."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from softprompts.encoding.batch import Batch
from softprompts.encoding.inputs import EncodedInput
from softprompts.encoding.template import Role


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a field.

    It has the numbers of its tokens among the example's field tokens, and their ids.
    """

    numbers: tuple[int, ...]
    ids: tuple[int, ...]
    field: str


def words_of(batch: Batch, kept_fields: Collection[str] = ()) -> list[list[Word]]:
    """Return the words of each example that can be replaced in all of its inputs alike.

    One that an input of the example spells in other tokens, where it meets the template, is left
    out.
    """
    inputs: list[list[EncodedInput]] = [[] for _ in range(batch.size)]
    for item, example in zip(batch.items, batch.examples.tolist(), strict=True):
        inputs[example].append(item)
    return [
        [word for word in _shared_words(items) if word.field not in kept_fields] for items in inputs
    ]


def _shared_words(items: list[EncodedInput]) -> list[Word]:
    """Return the words of the longest input that the others do not contradict."""
    spelled = [
        [t for t, role in zip(i.ids, i.roles, strict=True) if role == Role.FIELD] for i in items
    ]
    longest = max(range(len(items)), key=lambda i: len(spelled[i]))
    return [
        word
        for word in _words(items[longest])
        if all(
            ids[number] == token
            for ids in spelled
            for number, token in zip(word.numbers, word.ids, strict=True)
            if number < len(ids)
        )
    ]


def _words(item: EncodedInput) -> list[Word]:
    """Return the words of one input."""
    words: list[Word] = []
    number = 0
    for place, (token, role) in enumerate(zip(item.ids, item.roles, strict=True)):
        if role != Role.FIELD:
            continue
        field = item.fields[place] if item.fields else ""
        is_start = item.starts[place] if item.starts else 1
        if words and not is_start:
            last = words.pop()
            words.append(Word((*last.numbers, number), (*last.ids, token), last.field))
        else:
            words.append(Word((number,), (token,), field))
        number += 1
    return words
