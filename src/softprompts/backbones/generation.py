"""Writing text: a decoder or encoder-decoder continues an input that a prompt is part of."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.families import decoder_length
from softprompts.backbones.memory import Memory
from softprompts.backbones.sources import first_line
from softprompts.errors import BackboneError

_DEFAULT_NEW_TOKENS = 20
"""What transformers writes where no length is told."""

_OURS = {
    **dict.fromkeys(
        ("inputs_embeds", "input_ids", "attention_mask", "position_ids", "encoder_outputs"),
        "it is made from the input",
    ),
    "assistant_model": "it would not have the prompt",
    "return_dict_in_generate": "token ids are returned",
}
"""What may not be told, and why."""


@torch.no_grad()
def generate(
    backbone: Backbone,
    inputs: tuple[Tensor, Tensor, Tensor | None],
    memory: Memory | None = None,
    **options: Any,
) -> Tensor:
    """Return the tokens that a backbone writes after an input.

    Switched-off rows are hidden by the attention mask here; the text is the same with and without
    a key/value cache.

    Args:
        backbone: a decoder or encoder-decoder with a language head.
        inputs: right-padded embeddings, attention mask and segment ids, as `Backbone.logits` takes
            them. Shape `(batch, tokens, embedding)`, and `(batch, tokens)` for the others.
        memory: what attention is given beside the input.
        options: arguments of `generate` of transformers, such as `max_new_tokens`, `num_beams`,
            `do_sample`, `use_cache` or a `generation_config`; what it leaves open is as in that of
            the backbone's model.

    Returns:
        Token ids, without the input; of an encoder-decoder with its start token; several sequences
        of one input follow each other. Shape `(batch, tokens)`.
    """
    if backbone.family == "encoder" or not backbone.has_language_head:
        raise BackboneError(
            f"backbone {backbone.name!r} must be a decoder or encoder-decoder with a trained "
            f"language head to write text, but is of family {backbone.family!r}."
        )
    settings = _settled(backbone, options)
    padding = settings.pad_token_id
    options["pad_token_id"] = backbone.tokenizer.pad_token_id if padding is None else padding
    copies = max(settings.num_beams or 1, settings.num_return_sequences or 1)
    batch = torch.arange(len(inputs[0]), device=backbone.device).repeat_interleave(copies)
    try:
        if backbone.family == "encoder-decoder":
            encoded, mask = backbone.read(*inputs, memory), _hide_closed(inputs[1], memory)
            given = {"encoder_outputs": encoded, "attention_mask": mask}
            return _write(backbone, memory, batch, given | options)
        return _write_on(backbone, inputs[0], inputs[1], memory, batch, options)
    except ValueError as error:
        if isinstance(error, BackboneError):
            raise
        raise _refusal(backbone, error) from error


def with_settings(backbone: Backbone, settings: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with what a `GenerationConfig` says otherwise than the backbone's model."""
    if settings is None:
        return dict(options)
    own, given = backbone.model.generation_config.to_dict(), options.get("generation_config")
    changed = {name: one for name, one in settings.to_dict().items() if one != own.get(name)}
    if given is None:
        return {**changed, **options}
    return {**options, "generation_config": _filled(given, changed)}


def _filled(settings: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of a `GenerationConfig` that has these values where it leaves them open."""
    settings = copy.deepcopy(settings)
    for name, value in values.items():
        if getattr(settings, name, None) is None:
            setattr(settings, name, value)
    return settings


def _refusal(backbone: Backbone, error: ValueError) -> BackboneError:
    return BackboneError(
        f"what {backbone.name!r} is asked to write must be what transformers can write, but it "
        f"says: {first_line(error)}"
    )


def _settled(backbone: Backbone, options: Mapping[str, Any]) -> Any:
    """Return a `GenerationConfig` of all that is told, as transformers puts it together."""
    options, own = dict(options), backbone.model.generation_config
    settings = _filled(options.pop("generation_config", None) or own, own.to_dict())
    try:
        rest = settings.update(**options)
    except ValueError as error:
        raise _refusal(backbone, error) from error
    for name, reason in _OURS.items():
        if name in rest or getattr(settings, name, None):
            raise BackboneError(f"`{name}` must be left out, since {reason}.")
    return settings


def num_new_tokens(
    backbone: Backbone, options: Mapping[str, Any], num_given: int | None = None
) -> int:
    """Return how many tokens are written at most, as `generate` of transformers counts them.

    `num_given` are positions before the first of them. With `None`, and options that say how long
    the whole may be, it is what a decoder's context is to keep free so that one token fits.
    """
    settings = _settled(backbone, options)
    new: int | None = settings.max_new_tokens
    whole: int | None = settings.max_length
    if new is not None:
        return new
    if whole is None:
        return _DEFAULT_NEW_TOKENS
    if backbone.family == "encoder-decoder":
        return whole - 1  # the start token counts
    if num_given is None:
        return max((backbone.context_length or 0) - whole, 0) + 1
    return max(whole - num_given, 0)


def check_written(
    backbone: Backbone,
    mask: Tensor,
    lengths: Tensor,
    memory: Memory | None,
    options: Mapping[str, Any],
) -> None:
    """Check that what is read and what is written fit the context.

    The `mask` is that of the input without a prompt; `lengths` are those with the prompt's rows
    between the tokens. Shapes `(batch, tokens)` and `(batch,)`.
    """
    if backbone.family == "encoder":
        return  # refused by `generate`
    if backbone.family == "encoder-decoder":
        limit, new = decoder_length(backbone.model), num_new_tokens(backbone, options)
        taken, parts = 1 + new, f"a start token and {new} new tokens"
    else:
        offsets = None if memory is None else memory.offsets
        taken = int((lengths if offsets is None else lengths + offsets).max())
        new = num_new_tokens(backbone, options, int(lengths.max()))
        num_input = int(mask.sum(dim=1).max())
        parts = f"{num_input} of the input, {taken - num_input} of the prompt and {new} new tokens"
        limit, taken = backbone.context_length, taken + new
    if limit is not None and taken > limit:
        raise BackboneError(
            f"what is read and written must take at most {limit} positions of {backbone.name}, but "
            f"takes {taken}: {parts}. Lower `max_new_tokens`"
            + ("." if backbone.family == "encoder-decoder" else " or shorten the input.")
        )


def _write_on(
    backbone: Backbone,
    embeddings: Tensor,
    mask: Tensor,
    memory: Memory | None,
    batch: Tensor,
    options: dict[str, Any],
) -> Tensor:
    """Let a decoder continue, inputs of one length at a time if it reads padding before them."""
    prepare = backbone.model.prepare_inputs_for_generation
    if "inputs_embeds" not in inspect.signature(prepare).parameters:
        raise BackboneError(
            f"backbone {backbone.name!r} must write from embeddings for text behind a prompt, but "
            f"{type(backbone.model).__name__} of transformers writes from token ids only."
        )
    lengths = mask.sum(dim=1)
    groups = sorted(set(lengths.tolist()))
    if len(groups) == 1 or backbone.pads_left:
        return _continue(backbone, embeddings, mask, memory, batch, options)
    copies, parts = len(batch) // len(mask), dict[int, Tensor]()
    for length in groups:
        rows = (lengths == length).nonzero()[:, 0]
        own = None if memory is None else memory.take(rows).cut(length)
        each = torch.arange(len(rows), device=mask.device).repeat_interleave(copies)
        part, whole = embeddings[rows, :length], mask[rows, :length]
        ids = _continue(backbone, part, whole, own, each, options)
        parts |= dict(zip(rows.tolist(), ids.chunk(len(rows)), strict=True))
    width = max(ids.shape[1] for ids in parts.values())
    padding = options["pad_token_id"]
    ordered = (parts[row] for row in range(len(mask)))
    return torch.cat([pad(ids, (0, width - ids.shape[1]), value=padding) for ids in ordered])


def _continue(
    backbone: Backbone,
    embeddings: Tensor,
    whole: Tensor,
    memory: Memory | None,
    batch: Tensor,
    options: dict[str, Any],
) -> Tensor:
    """Let a decoder continue; its input is padded on the left for that."""
    width = whole.shape[1]
    places = torch.arange(width, device=whole.device) - (width - whole.sum(dim=1, keepdim=True))
    sources = places % width  # (batch, tokens): what stands at each place, padding first
    positions = places.clamp(min=0) + backbone.first_position
    if memory is not None and memory.offsets is not None:
        positions = positions + memory.offsets[:, None]
    given = options | {
        "inputs_embeds": embeddings.gather(1, sources[..., None].expand_as(embeddings)),
        "attention_mask": _hide_closed(whole, memory).gather(1, sources),
        "position_ids": positions,
    }
    last = (given["attention_mask"] * torch.arange(width, device=whole.device)).argmax(dim=1)
    if int(last.min()) == width - 1:
        return _write(backbone, memory, batch, given)
    if "logits_to_keep" in inspect.signature(backbone.model.forward).parameters:
        given["logits_to_keep"] = 0  # states of all reach the head
    with _saying_at(backbone, width, last[batch]):
        return _write(backbone, memory, batch, given)


@contextmanager
def _saying_at(backbone: Backbone, width: int, places: Tensor) -> Iterator[None]:
    """Let the first new token be said at places of the input, in front of rows that are closed.

    These keep their positions, so that they cannot become padding. Shape `(batch,)`.
    """
    thread, count = threading.get_ident(), 0

    def choose(head: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        nonlocal count
        if threading.get_ident() != thread or not given:
            return None
        states, *rest = given  # (batch, tokens, hidden)
        if states.shape[:2] != (len(places), width):
            return None
        count += 1
        rows = torch.arange(len(places), device=states.device)
        said = states[rows, places.to(states.device)]
        return torch.cat([states[:, :-1], said[:, None]], dim=1), *rest

    handle = backbone.model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()
    if not count:
        raise BackboneError(
            f"rows behind the input of {backbone.name} must be active where it writes, but some "
            "are not, and what its language head reads cannot be told."
        )


def _write(
    backbone: Backbone, memory: Memory | None, batch: Tensor, arguments: dict[str, Any]
) -> Tensor:
    """Let the last half write beside a memory whose closed rows are hidden."""
    aside = None if memory is None else replace(_hidden(memory), gates=None).take(batch)
    call = partial(backbone.model.generate, **arguments)
    ids: Tensor = backbone.stacks[-1].run(call, backbone.memory_pass(aside, -1))
    return ids


def _hide_closed(mask: Tensor, memory: Memory | None) -> Tensor:
    """Return the mask without positions whose gate is 0. Shape `(batch, tokens)`."""
    if memory is None or memory.gates is None:
        return mask
    return mask * (memory.gates > 0)


def _hidden(memory: Memory) -> Memory:
    """Return the memory with closed rows hidden rather than weighed."""
    if memory.prefix_gates is None:
        return memory
    is_open = (memory.prefix_gates > 0).long()  # (batch, length)
    prefixes = {
        slot: replace(pair, shown=is_open if pair.shown is None else pair.shown * is_open)
        for slot, pair in memory.prefixes.items()
    }
    return replace(memory, prefixes=prefixes, prefix_gates=None)
