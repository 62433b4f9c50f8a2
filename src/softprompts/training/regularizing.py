"""From a recipe's regularizers to the ones that a run is trained with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.template import template_fields
from softprompts.errors import RecipeError
from softprompts.examples import TaskFormat
from softprompts.problems import near
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


def check_kept_fields(config: RunConfig, formats: Iterable[TaskFormat]) -> None:
    """Check that perturbations keep fields that there are; their default is left alone.

    Args:
        config: a resolved configuration.
        formats: the tasks' labels and templates.

    Raises:
        RecipeError: if no template of a task names such a field.
    """
    sources = [source for one in formats for source in one.templates.values()]
    known = list(dict.fromkeys(name for source in sources for name in template_fields(source)))
    problems = []
    for number, component in enumerate(config.regularizers):
        described = component.options.get("perturbation") or {}
        kept = described.get("kept_fields", ())
        if not kept or kept == _default(described["kind"]):
            continue
        for name in (name for name in kept if name not in known):
            like = near(name, known)
            hint = f" Did you mean {', '.join(map(repr, like))}?" if like else ""
            problems.append(
                f"`regularizers.{number}.perturbation.kept_fields` must be fields of the task's "
                f"templates, {', '.join(known)}, but has {name!r}.{hint}"
            )
    if problems:
        raise RecipeError(problems)


def _default(kind: str) -> Any:
    """Return the fields that a perturbation keeps where a recipe is silent."""
    return PERTURBATIONS.entry(kind).options["kept_fields"].default
