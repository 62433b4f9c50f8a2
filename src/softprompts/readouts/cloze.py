"""Cloze readout: label words scored at mask tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

from torch import Tensor

from softprompts.encoding.batch import Batch
from softprompts.encoding.inputs import EncodedExample, Target
from softprompts.errors import BackboneError, DataError
from softprompts.examples import Example
from softprompts.prompts.splice import Spliced
from softprompts.readouts.asking import Asking
from softprompts.readouts.base import Readout, Setting, label_words
from softprompts.readouts.likelihood import target_scores


@final
class ClozeReadout(Readout):
    """Scores label words by the masked-language head, all masks of an input in one pass.

    A label of `n` tokens is read from an input with `n` masks: labels of one length share an
    input, and labels of other lengths get inputs of their own, so that the number of masks never
    gives the answer away within a score. The head is the backbone's and stays frozen.

    Args:
        setting: backbone, task and tokenization.
        is_length_normalized: mean instead of sum over a label's tokens.

    Raises:
        BackboneError: if the backbone has no trained masked-language head or no mask token.
        DataError: if the task has no right template, or a label no words of its own.

    Reference:
        Schick and Schütze (2021), arXiv 2001.07676, section 3; several masks per label in one
        pass is our choice.
    """

    needs_head = True
    has_parameters = False

    def __init__(self, setting: Setting, *, is_length_normalized: bool = True) -> None:
        super().__init__(setting)
        backbone = setting.backbone
        if backbone.family != "encoder" or not backbone.has_language_head:
            raise BackboneError(
                f"`readout` must not be 'cloze' for {backbone.name}: it has no trained "
                "masked-language head. Use 'linear'"
                + (" or 'text'." if backbone.has_language_head else ".")
            )
        if backbone.tokenizer.mask_token_id is None:
            raise BackboneError(
                f"`readout` must not be 'cloze' for {backbone.name}: no mask token."
            )
        self.format = setting.format
        self.asking = Asking(setting, "cloze")
        self.template = self.asking.form.whole
        self.tokenization = setting.tokenization
        self.is_length_normalized = is_length_normalized
        self.words = words = label_words(setting.format, setting.format.verbalizer)
        self.labels = tuple(self.tokenization.words(word) for word in words)
        if len(set(self.labels)) < len(self.labels):
            raise DataError(
                f"label words of {self.format.name} must differ in tokens, but are {words}."
            )

    def encode(self, example: Example) -> EncodedExample:
        """Return one input per number of label tokens."""
        labels = self.labels or tuple(map(self.tokenization.words, example.choices))
        values = self.template.values(example.fields, example.source)
        inputs, is_cut, longest = [], False, max(map(len, labels))
        for count in sorted(set(map(len, labels))):
            given = {"num_masks": count, "longest": longest}
            item, cut = self.asking.encode(values, example.source, **given)
            targets = tuple(Target(c, ids) for c, ids in enumerate(labels) if len(ids) == count)
            inputs.append(replace(item, targets=targets))
            is_cut |= cut
        return EncodedExample(tuple(inputs), len(labels), example.answers, is_cut)

    def show(self, examples: Sequence[Example], longest: int) -> int:
        """Put examples with their words at the mask in front; see the base class."""
        rows = []
        for example in examples:
            word = (self.words or example.choices)[example.answers[0]]
            rows.append((self.template.values(example.fields, example.source), (), word))
        self.num_shown = self.asking.show(rows, longest)
        return self.num_shown

    def places(self, batch: Batch, spliced: Spliced) -> Tensor:
        """Return where the masks went. Shape `(inputs, slots)`."""
        return spliced.token_positions.gather(1, batch.slots)

    def scores(self, values: Tensor, batch: Batch) -> Tensor:
        """Return `(batch, labels)` scores from `(inputs, slots, vocab)` logits."""
        return target_scores(
            values, batch, "encoder", is_length_normalized=self.is_length_normalized
        )
