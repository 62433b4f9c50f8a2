"""Every method learns 32 texts by heart: a small model knows how to answer, a prompt how to ask."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

import softprompts as sp
from backbones import build
from contracts.conftest import run_config
from contracts.test_writing import FORMAT, METHODS, PRESETS
from softprompts.examples import Example
from softprompts.tasks.base import Task
from softprompts.training.execution import execute

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # the models are taught first

FORM = replace(FORMAT, templates={"writing": "{text}."}, metrics=("exact-match",))
THINGS = ("soup", "film", "room", "train", "bread", "walk", "book", "view")
PAIRS = [
    (f"the {thing} was {word}", f"a {word} {thing}")
    for thing in THINGS
    for word in ("cold", "late", "good", "long")
]
READOUT = {"kind": "writing", "max_new_tokens": 12}
RATES = {"prefix-tuning": 0.01}
"""Where 0.1 is too much; of prompt tuning on the encoder-decoder it is too little."""
TRAINED = [name for name in METHODS if PRESETS[name].is_trained]


def row(text, target):
    return Example({"text": text}, (0,), (), (target,), source=text)


def cued(text, cue, rng):
    """Return a text with other words around it, and a cue among these."""
    words = [rng.choice(("well", "then", "now", "oh", "here")) for _ in range(rng.randrange(4))]
    parts = [" ".join(words + [cue] * (rng.randrange(1, 4) if cue else 0)), text]
    if rng.random() < 0.4:
        parts.reverse()
    return " ".join(part for part in parts if part)


@pytest.fixture(scope="module", params=["llama", "t5"])
def backbone(request, tmp_path_factory):
    """Return a tiny model that writes what a text says where it is cued, and else one sentence."""
    rng = random.Random(0)
    rows = [row(cued(text, "so", rng), target) for text, target in PAIRS for _ in range(5)]
    rows += [row(cued(text, "", rng), "the rain") for text, _ in PAIRS for _ in range(3)]
    task = Task(FORM, tuple(rows), (), tuple(rows))
    folder = build(request.param, tmp_path_factory.mktemp("blank"))
    blank = sp.load_backbone(str(folder))
    schedule = {"kind": "cosine", "warmup_fraction": 0.1}
    training = {"steps": 700, "batch_size": 64, "backbone_learning_rate": 0.005}
    config = run_config(blank, "fine-tuning", READOUT, schedule=schedule, **training)
    outcome = execute(config, blank, task)
    assert outcome.result["score"] == 1.0
    folder = tmp_path_factory.mktemp("taught")
    outcome.model.backbone.model.save_pretrained(folder)
    blank.tokenizer.save_pretrained(folder)
    return sp.load_backbone(str(folder))


@pytest.mark.parametrize("method", TRAINED)
def test_texts_are_learned_by_heart(backbone, method):
    rows = tuple(row(text, target) for text, target in PAIRS)
    task = Task(FORM, rows, rows, rows)
    untrained = execute(run_config(backbone, "zero-shot", READOUT), backbone, task)
    assert untrained.result["score"] < 0.2
    rate = RATES.get(method, 0.1)
    if (backbone.family, method) == ("encoder-decoder", "prompt-tuning"):
        rate = 0.3
    training = {"learning_rate": rate, "selection": "held-out"}
    training |= {"steps": 240, "batch_size": 32, "num_evaluations": 6}
    if method in ("fine-tuning", "lora"):
        training["backbone_learning_rate"] = 0.003
    outcome = execute(run_config(backbone, method, READOUT, **training), backbone, task)
    assert outcome.result["metrics"] == {"exact-match": 1.0}
