"""`softprompts export`: a trained prompt for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softprompts.cli.options import MovedBackbone, TaskOfSeveral
from softprompts.cli.output import announce_threads, print_json, say
from softprompts.cli.pictures import lies_in
from softprompts.collecting import uncollected
from softprompts.errors import DataError, RunFolderError
from softprompts.storage import check_run_folder

TARGETS = ("vocabulary", "peft", "embeds")


def export(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="The folder of a finished run.")
    ],
    target: Annotated[
        str, typer.Option("--to", metavar="FORM", help="vocabulary, peft or embeds.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder.")],
    gguf: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With vocabulary: a new GGUF file beside it."),
    ] = None,
    backbone: MovedBackbone = None,
    name: TaskOfSeveral = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a trained prompt as tokens of a model, as adapters of peft, or as embeddings."""
    announce_threads()
    _check(target, out, gguf, name, run_dir)
    with uncollected():
        from softprompts.results import load

    result = load(run_dir, backbone)
    if target == "vocabulary":
        from softprompts.interop.vocabulary import export_vocabulary

        about = export_vocabulary(result, out, name, gguf)
    elif target == "peft":
        from softprompts.interop.peft import export_peft

        about = export_peft(result, out)
    else:
        from softprompts.interop.embeds import export_embeds

        about = export_embeds(result, out, name)
    if as_json:
        print_json({"to": target, "out": str(out), "gguf": gguf and str(gguf), **about})
        return
    say(f"{target} of {about['task']} in {out}")
    if about.get("left_out"):
        say(
            f"not in it: the trained {' and '.join(about['left_out'])}, which peft has no place for"
        )
    if gguf is not None:
        say(f"gguf: {gguf}")
    if "max_difference" in about:
        say(f"logits differ from the library's by at most {about['max_difference']:.1e}")


def _check(target: str, out: Path, gguf: Path | None, name: str | None, run_dir: Path) -> None:
    """Check what can be known before anything is loaded."""
    from softprompts.interop.destination import check_places

    if target not in TARGETS:
        raise DataError(f"`--to` must be one of {', '.join(TARGETS)}, but is {target!r}.")
    if gguf is not None and target != "vocabulary":
        raise DataError(f"`--gguf` must be left out with --to {target}, but is {str(gguf)!r}.")
    if name is not None and target == "peft":
        raise DataError(
            f"`--task` must be left out with --to peft, which writes all tasks, but is {name!r}."
        )
    for option, place in (("--out", out), ("--gguf", gguf)):
        if place is not None and lies_in(place, [run_dir]):
            raise RunFolderError(
                f"`{option}` must lie outside the run's folder, but is {str(place)!r}."
            )
    check_run_folder(run_dir)
    check_places(out, *([] if gguf is None else [gguf]))
