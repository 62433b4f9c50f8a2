"""What is said of a study's seeds beforehand is what its comparisons find conclusive afterwards."""

import re
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from softprompts.lab.analysis.comparisons import compare
from softprompts.lab.analysis.scores import ScoreTable, SeedScore
from softprompts.recipes.study_size import RATE, study_size


def cells(variants, tasks, seeds):
    names = product([f"v{n}" for n in range(variants)], [f"t{n}" for n in range(tasks)])
    return [
        SimpleNamespace(variant=v, task=t, config=SimpleNamespace(seed=s))
        for v, t in names
        for s in range(seeds)
    ]


def least_p(variants, tasks, seeds, lost=0):
    """The least corrected p that is found where each variant gains in all runs but `lost`."""
    runs = [
        SeedScore(c.variant, c.task, c.config.seed, 0.5 + 0.01 * int(c.variant[1:]))
        for c in cells(variants, tasks, seeds)
    ]
    for n in range(lost):
        at = next(i for i, r in enumerate(runs) if r.variant != "v0" and r.seed == n)
        runs[at] = SeedScore(runs[at].variant, runs[at].task, n, 0.4999)
    found = compare(ScoreTable(runs), "v0", np.random.default_rng(0))
    return min(c.p_adjusted for c in found if len(c.tasks) == tasks)


@pytest.mark.parametrize(
    ("variants", "tasks", "seeds"), list(product([2, 3, 5], [1, 2], [2, 3, 4, 5, 6, 7, 8, 9]))
)
def test_it_says_what_the_comparisons_could_find(variants, tasks, seeds):
    said = study_size(cells(variants, tasks, seeds))
    least = least_p(variants, tasks, seeds)
    pairs = seeds * tasks
    if pairs <= 14:
        assert least == pytest.approx(min(1, (variants - 1) * 2 ** (1 - pairs)))
    assert ("can show no difference" in said) == (least > RATE)
    found = re.search(r"(\d+) seeds can, where all agree", said)
    if found:
        fewest = int(found[1])
        assert seeds < fewest
        assert least_p(variants, tasks, fewest) <= RATE < least_p(variants, tasks, fewest - 1)
    assert ("where all runs agree" in said) == (least <= RATE < (variants - 1) * 2 ** (2 - pairs))


def test_one_seed_of_a_difference_is_not_agreement():
    assert "where all runs agree (corrected p 0.031)" in study_size(cells(2, 1, 6))
    assert least_p(2, 1, 6, lost=1) > RATE
    assert study_size(cells(2, 1, 7)) == "7 seeds and 1 comparison can show a difference"
    assert least_p(2, 1, 7, lost=1) <= RATE


def test_nothing_is_said_where_nothing_is_compared():
    assert study_size(cells(1, 2, 3)) == ""
    assert study_size(cells(2, 2, 3)[:-3]) == ""
    assert "1 seed and 1 comparison on 7 tasks can show no difference" in study_size(cells(2, 7, 1))
