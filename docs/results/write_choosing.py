"""Write the page on what defaults were chosen by, from the studies' folders.

    python docs/results/write_choosing.py docs/results/choosing.md STUDY...

Each study is one of `docs/results/choosing/*.yaml` on one task. Runs are read from their folders, so
that a study which is not finished shows what it has; lines of the page that none of them has stay.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from softprompts.recipes.sources import num_rows_of

FOLDERS = ("data", "fewshot", "choosing")
NUM_CELLS, DRAWN = 12, 16

HEAD = """# What defaults were chosen by

`smollm2`, readout `text` with the ranking loss, 8 rows per class (`trec 13`: 16), 40 updates of 8 rows, percent. All rows are training or held-out rows of
their tasks (`docs/results/write_choosing_rows.py`), so nothing here is selected on what any other page reports. The rate is in the unit of the
embeddings; residual rows × 0.01 are from before their LayerNorm went with the network, and had its gain move with the rows. Few seeds and few items: an error of five points is no surprise, so this says what to try, not what is so.

Read: the instruction with a cosine spreads less on all three tasks, and is better on two; on TREC, whose six answers it does not name as the task does, both the text and
the falling rate cost points. `trec 13` was looked at after TREC's [reported rows](stable.md) had shown a loss. Much of it came from ten rows that cut the instruction off in the midst of a list ("Say what the question asks for: a
description,"): with all 25 of its tokens `stable` gains 6 points there and 4 on question-type over ten (plain rows of 25 gain none on the latter). So since then its rows are as many as the tokens of the instruction; where
they are at most ten, as on subj and sentiment, nothing changed. The rest was the rate: a cosine from 0.1 goes half the way of a constant 0.1. From 0.2 `stable` has 62.0 ± 2.2 on TREC, random words
61.5 ± 4.9, so that there the text costs nothing; plain rows have 63.3 ± 1.3. On question-type it is level with a fifth of the spread (95.8 ± 0.7), on subj 3.5 points above 0.1 with a third of it (in float32),
on sentiment 1.5 below with more (0.1 was run in bfloat16 there): over the four tasks 1.1 points above, with a root mean square of spreads of 2.6 for 4.5. It did not hold: in the demo, with half the updates, seven seeds have
81.0 ± 5.5 from 0.2 and 84.4 ± 2.5 from 0.1, and on TREC's [reported rows](stable.md) it lost further. So the rate was left at 0.1. With the end of its line after the instruction (`line`) one of four seeds on subj stayed at chance at 0.2.
Rows in every layer, which [write](writing.md) far better than rows at the input, chose worse at the same rate: with the same three seeds 19 points below plain rows on subj, 14 on sentiment, and 2 above on TREC
(`bare`: without words around the question). The studies `better` and `deep` were stopped before their end. Label words as a start, and a rate of
0.3 without the instruction, are no better than `stable` as it was: in this text it is plain rows from the instruction with a cosine.

`drawn` has samples as large as the reported ones, 16 per class, of which each seed draws its own, from two splits whose other rows are scored (without those that
stand among the first). There the loss on TREC's reported rows does not show: with eight seeds (`behind.yaml`) `stable` is 2.4 points below plain rows on TREC, 6.7 above on subj, 1.3 above on sentiment and 0.8 below on
question-type, 1.2 above over the four, and steadier on each: 1.7 for 4.2, 5.1 for 8.9, 0.9 for 2.3 and 3.6 for 8.3. With five seeds neither the text, nor as many rows, nor the falling rate, nor
twice of it makes a difference beyond that, and no start or schedule is ahead on both tasks. One of five residual runs on TREC ended near chance, which on another processor none of the same five does (61.1 ± 1.8): so far does rounding go. Rows behind the input (`behind`), which
would let an ensemble read each input once, are no way out: on three of four tasks they are 5 to 7 points lower, and on two of them one seed of eight fails.

**Rows in every layer at a rate of their own** (`layers.yaml`, five seeds of `drawn`) are what all of this looked for. The rate of 0.1 was ten times too high: at 0.01 they have 74.6 on TREC, 85.0 on subj, 92.7 on
sentiment and 98.3 on question-type, 87.7 over the four, where plain rows have 80.6 (eight seeds, on another processor; ten have 81.0 below); at 0.02 86.8, at 0.03 86.6, so that the rate hardly matters from 0.01 to 0.03, and 0.003 is too low on TREC. From the instruction
it is 88.4 at 0.01 and 87.0 at 0.02; a cosine from 0.03 is level with a constant 0.03. On the encoder with a trained head (`layers-minilm.yaml`), over the four tasks: 82.4 at 0.01, 82.9 at 0.02, 83.5 at 0.03, 82.5 at 0.1; 0.3 ruins it; plain rows 83.7,
no rows 74.5. So the default of all rows in every layer is 0.02, within a point of the best on both, and `stable` is such rows from the instruction. Steadier or better by itself 0.01 was not: spreads (root mean squares over tasks) are 4.4 at 0.01
and 3.1 at 0.02 from the instruction, most of it from subj's 64 items. LoRA (`lora.yaml`) has 72.9 and 86.7 on TREC and subj at 0.001, 75.3 and 85.5 at 0.005 (four seeds), and 57.0 on TREC at 0.0002 (two seeds), which was its default; on the
encoder 79.2, 84.7 and 83.2 over the four tasks at 0.0002, 0.001 and 0.005: so 0.001 is its default now.

**Rows at the input, tuned alike** (`rates-alike.yaml`). Plain rows have 81.0 at 0.1 and 82.2 at 0.3 over the four tasks (ten seeds; root mean squares of spreads 4.3 and 6.9), and 80.5, 80.0 and 83.2 at 0.1, 0.2 and 0.3 with
five seeds, of which one at 0.2 fails on TREC; at 0.03, without sentiment, 76.1 for 76.3 at 0.1. So five seeds had 0.3 2.7 ahead, and ten half of that. Residual rows have 77.4, 77.5 and 75.2 over TREC, subj and question-type at 0.03, 0.1
and 0.3, where they spread twice as much; a position per input 68.6, 77.0 and 79.1. On the encoder, the same three: plain rows 84.3, 86.5 and 85.4; residual rows 84.4, 86.3 and 85.4; a position per input 82.1, 84.2 and 84.2. So
their default, 0.1, is the best of these for residual rows on both, for plain rows it is 1.2 below the best on `smollm2` and the best on the encoder, for a position per input 2.1 below and level. It stays: 0.3 costs plain rows 1.1 on
the encoder, residual rows 2.3 on `smollm2`, and spreads more. What plain rows have at 0.3 on reported rows is in [layers](layers.md): less than at 0.1, which was known when the default was left where it is.

**What makes `stable` differ from seed to seed** (`order.yaml`: five seeds on each of three samples, so that all start alike and learn from the same rows). The order of the rows alone spreads it by 2.9 on TREC and 3.4 on subj (roots of mean squares
over samples), about as much as other rows do besides: ten seeds with rows of their own spread by 1.4 and 4.9. A tail average, which should be rid of the last updates' noise, has 76.2 on TREC with 2.0 for 77.6 with 2.9, and on subj's first sample 81.2 with 5.3 for 79.4 with
3.7. An order in which the classes take turns (tried, not kept) has 76.9 with 2.6. So neither is a gain, and `stable` stays as it is; several prompts together are what [helps](../ensembles.md). A falling rate, more updates and PTP's noise were not run here.

Nor is it a leaning of each prompt to some classes, which could be taken off its scores afterwards (tried, not kept; three samples of TREC, subj, question-type and sentiment, five seeds each). Where a constant per class makes the mean probability of each class the share
that it has among the rows, scores rise from 86.7 to 88.4, but their spread is 3.2 for 2.9; where all classes are taken to be as frequent, 87.0 with 3.3. Half of that constant has 87.7 with 2.7, and Batch Calibration (Zhou et al. 2024, arXiv 2309.17249) 87.2 with 3.0.

| task | rows | start | length | rate | network | schedule | average | precision | score | seeds | items |
| --- | --- | --- | ---: | ---: | ---: | --- | --- | --- | ---: | ---: | ---: |
"""


def main(arguments: list[str]) -> None:
    """Write the page."""
    page, *studies = arguments
    found: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
    lines = {line[:-3]: f"| {' | '.join(line)} |\n" for line in _lines(Path(page))}
    for study in studies:
        for file in Path(study).glob("runs/*/result.json"):
            result = json.loads(file.read_text())
            content = json.loads(file.with_name("config.json").read_text())
            key = _line(content["config"], content["dtype"], file.parent)
            found.setdefault(key, {})[result["seed"]] = result
    lines |= {key: _row(key, list(results.values())) for key, results in found.items()}
    Path(page).write_text(HEAD + "".join(lines[key] for key in sorted(lines)) + _recipes())


def _lines(page: Path) -> list[tuple[str, ...]]:
    """Return the cells of the lines that a page has."""
    rows = [line[2:-2].split(" | ") for line in page.read_text().splitlines() if line[:2] == "| "]
    return [tuple(row) for row in rows[2:] if len(row) == NUM_CELLS]


def _line(config: Mapping[str, Any], dtype: str, folder: Path) -> tuple[str, ...]:
    """Return what a run is, as the table says it."""
    training, prompt = config["training"], config["prompt"]
    multiplier, start = training["network_rate_multiplier"], prompt["initializer"]
    options, kind = config["task"]["options"], prompt["rows"]["kind"]
    if prompt["depth"]["kind"] == "every-layer":
        kind = "every layer"
    elif prompt["position"]["kind"] == "instance":
        kind += ", a position per input"
    elif prompt["position"].get("split") == 0:
        kind = "behind"
    folders = [f for f in options["train"].split("/")[:-1] if f not in FOLDERS]
    if config["task"]["shots"] == DRAWN:
        folders.append("drawn")
    elif options["template"] == "{text}" and folders[0] == "trec":
        folders.append("bare")
    return (
        " ".join(folders),
        kind,
        "line" if (start.get("text") or "").endswith("\n") else start["kind"],
        str(num_rows_of(folder) if prompt["length"] == "text" else prompt["length"]),
        f"{training['learning_rate']:g}",
        "" if multiplier is None else f"× {multiplier:g}",
        training["schedule"]["kind"],
        (training.get("average") or {}).get("kind", ""),
        dtype,
    )


def _row(key: Iterable[str], results: list[dict[str, Any]]) -> str:
    scores = [100 * result["score"] for result in results]
    spread = f" ± {stdev(scores):.1f}" if len(scores) > 1 else ""
    items = results[0]["num_items"]
    cells = [*key, f"{fmean(scores):.1f}{spread}", str(len(scores)), str(items)]
    return "| " + " | ".join(cells) + " |\n"


def _recipes() -> str:
    folder = Path(__file__).with_name("choosing")
    files = sorted(folder.glob("*.yaml"))
    return "".join(
        f"\n## `{file.name}`\n\n```yaml\n{file.read_text().rstrip()}\n```\n" for file in files
    )


if __name__ == "__main__":
    main(sys.argv[1:])
