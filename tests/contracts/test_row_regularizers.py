"""Penalties on the rows themselves: their values, and that they pull where they say."""

from __future__ import annotations

import pytest
import torch

from contracts.conftest import shares_of
from contracts.test_regularizers import config_of, count_reads, member_of, trained
from softprompts.errors import RecipeError
from softprompts.recipes.parsing import parse_run
from softprompts.training import objective

BOTH = ("vocabulary-distance", "row-norm")


def written_out(backbone, rows, name):
    """Return what a penalty on these rows must be."""
    rms = backbone.embedding_rms
    if name == "row-norm":
        return float((rows**2).mean() / rms**2)
    table = backbone.embed(torch.arange(backbone.vocabulary_size))
    squares = (rows[:, None] - table[None]).square().mean(dim=-1)
    return float(squares.min(dim=1).values.mean() / rms**2)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5", "albert"])
@pytest.mark.parametrize("name", BOTH)
def test_values_are_those_of_the_formula(tiny, task, kind, name):
    backbone = tiny(kind)
    config = config_of(backbone, "residual", "linear", [{"kind": name}], batch_size=9)
    run = member_of(config, backbone, task)
    expected = written_out(backbone, run.model.bake(), name)
    assert expected > 0
    for share in shares_of(run, backbone):
        objective.accumulate(backbone, [share])
    (line,) = run.penalties.summary()["regularizers"]
    assert line["penalty"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("method", ["prompt-tuning", "adap-ins-vec-pos", "p-tuning-v2"])
def test_rows_are_pulled_and_no_forward_is_added(tiny, task, name, method, monkeypatch):
    if (name, method) == ("vocabulary-distance", "p-tuning-v2"):
        method = "split"
    counts = count_reads(monkeypatch)
    options = {"steps": 30, "learning_rate": 0.01}
    ends = []
    for weight in (0.0, 30.0):
        regularizers = [{"kind": name, "weight": weight}, {"kind": name, "weight": 1e-9}]
        records, _ = trained(tiny("bert"), task, method, "linear", regularizers, **options)
        ends.append(records[-1]["regularizers"][1]["penalty"])
    assert set(counts) == {1}
    assert ends[1] < 0.98 * ends[0]


def test_a_weight_of_zero_keeps_the_bits(tiny, task):
    idle = [{"kind": name, "weight": 0.0} for name in BOTH]
    _, plain = trained(tiny("bert"), task, "residual", "linear", [])
    _, state = trained(tiny("bert"), task, "residual", "linear", idle)
    assert all(torch.equal(state[key], plain[key]) for key in plain)


@pytest.mark.parametrize(
    ("name", "method", "reason"),
    [
        ("row-norm", "head-only", "there are no rows, but is 'row-norm'"),
        ("vocabulary-distance", "lora", "there are no rows, but is 'vocabulary-distance'"),
        ("vocabulary-distance", "p-tuning-v2", "no embeddings, but is 'vocabulary-distance'"),
    ],
)
def test_rows_that_are_not_there_are_refused(name, method, reason):
    recipe = {
        "backbone": {"name": "minilm"},
        "task": {"name": "bundled/sentiment"},
        "prompt": {"method": method},
        "regularizers": [{"kind": name}],
    }
    with pytest.raises(RecipeError, match=f"`regularizers.0` must be left out .*{reason}"):
        parse_run(recipe)
