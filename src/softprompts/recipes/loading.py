"""Recipes by file or by the name of a shipped one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from softprompts.errors import RecipeError
from softprompts.problems import near, show
from softprompts.recipes.checks import rate_problems
from softprompts.recipes.overrides import parse_overrides, set_at
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.reading import read_yaml
from softprompts.recipes.schema import RunConfig
from softprompts.recipes.study import StudyConfig, merged, parse_study, points
from softprompts.storage import read_file

_SUFFIX = ".yaml"
_MOST_BYTES = 1 << 20
_STUDY_ONLY = frozenset({"base", "variants", "grid", "seeds"})


def shipped_recipes() -> dict[str, Traversable]:
    """Return the recipes that come with the library, by name in alphabetical order."""
    folder = resources.files("softprompts.recipes") / "shipped"
    files = sorted(folder.iterdir(), key=lambda file: file.name.removesuffix(_SUFFIX))
    return {f.name.removesuffix(_SUFFIX): f for f in files if f.name.endswith(_SUFFIX)}


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> RunConfig | StudyConfig:
    """Return the recipe in a file, or the shipped recipe of that name, fully checked.

    The name of a shipped recipe wins over a file of that name in the working folder; `./name` or a
    `Path` is always a file. Overrides are `a.b=value` each; in a study the field of a run means
    that of its base.

    Returns:
        A run, not resolved; or a study, every run of which has been checked.

    Raises:
        RecipeError: with every problem found.
    """
    data, source = read_recipe(path_or_name)
    if not isinstance(data, Mapping):
        what = "is empty" if data is None else f"is {show(data)}"
        raise RecipeError([f"a recipe must be a mapping, but {what}."], source)
    is_study = looks_like_study(data)
    data, problems = _overridden(dict(data), overrides, is_study)
    try:
        config = parse_study(data, source) if is_study else parse_run(data, source)
    except RecipeError as error:
        raise RecipeError([*problems, *error.problems], source) from None
    if problems := [*problems, *_idle_rates(config, source)]:
        raise RecipeError(problems, source)
    if isinstance(config, StudyConfig) and config.name is None:
        return config.model_copy(update={"name": Path(source).stem})
    return config


def _idle_rates(config: RunConfig | StudyConfig, source: str) -> list[str]:
    """Find rates of rows that a run, or a variant of a study by itself, gives where it has none.

    A base may give them for other variants, and a grid for those that it sweeps.
    """
    if isinstance(config, RunConfig):
        return [problem.text for problem in rate_problems(config)]
    found: dict[str, None] = {}
    for variant, point in points(config):
        if "training.learning_rate" in config.variants[variant]:
            run = parse_run(merged(config, variant, point), source)
            found |= {f"variants.{variant}: {one.text}": None for one in rate_problems(run)}
    return list(found)


def looks_like_study(data: Mapping[str, Any]) -> bool:
    """Return whether the keys of `data` are more those of a study than those of a run."""
    keys = set(data)
    if keys & _STUDY_ONLY:
        return True
    return len(keys & set(StudyConfig.model_fields)) > len(keys & set(RunConfig.model_fields))


def read_recipe(path_or_name: str | Path) -> tuple[Any, str]:
    """Return what a recipe says, unchecked, and what to call it in errors."""
    source = str(path_or_name) or "recipe"
    file = _find(path_or_name)
    try:
        raw = read_file(file, _MOST_BYTES) if isinstance(file, Path) else file.read_bytes()
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"the file must be UTF-8 text, but byte {error.start} is not."
        raise RecipeError([problem], source) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecipeError([f"the file must be readable, but is not: {reason}."], source) from None
    return read_yaml(text, source), source


def _find(path_or_name: str | Path) -> Traversable | Path:
    source = str(path_or_name)
    shipped = shipped_recipes()
    if isinstance(path_or_name, str) and path_or_name in shipped:
        return shipped[source]
    file = Path(path_or_name)
    try:
        is_folder, is_there = bool(source) and file.is_dir(), bool(source) and file.exists()
    except (OSError, ValueError) as error:  # such as a name that no file may have
        raise RecipeError([f"a recipe must be a file, but is not: {error}."], source) from None
    if is_folder:
        raise RecipeError(["a recipe must be a file, but is a folder."], source)
    if is_there:
        return file
    like = near(source, list(shipped))
    hint = f" Did you mean {' or '.join(repr(name) for name in like)}?" if like else ""
    problem = (
        f"a recipe must be a file or one of {', '.join(shipped)}, but is {source!r}, "
        f"which is neither.{hint}"
    )
    raise RecipeError([problem], source)


def _overridden(
    data: dict[str, Any], overrides: Sequence[str], is_study: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return `data` with the overrides set, and what is wrong with those that could not be set."""
    values, problems = parse_overrides(overrides)
    done: list[tuple[str, list[str]]] = []
    for field, value in values.items():
        paths = _inside_grid(data.get("grid"), field) if is_study else []
        if not paths:
            problems.extend(_beaten(data, field) if is_study else ())
            paths = [_study_path(field) if is_study else field.split(".")]
        problems.extend(_undone(field, paths, done))
        problems.extend(set_at(data, path, copy.deepcopy(value)) for path in paths)
        done += [(field, path) for path in paths]
    return data, [problem for problem in problems if problem]


def _undone(
    field: str, paths: Sequence[list[str]], done: Sequence[tuple[str, list[str]]]
) -> list[str]:
    """Find the first of the fields set before that an override would undo."""
    for earlier, own in done:
        for path in paths:
            is_one_of = path == own and field.startswith("grid.") > earlier.startswith("grid.")
            if own[: len(path)] == path and not is_one_of:
                return [
                    f"`{field}` must come before `{earlier}`, which it would undo, but is given "
                    "after it."
                ]
    return []


def _inside_grid(grid: Any, field: str) -> list[list[str]]:
    """Return where a field lies inside of values of the grid: in all, or in the one it names."""
    whole = field.removeprefix("base.").removeprefix("grid.")
    for key, values in grid.items() if isinstance(grid, Mapping) else ():
        if not isinstance(values, list | Mapping) or not whole.startswith(f"{key}."):
            continue
        rest = whole.removeprefix(f"{key}.").split(".")
        held = values if isinstance(values, Mapping) else dict(enumerate(values))
        names = {str(name): isinstance(value, Mapping) for name, value in held.items()}
        if field.startswith("grid."):
            return [["grid", key, *rest]] if rest[0] in names else []
        if all(names.values()):
            return [["grid", key, name, *rest] for name in names]
    return []


def _study_path(field: str) -> list[str]:
    """Return where a study keeps a field: changes of a variant and of the grid are dotted keys."""
    parts = field.split(".")
    if parts[0] in RunConfig.model_fields:
        return ["base", *parts]
    depth = {"grid": 1, "variants": 2}.get(parts[0], len(parts))
    return [*parts[:depth], ".".join(parts[depth:])] if len(parts) > depth else parts


def _beaten(data: Mapping[str, Any], field: str) -> list[str]:
    """Find variants and grids that would undo an override of the base."""
    field = field.removeprefix("base.")
    if field.split(".")[0] not in RunConfig.model_fields:
        return []
    variants = data.get("variants")
    groups = {"grid": data.get("grid")}
    if isinstance(variants, Mapping):
        groups.update({f"variants.{name}": change for name, change in variants.items()})
    return [
        f"`{field}` must not be overridden in the base, since `{group}` sets `{key}` over it; "
        f"override `{group}.{key}`."
        for group, changes in groups.items()
        if isinstance(changes, Mapping)
        for key in changes
        if isinstance(key, str) and (field == key or field.startswith(f"{key}."))
    ]
