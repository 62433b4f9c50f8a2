"""`softprompts predict`: a finished run on new rows."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompts.cli.ensemble import about_answers, cost_line
from softprompts.cli.options import FinishedRun, MovedBackbone, TaskOfSeveral, read_task
from softprompts.cli.output import announce_threads, print_json, say
from softprompts.cli.pictures import check_output
from softprompts.collecting import uncollected
from softprompts.errors import DataError
from softprompts.storage import write_bytes

if TYPE_CHECKING:
    from softprompts.examples import Example
    from softprompts.results import Result


def predict(
    run_dir: FinishedRun,
    source: Annotated[
        Path, typer.Option("--input", metavar="F.jsonl", help="Rows in the task's own form.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", metavar="G.jsonl", help="Label and scores, or a text, line by line."
        ),
    ],
    should_skip: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave bad rows out, and count them.")
    ] = False,
    backbone: MovedBackbone = None,
    name: TaskOfSeveral = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict labels, or write texts, for rows that need not have any."""
    announce_threads()
    with uncollected():
        from softprompts.lab.ensembles import load, members_of
        from softprompts.tasks.base import Task
        from softprompts.tasks.loading import load_examples

    check_output(output, source, run_dir)
    if output.suffix.lower() in (".csv", ".parquet", ".tsv"):
        raise DataError(f"`--output` must be a file of JSON lines, but is {str(output)!r}.")
    config, task_name = read_task(run_dir, name)
    own = config.tasks[task_name]
    result = load(run_dir, backbone)
    members = members_of(result)
    task = Task(members[0].model.track(name).format, (), (), ())
    options = dict(own.options) if own.name == "files" else None
    examples, num_skipped = load_examples(task, source, skip_bad_rows=should_skip, options=options)
    if should_skip:
        usable = _usable(members, examples, name)
        num_skipped, examples = num_skipped + len(examples) - len(usable), usable
    lines = []
    predictions = result.predict_examples(examples, name)
    for place, prediction in zip(_places(examples), predictions, strict=True):
        lines.append(json.dumps({**place, **_answer(prediction)}) + "\n")
    num_cut = sum(prediction["is_cut"] for prediction in predictions)
    write_bytes(output, "".join(lines).encode())
    counts = {"num_rows": len(lines), "num_skipped": num_skipped, "num_cut": num_cut}
    about = about_answers(result, examples, name) if len(members) > 1 else {}
    if as_json:
        print_json({"output": str(output), **counts, **about})
        return
    skipped = f"; {num_skipped} bad rows skipped" if num_skipped else ""
    say(f"{len(lines)} predictions in {output}{skipped}")
    if about:
        say(cost_line(about))
    if num_cut:
        say(f"inputs cut to fit: {num_cut}")


def _answer(prediction: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a line says of a prediction: label and scores, or a text."""
    if "text" in prediction:
        return {"text": prediction["text"]}
    scores = {k: v if math.isfinite(v) else None for k, v in prediction["scores"].items()}
    return {"label": prediction["label"], "scores": scores}


def _usable(
    members: Sequence[Result], examples: Sequence[Example], name: str | None
) -> tuple[Example, ...]:
    """Return the rows that can be read and whose choices can be told apart; at least one."""
    from softprompts.tasks.checking import check_choices

    readouts, usable = [member.model.track(name).readout for member in members], []
    first: DataError | None = None
    for example in examples:
        try:
            check_choices(example)
            for readout in readouts:
                readout.encode(example)
            usable.append(example)
        except DataError as error:
            first = first or error
    if first is not None and not usable:
        raise first
    return tuple(usable)


def _places(examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
    """Yield where each example comes from: where a line has several, in what group and place."""
    seen: Counter[tuple[str, str]] = Counter()
    for example in examples:
        key = (example.source, example.group)
        about = {"group": example.group, "item": seen[key]} if example.group else {}
        yield {"source": example.source, **about}
        seen[key] += 1
