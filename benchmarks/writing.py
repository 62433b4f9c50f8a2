"""How fast prompts train to write, and write, on `smollm2`: against peft, taking turns.

    python benchmarks/writing.py [--rounds N] [--batch N] [--tokens N]

Updates of both read as many rows of `bundled/record`; peft's model is in bfloat16, its batches are
padded to their longest row, its loop is by hand: no trainer stands between. Both write after the
same inputs as many tokens, with a cache.
"""

from __future__ import annotations

import argparse
import os
import time
from statistics import median

os.environ["SOFTPROMPTS_CACHE"] = "off"

import torch
from peft import PromptTuningConfig, get_peft_model

import softprompts as sp
from softprompts.encoding.batch import collate
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.training.execution import set_up
from softprompts.training.forward import Part, write
from softprompts.training.journal import NoJournal
from softprompts.training.pack import update_pack
from softprompts.training.resources import Resources
from softprompts.training.writing import without_targets, write_options

LENGTH = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24)
    options = parser.parse_args()
    ours, theirs = (sp.load_backbone("smollm2", dtype="bfloat16") for _ in range(2))
    task = sp.load_task("bundled/record", num_items=options.batch)
    readout = {"kind": "writing", "max_new_tokens": options.tokens}
    prompt = {"length": LENGTH, "unit": "absolute"}
    training = {"steps": 10**6, "batch_size": options.batch, "selection": "last"}
    recipe = {"backbone": {"name": "smollm2", "dtype": "bfloat16"}, "readout": readout}
    recipe |= {"task": {"name": "bundled/record"}, "prompt": prompt, "training": training}
    config = resolve(parse_run(recipe))
    setup = set_up(config, ours, {"bundled/record": task}, Resources())
    member, track = setup.member(NoJournal()), setup.model.track()
    peer = get_peft_model(
        theirs.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)
    )
    rows = setup.splits["bundled/record"]
    laps = {"ours": [], "peft": []}
    optimizer = torch.optim.AdamW([p for p in peer.parameters() if p.requires_grad], lr=0.01)
    for _ in range(options.rounds):
        start = time.perf_counter()
        update_pack(ours, [member])
        middle = time.perf_counter()
        chosen = [rows["train"].encoded[i] for i in _taken(member, options.batch)]
        peer(**_batch(chosen, theirs)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        laps["ours"].append(middle - start)
        laps["peft"].append(time.perf_counter() - middle)
    _tell("an update", laps)
    laps = {"ours": [], "peft": []}
    shown = rows["validation"].encoded
    given = _inputs(shown, theirs)
    batch = collate(list(map(without_targets, shown)), ours.tokenizer.pad_token_id)
    part = Part(track.prompt, track.readout, batch)
    fixed = {"min_new_tokens": options.tokens}  # as many for both
    fixed = {**write_options(ours, track.readout, [batch]), **fixed, "min_length": None}
    peer.eval()
    for _ in range(options.rounds):
        start = time.perf_counter()
        write(ours, [part], **fixed)
        middle = time.perf_counter()
        peer.generate(**given, **fixed)
        laps["ours"].append(middle - start)
        laps["peft"].append(time.perf_counter() - middle)
    _tell("writing", laps)


def _taken(member, count):
    """Return as many rows as the last update had, of another place."""
    first = member.counters.step * count
    return [(first + i) % len(member.train["bundled/record"]) for i in range(count)]


def _batch(rows, backbone):
    """Return rows as peft reads them, padded on the right to the longest."""
    lines = [([*r.inputs[0].alone.ids], [*r.inputs[0].targets[0].tokens]) for r in rows]
    width, pad = max(len(a) + len(b) for a, b in lines), backbone.tokenizer.pad_token_id
    ids = [a + b + [pad] * (width - len(a) - len(b)) for a, b in lines]
    mask = [[1] * (len(a) + len(b)) + [0] * (width - len(a) - len(b)) for a, b in lines]
    labels = [[-100] * len(a) + b + [-100] * (width - len(a) - len(b)) for a, b in lines]
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(labels),
    }


def _inputs(rows, backbone):
    """Return inputs alone, padded on the left as generation wants them."""
    lines = [list(row.inputs[0].alone.ids) for row in rows]
    width, pad = max(map(len, lines)), backbone.tokenizer.pad_token_id
    ids = [[pad] * (width - len(line)) + line for line in lines]
    mask = [[0] * (width - len(line)) + [1] * len(line) for line in lines]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def _tell(what, laps):
    ours, theirs = (median(laps[name][1:]) for name in ("ours", "peft"))
    print(f"{what}: ours {ours:.2f} s, peft {theirs:.2f} s, {theirs / ours:.2f} times as fast")


if __name__ == "__main__":
    main()
