"""Holm's correction is the closed test of Bonferroni's."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompts.errors import DataError
from softprompts.lab.analysis.comparisons import holm

P = st.floats(0, 1)


def closed(values):
    """Adjust by hand: the worst Bonferroni result of any set of tests with this one in it."""
    sets = [
        chosen
        for size in range(1, len(values) + 1)
        for chosen in itertools.combinations(range(len(values)), size)
    ]
    worst = {chosen: min(1, len(chosen) * min(values[i] for i in chosen)) for chosen in sets}
    return [max(worst[s] for s in sets if i in s) for i in range(len(values))]


@given(st.lists(P, max_size=6))
def test_holm_is_the_closed_test(values):
    assert holm(values) == pytest.approx(closed(values))


@given(st.lists(P, max_size=6), st.integers(0, 6))
def test_a_test_that_was_not_made_does_not_count(values, place):
    place = min(place, len(values))
    with_gap = [*values[:place], None, *values[place:]]
    found = holm(with_gap)
    assert found.pop(place) is None
    assert found == holm(values)


def test_a_p_that_is_none_is_refused():
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(DataError, match=rf"p must be in \[0, 1\], but is {wrong}"):
            holm([0.5, wrong])
