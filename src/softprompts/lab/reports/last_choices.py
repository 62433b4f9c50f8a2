"""What the state that a run selected chose, where it was scored, by task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softprompts.errors import RunFolderError
from softprompts.lab.reports.choices import read_choices
from softprompts.lab.reports.chosen import Chosen, read_chosen
from softprompts.lab.reports.records import read_lines, require
from softprompts.storage import is_there, read_record


def read_last_choices(folder: str | Path) -> dict[str, Chosen]:
    """Read what the selected state of a run, or the last one, chose where it was scored.

    Args:
        folder: a run folder, of one task or of a mixture; one that is not there yet chose nothing.

    Returns:
        By task: what was chosen on the reported split, or on held-out rows where that is not there
        yet. Empty where nothing is chosen, or nothing was scored. The task of a run with one task
        goes by the empty name.

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


def _of_mixture(folder: Path, about: Mapping[str, Any]) -> dict[str, Chosen]:
    """Read what was chosen for each task of a mixture."""
    path, step = folder / "result.json", None
    if is_there(path):
        result = read_record(path, ("identity", "selected_step", "tasks"))
        wanted, step = about["identity"], result["selected_step"]
        require(result["identity"] == wanted, str(path), "`identity`", wanted, result["identity"])
        own = _tasks(result["tasks"], str(path))
        reported = {name: one.get("choices") or {} for name, one in own.items()}
        found = _chosen(reported, str(path), step, about)
        if found:
            return found
    records = [one for one in read_lines(folder / "metrics.jsonl")[0] if "split" in one[1]]
    scored = [one for one in records if step is None or one[1].get("step") == step]
    if not scored:
        return {}
    place, record = scored[-1]
    return _chosen(_tasks(record.get("tasks", {}), place), place, record.get("step"), about)


def _tasks(value: Any, place: str) -> dict[str, dict[str, Any]]:
    is_right = isinstance(value, dict) and all(isinstance(one, dict) for one in value.values())
    require(is_right, place, "`tasks`", "an object of objects", value)
    return dict(value)


def _chosen(
    tasks: Mapping[str, Mapping[str, Any]], place: str, step: Any, about: Mapping[str, Any]
) -> dict[str, Chosen]:
    length = about["config"]["prompt"]["length"]
    found = {k: read_chosen({**one, "step": step}, place, length) for k, one in tasks.items()}
    return {name: chosen for name, chosen in found.items() if chosen.parts}
