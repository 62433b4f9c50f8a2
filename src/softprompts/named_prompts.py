"""Prompts of a model by name: how they are built, and which input has which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from softprompts.backbones.backbone import Backbone
from softprompts.errors import PromptError
from softprompts.prompts.prompt import Prompt
from softprompts.recipes.presets import METHODS
from softprompts.recipes.resolving import resolve_prompt
from softprompts.recipes.schema import PromptConfig
from softprompts.training.prompt_building import build_prompt

ONLY = ""
"""The name of the prompt of a model that has one."""


def build(
    backbone: Backbone, given: PromptConfig | Prompt | None, seed: int, with_decoder: bool
) -> Prompt:
    """Return a prompt that is there already, or build it from its resolved configuration."""
    if not isinstance(given, Prompt):
        config = resolved(given)
        if METHODS[config.method].is_length_fixed:
            raise PromptError(
                f"`prompt.method` must be one that trains a prompt here, but is {config.method!r}: "
                "sp.train runs all methods."
            )
        if config.from_run is not None:
            raise PromptError(
                "`prompt.from_run` must be left out here, since only a run checks its source, but "
                f"is {config.from_run.folder!r}."
            )
        given = build_prompt(config, backbone, (), seed, with_decoder)
    if given.position.needs_marks:
        raise PromptError(
            "`prompt.position` must have places of its own here, such as fixed, but is marked: "
            "token ids come without a template that could mark places."
        )
    return given


def resolved(config: PromptConfig | None) -> PromptConfig:
    """Return a configuration with every axis explicit."""
    return resolve_prompt(config or PromptConfig())


def check_names(prompts: Mapping[str, object]) -> None:
    """Refuse prompts without names, or with names that a state cannot hold."""
    wrong = [name for name in prompts if not name or "." in name or hasattr(nn.ModuleDict, name)]
    if wrong or not prompts:
        raise PromptError(
            "prompts must have names, without dots and not those of methods, but have "
            f"{wrong or 'none'}."
        )


def choose(
    prompts: Mapping[str, Prompt], names: Sequence[str] | None, input_ids: Tensor
) -> tuple[Tensor, list[tuple[Prompt, int]]]:
    """Return the order of inputs by prompt, and each prompt with the number of its inputs.

    Args:
        prompts: the prompts by name.
        names: the prompt of each input; `None` where there is one without a name.
        input_ids: token ids. Shape `(batch, tokens)`.
    """
    batch, device = len(input_ids), input_ids.device
    if ONLY in prompts:
        if names is not None:
            raise PromptError(
                f"`prompt_names` must be left out for a model of one prompt, but is {names!r}."
            )
        return torch.arange(batch, device=device), [(prompts[ONLY], batch)]
    unknown = sorted({str(name) for name in names or ()} - set(prompts))
    if names is None or len(names) != batch or unknown:
        said = "is None" if names is None else f"has {unknown or len(names)}"
        raise PromptError(
            f"`prompt_names` must have one of {', '.join(prompts)} for each of {batch} inputs, "
            f"but {said}."
        )
    used = list(dict.fromkeys(names))
    numbers = torch.tensor([used.index(name) for name in names], device=device)
    counts = [(prompts[name], list(names).count(name)) for name in used]
    return numbers.argsort(stable=True), counts
