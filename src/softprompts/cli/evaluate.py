"""`softprompts evaluate`: a finished run on a split of its task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompts.cli.output import announce_threads, print_json
from softprompts.collecting import uncollected

if TYPE_CHECKING:
    from softprompts.tasks.base import Example, Task


def evaluate(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A finished run's folder.")],
    split: Annotated[
        str,
        typer.Option("--split", metavar="NAME", help="train, held-out, validation, or its name."),
    ] = "validation",
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="The task's files, if they moved."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone", metavar="NAME", help="Where the run's backbone is, if it was moved."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--task", metavar="NAME", help="The task of a run of several.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a finished run again on a split of its task."""
    announce_threads()
    with uncollected():
        from softprompts.cli.tasks import choose_task, read_config
        from softprompts.metrics.scoring import majority
        from softprompts.results import load
        from softprompts.training.building import choose_splits
        from softprompts.training.resources import load_configured_task

    config = read_config(run_dir)
    name = choose_task(config, name)
    result = load(run_dir, backbone)
    own = config.tasks[name]
    if data_dir is not None:
        own = own.model_copy(update={"data_dir": str(data_dir)})
    task = load_configured_task(own, config.seed)
    rows = _rows(choose_splits(config, task), split, task)
    digests = result.about.get("task_digests", {name: result.about["data_digest"]})
    is_same_data = task.digest() == digests[name]
    found = result.evaluate(rows, name)
    report = {
        "split": split,
        **({} if config.mixture is None else {"task": name}),
        "score": found.score,
        "metrics": found.metrics,
        "loss": found.loss if math.isfinite(found.loss) else None,
        "majority": majority(rows, task.format),
        "choices": dict(found.choices),
        "num_items": len(rows),
        "num_cut": found.num_cut,
        "identity": result.about["identity"],
        "is_same_data": is_same_data,
    }
    print_json(report) if as_json else _print(report)


def _print(report: Mapping[str, Any]) -> None:
    """Print what was found in words."""
    each = ", ".join(f"{name} {100 * value:.1f}" for name, value in report["metrics"].items())
    print(
        f"score {100 * report['score']:.1f} ({each}) on {report['num_items']} items of "
        f"{report['split']}; majority {100 * report['majority']:.1f}"
    )
    if report["num_cut"]:
        print(f"inputs cut to fit: {report['num_cut']}")
    if not report["is_same_data"]:
        print("the task's rows are not those that the run was trained and reported on")


def _rows(splits: Mapping[str, tuple[Example, ...]], split: str, task: Task) -> tuple[Example, ...]:
    """Return the rows of a split by its name."""
    from softprompts.errors import DataError

    names = {
        "train": splits["train"],
        "held-out": splits["held_out"],
        "validation": splits["validation"],
        task.validation_name: splits["validation"],
    }
    if split not in names:
        raise DataError(f"`--split` must be one of {', '.join(names)}, but is {split!r}.")
    if not names[split]:
        raise DataError(f"split {split!r} of {task.format.name} must have rows, but is empty.")
    return names[split]
