"""Which results may answer together."""

from __future__ import annotations

from typing import Any

from softprompts.errors import BackboneError, DataError
from softprompts.lab.ensemble_record import key_of
from softprompts.problems import show
from softprompts.results import Result


def check_results(results: object) -> None:
    """Check that results may answer together.

    Raises:
        BackboneError: if weights, dtypes or devices differ.
        DataError: if they are too few, one comes twice or diverged, or labels, metrics or ways to
            write differ.
    """
    if not isinstance(results, list | tuple) or len(results) < 2:
        shown = len(results) if isinstance(results, list | tuple) else repr(results)
        raise DataError(f"`results` must be a list of two or more results, but is {shown}.")
    seen: dict[tuple[Any, ...], int] = {}
    for place, one in enumerate(results):
        if not isinstance(one, Result):
            raise DataError(f"`results[{place}]` must be a Result, but is {one!r}.")
        if one.score is None:
            raise DataError(
                f"`results[{place}]` must be a run that finished, but is one that diverged."
            )
        first = seen.setdefault(key_of(one.about), place)
        if first != place:
            raise DataError(
                f"`results` must be different runs, but [{first}] and [{place}] are both run "
                f"{one.about['identity']}."
            )
        for name, value in _shared(one).items():
            wanted = _shared(results[0])[name]
            if value != wanted:
                kind = BackboneError if name in ("weights", "dtype", "device") else DataError
                raise kind(
                    f"`results[{place}]` must have the {name} of results[0], {show(wanted)}, but "
                    f"has {show(value)}."
                )


def _shared(result: Result) -> dict[str, Any]:
    """Return what members must have in common, by what an error calls it."""
    names = list(result.model.tracks) if result.model.is_mixture else [None]
    formats = [track.format for track in result.model.tracks.values()]
    return {
        "weights": result.backbone.fingerprint,
        "dtype": str(result.backbone.dtype).removeprefix("torch."),
        "device": str(result.backbone.device),
        "tasks": names,
        "labels": [list(form.labels) for form in formats],
        "metrics": [list(form.metrics) for form in formats],
        "way to write": result.config.readout.model_dump() if formats[0].is_writing else None,
    }
