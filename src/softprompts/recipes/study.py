"""The study recipe: one base run, and what changes from run to run."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from softprompts.errors import RecipeError
from softprompts.problems import Problem, broken, describe, field_paths, near, refuse, show
from softprompts.recipes.checks import is_trained
from softprompts.recipes.model import Section
from softprompts.recipes.overrides import MOST_PARTS, listed, place, set_at
from softprompts.recipes.parsing import overlaps, parse_run, read_run, with_unit
from softprompts.recipes.schema import PromptConfig, RunConfig
from softprompts.recipes.seeds import MoreSeedsConfig, read_seeds, seeds_schema
from softprompts.recipes.tuning import Tunable, TuneConfig, tune_problems

DEFAULT_SEEDS = 5
MOST_POINTS, MOST_RUNS = 10_000, 50_000


def _pack_size(value: Any) -> Any:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not is_count and value != "auto":
        constraint = "auto, or a whole number of at least 1"
        raise PydanticCustomError("constraint", "wrong size", {"constraint": constraint})
    return value


def _nothing_is_no_change(value: Any) -> Any:
    """Read a variant without a value, `residual:`, as one that changes nothing."""
    if isinstance(value, Mapping):
        return {name: {} if change is None else change for name, change in value.items()}
    return value


_PACK_SIZE_SCHEMA = {
    "anyOf": [{"enum": ["auto"]}, {"type": "integer", "minimum": 1}],
    "default": "auto",
}

Name = Annotated[str, Field(min_length=1)]


class StudyConfig(Section):
    """A grid of runs: variants × points of the grid × seeds.

    Attributes:
        name: what the study is called; null takes the recipe's name.
        description: one line or more about it.
        base: a run recipe that may be partial.
        variants: what each variant changes: values by dotted field.
        grid: values to go through, by dotted field; a mapping gives each value a name of its own,
            and names of whole tasks are what tables call them.
        seeds: the seeds, or how many (5 are 0 to 4).
        baseline: the variant that the others are compared with; null takes the first.
        pack_size: most runs that train side by side through one forward; auto chooses by device,
            shape and memory.
        more_seeds: adds seeds until one variant is shown to score higher than every other; null
            adds none.
        tune: a field whose value is chosen on held-out rows before the study runs; null tunes
            nothing.
    """

    name: str | None = Field(None, min_length=1)
    description: str | None = None
    base: dict[str, Any] = Field(default_factory=dict)
    variants: Annotated[dict[Name, dict[str, Any]], BeforeValidator(_nothing_is_no_change)] = Field(
        default_factory=lambda: dict[str, dict[str, Any]](base={}), min_length=1
    )
    grid: dict[str, Annotated[list[Any] | dict[Name, Any], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    seeds: Annotated[
        tuple[int, ...],
        BeforeValidator(read_seeds),
        PlainSerializer(list),
        WithJsonSchema(seeds_schema(DEFAULT_SEEDS)),
    ] = Field(default_factory=lambda: tuple(range(DEFAULT_SEEDS)), strict=False)
    baseline: str | None = Field(None, min_length=1)
    pack_size: Annotated[
        int | str, BeforeValidator(_pack_size), WithJsonSchema(_PACK_SIZE_SCHEMA)
    ] = "auto"
    more_seeds: MoreSeedsConfig | None = None
    tune: TuneConfig | None = None


def with_kept_unit(study: StudyConfig) -> StudyConfig:
    """Return a study as its folder keeps it: with the unit that rows have where it says none."""
    return study.model_copy(update={"base": with_unit(study.base, PromptConfig().unit)})


def parse_kept_study(data: Mapping[str, Any], source: str) -> StudyConfig:
    """Return the study that a folder's `study.json` describes; see `parse_kept_run`."""
    return parse_study({**data, "base": with_unit(data.get("base"), "absolute")}, source)


def parse_study(data: Any, source: str = "recipe") -> StudyConfig:
    """Return the study that `data` describes, after checking every run, or raise every problem."""
    problems: list[Problem] = []
    study: StudyConfig | None = None
    wrong: list[str] = []
    try:
        study = StudyConfig.model_validate(data)
    except ValidationError as error:
        elsewhere = [*StudyConfig.model_fields, *field_paths(RunConfig, "base.")]
        problems = describe(error, data, StudyConfig, elsewhere)
        wrong = [field for problem in problems for field in problem.fields]
        study = _sound_part(data, wrong)
    if study is not None:
        hidden = [field.removeprefix("base.").removeprefix("grid.") for field in wrong]
        problems += [item for item in study_problems(study) if not overlaps(item.fields, hidden)]
    refuse(problems, source)
    assert study is not None
    return study


def _sound_part(data: Any, wrong: Sequence[str]) -> StudyConfig | None:
    """Return the study without its wrong parts, or `None` when too little is left to check."""
    if not isinstance(data, Mapping) or {"base", "variants", "grid"} & set(wrong):
        return None
    part = copy.deepcopy(dict(data))
    for section in ("variants", "grid"):
        held = part.get(section)
        if isinstance(held, dict):
            part[section] = {
                name: value
                for name, value in held.items()
                if not overlaps([f"{section}.{name}"], wrong)
            }
    for field in wrong:
        if field.split(".")[0] not in ("variants", "grid"):
            part.pop(field.split(".")[0], None)
    try:
        return StudyConfig.model_validate(part)
    except ValidationError:
        return None


def points(study: StudyConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every variant at every point of the grid, in the recipe's order, points innermost."""
    values = list(study.grid.values())
    for variant in study.variants:
        for chosen in itertools.product(*values):
            yield variant, dict(zip(study.grid, chosen, strict=True))


def merged(study: StudyConfig, variant: str, point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run recipe of one variant at one point, without its seed.

    It is the base with the variant's changes, the point's values or those that it names, and what
    tuning chose.
    """
    data = copy.deepcopy(study.base)
    changes = dict(study.variants[variant])
    for field, value in point.items():
        values = study.grid.get(field)
        changes[field] = values[value] if isinstance(values, Mapping) else value
    found = [
        set_at(data, field.split("."), copy.deepcopy(value)) for field, value in changes.items()
    ]
    choice = None if study.tune is None else study.tune.choice(variant, point)
    if study.tune is not None and choice is not None:
        path = study.tune.field.split(".")
        found.append(set_at(data, path, copy.deepcopy(choice.value)))
    if any(found):
        raise RecipeError([text for text in found if text], study.name or "study")
    return data


def study_problems(study: StudyConfig) -> list[Problem]:
    """Return what is wrong between the parts of a study and with its runs, each said once.

    Its own problems come first, then those of its runs with the variant and point of each.
    """
    if too_many := _too_many(study):
        return too_many
    problems = [*_conflicts(study), *_repeated_values(study), *_unknown_baseline(study)]
    problems += _wrong_looks(study)
    places: dict[Problem, list[str]] = {}
    num_points, trained = 0, []
    for variant, point in points(study):
        num_points += 1
        try:
            data = merged(study, variant, point)
        except RecipeError as error:
            found = [Problem((), text) for text in error.problems]
        else:
            data.pop("seed", None)
            config, found = read_run(data)
            if config is not None and not found and is_trained(config):
                trained.append(Tunable(variant, point, data, config))
        for problem in found:
            places.setdefault(problem, []).append(place(variant, point))
    for problem, where in places.items():
        text = problem.text if len(where) == num_points else f"{problem.text} {listed(where)}"
        problems.append(Problem(problem.fields, text))
    if study.tune is not None and not (places and not trained):  # else the runs come first
        problems += tune_problems(study.tune, trained, _changes(study), study.seeds)
    return problems


def tunable(study: StudyConfig) -> list[Tunable]:
    """Return the variants at points of the grid that are trained, as they are before tuning."""
    before = study.model_copy(update={"tune": None})
    found = []
    for variant, point in points(study):
        data = merged(before, variant, point)
        config = parse_run(data, study.name or "study")
        if is_trained(config):
            found.append(Tunable(variant, point, data, config))
    return found


def _changes(study: StudyConfig) -> dict[str, Mapping[str, Any]]:
    """Return the fields that the grid and each variant set, by where they stand."""
    return {"grid": study.grid, **{f"variants.{name}": v for name, v in study.variants.items()}}


def _conflicts(study: StudyConfig) -> Iterator[Problem]:
    """Find fields that two parts of a study set, or that `seeds` owns."""
    if "seed" in study.base:
        yield broken("be left out: `seeds` sets it", study.base["seed"], "base.seed")
    for group, changes in _changes(study).items():
        for field in changes:
            if not all(field.split(".")):
                text = f"`{group}` must name dotted fields of a run, but has {show(field)}."
                yield Problem((group,), text)
            if overlaps([field], ["seed"]):
                text = f"`{group}` must leave the seed to `seeds`, but sets `{field}`."
                yield Problem((group,), text)
        order = {field: number for number, field in enumerate(changes)}
        for pair in _nested(changes, changes):
            one, other = sorted(pair, key=order.__getitem__)
            text = f"`{group}` must set a field once, but sets both `{one}` and `{other}`."
            yield Problem((group,), text)
        equal = [(field, field) for field in changes if field in study.grid]
        nested = [(one, other) for other, one in _nested(study.grid, changes)]
        for one, other in [*equal, *_nested(changes, study.grid), *nested]:
            if group != "grid" and not _is_entry(other, one):
                text = (
                    f"`{group}` must leave the fields of the grid alone, but sets `{one}` "
                    f"beside the grid's `{other}`."
                )
                yield Problem((group,), text)


def _nested(outer: Collection[str], inner: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of a field and another that lies in it, in time linear in their number."""
    return [
        (section, field)
        for field in inner
        for section in itertools.accumulate(field.split(".")[:MOST_PARTS], "{}.{}".format)
        if section != field and section in outer
    ]


def _too_many(study: StudyConfig) -> list[Problem]:
    """Return what is wrong with the number of runs, before any of them is made."""
    num_points = len(study.variants) * math.prod(map(len, study.grid.values()))
    num_runs = num_points * len(study.seeds)
    if num_points <= MOST_POINTS and num_runs <= MOST_RUNS:
        return []
    text = (
        f"a study must have at most {MOST_POINTS} variants at points of the grid and {MOST_RUNS} "
        f"runs, but has {num_points} and {num_runs}."
    )
    return [Problem(("grid", "variants", "seeds"), text)]


def _is_entry(field: str, held: str) -> bool:
    """Return whether a field lies in an entry of the list that a variant sets: it comes after."""
    return field.startswith(f"{held}.") and field.removeprefix(f"{held}.").split(".")[0].isdecimal()


def _unknown_baseline(study: StudyConfig) -> Iterator[Problem]:
    if study.baseline is not None and study.baseline not in study.variants:
        like = near(study.baseline, list(study.variants))
        hint = f" Did you mean {show(like[0])}?" if like else ""
        text = (
            f"`baseline` must be one of the variants {', '.join(study.variants)}, but is "
            f"{show(study.baseline)}.{hint}"
        )
        yield Problem(("baseline", f"variants.{study.baseline}"), text)


def _wrong_looks(study: StudyConfig) -> Iterator[Problem]:
    more, count = study.more_seeds, len(study.seeds)
    if more is None:
        return
    named = {"task"} if isinstance(study.grid.get("task"), Mapping) else set()
    if len(study.variants) == 1 and not set(study.grid) - {"task.name"} - named:
        text = "`more_seeds` must be left out where there is one variant, but is set."
        yield Problem(("more_seeds",), text)
    if more.most < count:
        rule = f"be at least the number of seeds, {count}"
        yield broken(rule, more.most, "more_seeds.most", "seeds")
    looks = more.looks or [count]
    if looks != sorted(set(looks)) or not 0 < looks[0] <= looks[-1] <= count:
        yield broken(f"rise from 1 to {count}, the seeds", looks, "more_seeds.looks")


def _repeated_values(study: StudyConfig) -> Iterator[Problem]:
    for field, values in study.grid.items():
        seen: set[str] = set()
        for value in values.values() if isinstance(values, Mapping) else values:
            spelled = json.dumps(value, sort_keys=True, default=str)  # errors show long ones cut
            if spelled in seen:
                text = f"`grid.{field}` must have distinct values, but has {show(value)} again."
                yield Problem((f"grid.{field}",), text)
            seen.add(spelled)
