"""A run's own copy of a backbone: made without touching the original, and what is read of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from softprompts.backbones.adaptations.base import Adapted
from softprompts.backbones.backbone import Backbone
from softprompts.backbones.probing import read_once
from softprompts.errors import BackboneError


def copy_backbone(
    backbone: Backbone, *, dtype: torch.dtype | None = None, shares_weights: bool = False
) -> Backbone:
    """Return a frozen copy of a backbone, whose modules are its own.

    A copy in another `dtype` has weights of its own; one that `shares_weights` holds the original's
    tensors, stays frozen and takes hardly any memory.
    """
    if backbone.quantization is not None:
        raise BackboneError(
            f"backbone {backbone.name!r} must hold plain weights to be adapted in a copy, but is "
            f"quantized with {backbone.quantization}: train a prompt, or load plain weights."
        )
    if backbone.is_spread:
        raise BackboneError(
            f"backbone {backbone.name!r} must lie on one device to be adapted in a copy, but is "
            "spread over several, or lies on disk."
        )
    kept = {id(weight): weight for weight in backbone.model.parameters()} if shares_weights else {}
    model = copy.deepcopy(backbone.model, kept)
    return Backbone(
        backbone.name,
        backbone.family,
        model if dtype is None else model.to(dtype),
        backbone.tokenizer,
        backbone.has_language_head,
        backbone.fingerprint,
        backbone.has_checkpointing,
        backbone.is_compiled,
        backbone.revision,
    )


def train_what_is_read(
    backbone: Backbone, parameters: Mapping[str, nn.Parameter], needs_head: bool
) -> Adapted:
    """Train those of a copy's parameters that what a readout reads depends on.

    `needs_head` says whether that is vocabulary logits rather than hidden states.
    """
    backbone.train_only(parameters.values())
    with torch.enable_grad():
        total = read_once(backbone, needs_head).float().sum()
        if not total.requires_grad:
            raise BackboneError(
                f"an adaptation must train what {backbone.name} reads by, but none of the layers "
                "that it may change has a part in that."
            )
        found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    pairs = zip(parameters.items(), found, strict=True)
    trained = {name: parameter for (name, parameter), gradient in pairs if gradient is not None}
    backbone.train_only(trained.values())
    return Adapted(backbone, _named_tree(trained))


def _named_tree(parameters: Mapping[str, nn.Parameter]) -> nn.Module:
    """Return a module that holds parameters under their dotted names, and computes nothing."""
    root = nn.Module()
    for name, parameter in parameters.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(leaf, parameter)
    return root
