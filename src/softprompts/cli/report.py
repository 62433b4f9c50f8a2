"""`softprompts report`: a study as one page, and its tables as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softprompts.cli.options import require_lab
from softprompts.cli.output import print_json, say
from softprompts.cli.pictures import check_page


def report(
    study_dir: Annotated[
        Path, typer.Argument(metavar="STUDY_DIR", help="A study's folder, finished or not.")
    ],
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page; report.html in the study's folder if absent."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written and found as JSON.")
    ] = False,
) -> None:
    """Write a study's report: one page that opens offline, and its tables as CSV and LaTeX."""
    require_lab()
    from softprompts.lab.reports.report import tables_folder, write_report

    check_page(html or study_dir / "report.html", study_dir)
    found = write_report(study_dir, html)
    if as_json:
        print_json(found)
        return
    for text in (*found["compared"], *found["found"], *found["certainty"]):
        say(text)
    say(f"tables: {tables_folder(study_dir, html)}")
    say(f"report: {found['html']}")
