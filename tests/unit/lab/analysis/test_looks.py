"""Looks while seeds are added: over all ways that signs could go, few ever pass the bounds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from analysis_material import generator

from softprompts.lab.analysis.leading import closest, ranked
from softprompts.lab.analysis.permutations import (
    Looks,
    corrected_p,
    is_ever_over,
    least_p,
    sign_flip_test,
    smallest_p,
    ways_at,
)
from softprompts.recipes.study_size import RATE, next_look


def looks(*after, most):
    return Looks(tuple(range(most)), after, most)


def is_shown(differences, seen, signs, rate, **options):
    return is_ever_over(*ways_at(differences, seen, signs, **options), rate)


def share_shown(size, shown):
    """Return how many ways of signs are taken for a difference at a look; half of them mirror."""
    ways = [(1, *way) for way in itertools.product([1, -1], repeat=len(size) - 1)]
    return np.mean([shown(dict(enumerate(size * way))) for way in ways])


@pytest.mark.parametrize("after", [(6, 7, 8), (4, 8)])
@pytest.mark.parametrize("rate", [RATE, 0.3])
def test_no_more_ways_are_over_the_bounds_than_the_rate_allows(after, rate):
    size = generator(1).exponential(1, 8)
    seen = looks(*after, most=8)
    share = share_shown(size, lambda gaps: is_shown([gaps], seen, generator(), rate))
    assert 0 < share <= rate

    def at_each(gaps):  # the fault: each look has the whole rate
        few = ([gap for seed, gap in gaps.items() if seed < n] for n in after)
        return any(sign_flip_test([own], generator()).p <= rate for own in few)

    assert share_shown(size, at_each) > rate or (after, rate) == ((4, 8), RATE)


def test_p_is_the_least_rate_and_one_look_at_the_end_is_the_sign_flip_test():
    gaps = generator(2).normal(0.8, 1, 11)
    seen, by_seed = looks(6, 9, 11, most=14), [dict(enumerate(gaps))]
    p = corrected_p(by_seed, seen, generator())
    assert is_shown(by_seed, seen, generator(), p)
    assert not is_shown(by_seed, seen, generator(), p - 1e-4)
    assert least_p(by_seed, seen) <= p
    expected = sign_flip_test([gaps], generator()).p
    assert corrected_p(by_seed, Looks.single(range(11)), generator()) == pytest.approx(expected)
    assert p >= expected


def test_of_many_pairs_signs_are_drawn():
    gaps = [dict(enumerate(generator(n).normal(0.5, 1, 12))) for n in (3, 4)]
    p = corrected_p(gaps, Looks.single(range(12)), generator())
    tasks = [list(own.values()) for own in gaps]
    expected = sign_flip_test(tasks, generator()).p
    assert p == pytest.approx(expected, abs=0.01)
    assert p > 0.001


def test_what_was_seen_at_a_look_stays_at_the_next():
    after, changed = (7, 12, 15, 18), 0
    for number in range(30):
        gaps = [dict(enumerate(generator(number).normal(0.6, 1, 18)))]
        told = [
            is_shown(gaps, looks(*after[:count], most=18), generator(), RATE, num_exact=8)
            for count in (1, 2, 3, 4)
        ]
        assert told == sorted(told)
        changed += told[0] != told[-1]
    assert changed > 5


def test_agreement_is_shown_at_the_first_look_and_not_before():
    for num_tasks in (1, 3):
        first = next_look(0, 20, 1, num_tasks)
        gaps = [{seed: 0.1 + seed / 100 for seed in range(first)} for _ in range(num_tasks)]
        assert is_shown(gaps, looks(first, most=20), generator(), RATE)
        early = looks(first - 1, most=20)
        assert not is_shown(gaps, early, generator(), RATE)
        assert least_p(gaps, early) > RATE >= least_p(gaps, looks(first, most=20))
    assert smallest_p(7) * 20 / 7 <= RATE


def line(variant, scores, task="cb"):
    spread = {"mean": float(np.mean(scores)), "std": float(np.std(scores, ddof=1))}
    seeds = list(range(len(scores)))
    return {"variant": variant, "task": task, "point": {}, "seeds": seeds, "scores": list(scores),
            "missing": [], **spread}  # fmt: skip


def test_the_leader_must_beat_every_other_and_not_only_the_next():
    rising = np.arange(8) / 100
    wild = 0.69 + rising + np.array([1, -1, 1, -1, 1, -1, 1, -1]) / 20
    lines = [line("low", rising), line("best", rising + 0.7), line("wild", wild)]
    found = closest(ranked(lines))
    assert (found.other, found.num_others) == ("wild", 2)
    assert found.p > RATE > closest(ranked(lines[:2])).p
    assert ranked([{**lines[1], "missing": [{"seed": 3}]}, lines[0]]) == [[lines[0]]]


def share_led(num_studies, tested):
    """Return how many studies of two alike variants have a leader at some look."""
    count = 0
    for number in range(num_studies):
        scores = -np.exp(generator(number).standard_normal((2, 10)))
        for place, after in enumerate((6, 8, 10)):
            seen = looks(*(6, 8, 10)[: place + 1], most=10)
            if tested(dict(enumerate(scores[0, :after] - scores[1, :after])), seen):
                count += 1
                break
    return count / num_studies


def test_alike_variants_with_a_few_bad_seeds_are_seldom_taken_for_a_leader():
    def bounded(own, seen):
        return is_shown([own], seen, generator(), RATE)

    def unbounded(own, seen):  # the fault
        return sign_flip_test([list(own.values())], generator()).p <= RATE

    highest = RATE + 2 * (RATE * (1 - RATE) / 300) ** 0.5
    assert share_led(300, bounded) <= highest < share_led(300, unbounded)
