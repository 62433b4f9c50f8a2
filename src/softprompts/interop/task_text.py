"""A task's template as plain text, with the rows of a prompt as words in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias, final

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.template import MARK, TOKEN, Piece
from softprompts.errors import DataError
from softprompts.interop.baked import Baked
from softprompts.interop.probes import Probe, readable
from softprompts.readouts.cloze import ClozeReadout
from softprompts.training.trainable import Track

Atom: TypeAlias = tuple[str, bool]
"""A stretch of text, and whether it is the name of a field."""


@final
@dataclass(frozen=True)
class TaskText:
    """How a task is written for a tokenizer that knows its rows as words.

    Attributes:
        template: a format string of Python with the template's fields.
        pair: that of the second text, for encoders that read pairs.
        adds_special_tokens: whether the tokenizer puts its special tokens around the text.
        chat: the same input as a chat template, for decoders.
        fields: names of the fields.
    """

    template: str
    pair: str | None
    adds_special_tokens: bool
    chat: str | None
    fields: tuple[str, ...]

    def encode(self, tokenizer: Any, values: Mapping[str, str]) -> list[int]:
        """Return the token ids of one input."""
        texts = [text.format(**values) for text in (self.template, self.pair) if text is not None]
        ids: list[int] = tokenizer(*texts, add_special_tokens=self.adds_special_tokens)["input_ids"]
        return ids

    def encode_chat(self, tokenizer: Any, values: Mapping[str, str]) -> list[int]:
        """Return the token ids of one input, written by the chat template."""
        first = next(iter(values.values()), "")
        said = [{"role": "user", "content": first}]
        text = tokenizer.apply_chat_template(
            said, chat_template=self.chat, tokenize=False, **(values if len(values) > 1 else {})
        )
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def write_task(
    backbone: Backbone,
    given: tuple[Track, Baked],
    words: Sequence[str],
    tokenizer: Any,
    probes: Sequence[Probe],
) -> TaskText:
    """Write a task's template with words for its rows, and see that it is read as the library does.

    The tokens that the tokenizer adds by itself are left to it, if they can be.
    """
    track, baked = given
    mask = _mask(backbone, track)
    fields = readable(track).template.fields + (("mask",) if mask is None else ())
    found: list[list[int]] = []
    for space in ("", " "):
        writer = _Writer(backbone, track, baked, words, space, mask)
        whole = writer.write(is_spelled=True) if backbone.family == "decoder" else None
        chat = None if whole is None else _jinja(whole[0], len(fields) == 1)
        for is_spelled in (False, True) if whole else (False,):
            texts = [_format(text) for text in writer.write(is_spelled=is_spelled)]
            pair = texts[1] if len(texts) > 1 else None
            text = TaskText(texts[0], pair, not is_spelled, chat, fields)
            found = [text.encode(tokenizer, _filled(backbone, probe)) for probe in probes]
            chats = [text.encode_chat(tokenizer, probe.values) for probe in probes if chat]
            expected = [probe.ids for probe in probes]
            if found == expected and chats in ([], expected):
                return text
    raise DataError(
        f"template {readable(track).template.source!r} must be read alike with words for its "
        f"rows, but the tokenizer of {backbone.name} makes {found[0]} of it, not {probes[0].ids}: "
        "a space beside `{prompt}` may help."
    )


def _mask(backbone: Backbone, track: Track) -> str | None:
    """Return what stands for the mask; `None` where labels want different numbers of masks."""
    readout = track.readout
    if not isinstance(readout, ClozeReadout):
        return ""
    counts = {len(ids) for ids in readout.labels}
    return None if len(counts) != 1 else backbone.tokenizer.mask_token * counts.pop()


def _filled(backbone: Backbone, probe: Probe) -> dict[str, str]:
    """Return the values of a probe, with as many masks as it has."""
    count = probe.batch.slots.shape[1]
    return {**probe.values, **({"mask": backbone.tokenizer.mask_token * count} if count else {})}


class _Writer:
    """Writes a template with the rows' words in their places."""

    def __init__(
        self,
        backbone: Backbone,
        track: Track,
        baked: Baked,
        words: Sequence[str],
        space: str,
        mask: str | None,
    ) -> None:
        self.tokenizer, self.frame, self.mask = backbone.tokenizer, backbone.frame, mask
        self.after_bos = track.prompt.position.after_bos
        template = readable(track).template
        self.has_frame, texts = template.has_frame, list(map(list, template.texts))
        if len(texts) == 2 and (backbone.family == "decoder" or not self.frame.middle):
            texts = [[*texts[0], Piece("\n"), *texts[1]]]
        rest = iter(words)
        self.front = "".join(islice(rest, baked.num_front))
        marks = iter(["".join(islice(rest, count)) for count in baked.num_marked])
        self.texts = [[self._atom(piece, marks) for piece in text] for text in texts]
        self.behind = "".join(rest)
        self.space = space if self.front else ""

    def write(self, *, is_spelled: bool) -> list[list[Atom]]:
        """Return the atoms of each text."""
        first, *others = self.texts
        start, stop = self._spell(self.frame.prefix), self._spell(self.frame.single_suffix)
        begin, end = [(start, False)], [(stop, False)]
        if not self.has_frame:  # a chat spells its special tokens itself
            size = _leading(first, start)
            begin, first, end = first[:size], first[size:], []
        if not is_spelled:
            begin = end = []
        rows = [(self.front + self.space, False)]
        first = [*begin, *rows, *first] if self.after_bos else [*rows, *begin, *first]
        texts = [first, *others]
        texts[-1] = [*texts[-1], (self.behind, False), *end]
        return texts

    def _atom(self, piece: Piece, marks: Iterator[str]) -> Atom:
        if piece.name == MARK:
            return next(marks), False
        if piece.name == "mask":
            return ("mask", True) if self.mask is None else (self.mask, False)
        is_field = bool(piece.name) and piece.name != TOKEN
        return piece.name if is_field else piece.text, is_field

    def _spell(self, ids: Sequence[int]) -> str:
        return "".join(self.tokenizer.convert_ids_to_tokens(list(ids)))


def _leading(atoms: Sequence[Atom], text: str) -> int:
    """Return how many of the first atoms are a text; 0 where they are not."""
    sizes = (n for n in range(len(atoms)) if text and "".join(a for a, _ in atoms[:n]) == text)
    return next(sizes, 0)


def _format(atoms: Sequence[Atom]) -> str:
    """Return atoms as a format string of Python."""
    return "".join(
        f"{{{text}}}" if is_field else text.replace("{", "{{").replace("}", "}}")
        for text, is_field in atoms
    )


def _jinja(atoms: Sequence[Atom], is_said: bool) -> str:
    """Return atoms as a chat template: the only field is what was said last, others are given."""
    parts = []
    for text, is_field in atoms:
        value = json.dumps(text, ensure_ascii=False)
        if is_field:
            value = "messages[-1]['content']" if is_said else text
        parts.append(f"{{{{ {value} }}}}" if text else "")
    return "".join(parts)
