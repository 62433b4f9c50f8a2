"""Prompts of a model by name: how they are built, and which input has which."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from softprompts.backbones.backbone import Backbone
from softprompts.errors import PromptError, SoftPromptsWarning
from softprompts.prompts.prompt import Prompt
from softprompts.recipes.presets import METHODS
from softprompts.recipes.resolving import resolve_prompt
from softprompts.recipes.schema import PromptConfig
from softprompts.results import Result
from softprompts.training.prompt_building import build_prompt

ONLY = ""
"""The name of the prompt of a model that has one."""

Given: TypeAlias = PromptConfig | Prompt | Result | None
"""How a prompt is made, or one that is there already."""


def build(
    backbone: Backbone, given: Given, seed: int, with_decoder: bool
) -> tuple[Prompt, PromptConfig | None]:
    """Return a prompt, built or there already, and how it is made, where that is known."""
    if isinstance(given, Result):
        return _placed(given.prompt()), _config_of(given, backbone, with_decoder)
    if isinstance(given, Prompt):
        return _placed(given), None
    if not isinstance(given, PromptConfig | None):
        raise PromptError(
            "`prompt` must be a PromptConfig, a Prompt, a Result, or a mapping of these by name, "
            f"but is {given!r}."
        )
    config = resolve_prompt(given or PromptConfig())
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
    start = config.initializer
    if start is not None and start.kind == "labels":
        raise PromptError("`prompt.initializer` must not be labels here, as there is no task.")
    if start is not None and start.kind == "text" and not start.options["text"]:
        warnings.warn(
            "`prompt.initializer` text starts at random words here, as no task gives it an "
            "instruction: give it one, {'kind': 'text', 'text': ...}.",
            SoftPromptsWarning,
            stacklevel=4,
        )
    return _placed(build_prompt(config, backbone, (), seed, with_decoder)), config


def _config_of(result: Result, backbone: Backbone, with_decoder: bool) -> PromptConfig:
    """Return how the prompt of a run is made, if it is one of this backbone, by itself."""
    config, adaptation = result.config.prompt, result.config.adaptation
    is_changed = adaptation is not None and adaptation.kind != "none"
    if METHODS[config.method].is_length_fixed or is_changed:
        raise PromptError(
            f"`prompt` must be a Result of rows on a frozen backbone, but is {result!r}."
        )
    if result.backbone.fingerprint != backbone.fingerprint:
        raise PromptError(
            f"`prompt` must be a Result on the weights of {backbone.name}, but is on "
            f"{result.backbone.fingerprint}."
        )
    prompt = result.prompt()
    reached = {slot.stack for slot in getattr(prompt.depth, "slots", ())}
    is_pair = backbone.family == "encoder-decoder" and len(reached) > 0
    if is_pair and with_decoder != ("decoder" in reached):
        raise PromptError(
            f"`with_decoder` must be {not with_decoder} for this Result, whose rows reach "
            f"the {' and the '.join(sorted(reached))}."
        )
    return config.model_copy(update={"length": prompt.length, "from_run": None})


def _placed(prompt: Prompt) -> Prompt:
    """Return the prompt, unless its rows stand where only a template says."""
    if prompt.position.needs_marks:
        raise PromptError(
            "`prompt.position` must have places of its own here, such as fixed, but is marked: "
            "token ids come without a template that could mark places."
        )
    return prompt


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
