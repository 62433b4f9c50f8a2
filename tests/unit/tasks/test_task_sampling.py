from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompts.errors import DataError
from softprompts.examples import Example
from softprompts.tasks.formats import FORMATS
from softprompts.tasks.loading import load_task
from softprompts.tasks.sampling import (
    row_classes,
    sample_few_shot,
    sample_reported,
    split_held_out,
)

CB = FORMATS["superglue/cb"]
COPA = FORMATS["superglue/copa"]
RECORD = FORMATS["superglue/record"]


def rows(*counts: int) -> tuple[Example, ...]:
    """Rows of each class, interleaved, each with a text of its own."""
    made = [
        Example({"n": f"{column}-{index}"}, (column,))
        for column, count in enumerate(counts)
        for index in range(count)
    ]
    return tuple(sorted(made, key=lambda row: row.fields["n"].split("-")[::-1]))


def classes(part: tuple[Example, ...]) -> dict[int, int]:
    return dict(Counter(row.answers[0] for row in part))


def test_no_number_keeps_all() -> None:
    assert sample_few_shot(rows(2, 3), CB) == rows(2, 3)


def test_shots_per_class_keep_the_order() -> None:
    train = rows(9, 5, 7)
    sample = sample_few_shot(train, CB, shots=4, seed=3)
    assert classes(sample) == {0: 4, 1: 4, 2: 4}
    assert [row for row in train if row in sample] == list(sample)


def test_seeds_differ_and_repeat() -> None:
    train = rows(30, 30, 30)
    samples = [sample_few_shot(train, CB, shots=5, seed=seed) for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]


def test_the_draw_is_pinned() -> None:
    sample = sample_few_shot(rows(6, 6), CB, shots=2, seed=0)
    assert [row.fields["n"] for row in sample] == ["1-1", "1-2", "0-3", "0-5"]


def test_field_order_does_not_matter() -> None:
    train = tuple(replace(row, fields={"a": "x", **row.fields}) for row in rows(9, 9, 9))
    turned = tuple(replace(row, fields=dict(reversed(row.fields.items()))) for row in train)
    assert sample_few_shot(train, CB, shots=3) == sample_few_shot(turned, CB, shots=3)


@given(small=st.integers(2, 10), more=st.integers(0, 8), seed=st.integers(0, 50))
def test_smaller_samples_lie_inside_larger_ones(small: int, more: int, seed: int) -> None:
    train = rows(20, 18)
    for key in ("shots", "shots_total"):
        inner = sample_few_shot(train, CB, seed=seed, **{key: small})
        outer = sample_few_shot(train, CB, seed=seed, **{key: small + more})
        assert {id(row) for row in inner} <= {id(row) for row in outer}


@given(total=st.integers(3, 43), seed=st.integers(0, 50))
def test_total_has_every_class(total: int, seed: int) -> None:
    sample = sample_few_shot(rows(40, 2, 1), CB, shots_total=total, seed=seed)
    assert len(sample) == total
    assert set(classes(sample)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"shots": 3}, "is 3 and 'contradiction' has 2"),
        ({"shots": 0}, "`shots` must be at least 1, but is 0"),
        ({"shots_total": -1}, "`shots_total` must be at least 1, but is -1"),
        ({"shots_total": 12}, "at most the 11 training rows, but is 12"),
        ({"shots_total": 2}, "a row to each of 3 classes, but is 2"),
        ({"shots": 1, "shots_total": 2}, "both be given, but are 1 and 2"),
    ],
)
def test_impossible_numbers_are_refused(numbers: dict[str, int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        sample_few_shot(rows(5, 2, 4), CB, **numbers)


def test_copa_classes_are_the_right_columns() -> None:
    train = tuple(replace(row, choices=("a", "b")) for row in rows(4, 3))
    assert classes(sample_few_shot(train, COPA, shots=2)) == {0: 2, 1: 2}
    with pytest.raises(DataError, match="is 4 and 'choice 2' has 3"):
        sample_few_shot(train, COPA, shots=4)


def test_record_has_no_classes_but_a_total() -> None:
    train = tuple(
        Example({"n": str(n)}, (0, 1)[: 1 + n % 2], choices=("a", "b", "c")[: 2 + n % 2])
        for n in range(8)
    )
    assert row_classes(train) is None
    with pytest.raises(DataError, match=r"`shots` must be left out for superglue/record.*but is 2"):
        sample_few_shot(train, RECORD, shots=2)
    assert len(sample_few_shot(train, RECORD, shots_total=3)) == 3
    kept, held = split_held_out(train, 0.25, 0)
    assert (len(kept), len(held)) == (6, 2)


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=4).filter(lambda c: max(c) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 20),
)
def test_split_is_a_stratified_partition(counts: list[int], fraction: float, seed: int) -> None:
    train = rows(*counts)
    kept, held = split_held_out(train, fraction, seed)
    assert sorted(map(id, kept + held)) == sorted(map(id, train))
    assert list(kept) == [row for row in train if row in kept]
    assert set(classes(kept)) == set(range(len(counts)))
    for column, count in enumerate(counts):
        wanted = min(max(int(fraction * count + 0.5), 1), count - 1)
        assert classes(held).get(column, 0) == wanted


def test_split_depends_on_the_seed_only() -> None:
    train = rows(20, 20)
    first, again, other = (split_held_out(train, 0.3, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_a_class_with_a_single_row_stays_in_train() -> None:
    kept, held = split_held_out(rows(10, 1), 0.5, 0)
    assert (classes(kept), classes(held)) == ({0: 5, 1: 1}, {0: 5})


def grouped(*passages: int) -> tuple[Example, ...]:
    """Rows of passages with so many questions of two answers each, one right and one wrong."""
    return tuple(
        Example({}, (answer,), group=f"{passage}/{question}", source=f"{passage}-{question}")
        for passage, count in enumerate(passages)
        for question in range(count)
        for answer in (0, 1)
    )


@given(
    passages=st.lists(st.integers(1, 4), min_size=6, max_size=12),
    fraction=st.floats(0.2, 0.8),
    seed=st.integers(0, 20),
)
def test_passages_stay_whole(passages: list[int], fraction: float, seed: int) -> None:
    train = grouped(*passages)
    kept, held = split_held_out(train, fraction, seed)
    names = [{row.group.split("/")[0] for row in part} for part in (kept, held)]
    assert not names[0] & names[1]
    assert abs(len(held) - fraction * len(train)) <= 10
    assert set(classes(kept)) == {0, 1}


def test_one_passage_is_cut_between_questions() -> None:
    kept, held = split_held_out(grouped(6), 0.3, 0)
    assert (len(kept), len(held)) == (8, 4)
    assert not {row.group for row in kept} & {row.group for row in held}


@pytest.mark.parametrize("train", [rows(1, 1), rows(1), (), grouped(1)])
def test_nothing_to_hold_out_is_refused(train: tuple[Example, ...]) -> None:
    with pytest.raises(DataError, match=rf"but are {len(train)} rows in") as found:
        split_held_out(train, 0.5, 0)
    assert "set `training.selection` to last" in str(found.value)
    assert ("groups" in str(found.value)) == any(row.group for row in train)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_fraction_must_be_inside(fraction: float) -> None:
    with pytest.raises(DataError, match=rf"`fraction` must be in \(0, 1\), but is {fraction}"):
        split_held_out(rows(5, 5), fraction, 0)


def test_a_passage_with_all_rows_of_a_class_stays_in_train() -> None:
    train = tuple(
        Example({}, (column,), group=f"{passage}/0")
        for passage, column in [(0, 1), (0, 1), (0, 1), (1, 0), (2, 0), (3, 0)]
    )
    for seed in range(5):
        kept, held = split_held_out(train, 0.7, seed)
        assert (classes(kept), classes(held)) == ({0: 1, 1: 3}, {0: 2})


def test_the_held_out_draw_is_pinned() -> None:
    _, held = split_held_out(rows(6, 6), 0.3, 0)
    assert [row.fields["n"] for row in held] == ["1-2", "0-3", "1-4", "0-5"]


def test_reported_rows_are_drawn_once_and_groups_stay_whole() -> None:
    rows = tuple(
        Example({"text": str(i)}, answers=(0,), group=f"g{i // 3}" if i < 9 else "")
        for i in range(20)
    )
    drawn = sample_reported(rows, 7)
    assert sample_reported(rows, 7) == drawn
    assert 7 <= len(drawn) <= 9
    numbers = [int(row.fields["text"]) for row in drawn]
    assert numbers == sorted(numbers)
    for group in range(3):
        whole = set(range(3 * group, 3 * group + 3))
        assert whole & set(numbers) in (set(), whole)
    assert sample_reported(rows, None) == rows
    with pytest.raises(DataError, match=r"`num_items` must be 1 to the 20 rows .* but is 21"):
        sample_reported(rows, 21)


def test_a_task_keeps_as_many_reported_rows_whatever_the_seed() -> None:
    first, second = (load_task("bundled/sentiment", num_items=40, seed=seed) for seed in (0, 1))
    assert len(first.validation) == 40
    assert first.validation == second.validation
    assert first.origin["num_items"] == 40
    assert first.train == load_task("bundled/sentiment").train
