"""A run's own copy of a backbone: made without touching the original, and what is read of it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.probing import read_once
from softprompts.errors import BackboneError


def copy_backbone(
    backbone: Backbone, *, dtype: torch.dtype | None = None, shares_weights: bool = False
) -> Backbone:
    """Return a backbone whose modules are its own.

    Args:
        backbone: the original; it stays as it is.
        dtype: of the copy's weights; `None` keeps the original's.
        shares_weights: let the copy hold the original's tensors, for a copy whose weights stay
            frozen; it then takes hardly any memory.

    Returns:
        A frozen copy, which reads as the original does.

    Raises:
        BackboneError: if the original is spread over devices, or quantized.
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


def reached(
    backbone: Backbone, parameters: Mapping[str, nn.Parameter], needs_head: bool
) -> dict[str, nn.Parameter]:
    """Return the parameters that what a readout reads depends on.

    Args:
        backbone: the backbone.
        parameters: its parameters by name; all must ask for a gradient.
        needs_head: whether vocabulary logits are read rather than hidden states.

    Returns:
        Those that a gradient reaches, in the order given.

    Raises:
        BackboneError: if it reaches none.
    """
    with torch.enable_grad():
        total = read_once(backbone, needs_head).float().sum()
        if not total.requires_grad:
            raise BackboneError(
                f"an adaptation must train what {backbone.name} reads by, but none of the layers "
                "that it may change has a part in that."
            )
        found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    pairs = zip(parameters.items(), found, strict=True)
    return {name: parameter for (name, parameter), gradient in pairs if gradient is not None}


def named_tree(parameters: Mapping[str, nn.Parameter]) -> nn.Module:
    """Return a module that holds parameters under their dotted names.

    Returns:
        A module whose `state_dict` has exactly these names; it computes nothing.

    Example:
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> list(named_tree({"layer.0.weight": weight}).state_dict())
        ['layer.0.weight']
    """
    root = nn.Module()
    for name, parameter in parameters.items():
        *path, leaf = name.split(".")
        _descend(root, path).register_parameter(leaf, parameter)
    return root


def _descend(module: nn.Module, path: Iterable[str]) -> nn.Module:
    """Return the module at a path, made where it is missing."""
    for part in path:
        children = dict(module.named_children())
        if part not in children:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    return module
