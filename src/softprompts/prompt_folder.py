"""Prompts of a model as a folder, and on a hub: a few kilobytes that name their backbone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.loading import load_backbone
from softprompts.errors import BackboneError, PromptError, StorageError
from softprompts.hub_transfer import fetch, is_hub_name
from softprompts.recipes.schema import PromptConfig
from softprompts.storage import (
    PROMPT_FILE,
    is_there,
    make_new_folder,
    read_record,
    read_tensors,
    write_json,
    write_tensors,
)
from softprompts.training.stored import Stored, check_stored, required

ABOUT_FILE = "prompt_config.json"


class _Trained(Stored):
    name: str
    revision: str | None
    dtype: Literal["float32", "bfloat16", "float16"]
    fingerprint: str


class _Options(Stored):
    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0)
    with_logits: bool = False
    with_decoder: bool = True


class _About(Stored):
    """What is said of prompts."""

    backbone: _Trained
    prompts: dict[str, PromptConfig] = Field(min_length=1)
    options: _Options


def describe(
    backbone: Backbone, configs: Mapping[str, PromptConfig | None], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is said of prompts, by how each is made, and of their backbone."""
    if None in configs.values():
        raise PromptError(
            "`prompt` must be a PromptConfig or a Result to be saved, but is a Prompt that existed "
            "before: save the `state_dict` instead."
        )
    about = {
        "name": backbone.name,
        "revision": backbone.revision,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "fingerprint": backbone.fingerprint,
    }
    prompts = {name: one.model_dump(mode="json") for name, one in configs.items() if one}
    return {"backbone": about, "prompts": prompts, "options": dict(options)}


def write_prompts(folder: Path, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write what prompts are, and their tensors, to a new or empty folder."""
    make_new_folder(folder)
    write_tensors(folder / PROMPT_FILE, tensors)
    write_json(folder / ABOUT_FILE, dict(about))


def read_prompts(
    name: str | Path, revision: str | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `write_prompts` wrote, from a folder or a repository of a hub."""
    folder = fetch(str(name), revision) if is_hub_name(name) else Path(name)
    if is_there(folder / "result.json"):
        raise StorageError(
            f"{name} must be what save_pretrained wrote, but is the folder of a run: give the "
            "Result that sp.load reads from it."
        )
    about = read_record(folder / ABOUT_FILE, required(_About))
    check_stored(folder / ABOUT_FILE, about, _About)
    tensors, _ = read_tensors(folder / PROMPT_FILE)
    return about, tensors


def check_tensors(
    name: str | Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    """Check that tensors that were read have the names and shapes of those of a model."""
    if {key: one.shape for key, one in found.items()} != {k: v.shape for k, v in wanted.items()}:
        raise StorageError(
            f"the tensors of {name} must be those of its prompts, {', '.join(sorted(wanted))}, but "
            "others or other shapes are there."
        )


def backbone_of(about: Mapping[str, Any], given: Backbone | str | None) -> Backbone:
    """Return the backbone that prompts were trained for, the same weights; load it if need be."""
    if not isinstance(given, Backbone):
        revision = about["revision"] if given is None else None
        given = load_backbone(given or about["name"], revision=revision, dtype=about["dtype"])
    if given.fingerprint != about["fingerprint"]:
        raise BackboneError(
            f"{given.name} must have the weights that the prompt was trained for, "
            f"{about['fingerprint']}, but has {given.fingerprint}."
        )
    return given
