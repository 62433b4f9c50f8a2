"""From a recipe's regularizers to the ones that a run is trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softprompts.backbones.backbone import Backbone
from softprompts.recipes.schema import RunConfig
from softprompts.registry import Registry
from softprompts.regularizers.base import Regularizer
from softprompts.regularizers.registry import PERTURBATIONS, REGULARIZERS

_PARTS: Mapping[str, Registry[Any]] = {"perturbation": PERTURBATIONS}
"""Options that are components themselves."""


def build_regularizers(config: RunConfig, backbone: Backbone) -> list[Regularizer]:
    """Build what is added to a run's loss.

    Args:
        config: a resolved configuration.
        backbone: what the run reads through.

    Returns:
        The regularizers, in the recipe's order.

    Raises:
        SoftPromptsError: if one does not fit the backbone.
    """
    built = []
    for component in config.regularizers:
        options = component.options
        for name, registry in _PARTS.items():
            if name in options:
                described = dict(options[name])
                kind = registry.load(described.pop("kind"))
                options[name] = kind(backbone, **described)
        built.append(REGULARIZERS.load(component.kind)(backbone, **options))
    return built
