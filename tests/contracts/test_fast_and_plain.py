"""The fast reader reads what the plain one reads, and the library does without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from contracts.conftest import UNTRAINED, run_config
from contracts.test_contracts import KEPT
from reads import forget_kept, shortcuts, ways
from softprompts.encoding.batch import collate
from softprompts.fast import READER
from softprompts.prompts.draws import Draws
from softprompts.prompts.prompt import Prompt
from softprompts.recipes.schema import RunConfig
from softprompts.training.building import build_model
from softprompts.training.execution import encode_splits, execute
from softprompts.training.forward import Part, ask, emit
from softprompts.training.reader import PlainReader
from softprompts.training.resources import Resources

WITHOUT = """
import json, sys, warnings

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("softprompts.fast"):
            raise ModuleNotFoundError(f"no {name}", name="softprompts.fast")

sys.meta_path.insert(0, Blocked())
from pathlib import Path
from softprompts.backbones.loading import load_backbone
from softprompts.recipes.parsing import parse_run
from softprompts.tasks.base import Example, Task, TaskFormat
from softprompts.training.execution import execute

given = json.loads(Path(sys.argv[1]).read_text())
tuples = ("labels", "metrics")
format = TaskFormat(**{k: tuple(v) if k in tuples else v for k, v in given["format"].items()})
rows = tuple(
    Example(row["fields"], answers=tuple(row["answers"]), source=row["source"])
    for row in given["rows"]
)
backbone = load_backbone(given["backbone"])
found = {}
for name, recipe in given["recipes"].items():
    outcome = execute(parse_run(recipe), backbone, Task(format, rows, (), rows))
    found[name] = [outcome.result["score"], outcome.model.bake().flatten().tolist()]
assert "softprompts.fast" not in sys.modules
print(json.dumps(found))
"""


def read(reader, backbone, model, batch):
    """Return scores of a batch in training, and the gradient of all that is trained."""
    draws = Draws(0, 2, 0, batch.examples, len(batch.examples))
    part = Part(model.prompt, model.readout, batch, draws)
    (values,) = reader.read(backbone, [ask(backbone, part, emit(backbone, part))])
    scores = model.readout.scores(model.readout.summary(values, batch), batch)
    loss = model.readout.loss(scores, batch).sum()
    trained = model.parameters if loss.requires_grad else []
    gradients = torch.autograd.grad(loss, trained, allow_unused=True) if trained else []
    return scores.detach(), [g for g in gradients if g is not None]


@pytest.mark.parametrize(("kind", "method", "readout"), KEPT)
def test_the_fast_reader_reads_what_the_plain_one_reads(tiny, task, kind, method, readout):
    config = run_config(tiny(kind), method, readout)
    model = build_model(config, tiny(kind), task.format)
    if method in UNTRAINED:
        encode_splits(config, model, task, Resources())  # demonstrations are chosen there
    encoded = [model.readout.encode(row) for row in task.train[:5]]
    batch = collate(encoded, model.backbone.tokenizer.pad_token_id)
    fast, plain = (read(one, model.backbone, model, batch) for one in (READER, PlainReader()))
    torch.testing.assert_close(fast[0], plain[0], atol=1e-5, rtol=1e-5)
    assert len(fast[1]) == len(plain[1])
    for own, other in zip(fast[1], plain[1], strict=True):
        assert (own - other).norm() <= 1e-4 * other.norm() + 1e-6


@pytest.mark.parametrize(("kind", "pool"), [("bert", "cls"), ("gpt2", "last"), ("llama", "last")])
def test_a_last_layer_that_is_cut_to_one_place_reads_the_same(tiny, task, kind, pool):
    backbone = tiny(kind)
    config = run_config(backbone, "prompt-tuning", {"kind": "linear", "pool": pool})
    model = build_model(config, backbone, task.format)
    encoded = [model.readout.encode(row) for row in task.train[:5]]
    batch = collate(encoded, backbone.tokenizer.pad_token_id)
    assert shortcuts(backbone).trims
    fast, plain = (read(one, backbone, model, batch) for one in (READER, PlainReader()))
    torch.testing.assert_close(fast[0], plain[0], atol=1e-5, rtol=1e-5)
    for own, other in zip(fast[1], plain[1], strict=True):
        assert (own - other).norm() <= 1e-4 * other.norm() + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "readout"), [("bert", "cloze"), ("gpt2", "text"), ("t5", "text")])
def test_a_library_without_the_fast_reader_trains(tiny, task, kind, readout, tmp_path):
    """Same scores and rows as with it, in a process that cannot import it."""
    backbone = tiny(kind)
    configs = {
        method: run_config(backbone, method, one)
        for method, one in (
            ("prompt-tuning", readout),
            ("p-tuning-v2", readout),
            ("adap-ins-pos", "linear"),
            ("head-only", "linear"),
        )
    }
    about = {
        "backbone": backbone.name,
        "format": asdict(task.format),
        "rows": [
            {"fields": dict(row.fields), "answers": row.answers, "source": row.source}
            for row in task.train
        ],
        "recipes": {name: config.model_dump(mode="json") for name, config in configs.items()},
    }
    (tmp_path / "given.json").write_text(json.dumps(about))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path / "given.json")],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name, config in configs.items():
        outcome = execute(config, backbone, replace_validation(task))
        score, rows = found[name]
        assert score == outcome.result["score"], name
        expected = outcome.model.bake().flatten()
        torch.testing.assert_close(torch.tensor(rows), expected, atol=1e-4, rtol=1e-4)


def replace_validation(task):
    """Return the task, whose training rows are reported too."""
    return type(task)(task.format, task.train, (), task.train)


@pytest.mark.parametrize(("kind", "method"), [("gpt2", "prompt-tuning"), ("bert", "p-tuning-v2")])
def test_nothing_is_kept_of_tokens_that_a_prompt_embeds_anew(tiny, task, kind, method, monkeypatch):
    """Rows behind the input, and rows in upper layers alone, would let keys or states be kept."""
    backbone = tiny(kind)
    data = run_config(backbone, method, "linear").model_dump(mode="json")
    if method == "prompt-tuning":
        data["prompt"]["position"] = {"kind": "fixed", "split": 0}
    else:
        data["prompt"]["depth"] = {"kind": "every-layer", "from_layer": 1}
    model = build_model(RunConfig.model_validate(data), backbone, task.format)
    encoded = [model.readout.encode(row) for row in task.train[:5]]
    batch = collate(encoded, backbone.tokenizer.pad_token_id)
    shift = torch.arange(backbone.embedding_size).float().cos().requires_grad_()
    monkeypatch.setattr(model.prompt, "changes_tokens", True)
    monkeypatch.setattr(
        Prompt, "embed", lambda self, table, ids, places: table + shift * (ids % 3)[..., None]
    )
    forget_kept()
    changed = [read(one, backbone, model, batch) for one in (READER, PlainReader())]
    assert ways(backbone).kept.num_read == 0
    torch.testing.assert_close(changed[0][0], changed[1][0], atol=1e-5, rtol=1e-5)
    monkeypatch.undo()
    assert not torch.allclose(read(READER, backbone, model, batch)[0], changed[0][0])
