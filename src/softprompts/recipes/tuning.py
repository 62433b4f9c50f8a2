"""Tuning in a study recipe: which field, its candidates, what was chosen, and what is wrong."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, final

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from softprompts.problems import Problem, broken, field_paths, known_keys, show, unknown_key
from softprompts.recipes.model import Section
from softprompts.recipes.overrides import NAMED_FIELDS, listed, place, set_at
from softprompts.recipes.parsing import overlaps, read_run
from softprompts.recipes.resolving import value_of
from softprompts.recipes.schema import RunConfig
from softprompts.recipes.seeds import read_seeds, seeds_schema

FIRST_SEED = 1000
"""The first seed of tuning, where a recipe says how many there are."""

DEFAULT_SEEDS = 2
FACTORS = (1 / 10, 1 / 3, 1, 3, 10)
"""Candidates of a number, as multiples of what the recipe says, where it names none."""

_ROOMS = ("prompt", "readout", "adaptation", "regularizers", "training", "mixture.sampling")
_OF_RUNGS = (
    "training.steps",
    "training.epochs",
    "training.selection",
    "training.held_out_fraction",
)
"""What the rungs set, or what would score candidates on different rows."""


class Choice(Section):
    """What tuning chose for one variant at one point of the grid.

    Attributes:
        variant: the variant's name.
        point: values by dotted field.
        value: what the field is to be.
    """

    variant: str
    point: dict[str, Any] = Field(default_factory=dict)
    value: Any


class TuneConfig(Section):
    """A field whose value each variant chooses on held-out rows, at each point of the grid.

    Attributes:
        field: a number or component of a run, by its dotted name.
        values: the candidates, the same for every variant; null takes what the recipe says times
            1/10, 1/3, 1, 3 and 10.
        seeds: the seeds that candidates are trained with, or how many (2 are 1000 and 1001); those
            of the study are others.
        keep: one candidate in so many goes on to the next rung.
        chosen: what an earlier tuning chose; null tunes. A study's folder keeps it here.
    """

    field: str = Field(min_length=1)
    values: Annotated[list[Any], Field(min_length=2)] | None = None
    seeds: Annotated[
        tuple[int, ...],
        BeforeValidator(partial(read_seeds, first=FIRST_SEED)),
        PlainSerializer(list),
        WithJsonSchema(seeds_schema(DEFAULT_SEEDS)),
    ] = Field(
        default_factory=lambda: tuple(range(FIRST_SEED, FIRST_SEED + DEFAULT_SEEDS)), strict=False
    )
    keep: int = Field(3, ge=2)
    chosen: list[Choice] | None = None

    def choice(self, variant: str, point: Mapping[str, Any]) -> Choice | None:
        """Return what was chosen for a variant at a point, if anything was."""
        found = (c for c in self.chosen or () if c.variant == variant and c.point == point)
        return next(found, None)


@final
@dataclass(frozen=True)
class Tunable:
    """A variant at a point of the grid that is trained, so that it can be tuned.

    Its recipe, plain and checked, is that before tuning, without a seed.
    """

    variant: str
    point: Mapping[str, Any]
    data: Mapping[str, Any]
    config: RunConfig


def multiples(value: float) -> list[float]:
    """Return the candidates around a positive number: whole ones around a whole one.

    Example:
        >>> multiples(0.01)
        [0.001, 0.00333, 0.01, 0.03, 0.1]
        >>> multiples(4)
        [1, 4, 12, 40]
    """
    if isinstance(value, int):
        return list(dict.fromkeys(max(1, round(value * factor)) for factor in FACTORS))
    return [value if factor == 1 else float(f"{value * factor:.3g}") for factor in FACTORS]


def spanning(low: float, high: float) -> list[float]:
    """Return candidates from a tenth of one number to ten times another, evenly by their ratios.

    Example:
        >>> spanning(0.02, 0.1)
        [0.002, 0.00693, 0.024, 0.0833, 0.289, 1.0]
        >>> spanning(4, 10)
        [1, 4, 11, 33, 100]
    """
    count = 4 + round(2 * math.log10(high / low))
    found = [low / 10 * (100 * high / low) ** (number / count) for number in range(count + 1)]
    if isinstance(low, int) and isinstance(high, int):
        return list(dict.fromkeys(max(1, round(value)) for value in found))
    return [float(f"{value:.3g}") for value in found]


def is_number(value: Any) -> bool:
    """Return whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def tune_problems(
    tune: TuneConfig,
    runs: Sequence[Tunable],
    changes: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
) -> Iterator[Problem]:
    """Find what is wrong with a study's tuning, each said once.

    `runs` are its variants at points of the grid that are trained, as far as they are right;
    `changes` are the fields that `grid` and each `variants.NAME` set.
    """
    found = [*_field_problems(tune.field), *_conflicts(tune, changes, seeds)]
    if not found and runs and tune.chosen is None:
        found = list(_value_problems(tune, runs)) or list(_candidate_problems(tune, runs))
    if not found and tune.chosen is not None:
        found = list(_choice_problems(tune, runs))
    yield from found
    if not runs:
        names = [group.removeprefix("variants.") for group in changes if group != "grid"]
        text = f"`tune` must have a method to tune, but no variant trains anything: {show(names)}."
        yield Problem(("tune",), text)


def candidates(tune: TuneConfig, runs: Sequence[Tunable]) -> list[Any]:
    """Return the candidates of a field, the same for every run that `tune_problems` finds right."""
    if tune.values is not None:
        return list(tune.values)
    own = _own_values(tune, runs)
    return multiples(own[0]) if min(own) == max(own) else spanning(min(own), max(own))


def tuned(run: Tunable, field: str, value: Any) -> tuple[dict[str, Any], str]:
    """Return a run recipe with a candidate set, and what is wrong with setting it, or ""."""
    data = copy.deepcopy(dict(run.data))
    return data, set_at(data, field.split("."), copy.deepcopy(value))


def _field_problems(field: str) -> Iterator[Problem]:
    """Find what is wrong with the name of a field."""
    parts = field.split(".")
    if not all(parts):
        yield broken("be a dotted field of a run", field, "tune.field")
    elif text := _unknown(parts):
        text = f"`tune.field` must be a field of a run, but is {show(field)}: {text}"
        yield Problem(("tune.field",), text)
    elif known_keys(RunConfig, parts) or not any(f"{field}.".startswith(f"{r}.") for r in _ROOMS):
        rule = f"be one number or component of {', '.join(_ROOMS[:-1])} or {_ROOMS[-1]}"
        yield broken(rule, field, "tune.field")
    elif field in _OF_RUNGS:
        rule = "leave the updates and the held-out rows to tuning, which sets them"
        yield broken(rule, field, "tune.field")


def _unknown(parts: Sequence[str]) -> str:
    """Return the sentence for a field that no run has, or ""; components check their options."""
    for depth, part in enumerate(parts):
        known = known_keys(RunConfig, parts[:depth])
        if not known:
            return ""
        if part not in known:
            return unknown_key(parts[: depth + 1], known, field_paths(RunConfig))
    return ""


def _conflicts(
    tune: TuneConfig, changes: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]
) -> Iterator[Problem]:
    """Find fields that the grid or a variant would set too, and seeds that are used twice."""
    for group, fields in changes.items():
        for field in fields:
            if group == "grid" and overlaps([field], [tune.field]):
                text = f"`grid` must leave `{tune.field}` to `tune`, but sets `{field}`."
                yield Problem(("tune.field", f"grid.{field}"), text)
            elif group != "grid" and field.startswith(f"{tune.field}."):
                text = (
                    f"`{group}` must leave what lies in `{tune.field}` to `tune`, but sets "
                    f"`{field}`."
                )
                yield Problem(("tune.field", group), text)
    both = [seed for seed in tune.seeds if seed in seeds]
    if both:
        text = (
            "`tune.seeds` must be others than those of the study, on which nothing may be chosen, "
            f"but both have {show(both)}."
        )
        yield Problem(("tune.seeds", "seeds"), text)


def _own_values(tune: TuneConfig, runs: Sequence[Tunable]) -> list[Any]:
    """Return what each run says of the field before it is tuned."""
    return [value_of(run.data, tune.field) for run in runs]


def _value_problems(tune: TuneConfig, runs: Sequence[Tunable]) -> Iterator[Problem]:
    """Find candidates that are missing, of the wrong kind, or there twice."""
    field = tune.field
    if tune.values is None:
        for run, value in zip(runs, _own_values(tune, runs), strict=True):
            if not (is_number(value) and value > 0):
                text = (
                    "`tune.values` must be given, at least 2, where the recipe says no positive "
                    f"number, but are null and `{field}` is {show(value)} ({run.variant})."
                )
                yield Problem(("tune.values",), text)
                return
        return
    start, _, rest = field.partition(".")
    is_component = field in NAMED_FIELDS or (start == "regularizers" and rest.isdecimal())
    for number, value in enumerate(tune.values):
        if any(value == other for other in tune.values[:number]):
            text = f"`tune.values` must be distinct, but have {show(value)} again."
            yield Problem(("tune.values",), text)
        if not (isinstance(value, str | Mapping) if is_component else is_number(value)):
            kind = "names or mappings" if is_component else "numbers"
            text = f"`tune.values` must be {kind} for `{field}`, but have {show(value)}."
            yield Problem(("tune.values",), text)
            return


def _candidate_problems(tune: TuneConfig, runs: Sequence[Tunable]) -> Iterator[Problem]:
    """Find candidates that some run cannot have."""
    places: dict[Problem, list[str]] = {}
    values = candidates(tune, runs)
    for run in runs:
        for value in values:
            data, text = tuned(run, tune.field, value)
            found = [Problem((tune.field,), text)] if text else read_run(data)[1]
            for problem in found:
                places.setdefault(problem, []).append(place(run.variant, run.point))
    for problem, repeated in places.items():
        where = list(dict.fromkeys(repeated))
        end = "" if len(where) == len(runs) else f" {listed(where)}"
        yield Problem(("tune.values",), f"`tune`: {problem.text}{end}")


def _choice_problems(tune: TuneConfig, runs: Sequence[Tunable]) -> Iterator[Problem]:
    """Find runs without a choice, and choices without a run."""
    missing = [place(r.variant, r.point) for r in runs if tune.choice(r.variant, r.point) is None]
    if missing:
        text = (
            "`tune.chosen` must have a choice for every variant that is trained, at every point, "
            f"or be left out, but lacks one {listed(missing)}."
        )
        yield Problem(("tune.chosen",), text)
