"""`softprompts evaluate`: a finished run on a split of its task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompts.cli.ensemble import about_answers, cost_line
from softprompts.cli.options import FinishedRun, MovedBackbone, TaskOfSeveral, read_task
from softprompts.cli.output import announce_threads, print_json, say
from softprompts.collecting import uncollected
from softprompts.errors import DataError

if TYPE_CHECKING:
    from softprompts.examples import Example, TaskFormat
    from softprompts.recipes.schema import TaskConfig
    from softprompts.results import Result
    from softprompts.tasks.base import Task


def evaluate(
    run_dir: FinishedRun,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="train, held-out, validation, or its name.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--input", metavar="F.jsonl", help="Rows of your own instead, with labels."),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The task's files, if they moved.")
    ] = None,
    backbone: MovedBackbone = None,
    name: TaskOfSeveral = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a finished run again on a split of its task, or on labelled rows of a file."""
    if source is not None and (split is not None or data_dir is not None):
        given = "--data-dir" if split is None else "--split"
        raise DataError(f"`{given}` must be left out with --input {source}, which has the rows.")
    announce_threads()
    with uncollected():
        from softprompts.lab.ensembles import load, members_of
        from softprompts.metrics.scoring import majority

    config, name = read_task(run_dir, name)
    result = load(run_dir, backbone)
    members = members_of(result)
    chosen = None if config.mixture is None else name
    split = split or "validation"
    if source is None:
        rows, form, is_same_data = _read_rows(members, chosen, split, data_dir)
    else:
        form, is_same_data = members[0].model.track(chosen).format, None
        rows = _read_file(source, form, config.tasks[name])
    found = result.evaluate(rows, chosen)
    report = {
        "split": split if source is None else str(source),
        **({} if chosen is None else {"task": name}),
        "score": found.score,
        "metrics": found.metrics,
        "loss": found.loss if math.isfinite(found.loss) else None,
        "majority": majority(rows, form),
        "choices": dict(found.choices),
        "num_items": len(rows),
        "num_cut": found.num_cut,
        **about_answers(result, rows, chosen),
        "is_same_data": is_same_data,
    }
    print_json(report) if as_json else _print(report)


def _print(report: Mapping[str, Any]) -> None:
    from softprompts.metrics.registry import scored

    shares = scored(report["metrics"])
    each = ", ".join(
        f"{name} {100 * value if name in shares else value:.1f}"
        for name, value in report["metrics"].items()
    )
    say(
        f"score {100 * report['score']:.1f} ({each}) on {report['num_items']} items of "
        f"{report['split']}; majority {100 * report['majority']:.1f}"
    )
    if "members" in report:
        say(cost_line(report))
    if report["num_cut"]:
        say(f"inputs cut to fit: {report['num_cut']}")
    if report["is_same_data"] is False:
        say("the task's rows are not those that the run was trained and reported on")


def _read_rows(
    members: Sequence[Result], name: str | None, split: str, data_dir: Path | None
) -> tuple[tuple[Example, ...], TaskFormat, bool]:
    """Return the rows of a split, their format, and whether runs were reported on the same data.

    Members of an ensemble must have the same rows; `name` is of a task among several.
    """
    from softprompts.tasks.sampling import same_rows
    from softprompts.training.building import choose_splits
    from softprompts.training.resources import Resources

    moved = {} if data_dir is None else {"data_dir": str(data_dir)}
    resources, rows, tasks, is_same = Resources(), [], [], True
    for member in members:
        config = member.config
        own = name or next(iter(config.tasks))
        task = resources.task(config.tasks[own].model_copy(update=moved), config.seed)
        rows.append(_rows(choose_splits(config, task), split, task))
        tasks.append(task)
        is_same = is_same and task.digest() == member.digest(own)
    return same_rows(rows, split), tasks[0].format, is_same


def _read_file(path: Path, form: TaskFormat, config: TaskConfig) -> tuple[Example, ...]:
    """Return the rows of a file, each of which must have its label."""
    from softprompts.tasks.base import Task
    from softprompts.tasks.loading import load_examples

    options = dict(config.options) if config.name == "files" else None
    rows, _ = load_examples(Task(form, (), (), ()), path, options=options)
    for row in rows:
        if not row.answers and not row.references:
            raise DataError("must have its label to be scored, but has none.", file=row.source)
    return rows


def _rows(splits: Mapping[str, tuple[Example, ...]], split: str, task: Task) -> tuple[Example, ...]:
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
