"""Section `inference`: whole splits scored by ours and by peft, taking turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from softprompts.training.evaluation import score_examples

from .case import Case, Ready, Scope, Workplace, measure_cases
from .contestants import MatrixProducts
from .peers import SETUPS, build_trainer
from .race import Lap, ratios

CASES = {
    Case("minilm", "cb", num_examples=250): 5,
    Case("minilm", "rte", num_examples=250): 5,
    Case("minilm", "boolq", num_examples=250): 4,
    Case("bert-base", "cb", num_examples=64): 4,
    Case("t5-small", "cb", num_examples=64): 4,
    Case("gpt2-small", "cb", num_examples=64): 4,
    Case("smollm2", "cb", batch_size=8, num_examples=64): 4,
}
"""Rounds by case; each round is one pass over the examples."""
QUICK = {
    Case("tiny-bert", "bundled", num_examples=12): 2,
    Case("tiny-llama", "bundled", num_examples=12): 2,
}
NAMES = ("peft, default", "peft, best")


def measure(place: Workplace, scope: Scope) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return figures by case, one after the other."""
    return measure_cases(place, scope, QUICK if scope.is_quick else CASES, measure_case)


def measure_case(ready: Ready, num_rounds: int) -> dict[str, Any]:
    """Return one case's figures; the first pass of each is warm-up."""
    products = MatrixProducts(ready.backbone.dtype)
    passes = {"softprompts": _ours(ready), **{name: _peer(ready, name) for name in NAMES}}
    laps = {name: Lap() for name in passes}
    tokens = round(ready.tokens_per_example * len(ready.encoded))
    limit = Lap()
    for round_ in range(num_rounds + 1):
        began = time.perf_counter()
        operations = products.step()
        if round_:
            limit.note(time.perf_counter() - began, operations)
        for name, run in passes.items():
            began = time.perf_counter()
            run()
            if round_:
                laps[name].note(time.perf_counter() - began, tokens)
    found = {
        name: ready.figures(lap) | ready.shares(lap, limit, operations=2)
        for name, lap in laps.items()
    }
    return {
        "examples": len(ready.encoded),
        "rounds": num_rounds,
        "matrix_gflops": round(limit.rate / 1e9, 1),
        "contestants": found,
        "ratios": {name: ratios(laps["softprompts"], laps[name]) for name in NAMES},
    }


def _ours(ready: Ready) -> Callable[[], object]:
    """Return what scores all rows: batches of rows of like length."""
    track = ready.ours.members[0].model.track()
    return lambda: score_examples(ready.backbone, track.prompt, track.readout, ready.encoded)


def _peer(ready: Ready, name: str) -> Callable[[], object]:
    """Return what predicts all rows with peft's trainer."""
    setup, records = SETUPS[name], ready.records()
    if setup.is_sorted:
        records = sorted(records, key=lambda record: -len(record["input_ids"]))
    trainer = build_trainer(
        ready.peer(name),
        records,
        ready.backbone.tokenizer,
        setup,
        batch_size=ready.case.batch_size,
        folder=ready.place.scratch / "trainer",
    )

    def run() -> object:
        with torch.no_grad():
            return trainer.predict(records)

    return run
