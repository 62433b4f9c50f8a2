"""Fields that perturbations keep must be fields of the task."""

from __future__ import annotations

import pytest

from contracts.conftest import FORMAT, run_config
from softprompts.errors import RecipeError
from softprompts.recipes.parsing import parse_run
from softprompts.training.execution import execute
from softprompts.training.regularizing import check_kept_fields


def config_with(backbone, kind, **options):
    config = run_config(backbone, "prompt-tuning", "linear").model_dump(mode="json")
    perturbation = {"kind": kind, **options}
    return parse_run({**config, "regularizers": [{"kind": "ptp", "perturbation": perturbation}]})


@pytest.mark.parametrize("kind", ["word-substitution", "masking"])
def test_a_field_that_no_template_names_is_refused(tiny, task, kind):
    backbone = tiny("bert")
    told = (
        r"`regularizers.0.perturbation.kept_fields` must be fields of the task's templates, text, "
        r"aspect, but has 'aspekt'. Did you mean 'aspect'\?"
    )
    with pytest.raises(RecipeError, match=told):
        execute(config_with(backbone, kind, kept_fields=["text", "aspekt"]), backbone, task)


@pytest.mark.parametrize("kind", ["word-substitution", "masking", "gaussian-noise"])
def test_known_fields_and_the_default_fit_every_task(tiny, kind):
    config = config_with(tiny("bert"), kind)
    check_kept_fields(config, [FORMAT])
    if kind != "gaussian-noise":
        check_kept_fields(config_with(tiny("bert"), kind, kept_fields=["aspect"]), [FORMAT])
