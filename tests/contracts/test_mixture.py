"""Several tasks in one run: shared pool, selectors and readouts per task, and what follows."""

from __future__ import annotations

import json
from itertools import product

import pytest
import torch

import softprompts as sp
from contracts.conftest import covering, parts_of, run_config
from softprompts.errors import DataError, RecipeError, StorageError
from softprompts.prompts.choices import ChoiceLog
from softprompts.recipes.identity import identity
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.storage import read_tensors, write_tensors
from softprompts.training.building import build_model, build_plan
from softprompts.training.execution import encode_splits, execute, make_member
from softprompts.training.forward import score
from softprompts.training.journal import NoJournal, RunFolder
from softprompts.training.pack import train_pack, update_pack
from softprompts.training.resources import Resources

READOUT = {"bert": "cloze", "gpt2": "text", "t5": "text"}
PROMPTS = {
    "attention": {"length": 3, "pool": {"kind": "attention", "size": 2}, "position": "instance"},
    "task": {
        "length": 3,
        "pool": {"kind": "task", "size": 2},
        "position": "task",
        "active_length": "task",
    },
    "residual": {
        "method": "residual",
        "length": 3,
        "rows": {"bottleneck": 5, "gain": 0.5},
        "position": "task",
    },
    "deep": {
        "method": "p-tuning-v2",
        "length": 3,
        "pool": {"kind": "task", "size": 2},
        "active_length": "instance",
    },
}


def config_of(backbone, names, prompt, readout="linear", sampling="size", **training):
    """Return a resolved run of several tasks."""
    return resolve(
        parse_run(
            {
                "backbone": {"name": backbone.name},
                "mixture": {"tasks": {n: {"name": "custom"} for n in names}, "sampling": sampling},
                "readout": readout,
                "prompt": prompt,
                "training": {"steps": 4, "batch_size": 4, "selection": "last", **training},
            }
        )
    )


def model_of(config, backbone, tasks):
    return build_model(config, backbone, {name: task.format for name, task in tasks.items()})


def member_of(config, backbone, tasks, journal=None):
    model = model_of(config, backbone, tasks)
    splits = encode_splits(config, model, tasks, Resources())
    return make_member(config, model, splits, journal or NoJournal())


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def plain_state(model):
    return {name.replace("tasks.only.", ""): value for name, value in model.state().items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize(
    ("kind", "prompt", "is_linear"), covering(list(product(READOUT, PROMPTS, (True, False))))
)
def test_a_mixture_of_one_task_is_the_run_of_that_task(tiny, task, kind, prompt, is_linear):
    backbone = tiny(kind)
    readout = "linear" if is_linear else READOUT[kind]
    mixture = config_of(
        backbone, ["only"], PROMPTS[prompt], readout, selection="held-out", held_out_fraction=0.3
    )
    data = mixture.model_dump(mode="json") | {"mixture": None, "task": {"name": "custom"}}
    single = execute(parse_run(data), backbone, task)
    found = execute(mixture, backbone, {"only": task})
    first = model_of(mixture, backbone, {"only": task}).state()
    assert any(not torch.equal(first[name], value) for name, value in found.model.state().items())
    assert_equal(plain_state(found.model), single.model.state())
    one = found.result["tasks"]["only"]
    for key in ("score", "last_score", "majority", "num_items", "metrics", "choices", "split"):
        assert one[key] == single.result[key]
    assert found.result["score"] == single.result["score"]
    assert found.result["held_out_score"] == single.result["held_out_score"]
    assert found.result["metric"] == "mean over tasks"


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tasks_share_what_is_not_their_own(tiny, tasks, prompt):
    config = config_of(tiny("bert"), tasks, PROMPTS[prompt])
    one, two = (track.prompt for track in model_of(config, tiny("bert"), tasks).tracks.values())
    mine, theirs = dict(one.named_parameters()), dict(two.named_parameters())
    assert mine.keys() == theirs.keys()
    own = {name for name in mine if mine[name] is not theirs[name]}
    assert own == one.task_tensors == two.task_tensors
    assert (
        own
        == {
            "attention": set(),
            "task": {"pool.logits", "position.logits", "active_length.logits"},
            "residual": {"position.logits"},
            "deep": {"pool.logits"},
        }[prompt]
    )
    assert one.depth is two.depth
    assert not (set(mine) - own).isdisjoint(name for name in mine if name.startswith("pool."))
    if prompt == "attention":
        assert one.pool is two.pool
        assert one.position is two.position


@pytest.mark.parametrize("kind", READOUT)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_trainable_tensor_gets_a_gradient_and_is_counted_once(tiny, tasks, kind, prompt):
    backbone = tiny(kind)
    readout = READOUT[kind] if prompt == "residual" else "linear"
    config = config_of(backbone, tasks, PROMPTS[prompt], readout, batch_size=14, sampling="uniform")
    member = member_of(config, backbone, tasks)
    parts = parts_of(member, backbone)
    assert {id(part.prompt) for part, _ in parts} == {
        id(track.prompt) for track in member.model.tracks.values()
    }
    for part, weight in parts:
        (part.readout.loss(score(backbone, [part])[0], part.batch).sum() * weight).backward()
    parameters = member.model.parameters
    assert len({id(p) for p in parameters}) == len(parameters)
    for parameter in parameters:
        assert parameter.grad is not None
        assert bool(parameter.grad.any())
    in_optimizer = [p for group in member.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in in_optimizer} == {id(p) for p in parameters}
    assert member.model.num_parameters == sum(
        value.numel() for name, value in member.model.state().items()
    )


def test_an_update_has_the_mean_loss_of_its_examples(tiny, tasks):
    backbone = tiny("bert")
    config = config_of(backbone, tasks, PROMPTS["attention"], batch_size=3, accumulation_steps=3)
    member = member_of(config, backbone, tasks)
    parts = parts_of(member, backbone)
    assert sum(len(set(part.batch.examples.tolist())) for part, _ in parts) == 9
    assert [weight for _, weight in parts] == [1 / 9] * len(parts)
    places = torch.cat([part.draws.places for part, _ in parts]).tolist()
    assert sorted(places) == list(range(9))
    assert all(part.draws.num_examples == 9 for part, _ in parts)
    assert {part.draws.micro for part, _ in parts} == {0}


def test_task_selectors_part_ways_and_are_logged_by_task(tiny, tasks, tmp_path):
    backbone = tiny("bert")
    config = config_of(
        backbone,
        tasks,
        PROMPTS["task"],
        steps=8,
        learning_rate=0.3,
        batch_size=8,
        selection="held-out",
        held_out_fraction=0.4,
        num_evaluations=2,
    )
    outcome = execute(config, backbone, tasks, folder=tmp_path / "run")
    one, two = (track.prompt for track in outcome.model.tracks.values())
    assert not torch.allclose(one.pool.logits, two.pool.logits)
    lines = lines_of(tmp_path / "run")
    updates = [line for line in lines if "split" not in line]
    assert all(sum(t["num_examples"] for t in u["tasks"].values()) == 8 for u in updates)
    last = updates[-1]["tasks"]
    assert last["one"]["pool"]["weights"] != last["two"]["pool"]["weights"]
    assert sum(last["one"]["position"]["counts"]) == last["one"]["num_examples"]
    assert updates[-1]["temperature"] == build_plan(config.training, 14, 0).temperature(7)
    held_out = [line for line in lines if "split" in line]
    assert len(held_out) == 2
    for line in held_out:
        scores = [line["tasks"][name]["score"] for name in ("one", "two")]
        assert line["score"] == pytest.approx(sum(scores) / 2)
        assert set(line["tasks"]["two"]["metrics"]) == {"accuracy"}
    result = outcome.result
    assert result["held_out_score"] == max(line["score"] for line in held_out)
    assert result["num_items"] == 13
    assert [result["tasks"][n]["num_items"] for n in ("one", "two")] == [8, 5]
    for key in ("score", "last_score", "majority"):
        assert result[key] == pytest.approx(sum(result["tasks"][n][key] for n in tasks) / 2)
    assert set(result["tasks"]["two"]["choices"]["pool"]["by_class"]) == {"no", "yes"}


@pytest.mark.parametrize("kind", READOUT)
def test_a_resumed_mixture_goes_on_bit_for_bit(tiny, tasks, tmp_path, kind):
    backbone = tiny(kind)
    config = config_of(
        backbone,
        tasks,
        PROMPTS["task"],
        steps=9,
        batch_size=3,
        checkpoint_every_steps=2,
        learning_rate=0.1,
    )
    whole = execute(config, backbone, tasks, folder=tmp_path / "whole")
    about = {**json.loads((tmp_path / "whole" / "config.json").read_text())}
    with RunFolder(tmp_path / "cut", about) as journal:
        member = member_of(config, backbone, tasks, journal)
        while member.counters.step < 5:
            update_pack(backbone, [member])
            member.evaluate()
            if member.is_checkpoint_due:
                member.save(backbone)
    assert not (tmp_path / "cut" / "result.json").exists()
    resumed = execute(config, backbone, tasks, folder=tmp_path / "cut")
    assert_equal(resumed.model.state(), whole.model.state())
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")
    again = execute(config, backbone, tasks, folder=tmp_path / "cut")
    assert_equal(again.model.state(), whole.model.state())


def test_a_pack_of_mixtures_equals_single_runs(tiny, task, tasks):
    backbone = tiny("gpt2")
    configs = [
        (config_of(backbone, tasks, PROMPTS["task"], "text"), tasks),
        (config_of(backbone, tasks, PROMPTS["deep"], "text", batch_size=2), tasks),
        (run_config(backbone, "prompt-tuning", "text"), task),
    ]
    alone = [member_of(config, backbone, own) for config, own in configs if own is tasks]
    for single in alone:
        train_pack(backbone, [single])
    model = build_model(configs[2][0], backbone, task.format)
    splits = encode_splits(configs[2][0], model, task, Resources())
    together = [member_of(config, backbone, own) for config, own in configs if own is tasks]
    train_pack(backbone, [*together, make_member(configs[2][0], model, splits, NoJournal())])
    for single, packed in zip(alone, together, strict=True):
        for name, value in single.model.state().items():
            torch.testing.assert_close(packed.model.state()[name], value, atol=1e-4, rtol=1e-4)


def test_the_order_of_tasks_in_a_recipe_changes_nothing(tiny, tasks):
    backbone = tiny("bert")
    forth = config_of(backbone, ["one", "two"], PROMPTS["task"])
    back = config_of(backbone, ["two", "one"], PROMPTS["task"])
    assert identity(forth) == identity(back)
    found = execute(back, backbone, dict(reversed(tasks.items())))
    assert_equal(found.model.state(), execute(forth, backbone, tasks).model.state())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampling", "uniform"),
        ("sampling", {"kind": "size", "limit": 3}),
        ("sampling", {"kind": "temperature", "temperature": 3.0}),
        ("tasks", {"one": {"name": "custom"}, "three": {"name": "custom"}}),
        ("tasks", {"one": {"name": "custom"}, "two": {"name": "custom", "max_tokens": 9}}),
    ],
)
def test_what_changes_numbers_changes_the_identity(tiny, field, value):
    config = config_of(tiny("bert"), ["one", "two"], PROMPTS["task"])
    data = config.model_dump(mode="json")
    same = {**data["mixture"]["tasks"]["one"], "data_dir": "elsewhere"}
    data["mixture"]["tasks"]["one"] = same
    assert identity(parse_run(data)) == identity(config)
    data["mixture"][field] = value
    assert identity(parse_run(data)) != identity(config)


@pytest.mark.parametrize("kind", READOUT)
def test_a_mixture_is_saved_and_loaded_exactly(tiny, tasks, tmp_path, kind):
    backbone = tiny(kind)
    result = sp.train(
        backbone,
        tasks,
        prompt=sp.PromptConfig.model_validate(PROMPTS["task"]),
        training=sp.TrainingConfig(steps=3, batch_size=4, selection="last"),
        sampling={"kind": "temperature", "temperature": 4.0},
        out=tmp_path / "run",
    )
    assert result.config.mixture.sampling.options == {"temperature": 4.0, "limit": None}
    assert "Result(custom + other, prompt-tuning, score=" in repr(result)
    result.save(tmp_path / "saved")
    inputs = [dict(row.fields) for row in tasks["two"].train]
    expected = result.predict_scores(inputs, "two")
    assert set(expected[0]["scores"]) == {"no", "yes"}
    assert set(result.predict_scores(inputs, "one")[0]["scores"]) == {"bad", "good", "unsure"}
    for folder in ("run", "saved"):
        loaded = sp.load(tmp_path / folder, backbone)
        assert loaded.predict_scores(inputs, "two") == expected
        assert loaded.predict(inputs, task="two") == [one["label"] for one in expected]
        found = loaded.evaluate(tasks["two"].validation, "two")
        assert found.score == result.summary["tasks"]["two"]["score"]
    tensors, _ = read_tensors(tmp_path / "run" / "prompt.safetensors")
    assert [name for name in tensors if name.endswith("pool.logits")] == [
        "tasks.one.prompt.pool.logits",
        "tasks.two.prompt.pool.logits",
    ]
    assert {name.split(".")[2] for name in tensors if ".pool.sets." in name} == {"sets"}
    assert len([n for n in tensors if ".pool.sets." in n]) == 2
    assert tensors["rows"].shape == (2, 3, backbone.embedding_size)


def test_a_task_must_be_named_where_there_are_several(tiny, task, tasks, tmp_path):
    backbone = tiny("bert")
    config = config_of(backbone, tasks, PROMPTS["task"], steps=1)
    outcome = execute(config, backbone, tasks)
    result = sp.Result.of(outcome)
    with pytest.raises(DataError, match="`task` must be one of one, two, but was not given"):
        result.predict(["x"])
    with pytest.raises(DataError, match="`task` must be one of one, two, but is 'three'"):
        result.evaluate(task.validation, "three")
    with pytest.raises(DataError, match="tasks must be given for one, two, but are: one without"):
        execute(config, backbone, task)
    with pytest.raises(DataError, match="tasks must be given for one, two, but are: one, three"):
        execute(config, backbone, {"one": task, "three": task})
    with pytest.raises(RecipeError, match=r"`sampling` must be left out for one task.*'size'"):
        sp.train(backbone, task, sampling="size")


def test_a_damaged_mixture_says_what_is_missing(tiny, tasks, tmp_path):
    backbone, folder = tiny("bert"), tmp_path / "run"
    config = config_of(backbone, tasks, PROMPTS["task"], steps=1)
    execute(config, backbone, tasks, folder=folder)
    path = folder / "prompt.safetensors"
    whole, header = read_tensors(path)
    for name, label in (
        ("tasks.two.prompt.pool.logits", "prompt of task two"),
        ("tasks.one.readout.weight", "readout of task one"),
    ):
        write_tensors(path, {k: v for k, v in whole.items() if k != name}, header)
        with pytest.raises(StorageError, match=f"must hold the run's {label}, but does not"):
            sp.load(folder, backbone)


def test_yardsticks_train_on_mixtures_too(tiny, tasks):
    backbone = tiny("bert")
    for method in ("head-only", "lora"):
        config = config_of(backbone, tasks, {"method": method}, steps=3)
        outcome = execute(config, backbone, tasks)
        assert outcome.result["status"] == "finished"
        assert {name.split(".")[0] for name in outcome.model.state()} == (
            {"prompt", "tasks"} if method == "head-only" else {"prompt", "tasks", "adaptation"}
        )


def test_choices_of_a_batch_are_those_of_its_task(tiny, tasks):
    backbone = tiny("bert")
    config = config_of(backbone, tasks, PROMPTS["task"], batch_size=8)
    member = member_of(config, backbone, tasks)
    with torch.no_grad():
        member.model.tracks["two"].prompt.pool.logits.copy_(torch.tensor([0.0, 50.0]))
    found = {}
    for part, _ in parts_of(member, backbone):
        score(backbone, [part])
        log = ChoiceLog()
        log.extend(part.choices)
        name = "one" if part.prompt is member.model.tracks["one"].prompt else "two"
        found[name] = log.summary()["pool"]["weights"]
    assert found["one"] == pytest.approx([0.5, 0.5])
    assert found["two"] == pytest.approx([0.0, 1.0], abs=1e-6)


def test_a_diverged_mixture_has_no_scores_but_majorities(tiny, tasks, tmp_path):
    backbone = tiny("bert")
    config = config_of(
        backbone, tasks, PROMPTS["task"], steps=6, learning_rate=1e30, clip_norm=None
    )
    result = execute(config, backbone, tasks, folder=tmp_path / "run").result
    assert result["status"] == "diverged"
    assert result["score"] is None
    assert [result["tasks"][name]["score"] for name in tasks] == [None, None]
    assert result["majority"] == pytest.approx((3 / 8 + 3 / 5) / 2)
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert sp.load(tmp_path / "run", backbone).score is None
