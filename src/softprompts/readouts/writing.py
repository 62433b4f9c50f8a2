"""Writing readout: free text, trained by its likelihood and scored as it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from softprompts.backbones.families import decoder_length
from softprompts.encoding.batch import Batch
from softprompts.encoding.inputs import EncodedExample, EncodedInput, Target
from softprompts.encoding.template import CHAT, MESSAGES, TOKEN, Role, Template, spell_chat
from softprompts.errors import BackboneError, DataError
from softprompts.examples import WRITING, Example
from softprompts.prompts.splice import Spliced
from softprompts.readouts.asking import Asking
from softprompts.readouts.base import Readout, Setting
from softprompts.readouts.likelihood import check_writer, target_likelihoods, target_places

_LEAST_INPUT = 8
"""Tokens of the context that a target must leave to its input."""

_ANY_CHAT = "{role:user}{user_1}"
"""How the answer of any chat begins."""


@final
@dataclass(frozen=True)
class Decoding:
    """How a text is written after an input.

    Attributes:
        max_new_tokens: the most tokens, the end of the text among them.
        num_beams: beams of the search; 1 takes the likeliest token each time.
        temperature: draw tokens at this temperature; `None` draws nothing.
        top_p: draw among the likeliest tokens that have this probability together.
        sampling_seed: draws them, with the input's tokens, whatever stands beside it in a batch.
        stop: texts that end what is written, and are no part of it.
    """

    max_new_tokens: int
    num_beams: int
    temperature: float | None
    top_p: float
    sampling_seed: int
    stop: tuple[str, ...]


@final
class WritingReadout(Readout):
    """Trains a language model to write a text, and lets it write.

    The loss of an example is the mean of `-log p(token)` over the tokens of its first reference,
    the end of the text among them; its scores are `log p(token)`, a column each. A decoder reads
    input and reference once, an encoder-decoder the input in one half and the reference in the
    other. A reference of more than `max_new_tokens` is cut there, without an end, and counted.

    Args:
        setting: backbone, task and tokenization.
        form: `plain` text, or a `chat`; a template that has turns is a chat anyway.
        max_new_tokens: the others say how texts are written; see `Decoding`.
        num_beams: likewise.
        temperature: likewise.
        top_p: likewise.
        sampling_seed: likewise.
        stop: likewise.

    Attributes:
        decoding: how texts are written.

    Raises:
        BackboneError: if the backbone has no language head, or no end token.
        DataError: if the task has no texts to write, or no right template.
    """

    needs_head = True
    has_parameters = False

    def __init__(
        self,
        setting: Setting,
        *,
        form: str = "plain",
        max_new_tokens: int = 64,
        num_beams: int = 1,
        temperature: float | None = None,
        top_p: float = 1.0,
        sampling_seed: int = 0,
        stop: Sequence[str] = (),
    ) -> None:
        super().__init__(setting)
        backbone = setting.backbone
        check_writer(backbone, WRITING)
        if backbone.tokenizer.eos_token_id is None:
            raise BackboneError(
                f"`readout` must not be {WRITING!r} for {backbone.name}, whose tokenizer has no "
                "end token: where a text ends could not be learned."
            )
        drawing = (temperature, top_p, sampling_seed)
        self.decoding = Decoding(max_new_tokens, num_beams, *drawing, tuple(stop))
        self.family = backbone.family
        self.format, self.tokenization = setting.format, setting.tokenization
        name = CHAT if form == CHAT else WRITING
        self.has_chats = setting.format.templates.get(name) == MESSAGES
        if self.has_chats and setting.context == "demonstrations":
            raise DataError(
                f"`prompt.method` must not be in-context for {setting.format.name}, whose rows are "
                "chats with turns of their own."
            )
        self.limit = decoder_length(backbone.model)
        if backbone.family == "decoder" and self.tokenization.room is not None:
            self.limit = self.tokenization.room - _LEAST_INPUT

        def ask(template: str) -> Asking:
            """Return how chats with such turns are read; a function, so that copies share it."""
            own = replace(setting.format, templates={name: template})
            return Asking(replace(setting, format=own), name)

        self._ask, self._chats = ask, dict[str, Asking]()
        self.asking = ask(_ANY_CHAT) if self.has_chats else Asking(setting, name)
        self.template: Template = self.asking.form.whole
        self.end_token = self._end(backbone.tokenizer)

    def encode(self, example: Example) -> EncodedExample:
        """Return the input with the first reference, where there is one, as its target."""
        item, is_cut = self._input(example, self.decoding.max_new_tokens)
        if not example.references:
            return EncodedExample((item,), 1, (), is_cut)
        words = self.asking.words(example.references[0])
        if self.limit is not None and len(words) + 1 > self.limit:
            raise DataError(
                f"must be a text of at most {self.limit - 1} tokens, which fit the context, but "
                f"has {len(words)}.",
                file=example.source or None,
                field="target",
            )
        tokens = (*words, self.end_token)[: self.decoding.max_new_tokens]
        if self.family == "decoder":
            item = item.followed_by(tokens[:-1], Role.LABEL)
        item = replace(item, targets=(Target(0, tokens),))
        return EncodedExample((item,), len(tokens), (0,), is_cut or len(tokens) <= len(words))

    def encode_input(self, example: Example, num_new_tokens: int = 0) -> EncodedInput:
        """Return the input alone, with room for what is written; as `TextReadout.encode_input`."""
        return self._input(example, num_new_tokens)[0]

    def show(self, examples: Sequence[Example], longest: int) -> int:
        """Put answered examples in front of all inputs; see the base class."""
        rows = [
            (
                self.template.values(example.fields, example.source),
                self.asking.words(example.references[0]),
                "",
            )
            for example in examples
        ]
        new = self.decoding.max_new_tokens if self.family == "decoder" else 0
        self.num_shown = self.asking.show(rows, longest + new)
        return self.num_shown

    def places(self, batch: Batch, spliced: Spliced) -> Tensor:
        """Return where the reference's tokens are predicted; see `target_places`."""
        return target_places(self.family, batch, spliced)

    def scores(self, values: Tensor, batch: Batch) -> Tensor:
        """Return `log p(token)` of each reference, `-inf` behind it. Shape `(batch, width)`."""
        found = target_likelihoods(values, batch, self.family)
        return found.masked_fill(~batch.targets.mask, -torch.inf)

    def loss(self, scores: Tensor, batch: Batch) -> Tensor:
        """Return the mean of `-log p(token)` over each reference's tokens. Shape `(batch,)`."""
        mask = batch.targets.mask
        return -scores.masked_fill(~mask, 0.0).sum(dim=1) / mask.sum(dim=1)

    def _end(self, tokenizer: Any) -> int:
        """Return the token that ends a text: that of a turn in a chat, else the tokenizer's own."""
        first = next(iter(self.asking.form.closing.texts[0]), None)
        if first is None or first.name != TOKEN:
            return int(tokenizer.eos_token_id)
        return int(tokenizer.convert_tokens_to_ids(first.text))

    def _input(self, example: Example, num_new_tokens: int) -> tuple[EncodedInput, bool]:
        """Return an input with room for what is written, and whether it was cut."""
        asking = self.asking
        if self.has_chats:
            template = spell_chat(tuple(example.fields))
            if template not in self._chats:
                self._chats[template] = self._ask(template)
            asking = self._chats[template]
        values = asking.form.whole.values(example.fields, example.source)
        reserved = num_new_tokens if self.family == "decoder" else 0
        return asking.encode(values, example.source, num_reserved=reserved)
