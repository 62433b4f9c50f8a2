"""What a run's prompt chose, read from its folder: over the updates, and where it was scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, final

from softprompts.errors import RunFolderError, StorageError
from softprompts.lab.reports.chosen import Chosen, Mixed, Selected, read_chosen, require_count
from softprompts.lab.reports.records import read_lines, require
from softprompts.storage import check_run_folder, entries, is_there, read_record

MOST_WINDOWS = 60
"""Most windows that the updates of a run are put into."""


@final
@dataclass(frozen=True)
class Choices:
    """What a run's prompt chose, from its first update to its reported split.

    Attributes:
        about: `identity`, `method`, `task`, `seed` and `length` of the run.
        status: `finished`, `diverged` or `unfinished`.
        selected_step: update after which the selected state was taken; `None` before the end.
        split: name of the reported split; `None` before the end.
        windows: what was chosen while training, in windows of equally many updates; the last may
            have fewer.
        held_out: what was chosen on held-out rows, per evaluation.
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

    @property
    def title(self) -> str:
        """Whose choices these are."""
        return "{method} on {task}, seed {seed}".format(**self.about)

    @property
    def scored(self) -> tuple[tuple[str, Chosen], ...]:
        """What the selected state, or the last one, chose where it was scored, and where."""
        held = self.held_out_selected
        found = [(str(self.split), self.reported)]
        found += [(f"held-out rows after update {held.first_step}", held)] if held else []
        return tuple((where, one) for where, one in found if one and one.parts == self.parts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know beside whose choices these are."""
        updates = f"{self.num_updates} update{'s' * (self.num_updates != 1)}"
        notes = [f"{self.status}, {updates}"]
        if self.status == "unfinished":
            notes = [f"unfinished: {updates} so far"]
        elif self.selected_step:
            notes.append(f"dotted line: the selected state, after update {self.selected_step}")
        if self.is_cut:
            notes.append("the last line of the records is half written and left out")
        return tuple(notes)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        plain = partial(Chosen.model_dump, mode="json", exclude_unset=True)
        kept = ("status", "num_updates", "selected_step", "split", "is_cut")
        return {
            **self.about,
            **{key: getattr(self, key) for key in kept},
            "windows": list(map(plain, self.windows)),
            "held_out": list(map(plain, self.held_out)),
            "reported": self.reported and plain(self.reported),
        }


def read_choices(folder: str | Path) -> Choices:
    """Read what a run's prompt chose; a run that is not finished is read as far as it is.

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
        chosen = read_chosen(line, place, about["length"])
        if updates:
            chosen.require_like(updates[0], place)
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
        result["reported"].require_like(updates[0], str(path / "result.json"))
    size = math.ceil(len(updates) / MOST_WINDOWS)
    return Choices(
        about=about,
        windows=tuple(_merged(updates[n : n + size]) for n in range(0, len(updates), size)),
        num_updates=len(updates),
        held_out=tuple(held_out),
        is_cut=is_cut,
        **result,
    )


def read_last_choices(folder: str | Path) -> dict[str, Chosen]:
    """Read what the selected state of a run, or the last one, chose where it was scored.

    Returns:
        By task: what was chosen on the reported split, or on held-out rows where that is not there
        yet. The task of a run with one task goes by the empty name.

    Raises:
        StorageError: if a file is broken or of another run.
    """
    path = Path(folder)
    if not is_there(path / "config.json") or not read_lines(path / "metrics.jsonl")[0]:
        return {}
    content = read_record(path / "config.json", ("identity", "config"))
    if isinstance(content["config"], dict) and content["config"].get("mixture"):
        return _of_mixture(path, content)
    try:
        found = read_choices(path)
    except RunFolderError:  # it selects nothing
        return {}
    return {"": found.scored[0][1]} if found.scored else {}


def _read_about(folder: Path) -> dict[str, Any]:
    if is_there(folder / "study.json"):
        runs = entries(folder / "runs") if is_there(folder / "runs") else []
        hint = f"; choose one of its runs, such as {folder / 'runs' / runs[0]}" if runs else ""
        raise RunFolderError(f"{folder} must be a run's folder, but is a study's{hint}.")
    check_run_folder(folder)
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
            "length": _length(config),
        }
    except (TypeError, LookupError) as error:
        raise StorageError(f"{path} must have a whole `config`, but has not: {error!r}.") from error
    require_count(about["length"], str(path), "`config.prompt.length`")
    return about


def _read_result(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    path = folder / "result.json"
    if not is_there(path):
        return {"status": "unfinished", "selected_step": None, "split": None, "reported": None}
    result = read_record(path, ("identity", "status", "split", "selected_step"))
    if result["identity"] != about["identity"]:
        raise StorageError(
            f"{path} must be the result of run {about['identity']}, but is of {result['identity']}."
        )
    step = result["selected_step"]
    require_count(step, str(path), "`selected_step`")
    found = result.get("choices") or {}
    require(isinstance(found, dict), str(path), "`choices`", "an object", found)
    chosen = read_chosen({**found, "step": step}, str(path), about["length"])
    return {
        "status": str(result["status"]),
        "selected_step": step,
        "split": str(result["split"]),
        "reported": chosen if chosen.parts else None,
    }


def _length(config: Mapping[str, Any]) -> Any:
    """Return the prompt's length, 0 where a text tells it: of such rows nothing is chosen."""
    length = config["prompt"]["length"]
    return 0 if length == "text" else length


def _merged(updates: Sequence[Chosen]) -> Chosen:
    """Return one window of updates: counts are added, everything else is averaged."""
    first, last = updates[0], updates[-1]
    parts: dict[str, Any] = {}
    for name in first.selected:
        found = [update.selected[name] for update in updates]
        counts = tuple(map(sum, zip(*(one.counts for one in found), strict=True)))
        parts[name] = Selected(counts=counts, entropy=_mean([one.entropy for one in found]))
    pools = [update.pool for update in updates if update.pool]
    if pools:
        lines = {"weights": [p.weights for p in pools], "stds": [p.stds for p in pools if p.stds]}
        means = {key: tuple(map(_mean, zip(*of, strict=True))) for key, of in lines.items() if of}
        parts["pool"] = Mixed.model_validate(means)
    temperature = _mean([update.temperature for update in updates])
    if temperature is not None:
        parts["temperature"] = temperature
    return Chosen(first_step=first.first_step, last_step=last.last_step, **parts)


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; `None` where a value is missing."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _of_mixture(folder: Path, about: Mapping[str, Any]) -> dict[str, Chosen]:
    path, step = folder / "result.json", None
    if is_there(path):
        result = read_record(path, ("identity", "selected_step", "tasks"))
        wanted, step = about["identity"], result["selected_step"]
        require(result["identity"] == wanted, str(path), "`identity`", wanted, result["identity"])
        own = _tasks(result["tasks"], str(path))
        reported = {name: one.get("choices") or {} for name, one in own.items()}
        found = _chosen_by_task(reported, str(path), step, about)
        if found:
            return found
    records = [one for one in read_lines(folder / "metrics.jsonl")[0] if "split" in one[1]]
    scored = [one for one in records if step is None or one[1].get("step") == step]
    if not scored:
        return {}
    place, record = scored[-1]
    return _chosen_by_task(_tasks(record.get("tasks", {}), place), place, record.get("step"), about)


def _tasks(value: Any, place: str) -> dict[str, dict[str, Any]]:
    is_right = isinstance(value, dict) and all(isinstance(one, dict) for one in value.values())
    require(is_right, place, "`tasks`", "an object of objects", value)
    return dict(value)


def _chosen_by_task(
    tasks: Mapping[str, Mapping[str, Any]], place: str, step: Any, about: Mapping[str, Any]
) -> dict[str, Chosen]:
    length = _length(about["config"])
    found = {k: read_chosen({**one, "step": step}, place, length) for k, one in tasks.items()}
    return {name: chosen for name, chosen in found.items() if chosen.parts}
