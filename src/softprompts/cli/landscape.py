"""`softprompts landscape`: the loss around trained runs, as a picture or as numbers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompts.cli.options import require_lab
from softprompts.cli.output import announce_threads, print_json, print_table, say
from softprompts.cli.pictures import find_place, write_picture
from softprompts.errors import DataError, SoftPromptsWarning, StorageError
from softprompts.storage import is_there

if TYPE_CHECKING:
    from softprompts.lab.analysis.planes import Grid, Told
    from softprompts.lab.analysis.subjects import Sample


def landscape(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_DIR", help="Finished runs' folders; with --sharpness-only studies too."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The picture: .html, .svg or .png; landscape.html if absent."
        ),
    ] = None,
    is_sharpness_only: Annotated[
        bool, typer.Option("--sharpness-only", help="Measure how steep the loss is; draw nothing.")
    ] = False,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="train, held-out or validation.")
    ] = "train",
    num_examples: Annotated[
        int | None, typer.Option(metavar="N", help="Most rows of the split.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--task", metavar="NAME", help="The task of runs of several.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="DTYPE", help="float32, bfloat16 or float16; the run's if absent."),
    ] = None,
    measures: Annotated[
        str | None, typer.Option(metavar="A,B", help="Some of input, prompt and curvature.")
    ] = None,
    spaces: Annotated[
        str | None, typer.Option(metavar="A,B", help="input, prompt, or both.")
    ] = None,
    directions: Annotated[
        str | None, typer.Option(metavar="KIND", help="gradient, or random.")
    ] = None,
    num_points: Annotated[
        int | None,
        typer.Option(metavar="N", help="Points along each side of a plane; odd, at most 1001."),
    ] = None,
    is_fine: Annotated[
        bool, typer.Option("--fine", help="Over ten times as many points: minutes a run.")
    ] = False,
    is_quick: Annotated[
        bool, typer.Option("--quick", help="Fewer rows and steps, to compare many runs.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; draws only where --out is given.")
    ] = False,
) -> None:
    """Show how the loss of finished runs changes around them."""
    require_lab()
    announce_threads()
    from softprompts.lab.analysis.planes import FINE, Grid
    from softprompts.lab.analysis.sharpness import QUICK_SAMPLE
    from softprompts.lab.analysis.subjects import Sample

    sample = QUICK_SAMPLE if is_quick else Sample(num_examples=64 if is_sharpness_only else 32)
    most = sample.num_examples if num_examples is None else num_examples
    sample = replace(sample, num_examples=most, split=split, task=name, dtype=dtype)
    planes: dict[str, Any] = {"spaces": spaces, "directions": directions, "num_points": num_points}
    if is_sharpness_only:
        _refuse({"out": out, **planes, "fine": is_fine or None}, "with --sharpness-only")
        _show_sharpness(runs, sample, is_quick, measures, as_json=as_json)
        return
    _refuse({"measures": measures}, "without --sharpness-only")
    planes["spaces"] = None if spaces is None else _parts(spaces)
    given = {name: value for name, value in planes.items() if value is not None}
    _draw(runs, (sample, Grid(**(FINE if is_fine else {}) | given)), out, as_json=as_json)


def _refuse(given: Mapping[str, Any], when: str) -> None:
    """Refuse options that would change nothing."""
    for name, value in given.items():
        if value is not None:
            option = name.replace("_", "-")
            raise DataError(f"`--{option}` must be left out {when}, but is {str(value)!r}.")


def _draw(
    runs: Sequence[Path], given: tuple[Sample, Grid], out: Path | None, *, as_json: bool
) -> None:
    from softprompts.lab.analysis.landscapes import measure_landscapes
    from softprompts.lab.reports.landscapes import MOST_RUNS, names_of

    path = find_place(out, "landscape.html", runs, as_json=as_json)
    for folder in runs:
        if is_there(folder / "study.json"):
            raise DataError(
                f"{folder} must be the folder of a run to be drawn, but is that of a study. Name "
                f"some of the folders in {folder / 'runs'}, or measure all with --sharpness-only."
            )
    if len(runs) > MOST_RUNS:
        raise DataError(f"runs must be at most {MOST_RUNS} to be drawn, but are {len(runs)}.")
    places = [os.path.realpath(run) for run in runs]
    for number, run in enumerate(runs):
        if places[number] in places[:number]:
            raise DataError(f"runs must each be given once, but {str(run)!r} is given again.")
    with _telling(as_json=as_json) as told:
        found = measure_landscapes(runs, *given, told)
    _keep(found, runs)
    if path is not None:
        from softprompts.lab.reports.landscape_figures import draw_landscapes
        from softprompts.lab.reports.landscape_page import draw_page

        write_picture(path, found, draw_landscapes, draw_page)
    if as_json:
        print_json({**found, "figure": None if path is None else str(path)})
    else:
        say(f"{path}: loss around {', '.join(names_of(found['runs']))}")


def _keep(found: Mapping[str, Any], runs: Sequence[Path]) -> None:
    """Keep landscapes of a study's runs in its folder, for its report; warn where that fails."""
    from softprompts.lab.reports.landscapes import keep_landscapes, study_of

    try:
        study = study_of(runs)
        if study is not None:
            keep_landscapes(study, found)
    except StorageError as error:
        text = f"the study's report will not show this: {error}"
        warnings.warn(text, SoftPromptsWarning, stacklevel=2)


@contextmanager
def _telling(*, as_json: bool) -> Iterator[Told]:
    """Yield what shows how far a part is: a bar, or a line where standard error is no terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        rows: dict[str, Any] = {}

        def tell(text: str, done: int, total: int) -> None:
            if text not in rows:
                rows[text] = bar.add_task(escape(text), total=total)
                if not as_json and not console.is_terminal:
                    typer.echo(text, err=True)
            bar.update(rows[text], completed=done)

        yield tell


def _show_sharpness(
    paths: Sequence[Path], sample: Sample, is_quick: bool, measures: str | None, *, as_json: bool
) -> None:
    """Measure runs, and all runs of studies, and print that."""
    from softprompts.lab.analysis.sharpness import QUICK, Effort, measure_sharpness, study_sharpness
    from softprompts.training.resources import Resources

    effort = QUICK if is_quick else Effort()
    if measures is not None:
        effort = replace(effort, measures=_parts(measures))
    resources, rows = Resources(), []
    for path in paths:
        if is_there(path / "study.json"):
            rows += study_sharpness(path, sample, effort, None if as_json else _tell)
        else:
            rows.append(measure_sharpness(path, sample, effort, resources))
    print_json({"runs": rows}) if as_json else _print(rows)
    if any("error" in row for row in rows):
        raise typer.Exit(1)


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


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
            say(f"{row['variant']}, {row['task']}, seed {row['seed']}: {row['error']}")
    say(
        "inputs, noise and prompt: how much the loss rises at most, or under noise, within the "
        "largest radius"
    )
    say("top, trace: of the Hessian in the prompt's rows, each in units of its own length")


def _cells(row: Mapping[str, Any]) -> list[str]:
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
