"""What a training step of each preset costs, as a ratio to plain rows of the same length.

    python benchmarks/presets.py [--task bundled/entailment] [--rounds 25] [--out FILE.json]

All presets train in one process and take turns, one update each per round, so that a busy machine
slows all of them alike; ratios are medians over rounds. `brute-force` is instance position with
every arrangement built in a loop, as the released code of Dynamic Prompting does.
"""

from __future__ import annotations

from functools import partial

import torch
from turns import arguments, build, compare, measure, write

import softprompts as sp
from softprompts.encoding.batch import collate
from softprompts.prompts import splice as splicing
from softprompts.prompts.positions.base import anchors
from softprompts.prompts.splice import splice
from softprompts.recipes.presets import METHODS
from softprompts.training import forward
from softprompts.training.objective import accumulate
from softprompts.training.pack import cut


def brute_force(chosen, weights, tokens, attention_mask, rows, edges):
    """Build every arrangement and mix them by their weights."""
    batch, length = rows.shape[:2]
    mixed = torch.zeros_like(chosen)
    segments = torch.zeros_like(attention_mask)
    for split in range(length + 1):
        places = anchors(torch.full((batch,), split), length, *edges)
        arrangement = splice(tokens, attention_mask, segments, rows, places).embeddings
        mixed = mixed + weights[:, split, None, None].to(mixed.dtype) * arrangement
    return mixed


def step(backbone, member, tie):
    """Do one update of a run, its splits mixed by `tie`."""
    splicing.tie = tie
    for _, shares in cut([member], backbone):
        accumulate(backbone, shares)
    member.update(0.0)


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__.splitlines()[0]).parse_args()
    backbone = sp.load_backbone("minilm", dtype="auto")
    task = sp.load_task(options.task, data_dir=options.data_dir)
    methods = {name: name for name, preset in METHODS.items() if preset.length}
    methods["brute-force"] = "adap-ins-pos"
    members = {n: build(backbone, task, prompt={"method": m}) for n, m in methods.items()}
    first = members["prompt-tuning"]
    batch = collate(next(iter(first.train.values())).encoded, backbone.tokenizer.pad_token_id)
    forward.instance_vectors(backbone, batch)  # read once, as in any run of more than one epoch
    steps = {name: partial(step, backbone, m, splicing.tie) for name, m in members.items()}
    steps["brute-force"] = partial(step, backbone, members["brute-force"], brute_force)
    rows = compare(measure(steps, options.rounds), "prompt-tuning")
    for name, row in rows.items():
        print(f"{name:20} {row['ratio']:6.3f} {row['milliseconds']:8.1f} ms")
    write(options, backbone, presets=rows)


if __name__ == "__main__":
    main()
