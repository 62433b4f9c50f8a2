"""`softprompts train`: one run, from a recipe to its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompts.cli.options import Overrides
from softprompts.cli.output import announce_threads, print_json, say
from softprompts.collecting import uncollected
from softprompts.errors import RecipeError, RunFolderError
from softprompts.storage import is_there

if TYPE_CHECKING:
    from softprompts.recipes.schema import RunConfig


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A run file, or the name of a shipped one.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The run's folder.")],
    overrides: Overrides = None,
    should_resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was interrupted.")
    ] = False,
    trackers: Annotated[
        list[str] | None,
        typer.Option(
            "--tracker", metavar="NAME", help="Track the run: tensorboard, wandb, mlflow."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train one prompt and report it on the split that nothing was selected on."""
    from softprompts.recipes.loading import load_recipe
    from softprompts.recipes.schema import RunConfig

    config = load_recipe(recipe, overrides or ())
    if not isinstance(config, RunConfig):
        raise RecipeError(["a run must not have study keys; use softprompts study."], recipe)
    if is_there(out / "config.json") and not should_resume:
        raise RunFolderError(f"{out} holds a run already; pass --resume to go on with it.")

    announce_threads()
    result = _execute(config, out, trackers or ())
    if as_json:
        print_json({**result, "folder": str(out)})
    else:
        _print(result, out)
    if result["status"] == "diverged":
        raise typer.Exit(1)


def _execute(config: RunConfig, out: Path, trackers: Sequence[str]) -> dict[str, Any]:
    """Train with a bar, after saying what memory it takes; return the content of `result.json`."""
    with uncollected():
        from softprompts.cli.progress import Bar, Updates
        from softprompts.recipes.grid import Cell
        from softprompts.recipes.identity import identity
        from softprompts.recipes.resolving import resolve
        from softprompts.training.execution import execute, set_up
        from softprompts.training.footprint import describe_memory
        from softprompts.training.journal import NoJournal
        from softprompts.training.observer import NO_OBSERVER, RunObserver
        from softprompts.training.resources import Resources

    cell = Cell(config.prompt.method, {}, config.task_label, resolve(config), identity(config))
    observer: RunObserver = NO_OBSERVER
    if trackers:
        from softprompts.lab.tracking.journal import build_tracking

        observer = build_tracking(trackers, "softprompts", out / "tracking", [cell])
    resources = Resources(observer=observer)
    memory = ""
    with Bar() as bar:
        backbone, tasks = resources.backbone(config.backbone), resources.tasks(config)
        if not is_there(out / "config.json"):
            setup = set_up(cell.config, backbone, tasks, resources)
            memory = describe_memory(setup.member(NoJournal()))
        bar.start([cell], 0)
        updates = bar.begin([cell], memory)
        assert isinstance(updates, Updates)
        outcome = execute(
            config, backbone, tasks, folder=out, resources=resources, progress=updates
        )
    return dict(outcome.result)


def _print(result: dict[str, Any], out: Path) -> None:
    if result["status"] == "diverged":
        at = result["divergence"]
        say(
            f"diverged at step {at['step']}: loss {at['loss']}, learning rate "
            f"{at['learning_rate']:g}, gradient norm {at['gradient_norm']}"
        )
    else:
        say(f"score {_scores(result)}")
        for name, line in result.get("tasks", {}).items():
            say(f"  {name} {_scores(line)}")
        about = [
            f"{result['seconds']:.0f} s",
            f"{result['trainable_parameters']} trainable numbers",
        ]
        if (rate := result.get("examples_per_second")) is not None:  # an older run may lack it
            about.insert(1, f"{rate:.0f} examples/s")
        selected = result.get("selected_step", "unknown")
        say(f"selected step {selected} of {result['steps']}; {', '.join(about)}")
    cut = {split: count for split, count in result["num_cut"].items() if count}
    if cut:
        say("inputs cut to fit: " + ", ".join(f"{n} in {split}" for split, n in cut.items()))
    if result.get("skipped_rows"):
        say(
            "bad rows skipped: "
            + ", ".join(f"{n} in {file}" for file, n in result["skipped_rows"].items())
        )
    say(f"folder: {out}")


def _scores(line: Mapping[str, Any]) -> str:
    return (
        f"{100 * line['score']:.1f} ({line['metric']}) on {line['num_items']} items of "
        f"{line['split']}; majority {100 * line['majority']:.1f}; last "
        f"{100 * line['last_score']:.1f}"
    )
