"""Which modules of a model a backbone needs, and what their forwards take."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from softprompts.backbones.families import Family
from softprompts.errors import BackboneError


def find_body(model: Any, family: Family) -> Any:
    """Return the part that turns input embeddings into states.

    Args:
        model: the model, with or without a head.
        family: how it is built.
    """
    if family == "encoder-decoder":
        return model.get_encoder()
    body = model.base_model
    return body if family == "encoder" or body is model else body.get_decoder()


def find_table(body: Any) -> nn.Module:
    """Return the module that embeds token ids.

    Args:
        body: what `find_body` returned.

    Raises:
        BackboneError: if there is none.
    """
    try:
        table = body.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        table = None
    if not isinstance(table, nn.Module) or not isinstance(getattr(table, "weight", None), Tensor):
        raise BackboneError(
            f"the body must have a table of input embeddings, but {type(body).__name__} has none."
        )
    return table


def takes(module: nn.Module, argument: str) -> bool:
    """Return whether a module's forward has an argument."""
    return argument in inspect.signature(module.forward).parameters


def without_cache(module: nn.Module) -> dict[str, bool]:
    """Return the argument that turns the key/value cache off, for a module that has one."""
    return {"use_cache": False} if takes(module, "use_cache") else {}
