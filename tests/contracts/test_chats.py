"""Runs on chats: trained prompts at every place, instructions and demonstrations as turns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import softprompts as sp
from backbones import build
from contracts.conftest import run_config
from softprompts.encoding.template import spell_turns
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.tasks.sampling import draw_demonstrations
from softprompts.tasks.templates import with_template
from softprompts.training.building import build_model
from softprompts.training.evaluation import score_examples
from softprompts.training.execution import execute

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Return a tiny decoder with room for a chat."""
    folder = build("qwen3", tmp_path_factory.mktemp("chat"), max_position_embeddings=1024)
    (folder / "chat_template.jinja").write_text(CHATML)
    return sp.load_backbone(str(folder))


def chat_task(task, content="{text} How was the {aspect}?"):
    turns = [SYSTEM, {"role": "user", "content": content}]
    return replace(task, format=with_template(task.format, spell_turns(turns)))


def config_of(backbone, method, **prompt):
    data = run_config(backbone, method, "text").model_dump(mode="json")
    own = {"method": method, **({"length": 4} if method == "prompt-tuning" else {}), **prompt}
    return resolve(parse_run({**data, "prompt": own}))


def first_ids(model, row):
    item = model.readout.encode(row).inputs[0]
    return list(item.ids[: item.end])


def written(backbone, turns, **more):
    return backbone.tokenizer.apply_chat_template(turns, return_dict=True, **more)["input_ids"]


@pytest.mark.parametrize(
    ("content", "position"),
    [
        ("{text} How was the {aspect}?", {"kind": "fixed"}),
        ("{text} How was the {aspect}?", {"kind": "fixed", "after_bos": True}),
        ("{text} How was the {aspect}?", {"kind": "instance"}),
        ("{prompt} {text} How was the {aspect}? {prompt}", {"kind": "marked"}),
    ],
)
def test_prompts_train_at_every_place_of_a_chat(backbone, task, tmp_path, content, position):
    own = chat_task(task, content)
    config = config_of(backbone, "prompt-tuning", position=position)
    result = sp.Result.of(execute(config, backbone, own, folder=tmp_path / "run"))
    first = build_model(config, backbone, own.format)
    assert not torch.equal(first.prompt.bake(), result.model.prompt.bake())
    inputs = [dict(row.fields) for row in task.validation]
    again = sp.load(tmp_path / "run", backbone)
    assert again.predict_scores(inputs) == result.predict_scores(inputs)


def test_rows_at_a_mark_are_the_tokens_of_their_place(backbone, task):
    """Rows that equal tokens score as these tokens written into the turn."""
    words = "rain all day"
    ids = backbone.tokenizer(words, add_special_tokens=False)["input_ids"]
    marked = chat_task(task, "{prompt}{text} How was the {aspect}?")
    text = {"kind": "text", "text": words}
    config = config_of(
        backbone, "prompt-tuning", length=len(ids), position="marked", initializer=text
    )
    model = build_model(config, backbone, marked.format)
    plain = chat_task(task, words + "\n{text} How was the {aspect}?")
    bare = build_model(config_of(backbone, "zero-shot"), backbone, plain.format)
    for row in task.validation:
        encoded = model.readout.encode(row)
        own = list(encoded.inputs[0].ids[: encoded.inputs[0].end])
        mark = encoded.inputs[0].marks[0]
        newline = backbone.tokenizer("\n", add_special_tokens=False)["input_ids"]
        assert own[:mark] + ids + newline + own[mark:] == first_ids(bare, row)
    spaced = chat_task(task, "{prompt}\n{text} How was the {aspect}?")
    model = build_model(config, backbone, spaced.format)
    found = [
        score_examples(backbone, m.prompt, m.readout, list(map(m.readout.encode, task.validation)))
        for m in (model, bare)
    ]
    torch.testing.assert_close(torch.tensor(found[0][0]), torch.tensor(found[1][0]))


def test_an_instruction_begins_the_first_turn_of_the_user(backbone, task):
    own = chat_task(task)
    model = build_model(config_of(backbone, "instruction"), backbone, own.format)
    row = task.validation[0]
    said = "Say how it was.\n{text} How was the {aspect}?".format(**row.fields)
    turns = [SYSTEM, {"role": "user", "content": said}]
    assert first_ids(model, row) == written(backbone, turns, add_generation_prompt=True)


def test_demonstrations_are_turns(backbone, task):
    own = chat_task(task)
    config = config_of(backbone, "in-context", num_demonstrations=3)
    model = execute(config, backbone, own).model
    words = list(task.format.verbalizer.values())
    row, turns = task.validation[0], [SYSTEM]
    for one in (*draw_demonstrations(task.train, 3, seed=0), row):
        said = "{text} How was the {aspect}?".format(**one.fields)
        turns += [{"role": "user", "content": said}]
        turns += [{"role": "assistant", "content": words[one.answers[0]]}]
    ids = first_ids(model, row)
    assert ids == written(backbone, turns[:-1], add_generation_prompt=True)
    assert model.readout.encode(row).inputs[0].lead > len(ids) // 2


def test_a_tasks_own_chat_is_taken_by_the_readouts_form(backbone):
    task = sp.load_task("bundled/sentiment", num_items=4, shots=2)
    data = run_config(backbone, "zero-shot", "text").model_dump(mode="json")
    for form, begins in (("chat", "<|im_start|>user\n"), ("plain", "sentence: ")):
        config = resolve(parse_run({**data, "readout": {"kind": "text", "form": form}}))
        model = build_model(config, backbone, task.format)
        text = backbone.tokenizer.decode(first_ids(model, task.validation[0]))
        assert text.startswith(begins)
