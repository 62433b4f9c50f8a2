"""Write the page that holds the three papers' claims against runs.

    python docs/results/write_claims.py [STUDY[=SHARPNESS.json] ...]

Each STUDY is a folder of a study of `docs/results/claims/`; what is needed of it is kept beside its recipe, so
that the page can be written again without it. Nothing on the page is typed by hand but the claims
themselves, of which each names two variants and what must hold between them.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from scipy import stats

from softprompts.lab.analysis.study_statistics import statistics_of

PAGE = Path(__file__).with_name("claims.md")
KEPT = Path(__file__).with_name("claims")
EQUAL = 0.03
"""Differences up to this count as none where a paper claims that two things are as good."""

SAME = ("claims", "claims-amx")
"""Studies of one recipe on two kinds of processors."""

NOT_RUN = "| 0 | | | not run |"

Kind = Literal["mean", "spread", "equal"]
Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """What a paper says of a variant beside another.

    Attributes:
        paper: whose claim.
        text: the claim.
        kind: the variant's mean is higher, its spread over seeds is lower, or their means are as
            good as equal.
        variant: the variant.
        baseline: the other.
    """

    paper: str
    text: str
    kind: Kind
    variant: str
    baseline: str = "plain"


RESIDUAL, DYNAMIC, PTP = "residual", "dynamic", "PTP"
PERTURBATIONS = ("noise", "masking", "ascent", "substitution")


def claims() -> Iterator[Claim]:
    """Yield the claims in the order of the papers."""
    yield Claim(RESIDUAL, "better than prompt tuning, from few rows", "mean", "residual")
    yield Claim(RESIDUAL, "steadier over seeds than prompt tuning", "spread", "residual")
    for rate in ("0.01", "1"):
        name = f"residual-rate-{rate}"
        text = f"works as well at a rate of {rate} as at its default, 0.1"
        yield Claim(RESIDUAL, text, "equal", name, "residual")
        text = f"better than prompt tuning at a rate of {rate}"
        yield Claim(RESIDUAL, text, "mean", name, f"plain-rate-{rate}")
    text = "works as well from random rows as from words"
    yield Claim(RESIDUAL, text, "equal", "residual-normal", "residual")
    text = "better than prompt tuning, both from random rows"
    yield Claim(RESIDUAL, text, "mean", "residual-normal", "plain-normal")
    text = "10 rows work as well as 100"
    yield Claim(RESIDUAL, text, "equal", "residual", "residual-100")
    yield Claim(DYNAMIC, "a position learned per task is better", "mean", "adap-pos")
    yield Claim(DYNAMIC, "a position learned per input is better", "mean", "adap-ins-pos")
    text = "a position per input is better than one per task"
    yield Claim(DYNAMIC, text, "mean", "adap-ins-pos", "adap-pos")
    yield Claim(DYNAMIC, "a length learned per task is better", "mean", "adap-len")
    yield Claim(DYNAMIC, "a length learned per input is better", "mean", "adap-ins-len")
    yield Claim(DYNAMIC, "a mixture of prompts per input is better", "mean", "adap-ins-vec")
    for name in ("adap-ins-vec-pos", "adap-pos-ins-vec"):
        yield Claim(DYNAMIC, f"{name} is better", "mean", name)
        text = f"{name} is better than its mixture alone"
        yield Claim(DYNAMIC, text, "mean", name, "adap-ins-vec")
    text = "a position per input makes residual rows better"
    yield Claim(DYNAMIC, text, "mean", "residual-dynamic", "residual")
    for base, what in (
        ("plain", "prompt tuning"),
        ("residual", "residual rows"),
        ("p-tuning-v2", "P-tuning v2"),
    ):
        for name in PERTURBATIONS:
            variant = f"{base}-{name}"
            yield Claim(PTP, f"{name} makes {what} steadier", "spread", variant, base)
            yield Claim(PTP, f"{name} makes {what} better", "mean", variant, base)


def main(arguments: Sequence[str]) -> None:
    """Keep what the folders have, and write the page."""
    for argument in arguments:
        folder = Path(argument)
        summary = json.loads((folder / "summary.json").read_text())
        about = json.loads(next(folder.glob("runs/*/config.json")).read_text())
        kept = {
            "cells": [_kept(cell) for cell in summary["cells"] if cell["scores"]],
            "versions": about["versions"],
            "backbone": about["config"]["backbone"]["name"],
            "dtype": about["dtype"],
        }
        (KEPT / f"{folder.name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    studies = {file.stem: json.loads(file.read_text()) for file in sorted(KEPT.glob("*.json"))}
    studies = dict(
        sorted(studies.items(), key=lambda one: (one[1]["backbone"] != "smollm2", one[0]))
    )
    text = [_head(), *_together([one["cells"] for one in map(studies.get, SAME) if one])]
    text += [line for name, kept in studies.items() for line in _study(name, kept)]
    for file in sorted(KEPT.glob("*.yaml")):
        text += ["", f"## `{file.name}`", "", "```yaml", file.read_text().rstrip(), "```"]
    PAGE.write_text("\n".join(text) + "\n")


def _kept(cell: Cell) -> dict[str, Any]:
    """Return what is kept of a cell."""
    fields = ("variant", "task", "seeds", "scores", "majority", "num_items", "seconds", "updates")
    own = {field: cell[field] for field in (*fields, *(["answers"] if "answers" in cell else []))}
    return {**own, "point": {}, "missing": [], "metric": cell["metric"]}


def _head() -> str:
    count = sum(1 for _ in claims())
    return f"""# What the three papers claim, and what holds

Claims of Residual Prompt Tuning (Razdaibiedina et al. 2023, arXiv 2305.03937), Dynamic Prompting (Yang et al. 2023, arXiv 2303.02909) and PTP (Chen et al. 2023, arXiv
2305.02423), held against runs on rows that nothing was chosen on. All methods have equal updates and their defaults, which [lie within about a point](choosing.md) of the best of three rates, and 2.1 points below it for a position per input. `difference` is the
variant's mean minus the other's, in points, averaged over the tasks; its 95 % interval is over seeds and items. `ratio` is the variant's
standard deviation over the other's, with the jackknife's 95 % interval over seeds. A claim is **confirmed** where the whole interval is on its side, **refuted** where the whole
interval is on the other side, and else *not decided*. "As good" means that they differ by no more than {100 * EQUAL:.0f} points: confirmed where the whole interval is within,
refuted where it is wholly outside. `could be seen` is the least difference that such a test shows in 80 of 100 studies of this size, or the ratio that an F-test of level 5 % calls other than 1.
Intervals are not corrected for their number: of {count} true "no difference" one in twenty would still be called.

Forty updates of 8 rows are few, above all on TREC: what differs here may not [after 200](updates.md).
`claims` and `claims-amx` are one recipe on the same rows and seeds, on a processor without AMX and on one with. They round sums in another order, and that moves a run as far as another seed does
(plain rows on subj, seed 1: 59.7 and 72.7), so the table below reads both together, seed by seed, with 95 % over the five seeds. `claims` keeps which rows each run answers rightly
([decision 0032](../decisions/0032-answers-are-kept.md)), so that its intervals are narrower. In `claims-amx`, which has about half of the variants, `stable` is what it was until
[decision 0031](../decisions/0031-a-rate-for-every-layer.md), plain rows from the instruction, and LoRA ran at 0.0002, at which it learns too little. With rates that were chosen alike, both are in [layers](layers.md).

Read together, a position per input is better than one per task, and improves a mixture and residual rows; a position per task is worse than none; no method is shown to be better than plain rows. In `claims`, where `stable` is
[what it is now](../methods/stable.md), it is 11.2 points above plain rows (95 % over seeds 4.4 to 17.9) and 4.4 above LoRA at 0.001 (0.9 to 7.9), and not shown to differ from rows in every layer that start as words (−0.6; −3.3 to 2.0).

Not tested here: that small models gain most (there is one language model), and that the loss becomes flatter on a language model ([on an encoder](ptp.md)). The picture
is of one seed and 16 training rows of subj: along the gradient of the inputs the loss rises to about 3.4 without PTP, 2.1 with noise and 1.3 with gradient ascent.

![Loss around a plain prompt, one trained with noise, and one trained with gradient ascent](figures/ptp-smollm2.svg)
"""


def _together(studies: Sequence[Sequence[Cell]]) -> Iterator[str]:
    """Write the differences of means that several studies of one recipe have, seed by seed."""
    yield "| paper | claim | variant | beside | " + " | ".join(SAME) + " | both |"
    yield "| --- | --- | --- | --- |" + " ---: |" * (len(SAME) + 1)
    for claim in claims():
        found = [_gaps(cells, claim) for cells in studies]
        seeds = sorted(set.intersection(*map(set, found)))
        if claim.kind == "spread" or len(seeds) < 2 or len(studies) < len(SAME):
            continue
        values = [[one[seed] for seed in seeds] for one in found]
        both = [fmean(pair) for pair in zip(*values, strict=True)]
        error = stdev(both) / math.sqrt(len(both)) * stats.t.ppf(0.975, len(both) - 1)
        ends = f"[{100 * (fmean(both) - error):+.1f}, {100 * (fmean(both) + error):+.1f}]"
        shown = " | ".join(f"{100 * fmean(one):+.1f}" for one in (*values, both))
        yield f"| {claim.paper} | {claim.text} | {claim.variant} | {claim.baseline} | {shown} {ends} |"
    yield ""


def _gaps(cells: Sequence[Cell], claim: Claim) -> dict[int, float]:
    """Return how far the variant is above the other by seed, over the tasks that have both."""
    scores = {
        (c["variant"], c["task"]): dict(zip(c["seeds"], c["scores"], strict=True)) for c in cells
    }
    tasks = [
        task for name, task in scores if name == claim.variant and (claim.baseline, task) in scores
    ]
    pairs = [(scores[claim.variant, task], scores[claim.baseline, task]) for task in tasks]
    seeds = (
        set.intersection(*(one.keys() & two.keys() for one, two in pairs)) if len(pairs) > 1 else ()
    )
    return {seed: fmean(one[seed] - two[seed] for one, two in pairs) for seed in seeds}


def _study(name: str, kept: Mapping[str, Any]) -> Iterator[str]:
    cells = kept["cells"]
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    minutes = sum(cell["seconds"] for cell in cells) / 60
    yield f"## {kept['backbone']}: {', '.join(tasks)}"
    yield ""
    yield (
        f"`{name}`, backbone in {kept['dtype']}, {max(cell['updates'] for cell in cells)} updates, "
        f"{minutes:.0f} minutes of run time; softprompts {kept['versions']['softprompts']}, torch "
        f"{kept['versions']['torch']}, transformers {kept['versions']['transformers']}."
    )
    yield ""
    yield "| paper | claim | variant | beside | seeds | found | could be seen | verdict |"
    yield "| --- | --- | --- | --- | ---: | ---: | ---: | --- |"
    rows = [_row(claim, cells) for claim in claims()]
    run = [row for row in rows if not row.endswith(NOT_RUN)]
    yield from run
    yield ""
    if len(run) < len(rows):
        yield f"{len(rows) - len(run)} of {len(rows)} claims have no runs in this study, others fewer seeds than its recipe has."
        yield ""
    yield "### Scores"
    yield ""
    yield "Percent: mean ± standard deviation over seeds."
    yield ""
    yield "| variant | " + " | ".join(f"{task} | seeds" for task in tasks) + " |"
    yield "| --- |" + " ---: | ---: |" * len(tasks)
    for variant in dict.fromkeys(cell["variant"] for cell in cells):
        own = {cell["task"]: cell for cell in cells if cell["variant"] == variant}
        yield f"| {variant} | " + " | ".join(_score(own.get(task)) for task in tasks) + " |"
    majorities = [next(c for c in cells if c["task"] == task)["majority"] for task in tasks]
    yield "| majority | " + " | ".join(f"{100 * m:.1f} |" for m in majorities) + " |"


def _score(cell: Cell | None) -> str:
    if cell is None:
        return "not run | 0"
    scores = [100 * score for score in cell["scores"]]
    mean = fmean(scores)
    spread = math.sqrt(sum((s - mean) ** 2 for s in scores) / max(len(scores) - 1, 1))
    return f"{mean:.1f} ± {spread:.1f} | {len(scores)}"


def _row(claim: Claim, cells: Sequence[Cell]) -> str:
    own = [c for c in cells if c["variant"] in (claim.variant, claim.baseline)]
    found = statistics_of(own, claim.baseline)["comparisons"] if own else []
    both = max(found, key=lambda c: len(c["tasks"]), default=None)
    start = f"| {claim.paper} | {claim.text} | {claim.variant} | {claim.baseline} "
    if both is None or both["difference"] is None:
        return f"{start}{NOT_RUN}"
    seeds = "+".join(str(n) for n in both["num_seeds"].values())
    values = _spread(both) if claim.kind == "spread" else _mean(both, claim.kind)
    return f"{start}| {seeds} | {' | '.join(values)} |"


def _mean(comparison: Cell, kind: Kind) -> tuple[str, str, str]:
    """Return the difference with its interval, what could be seen, and the verdict."""
    interval = comparison["interval_with_items"] or comparison["interval"]
    detectable = comparison["detectable_with_items"] or comparison["detectable"]
    shown = f"{100 * comparison['difference']:+.1f}"
    if interval is None:
        return shown, "", "not decided"
    low, high = interval
    if kind == "equal":
        is_confirmed, is_refuted = low >= -EQUAL and high <= EQUAL, low > EQUAL or high < -EQUAL
    else:
        is_confirmed, is_refuted = low > 0, high < 0
    shown += f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    seen = "" if detectable is None else f"{100 * detectable:.1f}"
    return shown, seen, _verdict(is_confirmed, is_refuted)


def _spread(comparison: Cell) -> tuple[str, str, str]:
    ratio, interval = comparison["std_ratio"], comparison["std_ratio_interval"]
    df = sum(n - 1 for n in comparison["num_seeds"].values())
    seen = f"{math.sqrt(stats.f.ppf(0.025, df, df)):.2f}" if df else ""
    if ratio is None or interval is None:
        return ("" if ratio is None else f"× {ratio:.2f}"), seen, "not decided"
    low, high = interval
    return f"× {ratio:.2f} [{low:.2f}, {high:.2f}]", seen, _verdict(high < 1, low > 1)


def _verdict(is_confirmed: bool, is_refuted: bool) -> str:
    return "**confirmed**" if is_confirmed else "**refuted**" if is_refuted else "not decided"


if __name__ == "__main__":
    main(sys.argv[1:])
