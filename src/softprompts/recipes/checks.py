"""What one field alone cannot tell: combinations that are refused, with the reason."""

from __future__ import annotations

from collections.abc import Iterator

from softprompts.recipes.presets import METHODS
from softprompts.recipes.problems import Problem, show
from softprompts.recipes.schema import (
    DEFAULT_READOUT_LEARNING_RATE,
    INITIALIZER_AXIS,
    POOL_AXIS,
    POSITION_AXIS,
    ROWS_AXIS,
    TEMPERATURE,
    PromptConfig,
    RunConfig,
)
from softprompts.tasks.files_options import files_problems
from softprompts.tasks.registry import BUNDLED

READOUTS_WITHOUT_PARAMETERS = frozenset({"cloze", "text"})

_LENGTH_FIELDS = ("prompt.length", "prompt.method")


def combination_problems(config: RunConfig) -> list[Problem]:
    """Return what is wrong between fields that are each right.

    Args:
        config: a run whose fields are valid.

    Returns:
        One problem per combination that is refused, in recipe order.
    """
    return [
        *_task_problems(config),
        *_readout_problems(config),
        *prompt_problems(config.prompt),
        *_training_problems(config),
    ]


def prompt_length(prompt: PromptConfig) -> int:
    """Return the number of rows: the recipe's, or the preset's where it is silent."""
    return METHODS[prompt.method].length if prompt.length is None else prompt.length


def _task_problems(config: RunConfig) -> Iterator[Problem]:
    task = config.task
    if task.shots is not None and task.shots_total is not None:
        yield Problem(
            ("task.shots", "task.shots_total"),
            "`task.shots_total` must be left out when `task.shots` is set, "
            f"but is {task.shots_total} (with {task.shots} shots per class).",
        )
    if task.name in BUNDLED and task.data_dir is not None:
        yield Problem(
            ("task.name", "task.data_dir"),
            f"`task.data_dir` must be left out for {task.name}, which brings its own rows, "
            f"but is {show(task.data_dir)}.",
        )
    if task.name.startswith("fewglue/") and task.data_dir is None:
        yield Problem(
            ("task.name", "task.data_dir"),
            f"`task.data_dir` must be the folder with the files of {task.name}, but is null.",
        )
    if task.name == "files":
        for sentence in files_problems(task.options):
            yield Problem(("task.name", "task.options"), f"`task.options`: {sentence.rstrip('.')}.")


def prompt_problems(prompt: PromptConfig) -> Iterator[Problem]:
    """Find what is wrong between the fields of a prompt that are each right.

    Args:
        prompt: a prompt whose fields are valid.

    Yields:
        One problem per combination that is refused, named as in a run recipe.
    """
    length, preset = prompt_length(prompt), METHODS[prompt.method]
    if preset.is_length_fixed and length != preset.length:
        yield Problem(
            _LENGTH_FIELDS,
            f"`prompt.length` must be {preset.length} or left out with method {preset.name}, "
            f"but is {length}.",
        )
    is_fixed = prompt.position is not None and prompt.position.kind == "fixed"
    split = prompt.position.options["split"] if prompt.position and is_fixed else None
    if split is not None and split > length:
        yield Problem(
            (*_LENGTH_FIELDS, "prompt.position"),
            f"`prompt.position.split` must be at most `prompt.length`, {length}, but is {split}.",
        )
    for name, chosen, axis, neutral in (
        ("initializer", prompt.initializer, INITIALIZER_AXIS, "vocabulary"),
        ("rows", prompt.rows, ROWS_AXIS, "plain"),
        ("pool", prompt.pool, POOL_AXIS, "single"),
        ("position", prompt.position, POSITION_AXIS, "fixed"),
    ):
        if length == 0 and chosen is not None and chosen != axis.build(neutral):
            yield Problem(
                (*_LENGTH_FIELDS, f"prompt.{name}"),
                f"`prompt.{name}` must be left out when `prompt.length` is 0, since there are no "
                f"rows, but is {show(chosen)}.",
            )


def _readout_problems(config: RunConfig) -> Iterator[Problem]:
    if prompt_length(config.prompt) == 0 and config.readout.kind in READOUTS_WITHOUT_PARAMETERS:
        yield Problem(
            (*_LENGTH_FIELDS, "readout"),
            "`readout` must have trainable parameters when `prompt.length` is 0, since nothing "
            f"else is trained, as linear has, but is {show(config.readout.kind)}.",
        )


def _training_problems(config: RunConfig) -> Iterator[Problem]:
    training, readout = config.training, config.readout.kind
    if training.steps is not None and training.epochs is not None:
        yield Problem(
            ("training.epochs", "training.steps"),
            "`training.epochs` must be left out when `training.steps` is set, "
            f"but is {training.epochs} (with {training.steps} steps).",
        )
    if training.selection == "last" and training.patience is not None:
        yield Problem(
            ("training.selection", "training.patience"),
            "`training.patience` must be left out when `training.selection` is last, "
            f"but is {training.patience}.",
        )
    position = config.prompt.position
    kind = METHODS[config.prompt.method].position if position is None else position.kind
    if training.temperature != TEMPERATURE.build({}) and kind == "fixed":
        yield Problem(
            ("training.temperature", "prompt.position", "prompt.method"),
            "`training.temperature` must be left out with a fixed position, since nothing is "
            f"selected, but is {show(training.temperature)}.",
        )
    is_changed = training.readout_learning_rate != DEFAULT_READOUT_LEARNING_RATE
    if is_changed and readout in READOUTS_WITHOUT_PARAMETERS:
        yield Problem(
            ("training.readout_learning_rate", "readout"),
            f"`training.readout_learning_rate` must be left out with readout {readout}, which has "
            f"nothing to train, but is {show(training.readout_learning_rate)}.",
        )
