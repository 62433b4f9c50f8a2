"""`softprompts ensemble`: several prompts of a study answer together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softprompts.cli.options import require_lab
from softprompts.cli.output import announce_threads, print_json, print_table, say
from softprompts.collecting import uncollected

if TYPE_CHECKING:
    from softprompts.examples import Example
    from softprompts.lab.ensembles import Ensemble
    from softprompts.results import Result

HEADINGS = ("task", "variant", "single", "best", "ensemble", "groups", "tokens", "of one")


def ensemble(
    study_dir: Annotated[
        Path, typer.Argument(metavar="STUDY_DIR", help="A study's folder with finished runs.")
    ],
    variant: Annotated[str, typer.Option(metavar="V", help="The variant whose seeds are members.")],
    size: Annotated[int, typer.Option(metavar="K", help="Members of an ensemble.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the ensembles, to predict with.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The tasks' files, if they moved.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where the runs' backbone is, if it was moved."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score ensembles of disjoint groups of a variant's seeds beside their single members."""
    require_lab()
    announce_threads()
    with uncollected():
        from softprompts.lab.studies.ensembles import ensemble_study

    found = ensemble_study(study_dir, variant, size, out, backbone=backbone, data_dir=data_dir)
    print_json(found) if as_json else _print(found)


def about_answers(
    result: Result | Ensemble, examples: Sequence[Example], task: str | None
) -> dict[str, Any]:
    """Return who answers: the identity of a run; of an ensemble its members, and what they read."""
    from softprompts.results import Result

    if isinstance(result, Result):
        return {"identity": result.about["identity"]}
    cost = result.cost(examples, task)
    return {
        "members": [member.about["identity"] for member in result.members],
        "num_forwards": cost.num_forwards,
        "tokens": cost.tokens,
        "tokens_of_one": cost.tokens_of_one,
    }


def cost_line(about: Mapping[str, Any]) -> str:
    """Return what an ensemble costs, in words."""
    forwards = about["num_forwards"]
    each = "one forward" if forwards == 1 else f"{forwards} forwards"
    return (
        f"ensemble of {len(about['members'])}: {about['tokens']:.1f} tokens and prompt rows are "
        f"read per item, {about['tokens_of_one']:.1f} by one member, in {each} per batch"
    )


def _print(found: Mapping[str, Any]) -> None:
    print_table(HEADINGS, [_row(line) for line in found["cells"]])
    for text in _notes(found):
        say(text)
    for folder in found["folders"]:
        say(f"folder: {folder}")


def _row(line: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        line["task"],
        _variant(line),
        _score(line["singles"]),
        f"{100 * line['best']:.1f}",
        _score(line["ensembles"]),
        str(len(line["groups"])),
        f"{line['tokens']:.1f}",
        f"{line['tokens_of_one']:.1f}",
    )


def _notes(found: Mapping[str, Any]) -> list[str]:
    size, texts = found["size"], []
    for line in found["cells"]:
        name, groups = f"{_variant(line)} on {line['task']}", line["groups"]
        if len(groups) == 1:
            seeds = _listed(groups[0]["seeds"])
            texts.append(f"{name}: one group only, seeds {seeds}: no spread can be told.")
        if line["left_out"]:
            texts.append(f"{name}: in no whole group: seeds {_listed(line['left_out'])}.")
        if line["without_score"]:
            texts.append(f"{name}: without a score: seeds {_listed(line['without_score'])}.")
        if not all(group["is_same_data"] for group in groups):
            texts.append(f"{name}: the task's rows are not those that the runs were reported on.")
        if cut := sum(group["num_cut"] for group in groups):
            texts.append(f"{name}: inputs cut to fit: {cut} over {len(groups)} groups.")
    forwards = max(group["num_forwards"] for line in found["cells"] for group in line["groups"])
    each = "one forward" if forwards == 1 else f"{forwards} forwards"
    return [
        *texts,
        f"cost: {size} times the tokens and prompt rows of a single member, in {each} per batch; "
        "tokens: what is read per item",
        f"scores in percent, mean ± standard deviation: over the single members, and over "
        f"ensembles of {size}; best: of a group's members on these rows, mean over groups",
    ]


def _variant(line: Mapping[str, Any]) -> str:
    from softprompts.lab.analysis.study_statistics import variant_words

    return variant_words(line)


def _score(spread: Mapping[str, Any]) -> str:
    std = "–" if spread["std"] is None else f"{100 * spread['std']:.1f}"
    return f"{100 * spread['mean']:.1f} ± {std}"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
