"""Write the rows on which defaults are chosen: training and held-out rows alone, none reported.

    python docs/results/write_choosing_rows.py DATA OUT

Reads two bundled tasks, `fewshot/subj` (splits 13 and 42) and SuperGLUE's CB below DATA, and writes
`OUT/<task>/train.jsonl`, from which few-shot samples are drawn, and `validation.jsonl`, on which
they are scored. Both are disjoint parts of what the tasks train and select on.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softprompts.examples import Example, TaskFormat
from softprompts.tasks.loading import load_task

NUM_SCORED = 120

SUBJ = "sentence: {text}\nThis sentence is"


def main() -> None:
    """Write every task's files: `text` as the language model reads it, `label` as it answers."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    for name, file in (
        ("sentiment", "bundled/sentiment"),
        ("question-type", "bundled/question-type"),
        ("cb", "superglue/cb"),
    ):
        task = load_task(file, data_dir=data if name == "cb" else None)
        rows = [_spelled(row, task.format) for row in task.train]
        random.Random(0).shuffle(rows)
        _write(out / name, rows[NUM_SCORED:], rows[:NUM_SCORED])
    for part, name in (("train", "train"), ("dev", "validation")):
        files = [data / f"fewshot/subj/{split}/{part}.jsonl" for split in (13, 42)]
        found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        rows = [{**row, "text": SUBJ.format(**row)} for row in found]
        _write(out / "subj", **{name: rows})


def _spelled(row: Example, format: TaskFormat) -> dict[str, str]:
    label = format.labels[row.answers[0]]
    text = format.templates["text"].format(**row.fields)
    return {"text": text, "label": format.verbalizer[label]}


def _write(folder: Path, train: Sequence[Any] = (), validation: Sequence[Any] = ()) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("validation", validation)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if rows:
            (folder / f"{name}.jsonl").write_text(text)


if __name__ == "__main__":
    main()
