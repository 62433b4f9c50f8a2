"""Planes through three seeds: every run is met where it is marked."""

from __future__ import annotations

import pytest
import torch

from contracts.test_landscape import subject_of
from softprompts.errors import DataError, PromptError
from softprompts.lab.analysis.landscapes import are_seeds, plane_through
from softprompts.lab.analysis.planes import blended_loss, path_between, surface_of
from softprompts.lab.analysis.surfaces import outer_rows


def seeds_of(tiny, task, method="prompt-tuning", readout="linear", seeds=(0, 1, 2)):
    return [subject_of(tiny("bert"), task, method, readout, seed)[0] for seed in seeds]


def own_loss(subject):
    surface = surface_of(subject, "input")
    return float(surface.losses([surface.origin]).mean())


def rows_of(subject):
    return torch.cat([rows(None).flatten() for rows in outer_rows(subject.track.prompt.pool)])


@pytest.mark.parametrize(
    ("method", "readout"),
    [
        ("prompt-tuning", "linear"),
        ("residual", "cloze"),
        ("adap-ins-vec-pos", "linear"),
        ("p-tuning-v2", "linear"),
    ],
)
def test_the_loss_at_the_marks_is_that_of_the_runs(tiny, task, method, readout):
    subjects = seeds_of(tiny, task, method, readout)
    own = [own_loss(subject) for subject in subjects]
    found = plane_through(subjects, 3)
    assert found["mark_losses"] == pytest.approx(own, rel=1e-4)
    assert len({round(loss, 3) for loss in own}) == 3


def test_distances_in_the_plane_are_those_between_rows(tiny, task):
    subjects = seeds_of(tiny, task)
    found = plane_through(subjects, 3)
    rows = [rows_of(subject) for subject in subjects]
    marks = [torch.tensor(mark) for mark in found["marks"]]
    unit = float((rows[1] - rows[0]).norm())
    for one, other in ((0, 1), (0, 2), (1, 2)):
        known = float((rows[one] - rows[other]).norm()) / unit
        assert float((marks[one] - marks[other]).norm()) == pytest.approx(known, rel=1e-4)
    assert found["distance"] == pytest.approx(unit / float(rows[0].norm()), rel=1e-5)
    assert found["marks"][2][1] > 0


def test_the_plane_holds_the_path_and_reaches_beyond_the_runs(tiny, task):
    subjects = seeds_of(tiny, task)
    found = plane_through(subjects, 3)
    low, high = found["x_axis"][0], found["x_axis"][-1]
    xs, ys = zip(*found["marks"], strict=True)
    assert (low, high) == pytest.approx(
        (min(xs) - 0.25 * (max(xs) - min(xs)), max(xs) + 0.25 * (max(xs) - min(xs)))
    )
    assert found["y_axis"][0] == pytest.approx(-0.25 * max(ys))
    assert [len(line) for line in found["losses"]] == [3, 3, 3]
    half = path_between(subjects[0], subjects[1], 3)["losses"][1]
    assert blended_loss(subjects, (0.5, 0.5, 0.0)) == pytest.approx(half, rel=1e-5)


def test_a_point_is_the_mixture_that_its_place_says(tiny, task):
    subjects = seeds_of(tiny, task)
    found = plane_through(subjects, 3)
    a, height = found["marks"][2]
    for row, y in enumerate(found["y_axis"]):
        for column, x in enumerate(found["x_axis"]):
            weights = (1 - (x - a * y / height) - y / height, x - a * y / height, y / height)
            loss = blended_loss(subjects, weights)
            assert found["losses"][row][column] == pytest.approx(loss, rel=1e-6)
    assert found["losses"][0][2] != pytest.approx(found["losses"][2][0], rel=1e-3)


def test_the_runs_stay_as_they_are(tiny, task):
    subjects = seeds_of(tiny, task, "residual")
    modules = [part for one in subjects for part in (one.track.prompt, one.track.readout)]
    before = [{k: v.clone() for k, v in module.state_dict().items()} for module in modules]
    plane_through(subjects, 2)
    for module, state in zip(modules, before, strict=True):
        assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())


def test_which_runs_span_a_plane(tiny, task):
    three = seeds_of(tiny, task)
    other = seeds_of(tiny, task, "residual", seeds=(2,))
    bare = seeds_of(tiny, task, "head-only")
    assert are_seeds(three)
    assert not are_seeds(three[:2])
    assert not are_seeds([*three[:2], three[1]])
    assert not are_seeds([*three[:2], *other])
    assert not are_seeds(bare)
    for subject in [*three, *other]:
        subject.about["task"] = "custom"
    with pytest.raises(DataError, match="must go through 3 runs, but is given 2"):
        plane_through(three[:2], 3)
    with pytest.raises(DataError, match=r"goes through run \(prompt-tuning .* run \(residual on"):
        plane_through([*three[:2], *other], 3)
    with pytest.raises(PromptError, match="prompt of method head-only has length 0"):
        plane_through(bare, 3)
    with pytest.raises(DataError, match=r"on one line .* the third lies .*e-\d+ beside"):
        plane_through([three[0], three[1], three[1]], 3)
    with pytest.raises(DataError, match="which are 0 apart"):
        plane_through([three[0], three[0], three[1]], 3)
