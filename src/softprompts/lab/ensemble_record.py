"""What `ensemble.json` holds: the members of an ensemble, and what it scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from softprompts.errors import RunFolderError
from softprompts.storage import is_there, read_record
from softprompts.training.stored import Amount, Count, Fraction, Stored, check_stored

FILE: Final = "ensemble.json"
"""What makes a folder that of an ensemble; written last."""


class Group(Stored):
    """An ensemble of one group of seeds, and what it scored on the reported rows."""

    seeds: list[Count]
    members: list[str]
    score: Fraction
    best: Fraction
    num_items: Count
    num_cut: Count
    num_forwards: Count
    tokens: Amount
    tokens_of_one: Amount
    is_same_data: bool


class _Member(Stored):
    identity: str
    data_digest: str
    seed: Count


class _Content(Stored):
    members: Annotated[list[_Member], Field(min_length=2)]
    summary: Group | None


def read_ensemble(folder: Path) -> dict[str, Any] | None:
    """Read the `ensemble.json` of a folder; `None` where there is none.

    Raises:
        StorageError: if it is broken.
        RunFolderError: if a value in it is wrong.
    """
    if not (is_there(folder) and is_there(folder / FILE)):
        return None
    content = read_record(folder / FILE, ["members", "summary"])
    check_stored(folder / FILE, content, _Content)
    return content


def member_folders(folder: Path) -> list[Path]:
    """Return the run folders of an ensemble's members; of a run, its own.

    Args:
        folder: the folder of an ensemble or of a run.

    Raises:
        StorageError: if its `ensemble.json` is broken.
        RunFolderError: if a value in it is wrong.
    """
    kept = read_ensemble(folder)
    return [folder] if kept is None else member_places(folder, len(kept["members"]))


def member_places(folder: Path, count: int) -> list[Path]:
    """Return where an ensemble's folder keeps its members, in their order."""
    return [folder / "members" / str(number + 1) for number in range(count)]


def describe_members(abouts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what `ensemble.json` says of members, by what their `config.json` say."""
    keys = sorted(map(key_of, abouts))
    return [{"identity": name, "data_digest": data, "seed": seed} for seed, name, data in keys]


def check_members(
    folder: Path, wanted: Sequence[Mapping[str, Any]], abouts: Sequence[Mapping[str, Any]]
) -> None:
    """Check that the members of an ensemble are those that are wanted.

    Args:
        folder: the ensemble's folder.
        wanted: members, as `describe_members` says them.
        abouts: the `config.json` of those that are there.

    Raises:
        RunFolderError: if they are others.
    """
    found = describe_members(abouts)
    if found != list(wanted):
        named = [
            ", ".join(f"{one['identity']} (seed {one['seed']})" for one in members)
            for members in (wanted, found)
        ]
        raise RunFolderError(f"{folder} must hold the members {named[0]}, but holds {named[1]}.")


def key_of(about: Mapping[str, Any]) -> tuple[int, str, str]:
    """Return what tells runs apart by their `config.json`, the seed first."""
    return about["config"]["seed"], about["identity"], about["data_digest"]
