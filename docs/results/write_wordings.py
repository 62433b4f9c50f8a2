"""Measure how tasks may be worded for the text readout with nothing trained, and write the page.

    python docs/results/write_wordings.py DATA_DIR

Rows of train and, in FewGLUE, of `dev32` are read, never those that are reported. Figures are kept
in `wordings.json` by task and template; what is there is not measured again.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import softprompts as sp
from softprompts.encoding.tokenization import Tokenization
from softprompts.readouts.base import Setting
from softprompts.readouts.text import TextReadout
from softprompts.recipes.resolving import resolve_prompt
from softprompts.seeding import generator
from softprompts.training.evaluation import best_column, score_examples
from softprompts.training.prompt_building import build_prompt

PAGE = Path(__file__).parent / "wordings.md"
FIGURES = PAGE.with_suffix(".json")
MOST_ROWS, MOST_TOKENS = {"fewglue/multirc": 40}, 512
"""Rows that are read of a task, where that is not 160, and tokens of each."""
CLAIM = 'passage: {premise} claim: "{hypothesis}" does the claim follow?'
OTHERS = {
    "fewglue/boolq": "passage: {passage} question: {question}? answer:",
    "superglue/cb": CLAIM,
    "superglue/copa": "{premise} That is, {connective}",
    "fewglue/multirc": "passage: {passage} question: {question} proposed answer: {answer} "
    "is it right?",
    "fewglue/record": "{passage}\nFill the blank: {query_before}____{query_after}\nAnswer:",
    "superglue/rte": CLAIM,
    "fewglue/wic": "first: {sentence1} second: {sentence2} same meaning of {word}?",
    "fewglue/wsc": "passage: {marked} does #{span2_text}# stand for {span1_text}?",
    "bundled/sentiment": "{text}\nSentiment:",
    "bundled/entailment": "{premise}\nQuestion: Is it true that {hypothesis} Yes, no or maybe?\n"
    "Answer:",
    "bundled/question-type": "question: {text} answer type:",
}
"""The wording that each task's own was chosen against."""
LEFT_OUT = {("fewglue/record", "chat")}
"""Forms that are not measured."""
HEAD = """# Wordings

How the `text` readout asks, with `smollm2` in bfloat16 and nothing trained. Made by
`docs/results/write_wordings.py` on rows of train, and of `dev32` where FewGLUE has 32 rows; no row that is reported
elsewhere was looked at. Of two wordings whose scores do not differ by more than two standard errors, that one was chosen
whose labels are more probable together: prompts begin where the model already says one of them.

`score` is accuracy in percent, `labels` the probability that the model gives all label strings together, mean over rows.

| task | form | wording | score | labels | rows |
| --- | --- | --- | ---: | ---: | ---: |
"""
TAIL = """
Scores near the majority say that a model of this size does not know the task by itself. On SuperGLUE a chat makes
labels more probable and answers more alike: an instruct model this small tends to one of them. ReCoRD's chat,
with a dozen names a row, is not measured.
"""


def main(arguments: list[str]) -> None:
    """Measure what is missing and write the page."""
    (data_dir,) = arguments
    known: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    lines = []
    backbone: sp.Backbone | None = None
    for name, other in OTHERS.items():
        options = {} if name.startswith("bundled/") else {"data_dir": data_dir}
        task = sp.load_task(name, allow_missing_labels=True, **options)
        own = task.format.templates
        forms = {"plain, chosen": own["text"], "plain": other, "chat": own["chat"]}
        for form, wording in forms.items():
            if (name, form) in LEFT_OUT:
                continue
            found = known.setdefault(name, {})
            if wording not in found:
                backbone = backbone or sp.load_backbone("smollm2", dtype="bfloat16")
                found[wording] = measure(backbone, task, wording)
                FIGURES.write_text(json.dumps(known, indent=1) + "\n")
            lines.append(line(name, form, wording, found[wording]))
    PAGE.write_text(HEAD + "\n".join(lines) + "\n" + TAIL)


def line(name: str, form: str, wording: str, found: dict[str, Any]) -> str:
    """Return a row of the table."""
    shown = wording.replace("\n", "⏎").replace("|", "\\|")
    score, labels = 100 * found["accuracy"], found["labels"]
    return f"| {name} | {form} | `{shown}` | {score:.1f} | {labels:.3f} | {found['rows']} |"


def measure(backbone: sp.Backbone, task: sp.Task, wording: str) -> dict[str, Any]:
    """Return accuracy and the labels' total probability on training rows."""
    every, name = task.train + task.held_out, task.format.name
    rows = every[::3][:130] if name.startswith("bundled/") else every[: MOST_ROWS.get(name, 160)]
    own = replace(task.format, templates={"text": wording})
    tokenization = Tokenization(backbone, 0, MOST_TOKENS)
    readout = TextReadout(Setting(backbone, own, tokenization, generator(0, "wordings")))
    prompt = build_prompt(resolve_prompt(sp.PromptConfig(length=0)), backbone, (), 0)
    scores, _ = score_examples(backbone, prompt, readout, [readout.encode(row) for row in rows])
    right = [best_column(one) in row.answers for one, row in zip(scores, rows, strict=True)]
    total = sum(math.exp(value) for one in scores for value in one) / len(rows)
    return {"accuracy": sum(right) / len(rows), "labels": total, "rows": len(rows)}


if __name__ == "__main__":
    main(sys.argv[1:])
