"""Rows in the unit of what they stand beside."""

from __future__ import annotations

from typing import final

import pytest
import torch

from contracts.conftest import run_config
from softprompts.backbones.units import Units, measure_attentions, nearest_power
from softprompts.errors import PromptError, RecipeError
from softprompts.prompts.registry import ROWS
from softprompts.prompts.rows.base import Rows
from softprompts.prompts.rows.residual import ResidualRows
from softprompts.recipes.parsing import parse_kept_run, parse_run
from softprompts.recipes.resolving import resolve, resolve_prompt
from softprompts.recipes.schema import PromptConfig
from softprompts.training.building import build_model, build_optimizer
from softprompts.training.evaluation import EncodedSplit, evaluate
from softprompts.training.execution import execute
from softprompts.training.optimizers import adamw
from softprompts.training.prompt_building import build_prompt


def built(backbone, rows, depth="input", seed=3, **prompt):
    content = {"length": 4, "rows": rows, "depth": depth, **prompt}
    return build_prompt(
        resolve_prompt(PromptConfig.model_validate(content)), backbone, ("good", "bad"), seed
    )


def recipe(**fields):
    """Return plain data of a run; `prompt__unit` is `prompt.unit`."""
    data = {"backbone": {"name": "minilm"}, "task": {"name": "bundled/sentiment"}}
    for name, value in fields.items():
        section, field = name.split("__")
        data.setdefault(section, {})[field] = value
    return data


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("depth", ["input", "every-layer"])
@pytest.mark.parametrize("rows", ROWS.names())
@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5", "gemma3"])
def test_training_starts_at_the_initial_rows_of_every_kind(tiny, kind, rows, depth):
    backbone = tiny(kind)
    if depth == "every-layer" and (ROWS.load(rows).needs_words or ROWS.load(rows).changes_tokens):
        with pytest.raises(PromptError, match=f"depth every-layer.*is {ROWS.load(rows).__name__}"):
            built(backbone, rows, depth)
        return
    plain = built(backbone, "plain", depth, unit="absolute").bake()
    assert torch.equal(built(backbone, rows, depth).bake(), plain)
    if rows != "plain" and not ROWS.load(rows).changes_tokens:
        assert not torch.equal(built(backbone, rows, depth, unit="absolute").bake(), plain)


@pytest.mark.parametrize("rows", ROWS.names())
def test_embeddings_four_times_as_large_train_four_times_as_far(rows):
    first = torch.randn(3, 8, generator=draws())
    ends = []
    for size in (1.0, 4.0):
        kind, unit = ROWS.load(rows), torch.tensor(0.5 * size)
        words = {"words": size * torch.randn(5, 8, generator=draws(2))} if kind.needs_words else {}
        made = kind(size * first, draws(1), unit=unit, **words)
        trained = [p for p in made.parameters() if p.requires_grad]
        optimizer = adamw([{"params": trained, "lr": 0.1}])
        for _ in range(5):
            optimizer.zero_grad()
            (made() / size - 1.0).square().sum().backward()
            optimizer.step()
        ends.append(made().detach() / size)
    assert not torch.equal(ends[0], first)
    assert torch.equal(*ends)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "gemma3", "t5"])
def test_the_unit_is_what_the_first_layer_receives(tiny, kind):
    backbone = tiny(kind)
    embeddings = backbone.embed(torch.arange(backbone.vocabulary_size)).double()
    rms = float(embeddings.square().mean().sqrt())
    unit = float(built(backbone, "plain").pool.rows.unit)
    assert unit == nearest_power(rms)
    assert 2**-0.5 <= rms / unit <= 2**0.5


def test_keys_and_values_have_units_of_their_own(tiny):
    backbone = tiny("gpt2")
    ids = torch.arange(64) * (backbone.vocabulary_size // 64)
    pairs = backbone.keys_and_values(backbone.embed(ids))
    found = measure_attentions(pairs)
    assert found == backbone.attention_units
    parts = built(backbone, "plain", "every-layer").pool.rows.parts
    for part, (slot, pair) in zip(parts, pairs.items(), strict=True):
        keys, values = (float(one.square().mean().sqrt()) for one in (pair.keys, pair.values))
        assert found[slot] == (nearest_power(keys), nearest_power(values))
        assert part.unit.flatten().tolist() == [found[slot][0]] * 4 + [found[slot][1]] * 4


def test_a_residual_branch_may_start_as_something():
    initial = torch.randn(3, 8, generator=draws())
    for options in ({"gain": 0.5}, {"has_skip": False}, {"gain": 0.5, "has_layer_norm": False}):
        rows = ResidualRows(initial, draws(1), bottleneck=4, unit=torch.tensor(0.25), **options)
        assert not torch.equal(rows(), initial)
    for options in ({}, {"has_layer_norm": False}, {"depth": 2}, {"is_shared": False}):
        rows = ResidualRows(initial, draws(1), bottleneck=4, unit=torch.tensor(0.25), **options)
        assert torch.equal(rows(), initial)


@pytest.mark.parametrize("unit", ["relative", "absolute"])
@pytest.mark.parametrize("method", ["residual", "prefix-tuning", "p-tuning", "adap-ins-vec-pos"])
def test_each_sort_of_parameter_has_its_rate(tiny, task, method, unit):
    backbone = tiny("bert")
    given = run_config(backbone, method, "linear").model_dump(mode="json")
    given["prompt"]["unit"] = unit
    given["training"] |= dict.fromkeys(
        ("learning_rate", "network_rate_multiplier", "selector_rate_multiplier")
    )
    config = resolve(parse_run(given))
    model = build_model(config, backbone, task.format)
    optimizer = build_optimizer(config.training, model)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    groups = model.groups
    assert len(rate) == sum(map(len, groups.values())) == len(model.parameters)
    assert groups["rows"]
    assert bool(groups["network"]) == (method != "adap-ins-vec-pos")
    network = {"residual": 0.003, "p-tuning": 0.001, "prefix-tuning": 0.002}.get(method)
    rows = 0.02 if method == "prefix-tuning" else 0.1
    expected = {"rows": rows, "network": network, "selector": 0.01, "readout": 0.01}
    if unit == "absolute":
        expected = dict.fromkeys(expected, 0.01)
    for name, parameters in groups.items():
        assert all(rate[id(p)] == pytest.approx(expected[name]) for p in parameters)


def test_a_rate_of_nothing_is_refused():
    for prompt, field in (
        ({"prompt__method": "prompt-tuning"}, "network_rate_multiplier"),
        ({"prompt__method": "residual"}, "selector_rate_multiplier"),
        ({"prompt__method": "residual", "prompt__unit": "absolute"}, "network_rate_multiplier"),
    ):
        with pytest.raises(RecipeError, match=rf"training.{field}` must be left out.*is 0\.5"):
            parse_run(recipe(**prompt, **{f"training__{field}": 0.5}))


def test_what_a_folder_kept_before_there_was_a_unit_is_absolute():
    data = recipe(prompt__method="residual")
    assert parse_kept_run(data, "config.json").prompt.unit == "absolute"
    assert parse_run(data).prompt.unit == "relative"
    data["prompt"]["unit"] = "relative"
    assert parse_kept_run(data, "config.json").prompt.unit == "relative"


def test_rows_of_another_unit_are_not_taken_over(tiny, task, tmp_path):
    config = run_config(tiny("bert"), "prompt-tuning", "linear")
    execute(config, tiny("bert"), task, folder=tmp_path / "run")
    given = config.model_dump(mode="json")
    given["prompt"] |= {"unit": "absolute", "from_run": str(tmp_path / "run")}
    with pytest.raises(PromptError, match=r"with `prompt.unit` 'absolute', but that of .* 'relat"):
        execute(parse_run(given), tiny("bert"), task)


@pytest.mark.parametrize("rows", ROWS.names())
def test_a_run_that_hardly_moves_scores_as_the_initial_rows(tiny, task, rows):
    backbone = tiny("gpt2")
    scores = []
    for name, length in ((rows, 4), ("plain", 4)):
        given = run_config(backbone, "prompt-tuning", "text", steps=1).model_dump(mode="json")
        given["prompt"] |= {"rows": {"kind": name}, "length": length}
        given["training"] |= {"learning_rate": 1e-30, "network_rate_multiplier": None}
        outcome = execute(parse_run(given), backbone, task)
        track = outcome.model.track()
        split = EncodedSplit(task.validation, tuple(map(track.readout.encode, task.validation)))
        scores.append(evaluate(backbone, track.prompt, track.readout, split, task.format).scores)
    assert scores[0] == scores[1]


@final
class Doubled(Rows):
    """Rows that know of no unit, as another package may have them."""

    def __init__(self, initial, generator, *, width=None):
        super().__init__(initial, generator)
        self.weight = torch.nn.Parameter(initial.clone())

    def forward(self, generator=None):
        return self.weight + self.weight


@final
class Joint(Rows):
    """One object for all layers, which knows of no unit either."""

    is_joint = True

    def __init__(self, initial, generator, *, width):
        super().__init__(initial, generator)
        self.weight = torch.nn.Parameter(initial.clone())
        self.width = width

    def forward(self, generator=None):
        return self.weight[:, :1].expand(-1, self.width)


@pytest.mark.parametrize("depth", ["input", "every-layer"])
def test_rows_that_know_of_no_unit_are_scaled_from_outside(tiny, depth):
    backbone = tiny("gpt2")
    plain = built(backbone, "plain", depth)
    place = plain.depth
    initial = torch.randn(4, backbone.embedding_size)
    given = (Doubled, Doubled, initial, lambda part: draws(part))
    slots = getattr(place, "slots", ())
    units = Units(0.25, dict.fromkeys(slots, (0.5, 2.0)))
    relative, absolute = place.build_rows(*given, units=units), place.build_rows(*given)
    assert torch.equal(relative(), absolute())
    if depth == "every-layer":
        wide = place.build_rows(Joint, Joint, initial, lambda part: draws(part), units=units)
        keys = float(wide().detach()[0, 0] / initial[0, 0])
        assert keys == 0.5 / 0.25  # what went in was divided by its unit, what came out has its own
    largest = [
        float(max(p.detach().abs().max() for p in rows.parameters()))
        for rows in (relative, absolute)
    ]
    assert largest[0] != largest[1]
