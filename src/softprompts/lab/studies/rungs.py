"""Successive halving: how many candidates train for how long, and which of them go on.

Reference:
    Jamieson and Talwalkar 2016, arXiv 1502.07943, algorithm 1.

Differences:
    A rung trains its candidates from their beginning, each with its whole schedule in fewer
    updates, where the paper goes on with what the last rung trained. The last rung has at least
    two candidates, at the full number of updates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from softprompts.errors import StorageError
from softprompts.lab.studies.tuning_record import Trial
from softprompts.recipes.schema import RunConfig
from softprompts.recipes.tuning import is_number
from softprompts.storage import parse_json, read_file


def rung_sizes(num_candidates: int, keep: int) -> tuple[int, ...]:
    """Return how many candidates each rung has.

    One in `keep`, rounded up, goes on to the next; `keep` is at least 2.

    Example:
        >>> rung_sizes(5, 3), rung_sizes(10, 3), rung_sizes(3, 3)
        ((5, 2), (10, 4, 2), (3,))
    """
    sizes = [num_candidates]
    while (rest := -(-sizes[-1] // keep)) > 1:
        sizes.append(rest)
    return tuple(sizes)


def rung_steps(total_steps: int, keep: int, num_rungs: int) -> tuple[int, ...]:
    """Return the updates of a run in each rung: `keep` times those of the one before, rounded up.

    Example:
        >>> rung_steps(100, 3, 3)
        (12, 34, 100)
    """
    return tuple(-(-total_steps // keep**left) for left in reversed(range(num_rungs)))


def rung_run(config: RunConfig, steps: int, total_steps: int) -> dict[str, Any]:
    """Return the recipe of a run in a rung, without its seed.

    It selects on held-out rows, and scores one reported row alone, which decides nothing. What is
    counted in updates, the warm-up and the fall of the temperature, is shortened as the run is.

    Args:
        config: the run of the study, resolved.
        steps: its updates in the rung.
        total_steps: its updates in the study.
    """
    data = {k: v for k, v in config.model_dump(mode="json").items() if v is not None}
    del data["seed"]
    training = data["training"]
    training |= {"steps": steps, "epochs": None, "selection": "held-out"}
    for component, key, least in (("schedule", "warmup_steps", 0), ("temperature", "steps", 1)):
        count = training[component].get(key)
        if count is not None:
            training[component][key] = max(least, count * steps // total_steps)
    tasks = data["mixture"]["tasks"].values() if "mixture" in data else [data["task"]]
    for task in tasks:
        task["num_items"] = 1
    return data


def tried(value: Any, results: Sequence[tuple[Path, Mapping[str, Any]]]) -> Trial:
    """Return what a candidate did.

    Results are folder and `result.json` of its run with each seed.

    Raises:
        StorageError: if a run's records cannot be read.
    """
    done = [(folder, result) for folder, result in results if result["status"] == "finished"]
    scores = [result["held_out_score"] for _, result in done]
    losses = [_held_out_loss(folder, result["selected_step"]) for folder, result in done]
    known = [loss for loss in losses if loss is not None]
    return Trial(
        value=value,
        score=fmean(scores) if scores and None not in scores else None,
        loss=fmean(known) if known and len(known) == len(losses) else None,
        num_diverged=len(results) - len(done),
        updates_done=sum(result["steps"] for _, result in results),
    )


def ranked(found: Sequence[Trial]) -> list[Trial]:
    """Return candidates, the best first.

    A candidate of which a seed diverged comes after those of which fewer did; then the mean score
    decides, then the mean loss, then the smaller number or the earlier name in the given order.
    """

    def key(place: int) -> tuple[float, ...]:
        one = found[place]
        score = math.inf if one.score is None else -one.score
        loss = math.inf if one.loss is None else one.loss
        return one.num_diverged, score, loss, one.value if is_number(one.value) else place

    return [found[place] for place in sorted(range(len(found)), key=key)]


def _held_out_loss(folder: Path, step: int) -> float | None:
    """Return the loss on held-out rows after an update of a run, as far as it is finite."""
    path = folder / "metrics.jsonl"
    try:
        records = [parse_json(line) for line in read_file(path).decode().splitlines()]
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} must be lines of JSON, but is not: {error}.") from error
    for one in records:
        if isinstance(one, dict) and (one.get("split"), one.get("step")) == ("held_out", step):
            loss = one.get("loss")
            return float(loss) if isinstance(loss, int | float) else None
    return None
