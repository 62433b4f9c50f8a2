"""The highest value in a ball, on functions where it is known."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import brentq

from softprompts.lab.analysis.curvature import Objective, ascend


def quadratic(slope, matrix, visited=None):
    """Return `g x + x H x / 2` of one block."""

    def gradients(change):
        if visited is not None:
            visited.append(change.clone())
        x = change[0]
        return (slope @ x + x @ matrix @ x / 2)[None], (slope + matrix @ x)[None]

    return Objective(lambda change: gradients(change)[0], gradients)


def highest(objective, size, radius, steps):
    first = objective.gradients(torch.zeros(1, size, dtype=torch.float64))
    limits = torch.tensor([radius], dtype=torch.float64)
    return float(ascend(objective, first, limits, steps))


@pytest.mark.parametrize("radius", [0.1, 2.0])
def test_along_the_top_direction_one_step_is_exact(radius):
    matrix = torch.diag(torch.tensor([3.0, 1.0, -2.0], dtype=torch.float64))
    slope = torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64)
    found = highest(quadratic(slope, matrix), 3, radius, steps=1)
    assert found == pytest.approx(0.5 * radius + 3.0 * radius**2 / 2, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_more_steps_find_the_highest_point_of_a_ball(seed):
    draws = torch.Generator().manual_seed(seed)
    root = torch.randn(6, 6, generator=draws, dtype=torch.float64)
    matrix, radius = root @ root.T, 0.7
    slope = torch.randn(6, generator=draws, dtype=torch.float64)

    def place(shift):
        return torch.linalg.solve(shift * torch.eye(6, dtype=torch.float64) - matrix, slope)

    top = float(torch.linalg.eigvalsh(matrix)[-1])
    shift = brentq(lambda s: float(place(s).norm()) - radius, top + 1e-9, top + 1e3)
    x = place(shift)
    known = float(slope @ x + x @ matrix @ x / 2)
    found = [highest(quadratic(slope, matrix), 6, radius, steps) for steps in (1, 3, 60)]
    assert found == sorted(found)
    assert found[0] < known
    assert found[-1] == pytest.approx(known, rel=1e-6)


def test_an_ascent_stays_in_its_ball_and_ends_at_its_edge():
    visited = []
    matrix = torch.diag(torch.tensor([4.0, -8.0], dtype=torch.float64))
    slope = torch.tensor([0.1, 1.0], dtype=torch.float64)
    highest(quadratic(slope, matrix, visited), 2, 1.5, steps=8)
    norms = [float(change.norm()) for change in visited]
    assert norms[0] == 0
    assert max(norms) <= 1.5 + 1e-12
    assert norms[1] == pytest.approx(1.5)


def test_where_every_step_leads_down_the_highest_point_is_the_start():
    slope = torch.tensor([1e-9, 0.0], dtype=torch.float64)
    matrix = -torch.eye(2, dtype=torch.float64)
    assert highest(quadratic(slope, matrix), 2, 1.0, steps=3) == 0.0


def test_blocks_have_balls_of_their_own():
    slopes = torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])

    def gradients(change):
        return (slopes * change).sum(dim=1), slopes

    objective = Objective(lambda change: gradients(change)[0], gradients)
    limits = torch.tensor([1.0, 10.0, 1.0])
    found = ascend(objective, gradients(torch.zeros(3, 2)), limits, 3)
    torch.testing.assert_close(found, torch.tensor([5.0, 20.0, 0.0]))
