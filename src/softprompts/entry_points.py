"""What installed packages add: registries' entries, whole registries, and commands."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any

from softprompts.errors import RegistryError


def load_point(point: EntryPoint, what: str) -> Any:
    """Return what an entry point leads to, which must be `what`; `RegistryError` if it fails."""
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # a module may try to end the program
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".:")
        raise RegistryError(f"{wrong_target(point, what)}{point.value} raises {reason}.") from error


def wrong_target(point: EntryPoint, what: str) -> str:
    """Return how the text begins that an entry point leads to something else."""
    return f"entry point {point.name!r} of {point.group} must load to {what}, but "


def named_points(group: str, own: Mapping[str, str]) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, this library's own first; none is loaded.

    A name must have one target. Our own stand here too, for a checkout with older metadata.
    """
    found = {name: EntryPoint(name, target, group) for name, target in own.items()}
    for point in entry_points().select(group=group):
        known = found.setdefault(point.name, point)
        if known.value != point.value:
            raise RegistryError(
                f"entry points of {group} must have a name each, but {point.name!r} is both "
                f"{known.value} and {point.value}."
            )
    return found


@cache
def entry_points() -> Any:  # of a class that is named otherwise from Python 3.12 on
    """Return those of all groups: one look through what is installed, for all registries."""
    return importlib.metadata.entry_points()
