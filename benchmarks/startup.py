"""How long it takes from nothing to the first update of a prompt, part by part.

    python benchmarks/startup.py [--backbone minilm] [--readout linear] [--task superglue/cb]
                                 [--data-dir FOLDER] [--batch-size N] [--threads N]

Prints seconds by part as one line of JSON. Run it twice with the same `SOFTPROMPTS_CACHE` to see
what the second process finds done. `load weights` imports transformers, `tokenization` is a part of
`to the first update`.
"""

from __future__ import annotations

import time

BEGAN = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
from typing import Any  # noqa: E402


class Watch:
    """Takes the time of the first update."""

    def __init__(self) -> None:
        self.first: float | None = None

    def update(self, step: int, total: int) -> None:
        """Note the first call."""
        if self.first is None:
            self.first = time.perf_counter()


def main() -> None:
    """Start, and print how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument("--readout", default="linear")
    parser.add_argument("--task", default="bundled/entailment")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    marks: dict[str, float] = {}

    def mark(name: str, since: float) -> float:
        now = time.perf_counter()
        marks[name] = now - since
        return now

    import softprompts as sp

    load_backbone = sp.load_backbone
    import torch

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    now = mark("import softprompts and torch", BEGAN)
    backbone = load_backbone(options.backbone, dtype="auto")
    now = mark("load weights", now)
    task = sp.load_task(options.task, data_dir=options.data_dir)
    now = mark("read rows", now)
    from softprompts.encoding.tokenization import Tokenization

    spent = _timed(Tokenization, "encode")
    watch = Watch()
    training = sp.TrainingConfig(
        steps=1, batch_size=options.batch_size, num_evaluations=1, selection="last"
    )
    sp.train(backbone, task, readout=options.readout, training=training, progress=watch)
    assert watch.first is not None
    marks["to the first update"] = watch.first - now
    marks["tokenization"] = spent[0]
    marks["whole"] = watch.first - BEGAN
    print(json.dumps({name: round(seconds, 4) for name, seconds in marks.items()}))


def _timed(owner: Any, name: str) -> list[float]:
    """Count the seconds of a function of a class or module from here on."""
    spent, function = [0.0], getattr(owner, name)

    def timed(*arguments: Any, **more: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **more)
        finally:
            spent[0] += time.perf_counter() - began

    setattr(owner, name, timed)
    return spent


if __name__ == "__main__":
    main()
