"""The page that lies beside a fitted prompt, in the form of a model card."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from softprompts.lab.analysis.comparisons import difference_range
from softprompts.lab.fit.plan import becomes_words

_CARD = """---
library_name: softprompts
tags: [soft-prompt, prompt-tuning]
base_model: {backbone}
---
# A prompt for `{label}`

Trained by softprompts from {num_train} rows of `{source}`: {method} at a learning rate of
{rate:g}, {updates} updates, {size} seeds. It reads {fields} and answers one of {labels}.

| on {num_held_back} rows that were held back | {metric} | 95 % |
| --- | ---: | ---: |
| {size} prompts together (`ensemble/`) | {expected} |
| the best of them on other rows (`prompt/`) | {best} |
| one prompt, over seeds | {single} | |
{yardsticks}
The interval is Wilson's over rows: what to expect on new rows like these. The rows decided nothing.

{beside}
- {verdict}.
{remarks}
## Use

```bash
{commands}
```

All that was tried is in `fit.json`, the recipe in `study/study.json`, the report in
`study/report.html`.
"""


MOST = "majority"
NAMES = {
    "zero-shot": "the model untouched",
    "in-context": "the model shown up to {shown} answered rows",
    "head-only": "a head on the model untouched",
    MOST: "the most frequent label",
}
"""What needs no prompt, and what it is called."""


def _name(yardstick: Mapping[str, Any]) -> str:
    return NAMES[yardstick["method"]].format_map(yardstick)


def spread_of(scores: Mapping[str, Any]) -> str:
    """Return mean and standard deviation over seeds, in percent."""
    if scores["mean"] is None:
        return "no score"
    deviation = "" if scores["std"] is None else f" ± {100 * scores['std']:.1f}"
    return f"{100 * scores['mean']:.1f}{deviation}"


def above(yardstick: Mapping[str, Any]) -> str:
    """Say how far one prompt is above a yardstick on the same rows, in points."""
    gap = yardstick["above"]
    if gap is None:
        return "not known beside it"
    between = difference_range(yardstick["interval"])
    return f"{100 * abs(gap):.1f} {'above' if gap >= 0 else 'below'} it ({between})"


def verdict(yardsticks: Sequence[Mapping[str, Any]]) -> str:
    """Say whether a prompt was worth training, by 95 % intervals over rows."""
    ends = {_name(one): one["interval"] or (-1.0, 1.0) for one in yardsticks}
    better = [name for name, (_, high) in ends.items() if high < 0]
    unclear = [name for name, (low, _) in ends.items() if low <= 0]
    if better:
        return f"not worth training: {' and '.join(better)} shown to do better"
    if unclear:
        return f"not shown to be worth training: not shown to be above {' and '.join(unclear)}"
    return "worth training: shown to be above all that needs no prompt"


def expectations(about: Mapping[str, Any]) -> list[str]:
    """Return what to expect of fitted prompts, and whether they were worth training, by line."""
    low, high = (100 * end for end in about["expected"]["interval"])
    beside = [
        f"{_name(one)}: {spread_of(one)}; one prompt is {above(one)}" for one in about["yardsticks"]
    ]
    single = about["single"]
    return [
        f"{about['source']}: {about['label']} of {', '.join(about['fields'])}; "
        f"{about['num_train']} rows trained on, {about['num_held_back']} held back",
        f"expect on new rows: {100 * about['expected']['score']:.1f} % right, from {low:.1f} to "
        f"{high:.1f} (95 %)",
        f"one prompt, over {len(single['scores'])} seeds: {spread_of(single)}",
        *beside,
        verdict(about["yardsticks"]),
    ]


def card(about: Mapping[str, Any], folder: str) -> str:
    """Return the text of `README.md` of a folder."""
    remarks = "".join(f"\n- {remark}." for remark in about["remarks"])
    single = about["single"]
    said = {
        "updates": about["plan"]["updates"],
        "fields": ", ".join(f"`{name}`" for name in about["fields"]),
        "labels": ", ".join(f"`{label}`" for label in about["labels"]),
        "expected": _scored(about["expected"]),
        "best": _scored(about["best"]),
        "single": spread_of(single),
        "yardsticks": "".join(
            f"| {_name(one)} | {spread_of(one)} | |\n" for one in about["yardsticks"]
        ),
        "beside": "\n".join(
            f"- {_name(one).capitalize()}: one prompt is {above(one)}."
            for one in about["yardsticks"]
        ),
        "verdict": verdict(about["yardsticks"]).capitalize(),
        "size": len(single["scores"]),
        "remarks": f"{remarks}\n" if remarks else "",
        "commands": "\n".join(commands(folder, about)),
    }
    return _CARD.format(**{**about, **said})


def commands(folder: str, about: Mapping[str, Any]) -> list[str]:
    """Return what one may do with a fitted prompt, a command each."""
    folder = shlex.quote(folder)
    export = [f"softprompts export {folder}/prompt --to peft --out adapter"]
    if becomes_words(about["method"]):
        export = [
            f"softprompts export {folder}/prompt --to vocabulary --out model --gguf model.gguf",
            "llama-server -m model.gguf  # llama.cpp",
            "vllm serve model            # vLLM",
        ]
    return [
        f"softprompts try {folder}",
        f"softprompts predict {folder}/ensemble --input new.jsonl --output answers.jsonl  # rows "
        f"with {', '.join(about['fields'])}",
        *export,
    ]


def _scored(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{100 * found['score']:.1f} | {100 * low:.1f} to {100 * high:.1f}"
