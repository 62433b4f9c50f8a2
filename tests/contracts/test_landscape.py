"""Surfaces of the loss around runs of every method, readout and family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from contracts.conftest import NAMED, UNTRAINED, YARDSTICKS, covering, run_config
from softprompts.backbones.backbone import Backbone
from softprompts.backbones.loading import load_backbone
from softprompts.encoding.template import Role
from softprompts.errors import PromptError
from softprompts.lab.analysis.curvature import Objective, ascend, hessian_product, lanczos
from softprompts.lab.analysis.subjects import Sample, Subject, batches_of
from softprompts.lab.analysis.surfaces import InputSurface, PromptSurface, outer_rows, with_rows
from softprompts.recipes.presets import METHODS as PRESETS
from softprompts.training.building import build_model
from softprompts.training.evaluation import score_examples

READOUTS = {"bert": ("linear", "cloze"), "t5": ("linear", "text"), "gpt2": ("linear", "text")}
WITHOUT_ROWS = ("head-only", *YARDSTICKS)
FEW = ("prompt-tuning", "p-tuning-v2", "adap-pos-ins-vec", *NAMED)
CELLS = [
    (kind, method, readout)
    for kind, readouts in READOUTS.items()
    for method in ((*PRESETS, *NAMED) if kind == "bert" else FEW)
    if method not in UNTRAINED
    for readout in readouts
    if method != "head-only" or readout == "linear"
]


def subject_of(backbone, task, method, readout, seed=0, **more):
    """Return a run in its first state, and the rows of a task."""
    config = run_config(backbone, method, readout).model_copy(update={"seed": seed})
    model = build_model(config, backbone, task.format)
    draws = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.track().readout.named_parameters():
            parameter.normal_(0.0, 0.5 if name == "weight" else 0.1, generator=draws)
    model.prompt.requires_grad_(False)
    model.readout.requires_grad_(False)
    encoded = [model.readout.encode(row) for row in task.train]
    batches = batches_of(encoded, model.backbone)
    about = {"folder": "run", "method": method, "seed": seed}
    subject = Subject(
        about, model.backbone, backbone.embedding_rms, model.track(), batches, Sample()
    )
    return subject, encoded


def scattered(point, seed=0, size=1.0):
    draws = torch.Generator().manual_seed(seed)
    return tuple(size * torch.randn(part.shape, generator=draws).to(part) for part in point)


def times(factor, point):
    return tuple(factor * part for part in point)


@pytest.mark.parametrize(("kind", "method", "readout"), covering(CELLS, 1))
def test_surfaces_are_those_of_the_run(tiny, task, kind, method, readout):
    subject, encoded = subject_of(tiny(kind), task, method, readout)
    track = subject.track
    _, known = score_examples(subject.backbone, track.prompt, track.readout, encoded)
    surfaces = [InputSurface] if method in WITHOUT_ROWS else [InputSurface, PromptSurface]
    for surface in [kind_of(subject) for kind_of in surfaces]:
        points = [surface.origin, *(scattered(surface.origin, seed, 0.2) for seed in range(2))]
        joint = surface.losses(points)
        _check_origin(surface, joint[0], known)
        alone = torch.cat([surface.losses([point]) for point in points])
        torch.testing.assert_close(joint, alone, atol=5e-5, rtol=1e-4)
        assert float((joint[1] - joint[2]).abs().max()) > 1e-4
        _check_slope(surface)


def _check_origin(surface, found, known):
    """Check that the loss at the origin is that of the run."""
    known = torch.tensor(known).double()
    torch.testing.assert_close(found.sort().values, known.sort().values, atol=2e-5, rtol=1e-4)
    losses, _ = surface.gradient(surface.origin)
    torch.testing.assert_close(losses, found, atol=2e-5, rtol=1e-4)


def _check_slope(surface):
    """Check that the slope along the gradient is its norm."""
    _, gradient = surface.gradient(surface.origin)
    norm = sum(float(part.square().sum()) for part in gradient) ** 0.5
    step = 2e-3 / max(norm, 1)
    points = [times(sign * step / norm, gradient) for sign in (1, -1)]
    ahead, behind = surface.losses(points).mean(dim=1).tolist()
    assert (ahead - behind) / (2 * step) == pytest.approx(norm, rel=0.03)


@pytest.mark.parametrize("method", WITHOUT_ROWS)
def test_a_run_without_rows_has_no_prompt_surface(tiny, task, method):
    subject, _ = subject_of(tiny("bert"), task, method, "linear")
    with pytest.raises(PromptError, match=rf"must have prompt rows.* method {method} has length 0"):
        PromptSurface(subject)


@pytest.mark.parametrize("method", ["prompt-tuning", "residual", "p-tuning-v2", "adap-ins-vec"])
def test_a_row_moves_by_its_own_length_and_the_run_stays(tiny, task, method):
    subject, _ = subject_of(tiny("bert"), task, method, "linear")
    surface, prompt = PromptSurface(subject), subject.track.prompt
    before = {name: value.clone() for name, value in prompt.state_dict().items()}
    point = scattered(surface.origin, size=0.1)
    moved = surface.part(point, 0).prompt.bake().flatten(0, -2)
    baked = prompt.bake().flatten(0, -2)
    lengths = torch.linalg.vector_norm(baked, dim=1)
    assert lengths.min() > 0
    torch.testing.assert_close(moved - baked, point[0] * lengths[:, None], atol=1e-5, rtol=1e-4)
    assert all(torch.equal(before[name], value) for name, value in prompt.state_dict().items())
    same = with_rows(prompt, [rows(None) for rows in outer_rows(prompt.pool)])
    assert torch.equal(same.bake(), prompt.bake())


def test_inputs_move_at_field_tokens_alone_and_by_the_radius(tiny, task):
    subject, _ = subject_of(tiny("bert"), task, "prompt-tuning", "linear")
    surface = InputSurface(subject)
    noise = surface.noise(torch.Generator().manual_seed(0))
    for number, batch in enumerate(subject.batches):
        part = surface.part(times(0.3, noise), number)
        change = part.embeddings - subject.backbone.embed(batch.ids)
        is_field = batch.roles == Role.FIELD
        assert not change[~is_field].any()
        for row in range(len(change)):
            rms = change[row][is_field[row]].square().mean().sqrt()
            torch.testing.assert_close(rms, torch.tensor(0.3 * subject.unit), atol=0, rtol=1e-4)


def test_all_inputs_of_an_example_move_together(tiny, choice_task):
    subject, _ = subject_of(tiny("bert"), choice_task, "prompt-tuning", "linear")
    surface = InputSurface(subject)
    noise = surface.noise(torch.Generator().manual_seed(0))
    batch = subject.batches[0]
    change = surface.part(noise, 0).embeddings - subject.backbone.embed(batch.ids)
    is_field = batch.roles == Role.FIELD
    first, second = torch.where(batch.examples == 0)[0][:2].tolist()
    torch.testing.assert_close(change[first][is_field[first]], change[second][is_field[second]])


@pytest.mark.parametrize("readout", ["linear", "cloze"])
def test_the_worst_change_of_a_radius_is_worse_than_random_ones(tiny, task, readout):
    subject, _ = subject_of(tiny("bert"), task, "prompt-tuning", readout)
    surface = InputSurface(subject)
    draws = torch.Generator().manual_seed(0)
    noises = [surface.noise(draws) for _ in range(5)]
    for number, spans in enumerate(surface.spans):
        objective = Objective(
            lambda change, number=number: surface.losses_of(change, number),
            lambda change, number=number: surface.gradient_of(change, number),
        )
        first = objective.gradients(surface.origin[number])
        worst = ascend(objective, first, 0.3 * spans, 4)
        for noise in noises:
            assert (worst > objective.values(0.3 * noise[number])).all()


def test_the_hessian_by_differences_is_that_of_autograd(backbone_folder, task):
    loaded = load_backbone(str(backbone_folder("bert")), attention="eager")
    backbone = Backbone(
        loaded.name, "encoder", loaded.model.double(), loaded.tokenizer, True, loaded.fingerprint
    )
    subject, _ = subject_of(backbone, replace(task, train=task.train[:3]), "split", "linear")
    surface = PromptSurface(subject)
    surface.rows, surface.norms = surface.rows.double(), surface.norms.double()
    origin = torch.zeros_like(surface.rows)

    def mean_loss(change):
        point = (change.view_as(origin),)
        numbers = range(len(subject.batches))
        losses = [surface.read([surface.part(point, number)])[0].sum() for number in numbers]
        return torch.stack(losses).sum() / 3

    known = torch.autograd.functional.hessian(mean_loss, origin.flatten())
    product = hessian_product(
        lambda change: surface.gradient((change.view_as(origin),))[1][0].flatten(), 0.01
    )
    vector = torch.randn(origin.numel(), generator=torch.Generator().manual_seed(0)).double()
    scale = float(known.abs().max())
    torch.testing.assert_close(product(vector) / scale, known @ vector / scale, atol=2e-3, rtol=0.0)
    values = torch.linalg.eigvalsh(known)
    found = lanczos(product, vector, 20)
    assert found.top == pytest.approx(float(values[-1]), rel=1e-3)
    assert found.bottom == pytest.approx(float(values[0]), rel=1e-3)
