"""A frozen pretrained transformer and what the library needs of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from softprompts.backbones.families import Family, context_length, first_position
from softprompts.backbones.frame import Frame, probe_frame
from softprompts.backbones.layers import Route, Stack
from softprompts.backbones.members import find_body, find_table, takes, without_cache
from softprompts.backbones.memory import KeyValues, Memory, Slot
from softprompts.backbones.passing import (
    DecoderInputs,
    check_tokens,
    count_copies,
    decoder_call,
    decoder_start,
    gather_positions,
    only_at,
    positions_behind,
)
from softprompts.backbones.probing import probe_body, writes_behind_padding
from softprompts.backbones.quantized import quantization_of
from softprompts.backbones.reaching import find_slots, read_keys_and_values
from softprompts.backbones.shortcuts import Shortcuts, find_shortcuts
from softprompts.backbones.spreading import device_of, is_spread
from softprompts.backbones.units import measure_attentions
from softprompts.errors import BackboneError

_ROWS_AT_ONCE = 8192


@final
class Backbone:
    """A frozen pretrained transformer. Never modified, never trained, shared by all runs.

    Threads may read through one backbone: they take turns, and several backbones run at once. A run
    that trains the backbone does so in a copy, which is a backbone of its own. It is no
    `nn.Module`, so that a module that holds one does not register its parameters. Inputs are
    right-padded; the model's own position ids are then right and are left to it.

    Args:
        name: the name it was loaded by.
        family: how the transformer is built.
        model: the pretrained model, with its language head where that was trained.
        tokenizer: its fast tokenizer.
        has_language_head: whether the head of `model` was trained.
        fingerprint: the identity of the weights.
        has_checkpointing: whether layers are computed again in the backward pass, which takes less
            memory and more time.
        is_compiled: whether layers are compiled where gradients are taken.
        revision: the hub's revision that was asked for.

    Attributes:
        quantization: how the weights are quantized, as transformers calls it; `None` where they
            are plain.
        dtype: dtype of the weights and of all outputs.
        device: device of the embeddings, where inputs go in and outputs come back; of all weights
            unless the model is spread.
        is_spread: whether the model lies on several devices, or partly on disk.
        embedding_size: width of the input embeddings; may differ from `hidden_size`.
        embedding_scale: factor on rows of the table that the body puts on those of token ids only.
        hidden_size: width of the last hidden state.
        vocabulary_size: rows of the embedding table; the tokenizer may know fewer or more.
        context_length: most positions of the (encoder) input, prompt rows included; `None` where
            positions are only relative.
        first_position: what the model calls an input's first position.
        frame: special tokens around one text or a pair.
        stacks: the layers of the encoder or decoder, or of both halves.
        is_frozen: whether nothing of it is trained; not so of a run's own copy.
        reload: loads it anew, with the same arguments; `None` where it was not loaded by a name.

    Raises:
        BackboneError: if the tokenizer has no frame, or the model has no embedding table, or reads
            positions that it must not read.
    """

    def __init__(
        self,
        name: str,
        family: Family,
        model: Any,
        tokenizer: Any,
        has_language_head: bool,
        fingerprint: str,
        has_checkpointing: bool = False,
        is_compiled: bool = False,
        revision: str | None = None,
    ) -> None:
        self.name = name
        self.revision = revision
        self.quantization = quantization_of(model)
        self.family = family
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.has_language_head = has_language_head
        self.fingerprint = fingerprint
        self.is_frozen = True
        self.reload: Callable[[], Backbone] | None = None
        self.has_checkpointing = has_checkpointing
        self._body = find_body(model, family)
        half: Literal["encoder", "decoder"] = "decoder" if family == "decoder" else "encoder"
        lock = threading.RLock()
        self.stacks = [Stack(self._body, half, is_compiled, lock)]
        if family == "encoder-decoder":
            self.stacks.append(Stack(model.get_decoder(), "decoder", is_compiled, lock))
        self._table, self.embedding_scale = find_table(self._body), 1.0  # until the body is probed
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
        num_segments = int(getattr(self._body.config, "type_vocab_size", None) or 0)
        self._has_segments = num_segments > 1 and takes(self._body, "token_type_ids")
        self.frame: Frame = probe_frame(tokenizer, num_segments if self._has_segments else 0)
        self.context_length = context_length(self._body)
        self.first_position = first_position(self._body)
        self.embedding_size = int(
            self.embed(torch.zeros(1, dtype=torch.long, device=self.device)).shape[-1]
        )
        body = probe_body(self, (1.0, float(getattr(self._body, "embed_scale", 1.0))))
        self.hidden_size, self.embedding_scale = body.hidden_size, body.scale

    def __repr__(self) -> str:
        return f"Backbone({self.name!r}, {self.family}, {self.dtype}, {self.device})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        """Return itself: it is never modified, so copies of what holds it share it.

        Raises:
            BackboneError: if it is a run's own copy, which is trained.
        """
        if not self.is_frozen:
            raise BackboneError(
                f"backbone {self.name!r} must be frozen to be copied, but is trained."
            )
        return self

    def __reduce__(self) -> tuple[Callable[..., Backbone], tuple[Any, ...]]:
        """Pickle its name and how it was loaded, not its weights.

        Raises:
            BackboneError: if it was not loaded by a name, or is trained.
        """
        if self.reload is None or not self.is_frozen:
            raise BackboneError(
                f"backbone {self.name!r} must be frozen and loaded by name to be pickled, but is "
                "not: save the `state_dict` of the prompt instead."
            )
        return _reload, (self.reload, self.fingerprint)

    @property
    def attention(self) -> str:
        """The implementation of its attention; empty where its halves differ."""
        return self.stacks[0].base.removeprefix("softprompts-")

    @property
    def is_compiled(self) -> bool:
        """Whether layers are compiled where gradients are taken."""
        return self.stacks[0].is_compiled

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Run layers as they are while this lasts: for a short look that pays no compiling."""
        is_compiled = self.is_compiled
        for stack in self.stacks:
            stack.is_compiled = False
        try:
            yield
        finally:
            for stack in self.stacks:
                stack.is_compiled = is_compiled

    def train_only(self, parameters: Iterable[nn.Parameter]) -> None:
        """Let parameters be trained, and no others; only a run's own copy may be.

        Args:
            parameters: parameters of the model.
        """
        self.model.requires_grad_(False)
        self.is_frozen = True
        for parameter in parameters:
            parameter.requires_grad_(True)
            self.is_frozen = False

    @cached_property
    @torch.no_grad()
    def embedding_rms(self) -> float:
        """Root-mean-square of the entries of the embedding table, as `embed` returns them."""
        total = 0.0
        for start in range(0, self.vocabulary_size, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, self.vocabulary_size)
            rows = self.embed(torch.arange(start, stop, device=self.device))
            total += float(rows.double().square().sum())
        return float((total / (self.vocabulary_size * self.embedding_size)) ** 0.5)

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
        is_trained = any(weight.requires_grad for weight in self._table.parameters())
        with torch.set_grad_enabled(is_trained and torch.is_grad_enabled()):
            embeddings = self._table(ids.to(self.device))  # (..., tokens, embedding)
            assert isinstance(embeddings, Tensor)
            return embeddings if self.embedding_scale == 1 else embeddings * self.embedding_scale

    def hidden(
        self,
        embeddings: Tensor,
        attention_mask: Tensor,
        segment_ids: Tensor | None,
        gather: Tensor | None = None,
        memory: Memory | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Return the last hidden state of the encoder, encoder half or decoder.

        Args:
            embeddings: right-padded input. Shape `(batch, tokens, embedding)`.
            attention_mask: 1 at positions to attend to, else 0, long. Shape `(batch, tokens)`.
            segment_ids: segment ids, used where the model has token types. Shape
                `(batch, tokens)`.
            gather: positions to return, long; all when `None`. Shape `(batch, slots)`.
            memory: what attention is given beside the input.
            wanted: positions whose embeddings have a gradient, boolean; all when `None`. That of
                others may be anything. Shape `(batch, tokens)`.

        Returns:
            States in the backbone's dtype, with gradient to `embeddings`. Shape
            `(batch, tokens, hidden)`, or with `gather` `(batch, slots, hidden)`.

        Raises:
            BackboneError: if a shape does not fit.
        """
        if gather is None:
            states = self.read(embeddings, attention_mask, segment_ids, memory).last_hidden_state
            assert isinstance(states, Tensor)
            return states
        inputs = self._inputs(embeddings, attention_mask, segment_ids, memory)
        route = self.shortcuts.route(attention_mask, gather, memory, self._narrow(wanted))
        return self._states_at(inputs, gather, memory, route)

    def logits(
        self,
        embeddings: Tensor,
        attention_mask: Tensor,
        segment_ids: Tensor | None,
        gather: Tensor,
        decoder: DecoderInputs | None = None,
        memory: Memory | None = None,
        wanted: Tensor | None = None,
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
            wanted: positions of the batch whose embeddings have a gradient; see `hidden`.

        Returns:
            Logits in the backbone's dtype. Shape `(batch, slots, vocab)`, or
            `(targets, slots, vocab)`.

        Raises:
            BackboneError: if there is no trained head, `decoder` does not fit the family, or a
                shape does not fit.
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
        inputs = self._inputs(embeddings, attention_mask, segment_ids, memory)
        if decoder is not None:
            found = self.shortcuts
            route = found.whole(attention_mask, self._narrow(wanted))
            encoded = self._encode(inputs, memory, route)
            copies = count_copies(decoder.source, len(embeddings)) if found.shares else 1
            return self.decode(encoded, attention_mask, gather, decoder, memory, copies)
        route = self.shortcuts.route(attention_mask, gather, memory, self._narrow(wanted))
        inputs, places = route.lead(inputs, gather)
        with (
            self.stacks[0].running(memory, self.has_checkpointing, route),
            only_at(self._body, places),
        ):
            logits = self.model(**inputs, **without_cache(self.model)).logits
        assert isinstance(logits, Tensor)
        return logits.to(self.device).view(*gather.shape, -1)

    def decode(
        self,
        encoded: Any,
        attention_mask: Tensor,
        gather: Tensor,
        decoder: DecoderInputs,
        memory: Memory | None = None,
        copies: int = 1,
    ) -> Tensor:
        """Return vocabulary logits at positions of the decoder; see `logits`.

        Args:
            encoded: what the encoder gave.
            attention_mask: 1 at positions of the encoder's input to attend to, else 0, long. Shape
                `(batch, tokens)`.
            gather: positions of the decoder, long. Shape `(targets, slots)`.
            decoder: what the decoder reads.
            memory: what attention is given beside the input, for each input of the batch.
            copies: targets that read each input; see `count_copies`.
        """
        inputs = decoder_call(encoded, attention_mask, decoder, copies)
        memory = None if memory is None else memory.take(decoder.source)
        with (
            self.stacks[-1].running(memory, self.has_checkpointing, Route(copies=copies)),
            only_at(self.model.get_decoder(), gather),
        ):
            logits = self.model(**inputs, **without_cache(self.model)).logits
        assert isinstance(logits, Tensor)
        return logits.to(self.device).view(*gather.shape, -1)

    def _encode(self, inputs: dict[str, Any], memory: Memory | None, route: Route) -> Any:
        """Run the body, which is an encoder; return all that it gives, for a padded batch."""
        packing = route.packing
        if packing is not None:
            inputs = packing.inputs(inputs, route.first_position)
        with self.stacks[0].running(memory, self.has_checkpointing, route):
            output = self._body(**inputs, **without_cache(self._body))
        if packing is not None:
            output.last_hidden_state = packing.unpack(output.last_hidden_state)
        if self.is_spread:
            output.last_hidden_state = output.last_hidden_state.to(self.device)
        return output

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

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The attentions that a memory can reach, encoder first, each in the order it runs.

        They are found, and a memory is tried on them, when they are first asked for.

        Raises:
            BackboneError: if attention does not go through transformers' attention interface, or
                does not do what a memory asks of it.
        """
        return find_slots(self)

    def keys_and_values(self, rows: Tensor) -> dict[Slot, KeyValues]:
        """Return the keys and values that the backbone makes of rows it reads as its input.

        A decoder that reads an encoder reads the same rows itself.

        Args:
            rows: embeddings. Shape `(length, embedding)`.

        Returns:
            Keys and values by attention. Shape `(1, heads, length, size)` each.

        Raises:
            BackboneError: if the attention cannot be reached.
        """
        return read_keys_and_values(self, rows)

    @cached_property
    def attention_units(self) -> dict[Slot, tuple[float, float]]:
        """What keys and values measure, by attention; see `measure_attentions`."""
        return measure_attentions(self)

    def read(
        self,
        embeddings: Tensor,
        attention_mask: Tensor,
        segment_ids: Tensor | None = None,
        memory: Memory | None = None,
    ) -> Any:
        """Return all that the encoder, encoder half or decoder gives; see `hidden`."""
        inputs = self._inputs(embeddings, attention_mask, segment_ids, memory)
        return self._encode(inputs, memory, Route())

    def read_bare(self, attention_mask: Tensor, **given: Tensor) -> Any:
        """Return all that the body gives for token ids or embeddings, as transformers runs it.

        Args:
            attention_mask: 1 at positions to attend to, else 0, long. Shape `(batch, tokens)`.
            given: `input_ids`, or `inputs_embeds`.
        """
        inputs = {"attention_mask": attention_mask, "return_dict": True, **given}
        return self._body(**inputs, **without_cache(self._body))

    @cached_property
    def shortcuts(self) -> Shortcuts:
        """Ways to read a batch with less work; they are tried when they are first asked for."""
        return find_shortcuts(self)

    @cached_property
    def pads_left(self) -> bool:
        """Whether a decoder writes the same behind padding; tried when it is first asked for."""
        return writes_behind_padding(self)

    def _narrow(self, wanted: Tensor | None) -> Tensor | None:
        """Return positions that alone have a gradient; `None` where others may, or none has."""
        return wanted if self.is_frozen and torch.is_grad_enabled() else None

    def states_at(
        self, embeddings: Tensor, attention_mask: Tensor, gather: Tensor, route: Route
    ) -> Tensor:
        """Return states at positions, read in a given way; see `hidden`.

        Args:
            embeddings: right-padded input. Shape `(batch, tokens, embedding)`.
            attention_mask: 1 at positions to attend to, else 0, long. Shape `(batch, tokens)`.
            gather: positions, long. Shape `(batch, slots)`.
            route: how the batch is read.
        """
        inputs = self._inputs(embeddings, attention_mask, None)
        return self._states_at(inputs, gather, None, route)

    def _states_at(
        self, inputs: dict[str, Any], gather: Tensor, memory: Memory | None, route: Route
    ) -> Tensor:
        """Run the body and return its states at positions. Shape `(batch, slots, hidden)`."""
        inputs, places = route.lead(inputs, gather)
        with self.stacks[0].running(memory, self.has_checkpointing, route):
            states = self._body(**inputs, **without_cache(self._body)).last_hidden_state
        return gather_positions(states.to(self.device), places).view(*gather.shape, -1)

    def _inputs(
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
        limit = (self.context_length, self.name)
        given = {"attention_mask": attention_mask, "segment_ids": segment_ids}
        check_tokens(embeddings.shape[:2], given, limit)
        inputs = {
            "inputs_embeds": embeddings.to(self.dtype),
            "attention_mask": attention_mask,
            "return_dict": True,
        }
        if self._has_segments and segment_ids is not None:
            inputs["token_type_ids"] = segment_ids
        offsets = None if memory is None else memory.offsets
        if self.family == "decoder" and offsets is not None:
            places = positions_behind(attention_mask, offsets, limit)  # (batch, tokens)
            inputs["position_ids"] = places + self.first_position
        return inputs


def _reload(load: Callable[[], Backbone], fingerprint: str) -> Backbone:
    """Return a pickled backbone, loaded anew.

    Raises:
        BackboneError: if its weights are others now.
    """
    backbone = load()
    if backbone.fingerprint != fingerprint:
        raise BackboneError(
            f"backbone {backbone.name!r} must have the weights that it was pickled with, "
            f"{fingerprint}, but has {backbone.fingerprint}."
        )
    return backbone
