"""Regularizers and perturbations that a recipe may name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from softprompts.component import Component, ComponentOf
from softprompts.registry import Option, Registry

if TYPE_CHECKING:
    from softprompts.regularizers.base import Regularizer
    from softprompts.regularizers.perturbations.base import Perturbation

_PTP = "Chen et al. 2023, arXiv 2305.02423"
_KEPT = Option(list[str], [], "names of the row's fields that are left as they are")

PERTURBATIONS: Registry[type[Perturbation]] = Registry(
    "perturbation", "softprompts.regularizers.perturbations.base:Perturbation"
)
PERTURBATIONS.register(
    "gaussian-noise",
    "softprompts.regularizers.perturbations.gaussian_noise:GaussianNoise",
    summary="Gaussian noise on the input's embeddings",
    reference=_PTP,
    options={
        "sigma": Option(
            float,
            0.1,
            "standard deviation, in units of the embedding table's root-mean-square",
            {"ge": 0.0},
        ),
    },
)
PERTURBATIONS.register(
    "masking",
    "softprompts.regularizers.perturbations.masking:Masking",
    summary="whole words replaced by the mask token or others",
    reference=_PTP,
    options={
        "fraction": Option(
            float, 0.15, "share of an input's words, at least one word", {"ge": 0.0, "le": 1.0}
        ),
        "replacement": Option(
            str,
            "auto",
            "mask (the mask token), sentinel (as T5 marks what is left out), unknown, random "
            "(vocabulary rows), or auto: the first of these that the backbone has",
            {"pattern": "^(auto|mask|sentinel|unknown|random)$"},
        ),
        "kept_fields": _KEPT,
    },
)
PERTURBATIONS.register(
    "gradient-ascent",
    "softprompts.regularizers.perturbations.gradient_ascent:GradientAscent",
    summary="projected gradient ascent (PGD) on the input's embeddings",
    reference=f"{_PTP}; Madry et al. 2018, arXiv 1706.06083",
    version=2,
    options={
        "radius": Option(
            float,
            0.1,
            "of the ball, in units of the embedding table's root-mean-square",
            {"ge": 0.0},
        ),
        "norm": Option(
            str,
            "l2",
            "l2 (bounds an example's root-mean-square change) or linf (bounds each number's)",
            {"pattern": "^(l2|linf)$"},
        ),
        "steps": Option(int, 3, "steps of ascent", {"ge": 1}),
        "step_size": Option(
            float | None, None, "length of a step in radii; null takes 2.5 / steps", {"gt": 0.0}
        ),
        "is_free": Option(
            bool,
            False,
            "start at the input and reuse the clean pass's gradient for the first step, instead "
            "of a random start",
        ),
    },
)
PERTURBATIONS.register(
    "word-substitution",
    "softprompts.regularizers.perturbations.word_substitution:WordSubstitution",
    summary="words swapped for near ones where the loss rises most",
    reference=f"{_PTP}; Yoo and Qi 2021, arXiv 2109.00544",
    options={
        "fraction": Option(
            float, 0.1, "share of an input's words that may be swapped", {"ge": 0.0, "le": 1.0}
        ),
        "least_words": Option(
            int, 4, "words that may be swapped however short the input is", {"ge": 0}
        ),
        "num_candidates": Option(int, 20, "neighbours of a word that are tried", {"ge": 1}),
        "min_cosine": Option(
            float, 0.4, "least cosine of a neighbour's embedding", {"ge": -1.0, "le": 1.0}
        ),
        "kept_fields": Option(list[str], ["premise"], _KEPT.description),
        "min_similarity": Option(
            float | None,
            None,
            "least cosine between mean-pooled states of the input before and after; null asks for "
            "nothing",
            {"ge": -1.0, "le": 1.0},
            is_late=True,
        ),
        "word_vectors": Option(
            str | None,
            None,
            "file of word vectors that say which words are near; null takes the backbone's table",
            {"min_length": 1},
            is_late=True,
        ),
        "word_vectors_digest": Option(
            str | None,
            None,
            "digest of that file, filled in when the run begins",
            {"pattern": "^[0-9a-f]{16}$"},
            is_late=True,
        ),
    },
)

PERTURBATION = ComponentOf(PERTURBATIONS)

WEIGHTING = {
    "weight": Option(float, 1.0, "factor on the penalty; 0 switches it off", {"ge": 0.0}),
    "warmup_steps": Option(int, 0, "updates over which the weight rises linearly", {"ge": 0}),
}
"""Options of every regularizer."""

REGULARIZERS: Registry[type[Regularizer]] = Registry(
    "regularizer", "softprompts.regularizers.base:Regularizer"
)
REGULARIZERS.register(
    "ptp",
    "softprompts.regularizers.ptp:PerturbationRegularizer",
    summary="the loss on perturbed inputs, or how far predictions move",
    reference=_PTP,
    options={
        "perturbation": Option(
            Annotated[Component, PERTURBATION], ..., "what is done to the inputs"
        ),
        "consistency": Option(
            str,
            "ce",
            "ce (the loss of the perturbed input), kl (from the clean prediction to the perturbed "
            "one), or symmetric-kl",
            {"pattern": "^(ce|kl|symmetric-kl)$"},
        ),
        "is_clean_live": Option(
            bool, False, "let the gradient of kl and symmetric-kl reach the clean prediction too"
        ),
        "num_copies": Option(int, 1, "perturbed copies of each input, averaged", {"ge": 1}),
        "instances": Option(
            str,
            "clean",
            "whose instance vectors a prompt looks at when a copy is read: clean or perturbed",
            {"pattern": "^(clean|perturbed)$"},
            is_late=True,
        ),
        **WEIGHTING,
        "weight": replace(WEIGHTING["weight"], default=0.3),  # docs/decisions/0017
    },
)
REGULARIZERS.register(
    "vocabulary-distance",
    "softprompts.regularizers.row_penalties:VocabularyDistance",
    summary="mean square distance of rows to the nearest vocabulary rows",
    options=WEIGHTING,
)
REGULARIZERS.register(
    "row-norm",
    "softprompts.regularizers.row_penalties:RowNorm",
    summary="mean square of the rows",
    options=WEIGHTING,
)
