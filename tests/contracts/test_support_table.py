"""Every text architecture of transformers, by methods and readouts: right, or refused.

A cell runs the contracts of `test_contracts.py`. What became of it stands in
`docs/results/support`, from which `docs/support.md` has its second table; `make support` writes
both.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from architectures import AS_DECODER, DECODERS, NOT_BUILT, build_any, text_types
from contracts import test_contracts as contracts
from contracts.support import CELLS_OF, WRITE
from softprompts.backbones.loading import load_backbone
from softprompts.errors import SoftPromptsError

NUM_PARTS = 8
LINEAR = ("prompt-tuning", "residual", "p-tuning-v2", "adap-ins-vec-pos", "adap-len", "dept")
LINEAR += ("head-only", "fine-tuning", "lora")
WORDS = ("prompt-tuning", "p-tuning-v2", "stable", "zero-shot", "in-context", "lora")
"""A method for each way in which methods differ to a backbone: the others are one of these to it,
as the first table shows."""
BATCHED = ("prompt-tuning", "p-tuning-v2", "adap-len")


def names() -> list[str]:
    """Return all architectures that are built; `@decoder` is the half that writes."""
    found = [*text_types(), "gemma4_text", *(f"{kind}@decoder" for kind in DECODERS)]
    return [name for name in found if name not in NOT_BUILT]


def cells(family: str) -> Iterator[tuple[str, str]]:
    """Yield methods and readouts that go together."""
    for readout in contracts.READOUTS[family]:
        for method in LINEAR if readout == "linear" else WORDS:
            yield method, readout


def look(name, task, folder: Path) -> dict[str, str]:
    """Return what became of each cell: `right`, why it is refused, or what is wrong."""
    kind, _, half = name.partition("@")
    build_any(kind, folder, **(AS_DECODER if half else {}))
    found = {}
    try:
        backbone = load_backbone(folder)
    except SoftPromptsError as error:
        return {"": _reason(error, folder)}
    for method, readout in cells(backbone.family):
        given = (lambda _: backbone, task, name, method, readout)
        try:
            contracts.test_every_trainable_number_is_trained_and_nothing_else(*given)
            if method in BATCHED:
                contracts.test_a_batch_scores_as_one_by_one(*given)
            found[f"{readout}, {method}"] = "right"
        except SoftPromptsError as error:
            found[f"{readout}, {method}"] = _reason(error, folder)
        except Exception as error:
            found[f"{readout}, {method}"] = f"WRONG: {type(error).__name__}: {error}"[:300]
    return found


def _reason(error: SoftPromptsError, folder: Path) -> str:
    return " ".join(str(error).replace(str(folder), "it").split())


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_every_architecture_is_right_or_refused(part, task, tmp_path):
    found = {}
    for name in names()[part::NUM_PARTS]:
        found[name] = look(name, task, tmp_path / name)
        gc.collect()
    path = CELLS_OF / f"{part}.json"
    if os.environ.get(WRITE):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert not [(n, c) for n, own in found.items() for c in own.items() if c[1].startswith("WRONG")]
    assert found == json.loads(path.read_text("utf-8")), "run `make support`"
