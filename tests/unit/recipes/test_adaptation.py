"""What a recipe may say of the backbone's training, and what it means."""

from __future__ import annotations

import json

import pytest

from softprompts.backbones.adaptations.registry import ADAPTATIONS
from softprompts.errors import RecipeError
from softprompts.recipes.grid import expand
from softprompts.recipes.identity import identity
from softprompts.recipes.loading import load_recipe
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve


def run_of(**fields):
    data = {"backbone": {"name": "minilm"}, "task": {"name": "bundled/sentiment"}}
    return {**data, **fields}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"adaptation": "lora"},
            r"`adaptation` must be left out when `prompt.length` is 10, .* but is 'lora'",
        ),
        ({"prompt": {"method": "fine-tuning", "length": 3}}, "length` must be 0 .* but is 3"),
        (
            {"training": {"backbone_learning_rate": 0.1}},
            r"`training.backbone_learning_rate` must be left out where .* but is 0.1",
        ),
        (
            {"prompt": {"method": "lora"}, "adaptation": "none", "readout": "cloze"},
            r"`readout` must have trainable parameters .* but is 'cloze'",
        ),
        (
            {"prompt": {"method": "lora"}, "adaptation": {"rank": 0}},
            r"`adaptation.rank` must be at least 1, but is 0",
        ),
        (
            {"prompt": {"method": "lora"}, "adaptation": {"targets": []}},
            r"`adaptation.targets` must be a collection of at least 1 entry, but is \[\]",
        ),
        (
            {"prompt": {"method": "fine-tuning"}, "adaptation": {"rank": 4}},
            r"`adaptation.rank` is an unknown key",
        ),
        ({"adaptation": "lara"}, "must be one of none, full, lora, but is 'lara'. Did you mean"),
        ({"prompt": 3, "adaptation": {"kind": "full"}}, "`prompt` must be a mapping, but is 3"),
        ({"adaptation": 3}, "`adaptation` must be a name or a mapping .* but is 3"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, sentence):
    with pytest.raises(RecipeError, match=sentence):
        parse_run(run_of(**fields))


def test_a_yardstick_is_a_name_for_its_adaptation():
    runs = {
        name: identity(parse_run(run_of(**fields)))
        for name, fields in {
            "head": {"prompt": {"method": "head-only"}},
            "none": {"prompt": {"method": "lora"}, "adaptation": "none"},
            "lora": {"prompt": {"method": "lora"}},
            "named": {"prompt": {"method": "head-only"}, "adaptation": {"kind": "lora"}},
            "rate": {
                "prompt": {"method": "lora"},
                "training": {"backbone_learning_rate": 1e-3},
            },
            "rank": {"prompt": {"method": "lora"}, "adaptation": {"rank": 4}},
            "full": {"prompt": {"method": "fine-tuning"}},
        }.items()
    }
    assert runs["head"] == runs["none"]
    assert runs["lora"] == runs["named"] == runs["rate"]
    assert len(set(runs.values())) == 4


def test_options_can_be_set_from_outside(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "backbone: {name: minilm}\ntask: {name: bundled/sentiment}\n"
        "prompt: {method: lora}\nadaptation: lora\n"
    )
    config = load_recipe(path, ["adaptation.rank=3", "adaptation.targets=[query]"])
    assert config.adaptation.options == {"rank": 3, "alpha": 16.0, "targets": ["query"]}
    study = {
        "base": {"backbone": {"name": "minilm"}, "task": {"name": "bundled/sentiment"}},
        "variants": {
            "plain": {},
            "full": {"prompt.method": "fine-tuning", "training.backbone_learning_rate": 1e-4},
            "narrow": {"prompt.method": "lora", "adaptation.rank": 2},
            "wide": {"prompt.method": "lora", "adaptation": {"rank": 16}},
        },
        "seeds": 1,
    }
    path.write_text(json.dumps(study))
    cells = [resolve(cell.config) for cell in expand(load_recipe(path))]
    assert [cell.adaptation.options.get("rank") for cell in cells] == [None, None, 2, 16]
    rates = [cell.training.backbone_learning_rate for cell in cells]
    assert rates == [None, 1e-4, 1e-3, 1e-3]


def test_a_resolved_recipe_says_what_is_trained_of_the_backbone():
    plain = resolve(parse_run(run_of()))
    assert (plain.adaptation.kind, plain.training.backbone_learning_rate) == ("none", None)
    lora = resolve(parse_run(run_of(prompt={"method": "lora"}, readout="cloze")))
    assert lora.adaptation.options == {"rank": 8, "alpha": 16.0, "targets": None}
    assert resolve(lora) == lora
    assert parse_run(lora.model_dump(mode="json")) == lora
    assert ADAPTATIONS.names() == ("none", "full", "lora")
