"""`softprompts study`: a grid of runs, each score with its spread over seeds."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from softprompts.cli.options import Overrides, require_lab
from softprompts.cli.output import announce_threads, print_json, print_table, say, visible
from softprompts.cli.pictures import check_page
from softprompts.collecting import uncollected
from softprompts.errors import DataError, RecipeError, SoftPromptsError, SoftPromptsWarning
from softprompts.storage import entries, is_there


def study(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A study file, or the name of a shipped one.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The study's folder; studies/NAME by default."),
    ] = None,
    overrides: Overrides = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto", help="Seeds; auto adds some until the leader is shown to lead."
        ),
    ] = None,
    max_seeds: Annotated[
        str | None, typer.Option(metavar="N", help="With auto: 20 if not set.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="With auto: what all runs may train: 90s, 10m, 2h."),
    ] = None,
    pack_size: Annotated[
        str | None, typer.Option(metavar="N", help="Most runs trained side by side: auto, 1, 2, …")
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
    from softprompts.recipes.loading import load_recipe
    from softprompts.recipes.study import StudyConfig
    from softprompts.recipes.study_size import study_size

    changes = [*(overrides or ()), *_sizes(pack_size, seeds, max_seeds, budget)]
    config = load_recipe(recipe, [*changes, *_tuning(tune, tune_values)])
    if not isinstance(config, StudyConfig):
        raise RecipeError(["a study must have `base`, but this is one run; use train."], recipe)
    announce_threads()
    with uncollected():
        from softprompts.cli.progress import Bar
        from softprompts.lab.studies.executors.registry import build_executor
        from softprompts.lab.studies.looks import all_runs
        from softprompts.lab.studies.runner import run_study
        from softprompts.lab.studies.tuning import tune_study
        from softprompts.lab.studies.tuning_record import read_tuning
        from softprompts.lab.tracking.journal import build_tracking
        from softprompts.recipes.grid import expand

    name = config.name or "study"
    folder = out or _own_folder(name, recipe)
    names = None if devices is None else [name.strip() for name in devices.split(",")]
    where = build_executor(executor, {"address": address, "devices": names})
    tracking = build_tracking(trackers or (), name, folder / "tracking", all_runs(config))
    with Bar(size=study_size(expand(config), config.more_seeds)) as bar:
        if config.tune is not None:
            config = tune_study(config, folder, bar, where)
            tracking = build_tracking(trackers or (), name, folder / "tracking", all_runs(config))
        _tell_strays(folder, all_runs(config))
        summary = run_study(config, folder, bar, where, tracking)
    page = None if is_without_report else _write_report(folder)
    tuning = read_tuning(folder, config.tune)
    if as_json:
        said = {} if tuning is None else {"tuning": tuning.model_dump(mode="json")}
        print_json({**summary, **said, "folder": str(folder), "report": page})
    else:
        _print(summary, expand(config), folder, page, () if tuning is None else tuning.lines())
    if _is_failure(summary["cells"]):
        raise typer.Exit(1)


def _tell_strays(folder: Path, cells: Sequence[Any]) -> None:
    """Tell of finished runs of a study's folder that are not of the study as it is now."""
    runs, own = folder / "runs", {cell.identity for cell in cells}
    is_begun = is_there(folder) and is_there(folder / "study.json") and is_there(runs)
    held = entries(runs) if is_begun else []
    strays = [one for one in held if one not in own and is_there(runs / one / "result.json")]
    if strays:
        text = (
            f"{folder} has {len(strays)} finished runs that are not of this recipe as it is now: "
            "they are kept, and its tables and report leave them out. Choose another --out to have "
            "both."
        )
        print(visible(f"note: {text}"), file=sys.stderr, flush=True)


def _sizes(
    pack_size: str | None, seeds: str | None, max_seeds: str | None, budget: str | None
) -> list[str]:
    """Return what the options of packs and seeds set; `--seeds auto` is `more_seeds`."""
    found = [] if pack_size is None else [f"pack_size={pack_size}"]
    if seeds != "auto":
        for option, value in (("--max-seeds", max_seeds), ("--budget", budget)):
            if value is not None:
                held = "left out" if seeds is None else seeds
                raise DataError(f"`--seeds` must be auto where {option} is given, but is {held}.")
        return found if seeds is None else [*found, f"seeds={seeds}", "more_seeds=null"]
    found.append("more_seeds.looks=null")
    if max_seeds is not None:
        found.append(f"more_seeds.most={max_seeds}")
    if budget is not None:
        from softprompts.lab.fit.plan import read_budget

        found.append(f"more_seeds.budget_seconds={read_budget(budget)}")
    return found


def _tuning(field: str | None, values: str | None) -> list[str]:
    """Return what the options of tuning set: a field that is named has the values that are."""
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
    if name in (".", "..") or "/" in name or "\\" in name or not name.isprintable():
        text = (
            f"`name` must be a plain file name where --out is left out, but is {name!r}. "
            "Give --out, or another name."
        )
        raise RecipeError([text], recipe)
    return Path("studies") / name


def _print(
    summary: Mapping[str, Any],
    cells: Sequence[Any],
    folder: Path,
    page: str | None,
    tuning: Sequence[str],
) -> None:
    """Print what was tuned, scores, what follows from them, what to take and how to use it."""
    from softprompts.lab.reports import robustness
    from softprompts.lab.reports.advice import advice, verdicts
    from softprompts.lab.reports.learning import still_learning
    from softprompts.lab.reports.table import HEADINGS, notes, score_rows

    for text in tuning:
        say(text)
    print_table(HEADINGS, score_rows(summary))
    for text in (*notes(summary), *verdicts(summary), *still_learning(cells, folder)):
        say(text)
    swept = robustness.robustness_rows(summary)
    if swept:
        print_table(robustness.HEADINGS, swept)
        say("* the default lies more than a point below the best, or a run diverged there")
    say("scores in percent: mean ± standard deviation over seeds; differences with 95 % intervals")
    if "looks" in summary:
        say(summary["looks"]["note"])
    taken, *commands = advice(summary, cells, folder) or [""]
    if taken:
        say(taken, "bold green")
    for command in commands:
        say(f"  {command}", is_whole=True)
    say(f"folder: {folder}", is_whole=True)
    if page is not None:
        say(f"report: {page}", is_whole=True)


def _write_report(folder: Path) -> str | None:
    """Write the study's report and return its place; warn where that fails: the runs are safe."""
    from softprompts.lab.reports.report import write_report

    try:
        check_page(folder / "report.html", folder)
        return str(write_report(folder)["html"])
    except SoftPromptsError as error:
        warnings.warn(f"no report is written: {error}", SoftPromptsWarning, stacklevel=2)
        return None
