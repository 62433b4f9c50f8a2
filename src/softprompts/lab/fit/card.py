"""The page that lies beside a fitted prompt, in the form of a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softprompts.lab.fit.plan import becomes_words

_CARD = """---
library_name: softprompts
tags: [soft-prompt, prompt-tuning]
base_model: {backbone}
---
# A prompt for `{label}`

Trained by softprompts from {num_train} rows of `{source}`: {method} at a learning rate of
{rate:g}, {updates} updates, five seeds. It reads {fields} and answers one of {labels}.

| on {num_held_back} rows that were held back | {metric} | 95 % |
| --- | ---: | ---: |
| five prompts together (`ensemble/`) | {expected} |
| the best of them on other rows (`prompt/`) | {best} |
| one prompt, over seeds | {single} | |
{untouched}| the most frequent label | {majority:.1f} | |

The interval is Wilson's over rows: what to expect on new rows like these. The rows decided nothing.
{remarks}
## Use

```bash
{commands}
```

All that was tried is in `fit.json`, the recipe in `study/study.json`, the report in
`study/report.html`.
"""


def card(about: Mapping[str, Any]) -> str:
    """Return the text of `README.md`."""
    untouched = about["untouched"]
    line = "" if untouched is None else f"| the model untouched | {100 * untouched:.1f} | |\n"
    remarks = "".join(f"\n- {remark}." for remark in about["remarks"])
    single = about["single"]
    said = {
        "updates": about["plan"]["updates"],
        "fields": ", ".join(f"`{name}`" for name in about["fields"]),
        "labels": ", ".join(f"`{label}`" for label in about["labels"]),
        "expected": _scored(about["expected"]),
        "best": _scored(about["best"]),
        "single": f"{100 * single['mean']:.1f} ± {100 * single['std']:.1f}",
        "untouched": line,
        "majority": 100 * about["majority"],
        "remarks": f"{remarks}\n" if remarks else "",
        "commands": "\n".join(commands("my-prompt", about)),
    }
    return _CARD.format(**{**about, **said})


def commands(folder: str, about: Mapping[str, Any]) -> list[str]:
    """Return what one may do with a fitted prompt, a command each."""
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
