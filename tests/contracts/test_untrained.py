"""Methods that train nothing: the language model with its template, and text in front of it."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest
import torch

import softprompts as sp
from backbones import KINDS
from contracts.conftest import UNTRAINED, covering, rows, run_config
from softprompts.encoding.template import Role
from softprompts.errors import DataError, PromptError, RecipeError
from softprompts.fast import reader
from softprompts.fast.reader import Ways
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.tasks import sampling
from softprompts.tasks.sampling import draw_demonstrations
from softprompts.training import resources
from softprompts.training.building import build_model
from softprompts.training.evaluation import evaluate_tasks, score_examples
from softprompts.training.execution import execute, show_demonstrations
from softprompts.training.resources import Resources

DECODERS = ("gpt2", "llama", "qwen3", "gemma3")


@pytest.fixture(scope="module")
def brief(task):
    """Return the task with short rows alone, so that some fit beside each other."""
    short = tuple(row for row in task.train if len(row.fields["text"]) < 20)
    return replace(task, train=short, validation=short)


def readout_of(kind):
    return "text" if kind in (*DECODERS, "t5", "bart") else "cloze"


def config_of(backbone, method, readout, **prompt):
    data = run_config(backbone, method, readout).model_dump(mode="json")
    return resolve(parse_run({**data, "prompt": {"method": method, **prompt}}))


def execute_on(backbone, task, method, folder=None, readout=None, **prompt):
    config = config_of(backbone, method, readout or readout_of(backbone.name), **prompt)
    return execute(config, backbone, task, folder=folder)


def scores(backbone, model, examples):
    encoded = [model.readout.encode(row) for row in examples]
    return torch.tensor(score_examples(backbone, model.prompt, model.readout, encoded)[0])


def roomy(backbone_folder, kind, tmp_path):
    """Return a tiny backbone that reads as many tokens as a test wants, for want of a table."""
    import json
    import shutil

    folder = tmp_path / kind
    shutil.copytree(backbone_folder(kind), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    return sp.load_backbone(str(folder))


@pytest.mark.parametrize(("kind", "method"), covering(list(product(KINDS, UNTRAINED)), 1))
def test_nothing_is_trained_and_the_first_state_is_reported(tiny, brief, tmp_path, kind, method):
    backbone = tiny(kind)
    count = {"num_demonstrations": 1} if method == "in-context" else {}
    config = config_of(backbone, method, readout_of(kind), **count)
    outcome = execute(config, backbone, brief, folder=tmp_path / "run")
    result = outcome.result
    assert (result["steps"], result["selected_step"], result["trainable_parameters"]) == (0, 0, 0)
    assert result["status"] == "finished"
    assert result["score"] == result["last_score"]
    again = execute(config, backbone, brief, folder=tmp_path / "run")
    assert again.result == result


def test_zero_shot_is_what_the_language_model_says(tiny, task):
    backbone = tiny("gpt2")
    outcome = execute_on(backbone, task, "zero-shot", readout="text")
    row = task.validation[0]
    text = "review: {text} the {aspect} was".format(**row.fields)
    for column, word in enumerate(task.format.verbalizer.values()):
        ids = backbone.tokenizer(text)["input_ids"]
        more = backbone.tokenizer(f": {word}")["input_ids"][1:]
        with torch.no_grad():
            logits = backbone.model(torch.tensor([ids + more])).logits[0].log_softmax(-1)
        own = sum(float(logits[len(ids) + i - 1, token]) for i, token in enumerate(more))
        found = scores(backbone, outcome.model, [row])[0, column]
        assert float(found) == pytest.approx(own, abs=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "bert"])
def test_an_instruction_is_its_text_in_front_of_the_template(tiny, task, kind):
    backbone = tiny(kind)
    name = readout_of(kind)
    outcome = execute_on(backbone, task, "instruction", readout=name)
    written = f"Say how it was.\n{task.format.templates[name]}"
    own = replace(task.format, templates={name: written})
    plain = build_model(config_of(backbone, "zero-shot", name), backbone, own)
    found = scores(backbone, outcome.model, task.validation)
    assert torch.equal(found, scores(backbone, plain, task.validation))
    bare = build_model(config_of(backbone, "zero-shot", name), backbone, task.format)
    assert not torch.equal(found, scores(backbone, bare, task.validation))


def test_an_instruction_is_what_rows_from_its_text_start_as(tiny, task):
    backbone = tiny("gpt2")
    said = "Say of each thing that was seen how it was."
    task = replace(task, format=replace(task.format, instruction=said))
    outcome = execute_on(backbone, task, "instruction", readout="text")
    data = run_config(backbone, "prompt-tuning", "text").model_dump(mode="json")
    prompt = {"length": "text", "initializer": {"kind": "text", "text": f"{said}\n"}}
    config = resolve(parse_run({**data, "prompt": prompt}))
    rows_from_text = build_model(config, backbone, task.format)
    num_tokens = len(backbone.tokenizer(f"{said}\n")["input_ids"])
    assert rows_from_text.tracks["custom"].prompt.length == num_tokens > 10
    torch.testing.assert_close(
        scores(backbone, outcome.model, task.validation),
        scores(backbone, rows_from_text, task.validation),
    )


def test_an_instruction_may_be_the_recipes_and_must_be_somebodys(tiny, task):
    backbone = tiny("gpt2")
    config = config_of(backbone, "instruction", "text")
    own = config.model_copy(
        update={"task": config.task.model_copy(update={"instruction": "rain all day"})}
    )
    model = build_model(own, backbone, task.format)
    ids = model.readout.encode(task.train[0]).inputs[0].ids
    assert backbone.tokenizer.decode(ids).startswith("rain all day\nreview:")
    with pytest.raises(DataError, match=r"`task.instruction` must be given .* custom has none"):
        build_model(config, backbone, replace(task.format, instruction=""))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
def test_demonstrations_are_their_text_in_front(backbone_folder, task, tmp_path, kind):
    backbone = roomy(backbone_folder, kind, tmp_path)
    outcome = execute_on(backbone, task, "in-context", readout="text", num_demonstrations=2)
    readout = outcome.model.readout
    assert readout.num_shown == 2 == outcome.result["num_demonstrations"]["custom"]
    shown = draw_demonstrations(task.train, 2, seed=0)
    words = list(task.format.verbalizer.values())
    text = "".join(
        f"{task.format.templates['text'].format(**row.fields)} {words[row.answers[0]]}\n\n"
        for row in shown
    )
    item = readout.encode(task.validation[0]).inputs[0]
    prefix = len(backbone.frame.prefix)
    lead = backbone.tokenizer.decode(item.ids[prefix : item.lead]).replace("<unk>", "\n")
    assert lead.replace(" ", "") == text.replace(" ", "")
    bare = build_model(config_of(backbone, "zero-shot", "text"), backbone, task.format)
    own = bare.readout.encode(task.validation[0]).inputs[0]
    assert item.ids[item.lead :] == own.ids[prefix:]
    assert item.ids[:prefix] == own.ids[:prefix]
    assert set(item.roles[prefix : item.lead]) == {Role.TEMPLATE}
    assert item.end - item.lead == own.end - prefix


@pytest.mark.parametrize("kind", DECODERS)
def test_what_stands_in_front_of_all_inputs_is_read_once(
    backbone_folder, tiny, task, brief, tmp_path, kind, monkeypatch
):
    is_small = kind == "gpt2"
    backbone = tiny(kind) if is_small else roomy(backbone_folder, kind, tmp_path)
    own = brief if is_small else task
    outcome = execute_on(backbone, own, "in-context", readout="text", num_demonstrations=6)
    short = brief.validation
    widths = []
    read = Ways.read_joint

    def watched(self, joint, below=()):
        widths.append(joint.spliced.embeddings.shape[1])
        return read(self, joint, below)

    monkeypatch.setattr(Ways, "read_joint", watched)
    fast = scores(backbone, outcome.model, short)
    longest = max(outcome.model.readout.encode(row).num_tokens for row in short)
    lead = outcome.model.readout.encode(short[0]).inputs[0].lead
    assert max(widths) == longest - lead
    monkeypatch.setattr(reader, "read_ahead", lambda *_: None)
    widths.clear()
    whole = scores(backbone, outcome.model, short)
    assert max(widths) == longest
    torch.testing.assert_close(fast, whole, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "t5", "bert"])
def test_as_many_as_fit_leave_room_for_the_longest_row(tiny, task, brief, kind):
    backbone = tiny(kind)
    if backbone.context_length is None:
        with pytest.raises(PromptError, match=r"`prompt.num_demonstrations` must be given .* null"):
            execute_on(backbone, brief, "in-context", readout=readout_of(kind))
        return
    data = run_config(backbone, "in-context", readout_of(kind), selection="last")
    own = replace(task, train=brief.train * 3, validation=brief.validation)
    readout = execute(data, backbone, own).model.readout
    found = [readout.encode(row) for row in own.validation]
    assert 1 <= readout.num_shown < len(own.train)
    assert max(one.num_tokens for one in found) <= backbone.context_length
    assert not any(one.is_cut for one in found)


def test_demonstrations_show_the_word_where_the_mask_was(tiny, brief):
    backbone, task = tiny("bert"), brief
    outcome = execute_on(backbone, task, "in-context", readout="cloze", num_demonstrations=1)
    item = outcome.model.readout.encode(task.validation[0]).inputs[0]
    (row,) = draw_demonstrations(task.train, 1, seed=0)
    word = task.format.verbalizer[task.format.labels[row.answers[0]]]
    lead = backbone.tokenizer.decode(item.ids[: item.lead])
    assert re.search(f"The {row.fields['aspect']} was {word}", lead, re.IGNORECASE)
    assert item.ids[: item.lead].count(backbone.tokenizer.mask_token_id) == 0
    assert [item.ids[slot] for slot in item.slots] == [backbone.tokenizer.mask_token_id]


def drawn(train, most, seed):
    return [row.source for row in draw_demonstrations(train, most, seed)]


def test_a_seed_draws_rows_of_each_class_and_their_order():
    train = rows(30)
    for seed in range(4):
        assert drawn(train, 6, seed) == drawn(train, 6, seed)
        answers = [row.answers[0] for row in draw_demonstrations(train, 6, seed)]
        assert sorted(answers) == [0, 0, 1, 1, 2, 2]
    assert len({tuple(sorted(drawn(train, 6, seed))) for seed in range(8)}) > 1
    assert sorted(drawn(train, None, 0)) == sorted(row.source for row in train)
    orders = {tuple(r.answers for r in draw_demonstrations(train, 3, seed)) for seed in range(20)}
    assert len(orders) > 3


def test_the_order_is_a_draw_of_its_own(monkeypatch):
    train = rows(30)
    before = drawn(train, 6, 0)
    own = sampling._generator
    monkeypatch.setattr(
        sampling, "_generator", lambda seed, name: own(seed + (name == "demonstration-order"), name)
    )
    after = drawn(train, 6, 0)
    assert sorted(after) == sorted(before)
    assert after != before


def test_a_finished_run_shows_what_it_showed(tiny, brief, tmp_path):
    backbone, task = tiny("gpt2"), brief
    for folder, seed in (("a", 0), ("b", 1)):
        config = config_of(backbone, "in-context", "text", num_demonstrations=1)
        config = config.model_copy(update={"seed": seed})
        result = sp.Result.of(execute(config, backbone, task, folder=tmp_path / folder))
        result.save(tmp_path / f"saved-{folder}")
        inputs = [dict(row.fields) for row in task.validation]
        expected = result.predict_scores(inputs)
        for where in (folder, f"saved-{folder}"):
            again = sp.load(tmp_path / where, backbone)
            assert again.predict_scores(inputs) == expected
            assert again.generate(inputs, max_new_tokens=2) == result.generate(
                inputs, max_new_tokens=2
            )


def test_what_fits_nowhere_is_refused(tiny, task):
    backbone = tiny("gpt2")
    config = config_of(backbone, "in-context", "text", num_demonstrations=2)
    model = build_model(config, backbone, task.format)
    long = tuple(replace(row, fields={**row.fields, "text": "rain " * 99}) for row in task.train)
    splits = {"train": long, "held_out": (), "validation": task.validation}
    with pytest.raises(PromptError, match=r"must be 1 or more that fit .* none of 2 training rows"):
        show_demonstrations(config, model.readout, backbone, splits)


@pytest.mark.parametrize("method", UNTRAINED)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"readout": "linear"},
            "`readout` must be cloze or text or writing with method .* is 'linear'",
        ),
        ({"prompt": {"length": 3}}, "`prompt.length` must be 0 or left out .* but is 3"),
        ({"adaptation": "lora"}, "`adaptation` must be left out .* but is 'lora'"),
        (
            {"regularizers": [{"kind": "row-norm"}]},
            "`regularizers` must be left out .* but are 1",
        ),
    ],
)
def test_what_would_train_is_refused(method, change, reason):
    data = {"backbone": {"name": "smollm2"}, "task": {"name": "bundled/sentiment"}}
    data |= {"readout": "text", **change}
    data["prompt"] = {"method": method, **change.get("prompt", {})}
    with pytest.raises(RecipeError, match=reason):
        parse_run(data)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ({"method": "residual", "context": "instruction"}, "must be left out with method residual"),
        ({"method": "zero-shot", "context": "demonstrations"}, "`prompt.context` must be left out"),
        ({"method": "instruction", "num_demonstrations": 2}, "shows none, .* but is 2"),
        ({"num_demonstrations": 4}, "shows none, .* but is 4"),
    ],
)
def test_text_in_front_is_for_its_method(prompt, reason):
    data = {"backbone": {"name": "smollm2"}, "task": {"name": "bundled/sentiment"}}
    with pytest.raises(RecipeError, match=reason):
        parse_run({**data, "readout": "text", "prompt": prompt})


def test_rates_of_a_study_do_not_part_what_trains_nothing():
    data = {"backbone": {"name": "smollm2"}, "task": {"name": "bundled/sentiment"}}
    data |= {"readout": "text", "prompt": {"method": "zero-shot"}}
    from softprompts.recipes.identity import identity

    names = {
        identity(parse_run({**data, "training": training}))
        for training in ({}, {"learning_rate": 0.3}, {"steps": 9, "batch_size": 3})
    }
    assert len(names) == 1
    held = identity(parse_run({**data, "training": {"held_out_fraction": 0.5}}))
    assert held not in names


@pytest.mark.parametrize("method", UNTRAINED)
def test_what_draws_nothing_is_scored_once_for_all_seeds(tiny, brief, method, monkeypatch):
    backbone, shared, calls = tiny("gpt2"), Resources(), []
    count = {"num_demonstrations": 1} if method == "in-context" else {}
    config = config_of(backbone, method, "text", **count)
    monkeypatch.setattr(
        resources, "evaluate_tasks", lambda *given: calls.append(1) or evaluate_tasks(*given)
    )
    found = [
        execute(config.model_copy(update={"seed": seed}), backbone, brief, resources=shared).result
        for seed in (0, 1, 2)
    ]
    assert len(calls) == (3 if method == "in-context" else 1)
    alone = execute(config.model_copy(update={"seed": 2}), backbone, brief).result
    assert (alone["score"], alone["metrics"]) == (found[2]["score"], found[2]["metrics"])
    other = replace(brief, validation=brief.validation[:1])
    execute(config, backbone, other, resources=shared)
    assert len(calls) == (4 if method == "in-context" else 2) + 1
