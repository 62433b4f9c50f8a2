"""`softprompts validate`: every error of a recipe at once, before anything heavy is loaded."""

from __future__ import annotations

from typing import Annotated

import typer

from softprompts.cli.options import Overrides
from softprompts.cli.output import print_json, say


def validate(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped one.")
    ],
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a recipe and every run of it, and say what a study's seeds can show.

    Schemas for editors are `schema/recipe.schema.json` and `schema/study.schema.json` in the
    repository. They know fields, types and ranges; this command also knows which fields go
    together.
    """
    from softprompts.recipes.grid import expand
    from softprompts.recipes.identity import identity
    from softprompts.recipes.loading import load_recipe
    from softprompts.recipes.schema import RunConfig
    from softprompts.recipes.study_size import study_size

    config = load_recipe(recipe, overrides or ())
    if isinstance(config, RunConfig):
        kind, identities, size = "run", [identity(config)], ""
    else:
        cells = expand(config)
        kind, identities = "study", [cell.identity for cell in cells]
        size = study_size(cells, config.more_seeds)
    count = len(identities)
    if as_json:
        said = {"recipe": recipe, "kind": kind, "runs": count, "identities": identities}
        print_json({**said, "size": size} if size else said)
    elif kind == "run":
        say(f"{recipe}: run {identities[0]}")
    else:
        say(f"{recipe}: study, {count} run{'' if count == 1 else 's'}{size and '; '}{size}")
