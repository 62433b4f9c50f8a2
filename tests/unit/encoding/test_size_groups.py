"""Cuts, by brute force."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from softprompts.encoding.batch import cut_by_size


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.integers(1, 8),
    st.integers(0, 90),
    st.none() | st.frozensets(st.integers(2, 8)).map({1}.union),
)
def test_the_cut_is_the_cheapest_of_all(lengths, max_size, overhead, allowed):
    cuts = cut_by_size(lengths, max_size, overhead, allowed=allowed)
    assert sorted(i for cut in cuts for i in cut) == list(range(len(lengths)))

    def is_allowed(group):
        return len(group) <= max_size and (allowed is None or len(group) in allowed)

    assert all(map(is_allowed, cuts))

    def cost(groups):
        return sum(len(group) * max(group) + overhead for group in groups)

    ordered = sorted(lengths, reverse=True)
    others = []
    for count in range(len(ordered)):
        for marks in combinations(range(1, len(ordered)), count):
            edges = [0, *marks, len(ordered)]
            groups = [ordered[a:b] for a, b in pairwise(edges)]
            if all(map(is_allowed, groups)):
                others.append(cost(groups))
    assert cost([[lengths[i] for i in cut] for cut in cuts]) == min(others)


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 4)), min_size=1, max_size=7),
    st.integers(0, 90),
    st.integers(1, 300),
)
def test_the_bounded_cut_is_the_cheapest_that_keeps_the_bound(sizes, overhead, most):
    lengths, counts = zip(*sizes, strict=True)
    cuts = cut_by_size(lengths, 5, overhead, counts=counts, most=most)
    assert sorted(i for cut in cuts for i in cut) == list(range(len(lengths)))

    def positions(group):
        return max(lengths[i] for i in group) * sum(counts[i] for i in group)

    def is_allowed(group):
        return len(group) == 1 or (len(group) <= 5 and positions(group) <= most)

    assert all(map(is_allowed, cuts))
    ordered = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    others = []
    for count in range(len(ordered)):
        for marks in combinations(range(1, len(ordered)), count):
            groups = [ordered[a:b] for a, b in pairwise([0, *marks, len(ordered)])]
            if all(map(is_allowed, groups)):
                others.append(sum(positions(group) + overhead for group in groups))
    assert sum(positions(cut) + overhead for cut in cuts) == min(others)
