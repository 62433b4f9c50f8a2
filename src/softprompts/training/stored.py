"""What `config.json` and `result.json` of a run hold, and what their values must be.

Python writes both, but people edit them, and what a report says is made from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from softprompts.errors import RunFolderError
from softprompts.problems import describe

Count = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Stored(BaseModel):
    """Part of a file: nothing is converted, numbers are finite, and further keys are let be."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Made(Stored):
    """What a `config.json` says of how a run was made, as far as it says it."""

    attention: str | None = None
    versions: dict[str, str] | None = None


class About(Made):
    """A run's `config.json`; `config` and `task_format` have checks of their own."""

    identity: str
    config: dict[str, Any]
    data_digest: str
    backbone_fingerprint: str
    dtype: str
    task_format: dict[str, Any]


class ShownText(Stored):
    """A text that a run wrote on its reported rows."""

    place: Literal["best", "median", "worst"]
    input: str
    text: str
    reference: str
    token_f1: Fraction


class Scores(Stored):
    """What a run scored, or one task of a mixture."""

    metric: str
    score: Fraction | None
    last_score: Fraction | None
    majority: Fraction
    num_items: Count
    split: str
    answers: Annotated[str, Field(pattern="^[01]+$")] | None = None
    written: list[ShownText] | None = None

    @field_validator("answers")
    @classmethod
    def _one_each(cls, answers: str | None, info: ValidationInfo) -> str | None:
        num_items = info.data.get("num_items")
        if answers is not None and num_items is not None and len(answers) != num_items:
            constraint = f"a digit for each of the {num_items} items"
            raise PydanticCustomError("constraint", "wrong length", {"constraint": constraint})
        return answers


class Ended(Stored):
    """Which run ended, and how."""

    identity: str
    status: Literal["finished", "diverged"]


class RunResult(Scores, Ended):
    """A run's `result.json`."""

    steps: Count
    seconds: Amount
    trainable_parameters: Count
    num_cut: dict[str, Count]
    selected_step: Count | None = None
    held_out_score: Fraction | None = None
    examples_per_second: Amount | None = None
    peak_bytes: Count | None = None
    skipped_rows: dict[str, Count] | None = None
    tasks: Mapping[str, Scores] | None = None


class FinishedScores(Scores):
    """A task of a mixture that finished: its scores are there."""

    score: Fraction
    last_score: Fraction


class FinishedResult(RunResult):
    """The result of a run that did not diverge: its scores are there."""

    score: Fraction
    last_score: Fraction
    tasks: Mapping[str, FinishedScores] | None = None


def required(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the keys that a file must have."""
    return tuple(name for name, field in model.model_fields.items() if field.is_required())


def check_stored(path: Path, content: Mapping[str, Any], model: type[BaseModel]) -> None:
    """Check what a file of a run holds.

    Args:
        path: the file, for the error.
        content: what it holds.
        model: what it must hold.

    Raises:
        RunFolderError: if a value is wrong; the text names file, field, constraint and value.
    """
    try:
        model.model_validate(content)
    except ValidationError as error:
        problems = describe(error, content, model)
        raise RunFolderError(f"{path}: {' '.join(one.text for one in problems)}") from None


def check_result(path: Path, content: Mapping[str, Any]) -> None:
    """Check what a `result.json` holds; see `check_stored`."""
    is_finished = content["status"] == "finished"
    check_stored(path, content, FinishedResult if is_finished else RunResult)
