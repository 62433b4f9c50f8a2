"""What a run's prompt chose, read from its folder: over the updates, and where it was scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, final

from softprompts.errors import RunFolderError, StorageError
from softprompts.reports.records import read_lines, require
from softprompts.storage import entries, is_there, read_record

SELECTORS = ("position", "length")
"""What may be selected among `length + 1` values, by its key in a run's records."""

MOST_WINDOWS = 60
"""Most windows that the updates of a run are put into."""


@final
@dataclass(frozen=True)
class Selected:
    """How inputs were spread over the values of a selector.

    Attributes:
        counts: inputs per value, from 0 to the prompt's length.
        entropy: mean entropy of the selector in nats; `None` where it is not finite.
    """

    counts: tuple[int, ...]
    entropy: float | None

    @property
    def shares(self) -> tuple[float, ...]:
        """The counts over their sum; zeros where no input was counted."""
        total = sum(self.counts) or 1
        return tuple(count / total for count in self.counts)


@final
@dataclass(frozen=True)
class Mixed:
    """How the sets of a pool were mixed.

    Attributes:
        weights: mean weight of each set; `None` where it is not finite.
        by_class: the same for the inputs of each label, where labels were known.
    """

    weights: tuple[float | None, ...]
    by_class: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Chosen:
    """What was chosen in some updates, or on a split after an update.

    Attributes:
        first_step: the first of the updates, counted from 1.
        last_step: the last of them; the same for a split.
        selected: per selector that is learned, how inputs were spread.
        pool: how the pool was mixed, where there is one.
        temperature: mean temperature of the updates, where there was one.
    """

    first_step: int
    last_step: int
    selected: Mapping[str, Selected]
    pool: Mixed | None = None
    temperature: float | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """What is chosen: names of selectors, and `pool`."""
        return (*self.selected, *(("pool",) if self.pool else ()))


@final
@dataclass(frozen=True)
class Choices:
    """What a run's prompt chose, from its first update to its reported split.

    Attributes:
        about: `identity`, `method`, `task`, `seed` and `length` of the run.
        status: `finished`, `diverged` or `unfinished`.
        num_updates: updates that are logged.
        selected_step: update after which the selected state was taken; `None` before the end.
        split: name of the reported split; `None` before the end.
        windows: what was chosen while training, in windows of equally many updates; the last may
            have fewer.
        held_out: what was chosen on held-out rows, per evaluation.
        reported: what was chosen on the reported split; `None` where nothing was reported.
        is_cut: whether the last line of the records is half written and was left out.
    """

    about: Mapping[str, Any]
    status: str
    num_updates: int
    selected_step: int | None
    split: str | None
    windows: tuple[Chosen, ...]
    held_out: tuple[Chosen, ...]
    reported: Chosen | None
    is_cut: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """What is chosen: names of selectors, and `pool`."""
        return self.windows[0].parts

    @property
    def held_out_selected(self) -> Chosen | None:
        """What the selected state chose on held-out rows; the last evaluation before the end."""
        steps = {chosen.first_step: chosen for chosen in self.held_out}
        if self.selected_step is None:
            return self.held_out[-1] if self.held_out else None
        return steps.get(self.selected_step)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            **self.about,
            "status": self.status,
            "num_updates": self.num_updates,
            "selected_step": self.selected_step,
            "split": self.split,
            "is_cut": self.is_cut,
            "windows": [_as_json(window) for window in self.windows],
            "held_out": [_as_json(chosen) for chosen in self.held_out],
            "reported": None if self.reported is None else _as_json(self.reported),
        }


def read_choices(folder: str | Path) -> Choices:
    """Read what a run's prompt chose; a run that is not finished is read as far as it is.

    Args:
        folder: a run folder.

    Returns:
        The choices.

    Raises:
        RunFolderError: if it is a study's folder, or the run's method chooses nothing.
        StorageError: if a file is missing, broken or of another run, or nothing is logged yet.
    """
    path = Path(folder)
    about = _read_about(path)
    lines, is_cut = read_lines(path / "metrics.jsonl")
    updates: list[Chosen] = []
    held_out: list[Chosen] = []
    for place, line in lines:
        chosen = _read_chosen(line, place, about["length"])
        _require_same(chosen, updates, place)
        if "split" in line:
            require(line["split"] == "held_out", place, "`split`", "held_out", line["split"])
            held_out.append(chosen)
            continue
        wanted = len(updates) + 1
        require(chosen.first_step == wanted, place, "`step`", str(wanted), chosen.first_step)
        updates.append(chosen)
    if not updates:
        raise StorageError(f"{path} must hold a run with logged updates, but has none yet.")
    if not updates[0].parts:
        raise RunFolderError(
            f"{path} must be of a method that selects something, but nothing is selected by "
            f"{about['method']!r}: its rows, their number and their place are the same for every "
            "input."
        )
    result = _read_result(path, about)
    if result["reported"] is not None:
        _require_same(result["reported"], updates, str(path / "result.json"))
    return Choices(
        about=about,
        windows=_windows(updates),
        num_updates=len(updates),
        held_out=tuple(held_out),
        is_cut=is_cut,
        **result,
    )


def _read_about(folder: Path) -> dict[str, Any]:
    """Read what a run is, from its folder."""
    if is_there(folder / "study.json"):
        runs = entries(folder / "runs") if is_there(folder / "runs") else []
        hint = f"; choose one of its runs, such as {folder / 'runs' / runs[0]}" if runs else ""
        raise RunFolderError(f"{folder} must be a run's folder, but is a study's{hint}.")
    path = folder / "config.json"
    content = read_record(path, ("identity", "config"))
    config = content["config"]
    if isinstance(config, dict) and config.get("mixture") is not None:
        raise RunFolderError(
            f"{folder} must be a run of one task, but is of a mixture: its choices are in "
            "metrics.jsonl and result.json, under `tasks`."
        )
    try:
        about = {
            "identity": content["identity"],
            "method": config["prompt"]["method"],
            "task": config["task"]["name"],
            "seed": config["seed"],
            "length": config["prompt"]["length"],
        }
    except (TypeError, LookupError) as error:
        raise StorageError(f"{path} must have a whole `config`, but has not: {error!r}.") from error
    length = about["length"]
    require(_is_count(length), str(path), "`config.prompt.length`", "a whole number", length)
    return about


def _read_result(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Read how a run ended, if it has."""
    path = folder / "result.json"
    if not is_there(path):
        return {"status": "unfinished", "selected_step": None, "split": None, "reported": None}
    result = read_record(path, ("identity", "status", "split", "selected_step"))
    if result["identity"] != about["identity"]:
        raise StorageError(
            f"{path} must be the result of run {about['identity']}, but is of {result['identity']}."
        )
    step = result["selected_step"]
    require(_is_count(step), str(path), "`selected_step`", "a whole number", step)
    found = result.get("choices") or {}
    require(isinstance(found, dict), str(path), "`choices`", "an object", found)
    chosen = _read_chosen({**found, "step": step}, str(path), about["length"])
    return {
        "status": str(result["status"]),
        "selected_step": step,
        "split": str(result["split"]),
        "reported": chosen if chosen.parts else None,
    }


def _read_chosen(record: Mapping[str, Any], place: str, length: int) -> Chosen:
    """Return what a record says of choices."""
    step = record.get("step")
    require(_is_count(step), place, "`step`", "a whole number", step)
    selected = {
        name: _read_selected(record[name], place, name, length)
        for name in SELECTORS
        if name in record
    }
    pool = _read_pool(record["pool"], place) if "pool" in record else None
    temperature = None
    if "temperature" in record:
        temperature = _read_number(record["temperature"], place, "temperature")
    return Chosen(int(step or 0), int(step or 0), selected, pool, temperature)


def _read_selected(value: Any, place: str, name: str, length: int) -> Selected:
    counts = value.get("counts") if isinstance(value, dict) else None
    is_right = isinstance(counts, list) and len(counts) == length + 1
    text = f"{length + 1} counts, one per value from 0 to the prompt's length"
    require(is_right and all(map(_is_count, counts or ())), place, f"`{name}.counts`", text, value)
    entropy = _read_number(value.get("entropy"), place, f"{name}.entropy")
    return Selected(tuple(counts or ()), entropy)


def _read_pool(value: Any, place: str) -> Mixed:
    content = value if isinstance(value, dict) else {}
    weights = _read_weights(content.get("weights"), place, "pool.weights")
    classes = content.get("by_class", {})
    require(isinstance(classes, dict), place, "`pool.by_class`", "an object", classes)
    by_class = {k: _read_weights(v, place, "pool.by_class") for k, v in classes.items()}
    for line in by_class.values():
        is_right = len(line) == len(weights)
        require(is_right, place, "`pool.by_class`", f"{len(weights)} weights per label", line)
    return Mixed(weights, by_class)


def _read_weights(value: Any, place: str, name: str) -> tuple[float | None, ...]:
    is_right = isinstance(value, list) and bool(value)
    require(is_right, place, f"`{name}`", "a list of numbers", value)
    return tuple(_read_number(item, place, name) for item in value)


def _read_number(value: Any, place: str, name: str) -> float | None:
    """Return a number; `None` where it is not finite, as in the last update of a diverged run."""
    is_right = isinstance(value, float | int) and not isinstance(value, bool)
    require(is_right, place, f"`{name}`", "a number", value)
    return float(value) if math.isfinite(value) else None


def _require_same(chosen: Chosen, updates: Sequence[Chosen], place: str) -> None:
    """Check that a record has the parts and the pool of the first update."""
    if not updates:
        return
    names, sizes = zip(*(_outline(one) for one in (updates[0], chosen)), strict=True)
    require(names[1] == names[0], place, "what is chosen", " ".join(names[0]), names[1])
    wanted = f"{sizes[0]} numbers, as before"
    require(sizes[1] == sizes[0], place, "`pool.weights`", wanted, sizes[1])


def _outline(chosen: Chosen) -> tuple[tuple[str, ...], int]:
    """Return the parts of a record and the number of sets in its pool."""
    return chosen.parts, len(chosen.pool.weights) if chosen.pool else 0


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _windows(updates: Sequence[Chosen]) -> tuple[Chosen, ...]:
    """Put updates into at most `MOST_WINDOWS` windows."""
    size = math.ceil(len(updates) / MOST_WINDOWS)
    starts = range(0, len(updates), size)
    return tuple(_merged(updates[start : start + size]) for start in starts)


def _merged(updates: Sequence[Chosen]) -> Chosen:
    """Return one window of updates: counts are added, everything else is averaged."""
    first, last = updates[0], updates[-1]
    selected = {}
    for name in first.selected:
        found = [update.selected[name] for update in updates]
        counts = tuple(map(sum, zip(*(one.counts for one in found), strict=True)))
        selected[name] = Selected(counts, _mean([one.entropy for one in found]))
    pools = [update.pool.weights for update in updates if update.pool]
    pool = Mixed(tuple(map(_mean, zip(*pools, strict=True)))) if pools else None
    temperature = _mean([update.temperature for update in updates])
    return Chosen(first.first_step, last.last_step, selected, pool, temperature)


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; `None` where a value is missing."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _as_json(chosen: Chosen) -> dict[str, Any]:
    found: dict[str, Any] = {"first_step": chosen.first_step, "last_step": chosen.last_step}
    if chosen.temperature is not None:
        found["temperature"] = chosen.temperature
    for name, one in chosen.selected.items():
        found[name] = {"counts": list(one.counts), "entropy": one.entropy}
    if chosen.pool:
        found["pool"] = {"weights": list(chosen.pool.weights)}
        if chosen.pool.by_class:
            classes = {label: list(line) for label, line in chosen.pool.by_class.items()}
            found["pool"]["by_class"] = classes
    return found
