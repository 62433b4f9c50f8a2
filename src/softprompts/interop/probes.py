"""Example inputs as the library reads them: what an export is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.encoding.batch import Batch, collate
from softprompts.encoding.inputs import EncodedExample
from softprompts.errors import PromptError
from softprompts.examples import Example
from softprompts.prompts.positions.base import Edges
from softprompts.prompts.splice import Spliced, splice
from softprompts.readouts.cloze import ClozeReadout
from softprompts.readouts.text import TextReadout
from softprompts.readouts.writing import WritingReadout
from softprompts.training.trainable import Track

TEXTS = ("a walk along the river", 'Who said "no" in 1972?')
"""What the fields of a template are filled with."""


@final
@dataclass(frozen=True, eq=False)
class Probe:
    """One input as the library reads it.

    Attributes:
        values: text by field.
        batch: the input without rows.
        spliced: its embeddings, with the rows in place.
        ids: its tokens, with the ids of the rows in place.
    """

    values: Mapping[str, str]
    batch: Batch
    spliced: Spliced
    ids: list[int]

    @property
    def decoder_ids(self) -> Tensor:
        """Label tokens that the decoder of an encoder-decoder is given. Shape `(1, width)`."""
        return self.batch.targets.tokens[:1]


def readable(track: Track) -> TextReadout | ClozeReadout | WritingReadout:
    """Return a readout whose task a language model does by itself."""
    readout = track.readout
    if not isinstance(readout, TextReadout | ClozeReadout | WritingReadout):
        raise PromptError(
            "`readout` must be text, cloze or writing for a model that does the task by itself, "
            "but is linear: its trained head is no part of a language model."
        )
    if isinstance(readout, WritingReadout) and readout.has_chats:
        raise PromptError(
            f"rows of {track.format.name} must have fields of one template to be exported, but are "
            "chats with turns of their own: use --to peft."
        )
    return readout


@torch.no_grad()
def read_probes(
    backbone: Backbone, track: Track, rows: Tensor, row_ids: Sequence[int]
) -> list[Probe]:
    """Return example inputs with rows in place.

    `row_ids` are the token ids that stand for the rows. Shape of `rows` `(length, embedding)`.
    """
    readout, found = readable(track), []
    for text in TEXTS:
        values = dict.fromkeys(readout.template.fields, text)
        choices = TEXTS if track.format.has_choices else ()
        example = Example(values, (), choices, (text,), source="a probe")
        item = readout.encode(example).inputs[0]
        if isinstance(readout, TextReadout | WritingReadout):
            item = replace(readout.encode_input(example), targets=item.targets[:1])
        encoded = EncodedExample((item,), 1 + max(t.column for t in item.targets), (), False)
        batch = collate([encoded], backbone.tokenizer.pad_token_id).to(backbone.device)
        output = track.prompt(Edges(batch.start, batch.end, batch.marks))
        tokens = (backbone.embed(batch.ids), batch.attention_mask, batch.segments)
        spliced = splice(*tokens, rows[None].to(backbone.device), output.anchors)
        ids = torch.zeros_like(spliced.attention_mask)
        ids.scatter_(1, spliced.token_positions, batch.ids)
        ids.scatter_(1, spliced.row_positions, torch.tensor([list(row_ids)], device=ids.device))
        found.append(Probe(values, batch, spliced, ids[0].tolist()))
    return found


@torch.no_grad()
def library_logits(backbone: Backbone, probe: Probe) -> Tensor:
    """Return the logits that the library's own reading of a probe gives. Shape `(places, vocab)`.

    Of an encoder-decoder, places are those of the decoder.
    """
    spliced, decoder = probe.spliced, None
    places = torch.arange(spliced.embeddings.shape[1], device=backbone.device)[None]
    if backbone.family == "encoder-decoder":
        ids = backbone.shift_right(probe.decoder_ids)
        decoder = DecoderInputs(ids, torch.zeros(1, dtype=torch.long), torch.ones_like(ids))
        places = torch.arange(ids.shape[1], device=backbone.device)[None]
    inputs = (spliced.embeddings, spliced.attention_mask, spliced.segment_ids)
    return backbone.logits(*inputs, gather=places, decoder=decoder)[0].float().cpu()


def stands_before_bos(backbone: Backbone, probes: Sequence[Probe]) -> bool:
    """Return whether a row stands before the tokens that a decoder's input begins with."""
    prefix = backbone.frame.prefix
    if backbone.family != "decoder" or not prefix:
        return False
    return any(
        tuple(probe.batch.ids[0, : len(prefix)].tolist()) == prefix
        and int(probe.spliced.row_positions.min()) < int(probe.spliced.token_positions[0, 0])
        for probe in probes
    )
