"""The walk of the docs, held to a run: files, lines, functions, and their order."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import softprompts
from softprompts.cli.main import main

SOURCE = Path(softprompts.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "how-it-works.md"
STEP = re.compile(r"^\d+\. \[`(.+?):(\d+)`\]\(\.\./src/softprompts/(.+?)\) `(.+?)`: .+[.?]$")


def steps():
    lines = [line for line in PAGE.read_text().splitlines() if line[:1].isdigit()]
    return [STEP.match(line) or line for line in lines]


def line_of(file, name):
    body, node = ast.parse((SOURCE / file).read_text()).body, None
    for part in name.split("."):
        node = next(one for one in body if getattr(one, "name", None) == part)
        body = node.body
    return node.lineno


def test_every_step_names_the_line_of_its_function():
    found = steps()
    assert len(found) > 25
    for step in found:
        assert not isinstance(step, str), step
        file, line, path, name = step.groups()
        assert path == file
        assert int(line) == line_of(file, name), f"{name} stands at {file}:{line_of(file, name)}"


def test_a_run_takes_the_steps_in_their_order(backbone_folder, data_dir, recipe, tmp_path):
    calls: list[tuple[str, str]] = []

    def note(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(SOURCE)):
            file = str(Path(code.co_filename).relative_to(SOURCE))
            calls.append((file, code.co_qualname))

    content = {
        "backbone": {"name": str(backbone_folder("gpt2"))},
        "task": {
            "name": "files",
            "data_dir": str(data_dir),
            "options": {"train": "train.jsonl", "validation": "val.jsonl", "template": "{text}"},
        },
        "readout": "text",
        "prompt": {"method": "residual", "length": 3},
        "training": {"steps": 2, "batch_size": 4, "num_evaluations": 1},
    }
    sys.setprofile(note)
    try:
        assert main(["train", recipe(content), "--out", str(tmp_path / "out")]) == 0
    finally:
        sys.setprofile(None)
    time = -1
    for step in steps():
        file, name = step.group(1), step.group(4)
        later = (t for t in range(time + 1, len(calls)) if calls[t] == (file, name))
        time = next(later, -1)
        assert time >= 0, f"{file} {name} is not called after the step before it"
