"""A pretrained transformer that is read and never trained: embeddings, states and logits."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from softprompts.backbones.attention import Pass
from softprompts.backbones.decoder_inputs import (
    DecoderInputs,
    decoder_call,
    decoder_start,
    positions_behind,
)
from softprompts.backbones.families import (
    Family,
    context_length,
    find_body,
    find_table,
    first_position,
    takes,
    without_cache,
)
from softprompts.backbones.layers import MemoryPass, Stack, call_only_at, gather_positions
from softprompts.backbones.memory import Memory, Slot
from softprompts.backbones.placing import device_of, is_spread
from softprompts.errors import BackboneError


class FrozenModel(ABC):
    """What is read of a model: all of a `Backbone` that needs no other part of the library.

    Threads may read through one: they take turns. It is no `nn.Module`, so that a module that holds
    one does not register its parameters. Inputs are right-padded; the model's own position ids are
    then right and are left to it.

    Args:
        name: the name it was loaded by.
        family: how the transformer is built.
        model: the pretrained model, with its language head where that was trained.
        tokenizer: its fast tokenizer.
        has_language_head: whether the head of `model` was trained.
        has_checkpointing: whether layers are computed again in the backward pass, which takes less
            memory and more time.

    Attributes:
        body: the encoder, encoder half or decoder.
        dtype: dtype of the weights and of all outputs.
        device: device of the embeddings, where inputs go in and outputs come back; of all weights
            unless the model is spread.
        is_spread: whether the model lies on several devices, or partly on disk.
        embedding_scale: factor on rows of the table that the body puts on those of token ids only.
        embedding_size: width of the input embeddings; may differ from that of states.
        vocabulary_size: rows of the embedding table; the tokenizer may know fewer or more.
        context_length: most positions of the (encoder) input, prompt rows included; `None` where
            positions are only relative.
        first_position: what the model calls an input's first position.
        num_segments: token types that the model knows; 0 where it has none.
        stacks: the layers of the encoder or decoder, or of both halves.
        is_frozen: whether nothing of it is trained; not so of a run's own copy.

    Raises:
        BackboneError: if the model has no embedding table of floating point.
    """

    def __init__(
        self,
        name: str,
        family: Family,
        model: Any,
        tokenizer: Any,
        has_language_head: bool,
        has_checkpointing: bool = False,
    ) -> None:
        self.name, self.family, self.tokenizer = name, family, tokenizer
        self.model = model.eval().requires_grad_(False)
        self.has_language_head, self.has_checkpointing = has_language_head, has_checkpointing
        self.is_frozen = True
        self.body = find_body(model, family)
        self._body_options, self._head_options = without_cache(self.body), without_cache(model)
        half: Literal["encoder", "decoder"] = "decoder" if family == "decoder" else "encoder"
        lock = threading.RLock()
        self.stacks = [Stack(self.body, half, lock)]
        if family == "encoder-decoder":
            self.stacks.append(Stack(model.get_decoder(), "decoder", lock))
        self._table, self.embedding_scale = find_table(self.body), 1.0  # until the body is probed
        weight = self._table.weight
        assert isinstance(weight, Tensor)
        self.dtype: torch.dtype = weight.dtype
        if not self.dtype.is_floating_point:
            raise BackboneError(
                f"input embeddings must be of floating point, but are {self.dtype}: quantize the "
                "other weights alone."
            )
        self.device: torch.device = device_of(self._table)
        self.is_spread = is_spread(model)
        self.vocabulary_size = int(weight.shape[0])
        num_segments = int(getattr(self.body.config, "type_vocab_size", None) or 0)
        has_segments = num_segments > 1 and takes(self.body, "token_type_ids")
        self.num_segments = num_segments if has_segments else 0
        self.context_length = context_length(self.body)
        self.first_position = first_position(self.body)
        self.embedding_size = int(
            self.embed(torch.zeros(1, dtype=torch.long, device=self.device)).shape[-1]
        )

    def embed(self, ids: Tensor) -> Tensor:
        """Return input embeddings, scaled as the model scales them.

        They have no gradient, but in a copy whose table of embeddings is trained.

        Args:
            ids: token ids, long. Shape `(..., tokens)`.

        Returns:
            Embeddings in the backbone's dtype. Shape `(..., tokens, embedding)`.

        Raises:
            BackboneError: if an id is no row of the table (checked on the CPU only).
        """
        if self.device.type == "cpu" and ids.numel():
            low, high = int(ids.min()), int(ids.max())
            if low < 0 or high >= self.vocabulary_size:
                raise BackboneError(
                    f"token ids must be in [0, {self.vocabulary_size}), the rows of "
                    f"{self.name!r}, but are in [{low}, {high}]."
                )
        is_trained = not self.is_frozen and torch.is_grad_enabled()
        with torch.set_grad_enabled(is_trained):
            embeddings = self._table(ids.to(self.device))  # (..., tokens, embedding)
            assert isinstance(embeddings, Tensor)
            return embeddings if self.embedding_scale == 1 else embeddings * self.embedding_scale

    @property
    @abstractmethod
    def slots(self) -> tuple[Slot, ...]:
        """The attentions that a memory can reach, encoder first, each in the order it runs."""

    def hidden(
        self,
        embeddings: Tensor,
        attention_mask: Tensor,
        segment_ids: Tensor | None,
        gather: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """Return the last hidden state of the encoder, encoder half or decoder.

        Args:
            embeddings: right-padded input. Shape `(batch, tokens, embedding)`.
            attention_mask: 1 at positions to attend to, else 0, long. Shape `(batch, tokens)`.
            segment_ids: segment ids, used where the model has token types. Shape
                `(batch, tokens)`.
            gather: positions to return, long; all when `None`. Shape `(batch, slots)`.
            memory: what attention is given beside the input.

        Returns:
            States in the backbone's dtype, with gradient to `embeddings`. Shape
            `(batch, tokens, hidden)`, or with `gather` `(batch, slots, hidden)`.

        Raises:
            BackboneError: if a shape does not fit.
        """
        inputs = self.body_inputs(embeddings, attention_mask, segment_ids, memory)
        given = None if memory is None else self.memory_pass(memory)
        states: Tensor = self.run_body(inputs, given).last_hidden_state
        return states if gather is None else gather_positions(states, gather)

    def logits(
        self,
        embeddings: Tensor,
        attention_mask: Tensor,
        segment_ids: Tensor | None,
        gather: Tensor,
        decoder: DecoderInputs | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """Return vocabulary logits at the gathered positions only; the head runs nowhere else.

        Args:
            embeddings: right-padded input. Shape `(batch, tokens, embedding)`.
            attention_mask: 1 at positions to attend to, else 0, long. Shape `(batch, tokens)`.
            segment_ids: segment ids, used where the model has token types. Shape
                `(batch, tokens)`.
            gather: positions, long. Shape `(batch, slots)`; of an encoder-decoder, positions of the
                decoder. Shape `(targets, slots)`.
            decoder: decoder inputs, for an encoder-decoder only. The encoder runs once on the
                batch, however many targets read it.
            memory: what attention is given beside the input, for each input of the batch.

        Returns:
            Logits in the backbone's dtype. Shape `(batch, slots, vocab)`, or
            `(targets, slots, vocab)`.

        Raises:
            BackboneError: if there is no trained head, `decoder` does not fit the family, or a
                shape does not fit.
        """
        self.check_head(decoder)
        inputs = self.body_inputs(embeddings, attention_mask, segment_ids, memory)
        if decoder is None:
            given = None if memory is None else self.memory_pass(memory)
            return self._logits(self.body, self.stacks[0], inputs, gather, given)
        encoded = self.run_body(inputs, self.memory_pass(memory))
        memory = None if memory is None else memory.take(decoder.source)
        given = self.memory_pass(memory, 1)
        return self.run_decoder(decoder_call(encoded, attention_mask, decoder), gather, given)

    def check_head(self, decoder: DecoderInputs | None) -> None:
        """Check that there is a trained head, and what its decoder reads.

        Raises:
            BackboneError: if there is none, or `decoder` does not fit the family.
        """
        if not self.has_language_head:
            raise BackboneError(
                f"backbone {self.name!r} must have a trained language head to score tokens, but "
                "its weights hold none: use the linear readout, or a checkpoint with the head."
            )
        if (decoder is not None) != (self.family == "encoder-decoder"):
            raise BackboneError(
                f"decoder must be given for an encoder-decoder only, but backbone {self.name!r} "
                f"is of family {self.family!r} and decoder is {type(decoder).__name__}."
            )

    def memory_pass(self, memory: Memory | None, half: int = 0) -> Pass | None:
        """Return the pass that gives attention a memory; `None` where there is none.

        Args:
            memory: what attention is given.
            half: the number of the half that is read.
        """
        return None if memory is None else MemoryPass(self.stacks[half], memory)

    def run_body(self, inputs: dict[str, Any], given: Pass | None = None) -> Any:
        """Return all that the body gives for `body_inputs`."""
        call = partial(self.body, **inputs, **self._body_options)
        output = self.stacks[0].run(call, given, self.has_checkpointing)
        if self.is_spread:
            output.last_hidden_state = output.last_hidden_state.to(self.device)
        return output

    def run_head(self, inputs: dict[str, Any], gather: Tensor, given: Pass | None = None) -> Tensor:
        """Return logits at positions for `body_inputs`. Shape `(batch, slots, vocab)`."""
        return self._logits(self.body, self.stacks[0], inputs, gather, given)

    def run_decoder(
        self, inputs: dict[str, Any], gather: Tensor, given: Pass | None = None
    ) -> Tensor:
        """Return logits at positions of a decoder for `decoder_call`; see `run_head`."""
        return self._logits(self.model.get_decoder(), self.stacks[-1], inputs, gather, given)

    def _logits(
        self,
        body: nn.Module,
        stack: Stack,
        inputs: dict[str, Any],
        gather: Tensor,
        given: Pass | None,
    ) -> Tensor:
        model = partial(self.model, **inputs, **self._head_options)
        call = partial(call_only_at, body, gather, model)
        logits: Tensor = stack.run(call, given, self.has_checkpointing).logits
        return logits.to(self.device)

    def read(
        self,
        embeddings: Tensor,
        attention_mask: Tensor,
        segment_ids: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Any:
        """Return all that the encoder, encoder half or decoder gives; see `hidden`."""
        inputs = self.body_inputs(embeddings, attention_mask, segment_ids, memory)
        return self.run_body(inputs, self.memory_pass(memory))

    def read_bare(self, attention_mask: Tensor, **given: Tensor) -> Any:
        """Return all that the body gives for token ids or embeddings, as transformers runs it.

        Args:
            attention_mask: 1 at positions to attend to, else 0, long. Shape `(batch, tokens)`.
            given: `input_ids`, or `inputs_embeds`.
        """
        inputs = {"attention_mask": attention_mask, "return_dict": True, **given}
        return self.body(**inputs, **self._body_options)

    def shift_right(self, label_ids: Tensor) -> Tensor:
        """Return the decoder inputs that belong to labels: start token first, last label dropped.

        Args:
            label_ids: label ids; -100 counts as padding. Shape `(targets, width)`.

        Returns:
            Decoder input ids. Shape `(targets, width)`.

        Raises:
            BackboneError: if the backbone has no decoder half, or no start token.
        """
        if self.family != "encoder-decoder":
            raise BackboneError(
                f"backbone {self.name!r} must be an encoder-decoder to shift labels, but is "
                f"of family {self.family!r}."
            )
        start = decoder_start(self.model, self.name)
        pad = self.tokenizer.pad_token_id
        first = torch.full_like(label_ids[:, :1], start)
        ids = torch.cat([first, label_ids[:, :-1]], dim=1)  # (targets, width)
        return ids.masked_fill(ids == -100, pad)

    def body_inputs(
        self,
        embeddings: Tensor,
        attention_mask: Tensor,
        segment_ids: Tensor | None,
        memory: Memory | None = None,
    ) -> dict[str, Any]:
        """Return checked keyword arguments for the body or the model."""
        is_matrix = embeddings.dim() == 3 and embeddings.shape[-1] == self.embedding_size
        if not is_matrix or not embeddings.numel():
            raise BackboneError(
                f"embeddings must have shape (batch, tokens, {self.embedding_size}), none of it 0, "
                f"but have {tuple(embeddings.shape)}."
            )
        given = {"attention_mask": attention_mask, "segment_ids": segment_ids}
        check_tokens(embeddings.shape[:2], given, self.context_length, self.name)
        inputs = {
            "inputs_embeds": embeddings.to(self.dtype),
            "attention_mask": attention_mask,
            "return_dict": True,
        }
        if self.num_segments and segment_ids is not None:
            inputs["token_type_ids"] = segment_ids
        offsets = None if memory is None else memory.offsets
        if self.family == "decoder" and offsets is not None:
            places = positions_behind(
                attention_mask, offsets, self.context_length, self.name
            )  # (batch, tokens)
            inputs["position_ids"] = places + self.first_position
        return inputs


def check_tokens(
    shape: torch.Size, given: Mapping[str, Tensor | None], most: int | None, backbone: str
) -> None:
    """Check what comes with the embeddings of a batch.

    Args:
        shape: inputs and tokens of the batch.
        given: what has an entry per token, by name.
        most: most tokens, or `None`.
        backbone: the backbone's name.

    Raises:
        BackboneError: if a shape or type is another, or tokens are too many.
    """
    for name, value in given.items():
        if value is not None and value.shape != shape:
            raise BackboneError(
                f"{name} must have shape {tuple(shape)}, but has {tuple(value.shape)}."
            )
        if value is not None and value.is_floating_point():
            raise BackboneError(f"{name} must hold whole numbers, but is {value.dtype}.")
    if most is not None and shape[1] > most:
        raise BackboneError(
            f"tokens must be at most {most}, the context length of {backbone!r}, but are "
            f"{shape[1]}."
        )
