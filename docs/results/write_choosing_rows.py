"""Write the rows on which defaults are chosen, and apart from them those on which claims are tested.

    python docs/results/write_choosing_rows.py DATA OUT

Reads two bundled tasks, `fewshot/subj` (splits 13 and 42) and SuperGLUE's CB below DATA, and writes
`OUT/<task>/train.jsonl`, from which few-shot samples are drawn, and `validation.jsonl`, on which
they are scored. Both are disjoint parts of what the tasks train and select on, and none is reported.

`OUT/reported/subj` and `trec` hold what `claims.md` reports: training rows of the splits that
nothing is chosen on, from which each seed draws its own few, and the sets' test rows.
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
TREC = "Question: {text}\nThe answer is a"


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
    for name, template in (("subj", SUBJ), ("trec", TREC)):
        few = data / "fewshot" / name
        for folder, splits, scored in (
            (out / name, (13, 42), [few / f"{split}/dev.jsonl" for split in (13, 42)]),
            (out / "reported" / name, (21, 87, 100), [few / "test.jsonl"]),
        ):
            train = dict.fromkeys(_lines([few / f"{split}/train.jsonl" for split in splits]))
            held = _lines(scored)
            if folder == out / "trec":  # the others are as they were when defaults were chosen
                held = [line for line in held if line not in train]
            parts = [[json.loads(line) for line in lines] for lines in (train, held)]
            _write(folder, *([{**r, "text": template.format(**r)} for r in rows] for rows in parts))


def _lines(files: Sequence[Path]) -> list[str]:
    return [line for file in files for line in file.read_text().splitlines()]


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
