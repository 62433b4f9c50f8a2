"""Soft prompts that train stably, on any Hugging Face language model.

Names are imported when they are first used, so that `import softprompts` stays light.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from softprompts.collecting import uncollected
from softprompts.threads import sleep_while_waiting

if TYPE_CHECKING:
    from softprompts.api import train
    from softprompts.backbones.backbone import Backbone
    from softprompts.backbones.loading import load_backbone
    from softprompts.errors import (
        BackboneError,
        DataError,
        PromptError,
        RecipeError,
        RegistryError,
        RunFolderError,
        SoftPromptsError,
        StorageError,
        TuningError,
        UnknownNameError,
    )
    from softprompts.examples import Example, TaskFormat
    from softprompts.interop.peft import from_peft
    from softprompts.lab.ensembles import Ensemble, ensemble, load
    from softprompts.lab.fit.fitting import Fit, fit
    from softprompts.lab.notebooks import Landscape, Study, landscape
    from softprompts.lab.studies.runner import run_study
    from softprompts.model import SoftPromptModel
    from softprompts.prompts.prompt import Prompt
    from softprompts.recipes.loading import load_recipe
    from softprompts.recipes.schema import PromptConfig, RunConfig
    from softprompts.recipes.study import StudyConfig
    from softprompts.recipes.training_config import TrainingConfig
    from softprompts.recipes.tuning import TuneConfig
    from softprompts.results import Result
    from softprompts.tasks.base import Task
    from softprompts.tasks.loading import load_task

sleep_while_waiting()

__version__ = version("softprompts")

_HOMES = {
    "api": "train",
    "backbones.backbone": "Backbone",
    "backbones.loading": "load_backbone",
    "lab.ensembles": "Ensemble ensemble load",
    "errors": "BackboneError DataError PromptError RecipeError RegistryError RunFolderError "
    "SoftPromptsError StorageError TuningError UnknownNameError",
    "interop.peft": "from_peft",
    "model": "SoftPromptModel",
    "prompts.prompt": "Prompt",
    "recipes.loading": "load_recipe",
    "recipes.schema": "PromptConfig RunConfig",
    "recipes.study": "StudyConfig",
    "recipes.training_config": "TrainingConfig",
    "recipes.tuning": "TuneConfig",
    "results": "Result",
    "lab.fit.fitting": "Fit fit",
    "lab.notebooks": "Landscape Study landscape",
    "lab.studies.runner": "run_study",
    "examples": "Example TaskFormat",
    "tasks.base": "Task",
    "tasks.loading": "load_task",
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Backbone",
    "BackboneError",
    "DataError",
    "Ensemble",
    "Example",
    "Fit",
    "Landscape",
    "Prompt",
    "PromptConfig",
    "PromptError",
    "RecipeError",
    "RegistryError",
    "Result",
    "RunConfig",
    "RunFolderError",
    "SoftPromptModel",
    "SoftPromptsError",
    "StorageError",
    "Study",
    "StudyConfig",
    "Task",
    "TaskFormat",
    "TrainingConfig",
    "TuneConfig",
    "TuningError",
    "UnknownNameError",
    "__version__",
    "ensemble",
    "fit",
    "from_peft",
    "landscape",
    "load",
    "load_backbone",
    "load_recipe",
    "load_task",
    "run_study",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'softprompts' has no attribute {name!r}")
    with uncollected():
        return getattr(importlib.import_module(f"softprompts.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return list(__all__)
