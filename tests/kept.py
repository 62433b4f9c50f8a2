"""What tests of one process make once: loaded backbones, measures of memory, parameters of verbs.

A backbone is frozen and shared by runs anyway, so a run of one test may read through the one that
another test has loaded. What has changed on the disk is loaded anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.utils import get_params_from_function

_backbones: dict[Hashable, Any] = {}
_footprints: dict[Hashable, Any] = {}
_parameters_of = cache(get_params_from_function)


def keep(patch: pytest.MonkeyPatch) -> None:
    """Let runs and results of this process load, measure and parse once what is the same."""
    from softprompts import prompt_folder
    from softprompts.training import footprint, resources

    for place in (prompt_folder, resources):
        patch.setattr(place, "load_backbone", _loading(place.load_backbone))
    patch.setattr(footprint, "measure_footprint", _measuring(footprint.measure_footprint))
    patch.setattr(typer.main, "get_params_from_function", _parameters_of)


def _loading(load: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that loads a backbone of a folder once, others each time."""

    def loaded(name: Any, **options: Any) -> Any:
        place = os.path.realpath(name)
        if options.get("compile") or options.get("device_map") or not os.path.isdir(place):
            return load(name, **options)
        files = [(file.name, file.stat()) for file in sorted(Path(place).iterdir())]
        content = tuple((one, about.st_size, about.st_mtime_ns) for one, about in files)
        key = (str(name), place, repr(sorted(options.items())), content)
        if key not in _backbones:
            _backbones[key] = load(name, **options)
        return _backbones[key]

    return loaded


def _measuring(measure: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that measures a run once for all that have its parts and sizes."""

    def measured(member: Any) -> Any:
        model, longest = member.model, member.longest()
        tracks = model.tracks.values()
        parts = [type(part) for one in tracks for part in (*one.prompt.modules(), one.readout)]
        numbers = (model.num_parameters, member.penalties.num_reads, longest.width)
        sizes = (len(longest.encoded.inputs), member.plan.batch_size)
        key = (model.backbone.fingerprint, repr(model.backbone), *parts, *numbers, *sizes)
        if key not in _footprints:
            _footprints[key] = measure(member)
        return _footprints[key]

    return measured
