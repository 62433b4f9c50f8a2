"""The run recipe: what it may say, with every default and constraint."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from softprompts.backbones.device_memory import SIZES, is_memory, numbered
from softprompts.backbones.registry import BACKBONES
from softprompts.component import ComponentField, check_options
from softprompts.encoding.template import spell_turns
from softprompts.errors import DataError
from softprompts.readouts.registry import READOUTS
from softprompts.recipes.component_fields import ADAPTATION, AXES, READOUT, REGULARIZER, SAMPLING
from softprompts.recipes.model import Section
from softprompts.recipes.presets import METHODS, Preset
from softprompts.recipes.training_config import TrainingConfig
from softprompts.tasks.registry import TASKS


def _numbered(value: Any) -> Any:
    """Read devices in text as numbers: YAML and JSON have no others as keys."""
    return numbered(value) if isinstance(value, Mapping) else value


def _sized(limits: dict[int | str, int | str]) -> dict[int | str, int | str]:
    if not is_memory(limits):
        raise PydanticCustomError("constraint", "wrong sizes", {"constraint": SIZES})
    return limits


class BackboneConfig(Section):
    """The frozen backbone.

    Attributes:
        name: a registered short name, a local folder, a GGUF file, or a hub id.
        revision: branch, tag or commit of a hub id; null is its main branch.
        dtype: the precision of its weights; prompt, readout and optimizer are always float32.
            `auto` is bfloat16 where the processor has instructions for it, else float32; what it
            came to is kept in `config.json`.
        device: where it runs; `auto` takes an accelerator when there is one.
        attention: the attention implementation; null takes the fastest, and what it came to is
            kept in `config.json`.
        gradient_checkpointing: compute layers again in the backward pass: less memory, more time,
            the same numbers.
        compile: compile layers with torch.compile where gradients are taken, without graph breaks:
            the first updates are slow, later ones faster; states differ in the last bits.
        device_map: spreads the backbone over devices, as transformers does: `auto`, `balanced`,
            `balanced_low_0`, `sequential`, or devices by module; null keeps it on one device.
        max_memory: most memory by device, such as `{0: 20GB, cpu: 60GB}`, for a map that is made.
    """

    name: str = Field(min_length=1)
    revision: str | None = Field(None, min_length=1)
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    device: str = Field("auto", min_length=1)
    attention: Literal["eager", "fused", "plain", "sdpa"] | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    device_map: (
        Literal["auto", "balanced", "balanced_low_0", "sequential"]
        | Annotated[dict[str, Annotated[int, Field(ge=0)] | str], Field(min_length=1)]
        | None
    ) = None
    max_memory: (
        Annotated[
            dict[int | str, int | str],
            Field(min_length=1),
            BeforeValidator(_numbered),
            AfterValidator(_sized),
        ]
        | None
    ) = None

    @field_validator("name")
    @classmethod
    def _is_no_slip(cls, name: str) -> str:
        """Refuse a near miss of a registered name; any other name may be a folder or a hub id."""
        names = list(BACKBONES.names())
        if name in names or "/" in name:
            return name
        is_near = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
        if is_near and not Path(name).exists():
            known = [*names, "a local folder", "a hub id"]
            raise PydanticCustomError("unknown_name", "unknown name", {"known": known})
        return name


def _turns_spelled(value: Any) -> Any:
    """Read a list of turns as one text."""
    if not isinstance(value, list | tuple):
        return value
    try:
        return spell_turns(value)
    except DataError as error:
        raise PydanticCustomError("constraint", "wrong turns", {"constraint": TURNS}) from error


TURNS = "text, or a list of turns with a role (system, user, assistant) and content"
"""What a template may be, as errors and the JSON Schema say it."""


class TaskConfig(Section):
    """The task and its rows.

    Attributes:
        name: registry name, such as `superglue/cb`.
        data_dir: folder with the task's files; null lets the task find its own.
        shots: rows per class to train on; null keeps all.
        shots_total: rows to train on, whatever their class; null keeps all.
        sample_seed: draws these rows, the same for every run; null is the run's seed.
        num_items: rows of the reported split to score, drawn once for all seeds; null is all.
        max_tokens: most tokens of one input, without prompt rows; null is the backbone's limit.
        allow_missing_labels: accept a training set that lacks rows of some label.
        skip_bad_rows: leave out and count rows that cannot be read, instead of stopping.
        template: how a row becomes text, for the run's readout; null is the task's own template. A
            chat is a list of turns with `role` and `content`, or one text with `{role:user}` in it.
        instruction: what a method with an instruction says in front; null is the task's own.
        options: the task's own options.
    """

    name: str
    data_dir: str | None = None
    shots: int | None = Field(None, ge=1)
    shots_total: int | None = Field(None, ge=1)
    sample_seed: int | None = Field(None, ge=0)
    num_items: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=8)
    allow_missing_labels: bool = False
    skip_bad_rows: bool = False
    template: Annotated[str | None, BeforeValidator(_turns_spelled)] = Field(None, min_length=1)
    instruction: str | None = Field(None, min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in TASKS:
            known = list(TASKS.names())
            raise PydanticCustomError("unknown_name", "unknown name", {"known": known})
        return name

    @field_validator("options")
    @classmethod
    def _fit_the_task(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "name" not in info.data:  # the name itself is wrong, which is said elsewhere
            return options
        return check_options(TASKS.entry(info.data["name"]), options)


TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""What a task of a mixture may be called: its name stands in files and on the command line."""


class MixtureConfig(Section):
    """Several tasks that share one prompt.

    Attributes:
        tasks: the tasks, each with the fields of `task`, by names of your own.
        sampling: how often each task is drawn.
    """

    tasks: dict[TaskName, TaskConfig] = Field(min_length=1)
    sampling: Annotated[ComponentField, SAMPLING] = Field(
        default_factory=lambda: SAMPLING.build({})
    )


class SourceConfig(Section):
    """A trained run that a prompt starts from.

    Attributes:
        folder: the run's folder.
        is_frozen: leave the sets of rows as they are; only selectors and readout are trained.
        digest: fingerprint of the run's `prompt.safetensors`; null takes that of the folder.
    """

    folder: str = Field(min_length=1)
    is_frozen: bool = False
    digest: str | None = Field(None, min_length=1)


def _folder_alone(value: Any) -> Any:
    """Read a text as the mapping with that folder."""
    return {"folder": value} if isinstance(value, str) else value


class PromptConfig(Section):
    """The prompt: a method, and any axis that should differ from it.

    Attributes:
        method: a preset over the axes.
        length: the number of rows; `text` is as many as the text that rows start from has tokens,
            and 10 at least; null is the preset's.
        initializer: where rows start; null is the preset's.
        rows: how rows are parameterized; null is the preset's.
        pool: one set of rows or a mixture of several; null is the preset's.
        position: where rows go around the input; null is the preset's.
        active_length: how many rows take part; null is the preset's.
        depth: whether rows stand in the input or in every layer; null is the preset's.
        unit: `relative` measures rows, what networks add to them and learning rates in the
            root-mean-square of the backbone's embeddings (in every layer, of its keys and values),
            and starts training at the initializer's rows; `absolute` takes the papers' numbers as
            they are.
        instance: what a learned choice looks at: the mean of the bare backbone's last states, or
            of the input embeddings.
        from_run: a run whose trained sets of rows, and selectors per input, the prompt starts
            from: a folder, or a mapping with `folder` and `is_frozen`.
        context: text in front of every input, of a method that trains nothing: the task's
            `instruction`, or training rows with their answers as `demonstrations`; null is the
            method's.
        num_demonstrations: the most of these rows; null takes as many as fit.
    """

    method: str = "prompt-tuning"
    length: Annotated[int, Field(ge=0, le=65536)] | Literal["text"] | None = None
    initializer: Annotated[ComponentField, AXES["initializer"]] | None = None
    rows: Annotated[ComponentField, AXES["rows"]] | None = None
    pool: Annotated[ComponentField, AXES["pool"]] | None = None
    position: Annotated[ComponentField, AXES["position"]] | None = None
    active_length: Annotated[ComponentField, AXES["active_length"]] | None = None
    depth: Annotated[ComponentField, AXES["depth"]] | None = None
    unit: Literal["relative", "absolute"] = "relative"
    instance: Literal["states", "embeddings"] = "states"
    from_run: Annotated[SourceConfig | None, BeforeValidator(_folder_alone)] = None
    context: Literal["instruction", "demonstrations"] | None = None
    num_demonstrations: int | None = Field(None, ge=1)

    @field_validator("method")
    @classmethod
    def _is_known(cls, method: str) -> str:
        if method not in METHODS:
            raise PydanticCustomError("unknown_name", "unknown name", {"known": list(METHODS)})
        return method

    @model_validator(mode="before")
    @classmethod
    def _name_kinds(cls, data: Any) -> Any:
        """Let options without a `kind` belong to the kind that the preset chooses."""
        if not isinstance(data, Mapping):
            return data
        method = data.get("method", "prompt-tuning")
        preset = METHODS.get(method) if isinstance(method, str) else None
        if preset is None:
            return data
        named = dict(data)
        for axis in AXES:
            if isinstance(data.get(axis), Mapping):
                named[axis] = {"kind": getattr(preset, axis), **data[axis]}
        return named


def _preset_of(data: Any) -> Preset | None:
    """Return the preset that a run's plain data names; `None` where it names none that exists."""
    prompt = data.get("prompt", {}) if isinstance(data, Mapping) else None
    held = prompt.get("method") if isinstance(prompt, Mapping) else None
    method = getattr(prompt, "method", held)
    return METHODS.get(method) if isinstance(method, str) else None


class RunConfig(Section):
    """One run: a backbone, a task or several, a readout, a prompt, its training and a seed.

    Attributes:
        backbone: the frozen backbone.
        task: the task and its rows.
        mixture: several tasks with one prompt, instead of `task`.
        readout: how scores are read from the backbone's output.
        prompt: the prompt.
        adaptation: what is trained of the backbone, in a copy; null is the method's.
        regularizers: what is added to the loss.
        training: how prompt and readout are trained.
        seed: moves initialization, order, few-shot sample and noise.
    """

    backbone: BackboneConfig
    task: TaskConfig | None = None
    mixture: MixtureConfig | None = None
    readout: Annotated[ComponentField, READOUT] = Field(default_factory=lambda: READOUT.build({}))
    prompt: PromptConfig = Field(default_factory=PromptConfig)
    adaptation: Annotated[ComponentField, ADAPTATION] | None = None
    regularizers: list[Annotated[ComponentField, REGULARIZER]] = Field(default_factory=list)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    seed: int = Field(0, ge=0)

    @property
    def tasks(self) -> dict[str, TaskConfig]:
        """The tasks by name; the only one of `task` by its registry name."""
        if self.mixture is not None:
            return dict(self.mixture.tasks)
        return {} if self.task is None else {self.task.name: self.task}

    @property
    def task_fields(self) -> dict[str, str]:
        """Where a recipe says each task, by the names of `tasks`: `task`, `mixture.tasks.NAME`."""
        if self.mixture is None:
            return dict.fromkeys(self.tasks, "task")
        return {name: f"mixture.tasks.{name}" for name in self.mixture.tasks}

    @property
    def task_label(self) -> str:
        """What to call the task in tables: names of several are joined by ` + `."""
        return " + ".join(self.tasks)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """Let the method say what the recipe leaves open beside the prompt."""
        preset = _preset_of(data)
        if preset is None or not (preset.training or preset.objective):
            return data
        filled, training = dict(data), data.get("training", {})
        if isinstance(training, TrainingConfig):
            training = training.model_dump(exclude_unset=True)
        if isinstance(training, Mapping):
            filled["training"] = {**preset.training, **training}
        readout = data.get("readout", READOUT.default)
        readout = {"kind": readout} if isinstance(readout, str) else readout
        if preset.objective and isinstance(readout, Mapping):
            kind = readout.get("kind", READOUT.default)
            if kind in READOUTS and "objective" in READOUTS.entry(kind).options:
                filled["readout"] = {"objective": preset.objective, **readout}
        return filled

    @model_validator(mode="before")
    @classmethod
    def _name_adaptation(cls, data: Any) -> Any:
        """Let options without a `kind` belong to the adaptation that the method chooses."""
        if not isinstance(data, Mapping) or not isinstance(data.get("adaptation"), Mapping):
            return data
        preset = _preset_of(data)
        kind = "none" if preset is None else preset.adaptation
        return {**data, "adaptation": {"kind": kind, **data["adaptation"]}}
