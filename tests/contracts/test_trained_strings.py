"""Training reads right strings alone, where only their likelihood is in the loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from contracts.conftest import run_config, shares_of
from softprompts.readouts.text import TextReadout
from softprompts.recipes.schema import RunConfig
from softprompts.training.building import build_model
from softprompts.training.execution import encode_splits, make_member
from softprompts.training.journal import NoJournal
from softprompts.training.objective import accumulate
from softprompts.training.resources import Resources

LONG = {"bad": "so bad it is", "good": "rather good", "unsure": "hard to say"}


def member(backbone, task, regularizers=(), method="residual", **readout):
    data = run_config(backbone, method, "text").model_dump(mode="json")
    data["readout"] = {"kind": "text", **readout}
    config = RunConfig.model_validate({**data, "regularizers": list(regularizers)})
    model = build_model(config, backbone, task.format)
    splits = encode_splits(config, model, task, Resources())
    return make_member(config, model, splits, NoJournal())


def step(one):
    """Return loss and gradients of the first update, and the strings that it reads."""
    one.draw()
    shares = shares_of(one, one.backbone)
    losses = accumulate(one.backbone, shares)
    batches = [share.part.batch for share in shares]
    strings = [
        (int(batch.examples[i]), int(c))
        for batch in batches
        for i, c in zip(batch.targets.inputs, batch.targets.columns, strict=True)
    ]
    trained = [p for group in one.optimizer.param_groups for p in group["params"]]
    return sum(losses), [p.grad.clone() for p in trained], strings, batches


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
@pytest.mark.parametrize("method", ["residual", "adap-ins-vec-pos"])
def test_the_gradient_is_that_of_all_strings(tiny, task, monkeypatch, kind, method):
    backbone = tiny(kind)
    answers = [(0,), (1,), (0, 1)]
    rows = [replace(row, answers=answers[i % 3]) for i, row in enumerate(task.train)]
    some = replace(task, train=tuple(rows))
    found = step(member(backbone, some, method=method))
    monkeypatch.setattr(TextReadout, "trained_on", lambda self, encoded: encoded)
    whole = step(member(backbone, some, method=method))
    assert found[0] == pytest.approx(whole[0], rel=1e-5)
    for own, other in zip(found[1], whole[1], strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))
    assert len(found[2]) < len(whole[2])
    for batch in found[3]:
        for place, column in zip(batch.targets.inputs, batch.targets.columns, strict=True):
            assert batch.answers[batch.examples[place], column]


def test_a_decoder_does_not_read_what_wrong_strings_follow(tiny, task, monkeypatch):
    """Strings of several tokens are written after an input each."""
    backbone = tiny("gpt2")
    long = replace(task.format, verbalizer=LONG)
    one = member(backbone, replace(task, format=long))
    split = one.train[next(iter(one.train))]
    assert {len(encoded.inputs) for encoded in split.encoded} == {1}
    monkeypatch.setattr(TextReadout, "trained_on", lambda self, encoded: encoded)
    whole = member(backbone, replace(task, format=long))
    assert {len(encoded.inputs) for encoded in whole.train[next(iter(whole.train))].encoded} == {3}


def test_all_strings_are_read_where_they_are_compared(tiny, task):
    noise = {"kind": "ptp", "perturbation": {"kind": "gaussian-noise", "sigma": 0.5}}
    plain = step(member(tiny("t5"), task))[2]
    for one in (
        member(tiny("t5"), task, objective="ranking"),
        member(tiny("t5"), task, regularizers=[noise]),
    ):
        assert len(step(one)[2]) == 3 * len(plain)


def test_held_out_rows_keep_all_strings(tiny, task):
    rows = replace(task, train=task.train[:6])
    one = member(tiny("t5"), rows)
    readout = one.model.tracks[next(iter(one.model.tracks))].readout
    for encoded in map(readout.encode, task.validation):
        assert {target.column for item in encoded.inputs for target in item.targets} == {0, 1, 2}
