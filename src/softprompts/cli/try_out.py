"""`softprompts try`: type an input, see the answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from softprompts.cli.output import announce_threads, say, visible
from softprompts.collecting import uncollected
from softprompts.storage import is_there


def try_out(
    run_dir: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run, an ensemble, or what fit made.")
    ],
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where the backbone is, if it was moved.")
    ] = None,
) -> None:
    """Answer inputs that are typed, or come line by line, until they end."""
    announce_threads()
    with uncollected():
        from softprompts.encoding.template import template_fields
        from softprompts.lab.ensembles import load, members_of

    result = load(run_dir / "ensemble" if is_there(run_dir / "fit.json") else run_dir, backbone)
    member = members_of(result)[0]
    fields = template_fields(member.format.templates[member.config.readout.kind])
    while True:
        given = {}
        for name in fields:
            if sys.stdin.isatty():
                print(visible(f"{name}: "), end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                return
            given[name] = line.rstrip("\n")
        if not all(value.strip() for value in given.values()):
            continue
        (found,) = result.predict_scores([given])
        total = sorted(found["scores"].items(), key=lambda pair: -pair[1])
        say("  ".join([found["label"], *(f"{name} {score:.2f}" for name, score in total[:5])]))
