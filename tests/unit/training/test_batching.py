"""Orders, cuts and batches, by their properties."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from softprompts.encoding.inputs import EncodedExample, EncodedInput
from softprompts.training.batching import by_length, cut_by_length, epoch_order, update_indices


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3))
def test_every_epoch_sees_every_example_once(count, size, seed):
    per_epoch = -(-count // size)
    for epoch in range(2):
        seen = [
            i
            for step in range(epoch * per_epoch, (epoch + 1) * per_epoch)
            for i in update_indices(count, size, seed, step)
        ]
        assert sorted(seen) == list(range(count))
        assert seen == list(epoch_order(count, seed, epoch))


def test_orders_differ_by_epoch_and_seed():
    orders = {epoch_order(50, seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(1, 8), st.integers(0, 90))
def test_the_cut_is_the_cheapest_of_all(lengths, max_size, overhead):
    cuts = cut_by_length(lengths, max_size, overhead)
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


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 4)), min_size=1, max_size=7),
    st.integers(0, 90),
    st.integers(1, 300),
)
def test_the_bounded_cut_is_the_cheapest_that_keeps_the_bound(sizes, overhead, most):
    lengths, counts = zip(*sizes, strict=True)
    cuts = cut_by_length(lengths, 5, overhead, counts=counts, most_positions=most)
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


def example(length, inputs=1):
    item = EncodedInput((1,) * length, (0,) * length, (3,) * length, 0, length)
    return EncodedExample((item,) * inputs, 2, (0,), False)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 5)), max_size=40))
def test_evaluation_batches_hold_every_example_and_keep_their_limits(sizes):
    examples = [example(*size) for size in sizes]
    batches = by_length(examples, max_tokens=512, max_inputs=8)
    assert sorted(i for batch in batches for i in batch) == list(range(len(examples)))
    widths = [max(sizes[i][0] for i in batch) for batch in batches]
    assert widths == sorted(widths, reverse=True)
    for batch, width in zip(batches, widths, strict=True):
        inputs = sum(sizes[i][1] for i in batch)
        assert len(batch) == 1 or (inputs <= 8 and inputs * width <= 512)
