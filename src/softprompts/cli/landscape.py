"""`softprompts landscape`: the loss around trained runs, as a picture or as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompts.cli.output import print_json, print_table

if TYPE_CHECKING:
    from softprompts.analysis.sharpness import Effort
    from softprompts.analysis.subjects import Sample


def landscape(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_DIR...", help="Finished runs' folders; with --sharpness-only studies too."
        ),
    ],
    is_sharpness_only: Annotated[
        bool, typer.Option("--sharpness-only", help="Measure how steep the loss is; draw nothing.")
    ] = False,
    split: Annotated[
        str, typer.Option("--split", metavar="NAME", help="train, held-out or validation.")
    ] = "train",
    num_examples: Annotated[
        int | None, typer.Option("--num-examples", metavar="N", help="Most rows of the split.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--task", metavar="NAME", help="The task of runs of several.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", metavar="DTYPE", help="float32 or bfloat16; the run's if absent."),
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option("--measures", metavar="A,B", help="Some of input, prompt and curvature."),
    ] = None,
    is_quick: Annotated[
        bool, typer.Option("--quick", help="Fewer rows and steps: seconds per run, to compare many")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how the loss of finished runs changes around them."""
    from softprompts.errors import DataError

    sample, effort = _settings(is_quick, split, (num_examples, name, dtype, measures))
    if not is_sharpness_only:
        raise DataError("`--sharpness-only` must be given: planes are not drawn yet.")
    rows = _measure(runs, sample, effort, is_told=not as_json)
    print_json({"runs": rows}) if as_json else _print(rows)
    if any("error" in row for row in rows):
        raise typer.Exit(1)


def _settings(
    is_quick: bool, split: str, given: tuple[int | None, str | None, str | None, str | None]
) -> tuple[Sample, Effort]:
    """Return rows and effort as the options say them."""
    from dataclasses import replace

    from softprompts.analysis.sharpness import QUICK, QUICK_SAMPLE, Effort
    from softprompts.analysis.subjects import Sample

    num_examples, name, dtype, measures = given
    sample = QUICK_SAMPLE if is_quick else Sample()
    effort = QUICK if is_quick else Effort()
    if num_examples is not None:
        sample = replace(sample, num_examples=num_examples)
    if measures is not None:
        chosen = tuple(part.strip() for part in measures.split(","))
        effort = replace(effort, measures=chosen)
    return replace(sample, split=split, task=name, dtype=dtype), effort


def _measure(
    paths: Sequence[Path], sample: Sample, effort: Effort, *, is_told: bool
) -> list[dict[str, Any]]:
    """Measure runs, and all runs of studies."""
    from softprompts.analysis.sharpness import measure_sharpness
    from softprompts.analysis.sharpness_study import study_sharpness
    from softprompts.storage import is_there
    from softprompts.training.resources import Resources

    resources, rows = Resources(), []
    for path in paths:
        if is_there(path / "study.json"):
            rows += study_sharpness(path, sample, effort, _tell if is_told else None)
        else:
            rows.append(measure_sharpness(path, sample, effort, resources))
    return rows


def _tell(row: Mapping[str, Any]) -> None:
    """Say on standard error that a run of a study is done."""
    state = row.get("error") or f"{row['seconds']:.1f} s"
    names = f"{row['variant']}, {row['task']}, seed {row['seed']}"
    typer.echo(f"{names}: {state}", err=True)


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the measures at the largest radii."""
    headings = ("run", "task", "seed", "loss", "inputs", "noise", "prompt", "top", "trace")
    print_table(headings, [_cells(row) for row in rows if "error" not in row])
    for row in rows:
        if "error" in row:
            print(f"{row['variant']}, {row['task']}, seed {row['seed']}: {row['error']}")
    print(
        "inputs, noise and prompt: how much the loss rises at most, or under noise, within the "
        "largest radius"
    )
    print("top, trace: of the Hessian in the prompt's rows, each in units of its own length")


def _cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row of the table."""
    inputs, prompt = (row[name]["radii"][-1] if row[name] else {} for name in ("input", "prompt"))
    curvature = row["curvature"] or {}
    values = [
        row.get("loss"),
        inputs.get("worst"),
        inputs.get("noise"),
        prompt.get("worst"),
        curvature.get("top"),
        curvature.get("trace"),
    ]
    numbers = ["—" if value is None else f"{value:.3g}" for value in values]
    return [row.get("variant", row["method"]), row["task"], str(row["seed"]), *numbers]
