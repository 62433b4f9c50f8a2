"""A frozen pretrained transformer and what the library needs of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn

from softprompts.backbones.attention_slots import find_slots, read_keys_and_values
from softprompts.backbones.families import Family
from softprompts.backbones.frame import Frame, probe_frame
from softprompts.backbones.frozen_model import FrozenModel
from softprompts.backbones.memory import KeyValues, Slot
from softprompts.backbones.probing import probe_body, writes_behind_padding
from softprompts.backbones.quantized import quantization_of
from softprompts.backbones.units import Units, measure_attentions, nearest_power
from softprompts.errors import BackboneError

_ROWS_AT_ONCE = 8192
_NUM_TOKENS = 64
"""Tokens, spread evenly over the vocabulary, whose keys and values are measured."""


@final
class Backbone(FrozenModel):
    """A frozen pretrained transformer. Never modified, never trained, shared by all runs.

    Threads may read through one backbone: they take turns, and several backbones run at once. A run
    that trains the backbone does so in a copy, which is a backbone of its own.

    Args:
        fingerprint: the identity of the weights. For all above it, see `FrozenModel`.
        is_compiled: whether layers are compiled where gradients are taken.
        revision: the hub's revision that was asked for.

    Attributes:
        quantization: how the weights are quantized, as transformers calls it; `None` where they
            are plain.
        hidden_size: width of the last hidden state.
        frame: special tokens around one text or a pair.
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
        super().__init__(name, family, model, tokenizer, has_language_head, has_checkpointing)
        self.fingerprint, self.revision, self.is_compiled = fingerprint, revision, is_compiled
        self.quantization = quantization_of(model)
        self.reload: Callable[[], Backbone] | None = None
        self.frame: Frame = probe_frame(tokenizer, self.num_segments)
        scales = (1.0, float(getattr(self.body, "embed_scale", 1.0)))
        self.hidden_size, self.embedding_scale = probe_body(self, scales)

    def __repr__(self) -> str:
        return f"Backbone({self.name!r}, {self.family}, {self.dtype}, {self.device})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        """Return itself: it is never modified, so copies of what holds it share it."""
        if not self.is_frozen:
            raise BackboneError(
                f"backbone {self.name!r} must be frozen to be copied, but is trained."
            )
        return self

    def __reduce__(self) -> tuple[Callable[..., Backbone], tuple[Any, ...]]:
        """Pickle its name and how it was loaded, not its weights."""
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

    def train_only(self, parameters: Iterable[nn.Parameter]) -> None:
        """Let parameters of the model be trained, and no others; only a run's own copy may be."""
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
            total += float(torch.linalg.vector_norm(rows, dtype=torch.float64)) ** 2
        return float((total / (self.vocabulary_size * self.embedding_size)) ** 0.5)

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
        """What keys and values of tokens from all over the vocabulary measure, by attention."""
        num_tokens = min(_NUM_TOKENS, self.vocabulary_size)
        if self.context_length is not None:
            num_tokens = min(num_tokens, self.context_length)
        ids = torch.arange(num_tokens) * (self.vocabulary_size // num_tokens)
        return measure_attentions(self.keys_and_values(self.embed(ids)))

    def units(self, is_input: bool) -> Units:
        """Measure what rows stand beside: embeddings, and in layers keys and values too."""
        embedding = nearest_power(self.embedding_rms)
        return Units(embedding, {} if is_input else self.attention_units)

    @cached_property
    def pads_left(self) -> bool:
        """Whether a decoder writes the same behind padding; tried when it is first asked for."""
        return writes_behind_padding(self)


def _reload(load: Callable[[], Backbone], fingerprint: str) -> Backbone:
    """Return a pickled backbone, loaded anew."""
    backbone = load()
    if backbone.fingerprint != fingerprint:
        raise BackboneError(
            f"backbone {backbone.name!r} must have the weights that it was pickled with, "
            f"{fingerprint}, but has {backbone.fingerprint}."
        )
    return backbone
