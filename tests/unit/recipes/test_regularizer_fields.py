"""The list of regularizers in a recipe: what it may say, what it costs in identity."""

from __future__ import annotations

import pytest

from softprompts.errors import RecipeError
from softprompts.recipes.identity import computed, identity, versions
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve

SMALLEST = {"backbone": {"name": "minilm"}, "task": {"name": "bundled/sentiment"}}


def run_with(regularizers, **more):
    return parse_run({**SMALLEST, "regularizers": regularizers, **more})


def test_options_are_filled_in_inside_and_outside():
    (found,) = run_with([{"kind": "ptp", "perturbation": "gaussian-noise"}]).regularizers
    assert found.options["perturbation"] == {"kind": "gaussian-noise", "sigma": 0.1}
    assert found.options["weight"] == 0.3
    assert found.options["consistency"] == "ce"


def test_every_problem_is_said_with_its_place():
    with pytest.raises(RecipeError) as caught:
        run_with(
            [
                {
                    "kind": "ptp",
                    "perturbation": {"kind": "gaussian-noise", "sgima": 1},
                    "weigth": 2,
                },
                {"kind": "ptp", "perturbation": {"kind": "gaussian-noise", "sigma": -1.5}},
                {"kind": "ptp", "perturbation": "gausian-noise", "weight": -3},
                {"kind": "pt"},
                "ptp",
                {"weight": 1},
            ],
            seed=-7,
        )
    expected = (
        r"`regularizers.0.weigth` is an unknown key; did you mean `regularizers.0.weight`?",
        r"`regularizers.0.perturbation.sgima` is an unknown key",
        r"`regularizers.1.perturbation.sigma` must be at least 0, but is -1.5.",
        r"but is 'gausian-noise'. Did you mean 'gaussian-noise'?",
        r"`regularizers.2.weight` must be at least 0, but is -3.",
        r"`regularizers.3.kind` must be one of",
        r"`regularizers.4.perturbation` must be given",
        r"`regularizers.5.kind` must be given",
        r"`seed` must be at least 0, but is -7.",
    )
    assert len(caught.value.problems) == len(expected)
    for problem, text in zip(caught.value.problems, expected, strict=True):
        assert text in problem


def test_a_live_clean_side_needs_a_divergence():
    with pytest.raises(RecipeError, match=r"`regularizers.1.is_clean_live` .* but is true"):
        run_with(
            [
                {"kind": "ptp", "perturbation": "gaussian-noise", "consistency": "kl"},
                {"kind": "ptp", "perturbation": "gaussian-noise", "is_clean_live": True},
            ]
        )


def test_an_empty_list_leaves_identities_as_they_were():
    plain = resolve(parse_run(SMALLEST))
    assert identity(run_with([])) == identity(plain)
    assert "regularizers" not in computed(plain)


def test_what_is_regularized_is_part_of_the_identity():
    lists = (
        [],
        [{"kind": "ptp", "perturbation": "gaussian-noise"}],
        [{"kind": "ptp", "perturbation": "gaussian-noise"}] * 2,
        [{"kind": "ptp", "perturbation": "gaussian-noise", "weight": 0.5}],
        [{"kind": "ptp", "perturbation": {"kind": "gaussian-noise", "sigma": 0.2}}],
    )
    assert len({identity(run_with(one)) for one in lists}) == len(lists)
    spelled = {"kind": "ptp", "perturbation": {"kind": "gaussian-noise", "sigma": 0.1}}
    assert identity(run_with([spelled])) == identity(run_with(lists[1]))


def test_versions_of_both_parts_count():
    found = versions(resolve(run_with([{"kind": "ptp", "perturbation": "gaussian-noise"}])))
    assert found["regularizers.0"] == found["regularizers.0.perturbation"] == 1


@pytest.mark.parametrize(
    "perturbation", ["word-substitution", {"kind": "gradient-ascent", "is_free": True}]
)
def test_copies_that_would_be_the_same_are_refused(perturbation):
    with pytest.raises(RecipeError, match=r"`regularizers.0.num_copies` must be 1 .* but is 3"):
        run_with([{"kind": "ptp", "perturbation": perturbation, "num_copies": 3}])
    assert run_with([{"kind": "ptp", "perturbation": "gradient-ascent", "num_copies": 3}])
