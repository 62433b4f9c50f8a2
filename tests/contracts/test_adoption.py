"""A prompt that starts from a trained run takes its sets and selectors per input, and no more."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

import softprompts as sp
from contracts.conftest import run_config
from contracts.test_mixture import PROMPTS, assert_equal, config_of, member_of, model_of
from softprompts.errors import PromptError, RecipeError, StorageError
from softprompts.lab.studies.runner import run_study
from softprompts.recipes.identity import identity
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.recipes.study import parse_study
from softprompts.training.building import build_model
from softprompts.training.execution import execute
from softprompts.training.warm_start import adopt


@pytest.fixture
def source(tiny, tasks, tmp_path):
    """Return a function that trains a mixture into a folder of its own."""

    def train(kind, prompt, name="source", **training):
        config = config_of(tiny(kind), tasks, prompt, learning_rate=0.1, **training)
        return tmp_path / name, execute(config, tiny(kind), tasks, folder=tmp_path / name)

    return train


def adapted(backbone, prompt, folder, is_frozen=False, **training):
    """Return a resolved run of one task that starts from a folder."""
    data = run_config(backbone, "prompt-tuning", "linear", **training).model_dump(mode="json")
    data["prompt"] = {**prompt, "from_run": {"folder": str(folder), "is_frozen": is_frozen}}
    return resolve(parse_run(data))


def adopted(config, backbone, task):
    model = build_model(config, backbone, task.format)
    adopt(model, config)
    return model


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_sets_and_selectors_per_input_are_copied_and_the_rest_starts_fresh(
    tiny, task, source, kind, prompt
):
    backbone = tiny(kind)
    folder, outcome = source(kind, PROMPTS[prompt])
    config = adapted(backbone, PROMPTS[prompt], folder)
    model = adopted(config, backbone, task)
    fresh = build_model(config, backbone, task.format).state()
    trained = outcome.model.state()
    copied = set()
    for name, value in model.state().items():
        if name in trained:
            assert name.startswith("prompt.")
            assert torch.equal(value, trained[name]), name
            copied.add(name)
        else:
            assert torch.equal(value, fresh[name]), name
    assert copied == {name for name in trained if name.startswith("prompt.")}
    assert any(not torch.equal(trained[name], fresh[name]) for name in copied)
    assert model.prompt.task_tensors.isdisjoint(n.removeprefix("prompt.") for n in copied)


@pytest.mark.parametrize("prompt", ["attention", "task", "deep"])
def test_frozen_sets_stay_while_selector_and_readout_learn(tiny, task, source, prompt):
    backbone = tiny("bert")
    folder, outcome = source("bert", PROMPTS[prompt])
    config = adapted(backbone, PROMPTS[prompt], folder, True, steps=5, learning_rate=0.1)
    start = adopted(config, backbone, task)
    found = execute(config, backbone, task)
    states = found.model.state(), start.state(), outcome.model.state()
    sets = [name for name in states[0] if name.startswith("prompt.pool.sets.")]
    assert sets
    for name, value in states[0].items():
        if name in sets:
            assert torch.equal(value, states[2][name]), name
        else:
            assert not torch.equal(value, states[1][name]), name
    assert found.result["trainable_parameters"] == sum(
        value.numel() for name, value in states[0].items() if name not in sets
    )


def test_nothing_is_adopted_without_a_source(tiny, task):
    backbone = tiny("bert")
    config = run_config(backbone, "adap-ins-vec", "linear")
    model = build_model(config, backbone, task.format)
    before = {name: value.clone() for name, value in model.state().items()}
    adopt(model, config)
    assert_equal(model.state(), before)


def test_several_new_tasks_can_start_from_one_task(tiny, task, tasks, tmp_path):
    backbone = tiny("bert")
    single = execute(
        run_config(backbone, "prompt-tuning", "linear"), backbone, task, folder=tmp_path / "one"
    )
    prompt = {"length": 4, "pool": {"kind": "task", "size": 1}, "from_run": str(tmp_path / "one")}
    config = config_of(backbone, tasks, prompt)
    model = model_of(config, backbone, tasks)
    adopt(model, config)
    assert torch.equal(model.bake(), single.model.bake())
    pool_run = execute(config, backbone, tasks, folder=tmp_path / "pool")
    back = adopted(adapted(backbone, {"length": 4}, tmp_path / "pool"), backbone, task)
    assert torch.equal(back.bake(), pool_run.model.bake())
    assert not torch.equal(back.bake(), single.model.bake())


def test_a_selector_of_another_kind_starts_fresh(tiny, task, source):
    backbone = tiny("bert")
    folder, outcome = source("bert", PROMPTS["attention"])
    for other in (
        {"length": 3, "pool": {"kind": "task", "size": 2}, "position": "task"},
        {**PROMPTS["attention"], "position": {"kind": "instance", "has_relu": True}},
        {**PROMPTS["attention"], "instance": "embeddings"},
    ):
        config = adapted(backbone, other, folder)
        model, fresh = adopted(config, backbone, task), build_model(config, backbone, task.format)
        assert torch.equal(model.bake(), outcome.model.bake())
        for name, value in model.prompt.position.state_dict().items():
            assert torch.equal(value, fresh.prompt.position.state_dict()[name])
        is_same_pool = other["pool"]["kind"] == "attention" and "instance" not in other
        trained = outcome.model.tracks["one"].prompt.pool
        if is_same_pool:
            assert torch.equal(model.prompt.pool.weight, trained.weight)
        elif other["pool"]["kind"] == "attention":
            assert not torch.equal(model.prompt.pool.weight, trained.weight)


WRONG = [
    ({"length": 2}, r"with `prompt.length` 2, but that of \S+ is 3"),
    ({"rows": "residual"}, r"with `prompt.rows` .*residual.*, but that of \S+ is .*plain"),
    ({"depth": "every-layer"}, r"with `prompt.depth` .*every-layer.*, but that of \S+ is .*input"),
    ({"pool": {"kind": "task", "size": 3}}, r"with the number of sets 3, but that of \S+ is 2"),
    ({"pool": "single"}, r"with the number of sets 1, but that of \S+ is 2"),
]


@pytest.mark.parametrize(("change", "text"), WRONG)
def test_sets_that_do_not_fit_are_refused_with_both(tiny, task, source, change, text):
    folder, _ = source("bert", PROMPTS["task"])
    prompt = {"length": 3, "pool": {"kind": "task", "size": 2}, **change}
    config = adapted(tiny("bert"), prompt, folder)
    with pytest.raises(PromptError, match=text):
        execute(config, tiny("bert"), task)


def test_a_source_on_other_weights_or_that_diverged_is_refused(tiny, task, source):
    folder, _ = source("bert", PROMPTS["task"])
    with pytest.raises(PromptError, match=r"with backbone weights '\w+', but that of \S+ is '\w+'"):
        execute(adapted(tiny("gpt2"), PROMPTS["task"], folder), tiny("gpt2"), task)
    wild, outcome = source("bert", PROMPTS["task"], "wild", clip_norm=None, steps=5)
    assert outcome.result["status"] == "finished"
    result = json.loads((wild / "result.json").read_text())
    (wild / "result.json").write_text(json.dumps({**result, "status": "diverged"}))
    with pytest.raises(PromptError, match=r"with status 'finished', but that of \S+ is 'diverged'"):
        execute(adapted(tiny("bert"), PROMPTS["task"], wild), tiny("bert"), task)


def test_the_identity_covers_what_the_source_trained_and_not_where_it_lies(
    tiny, task, source, tmp_path
):
    backbone = tiny("bert")
    folder, _ = source("bert", PROMPTS["task"])
    other, _ = source("bert", PROMPTS["task"], "other", steps=2)
    config = adapted(backbone, PROMPTS["task"], folder)
    assert config.prompt.from_run.digest
    shutil.copytree(folder, tmp_path / "moved")
    assert identity(adapted(backbone, PROMPTS["task"], tmp_path / "moved")) == identity(config)
    assert identity(adapted(backbone, PROMPTS["task"], other)) != identity(config)
    assert identity(adapted(backbone, PROMPTS["task"], folder, True)) != identity(config)
    plain = config.model_copy(
        update={"prompt": config.prompt.model_copy(update={"from_run": None})}
    )
    assert identity(plain) != identity(config)
    shutil.copy(other / "prompt.safetensors", folder / "prompt.safetensors")
    with pytest.raises(PromptError, match=r"with digest '\w+', but that of \S+ is '\w+'"):
        execute(config, backbone, task)


def test_an_adapted_run_is_resumed_and_is_read_when_its_source_is_gone(
    tiny, task, source, tmp_path
):
    backbone = tiny("bert")
    folder, _ = source("bert", PROMPTS["task"])
    config = adapted(backbone, PROMPTS["task"], folder)
    out = execute(config, backbone, task, folder=tmp_path / "new")
    shutil.rmtree(folder)
    loaded = sp.load(tmp_path / "new", backbone)
    assert_equal(loaded.model.state(), out.model.state())
    again = execute(config, backbone, task, folder=tmp_path / "new")
    assert_equal(again.model.state(), out.model.state())
    text = r"`prompt.from_run` must be the folder of a finished run, but '/.* has no config\.json"
    with pytest.raises(RecipeError, match=text):
        adapted(backbone, PROMPTS["task"], folder)
    with pytest.raises(StorageError, match="could not be read: no such folder"):
        execute(config, backbone, task)


def test_a_prompt_as_long_as_its_text_is_loaded_and_started_from(tiny, task, tmp_path):
    backbone = tiny("gpt2")
    said = "Say of each thing that was seen how it was."
    task = replace(task, format=replace(task.format, instruction=said))
    num_tokens = len(backbone.tokenizer(said)["input_ids"])
    data = run_config(backbone, "stable", "text").model_dump(mode="json")
    data["prompt"] = {"method": "stable"}
    first = execute(resolve(parse_run(data)), backbone, task, folder=tmp_path / "first")
    assert first.model.prompt.length == num_tokens > 10
    loaded = sp.load(tmp_path / "first", backbone)
    assert_equal(loaded.model.state(), first.model.state())
    for method in ("stable", "p-tuning-v2"):
        own = {"length": None if method == "stable" else num_tokens}
        data["prompt"] = {"method": method, "from_run": str(tmp_path / "first"), **own}
        config = resolve(parse_run(data))
        assert config.prompt.length == num_tokens
        assert_equal(adopted(config, backbone, task).state(), first.model.state())
    data["prompt"]["length"] = 10
    with pytest.raises(PromptError, match=rf"`prompt.length` 10, but that of \S+ is {num_tokens}"):
        adopted(resolve(parse_run(data)), backbone, task)


def test_every_problem_of_a_source_is_said(tmp_path, tiny):
    def problems(**prompt):
        data = {
            "backbone": {"name": "minilm"},
            "task": {"name": "bundled/sentiment"},
            "prompt": {"from_run": str(tmp_path), **prompt},
        }
        with pytest.raises(RecipeError) as caught:
            parse_run(data)
        return caught.value.problems

    found = problems(initializer="normal", method="prompt-tuning")
    assert len(found) == 2
    assert found[0].startswith("`prompt.initializer` must be left out with `prompt.from_run`")
    assert f"'{tmp_path}' has no config.json." in found[1]
    assert "`prompt.from_run` must be left out when `prompt.length` is 0" in problems(length=0)[0]
    (only,) = problems(from_run={"is_frozen": True})
    assert only == "`prompt.from_run.folder` must be given, but is missing."
    with pytest.raises(PromptError, match=r"must be left out here.*'x'"):
        sp.SoftPromptModel(
            tiny("bert"),
            sp.PromptConfig.model_validate({"from_run": {"folder": "x", "digest": "y"}}),
        )


def test_a_study_finds_a_source_that_does_not_fit_before_it_writes(tiny, source, tmp_path):
    folder, _ = source("bert", PROMPTS["task"])
    study = parse_study(
        {
            "name": "s",
            "base": {
                "backbone": {"name": tiny("bert").name},
                "task": {"name": "bundled/sentiment", "shots": 4},
                "prompt": {"length": 2, "from_run": str(folder)},
                "training": {"steps": 1},
            },
            "seeds": 1,
        }
    )
    with pytest.raises(PromptError, match=r"`prompt.length` 2, but that of \S+ is 3"):
        run_study(study, tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_member_of_a_mixture_reads_through_the_adopted_rows(tiny, tasks, source):
    backbone = tiny("bert")
    folder, outcome = source("bert", PROMPTS["task"])
    config = config_of(backbone, tasks, {**PROMPTS["task"], "from_run": str(folder)})
    member = member_of(config, backbone, tasks)
    adopt(member.model, config)
    for track in member.model.tracks.values():
        assert torch.equal(track.prompt.bake(), outcome.model.bake())
