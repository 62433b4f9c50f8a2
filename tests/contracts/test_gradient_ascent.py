"""Ascent stays in its ball, finds what random search does not, and leaves prompts alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch

from contracts.conftest import covering, shares_of
from contracts.test_regularizers import PLACES, config_of, member_of
from softprompts.encoding.batch import collate
from softprompts.encoding.inputs import EncodedExample
from softprompts.fast.reader import Ways
from softprompts.prompts.draws import Draws
from softprompts.regularizers.base import Inputs
from softprompts.regularizers.field_tokens import FieldTokens
from softprompts.regularizers.perturbations.gradient_ascent import GradientAscent
from softprompts.training import objective
from softprompts.training.forward import score


def share_of(backbone, task, readout, rows=None, perturbation=None, method="prompt-tuning"):
    """Return one share of the first update, of all rows or some."""
    regularizer = {"kind": "ptp", "perturbation": perturbation or "gradient-ascent"}
    config = config_of(backbone, method, readout, [regularizer], batch_size=9)
    run = member_of(config, backbone, task)
    share = shares_of(run, backbone)[0]
    encoded = run.train["custom"].encoded[:rows]
    batch = collate(encoded, backbone.tokenizer.pad_token_id)
    draws = Draws(0, 0, 0, batch.examples, batch.size)
    return replace(share, part=replace(share.part, batch=batch, draws=draws), weight=0.25)


def seen_of(backbone, share):
    """Return what the share's only regularizer sees, the clean gradient included."""
    reading = objective._prepare(backbone, share)
    objective._copies(backbone, [reading])
    scores = score(backbone, [reading.part])[0]
    part = reading.part
    if reading.probe is not None:
        (part.readout.loss(scores, part.batch).sum() * share.weight).backward()
    (number, one, _) = share.regularizers[0]
    return objective._seen(backbone, reading, scores, number, one, [])


def own_norms(inputs, perturbed, order):
    """Return each example's norm, its inputs counted once."""
    change = (perturbed.embeddings - inputs.embeddings).detach()
    assert not change[~inputs.fields.mask].any()
    norms = []
    for example in range(inputs.batch.size):
        rows = torch.where(inputs.batch.examples == example)[0]
        kept = [change[row][inputs.fields.mask[row]].flatten() for row in rows]
        longest = max(kept, key=len)
        for one in kept:
            torch.testing.assert_close(one, longest[: len(one)], atol=1e-6, rtol=0)
        norms.append(float(torch.linalg.vector_norm(longest, order)))
    return torch.tensor(norms)


@pytest.mark.parametrize(
    ("kind", "readout", "norm", "is_free", "steps"),
    covering(
        [
            (*place, *more)
            for place in PLACES
            for more in product(("l2", "linf"), (True, False), (1, 4))
        ]
    ),
)
def test_the_radius_holds_for_every_example(tiny, task, kind, readout, norm, is_free, steps):
    backbone = tiny(kind)
    perturbation = {
        "kind": "gradient-ascent",
        "norm": norm,
        "is_free": is_free,
        "steps": steps,
        "radius": 0.3,
        "step_size": 0.8,
    }
    seen = seen_of(backbone, share_of(backbone, task, readout, None, perturbation))
    options = {key: value for key, value in perturbation.items() if key != "kind"}
    found = GradientAscent(backbone, **options).perturb(seen.inputs, 0, seen)
    radius = 0.3 * backbone.embedding_rms
    if norm == "l2":
        sizes = seen.inputs.fields.counts * backbone.embedding_size
        limits, norms = radius * sizes.sqrt(), own_norms(seen.inputs, found, 2)
    else:
        limits = torch.full((seen.inputs.batch.size,), radius)
        norms = own_norms(seen.inputs, found, float("inf"))
    assert (norms <= limits * (1 + 1e-5)).all()
    assert (norms > 0.5 * limits).all()
    if steps == 1 and is_free:
        torch.testing.assert_close(norms, 0.8 * limits, rtol=1e-4, atol=0)
    assert found.changed.all()


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_ascent_raises_the_loss_and_touches_no_gradient_of_the_prompt(tiny, task, kind, norm):
    backbone = tiny(kind)
    share = share_of(backbone, task, "linear")
    seen = seen_of(backbone, share)
    parameters = [*share.part.prompt.parameters(), *share.part.readout.parameters()]
    for parameter in parameters:
        parameter.grad = None
    found = GradientAscent(backbone, radius=0.2, norm=norm).perturb(seen.inputs, 0, None)
    assert all(parameter.grad is None for parameter in parameters)
    assert not found.embeddings.requires_grad
    clean = seen.loss(seen.scores)
    assert (seen.loss(seen.forward(found.embeddings)) > clean).all()


@pytest.mark.parametrize(
    ("readout", "norm"),
    [
        ("linear", "l2"),
        pytest.param("linear", "linf", marks=pytest.mark.slow),
        pytest.param("cloze", "l2", marks=pytest.mark.slow),
        pytest.param("cloze", "linf", marks=pytest.mark.slow),
    ],
)
def test_ascent_finds_what_ten_thousand_random_points_do(tiny, task, readout, norm):
    """The points are on the same sphere; that of linf has its steepest ones in its corners."""
    backbone = tiny("bert")
    share = share_of(backbone, task, readout, rows=1)
    seen = seen_of(backbone, share)
    radius = 1.0
    ascent = GradientAscent(backbone, radius=radius, norm=norm, steps=20, step_size=0.3)
    found = ascent.perturb(seen.inputs, 0, seen)
    best = float(seen.loss(seen.forward(found.embeddings)).detach())
    one = seen.inputs.batch
    count, num_inputs = int(seen.inputs.fields.counts[0]), len(one.ids)
    limit = radius * backbone.embedding_rms
    generator = torch.Generator().manual_seed(3)
    losses = []
    for _ in range(20):
        points = torch.randn(500, count, backbone.embedding_size, generator=generator)
        if norm == "l2":
            limits = limit * (count * backbone.embedding_size) ** 0.5
            points *= limits / points.flatten(1).norm(dim=1)[:, None, None]
        else:
            points = limit * points.sign()
        losses.append(_losses(backbone, share, points, num_inputs))
    worst = float(torch.cat(losses).max())
    clean = float(seen.loss(seen.scores).detach())
    assert len(torch.cat(losses)) == 10_000
    assert worst > clean
    assert best >= 0.95 * worst
    assert best - clean >= 0.95 * (worst - clean)


@torch.no_grad()
def _losses(backbone, share, points, num_inputs):
    """Return the loss of one example at each of many points."""
    part = share.part
    answers = tuple(torch.where(part.batch.answers[0])[0].tolist())
    example = EncodedExample(part.batch.items, part.batch.valid.shape[1], answers, False)
    assert len(example.inputs) == num_inputs
    batch = collate([example] * len(points), backbone.tokenizer.pad_token_id)
    fields = FieldTokens.of(batch)
    embeddings = backbone.embed(batch.ids) + fields.spread(points)
    draws = Draws(0, 0, 0, batch.examples, batch.size)
    values = score(backbone, [replace(part, batch=batch, embeddings=embeddings, draws=draws)])[0]
    return part.readout.loss(values, batch)


def test_the_free_first_step_is_along_the_clean_gradient(tiny, task):
    backbone = tiny("bert")
    perturbation = {"kind": "gradient-ascent", "is_free": True, "steps": 1}
    share = share_of(backbone, task, "linear", None, perturbation)
    seen = seen_of(backbone, share)
    leaf = torch.zeros_like(seen.gradient, requires_grad=True)
    moved = seen.inputs.embeddings + seen.inputs.fields.spread(leaf)
    seen.loss(seen.forward(moved)).sum().backward()
    torch.testing.assert_close(seen.gradient, leaf.grad, atol=1e-6, rtol=1e-4)
    found = GradientAscent(backbone, is_free=True, steps=1).perturb(seen.inputs, 0, seen)
    change = (found.embeddings - seen.inputs.embeddings).flatten(1)
    direction = seen.inputs.fields.spread(leaf.grad).flatten(1)
    cosine = torch.nn.functional.cosine_similarity(change, direction)
    torch.testing.assert_close(cosine, torch.ones_like(cosine), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"steps": 3}, [1, 1, 1, 2]), ({"steps": 3, "is_free": True}, [1, 1, 1, 1])],
)
@pytest.mark.parametrize("consistency", ["ce", "kl"])
def test_forwards_are_as_many_as_promised(tiny, task, options, expected, consistency, monkeypatch):
    """A random start costs `steps + 2` reads, of which the last two share a forward."""
    backbone, reads, backs = tiny("bert"), [], []
    share = share_of(backbone, task, "linear", None, {"kind": "gradient-ascent", **options})
    backward, grad = torch.autograd.backward, torch.autograd.grad
    num_inputs = len(share.part.batch.ids)
    read = Ways.read_joint
    monkeypatch.setattr(
        Ways,
        "read_joint",
        lambda self, joint, below=(): (
            reads.append(len(joint.spliced.lengths)),
            read(self, joint, below),
        )[1],
    )
    monkeypatch.setattr(
        torch.autograd, "backward", lambda *a, **k: (backs.append(1), backward(*a, **k))[1]
    )
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: (backs.append(1), grad(*a, **k))[1])
    share.regularizers[0][1].consistency = consistency
    objective.accumulate(backbone, [share])
    assert reads == [count * num_inputs for count in expected]
    assert len(backs) == len(expected)


def test_random_starts_of_two_copies_differ_and_lie_in_the_ball(tiny, task):
    backbone = tiny("bert")
    inputs = seen_of(backbone, share_of(backbone, task, "linear")).inputs
    assert isinstance(inputs, Inputs)
    for norm in ("l2", "linf"):
        ascent = GradientAscent(backbone, norm=norm)
        limit = ascent._limit(inputs)
        starts = [ascent._start(inputs, copy, limit) for copy in (0, 1)]
        assert not torch.equal(*starts)
        for start in starts:
            order = 2 if norm == "l2" else float("inf")
            norms = torch.linalg.vector_norm(start.flatten(1), order, dim=1)
            assert ((norms > 0) & (norms <= limit.flatten() * 1.0001)).all()
            assert not start[~inputs.fields.own].any()


@pytest.mark.parametrize(
    ("kind", "readout", "method"),
    covering(
        [
            (*place, method)
            for place in PLACES
            for method in ("residual", "adap-ins-vec-pos", "adap-ins-len", "p-tuning-v2")
        ],
        1,
    ),
)
def test_what_is_held_reads_as_what_is_not(tiny, task, kind, readout, method):
    """Loss and gradient of the input are the same bits; the prompt emits once and gets none."""
    backbone = tiny(kind)
    share = share_of(backbone, task, readout, None, {"kind": "gradient-ascent"}, method)
    seen = seen_of(backbone, share)
    found, calls = [], []
    handle = share.part.prompt.register_forward_hook(lambda *_: calls.append(1))
    held_loss = objective._inputs(backbone, share.part).held_loss
    for read in (held_loss, lambda e: seen.loss(seen.forward(e))):
        for scale in (1.0, 1.3):
            leaf = (seen.inputs.embeddings * scale).requires_grad_()
            loss = read(leaf)
            found.append((loss, torch.autograd.grad(loss.sum(), [leaf], retain_graph=True)[0]))
    handle.remove()
    assert len(calls) == 1 + 2
    for one, other in zip(found[:2], found[2:], strict=True):
        assert torch.equal(one[0], other[0])
        torch.testing.assert_close(one[1], other[1], atol=1e-7, rtol=1e-5)
    parameters = [p for p in share.part.prompt.parameters() if p.requires_grad]
    grads = torch.autograd.grad(found[0][0].sum(), parameters, allow_unused=True)
    assert all(grad is None for grad in grads)
    grads = torch.autograd.grad(found[2][0].sum(), parameters, allow_unused=True)
    assert any(grad is not None and grad.any() for grad in grads)
