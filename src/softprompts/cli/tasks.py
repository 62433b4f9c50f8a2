"""Which task of a run a verb is about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softprompts.recipes.schema import RunConfig


def read_config(run_dir: Path) -> RunConfig:
    """Return the configuration of a run folder.

    Args:
        run_dir: the folder.

    Raises:
        SoftPromptsError: if it is missing, broken or edited.
    """
    from softprompts.recipes.parsing import parse_kept_run
    from softprompts.training.journal import read_about

    return parse_kept_run(read_about(run_dir)["config"], str(run_dir / "config.json"))


def choose_task(config: RunConfig, name: str | None) -> str:
    """Return the task that `--task` names; the only one where it names none.

    Args:
        config: the run.
        name: what `--task` says.

    Raises:
        DataError: if the run has no such task, or several and none is named.
    """
    from softprompts.errors import DataError

    names = list(config.tasks)
    if config.mixture is None:
        if name is not None:
            raise DataError(f"`--task` must be left out for a run of one task, but is {name!r}.")
        return names[0]
    if name not in names:
        said = "was not given" if name is None else f"is {name!r}"
        raise DataError(f"`--task` must be one of {', '.join(names)}, but {said}.")
    assert name is not None
    return name
