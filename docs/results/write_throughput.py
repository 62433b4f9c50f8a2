"""Write the page on throughput and its figures from the committed results.

    python docs/results/write_throughput.py

Reads `benchmarks/results/throughput.json`, and `gpu.json` beside it where there is one; writes
`docs/results/throughput.md` and `docs/results/figures/throughput-*.svg`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from softprompts.lab.reports.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Panel,
    add_legend,
    save,
    stack,
    style,
)

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results" / "throughput.md"
FIGURES = PAGE.parent / "figures"
OURS, DEFAULT, BEST = "softprompts", "peft, default", "peft, best"
COLOURS = {OURS: BLUE, BEST: ORANGE, DEFAULT: GREY, "bare loop": GREEN}
LINES = {"pack": (BLUE, "-o"), "one by one": (GREY, "--s")}
LINES |= {OURS: (BLUE, "-o"), BEST: (ORANGE, "--s"), "bare loop": (GREEN, ":^")}
BUSY = 0.5
"""Load average per core, before a section began, from which its times are called disturbed."""

TARGETS = {
    ("minilm cb", DEFAULT): 9.0,
    ("minilm cb", BEST): 3.5,
    ("minilm rte", DEFAULT): 7.5,
    ("minilm rte", BEST): 2.5,
    ("bert-base cb", DEFAULT): 4.0,
    ("bert-base cb", BEST): 1.7,
    ("smollm2 cb", DEFAULT): 15.0,
    ("smollm2 cb", BEST): 4.0,
}
"""What training should reach, as a ratio."""
LEAST_SHARE, MOST_SECONDS = 0.55, 4.0
SHARES, SECONDS = {"smollm2 cb": 0.6}, {"smollm2 cb": 5.0}
"""What else is wanted of some cases."""

HEAD = """# Throughput

Made by `docs/results/write_throughput.py` from `benchmarks/results/throughput.json`, which `make
bench` makes anew.

Contestants take turns in one process, two to four updates each, so that a busy machine slows all of
them alike.

- `softprompts`: this library, `dtype: auto`.
- `peft, default`: prompt tuning of peft under the `Trainer` of transformers, by its defaults:
  float32, rows in random order, padded to the longest of the batch, 8 rows a batch when predicting.
- `peft, best`: the same with weights in bfloat16, rows grouped by length, no evaluation; rows
  sorted by length and 64 a batch when predicting. `peft, autocast` is `bf16=True` instead of
  weights in bfloat16.
- `bare loop`: a loop by hand in float32, padded batches, the model's default attention.

All get the same token ids. The trainer of transformers runs its own loop; every few updates its
callback lets the others do as many. Ratios are of real tokens per second over all rounds: how many
times faster than each other one `softprompts` is. In brackets, the median, least and most over four
blocks of rounds; they differ much where a contestant groups rows by length, since its blocks have
long or short rows. `limit` is the share of what products of two 2048 × 2048 matrices in our dtype
reach, which take turns with the others, over all rounds, and in brackets that of the median round,
by which the target goes: 4 operations per layer parameter and real token for training, 2 for
inference; padding, attention scores, embeddings and heads are not counted.

`minilm` and `smollm2` are the bundled backbones, the others have random weights in the shape of BERT-base,
T5-small and GPT-2-small, with tokenizers trained on the task's texts. Encoders and GPT-2 are classifiers for
all (peft: `SEQ_CLS`; ours: `linear`). T5 and `smollm2` write the answer: peft trains `SEQ_2_SEQ_LM` and
`CAUSAL_LM` on the right one, ours is the `text` readout, which scores the wrong ones too, but in training;
T5's decoder's own layers are not counted in its limit. `boolq` is the validation split, the only one that is at hand
whole.
"""


def main() -> None:
    """Write page and figures."""
    found, gpu = read()
    PAGE.write_text(page(found, gpu))
    for name, picture in pictures(found).items():
        (FIGURES / name).write_bytes(picture)


def read() -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the results, and those of an accelerator where there are any."""
    gpu = RESULTS / "gpu.json"
    found = json.loads((RESULTS / "throughput.json").read_text())
    return found, json.loads(gpu.read_text()) if gpu.exists() else None


def page(found: Mapping[str, Any], gpu: Mapping[str, Any] | None) -> str:
    """Return the page."""
    text = HEAD
    writers: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "training": _training,
        "inference": _inference,
        "scaling": _scaling,
        "memory": _memory,
        "startup": _startup,
    }
    for section, write in writers.items():
        if section in found:
            cases = {n: c for n, c in found[section]["cases"].items() if "skipped" not in c}
            text += f"\n## {section.capitalize()}\n\n{_about(found[section]['about'])}\n\n"
            text += write({**found[section], "cases": cases})
            apart: dict[str, list[str]] = {}
            for name, case in found[section]["cases"].items():
                text += f"\nSkipped: {name}, {case['skipped']}.\n" if "skipped" in case else ""
                if "about" in case:
                    apart.setdefault(_apart(case["about"]), []).append(name)
            text += "".join(
                f"\nBy itself: {', '.join(who)}, on {how}\n" for how, who in apart.items()
            )
    return text + (_gpu(gpu) if gpu else "")


def _apart(about: Mapping[str, Any]) -> str:
    """Return how a case was measured that was measured by itself."""
    return _about(about) + (f" {_rates(about)}" if "matrix_gflops" in about else "")


def _rates(about: Mapping[str, Any]) -> str:
    spelled = "; ".join(
        f"{dtype} " + ", ".join(f"{rate:.0f} with {n} thread(s)" for n, rate in by.items())
        for dtype, by in about["matrix_gflops"].items()
    )
    return f"Matrix rates in GFLOP/s: {spelled}."


def _about(about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    device = about.get("accelerator") or f"{about['processor']}, {about['cores']} cores"
    line = f"{device}, {about['threads']} threads, {about['dtype']}; {versions}."
    if about["load_average"] > BUSY * about["cores"]:
        line += (
            f" **The machine was busy** (load {about['load_average']} on {about['cores']} cores "
            "at the start): ratios are rough, times too long."
        )
    return line


def _training(section: Mapping[str, Any]) -> str:
    text = f"{_rates(section['about'])}\n\n"
    text += "![Share of the limit](figures/throughput-training.svg)\n\n"
    text += (
        "| case | contestant | examples/s | ms per update | limit | ratio | target | reached |\n"
    )
    text += "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |\n"
    for name, case in section["cases"].items():
        for who, figures in case["contestants"].items():
            target = TARGETS.get((name, who))
            if who == OURS:
                target = SHARES.get(name, LEAST_SHARE)
            share = figures.get("median_share", figures["limit_share"])
            value = share if who == OURS else case["ratios"][who]["whole"]
            shown = "" if target is None else f"{100 * target:.0f} %" if who == OURS else target
            text += (
                f"| {name} | {who} | {_speed(figures)} | {_ratio(case, who)} | {shown} | "
                f"{_verdict(target, value)} |\n"
            )
    sizes = {n: (c["batch_size"], c["rows"]) for n, c in section["cases"].items()}
    shown = "; ".join(f"{n} {size}, {rows} rows" for n, (size, rows) in sizes.items())
    return text + (f"\nBatches: {shown}.\n" if sizes else "")


def _inference(section: Mapping[str, Any]) -> str:
    text = "| case | contestant | examples/s | ms per pass | limit | ratio |\n"
    text += "| --- | --- | ---: | ---: | ---: | ---: |\n"
    for name, case in section["cases"].items():
        for who, figures in case["contestants"].items():
            text += f"| {name} | {who} | {_speed(figures)} | {_ratio(case, who)} |\n"
    return text


def _scaling(section: Mapping[str, Any]) -> str:
    text = "![Scaling](figures/throughput-scaling.svg)\n"
    for curve, found in section["cases"].items():
        points = found["points"]
        if "contestants" not in points[0]:
            text += f"\n| {curve} | seconds to encode | ms per update |\n| ---: | ---: | ---: |\n"
            for p in points:
                text += f"| {p['size']} | {p['encoding_seconds']} | {p['median_milliseconds']} |\n"
            continue
        names = list(points[0]["contestants"])
        text += f"\n| {curve} | " + " | ".join(f"{name}, examples/s" for name in names) + " |\n"
        text += "| ---: |" + " ---: |" * len(names) + "\n"
        for point in points:
            speeds = [f"{point['contestants'][n]['examples_per_second']:.1f}" for n in names]
            text += f"| {point['size']} | {' | '.join(speeds)} |\n"
    packs = section["cases"].get("runs in a pack")
    if packs:
        text += (
            f"\nRuns of a pack have {packs['points'][0]['batch_size']} examples an update; `one by "
            "one` does as many updates of one run.\n"
        )
    return text


def _memory(section: Mapping[str, Any]) -> str:
    text = (
        "Peak of a process that trains on the longest rows of the task, one process each: "
        "`peak` is its high-water mark (`VmHWM`, begun anew after loading), `added` what is beyond "
        "that which it held when all was loaded.\n\n"
        "| case | contestant | peak, MB | added, MB | times ours |\n"
        "| --- | --- | ---: | ---: | ---: |\n"
    )
    for name, case in section["cases"].items():
        for who, one in case["contestants"].items():
            times = "" if who == OURS else f"{case['ratios'][who]['whole']:.2f}"
            text += (
                f"| {name} | {who} | {one['peak_bytes'] / 1e6:.0f} | "
                f"{one['added_bytes'] / 1e6:.0f} | {times} |\n"
            )
    return text


def _startup(section: Mapping[str, Any]) -> str:
    cases = section["cases"]
    if not cases:
        return ""
    parts = list(next(iter(cases.values()))["cold"])
    text = (
        f"Seconds from the start to the first update, in fresh processes; at most "
        f"{MOST_SECONDS:.0f} are wanted of the warm one, 5 of `smollm2`, which finds what the "
        "cold one left on disk. Medians of runs in turns. `load weights` imports transformers, "
        "`tokenization` is a part of `to the first update`.\n\n"
    )
    text += f"| case | cache | {' | '.join(parts)} | reached |\n"
    text += "| --- | --- |" + " ---: |" * len(parts) + " --- |\n"
    for name, case in cases.items():
        for cache in ("cold", "warm"):
            seconds = " | ".join(f"{case[cache][part]:.2f}" for part in parts)
            most = SECONDS.get(name, MOST_SECONDS)
            is_met = "yes" if case[cache]["whole"] <= most else "no"
            text += f"| {name} | {cache} | {seconds} | {is_met if cache == 'warm' else ''} |\n"
    return text


def _gpu(gpu: Mapping[str, Any]) -> str:
    text = f"\n## Packs on an accelerator\n\n{_about(gpu['about'])} Matrix rate: "
    text += f"{gpu['matrix_gflops'] / 1000:.0f} TFLOP/s.\n\n"
    text += "| shape | runs | compiled | updates/s per run | updates/s | limit | peak, GB |\n"
    text += "| --- | ---: | --- | ---: | ---: | ---: | ---: |\n"
    for point in gpu["points"]:
        start = f"| {point['shape']} | {point['runs']} | {'yes' if point['is_compiled'] else 'no'}"
        if "reason" in point:
            text += f"{start} | {point['reason']} | | | |\n"
            continue
        text += (
            f"{start} | {point['updates_per_second_and_run']:.2f} | "
            f"{point['updates_per_second']:.1f} | {100 * point['limit_share']:.0f} % | "
            f"{(point['peak_bytes'] or 0) / 1e9:.1f} |\n"
        )
    return text


def _speed(figures: Mapping[str, float]) -> str:
    return (
        f"{figures['examples_per_second']:.1f} | {figures['median_milliseconds']:.0f} | "
        f"{_share(figures)}"
    )


def _share(figures: Mapping[str, float]) -> str:
    whole = f"{100 * figures['limit_share']:.0f} %"
    median = figures.get("median_share")
    return whole if median is None else f"{whole} ({100 * median:.0f})"


def _ratio(case: Mapping[str, Any], who: str) -> str:
    if who == OURS:
        return ""
    ratio = case["ratios"][who]
    blocks = f"{ratio['median']:.2f}, {ratio['least']:.2f}–{ratio['most']:.2f}"
    return f"{ratio['whole']:.2f} ({blocks})"


def _verdict(target: float | None, value: float) -> str:
    return "" if target is None else "yes" if value >= target else "no"


def pictures(found: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the figures by file name."""
    made = {}
    with style():
        if "training" in found:
            made["throughput-training.svg"] = save(_shares(found["training"]), "svg")
        if "scaling" in found:
            made["throughput-scaling.svg"] = save(_curves(found["scaling"]), "svg")
    return made


def _shares(section: Mapping[str, Any]) -> Any:
    """Return bars: the share of the limit, by case and contestant."""
    cases = {n: c["contestants"] for n, c in section["cases"].items() if "skipped" not in c}

    def draw(axes: Axes) -> None:
        names = list(COLOURS)
        for number, who in enumerate(names):
            places = [row + 0.19 * (number - 1.5) for row in range(len(cases))]
            shares = [
                100 * case[who]["limit_share"] if who in case else 0 for case in cases.values()
            ]
            axes.barh(places, shares, 0.17, color=COLOURS[who], label=who)
        axes.axvline(100 * LEAST_SHARE, color="black", linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(cases)), list(cases))
        axes.invert_yaxis()
        axes.set_xlabel("% of the matrix rate (dotted: wanted)")
        handles, _ = axes.get_legend_handles_labels()
        add_legend(axes, handles, "Training: share of the limit on real tokens", 2)

    return stack([Panel(0.55 * max(len(cases), 1) + 0.3, draw, 2, 1.1)], "Throughput", [])


def _curves(section: Mapping[str, Any]) -> Any:
    """Return one panel per curve: examples per second over one size."""
    panels = [
        Panel(1.5, _curve(name, case["points"]), 1)
        for name, case in section["cases"].items()
        if "skipped" not in case and "contestants" in case["points"][0]
    ]
    return stack(panels, "Throughput of training", ["minilm, RTE; one size changes at a time"])


def _curve(name: str, points: list[dict[str, Any]]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        sizes = [point["size"] for point in points]
        for who in points[0]["contestants"]:
            colour, line = LINES[who]
            speeds = [point["contestants"][who]["examples_per_second"] for point in points]
            axes.plot(sizes, speeds, line, color=colour, markersize=3.5, label=who)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("examples/s")
        handles, _ = axes.get_legend_handles_labels()
        add_legend(axes, handles, name, 3)

    return draw


if __name__ == "__main__":
    main()
