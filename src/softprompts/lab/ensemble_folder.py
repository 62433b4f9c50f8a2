"""The folder of an ensemble: its members' runs, and `ensemble.json`, which names them.

It holds `members/1/`, `members/2/` and so on, each a finished run, and, written last,
`ensemble.json`: its presence means that the ensemble is whole. Nothing in it says where it lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field

from softprompts.errors import RunFolderError
from softprompts.lab.reports.ensemble_section import Group
from softprompts.storage import (
    entries,
    is_there,
    read_record,
    remove_file,
    remove_parts,
    write_json,
)
from softprompts.training.finished import read_prompt, read_result
from softprompts.training.journal import read_about
from softprompts.training.stored import Count, Stored, check_stored

if TYPE_CHECKING:
    from softprompts.results import Result

FILE: Final = "ensemble.json"
"""What makes a folder that of an ensemble; written last."""


class _Member(Stored):
    """A member in `ensemble.json`."""

    identity: str
    data_digest: str
    seed: Count


class _Kept(Stored):
    """The content of `ensemble.json`."""

    members: Annotated[list[_Member], Field(min_length=2)]
    summary: Group | None


def key_of(about: Mapping[str, Any]) -> tuple[int, str, str]:
    """Return what tells runs apart by their `config.json`, the seed first."""
    return about["config"]["seed"], about["identity"], about["data_digest"]


def describe_members(abouts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what `ensemble.json` says of members, by what their `config.json` say."""
    keys = sorted(key_of(about) for about in abouts)
    return [{"identity": name, "data_digest": data, "seed": seed} for seed, name, data in keys]


def member_folders(folder: Path) -> list[Path]:
    """Return the run folders of an ensemble's members; of a run, its own.

    Args:
        folder: the folder of an ensemble or of a run.

    Raises:
        StorageError: if its `ensemble.json` is broken.
        RunFolderError: if a value in it is wrong.
    """
    if not (is_there(folder) and is_there(folder / FILE)):
        return [folder]
    return [place_of(folder, number) for number in range(len(read_kept(folder)["members"]))]


def read_kept(folder: Path) -> dict[str, Any]:
    """Read the `ensemble.json` of a folder; raises as `member_folders` does."""
    content = read_record(folder / FILE, ["members", "summary"])
    check_stored(folder / FILE, content, _Kept)
    return content


def kept_summary(folder: Path, members: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return what a folder keeps of what an ensemble scored; `None` where that is not there.

    Args:
        folder: the folder; it need not exist.
        members: the members, as `describe_members` says them.

    Raises:
        RunFolderError: if it holds other members, or something else.
        StorageError: if a file is broken.
    """
    held = entries(folder) if is_there(folder) else []
    if FILE not in held:
        if held not in ([], ["members"]):
            raise RunFolderError(f"{folder} must be a new or empty folder, but holds {held[0]}.")
        return None
    kept = read_kept(folder)
    abouts = []
    for place in member_folders(folder):
        abouts.append(read_about(place))
        read_result(place, abouts[-1]["identity"])
        read_prompt(place, abouts[-1])
    check_kept(folder, kept["members"], abouts)
    check_kept(folder, members, abouts)
    summary: dict[str, Any] | None = kept["summary"]
    return summary


def write_ensemble(
    folder: Path, members: Sequence[Result], summary: Mapping[str, Any] | None = None
) -> None:
    """Write an ensemble to a folder; what an interrupted writing left there is finished.

    Args:
        folder: the folder; a member that is whole is left as it is.
        members: the members, in order.
        summary: what the ensemble scored.

    Raises:
        RunFolderError: if the place of a member holds something else.
        StorageError: if it cannot be written.
    """
    abouts = [member.about for member in members]
    for number, member in enumerate(members):
        place = place_of(folder, number)
        if is_there(place / "result.json"):
            check_kept(folder, describe_members([member.about]), [read_about(place)])
            continue
        if is_there(place):
            remove_parts(place)
            for name in ("config.json", "prompt.safetensors"):  # of a member that was cut short
                remove_file(place / name)
        member.save(place)
    content = {"members": describe_members(abouts), "summary": dict(summary or {}) or None}
    write_json(folder / FILE, content)


def place_of(folder: Path, number: int) -> Path:
    """Return the run folder of a member, by its place in the order of members."""
    return folder / "members" / str(number + 1)


def check_kept(
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
        raise RunFolderError(
            f"{folder} must hold the members {_named(wanted)}, but holds {_named(found)}."
        )


def _named(members: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{one['identity']} (seed {one['seed']})" for one in members)
