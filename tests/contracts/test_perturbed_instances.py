"""Instance vectors of perturbed inputs: those of reading each of them by itself."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from contracts.conftest import covering, run_config, shares_of
from contracts.test_regularizers import config_of, member_of, ptp
from softprompts.errors import PromptError, RecipeError
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.training import objective
from softprompts.training.forward import score

PLACES = [
    ("bert", "linear"),
    ("bert", "cloze"),
    ("gpt2", "text"),
    ("t5", "text"),
    ("albert", "linear"),
]
NAMES = ("gaussian-noise", "masking", "gradient-ascent", "word-substitution")


def vector_of(backbone, batch, row, embeddings, kind):
    """Return the vector of one input, read alone, without padding, label tokens or prompt."""
    item = batch.items[row]
    size = len(item.ids) - item.num_continuation_tokens
    own = embeddings[row : row + 1, :size]
    if kind == "states":
        segments = torch.tensor([item.segments[:size]])
        own = backbone.read(own, torch.ones_like(segments), segments).last_hidden_state
    return own[0].mean(dim=0)


def watched_update(backbone, task, readout, regularizer, monkeypatch, instance="states"):
    """Return the parts that one update reads, and how often the backbone was read."""
    config = run_config(backbone, "adap-ins-vec-pos", readout, steps=1)
    data = config.model_dump(mode="json")
    data["prompt"]["instance"] = instance
    config = resolve(parse_run({**data, "regularizers": [regularizer]}))
    run = member_of(config, backbone, task)
    shares = shares_of(run, backbone)
    for share in shares:  # instance vectors of clean inputs are kept
        objective.instance_vectors(backbone, share.part.batch, instance)
    parts, reads, read = [], [], backbone.run_body
    with monkeypatch.context() as patch:
        patch.setattr(
            objective, "score", lambda b, given: (parts.extend(given), score(b, given))[1]
        )
        patch.setattr(backbone, "run_body", lambda *a, **k: (reads.append(1), read(*a, **k))[1])
        for share in shares:
            objective.accumulate(backbone, [share])
    gradient = torch.cat([p.grad.flatten() for p in run.model.parameters])
    return parts, len(reads), len(shares), gradient


@pytest.mark.parametrize(
    ("kind", "readout", "name", "instance"),
    covering([(*p, n, i) for p, n, i in product(PLACES, NAMES, ("states", "embeddings"))], 1),
)
def test_they_are_those_of_each_input_by_itself(
    tiny, task, kind, readout, name, instance, monkeypatch
):
    backbone = tiny(kind)
    regularizer = ptp(name, instances="perturbed")
    parts, *_ = watched_update(backbone, task, readout, regularizer, monkeypatch, instance)
    num_perturbed = 0
    for part in parts:
        if part.instances is None:
            assert part.embeddings is None or part.embeddings.requires_grad  # clean, or its probe
            continue
        num_perturbed += 1
        embeddings = part.embeddings.detach()
        for row in range(len(part.batch.ids)):
            with torch.no_grad():
                expected = vector_of(backbone, part.batch, row, embeddings, instance)
            torch.testing.assert_close(part.instances[row], expected, atol=2e-5, rtol=1e-4)
        assert not part.instances.requires_grad
    assert num_perturbed >= len(parts) / 2


@pytest.mark.parametrize("name", NAMES)
def test_they_cost_one_read_of_the_bare_backbone_and_are_looked_at(tiny, task, name, monkeypatch):
    found = {
        instances: watched_update(
            tiny("bert"), task, "linear", ptp(name, instances=instances), monkeypatch
        )
        for instances in ("clean", "perturbed")
    }
    parts, reads, num_shares, gradient = found["clean"]
    assert all(part.instances is None for part in parts)
    _, more, same, other = found["perturbed"]
    assert (same, more) == (num_shares, reads + num_shares)
    assert not torch.allclose(gradient, other, atol=1e-5)


@pytest.mark.parametrize("method", ["prompt-tuning", "adap-pos", "p-tuning-v2", "head-only"])
def test_they_are_refused_where_nothing_looks_at_them(method):
    recipe = {
        "backbone": {"name": "minilm"},
        "task": {"name": "bundled/sentiment"},
        "prompt": {"method": method},
        "regularizers": [ptp("masking"), ptp("gaussian-noise", instances="perturbed")],
    }
    with pytest.raises(
        RecipeError, match=r"`regularizers.1.instances` must be left out where .*, but is perturbed"
    ):
        parse_run(recipe)
    recipe["prompt"] = {"method": "adap-ins-pos"}
    assert parse_run(recipe)


def test_a_prompt_that_looks_at_nothing_is_refused_where_no_recipe_says_so(tiny, task):
    """A part of somebody else's may look at instance vectors or not; only it can tell."""
    run = member_of(
        config_of(tiny("bert"), "prompt-tuning", "linear", [ptp("gaussian-noise")]),
        tiny("bert"),
        task,
    )
    share = shares_of(run, tiny("bert"))[0]
    share.regularizers[0][1].has_own_instances = True
    with pytest.raises(PromptError, match=r"`instances` must be clean .*, but is perturbed"):
        objective.accumulate(tiny("bert"), [share])
