"""What `softprompts ensemble` found of a study: kept in its folder, and shown in its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from softprompts.lab.ensemble_record import Group
from softprompts.lab.reports.pages import Part, Section
from softprompts.lab.reports.study_record import StudyRecord, place_columns
from softprompts.lab.reports.tabular import Column, Table
from softprompts.locks import lock
from softprompts.storage import is_there, read_record, write_json
from softprompts.training.stored import Amount, Count, Fraction, Stored, check_stored

FILE: Final = "ensembles.json"
"""Its name in the study's folder."""


class _Spread(Stored):
    scores: list[Fraction]
    mean: Fraction
    std: Amount | None


class _Line(Stored):
    task: str
    point: dict[str, Any]
    singles: _Spread
    ensembles: _Spread
    best: Fraction
    tokens: Amount
    tokens_of_one: Amount
    groups: Annotated[list[Group], Field(min_length=1)]
    left_out: list[Count]


class _Found(Stored):
    variant: str
    size: Annotated[int, Field(ge=2)]
    cells: list[_Line]


class _File(Stored):
    ensembles: list[_Found]


def kept_ensembles(study: Path) -> list[dict[str, Any]]:
    """Return what `softprompts ensemble` last found, by variant and size.

    Raises:
        StorageError: if the file is broken.
        RunFolderError: if a value in it is wrong.
    """
    path = study / FILE
    if not is_there(path):
        return []
    content = read_record(path, ["ensembles"])
    check_stored(path, content, _File)
    found: list[dict[str, Any]] = content["ensembles"]
    return found


def keep_ensembles(study: Path, found: Mapping[str, Any]) -> None:
    """Keep `variant`, `size` and `cells` in place of what was found of these before.

    Raises:
        StorageError: if the file is broken or cannot be written.
    """
    with lock(study / ".lock", should_wait=True):
        key = (found["variant"], found["size"])
        others = [one for one in kept_ensembles(study) if (one["variant"], one["size"]) != key]
        both = sorted([*others, dict(found)], key=lambda one: (one["variant"], one["size"]))
        write_json(study / FILE, {"ensembles": both})


def ensemble_section(record: StudyRecord) -> Section | None:
    """Return the section on ensembles, a row per variant, size, task and grid point, if any."""
    rows = [
        {**_row(line, found["size"]), **entry.place}
        for found in kept_ensembles(record.path)
        for line in found["cells"]
        for entry in record.whole_entries
        if (entry.variant, entry.task, entry.line["point"])
        == (found["variant"], line["task"], line["point"])
    ]
    if not rows:
        return None
    columns = (
        *place_columns(record),
        Column("size", "members", "count"),
        Column("single", "single member", "score", ("single_mean", "single_std")),
        Column("best", "best of its members", "percent"),
        Column("score", "ensemble", "score", ("mean", "std")),
        Column("num_groups", "groups", "count"),
        Column("seeds", "seeds"),
        Column("tokens", "tokens read per item", "number"),
        Column("tokens_of_one", "by one member", "number"),
    )
    note = (
        "Scores in percent on the reported rows: mean and standard deviation over single members, "
        "and over ensembles of disjoint groups of seeds; with one group no spread can be told. The "
        "best member is chosen on the reported rows, and averaged over groups. Tokens count prompt "
        "rows."
    )
    table = Table("ensembles", "Ensembles", columns, rows, note)
    return Section("ensembles", "Ensembles", [Part("table", table)])


def _row(line: Mapping[str, Any], size: int) -> dict[str, Any]:
    single, joint, groups = line["singles"], line["ensembles"], line["groups"]
    return {
        **line,
        "size": size,
        "single": (single["mean"], single["std"]),
        "score": (joint["mean"], joint["std"]),
        "num_groups": len(groups),
        "seeds": "; ".join(", ".join(map(str, group["seeds"])) for group in groups),
    }
