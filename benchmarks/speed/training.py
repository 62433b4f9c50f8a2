"""Section `training`: updates of ours, of peft and of a loop by hand, taking turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .case import Case, Ready, Scope, Workplace, measure_cases
from .contestants import MatrixProducts
from .race import ratios

CASES = {
    Case("minilm", "cb"): 50,
    Case("minilm", "rte"): 76,
    Case("minilm", "boolq"): 34,
    Case("bert-base", "cb"): 8,
    Case("t5-small", "cb"): 10,
    Case("gpt2-small", "cb"): 8,
    Case("smollm2", "cb", batch_size=8): 24,
}
"""Rounds by case. 50 updates are three times all rows of CommitmentBank; 76 of RTE's are two of the
groups that peft's trainer sorts by length. Ratios of fewer differ by a tenth from race to race."""
QUICK = {
    Case("tiny-bert", "bundled"): 2,
    Case("tiny-t5", "bundled"): 2,
    Case("tiny-gpt2", "bundled"): 2,
    Case("tiny-llama", "bundled"): 2,
}
AUTOCAST = "minilm cb"
"""The case that shows which way to bfloat16 is peft's best."""


def measure(place: Workplace, scope: Scope) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return figures by case, one after the other."""
    return measure_cases(place, scope, QUICK if scope.is_quick else CASES, measure_case)


def measure_case(ready: Ready, num_rounds: int) -> dict[str, Any]:
    """Return one case's figures."""
    ours = ready.ours
    products = MatrixProducts(ready.backbone.dtype)
    laps = ready.race("peft, default", [ours, products, ready.bare()], num_rounds)
    limit = laps.pop(products.name)
    beside = dict.fromkeys(laps, laps[ours.name])
    for setup in ("peft, best", *(["peft, autocast"] if ready.case.name == AUTOCAST else [])):
        found = ready.race(setup, [ours], num_rounds)
        laps[setup], beside[setup] = found[setup], found[ours.name]
    return {
        "batch_size": ready.case.batch_size,
        "rows": ready.case.length,
        "tokens_per_example": round(ready.tokens_per_example, 1),
        "layer_parameters": ready.parameters,
        "matrix_gflops": round(limit.rate / 1e9, 1),
        "rounds": num_rounds,
        "contestants": {
            name: ready.figures(lap) | ready.shares(lap, limit) for name, lap in laps.items()
        },
        "ratios": {
            name: ratios(beside[name], lap) for name, lap in laps.items() if name != ours.name
        },
    }
