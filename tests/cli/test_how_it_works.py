"""The walk of the docs, held to a run: files, lines, functions, and their order."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
import torch

import softprompts
import softprompts as sp
from softprompts.cli.main import main

SOURCE = Path(softprompts.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "how-it-works.md"
STEP = re.compile(r"^\d+\. \[`(.+?):(\d+)`\]\(\.\./src/softprompts/(.+?)\) `(.+?)`: .+[.?]$")


@pytest.fixture(autouse=True)
def once_for_all_tests():
    """Nothing is taken from other tests: the page tells of a run that loads all it needs."""


def steps():
    lines = [line for line in PAGE.read_text().splitlines() if line[:1].isdigit()]
    return [STEP.match(line) or line for line in lines]


def line_of(file, name):
    body, node = ast.parse((SOURCE / file).read_text()).body, None
    for part in name.split("."):
        node = next(one for one in body if getattr(one, "name", None) == part)
        body = node.body
    return node.lineno


def counted(run):
    calls: list[tuple[str, str]] = []

    def note(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(SOURCE)):
            calls.append((str(Path(code.co_filename).relative_to(SOURCE)), code.co_qualname))

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


def test_every_step_names_the_line_of_its_function():
    found = steps()
    assert len(found) > 25
    for step in found:
        assert not isinstance(step, str), step
        file, line, path, name = step.groups()
        assert path == file
        assert int(line) == line_of(file, name), f"{name} stands at {file}:{line_of(file, name)}"


def test_a_run_takes_the_steps_in_their_order(backbone_folder, data_dir, recipe, tmp_path):
    content = {
        "backbone": {"name": str(backbone_folder("gpt2"))},
        "task": {
            "name": "files",
            "data_dir": str(data_dir),
            "options": {"train": "train.jsonl", "validation": "val.jsonl", "template": "{text}"},
        },
        "readout": "text",
        "prompt": {"method": "residual", "length": 3},
        "training": {"steps": 3, "batch_size": 4, "num_evaluations": 1},
    }
    command, codes = ["train", recipe(content), "--out", str(tmp_path / "out")], []
    calls = counted(lambda: codes.append(main(command)))
    assert codes == [0]
    _, second, third = [t for t, (_, name) in enumerate(calls) if name == "update_pack"]
    update = calls[second:third]
    assert len(update) <= 180
    files = {file for file, _ in update}
    assert len(files) <= 21
    assert len([file for file in files if not file.startswith("cli/")]) <= 20
    time = -1
    for step in steps():
        file, name = step.group(1), step.group(4)
        later = (t for t in range(time + 1, len(calls)) if calls[t] == (file, name))
        time = next(later, -1)
        assert time >= 0, f"{file} {name} is not called after the step before it"


@pytest.mark.parametrize("with_logits", [False, True])
def test_a_forward_and_backward_passes_few_functions(tiny, with_logits):
    config = sp.PromptConfig(method="prompt-tuning", length=4)
    model = sp.SoftPromptModel(tiny("gpt2"), config, with_logits=with_logits).train()
    ids = torch.arange(5, 21).view(2, 8)

    def step():
        output = model(ids, torch.ones_like(ids), labels=ids if with_logits else None)
        (output.loss if with_logits else output.last_hidden_state.square().mean()).backward()

    step()
    calls = counted(step)
    assert len(calls) <= (31 if with_logits else 24)
    assert len({file for file, _ in calls}) <= 8
