"""A prompt that starts from a trained run: its sets of rows, and its selectors per input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from softprompts.component import Component
from softprompts.errors import PromptError
from softprompts.problems import show
from softprompts.prompts.prompt import Prompt
from softprompts.recipes.parsing import parse_kept_run
from softprompts.recipes.resolving import resolve
from softprompts.recipes.schema import PromptConfig, RunConfig
from softprompts.recipes.sources import digest_of, num_rows_of
from softprompts.training.finished import read_prompt, read_result
from softprompts.training.journal import read_about
from softprompts.training.trainable import Model, under

_SELECTORS = ("pool", "position", "active_length")


def adopt(model: Model, config: RunConfig) -> None:
    """Copy what `prompt.from_run` names into a model; does nothing where it names nothing.

    All sets of rows are copied, and each selector per input whose kind, options and instance
    vectors are those of the source. What belongs to one task starts fresh.

    Args:
        model: a model in its first state.
        config: its resolved configuration.

    Raises:
        PromptError: if the source is not the one that the configuration was resolved with, did
            not finish well, or its sets do not fit.
        SoftPromptsError: if the source cannot be read.
    """
    source = config.prompt.from_run
    if source is None:
        return
    folder = Path(source.folder)
    about = read_about(folder)
    status = read_result(folder, about["identity"])["status"]
    _require("status", source.folder, status, "finished")
    digest = digest_of(folder)
    _require("digest", source.folder, digest, source.digest)
    own = model.backbone.fingerprint
    _require("backbone weights", source.folder, about["backbone_fingerprint"], own)
    theirs = resolve(parse_kept_run(about["config"], str(folder / "config.json"))).prompt
    if theirs.length == "text":
        theirs = theirs.model_copy(update={"length": num_rows_of(folder)})
    _check_fit(source.folder, theirs, config.prompt)
    found = under("prompt.", read_prompt(folder, about))
    for track in model.tracks.values():
        _copy(found, theirs, config.prompt, track.prompt)


def _check_fit(folder: str, theirs: PromptConfig, ours: PromptConfig) -> None:
    """Check that the sets of two prompts are of the same kind and number."""
    for name in ("length", "rows", "depth", "unit"):
        _require(f"`prompt.{name}`", folder, _plain(theirs, name), _plain(ours, name))
    _require("the number of sets", folder, _num_sets(theirs), _num_sets(ours))


def _require(what: str, folder: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise PromptError(
            f"`prompt.from_run` must be a run with {what} {show(wanted)}, but that of {folder} "
            f"is {show(found)}."
        )


def _plain(prompt: PromptConfig, name: str) -> Any:
    value = getattr(prompt, name)
    return value.model_dump() if isinstance(value, Component) else value


def _num_sets(prompt: PromptConfig) -> int:
    assert prompt.pool is not None
    return int(prompt.pool.options.get("size", 1))


def _copy(
    found: dict[str, Tensor], theirs: PromptConfig, ours: PromptConfig, prompt: Prompt
) -> None:
    """Copy sets and selectors of a trained prompt into another."""
    state = dict(prompt.state_dict())
    for name, tensor in prompt.state_dict().items():
        axis, _, rest = name.partition(".")
        is_set = axis == "pool" and rest.split(".")[0] in ("rows", "sets")
        if name in prompt.task_tensors or not (is_set or _is_alike(theirs, ours, axis)):
            continue
        origin = f"pool.{_in_pool(rest, theirs)}" if is_set else name
        if origin not in found or found[origin].shape != tensor.shape:
            shape = tuple(found[origin].shape) if origin in found else "absent"
            raise PromptError(
                f"tensor {name} of the prompt must have shape {tuple(tensor.shape)} in "
                f"`prompt.from_run`, but is {shape}."
            )
        state[name] = found[origin]
    prompt.load_state_dict(state)


def _in_pool(name: str, theirs: PromptConfig) -> str:
    """Return the name of a set's tensor in the source's pool: `rows.X`, or `sets.N.X`."""
    assert theirs.pool is not None
    kind, _, rest = name.partition(".")
    if theirs.pool.kind == "single":
        return name if kind == "rows" else f"rows.{rest.partition('.')[2]}"
    return name if kind == "sets" else f"sets.0.{rest}"


def _is_alike(theirs: PromptConfig, ours: PromptConfig, axis: str) -> bool:
    """Return whether a selector of the source chooses by the same vectors in the same way."""
    is_selector = axis in _SELECTORS
    return is_selector and (_plain(theirs, axis), theirs.instance) == (
        _plain(ours, axis),
        ours.instance,
    )
