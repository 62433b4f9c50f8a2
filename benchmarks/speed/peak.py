"""One contestant in a process of its own: reads a job from standard input, prints what it held."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def main() -> None:
    """Load, train, report."""
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    run = _ours(job) if job["contestant"] == "softprompts" else _other(job)
    _reset()
    loaded = _status("VmRSS")
    run()
    peak = _status("VmHWM")
    print(json.dumps({"loaded_bytes": loaded, "peak_bytes": peak, "added_bytes": peak - loaded}))


def _reset() -> None:
    """Begin a new high-water mark: what loading held for a moment is not training's."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    """Return a figure of this process in bytes; Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status must have {name}, but has not.")


def _ours(job: dict[str, Any]) -> Callable[[], object]:
    import softprompts as sp

    from .contestants import Ours, build_member
    from .material import load_rows
    from .shapes import is_bundled

    rows = load_rows(job["rows"], job["data_dir"])
    name = job["model"] if is_bundled(job["model"]) else job["folder"]
    backbone = sp.load_backbone(name, dtype="auto")
    member = build_member(
        backbone,
        (rows.task.format, [rows.examples[i] for i in job["indices"]]),
        readout=job["readout"],
        length=job["length"],
        batch_size=job["batch_size"],
    )
    ours = Ours(backbone, [member])
    return lambda: [ours.step() for _ in range(job["num_updates"])]


def _other(job: dict[str, Any]) -> Callable[[], object]:
    import transformers

    from .peers import SETUPS, Host, build_peer, build_trainer

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = Path(job["folder"])
    if job["contestant"] == "bare loop":
        from .bare import Bare

        sizes = {"length": job["length"], "batch_size": job["batch_size"]}
        bare = Bare(folder, _encoded(job["records"]), job["num_labels"], **sizes)
        return lambda: [bare.step() for _ in range(job["num_updates"])]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    setup = SETUPS[job["contestant"]]
    left = iter(range(job["num_updates"] - 1, -1, -1))
    trainer = build_trainer(
        build_peer(folder, setup.dtype, job["num_labels"], job["length"]),
        job["records"],
        tokenizer,
        setup,
        batch_size=job["batch_size"],
        folder=Path(job["scratch"]),
        callbacks=[Host(lambda: bool(next(left)))],
    )
    return trainer.train


def _encoded(records: list[dict[str, Any]]) -> list[Any]:
    """Return a classifier's records as encoded rows, or those of a decoder that writes."""
    from softprompts.encoding.inputs import EncodedExample, EncodedInput, Target

    found = []
    for record in records:
        ids, label, targets = tuple(record["input_ids"]), record["labels"], ()
        if isinstance(label, list):
            answer = tuple(token for token in label if token >= 0)
            ids, targets, label = ids[: -len(answer)], (Target(0, answer),), 0
        nothing = (0,) * len(ids)
        item = EncodedInput(ids, nothing, nothing, 0, len(ids), targets=targets)
        found.append(EncodedExample((item,), 1, (label,), False))
    return found


if __name__ == "__main__":
    main()
