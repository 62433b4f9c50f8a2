"""Which runs of a study train side by side."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompts.errors import StorageError
from softprompts.lab.studies import planning
from softprompts.lab.studies.planning import Pack, Plan, extend, make_packs
from softprompts.recipes.grid import Cell, expand
from softprompts.recipes.study import StudyConfig

BASE = {"backbone": {"name": "minilm", "device": "cpu"}, "task": {"name": "bundled/sentiment"}}
VARIANTS = {"plain": {}, "residual": {"prompt.method": "residual"}}


def cells_of(seeds=5, base=BASE, **more) -> tuple[Cell, ...]:
    return expand(StudyConfig(base=base, seeds=seeds, **{"variants": VARIANTS, **more}))


def many(cell):
    return 100


def sizes(packs):
    return [len(pack.runs) for pack in packs]


def test_auto_packs_the_seeds_of_a_variant_on_a_processor():
    cells = cells_of()
    packs = make_packs(cells, "auto", many)
    assert [pack.runs for pack in packs] == [
        tuple(cell.identity for cell in cells[:5]),
        tuple(cell.identity for cell in cells[5:]),
    ]


def test_auto_packs_whatever_may_share_on_an_accelerator():
    base = {**BASE, "backbone": {"name": "minilm", "device": "cuda"}}
    assert sizes(make_packs(cells_of(base=base), "auto", many)) == [10]


@pytest.mark.parametrize(
    ("pack_size", "most", "expected"),
    [
        (1, 100, [1] * 10),
        (4, 100, [3, 3, 4]),
        (20, 100, [10]),
        (20, 3, [2, 3, 2, 3]),
        (3, 0, [1] * 10),
    ],
)
def test_packs_are_as_large_as_asked_and_as_memory_holds(pack_size, most, expected):
    assert sizes(make_packs(cells_of(), pack_size, lambda cell: most)) == expected


def test_runs_that_cannot_share_a_forward_are_apart():
    variants = {
        "plain": {},
        "other": {"backbone.dtype": "bfloat16"},
        "cloze": {"readout": "cloze"},
        "lora": {"prompt.method": "lora"},
        "more": {"prompt.length": 3},
    }
    cells = cells_of(2, variants=variants)
    packs = make_packs(cells, 50, many)
    names = {cell.identity: cell.variant for cell in cells}
    found = [sorted(names[run] for run in pack.runs) for pack in packs]
    assert found == [
        ["more", "more", "plain", "plain"],
        ["other", "other"],
        ["cloze", "cloze"],
        ["lora"],
        ["lora"],
    ]


@given(st.integers(1, 12), st.integers(1, 15))
def test_every_run_is_in_one_pack_of_about_equal_size(seeds, pack_size):
    cells = cells_of(seeds)
    packs = make_packs(cells, pack_size, many)
    assert sorted(run for pack in packs for run in pack.runs) == sorted(c.identity for c in cells)
    assert max(sizes(packs)) <= pack_size
    assert max(sizes(packs)) - min(sizes(packs)) <= 1
    assert len(packs) == -(-2 * seeds // pack_size)
    places = {cell.identity: number for number, cell in enumerate(cells)}
    order = [places[run] for pack in packs for run in pack.runs]
    assert all(a < b for a, b in pairwise(order))


def grow(plan, cells, pack_size="auto", begun=()):
    return extend(plan, cells, pack_size, has_begun=lambda pack: pack.name in begun, most_runs=many)


def test_a_plan_stays_when_a_study_grows():
    first = grow(None, cells_of(3))
    assert sizes(first.packs) == [3, 3]
    assert grow(first, cells_of(3)) == first
    grown = grow(first, cells_of(5))
    assert sizes(grown.packs) == [3, 2, 3, 2]
    assert set(first.packs) < set(grown.packs)


def test_packs_with_runs_that_are_gone_are_made_anew():
    first = grow(None, cells_of([0, 1, 2]))
    shrunk = grow(first, cells_of([0, 2]))
    assert sizes(shrunk.packs) == [2, 2]
    assert not set(first.packs) & set(shrunk.packs)


def test_another_size_leaves_packs_that_have_begun():
    first = grow(None, cells_of(4))
    assert sizes(grow(first, cells_of(4), 2).packs) == [2, 2, 2, 2]
    kept = grow(first, cells_of(4), 2, begun={first.packs[1].name})
    assert sizes(kept.packs) == [2, 2, 4]
    assert kept.packs[2] == first.packs[1]
    assert kept.pack_size == 2


def test_a_plan_is_kept_as_it_is():
    plan = Plan("auto", (Pack(("a", "b")), Pack(("c",), is_apart=True)))
    assert Plan.from_json(plan.to_json(), "here") == plan
    assert Pack(("a", "b")).name != Pack(("b", "a")).name


@pytest.mark.parametrize("data", [{"packs": []}, {"pack_size": 1, "packs": [3]}])
def test_what_is_no_plan_is_refused(data):
    with pytest.raises(StorageError, match=r"packs.json must be a plan of packs, but is not: "):
        Plan.from_json(data, "packs.json")


def test_the_most_runs_of_auto_are_bound():
    assert max(sizes(make_packs(cells_of(20), "auto", many))) <= planning.MOST_RUNS["cpu"]
