"""Texts that a prompt lets its backbone write, in batches of like length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias, final

import torch
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.batch import Batch, collate
from softprompts.encoding.inputs import EncodedExample
from softprompts.errors import BackboneError
from softprompts.prompts.prompt import Prompt
from softprompts.readouts.writing import WritingReadout
from softprompts.seeding import generator
from softprompts.training.forward import Part, write

Writer: TypeAlias = tuple[Prompt, WritingReadout]
"""A prompt, and the readout that says how it writes."""

_PLAIN = {
    "do_sample": False,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "early_stopping": False,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
}
"""What a model's own settings for generation must not change unsaid."""


def without_targets(row: EncodedExample) -> EncodedExample:
    """Return what a text is written after."""
    return EncodedExample((row.inputs[0].alone,), 1, (), False)


def write_batch(
    backbone: Backbone, tracks: Sequence[Writer], rows: Sequence[Sequence[EncodedExample]]
) -> list[str]:
    """Return the texts that are written after some inputs, by one prompt or by several together.

    Several take, for each next token, the mean of their probabilities.

    Args:
        backbone: the model.
        tracks: prompts and the readouts that say how texts are written, all the same way.
        rows: the inputs, as each reads them, without targets; of one length where tokens are drawn
            or several write, and the backbone cannot read padding before them.

    Raises:
        BackboneError: if the context has no room for the texts, or several write inputs of
            different lengths that the backbone cannot pad.
    """
    pad = backbone.tokenizer.pad_token_id
    batches = [collate(own, pad).to(backbone.device) for own in rows]
    pairs = zip(tracks, batches, strict=True)
    parts = [Part(prompt, readout, batch) for (prompt, readout), batch in pairs]
    readout = tracks[0][1]
    options = write_options(backbone, readout, batches)
    ids = write(backbone, parts, **options)[: len(rows[0])]
    texts: list[str] = backbone.tokenizer.batch_decode(ids, skip_special_tokens=True)
    for stop in readout.decoding.stop:
        texts = [text.partition(stop)[0] for text in texts]
    return [text.strip() for text in texts]


def write_options(
    backbone: Backbone, readout: WritingReadout, batches: Sequence[Batch]
) -> dict[str, Any]:
    """Return arguments of `generate` of transformers.

    Args:
        backbone: what writes.
        readout: says how.
        batches: the inputs, as each prompt reads them; those of the first draw for all.
    """
    tokenizer, num_writers, decoding = backbone.tokenizer, len(batches), readout.decoding
    options: dict[str, Any] = {
        **_PLAIN,
        "eos_token_id": sorted({tokenizer.eos_token_id, readout.end_token}),
        "max_new_tokens": decoding.max_new_tokens,
        "num_beams": decoding.num_beams,
    }
    if decoding.stop:
        options |= {"stop_strings": list(decoding.stop), "tokenizer": tokenizer}
    processors: list[LogitsProcessor] = []
    if num_writers > 1:
        num_rows = sum(len(batch.items) for batch in batches) * decoding.num_beams
        processors.append(MeanOfWriters(num_writers, num_rows))
    if decoding.temperature is not None:
        processors += [
            TemperatureLogitsWarper(decoding.temperature),
            TopPLogitsWarper(decoding.top_p),
            DrawnTokens(decoding.sampling_seed, batches[0], num_writers),
        ]
    return {**options, **({"logits_processor": processors} if processors else {})}


@final
class MeanOfWriters(LogitsProcessor):  # type: ignore[misc]
    """Gives the rows of all prompts the mean of their probabilities for the next token.

    Args:
        num_writers: prompts, whose rows follow each other.
        num_rows: of all of them, beams included.
    """

    def __init__(self, num_writers: int, num_rows: int) -> None:
        self.num_writers, self.num_rows = num_writers, num_rows

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return logarithms of mean probabilities, of all rows. Shape `(batch, vocab)`."""
        if len(scores) != self.num_rows:
            raise BackboneError(
                f"inputs must have one length with all {self.num_writers} prompts to be written "
                "after together, since the backbone reads no padding before them, but have several."
            )
        logs = scores.float().log_softmax(dim=1).view(self.num_writers, -1, scores.shape[1])
        mean = logs.logsumexp(dim=0) - math.log(self.num_writers)  # (batch, vocab)
        return mean.repeat(self.num_writers, 1)


@final
class DrawnTokens(LogitsProcessor):  # type: ignore[misc]
    """Draws the next token of each input by itself: `argmax_v log p(v) + g_v`, `g` Gumbel noise.

    No global generator is read, and what stands beside an input changes nothing.

    Args:
        seed: with the input's tokens, seeds its generator.
        batch: the inputs.
        num_writers: how often they follow each other; each time the same is drawn.
    """

    def __init__(self, seed: int, batch: Batch, num_writers: int = 1) -> None:
        texts = [" ".join(map(str, item.ids)) for item in batch.items] * num_writers
        self.generators = [generator(seed, "sampling", text) for text in texts]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores whose greatest is the token that was drawn. Shape `(batch, vocab)`."""
        draws = [torch.rand(scores.shape[1], generator=one) for one in self.generators]
        noise = -torch.stack(draws).clamp(1e-20, 1 - 1e-7).log().neg().log()
        return scores.log_softmax(dim=1) + noise.to(scores)
