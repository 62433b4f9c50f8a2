"""Planes, lines and paths around runs in their first state."""

from __future__ import annotations

import math

import pytest
import torch

from contracts.test_landscape import scattered, subject_of
from softprompts.errors import DataError, PromptError
from softprompts.lab.analysis.planes import (
    FINE,
    Grid,
    axis,
    directions_of,
    is_pair,
    look,
    path_between,
    slope_along,
    surface_of,
)

METHODS = ("prompt-tuning", "p-tuning-v2", "adap-pos-ins-vec")
SMALL = Grid(num_points=3, num_line_points=5, input_radius=0.02, prompt_radius=0.02)


@pytest.mark.parametrize("kind", ["gradient", "random"])
@pytest.mark.parametrize("space", ["input", "prompt"])
@pytest.mark.parametrize("method", METHODS)
def test_directions_are_orthogonal_and_as_long_as_their_spans(tiny, task, method, space, kind):
    subject, _ = subject_of(tiny("bert"), task, method, "linear")
    surface = surface_of(subject, space)
    found = zip(*directions_of(surface, kind), surface.spans, strict=True)
    for first, second, spans in found:
        for direction in (first, second):
            lengths = torch.linalg.vector_norm(direction.flatten(1), dim=1)
            torch.testing.assert_close(lengths, spans, atol=0, rtol=1e-4)
        products = (first * second).flatten(1).sum(dim=1) / spans**2
        assert float(products.abs().max()) < 1e-4


@pytest.mark.parametrize("space", ["input", "prompt"])
@pytest.mark.parametrize("method", METHODS)
def test_a_plane_has_the_run_at_its_middle_and_the_gradient_along_its_first_axis(
    tiny, task, method, space
):
    subject, _ = subject_of(tiny("bert"), task, method, "linear")
    surface = surface_of(subject, space)
    losses, gradient = surface.gradient(surface.origin)
    found = look(subject, space, SMALL)
    assert found["loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert found["losses"][1][1] == found["loss"]
    assert found["lines"]["first"][2] == pytest.approx(found["loss"], rel=1e-5)
    pairs = zip(gradient, surface.spans, strict=True)
    known = sum(
        float((torch.linalg.vector_norm(g.flatten(1), dim=1) * span).sum()) for g, span in pairs
    )
    assert found["slope"] == pytest.approx(known, rel=1e-4)
    told = []
    finer = Grid(num_points=5, num_line_points=9, input_radius=0.02, prompt_radius=0.02)
    more = look(subject, space, finer, lambda *one: told.append(one[1:]))
    for line, other in zip(found["losses"], more["losses"][::2], strict=True):
        assert other[::2] == pytest.approx(line, rel=1e-6)
    for name, line in found["lines"].items():
        assert more["lines"][name][::2] == pytest.approx(line, rel=1e-6)
    assert told == [(0, 33), (16, 33), (32, 33), (33, 33)]  # 25 of the plane, 4 more of each line
    fine = look(
        subject, space, Grid(num_points=3, num_line_points=3, input_radius=2e-4, prompt_radius=2e-4)
    )
    line = fine["lines"]["first"]
    assert (line[2] - line[0]) / 4e-4 == pytest.approx(known, rel=0.05)
    first, second = directions_of(surface, "gradient")
    assert abs(slope_along(surface, second)) < 1e-3 * known
    corner = tuple(0.02 * a - 0.02 * b for a, b in zip(first, second, strict=True))
    assert found["losses"][0][2] == pytest.approx(float(surface.losses([corner]).mean()), rel=1e-5)


@pytest.mark.parametrize("space", ["input", "prompt"])
def test_a_first_picture_takes_one_gradient_and_the_points_of_its_plane(
    tiny, task, space, monkeypatch
):
    """Its lines are the middle row and column of the plane, and the fine one has all its points."""
    grid, fine = Grid(), Grid(**FINE)
    assert set(axis(1.0, grid.num_points)) <= set(axis(1.0, fine.num_points))
    assert set(axis(1.0, grid.num_line_points)) <= set(axis(1.0, fine.num_line_points))
    subject, _ = subject_of(tiny("bert"), task, "prompt-tuning", "linear")
    kind, gradients, told = type(surface_of(subject, space)), [], []
    real = kind.gradient
    monkeypatch.setattr(kind, "gradient", lambda *one: gradients.append(one) or real(*one))
    found = look(subject, space, grid, lambda *one: told.append(one[1:]))
    assert len(gradients) == 1
    assert told[-1] == (25, 25)
    middle = grid.num_points // 2
    assert found["lines"]["first"] == found["losses"][middle]
    assert found["lines"]["second"] == [line[middle] for line in found["losses"]]


def test_a_random_direction_is_that_of_its_seed_alone(tiny, task):
    subject, _ = subject_of(tiny("bert"), task, "prompt-tuning", "linear")
    first = look(subject, "prompt", Grid(num_points=3, num_line_points=3, directions="random"))
    again = look(subject, "prompt", Grid(num_points=3, num_line_points=3, directions="random"))
    uphill = look(subject, "prompt", Grid(num_points=3, num_line_points=3))
    assert first == again
    assert first["losses"] != uphill["losses"]
    assert abs(first["slope"]) < uphill["slope"]


@pytest.mark.parametrize(
    ("method", "readout"),
    [
        ("prompt-tuning", "linear"),
        ("residual", "cloze"),
        ("adap-ins-vec-pos", "linear"),
        ("p-tuning-v2", "linear"),
        ("head-only", "linear"),
    ],
)
def test_a_path_begins_and_ends_at_the_runs(tiny, task, method, readout):
    subjects = [subject_of(tiny("bert"), task, method, readout, seed)[0] for seed in (0, 1)]
    ends = []
    for subject in subjects:
        losses = surface_of(subject, "input").losses([surface_of(subject, "input").origin])
        ends.append(float(losses.mean()))
    found = path_between(*subjects, 5)
    assert found["shares"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert found["losses"][0] == pytest.approx(ends[0], rel=1e-4)
    assert found["losses"][-1] == pytest.approx(ends[1], rel=1e-4)
    assert ends[0] != pytest.approx(ends[1], rel=1e-3)
    rises = [
        loss - (1 - share) * ends[0] - share * ends[1]
        for share, loss in zip(found["shares"], found["losses"], strict=True)
    ]
    assert found["barrier"] == pytest.approx(max(rises), abs=1e-4)
    same = path_between(subjects[0], subjects[0], 3)
    assert same["losses"] == pytest.approx([ends[0]] * 3, rel=1e-4)


def test_a_path_of_a_head_alone_has_no_barrier(tiny, task):
    """The loss of a linear head is convex, and half way it is that of the mean head."""
    subjects = [subject_of(tiny("bert"), task, "head-only", "linear", seed)[0] for seed in (0, 1)]
    assert path_between(*subjects, 7)["barrier"] == pytest.approx(0.0, abs=1e-6)
    found = path_between(*subjects, 3)["losses"][1]
    one, other = (subject.track.readout for subject in subjects)
    with torch.no_grad():
        one.weight.copy_((one.weight + other.weight) / 2)
        one.bias.copy_((one.bias + other.bias) / 2)
    surface = surface_of(subjects[0], "input")
    assert found == pytest.approx(float(surface.losses([surface.origin]).mean()), rel=1e-5)


def test_a_path_leaves_the_runs_as_they_are(tiny, task):
    subjects = [subject_of(tiny("bert"), task, "residual", "linear", s)[0] for s in (0, 1)]
    modules = [part for one in subjects for part in (one.track.prompt, one.track.readout)]
    before = [{k: v.clone() for k, v in module.state_dict().items()} for module in modules]
    path_between(*subjects, 3)
    for module, state in zip(modules, before, strict=True):
        assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())


def test_runs_that_are_no_pair_are_refused(tiny, task):
    one, _ = subject_of(tiny("bert"), task, "prompt-tuning", "linear")
    other, _ = subject_of(tiny("bert"), task, "residual", "linear", 1)
    tuned = [subject_of(tiny("bert"), task, "fine-tuning", "linear", seed)[0] for seed in (0, 1)]
    assert is_pair(one, one)
    assert not is_pair(one, other)
    assert not is_pair(*tuned)
    one.about["task"] = other.about["task"] = "custom"
    text = r"prompt-tuning on custom, seed 0 and run is residual on custom, seed 1"
    with pytest.raises(DataError, match=text):
        path_between(one, other, 3)


def test_a_plane_of_rows_needs_rows(tiny, task):
    subject, _ = subject_of(tiny("bert"), task, "head-only", "linear")
    with pytest.raises(PromptError, match="length 0"):
        look(subject, "prompt", SMALL)
    assert math.isfinite(look(subject, "input", SMALL)["slope"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"spaces": ("sky",)}, "`spaces` must be some of input, prompt, but is sky"),
        ({"spaces": ("input", "input")}, "`spaces` must name each space once, but is input, input"),
        (
            {"num_points": 99999999999},
            "`num_points` must be odd, .* at most 1001, but is 99999999999",
        ),
        ({"spaces": ()}, "`spaces` must be some of input, prompt, but is empty"),
        ({"directions": "up"}, "`directions` must be one of gradient, random, but is 'up'"),
        ({"input_radius": 0.0}, r"`input_radius` must be more than 0, but is 0\.0"),
        ({"prompt_radius": math.inf}, "`prompt_radius` must be more than 0, but is inf"),
        ({"num_points": 4}, "`num_points` must be odd, at least 3 and at most 1001, but is 4"),
        (
            {"num_line_points": 1},
            "`num_line_points` must be odd, at least 3 and at most 1001, but is 1",
        ),
    ],
)
def test_grids_that_make_no_sense_are_refused(options, text):
    with pytest.raises(DataError, match=text):
        Grid(**options)


def test_a_change_of_both_axes_moves_all_inputs(tiny, task):
    subject, _ = subject_of(tiny("bert"), task, "prompt-tuning", "linear")
    surface = surface_of(subject, "input")
    moved = surface.losses([scattered(surface.origin)]) - surface.losses([surface.origin])
    assert (moved.abs() > 1e-5).all()
