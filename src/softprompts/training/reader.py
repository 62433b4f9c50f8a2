"""What is asked of a backbone, and who reads it: plainly here, faster in `softprompts.fast`.

A reader gives what reading a padded batch with all layers gives. It may read less where it knows
that this changes nothing, and it may keep what it read of inputs by themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, final

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.backbones.finding_fast import find_fast
from softprompts.backbones.memory import Memory
from softprompts.component import Component
from softprompts.encoding.batch import Batch
from softprompts.encoding.inputs import EncodedExample
from softprompts.examples import Example
from softprompts.prompts.prompt import Prompt, PromptOutput
from softprompts.prompts.splice import Spliced, concatenate, join_memories

if TYPE_CHECKING:
    from softprompts.readouts.base import Readout

T = TypeVar("T")


@final
@dataclass(frozen=True, eq=False)
class Request:
    """What is to be read of one batch.

    Attributes:
        output: what a prompt emitted for it; `None` where none did.
        spliced: rows among tokens.
        places: where the output is read; everywhere when `None`. Shape `(reads, slots)`.
        needs_head: whether logits are read rather than states.
        batch: whose tokens they are, and what a decoder half reads; `None` for a caller's tokens.
        is_known: whether the tokens are embedded as the backbone embeds those of the batch, so that
            what is read of them by themselves may be kept.
    """

    output: PromptOutput | None
    spliced: Spliced
    places: Tensor | None
    needs_head: bool
    batch: Batch | None = None
    is_known: bool = False


@final
@dataclass(frozen=True, eq=False)
class Joint:
    """Several requests as one batch.

    Attributes:
        spliced: their inputs.
        memory: what attention is given beside them.
        places: where the output is read. Shape `(reads, slots)`.
        needs_head: whether logits are read rather than states.
        decoder: what a decoder half reads.
    """

    spliced: Spliced
    memory: Memory | None
    places: Tensor | None
    needs_head: bool
    decoder: DecoderInputs | None = None


class Reader(ABC):
    """Reads through frozen backbones."""

    @abstractmethod
    def read(self, backbone: Backbone, requests: Sequence[Request]) -> list[Tensor]:
        """Return states or logits at the places of each request.

        Args:
            backbone: the model.
            requests: all of them need a language head, or none.

        Returns:
            Shape `(reads, slots, width)` each; without places `(batch, tokens, width)`.
        """

    @abstractmethod
    def find(
        self,
        backbone: Backbone,
        keys: Sequence[tuple[Any, ...]],
        read: Callable[[int], Tensor],
        *,
        is_durable: bool,
    ) -> list[Tensor]:
        """Return what is read of inputs by themselves.

        Args:
            backbone: the model.
            keys: all that a reading depends on, one for each input.
            read: reads an input by its place.
            is_durable: whether readings may be kept beyond the process.
        """

    @abstractmethod
    def save(self, backbone: Backbone) -> None:
        """Make durable what was read of inputs by themselves."""

    @abstractmethod
    def num_positions(
        self,
        backbone: Backbone,
        prompt: Prompt,
        examples: Sequence[EncodedExample],
        is_clean: bool,
    ) -> list[int]:
        """Return how many positions of each example's longest input are read, with rows.

        Args:
            backbone: the model.
            prompt: the prompt.
            examples: the examples.
            is_clean: whether their tokens are read as they are.
        """

    @abstractmethod
    def reads_padding(self, backbone: Backbone) -> bool:
        """Return whether padding costs as much as what it stands beside."""

    @abstractmethod
    def encode(
        self, config: Component, readout: Readout, examples: Sequence[Example]
    ) -> list[EncodedExample]:
        """Return encoded examples.

        Args:
            config: the readout's part of a recipe.
            readout: the readout it built, which encodes.
            examples: the examples.
        """


@final
class PlainReader(Reader):
    """Reads all there is, each time anew."""

    def read(self, backbone: Backbone, requests: Sequence[Request]) -> list[Tensor]:
        """Read all requests as one padded batch, through all layers."""
        joint = join(backbone, requests)
        given = (joint.spliced.embeddings, joint.spliced.attention_mask, joint.spliced.segment_ids)
        if joint.needs_head:
            assert joint.places is not None
            values = backbone.logits(*given, joint.places, joint.decoder, joint.memory)
        else:
            values = backbone.hidden(*given, joint.places, joint.memory)
        return [values] if len(requests) == 1 else part(requests, values)

    def find(
        self,
        backbone: Backbone,
        keys: Sequence[tuple[Any, ...]],
        read: Callable[[int], Tensor],
        *,
        is_durable: bool,
    ) -> list[Tensor]:
        """Read every input."""
        with torch.no_grad(), torch.autocast(backbone.device.type, enabled=False):
            return [read(place) for place in range(len(keys))]

    def save(self, backbone: Backbone) -> None:
        """Do nothing: nothing is kept."""

    def num_positions(
        self,
        backbone: Backbone,
        prompt: Prompt,
        examples: Sequence[EncodedExample],
        is_clean: bool,
    ) -> list[int]:
        """Return the positions of tokens and rows."""
        num_rows = prompt.length if prompt.depth.is_input else 0
        return [example.num_tokens + num_rows for example in examples]

    def reads_padding(self, backbone: Backbone) -> bool:
        """Return that it does."""
        return True

    def encode(
        self, config: Component, readout: Readout, examples: Sequence[Example]
    ) -> list[EncodedExample]:
        """Encode every example."""
        return list(map(readout.encode, examples))


@cache
def find_reader() -> Reader:
    """Return who reads here: the fast reader, or where it was taken out the plain one."""
    fast = find_fast()
    found: Reader = PlainReader() if fast is None else fast.READER
    return found


def join(backbone: Backbone, requests: Sequence[Request]) -> Joint:
    """Return requests as one batch, their inputs padded to the widest."""
    needs_head = requests[0].needs_head
    has_decoder = needs_head and backbone.family == "encoder-decoder"
    if len(requests) == 1 and not has_decoder:
        (one,) = requests
        memory: Memory | None = None
        if one.output is not None and (one.output.prefixes or one.spliced.gates is not None):
            memory = join_memories([one.output], one.spliced)
        return Joint(one.spliced, memory, one.places, needs_head)
    spliced = concatenate([request.spliced for request in requests])
    outputs = [request.output for request in requests if request.output is not None]
    memory = join_memories(outputs, spliced) if outputs else None
    places = [request.places for request in requests if request.places is not None]
    decoder = None
    if has_decoder:
        decoder = _decoder_inputs(backbone, [one.batch for one in requests if one.batch])
    return Joint(spliced, memory, stack(places) if places else None, needs_head, decoder)


def part(requests: Sequence[Request], values: Tensor) -> list[Tensor]:
    """Return the share of each request in what was read of several."""
    places = [request.places for request in requests if request.places is not None]
    if not places:
        return list(torch.split(values, [len(one.spliced.lengths) for one in requests]))
    shares = torch.split(values, [len(one) for one in places])
    return [share[:, : one.shape[1]] for share, one in zip(shares, places, strict=True)]


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate along the first axis, the second padded with 0 to the widest."""
    width = max(tensor.shape[1] for tensor in tensors)
    padded = [torch.cat([t, t.new_zeros(t.shape[0], width - t.shape[1])], dim=1) for t in tensors]
    return padded[0] if len(padded) == 1 else torch.cat(padded)


def _decoder_inputs(backbone: Backbone, batches: Sequence[Batch]) -> DecoderInputs:
    """Return what a decoder half reads of several batches."""
    sources, offset = [], 0
    for batch in batches:
        sources.append(batch.targets.inputs + offset)
        offset += batch.ids.shape[0]
    labels = stack([batch.targets.tokens for batch in batches])
    mask = stack([batch.targets.mask.long() for batch in batches])
    return DecoderInputs(backbone.shift_right(labels), torch.cat(sources), mask)
