"""Which runs of a study train side by side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

from softprompts.errors import StorageError
from softprompts.readouts.registry import READOUTS
from softprompts.recipes.grid import Cell
from softprompts.training.resources import choose_device

MOST_RUNS = {"cpu": 8, "cuda": 16}
"""Most runs that `auto` puts in a pack, by device type."""


@final
@dataclass(frozen=True)
class Pack:
    """Runs that train side by side, or one by one after they failed together."""

    runs: tuple[str, ...]
    is_apart: bool = False

    @property
    def name(self) -> str:
        """What its folder is called: 16 hexadecimal digits over its runs."""
        return hashlib.sha256(" ".join(self.runs).encode()).hexdigest()[:16]


@final
@dataclass(frozen=True)
class Plan:
    """The packs of a study in order, and what size was asked for, as `packs.json` keeps them."""

    pack_size: int | str
    packs: tuple[Pack, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any], where: str) -> Plan:
        """Return the plan that `to_json` wrote.

        Raises:
            StorageError: if it is no plan.
        """
        try:
            packs = [Pack(tuple(map(str, p["runs"])), p["is_apart"] is True) for p in data["packs"]]
            return Plan(data["pack_size"], tuple(packs))
        except (KeyError, TypeError) as error:
            raise StorageError(f"{where} must be a plan of packs, but is not: {error!r}.") from None


def extend(
    plan: Plan | None,
    cells: Sequence[Cell],
    pack_size: int | str,
    *,
    has_begun: Callable[[Pack], bool],
    most_runs: Callable[[Cell], int],
    device: str | None = None,
) -> Plan:
    """Return a plan with every cell in one pack.

    Packs of an earlier plan stay as they are, so that an interrupted pack goes on in the same
    company; but for those with runs that the study no longer has, and, where another size is asked
    for, those that have not begun. The remaining cells are packed by themselves.

    Args:
        plan: the plan so far.
        cells: the study's runs.
        pack_size: most runs per pack, or `auto`.
        has_begun: whether a pack of the plan so far has been trained at all.
        most_runs: how many runs like a cell's fit in memory.
        device: what `auto` is; chosen by what there is when `None`.
    """
    before = plan or Plan(pack_size)
    places = {cell.identity: number for number, cell in enumerate(cells)}
    kept = [
        pack
        for pack in before.packs
        if places.keys() >= set(pack.runs) and (pack_size == before.pack_size or has_begun(pack))
    ]
    placed = {name for pack in kept for name in pack.runs}
    new = make_packs([c for c in cells if c.identity not in placed], pack_size, most_runs, device)
    packs = sorted([*kept, *new], key=lambda pack: min(places[name] for name in pack.runs))
    return Plan(pack_size, tuple(packs))


def make_packs(
    cells: Sequence[Cell],
    pack_size: int | str,
    most_runs: Callable[[Cell], int],
    device: str | None = None,
) -> list[Pack]:
    """Put cells that may share a forward into packs of about equal size.

    On a processor `auto` packs the seeds of one variant at one point: they take the same time, and
    more runs would gain nothing. On an accelerator it packs whatever may share a forward.

    See `extend` for the arguments.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(_group(cell, pack_size, device), []).append(cell)
    packs = []
    for group in groups.values():
        kind = choose_device(group[0].config.backbone.device, device).partition(":")[0]
        asked = MOST_RUNS.get(kind, 8) if pack_size == "auto" else int(pack_size)
        size = max(1, min(asked, *(most_runs(cell) for cell in group)))
        num_packs = -(-len(group) // size)
        for number in range(num_packs):
            first = number * len(group) // num_packs
            last = (number + 1) * len(group) // num_packs
            packs.append(Pack(tuple(cell.identity for cell in group[first:last])))
    return packs


def _group(cell: Cell, pack_size: int | str, device: str | None) -> str:
    """Return what cells that may be in one pack have in common."""
    config = cell.config
    if config.adaptation is not None and config.adaptation.kind != "none":
        return cell.identity  # it trains its own copy of the backbone
    needs_head = READOUTS.load(config.readout.kind).needs_head
    common = [config.backbone.model_dump(mode="json"), needs_head]
    if pack_size == "auto" and not choose_device(config.backbone.device, device).startswith("cuda"):
        common += [cell.variant, cell.point]
    return json.dumps(common, sort_keys=True)
