"""A package of somebody else's adds parts of a prompt and regularizers, without a change here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from softprompts import entry_points
from softprompts.cli.main import main, verbs
from softprompts.errors import SoftPromptsWarning

ENTRY = """
from softprompts.registry import Entry, Option

SCALED = Entry(
    "scaled",
    "their_package.rows:ScaledRows",
    summary="rows times a trained number",
    version=3,
    options={"start": Option(float, 1.0, "the number before training", {"gt": 0.0})},
)
AVERAGE = Entry(
    "average",
    "their_package.rows:AveragePool",
    summary="the mean of several sets",
    options={"size": Option(int, 2, "number of sets", {"ge": 1})},
)
HALVES = Entry("halves", "their_package.rows:Halves", summary="half before, half behind")
"""
REGULARIZING_ENTRIES = """
from softprompts.registry import Entry, Option
from softprompts.regularizers.registry import WEIGHTING

SCALING = Entry(
    "scaling",
    "their_package.regularizing:Scaling",
    summary="embeddings times a number",
    version=4,
    options={"factor": Option(float, 1.5, "the number", {"gt": 0.0})},
)
CONFIDENCE = Entry(
    "confidence",
    "their_package.regularizing:Confidence",
    summary="the largest probability, squared",
    version=2,
    options={"power": Option(int, 2, "power of the probability", {"ge": 1}), **WEIGHTING},
)
"""
REGULARIZING = """
from typing import final

import torch

from softprompts.regularizers.base import Penalty, Perturbed, Regularizer
from softprompts.regularizers.perturbations.base import Perturbation


@final
class Scaling(Perturbation):
    def __init__(self, backbone, *, factor=1.5):
        super().__init__(backbone)
        self.factor = factor

    @property
    def is_idle(self):
        return self.factor == 1

    def perturb(self, inputs, copy, seen):
        is_field = inputs.fields.mask[..., None]
        moved = torch.where(is_field, inputs.embeddings * self.factor, inputs.embeddings)
        return Perturbed(moved, inputs.fields.counts > 0)


@final
class Confidence(Regularizer):
    needs_clean_graph = True

    def __init__(self, backbone, *, power=2, weight=1.0, warmup_steps=0):
        super().__init__(backbone, weight=weight, warmup_steps=warmup_steps)
        self.power = power

    def penalty(self, seen):
        largest = seen.scores.softmax(dim=1).max(dim=1).values
        return Penalty(largest**self.power, {"largest": largest.detach()})
"""
ROWS = """
from typing import final

import torch
from torch import nn

from softprompts.prompts.pools.base import Pool
from softprompts.prompts.positions.base import Placement, Position, anchors
from softprompts.prompts.rows.base import Rows


@final
class AveragePool(Pool):
    def __init__(self, sets, width, generator, *, size=2):
        super().__init__(sets, width, generator)
        self.sets = nn.ModuleList(sets)

    def bake(self):
        return torch.stack([rows(None) for rows in self.sets]).detach()

    def forward(self, batch, instances, draws):
        rows = torch.stack([rows(None) for rows in self.sets]).mean(0)
        return rows.expand(batch, -1, -1), None


@final
class Halves(Position):
    def __init__(self, length, width, generator):
        super().__init__(length, width, generator)

    def forward(self, edges, instances, draws):
        split = torch.full((edges.batch,), self.length // 2)
        return Placement(anchors(split, self.length, edges.start, edges.end))


@final
class ScaledRows(Rows):
    def __init__(self, initial, generator, *, start=1.0):
        super().__init__(initial, generator)
        self.weight = nn.Parameter(initial.clone())
        self.scale = nn.Parameter(torch.tensor(start))

    def forward(self, generator=None):
        return self.scale * self.weight
"""


@pytest.fixture
def run(tmp_path):
    """Lay the package out as an installed one, and return a function that runs a command."""
    place = tmp_path / "site"
    package, about = place / "their_package", place / "their_package-1.0.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    (package / "__init__.py").write_text("")
    (package / "entries.py").write_text(ENTRY)
    (package / "rows.py").write_text(ROWS)
    (package / "regularizing_entries.py").write_text(REGULARIZING_ENTRIES)
    (package / "regularizing.py").write_text(REGULARIZING)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[softprompts.rows]\nscaled = their_package.entries:SCALED\n"
        "[softprompts.pool]\naverage = their_package.entries:AVERAGE\n"
        "[softprompts.position]\nhalves = their_package.entries:HALVES\n"
        "[softprompts.perturbation]\nscaling = their_package.regularizing_entries:SCALING\n"
        "[softprompts.regularizer]\nconfidence = their_package.regularizing_entries:CONFIDENCE\n"
    )

    def call(*arguments):
        path = os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, "-m", "softprompts.cli.main", *arguments],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.mark.slow
def test_rows_of_an_installed_package_are_listed_checked_and_trained(
    run, tmp_path, backbone_folder
):
    listed = json.loads(run("list", "rows", "--json").stdout)["rows"]
    (entry,) = [item for item in listed if item["name"] == "scaled"]
    assert entry["version"] == 3
    assert entry["options"]["start"]["default"] == 1.0

    recipe = tmp_path / "run.yaml"
    recipe.write_text(
        f"backbone: {{name: {backbone_folder('bert')}}}\n"
        "task: {name: bundled/sentiment, max_tokens: 16}\n"
        "prompt: {length: 3, rows: {kind: scaled, start: 2.0}}\n"
        "training: {steps: 3, batch_size: 4, num_evaluations: 1}\n"
    )
    wrong = run("validate", str(recipe), "--set", "prompt.rows.start=-1")
    assert wrong.returncode == 2
    assert "`prompt.rows.start` must be greater than 0, but is -1" in wrong.stderr

    out = tmp_path / "out"
    trained = run("train", str(recipe), "--out", str(out), "--json")
    assert trained.returncode == 0, trained.stderr
    result = json.loads(trained.stdout)
    assert result["status"] == "finished"
    assert result["trainable_parameters"] == 3 * 32 + 1 + 2 * 32 + 2
    again = json.loads(run("evaluate", str(out), "--json").stdout)
    assert again["score"] == result["score"]

    parts = ("--set", "prompt.pool=average", "--set", "prompt.position=halves")
    whole = tmp_path / "whole"
    trained = run("train", str(recipe), "--out", str(whole), "--json", *parts)
    assert trained.returncode == 0, trained.stderr
    result = json.loads(trained.stdout)
    assert result["trainable_parameters"] == 2 * (3 * 32 + 1) + 2 * 32 + 2
    assert json.loads(run("evaluate", str(whole), "--json").stdout)["score"] == result["score"]


@pytest.mark.slow
def test_a_regularizer_and_a_perturbation_of_an_installed_package(run, tmp_path, backbone_folder):
    listed = json.loads(run("list", "regularizers", "--json").stdout)["regularizers"]
    assert {"ptp", "confidence"} <= {item["name"] for item in listed}

    recipe = tmp_path / "run.yaml"
    recipe.write_text(
        f"backbone: {{name: {backbone_folder('bert')}}}\n"
        "task: {name: bundled/sentiment, max_tokens: 16}\n"
        "prompt: {length: 3}\n"
        "regularizers:\n"
        "  - {kind: ptp, perturbation: {kind: scaling, factor: 2.0}}\n"
        "  - {kind: confidence, power: 1, weight: 0.5}\n"
        "training: {steps: 2, batch_size: 4, num_evaluations: 1}\n"
    )
    for right, wrong, reason in (
        ("factor: 2.0", "factor: -1", "perturbation.factor` must be greater than 0, but is -1"),
        ("power: 1", "power: 0", "`regularizers.1.power` must be at least 1, but is 0"),
    ):
        (tmp_path / "wrong.yaml").write_text(recipe.read_text().replace(right, wrong))
        found = run("validate", str(tmp_path / "wrong.yaml"))
        assert found.returncode == 2
        assert reason in found.stderr

    out = tmp_path / "out"
    trained = run("train", str(recipe), "--out", str(out), "--json")
    assert trained.returncode == 0, trained.stderr
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    updates = [line["regularizers"] for line in lines if "split" not in line]
    assert len(updates) == 2
    for scaled, confident in updates:
        assert scaled["changed"] == 1
        assert scaled["perturbation_norm"] > 0.5  # the embeddings' own size, about 1
        assert confident["penalty"] == pytest.approx(confident["largest"])
        assert 0.5 <= confident["largest"] <= 1
    again = json.loads(run("evaluate", str(out), "--json").stdout)
    assert again["score"] == json.loads(trained.stdout)["score"]


def test_a_package_adds_a_command(monkeypatch, capsys, tmp_path):
    (tmp_path / "their_command.py").write_text('def greet() -> None:\n    print("hello")\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [EntryPoint("greet", "their_command:greet", "softprompts.commands")]
    monkeypatch.setattr(entry_points, "entry_points", lambda: EntryPoints(points))
    assert main(["greet"]) == 0
    assert capsys.readouterr().out == "hello\n"
    (tmp_path / "their_ending.py").write_text("raise SystemExit(0)")
    points += [EntryPoint("bye", "their_ending:bye", "softprompts.commands")]
    text = r"'bye' of softprompts.commands must load to a verb, .* raises SystemExit: 0\."
    with pytest.raises(SoftPromptsWarning, match=text):  # which tests make an error
        verbs()
    points.pop()
    points += [EntryPoint("train", "their_command:greet", "softprompts.commands")]
    assert main(["greet"]) == 2
    assert "command name must be free, but 'train' is taken" in capsys.readouterr().err
    points[-1] = EntryPoint("study", "their_command:greet", "softprompts.commands")
    assert main(["greet"]) == 2
    assert "but 'study' is both softprompts.cli.study:study and" in capsys.readouterr().err


def test_an_interrupt_while_modules_load_is_one(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    code = "import sys; from softprompts.cli.start import start; sys.exit(start())"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)

    assert (found.returncode, found.stdout, found.stderr) == (130, b"", b"interrupted\n")
