"""`softprompts study`: a grid of runs, each score with its spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from softprompts.cli.lab import require_lab
from softprompts.cli.output import announce_threads, print_json, print_table
from softprompts.collecting import uncollected


def study(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A study file, or the name of a shipped one.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The study's folder; studies/NAME by default."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="Set a field; may be given many times."),
    ] = None,
    pack_size: Annotated[
        str | None,
        typer.Option(
            "--pack-size", metavar="N", help="Most runs trained side by side: auto, 1, 2, …"
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(metavar="NAME", help="Where packs are trained: in-process, per-device, ray."),
    ] = "in-process",
    address: Annotated[
        str | None, typer.Option(metavar="A", help="Of the Ray cluster; one of its own if not set.")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(metavar="D,…", help="Devices for executor per-device.")
    ] = None,
    trackers: Annotated[
        list[str] | None,
        typer.Option("--tracker", metavar="NAME", help="Track runs: tensorboard, wandb, mlflow."),
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Choose this field on held-out rows for each variant."),
    ] = None,
    tune_values: Annotated[
        str | None,
        typer.Option(metavar="V,…", help="Candidates; by default the recipe's, times 1/10 to 10."),
    ] = None,
    is_without_report: Annotated[
        bool, typer.Option("--no-report", help="Write no report.html at the end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a study and write its report; the same command again goes on where it stopped."""
    require_lab()
    from softprompts.errors import RecipeError
    from softprompts.recipes.loading import load_recipe
    from softprompts.recipes.study import StudyConfig

    changes = [*(overrides or ()), *([] if pack_size is None else [f"pack_size={pack_size}"])]
    config = load_recipe(recipe, [*changes, *_tuning(tune, tune_values)])
    if not isinstance(config, StudyConfig):
        raise RecipeError(["a study must have `base`, but this is one run; use train."], recipe)

    announce_threads()
    with uncollected():
        from softprompts.cli.progress import Bar
        from softprompts.lab.studies.executors.registry import build_executor
        from softprompts.lab.studies.runner import run_study
        from softprompts.lab.studies.tuning import tune_study
        from softprompts.lab.studies.tuning_record import read_tuning
        from softprompts.lab.tracking.tracking import build_tracking
        from softprompts.recipes.grid import expand

    name = config.name or "study"
    folder = out or _own_folder(name, recipe)
    names = None if devices is None else [name.strip() for name in devices.split(",")]
    where = build_executor(executor, {"address": address, "devices": names})
    place = folder / "tracking"
    tracking = build_tracking(trackers or (), name, place, expand(config))
    with Bar() as bar:
        if config.tune is not None:
            config = tune_study(config, folder, bar, where)
            tracking = build_tracking(trackers or (), name, place, expand(config))
        summary = run_study(config, folder, bar, where, tracking)
    page = None if is_without_report else _write_report(folder)
    tuning = read_tuning(folder, config.tune)
    if as_json:
        said = {} if tuning is None else {"tuning": tuning.model_dump(mode="json")}
        print_json({**summary, **said, "folder": str(folder), "report": page})
    else:
        _print(summary, folder, page, () if tuning is None else tuning.lines())
    if _is_failure(summary["cells"]):
        raise typer.Exit(1)


def _tuning(field: str | None, values: str | None) -> list[str]:
    """Return what the options of tuning set: a field that is named has the values that are."""
    import json

    if field is None and values is None:
        return []
    named = [] if field is None else [f"tune.field={json.dumps(field)}"]
    listed = "null" if values is None else f"[{values}]"
    return [*named, f"tune.values={listed}", "tune.chosen=null"]


def _is_failure(lines: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a run failed, or every run of some variant diverged."""
    others: dict[str, int] = {}
    for line in lines:
        count = len(line["seeds"]) + line["num_missing"]
        others[line["variant"]] = others.get(line["variant"], 0) + count
    return any(line["num_failed"] for line in lines) or not all(others.values())


def _own_folder(name: str, recipe: str) -> Path:
    """Return the folder of a study that is given none, which lies in `studies`."""
    from softprompts.errors import RecipeError

    if name in (".", "..") or "/" in name or "\\" in name or not name.isprintable():
        text = (
            f"`name` must be a plain file name where --out is left out, but is {name!r}. "
            "Give --out, or another name."
        )
        raise RecipeError([text], recipe)
    return Path("studies") / name


def _print(summary: dict[str, Any], folder: Path, page: str | None, tuning: Sequence[str]) -> None:
    """Print what was tuned, scores, what follows from them, and where the rest is."""
    from softprompts.lab.reports import robustness
    from softprompts.lab.reports.findings import conclusions
    from softprompts.lab.reports.table import HEADINGS, notes, score_rows

    for text in tuning:
        print(text)
    print_table(HEADINGS, score_rows(summary))
    for text in (*notes(summary), *conclusions(summary)):
        print(text)
    swept = robustness.robustness_rows(summary)
    if swept:
        print_table(robustness.HEADINGS, swept)
        print("* the default lies more than a point below the best, or a run diverged there")
    print("scores in percent: mean ± standard deviation over seeds, then the extremes")
    print(f"folder: {folder}")
    if page is not None:
        print(f"report: {page}")


def _write_report(folder: Path) -> str | None:
    """Write the study's report and return its place; warn where that fails: the runs are safe."""
    import warnings

    from softprompts.cli.pictures import check_page
    from softprompts.errors import SoftPromptsError, SoftPromptsWarning
    from softprompts.lab.reports.report import write_report

    try:
        check_page(folder / "report.html", folder)
        return str(write_report(folder)["html"])
    except SoftPromptsError as error:
        warnings.warn(f"no report is written: {error}", SoftPromptsWarning, stacklevel=2)
        return None
