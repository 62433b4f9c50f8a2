"""Cuts, by brute force."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from softprompts.backbones.cutting import cut_by_size


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(1, 8), st.integers(0, 90))
def test_the_cut_is_the_cheapest_of_all(lengths, max_size, overhead):
    cuts = cut_by_size(lengths, max_size, overhead)
    assert sorted(i for cut in cuts for i in cut) == list(range(len(lengths)))
    assert max(map(len, cuts)) <= max_size

    def cost(groups):
        return sum(len(group) * max(group) + overhead for group in groups)

    ordered = sorted(lengths, reverse=True)
    others = []
    for count in range(len(ordered)):
        for marks in combinations(range(1, len(ordered)), count):
            edges = [0, *marks, len(ordered)]
            groups = [ordered[a:b] for a, b in pairwise(edges)]
            if max(map(len, groups)) <= max_size:
                others.append(cost(groups))
    assert cost([[lengths[i] for i in cut] for cut in cuts]) == min(others)
