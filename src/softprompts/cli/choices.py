"""`softprompts choices`: what a run's prompt chose, as a picture or as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softprompts.cli.options import require_lab
from softprompts.cli.output import print_json, say
from softprompts.cli.pictures import find_place, write_picture

if TYPE_CHECKING:
    from softprompts.lab.reports.choices import Choices


def choices(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run's folder.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The picture: .svg, .png or .html; choices.svg if absent."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; draws only where --out is given.")
    ] = False,
) -> None:
    """Draw what a run's prompt chose: positions, lengths, sets of a pool, entropy, temperature."""
    require_lab()
    from softprompts.lab.reports.choices import read_choices

    path = find_place(out, "choices.svg", [run_dir], as_json=as_json)
    found = read_choices(run_dir)
    if path is not None:
        from softprompts.lab.reports import choices_figures, choices_page

        write_picture(path, found, choices_figures.draw_choices, choices_page.draw_page)
    if as_json:
        print_json({**found.as_json(), "figure": None if path is None else str(path)})
    else:
        say(f"{path}: {_describe(found)}")


def _describe(found: Choices) -> str:
    about = found.about
    updates = f"{found.num_updates} update{'s' * (found.num_updates != 1)}"
    state = "" if found.status == "finished" else f"; the run is {found.status}"
    cut = "; its last line is half written and left out" if found.is_cut else ""
    *others, last = found.parts
    what = f"{', '.join(others)} and {last}" if others else last
    return f"{what} of {about['method']} on {about['task']}, {updates}{state}{cut}"
