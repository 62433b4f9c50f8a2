"""How a row is put to a language model: by a template, behind an instruction or demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn

from softprompts.encoding.chat import filled
from softprompts.encoding.inputs import EncodedInput
from softprompts.encoding.template import Piece, Role, Template
from softprompts.errors import DataError
from softprompts.readouts.base import Setting, template_for

_LEAST_SHARE = 2
"""The longest row keeps what it needs of the context, but no more than the context by this."""


@final
class Asking(nn.Module):
    """Encodes rows by a template, and what stands in front of all of them.

    An instruction is text at the front of the input; in a chat, of the first turn of the user.
    Demonstrations are answered rows at the front: in a chat, turns. Their tokens are part of the
    state, so that a finished run can be read again without its training rows.

    Args:
        setting: backbone, task and what stands in front.
        name: which of the task's templates.

    Raises:
        DataError: if the task has no right template, or no instruction where one is wanted.
    """

    shown: Tensor

    def __init__(self, setting: Setting, name: str) -> None:
        super().__init__()
        self.tokenization = setting.tokenization
        template = template_for(setting.format, name)
        if setting.context == "instruction":
            template = _with_instruction(template, setting.format.instruction, setting.format.name)
        self.form = self.tokenization.form(template)
        if setting.context == "demonstrations":
            self.register_buffer("shown", torch.zeros(0, dtype=torch.long))
            self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]
        self.has_demonstrations = setting.context == "demonstrations"

    def encode(
        self, values: Mapping[str, str], source: str, **given: Any
    ) -> tuple[EncodedInput, bool]:
        """Encode one row; see `Tokenization.encode` for what may be given.

        Returns:
            The input, and whether a field was cut.

        Raises:
            DataError: if what must not be cut is too long.
        """
        ids = self.shown.tolist() if self.has_demonstrations else []
        if not ids:
            return self.tokenization.encode(self.form.whole, values, source=source, **given)
        reserved = given.pop("num_reserved", 0) + len(ids)
        item, is_cut = self.tokenization.encode(
            self.form.item, values, source=source, num_reserved=reserved, **given
        )
        place = len(self.tokenization.frame.prefix) if self.form.item.has_frame else 0
        return item.behind(ids, place, Role.TEMPLATE), is_cut

    def words(self, text: str) -> tuple[int, ...]:
        """Return the tokens of an answer, as they stand behind the template."""
        return self.tokenization.words(text, self.form.tail, self.form.lead)

    def show(
        self, rows: Sequence[tuple[Mapping[str, str], tuple[int, ...], str]], longest: int
    ) -> int:
        """Put answered rows in front of all inputs, in order, each that still fits.

        Args:
            rows: values of the template's fields, tokens of the answer behind it, and the text of
                the answer where the template has a mask for it.
            longest: tokens of the longest input, for which the context keeps room.

        Returns:
            How many there are.
        """
        room = self.tokenization.room
        left = None if room is None else room - min(longest, room // _LEAST_SHARE)
        ids = list(self.tokenization.literal(self.form.head))
        closing = self.tokenization.literal(self.form.closing)
        count = 0
        for values, answer, word in rows:
            item = replace(filled(self.form.item, {"mask": word}), has_frame=False)
            encoded, _ = self.tokenization.encode(item, values)
            one = (*encoded.ids, *answer, *closing)
            if left is None or len(ids) + len(one) <= left:
                ids += one
                count += 1
        self.shown = torch.tensor(ids if count else [], dtype=torch.long, device=self.shown.device)
        return count


def _with_instruction(template: Template, text: str, task: str) -> Template:
    """Put an instruction in front, or into the first turn of the user."""
    if not text:
        raise DataError(
            f"`task.instruction` must be given for method instruction, since {task} has none."
        )
    place = template.roles.index("user") if template.roles else 0
    texts = list(template.texts)
    texts[place] = (Piece(f"{text}\n"), *texts[place])
    return replace(template, texts=tuple(texts))


def _make_room(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let a state of any number of tokens be loaded."""
    if f"{prefix}shown" in state:
        module.register_buffer("shown", torch.zeros_like(state[f"{prefix}shown"]))
