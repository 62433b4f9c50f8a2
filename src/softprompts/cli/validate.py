"""`softprompts validate`: every error of a recipe at once, before anything heavy is loaded."""

from __future__ import annotations

from typing import Annotated

import typer

from softprompts.cli.output import print_json


def validate(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped one.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="Set a field; may be given many times."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a recipe and every run of it.

    Schemas for editors are `schema/recipe.schema.json` and `schema/study.schema.json` in the
    repository. They know fields, types and ranges; this command also knows which fields go
    together.
    """
    from softprompts.recipes.grid import expand
    from softprompts.recipes.identity import identity
    from softprompts.recipes.loading import load_recipe
    from softprompts.recipes.schema import RunConfig

    config = load_recipe(recipe, overrides or ())
    if isinstance(config, RunConfig):
        kind, identities = "run", [identity(config)]
    else:
        kind, identities = "study", [cell.identity for cell in expand(config)]
    count = len(identities)
    if as_json:
        print_json({"recipe": recipe, "kind": kind, "runs": count, "identities": identities})
    elif kind == "run":
        print(f"{recipe}: run {identities[0]}")
    else:
        print(f"{recipe}: study, {count} run{'' if count == 1 else 's'}")
