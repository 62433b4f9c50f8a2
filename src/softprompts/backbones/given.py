"""A model that the caller already has, as a backbone: looked at, and never changed."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import torch

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.families import Family, find_class, find_family
from softprompts.backbones.frame import check_fast, set_padding
from softprompts.backbones.placing import is_spread
from softprompts.backbones.quantized import as_bytes, check_quantized, plain_parts
from softprompts.backbones.sources import GIVEN, VOLATILE_KEYS
from softprompts.errors import BackboneError

_NUM_SAMPLES = 64
_NUM_DIGITS = 12


def take_model(
    model: Any, tokenizer: Any, wanted: dict[str, str | None], has_checkpointing: bool
) -> Backbone:
    """Return a backbone that reads through the caller's own model.

    Its name says the model's class and the begin of its fingerprint.

    Args:
        model: a frozen model of transformers in evaluation mode, on one device.
        tokenizer: its fast tokenizer; the backbone takes a copy.
        wanted: what the caller says of `dtype`, `device` and `attention`; `None` is the model's.
        has_checkpointing: whether layers are computed again in the backward pass.
    """
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    kind = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise BackboneError(
            "backbone must be a name, a path or a model of transformers (PreTrainedModel), but is "
            f"of class {kind}."
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise BackboneError(
            f"`tokenizer` must be the tokenizer of the given {kind}, but is of class "
            f"{type(tokenizer).__name__}: load_backbone(model, tokenizer=…)."
        )
    check_fast(tokenizer, GIVEN + kind)
    _check_still(model)
    _check_wanted(model, wanted)
    family = find_family(model.config)
    has_language_head = _has_head(model, family)
    identity = _fingerprint(model)
    name = f"{GIVEN}{kind}-{identity[:_NUM_DIGITS]}"
    tokenizer = copy.deepcopy(tokenizer)
    set_padding(tokenizer, model)
    backbone = Backbone(
        name, family, model, tokenizer, has_language_head, identity, has_checkpointing
    )
    check_quantized(backbone, has_language_head)
    return backbone


def _check_still(model: Any) -> None:
    """Check that a model is frozen, in evaluation mode and on one device."""
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    if trained:
        raise BackboneError(
            f"a given model must be frozen, but {len(trained)} parameters require a gradient, "
            f"{trained[0]} first: call model.requires_grad_(False)."
        )
    training = [name or "the model" for name, module in model.named_modules() if module.training]
    if training:
        raise BackboneError(
            f"a given model must be in evaluation mode, but {training[0]} is in training mode: "
            "call model.eval()."
        )
    devices = sorted({str(weight.device) for weight in model.parameters()})
    if is_spread(model) or len(devices) != 1 or devices == ["meta"]:
        raise BackboneError(
            f"a given model must lie on one device, but lies on {', '.join(devices)} or is moved "
            "by hooks: load it by its name, with device_map."
        )


def _check_wanted(model: Any, wanted: dict[str, str | None]) -> None:
    """Check that what the caller says of a model is so, since nothing of it is changed."""
    table = model.get_input_embeddings().weight
    own = {
        "dtype": str(table.dtype).removeprefix("torch."),
        "device": str(table.device),
        "attention": model.config._attn_implementation.removeprefix("softprompts-"),
    }
    for field, value in wanted.items():
        if value is not None and value != own[field]:
            raise BackboneError(
                f"`{field}` must be left out for a given model, or be its own, which is "
                f"{own[field]!r}, but is {value!r}: the model is not changed."
            )


def _has_head(model: Any, family: Family) -> bool:
    """Return whether a model is a language model, rather than a bare body."""
    with_head, bare = (find_class(model.config, family, has_head) for has_head in (True, False))
    if isinstance(model, with_head):
        return True
    if isinstance(model, bare):
        return False
    raise BackboneError(
        f"a given model must be a {with_head.__name__} or a {bare.__name__}, but is a "
        f"{type(model).__name__}."
    )


def _fingerprint(model: Any) -> str:
    """Return a sha256 over the configuration, and names, shapes and samples of the weights."""
    config = model.config.to_dict()
    kept = {key: value for key, value in config.items() if key not in VOLATILE_KEYS}
    state = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode())
    for name, value in model.state_dict().items():
        for part in plain_parts(value) if isinstance(value, torch.Tensor) else ():
            state.update(json.dumps([name, str(part.dtype), list(part.shape)]).encode())
            flat = part.reshape(-1)
            state.update(as_bytes(flat[:: max(1, flat.numel() // _NUM_SAMPLES)]))
    return state.hexdigest()
