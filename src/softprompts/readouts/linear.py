"""Linear readout: a trained head on a pooled hidden state."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn

from softprompts.encoding.batch import Batch
from softprompts.encoding.inputs import EncodedExample
from softprompts.errors import BackboneError
from softprompts.examples import Example
from softprompts.prompts.splice import Spliced
from softprompts.readouts.base import Readout, Setting, template_for

_AUTO = {"encoder": "mean", "encoder-decoder": "mean", "decoder": "last"}


@final
class LinearReadout(Readout):
    """Scores `W h + b` of a pooled hidden state `h`; the head is trained.

    `cls` reads the first token, `mean` averages the input's own tokens and never a prompt row,
    `last` reads the last position of the sequence. `auto` is `mean` for encoders and the encoder
    half of encoder-decoders, and `last` for decoders. Where rows bring their own choices, each
    choice is an input of its own and the head has one output.

    Args:
        setting: backbone, task and tokenization.
        pool: `auto`, `cls`, `mean` or `last`.

    Raises:
        BackboneError: if `pool` makes no sense for the backbone.
        DataError: if the task has no right template.
    """

    needs_head = False

    def __init__(self, setting: Setting, *, pool: str = "auto") -> None:
        super().__init__(setting)
        backbone = setting.backbone
        self.pool = _AUTO[backbone.family] if pool == "auto" else pool
        self.summary_name = self.pool
        if self.pool == "cls" and (backbone.family == "decoder" or not backbone.frame.prefix):
            raise BackboneError(
                f"`readout.pool` must not be 'cls' for {backbone.name}: its inputs have no leading "
                "special token that sees the others. Use 'mean' or 'last'."
            )
        if self.pool == "last" and backbone.family != "decoder":
            raise BackboneError(
                f"`readout.pool` must not be 'last' for {backbone.name}: only a decoder's last "
                "position has read the whole input. Use 'mean' or 'cls'."
            )
        self.format = setting.format
        self.template = template_for(setting.format, "linear")
        self.tokenization = setting.tokenization
        outputs = len(self.format.labels) or 1
        weight = torch.empty(outputs, backbone.hidden_size)
        self.weight = nn.Parameter(weight.normal_(0.0, 0.02, generator=setting.generator))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def encode(self, example: Example) -> EncodedExample:
        """Return one input, or one per choice."""
        values = self.template.values(example.fields, example.source)
        inputs, is_cut = [], False
        for column, choice in enumerate(example.choices or ("",)):
            item, cut = self.tokenization.encode(
                self.template, {**values, "choice": choice}, source=example.source
            )
            inputs.append(replace(item, column=column) if self.format.has_choices else item)
            is_cut |= cut
        columns = len(example.choices) or len(self.format.labels)
        return EncodedExample(tuple(inputs), columns, example.answers, is_cut)

    def places(self, batch: Batch, spliced: Spliced) -> Tensor:
        """Return the pooled positions. Shape `(inputs, 1)`, or `(inputs, tokens)` for the mean."""
        if self.pool == "cls":
            return spliced.token_positions[:, :1]
        if self.pool == "last":
            return spliced.last_active(spliced.lengths)[:, None]
        return spliced.token_positions

    def summary(self, values: Tensor, batch: Batch) -> Tensor:
        """Return the pooled states, float32. Shape `(inputs, hidden)`."""
        values = values.float()
        if self.pool != "mean":
            return values[:, 0]
        mask = batch.attention_mask.to(values)
        shares = mask / mask.sum(dim=1, keepdim=True)  # (inputs, tokens)
        return (shares[:, None] @ values)[:, 0]

    def scores(self, values: Tensor, batch: Batch) -> Tensor:
        """Return `(batch, labels)` scores from `(inputs, hidden)` pooled states."""
        outputs = values @ self.weight.T + self.bias  # (inputs, labels), or (inputs, 1)
        if not self.format.has_choices:
            return outputs
        scores = outputs.new_full(batch.valid.shape, -torch.inf)
        return scores.index_put((batch.examples, batch.columns), outputs[:, 0])
