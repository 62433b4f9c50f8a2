"""`softprompts fit`: from a table of examples to a prompt, without a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from softprompts.cli.options import require_lab
from softprompts.cli.output import announce_threads, print_json, say, visible
from softprompts.collecting import uncollected


def fit(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="A jsonl, csv or parquet file, or a hub set.")
    ],
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="A name, folder, GGUF file or hub id.")
    ] = "smollm2",
    label: Annotated[
        str | None, typer.Option(metavar="FIELD", help="The column with the label.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="FIELD,…", help="The columns to read; all with words.")
    ] = None,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="About how long it may take: 90s, 10m, 2h.")
    ] = "10m",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder of all that is made.")
    ] = Path("my-prompt"),
    should_skip: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave bad rows out, and count them.")
    ] = False,
    words: Annotated[
        bool, typer.Option("--words", help="Only prompts that can become words of a model file.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a prompt from a table of examples; the same command again goes on where it stopped."""
    require_lab()
    announce_threads()
    with uncollected():
        from softprompts.cli.progress import Bar
        from softprompts.lab.fit.card import commands, expectations
        from softprompts.lab.fit.fitting import fit as make

    with Bar() as bar:
        found = make(
            source,
            backbone,
            label=label,
            text=text.split(",") if text else (),
            budget=budget,
            out=out,
            skip_bad_rows=should_skip,
            words=words,
            progress=bar,
            tell=lambda line: print(visible(line), file=sys.stderr, flush=True),
        )
    about = dict(found.summary)
    if as_json:
        print_json({**about, "folder": str(out)})
        return
    for line in expectations(about):
        say(line)
    say(f"report: {out / 'study' / 'report.html'}")
    say("next:")
    for command in commands(str(out), about):
        say(f"  {command}")
