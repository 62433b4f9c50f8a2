"""What a training step with each perturbation costs, as a ratio to one without, and its limit.

    python benchmarks/regularizers.py [--task bundled/entailment] [--rounds 25] [--out FILE.json]

All runs train in one process and take turns, one update each per round, so that a busy machine
slows all of them alike; ratios are medians over rounds.
"""

from __future__ import annotations

from functools import partial

from turns import arguments, build, compare, measure, write

import softprompts as sp
from softprompts.training.pack import update_pack

STEPS = 3
ASCENT = {"kind": "gradient-ascent", "steps": STEPS}
CASES = {
    "plain": (None, 1.0),
    "gaussian-noise": ("gaussian-noise", 2.0),
    "masking": ("masking", 2.0),
    "gradient-ascent": (ASCENT, STEPS + 2.0),
    "gradient-ascent, free": ({**ASCENT, "is_free": True}, STEPS + 1.0),
    "word-substitution": ("word-substitution", 3.5),
    "word-substitution, floor": ({"kind": "word-substitution", "min_similarity": 0.95}, 3.5),
}
"""What perturbs the inputs, and the most that a step may cost in plain ones."""


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--method", default="prompt-tuning")
    parser.add_argument("--consistency", default="ce")
    options = parser.parse_args()
    backbone = sp.load_backbone("minilm", dtype="auto")
    task = sp.load_task(options.task, data_dir=options.data_dir)
    prompt = {"method": options.method}
    steps = {}
    for name, (perturbation, _) in CASES.items():
        ptp = {"kind": "ptp", "perturbation": perturbation, "consistency": options.consistency}
        regularizers = [] if perturbation is None else [ptp]
        member = build(backbone, task, prompt=prompt, regularizers=regularizers)
        steps[name] = partial(update_pack, backbone, [member])
    rows = compare(measure(steps, options.rounds), "plain")
    for name, row in rows.items():
        row["limit"] = CASES[name][1]
        word = "ok" if row["ratio"] <= row["limit"] else "TOO SLOW"
        print(f"{name:22} {row['ratio']:6.3f} of at most {row['limit']:.1f}  {word}")
    write(options, backbone, steps=rows)


if __name__ == "__main__":
    main()
