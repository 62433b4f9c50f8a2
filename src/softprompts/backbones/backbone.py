"""A frozen pretrained transformer and what the library needs of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn

from softprompts.backbones.families import Family, context_length
from softprompts.backbones.frame import Frame, probe_frame
from softprompts.errors import BackboneError

_ROWS_AT_ONCE = 8192
_TOLERANCES = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}


@final
@dataclass(frozen=True)
class DecoderInputs:
    """What the decoder of an encoder-decoder reads; a target is one decoder sequence.

    Attributes:
        ids: decoder input ids, already shifted right. Shape `(targets, width)`.
        source: row of the encoder batch that each target reads, long. Shape `(targets,)`.
        mask: 1 at real positions, 0 at padding, long. Shape `(targets, width)`.
    """

    ids: Tensor
    source: Tensor
    mask: Tensor


@final
class Backbone:
    """A frozen pretrained transformer. Never modified, never trained, shared by all runs.

    It is no `nn.Module`, so that a module that holds one does not register its parameters. Inputs
    are right-padded; the model's own position ids are then right and are left to it.

    Args:
        name: the name it was loaded by.
        family: how the transformer is built.
        model: the pretrained model, with its language head where that was trained.
        tokenizer: its fast tokenizer.
        has_language_head: whether the head of `model` was trained.
        fingerprint: the identity of the weights.

    Attributes:
        dtype: dtype of the weights and of all outputs.
        device: device of the weights.
        embedding_size: width of the input embeddings; may differ from `hidden_size`.
        hidden_size: width of the last hidden state.
        vocabulary_size: rows of the embedding table; the tokenizer may know fewer or more.
        context_length: most positions of the (encoder) input, prompt rows included; `None` where
            positions are only relative.
        frame: special tokens around one text or a pair.

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
    ) -> None:
        self.name = name
        self.family = family
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.has_language_head = has_language_head
        self.fingerprint = fingerprint
        self._body = _find_body(model, family)
        self._table = _find_table(self._body)
        weight = self._table.weight
        assert isinstance(weight, Tensor)
        self.dtype: torch.dtype = weight.dtype
        self.device: torch.device = weight.device
        self.vocabulary_size = int(weight.shape[0])
        num_segments = int(getattr(self._body.config, "type_vocab_size", None) or 0)
        self._has_segments = num_segments > 1 and _takes(self._body, "token_type_ids")
        self.frame: Frame = probe_frame(tokenizer, num_segments if self._has_segments else 0)
        self.context_length = context_length(self._body)
        self.embedding_size = int(
            self.embed(torch.zeros(1, dtype=torch.long, device=self.device)).shape[-1]
        )
        self.hidden_size = self._probe_states()

    def __repr__(self) -> str:
        return f"Backbone({self.name!r}, {self.family}, {self.dtype}, {self.device})"

    @cached_property
    def embedding_rms(self) -> float:
        """Root-mean-square of the entries of the embedding table, as `embed` returns them."""
        total = 0.0
        for start in range(0, self.vocabulary_size, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, self.vocabulary_size)
            rows = self.embed(torch.arange(start, stop, device=self.device))
            total += float(rows.double().square().sum())
        return float((total / (self.vocabulary_size * self.embedding_size)) ** 0.5)

    def embed(self, ids: Tensor) -> Tensor:
        """Return input embeddings, scaled as the model scales them, without gradient.

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
        with torch.no_grad():
            embeddings = self._table(ids.to(self.device))  # (..., tokens, embedding)
        assert isinstance(embeddings, Tensor)
        return embeddings

    def hidden(
        self,
        embeddings: Tensor,
        attention_mask: Tensor,
        segment_ids: Tensor | None,
        gather: Tensor | None = None,
    ) -> Tensor:
        """Return the last hidden state of the encoder, encoder half or decoder.

        Args:
            embeddings: right-padded input. Shape `(batch, tokens, embedding)`.
            attention_mask: 1 at positions to attend to, else 0, long. Shape `(batch, tokens)`.
            segment_ids: segment ids, used where the model has token types. Shape
                `(batch, tokens)`.
            gather: positions to return, long; all when `None`. Shape `(batch, slots)`.

        Returns:
            States in the backbone's dtype, with gradient to `embeddings`. Shape
            `(batch, tokens, hidden)`, or with `gather` `(batch, slots, hidden)`.

        Raises:
            BackboneError: if a shape does not fit.
        """
        states = self._run_body(embeddings, attention_mask, segment_ids).last_hidden_state
        assert isinstance(states, Tensor)
        return states if gather is None else _gather_positions(states, gather)

    def logits(
        self,
        embeddings: Tensor,
        attention_mask: Tensor,
        segment_ids: Tensor | None,
        gather: Tensor,
        decoder: DecoderInputs | None = None,
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
        if decoder is None:
            inputs = self._inputs(embeddings, attention_mask, segment_ids)
            body = self._body
        else:
            encoded = self._run_body(embeddings, attention_mask, segment_ids)
            inputs = _decoder_call(encoded, attention_mask, decoder)
            body = self.model.get_decoder()
        with _only_at(body, gather):
            logits = self.model(**inputs, **_without_cache(self.model)).logits
        assert isinstance(logits, Tensor)
        return logits

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
        config = self.model.config
        start = getattr(config, "decoder_start_token_id", None)
        if start is None and getattr(self.model, "generation_config", None) is not None:
            start = self.model.generation_config.decoder_start_token_id
        if not isinstance(start, int):
            raise BackboneError(
                f"decoder_start_token_id of backbone {self.name!r} must be a token id, but is "
                f"{start!r}."
            )
        pad = self.tokenizer.pad_token_id
        first = torch.full_like(label_ids[:, :1], start)
        ids = torch.cat([first, label_ids[:, :-1]], dim=1)  # (targets, width)
        return ids.masked_fill(ids == -100, pad)

    def _run_body(
        self, embeddings: Tensor, attention_mask: Tensor, segment_ids: Tensor | None
    ) -> Any:
        """Return all that the encoder, encoder half or decoder gives."""
        inputs = self._inputs(embeddings, attention_mask, segment_ids)
        return self._body(**inputs, **_without_cache(self._body))

    def _inputs(
        self, embeddings: Tensor, attention_mask: Tensor, segment_ids: Tensor | None
    ) -> dict[str, Any]:
        """Return checked keyword arguments for the body or the model."""
        if embeddings.dim() != 3 or embeddings.shape[-1] != self.embedding_size:
            raise BackboneError(
                f"embeddings must have shape (batch, tokens, {self.embedding_size}), but have "
                f"{tuple(embeddings.shape)}."
            )
        shape = embeddings.shape[:2]
        for name, value in (("attention_mask", attention_mask), ("segment_ids", segment_ids)):
            if value is not None and value.shape != shape:
                raise BackboneError(
                    f"{name} must have shape {tuple(shape)}, but has {tuple(value.shape)}."
                )
        if self.context_length is not None and shape[1] > self.context_length:
            raise BackboneError(
                f"tokens must be at most {self.context_length}, the context length of "
                f"{self.name!r}, but are {shape[1]}."
            )
        inputs = {
            "inputs_embeds": embeddings.to(self.dtype),
            "attention_mask": attention_mask,
            "return_dict": True,
        }
        if self._has_segments and segment_ids is not None:
            inputs["token_type_ids"] = segment_ids
        return inputs

    def _probe_states(self) -> int:
        """Return the hidden size, after checking that masked and later positions are not read.

        One short forward tells: its two rows differ at a masked position, and in a decoder at the
        last position too, so their states at all other positions must be equal.
        """
        ids = torch.arange(4, device=self.device).repeat(2, 1) * (self.vocabulary_size // 7)
        ids[1, 1] = self.vocabulary_size - 1
        mask = torch.tensor([[1, 0, 1, 1]] * 2, device=self.device)  # (2, 4)
        compared = [0, 2, 3]
        if self.family == "decoder":
            ids[1, 3] = self.vocabulary_size - 2
            compared = [0, 2]
        with torch.no_grad():
            output = self._run_body(self.embed(ids), mask, None)
        states = getattr(output, "last_hidden_state", None)
        if not isinstance(states, Tensor) or states.shape[:2] != ids.shape:
            found = tuple(states.shape) if isinstance(states, Tensor) else type(output).__name__
            raise BackboneError(f"the body must give one state per position, but gives {found}.")
        first, second = states[:, compared].double()
        if not bool(torch.isfinite(first).all()):
            raise BackboneError(
                f"states must be finite, but are not in {self.dtype}: take a wider dtype."
            )
        change = float((first - second).abs().max() / first.square().mean().sqrt())
        if not change <= _TOLERANCES[self.dtype]:
            raise BackboneError(
                "the body must not read masked positions, nor a decoder later ones, but they "
                f"change its states by {change:.2g} of their size."
            )
        return int(states.shape[-1])


def _find_body(model: Any, family: Family) -> Any:
    """Return the part that turns input embeddings into states."""
    if family == "encoder-decoder":
        return model.get_encoder()
    body = model.base_model
    return body if family == "encoder" or body is model else body.get_decoder()


def _find_table(body: Any) -> nn.Module:
    """Return the module that embeds token ids."""
    try:
        table = body.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        table = None
    if not isinstance(table, nn.Module) or not isinstance(getattr(table, "weight", None), Tensor):
        raise BackboneError(
            f"the body must have a table of input embeddings, but {type(body).__name__} has none."
        )
    return table


def _takes(module: nn.Module, argument: str) -> bool:
    return argument in inspect.signature(module.forward).parameters


def _without_cache(module: nn.Module) -> dict[str, bool]:
    """Return the argument that turns the key/value cache off, for a module that has one."""
    return {"use_cache": False} if _takes(module, "use_cache") else {}


def _decoder_call(encoded: Any, mask: Tensor, decoder: DecoderInputs) -> dict[str, Any]:
    """Return keyword arguments of an encoder-decoder whose encoder has run already."""
    chosen = encoded.last_hidden_state.index_select(0, decoder.source)  # (targets, tokens, hidden)
    encoded.last_hidden_state = chosen
    return {
        "encoder_outputs": encoded,
        "attention_mask": mask.index_select(0, decoder.source),  # (targets, tokens)
        "decoder_input_ids": decoder.ids,
        "decoder_attention_mask": decoder.mask,
        "return_dict": True,
    }


def _gather_positions(states: Tensor, gather: Tensor) -> Tensor:
    """Return states at positions. Shapes `(batch, tokens, hidden)` and `(batch, slots)`."""
    if gather.dim() != 2 or gather.shape[0] != states.shape[0]:
        raise BackboneError(
            f"gather must have shape ({states.shape[0]}, k), but has {tuple(gather.shape)}."
        )
    rows = torch.arange(states.shape[0], device=states.device)[:, None]  # (batch, 1)
    return states[rows, gather]  # (batch, k, hidden)


@contextmanager
def _only_at(body: nn.Module, gather: Tensor) -> Iterator[None]:
    """Let `body` give its last hidden state at the gathered positions only, while this lasts."""
    num_calls = 0

    def keep(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        output.last_hidden_state = _gather_positions(output.last_hidden_state, gather)
        return output

    handle = body.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()
    if num_calls != 1:
        raise BackboneError(f"the body must run once before the head, but ran {num_calls} times.")
