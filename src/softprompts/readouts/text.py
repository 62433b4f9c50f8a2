"""Text readout: label strings scored by likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from softprompts.encoding.batch import Batch
from softprompts.encoding.inputs import EncodedExample, EncodedInput, Target
from softprompts.encoding.template import CHAT
from softprompts.errors import BackboneError, DataError
from softprompts.examples import Example
from softprompts.prompts.splice import Spliced
from softprompts.readouts.asking import Asking
from softprompts.readouts.base import Readout, Setting, label_words
from softprompts.readouts.likelihood import check_writer, target_places, target_scores


@final
class TextReadout(Readout):
    """Scores label strings by the likelihood that a language model gives them.

    An encoder-decoder reads the input once and scores each string with its end token. A decoder
    reads the string after the input (and after rows that stand behind it); strings that are one
    token long, or share all but their last token, share an input. The head stays frozen.

    As a `chat`, the input is the turn of a user in the form of the tokenizer's chat template, and
    the string the answer of the assistant.

    Args:
        setting: backbone, task and tokenization.
        is_length_normalized: mean instead of sum over a string's tokens.
        objective: `likelihood` trains `-score` of the right string, as sequence-to-sequence
            training does; `ranking` trains the cross-entropy among the task's labels.
        has_end_token: score the end token too. `None` does so for encoder-decoders, and for
            decoders where one string is the beginning of another.
        form: `plain` text, or a `chat`; a template that has turns is a chat anyway.

    Raises:
        BackboneError: if the backbone has no language head, or no end token that is needed.
        DataError: if the task has no right template, or a label no words of its own.

    Reference:
        Raffel et al. (2020), arXiv 1910.10683, section 2.4, for labels as strings.
    """

    needs_head = True
    has_parameters = False

    def __init__(
        self,
        setting: Setting,
        *,
        is_length_normalized: bool = False,
        objective: str = "likelihood",
        has_end_token: bool | None = None,
        form: str = "plain",
    ) -> None:
        super().__init__(setting)
        backbone = setting.backbone
        check_writer(backbone, "text")
        self.family = backbone.family
        self.end_token = backbone.tokenizer.eos_token_id
        self.format = setting.format
        self.asking = Asking(setting, CHAT if form == CHAT else "text")
        self.template = self.asking.form.whole
        self.tokenization = setting.tokenization
        self.is_length_normalized = is_length_normalized
        self.objective = objective
        self.has_end_token = has_end_token
        self.words = label_words(setting.format, setting.format.verbalizer)
        self.labels = self._spell(self.words) if self.words else ()

    def encode(self, example: Example) -> EncodedExample:
        """Return one input, or for decoders one per distinct beginning of the strings."""
        labels = self.labels or self._spell(example.choices)
        values = self.template.values(example.fields, example.source)
        groups: dict[tuple[int, ...], list[Target]] = {}
        for column, ids in enumerate(labels):
            beginning = ids[:-1] if self.family == "decoder" else ()
            groups.setdefault(beginning, []).append(Target(column, ids))
        inputs: list[EncodedInput] = []
        is_cut, longest = False, max(map(len, groups), default=0)
        for beginning, targets in groups.items():
            given = {"continuation": beginning, "longest": longest}
            item, cut = self.asking.encode(values, example.source, **given)
            inputs.append(replace(item, targets=tuple(targets)))
            is_cut |= cut
        return EncodedExample(tuple(inputs), len(labels), example.answers, is_cut)

    def trained_on(self, encoded: EncodedExample) -> EncodedExample:
        """Return the right strings alone, where their likelihood is trained: others have no part.

        A decoder then does not read inputs that wrong strings are written after.
        """
        if self.objective == "ranking" or not encoded.answers:
            return encoded
        kept = [
            replace(
                item, targets=tuple(one for one in item.targets if one.column in encoded.answers)
            )
            for item in encoded.inputs
        ]
        return replace(encoded, inputs=tuple(item for item in kept if item.targets))

    def encode_input(self, example: Example, num_new_tokens: int = 0) -> EncodedInput:
        """Return the input alone, without label tokens: what text is written after.

        Args:
            example: the example.
            num_new_tokens: tokens to be written, for which a decoder's context keeps room.

        Raises:
            DataError: as `encode` does.
        """
        values = self.template.values(example.fields, example.source)
        reserved = num_new_tokens if self.family == "decoder" else 0
        return self.asking.encode(values, example.source, num_reserved=reserved)[0]

    def show(self, examples: Sequence[Example], longest: int) -> int:
        """Put answered examples in front of all inputs; see the base class."""
        self.num_shown = self.asking.show(list(map(self._answered, examples)), longest)
        return self.num_shown

    def _answered(self, example: Example) -> tuple[Mapping[str, str], tuple[int, ...], str]:
        """Return the values of an example, and its first right string."""
        words = self.words or example.choices
        answer = self.asking.words(words[example.answers[0]])
        return self.template.values(example.fields, example.source), answer, ""

    def places(self, batch: Batch, spliced: Spliced) -> Tensor:
        """Return where label tokens are predicted; see `target_places`."""
        return target_places(self.family, batch, spliced)

    def scores(self, values: Tensor, batch: Batch) -> Tensor:
        """Return `(batch, labels)` scores from `(reads, slots, vocab)` logits."""
        return target_scores(
            values, batch, self.family, is_length_normalized=self.is_length_normalized
        )

    def loss(self, scores: Tensor, batch: Batch) -> Tensor:
        """Return the loss of the objective. Shape `(batch,)`."""
        if self.objective == "ranking":
            return super().loss(scores, batch)
        return -scores.masked_fill(~batch.answers, -torch.inf).logsumexp(dim=1)

    def _spell(self, words: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        """Return the tokens of label strings, with the end token where it is scored."""
        labels = tuple(map(self.asking.words, words))
        if len(set(labels)) < len(labels):
            raise DataError(f"label strings must differ in tokens, but are {words}.")
        has_end = self.has_end_token
        if has_end is None:
            is_beginning = any(a != b and b[: len(a)] == a for a in labels for b in labels)
            has_end = self.family == "encoder-decoder" or is_beginning
        if not has_end:
            return labels
        if self.end_token is None:
            raise BackboneError("`readout.has_end_token` needs an end token, but there is none.")
        return tuple((*ids, self.end_token) for ids in labels)
