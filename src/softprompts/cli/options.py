"""Options that several verbs take, each written once, and what they check."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softprompts.errors import DataError, ExtraError

if TYPE_CHECKING:
    from softprompts.recipes.schema import RunConfig

FinishedRun = Annotated[
    Path, typer.Argument(metavar="RUN_DIR", help="The folder of a finished run or ensemble.")
]
MovedBackbone = Annotated[
    str | None,
    typer.Option(
        "--backbone", metavar="NAME", help="Where the run's backbone is, if it was moved."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Set a field; may be given many times."),
]
TaskOfSeveral = Annotated[
    str | None, typer.Option("--task", metavar="NAME", help="The task of a run of several.")
]

LIBRARIES = ("jinja2", "matplotlib", "plotly", "scipy")
"""Those of the extra `lab`, as Python imports them."""


def require_lab() -> None:
    """Raise an `ExtraError` where a library of the lab is missing, before a verb does anything."""
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise ExtraError(
            f"this command must have {', '.join(LIBRARIES)}, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed: install softprompts with its "
            "extra `lab`."
        )


def read_task(run_dir: Path, name: str | None) -> tuple[RunConfig, str]:
    """Return the configuration of a run, or of an ensemble's first member, and a task of it.

    `name` is what `--task` says; it must be there where the run has several tasks.
    """
    from softprompts.lab.ensemble_record import member_folders
    from softprompts.recipes.parsing import parse_kept_run
    from softprompts.training.journal import read_about

    folder = member_folders(run_dir)[0]
    config = parse_kept_run(read_about(folder)["config"], str(folder / "config.json"))
    names = list(config.tasks)
    if config.mixture is None:
        if name is not None:
            raise DataError(f"`--task` must be left out for a run of one task, but is {name!r}.")
        return config, names[0]
    if name not in names:
        said = "was not given" if name is None else f"is {name!r}"
        raise DataError(f"`--task` must be one of {', '.join(names)}, but {said}.")
    assert name is not None
    return config, name
