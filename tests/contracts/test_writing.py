"""Runs that write: trained, scored, resumed and read again."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

import softprompts as sp
from backbones import build
from contracts.conftest import covering, run_config
from contracts.test_chats import CHATML
from contracts.test_contracts import wake
from softprompts.encoding.batch import collate
from softprompts.encoding.inputs import EncodedExample, EncodedInput, Target
from softprompts.errors import BackboneError, DataError, RecipeError
from softprompts.examples import Example, TaskFormat
from softprompts.fast import READER
from softprompts.prompts.draws import Draws
from softprompts.recipes.presets import METHODS as PRESETS
from softprompts.tasks.base import Task
from softprompts.training import evaluation, forward
from softprompts.training.building import build_model
from softprompts.training.evaluation import score_examples, write_examples
from softprompts.training.execution import execute
from softprompts.training.forward import Part, score, write
from softprompts.training.progress import Progress
from softprompts.training.reader import PlainReader
from softprompts.training.writing import DrawnTokens, without_targets, write_options

# peft asks for a name that transformers has renamed; nothing of ours is concerned.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

FORMAT = TaskFormat(
    name="custom",
    version=1,
    labels=(),
    templates={"writing": "{text} so:", "chat": "{role:user}{text}"},
    verbalizer={},
    metrics=("exact-match", "rouge-l", "perplexity"),
    instruction="Say what came of it.",
)
TEXTS = (
    ("the soup was cold and the waiter forgot us", "we left"),
    ("rain all day", "the river rose and the walk was wet"),
    ("nobody answered the phone for a week", "I wrote a letter to the house"),
    ("good bread", "we came back"),
)


def rows():
    return tuple(
        Example({"text": text}, (0,), (), (target, "nothing"), source=f"row {number}")
        for number, (text, target) in enumerate(TEXTS)
    )


@pytest.fixture
def task():
    return Task(FORMAT, rows(), (), rows())


def config_of(backbone, method="prompt-tuning", readout=None, **training):
    readout = {"kind": "writing", "max_new_tokens": 12, **(readout or {})}
    return run_config(backbone, method, readout, **training)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5", "bart"])
def test_a_run_writes_and_is_read_again(tiny, task, kind, tmp_path):
    backbone = tiny(kind)
    outcome = execute(config_of(backbone), backbone, task, folder=tmp_path / "run")
    result = sp.Result.of(outcome)
    assert result.summary["metric"] == "exact-match + rouge-l"
    assert result.summary["metrics"]["perplexity"] > 1
    inputs = [dict(row.fields) for row in task.validation]
    written = result.predict(inputs)
    assert written == sp.load(tmp_path / "run", backbone).predict(inputs)
    assert list(result.evaluate(task.validation).texts) == written
    assert [result.predict([one])[0] for one in inputs] == written


def built(backbone, task, method="prompt-tuning", readout=None):
    model = build_model(config_of(backbone, method, readout), backbone, task.format)
    wake(model)
    return model


def written(model, examples):
    encoded = list(map(model.readout.encode, examples))
    return write_examples(model.backbone, [(model.prompt, model.readout)], [encoded])


METHODS = [name for name in PRESETS if name != "head-only"]


@pytest.mark.parametrize(("kind", "method"), covering(list(product(("llama", "t5"), METHODS)), 1))
def test_every_method_is_trained_and_writes_in_a_batch_what_it_writes_alone(
    tiny, task, kind, method, monkeypatch
):
    model = built(tiny(kind), task, method)
    encoded = list(map(model.readout.encode, task.train))
    if method == "in-context":
        assert model.readout.show(task.train, 20)
        encoded = list(map(model.readout.encode, task.train))
    joint = collate(encoded, model.backbone.tokenizer.pad_token_id)
    draws = Draws(0, 1, 0, torch.arange(4), 4, 1.0)
    drawn = score(model.backbone, [Part(model.prompt, model.readout, joint, draws)])[0]
    model.readout.loss(drawn, joint).mean().backward() if model.num_parameters else None
    sets = set(model.prompt.pool.sets.parameters()) if model.prompt.pool.is_sparse else set()
    assert all(p in sets or p.grad.any() for p in model.parameters)
    with torch.no_grad():
        scores = score(model.backbone, [Part(model.prompt, model.readout, joint)])[0]
    alone, _ = score_examples(model.backbone, model.prompt, model.readout, encoded)
    for line, row in zip(alone, scores, strict=True):
        torch.testing.assert_close(torch.tensor(line), row[: len(line)], atol=2e-5, rtol=1e-4)
    texts = write_examples(model.backbone, [(model.prompt, model.readout)], [encoded])
    monkeypatch.setattr(evaluation, "by_length", lambda rows: [[i] for i in range(len(rows))])
    assert texts == write_examples(model.backbone, [(model.prompt, model.readout)], [encoded])


def test_a_readout_alone_is_no_run_that_writes(tiny):
    with pytest.raises(RecipeError, match="`readout` must have trainable parameters"):
        config_of(tiny("llama"), "head-only")


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_the_loss_is_pefts(tiny, backbone_folder, task, kind):
    """The same rows, input and target: peft's loss of labels that are the target's tokens."""
    backbone = tiny(kind)
    model = built(backbone, task, readout={"max_new_tokens": 30})
    network = AutoModelForCausalLM.from_pretrained(backbone_folder(kind))
    theirs = get_peft_model(
        network, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    ).eval()
    with torch.no_grad():
        theirs.prompt_encoder["default"].embedding.weight.copy_(model.prompt.bake())
    encoded = list(map(model.readout.encode, task.train))
    _, losses = score_examples(backbone, model.prompt, model.readout, encoded)
    for one, loss in zip(encoded, losses, strict=True):
        (item,) = one.inputs
        (target,) = item.targets
        assert target.tokens[-1] == backbone.tokenizer.eos_token_id
        ids = torch.tensor([[*item.alone.ids, *target.tokens]])
        labels = ids.clone()
        labels[:, : len(item.alone.ids)] = -100
        expected = theirs(input_ids=ids, labels=labels).loss.detach()
        assert loss == pytest.approx(float(expected), abs=1e-5)


def test_the_loss_of_an_encoder_decoder_is_that_of_transformers(tiny, task):
    backbone = tiny("t5")
    model = built(backbone, task, "zero-shot")
    encoded = list(map(model.readout.encode, task.train))
    _, losses = score_examples(backbone, model.prompt, model.readout, encoded)
    for one, loss in zip(encoded, losses, strict=True):
        (item,) = one.inputs
        labels = torch.tensor([item.targets[0].tokens])
        expected = backbone.model(input_ids=torch.tensor([item.ids]), labels=labels).loss.detach()
        assert loss == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"stop": ["ou"]}])
@pytest.mark.parametrize("kind", ["llama", "t5", "gpt2"])
def test_without_a_prompt_texts_are_those_of_transformers(tiny, task, kind, options):
    backbone = tiny(kind)
    model = built(backbone, task, "zero-shot", options)
    more = {key: value for key, value in options.items() if key != "stop"}
    for text, row in zip(written(model, task.train), task.train, strict=True):
        ids = torch.tensor([model.readout.encode_input(row).ids])
        found = backbone.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=backbone.tokenizer.eos_token_id,
            pad_token_id=backbone.tokenizer.pad_token_id,
            **more,
        )
        start = 0 if kind == "t5" else ids.shape[1]
        expected = backbone.tokenizer.decode(found[0, start:], skip_special_tokens=True)
        for stop in options.get("stop", ()):
            expected = expected.partition(stop)[0]
        assert text == expected.strip()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_tokens_are_drawn_for_each_input_by_itself(tiny, task, kind, monkeypatch):
    backbone = tiny(kind)
    drawing = {"temperature": 1.5, "top_p": 0.9}
    model = built(backbone, task, "prompt-tuning", drawing)
    state = torch.get_rng_state()
    texts = written(model, task.train)
    assert torch.equal(state, torch.get_rng_state())
    assert texts != written(built(backbone, task), task.train)
    assert texts != written(
        built(backbone, task, readout={**drawing, "sampling_seed": 1}), task.train
    )
    assert texts == written(model, task.train[::-1])[::-1]
    monkeypatch.setattr(evaluation, "by_length", lambda rows: [[i] for i in range(len(rows))])
    monkeypatch.setattr(evaluation, "by_equal_length", evaluation.by_length)
    assert texts == written(model, task.train)


def test_drawn_tokens_have_the_probabilities_of_the_model():
    batch = collate([EncodedExample((EncodedInput((5,), (0,), (1,), 0, 1),), 1, (), False)], 0)
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]])
    draws = DrawnTokens(0, batch)
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[draws(torch.empty(1, 0), logits).argmax()] += 1
    torch.testing.assert_close(counts / 4000, logits.softmax(dim=1)[0], atol=0.03, rtol=0)


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning-v2", "adap-ins-pos"])
def test_a_cache_changes_no_text(tiny, task, kind, method):
    model = built(tiny(kind), task, method)
    rows = [without_targets(model.readout.encode(row)) for row in task.train]
    batch = collate(rows, model.backbone.tokenizer.pad_token_id)
    options = write_options(model.backbone, model.readout, [batch])
    part = Part(model.prompt, model.readout, batch)
    plain, kept = (write(model.backbone, [part], **options, use_cache=on) for on in (False, True))
    assert torch.equal(plain, kept)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_fast_and_plain_reading_give_the_same_loss(tiny, task, kind, monkeypatch):
    model = built(tiny(kind), task, "residual")
    encoded = list(map(model.readout.encode, task.train))
    joint = collate(encoded, model.backbone.tokenizer.pad_token_id)
    part = Part(model.prompt, model.readout, joint)
    found = []
    for reader in (PlainReader(), READER):
        monkeypatch.setattr(forward, "find_reader", lambda reader=reader: reader)
        loss = model.readout.loss(score(model.backbone, [part])[0], joint).sum()
        gradient = torch.autograd.grad(loss, model.parameters)
        found.append([loss, *gradient])
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


class StopAt(Progress):
    def update(self, step, total_steps):
        if step == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_stopped_run_goes_on_bit_for_bit(tiny, task, kind, tmp_path):
    backbone = tiny(kind)
    config = config_of(backbone, "residual", {"num_beams": 2}, checkpoint_every_steps=1)
    whole = execute(config, backbone, task, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        execute(config, backbone, task, folder=tmp_path / "run", progress=StopAt())
    assert (tmp_path / "run" / "state").exists()
    again = execute(config, backbone, task, folder=tmp_path / "run")
    assert torch.equal(again.model.prompt.bake(), whole.model.prompt.bake())
    assert again.result["metrics"] == whole.result["metrics"]


def test_what_is_cut_is_counted(tiny, task):
    backbone = tiny("llama")
    encode = built(backbone, task, readout={"max_new_tokens": 3}).readout.encode
    long = encode(task.train[1])
    assert long.is_cut
    (target,) = long.inputs[0].targets
    assert len(target.tokens) == 3
    assert target.tokens[-1] != backbone.tokenizer.eos_token_id
    endless = replace(task.train[0], references=("rain all day " * 60,))
    with pytest.raises(DataError, match=r"row 0.*target`: must be a text of .* 51 .* has 420"):
        encode(endless)


def test_inputs_leave_room_for_what_is_written(tiny, task):
    backbone = tiny("llama")
    readout = built(backbone, task).readout
    row = replace(task.train[0], fields={"text": "the river rose " * 60})
    encoded = readout.encode(row)
    assert encoded.is_cut
    (item,) = encoded.inputs
    assert len(item.alone.ids) == backbone.context_length - 4 - 12
    assert item.alone == readout.encode_input(row, 12)
    assert readout.encode(replace(row, references=("rain",))).inputs[0].alone == item.alone


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    """Return a tiny decoder whose tokenizer writes chats."""
    folder = build("qwen3", tmp_path_factory.mktemp("chat"), max_position_embeddings=1024)
    (folder / "chat_template.jinja").write_text(CHATML)
    return sp.load_backbone(str(folder))


CHATS = (
    [("user", "rain all day"), ("assistant", "we left")],
    [
        ("system", "Be brief."),
        ("user", "the soup <|im_end|> was cold"),
        ("assistant", "and then?"),
        ("user", "the waiter forgot us"),
        ("assistant", "we came back"),
    ],
)


def chat_file(folder, name, chats):
    lines = [
        json.dumps({"messages": [{"role": role, "content": text} for role, text in chat]})
        for chat in chats
    ]
    (folder / name).write_text("\n".join(lines))


def test_rows_that_are_chats_are_read_as_the_tokenizer_writes_them(chatty, tmp_path):
    chat_file(tmp_path, "chats.jsonl", CHATS)
    options = {"train": "chats.jsonl", "validation": "chats.jsonl", "messages_field": "messages"}
    own = sp.load_task("files", data_dir=tmp_path, options={**options, "metrics": ["chrf"]})
    model = built(chatty, own)
    for chat, row in zip(CHATS, own.train, strict=True):
        (item,) = model.readout.encode(row).inputs
        plain = [{"role": r, "content": t.replace("<|im_end|>", "#")} for r, t in chat[:-1]]
        ids = chatty.tokenizer.apply_chat_template(
            plain, add_generation_prompt=True, return_dict=True
        )["input_ids"]
        spelled = chatty.tokenizer("<|im_end|>", split_special_tokens=True)["input_ids"]
        mark = chatty.tokenizer("#")["input_ids"]
        said = " ".join(map(str, item.alone.ids)).replace(
            " ".join(map(str, spelled)), " ".join(map(str, mark))
        )
        assert said == " ".join(map(str, ids))
        assert chatty.tokenizer.decode(item.targets[0].tokens) == f"{chat[-1][1]}<|im_end|>"
    result = sp.Result.of(execute(config_of(chatty), chatty, own))
    chats = [[{"role": role, "content": text} for role, text in chat[:-1]] for chat in CHATS]
    texts = result.predict([{"messages": chat} for chat in chats])
    assert texts == list(result.evaluate(own.train).texts)
    with pytest.raises(DataError, match="`messages`: must be a chat"):
        result.predict([{"messages": chats[1][:1]}])


def test_the_end_of_a_turn_is_the_end_of_a_text(tmp_path, task):
    """Where a chat ends turns with another token than the tokenizer ends texts with."""
    folder = build("qwen3", tmp_path, max_position_embeddings=1024)
    other = CHATML.replace("<|im_end|>", "<|endoftext|>")
    (folder / "chat_template.jinja").write_text(other)
    backbone = sp.load_backbone(str(folder))
    for form, end in (("chat", "<|endoftext|>"), ("plain", "<|im_end|>")):
        model = built(backbone, task, readout={"form": form, "max_new_tokens": 40})
        rows = [model.readout.encode(row) for row in task.train]
        ids = {row.inputs[0].targets[0].tokens[-1] for row in rows}
        assert backbone.tokenizer.convert_ids_to_tokens(list(ids)) == [end]
        batch = collate(list(map(without_targets, rows)), 0)
        assert ids <= set(write_options(backbone, model.readout, [batch])["eos_token_id"])


def test_a_chat_must_end_with_an_answer(tmp_path):
    options = {"train": "chats.jsonl", "validation": "chats.jsonl", "messages_field": "messages"}
    options |= {"metrics": ["chrf"]}
    for chat, text in (
        (CHATS[0][:1], "messages`: must end with a text of the assistant, but that is .*'user'"),
        ([("user", "a"), ("assistant", " ")], "messages`: must end with a text of the assistant"),
        (
            [("system", "b"), ("assistant", "a")],
            "messages`: must be a chat, but .*turn of the user",
        ),
        ([], "messages`: must end with a text of the assistant, but that is not there"),
    ):
        chat_file(tmp_path, "chats.jsonl", [CHATS[0], chat])
        with pytest.raises(DataError, match=f"chats.jsonl:2, field `{text}"):
            sp.load_task("files", data_dir=tmp_path, options=options)


def members(backbone, task, methods, readout=None):
    found = []
    for seed, method in enumerate(methods):
        config = config_of(backbone, method, readout).model_copy(update={"seed": seed})
        outcome = execute(config, backbone, task)
        wake(outcome.model)
        found.append(sp.Result.of(outcome))
    return found


def greedy_by_hand(results, row, num_tokens):
    """Write token by token without a cache: the mean of the members' next probabilities."""
    ids, backbone = [], results[0].backbone
    for _ in range(num_tokens):
        total = 0
        for one in results:
            readout = one.model.readout
            item = readout.encode_input(row, 12)
            if readout.family == "decoder":
                item = item.followed_by(ids, 5)
            item = replace(item, targets=(Target(0, (*ids, 0)),))
            batch = collate([EncodedExample((item,), 1, (0,), False)], 0)
            part = Part(one.model.prompt, readout, batch)
            request = forward.ask(backbone, part, forward.emit(backbone, part))
            (logits,) = PlainReader().read(backbone, [request])
            total = total + logits[0, len(ids)].softmax(dim=0)
        ids.append(int(total.argmax()))
        if ids[-1] == backbone.tokenizer.eos_token_id:
            break
    return backbone.tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("kind", ["llama", "t5", "gpt2"])
def test_an_ensemble_writes_with_mean_probabilities_token_by_token(tiny, task, kind, tmp_path):
    backbone = tiny(kind)
    results = members(backbone, task, ["prompt-tuning", "p-tuning-v2", "residual"])
    both = sp.ensemble(results)
    with torch.no_grad():
        expected = [greedy_by_hand(both.members, row, 12) for row in task.train]
    found = both.evaluate(task.validation)
    assert list(found.texts) == expected
    assert expected not in [list(one.evaluate(task.validation).texts) for one in results]
    each = [one.evaluate(task.validation).scores for one in results]
    for place, line in enumerate(found.scores):
        mean = sum(torch.tensor(own[place]).exp() for own in each) / 3
        torch.testing.assert_close(torch.tensor(line), mean, atol=1e-5, rtol=1e-4)
    assert found.metrics["perplexity"] > 1
    both.save(tmp_path / "kept")
    assert (
        sp.load(tmp_path / "kept", backbone).predict([dict(task.train[0].fields)]) == expected[:1]
    )


@pytest.mark.parametrize("readout", [{"num_beams": 2}, {"temperature": 1.0}])
@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_equal_members_write_what_one_writes(tiny, task, kind, readout):
    (one,) = members(tiny(kind), task, ["prompt-tuning"], readout)
    twin = members(tiny(kind), task, ["prompt-tuning"] * 2, readout)[1]
    twin.model.load(one.model.state())
    alone = one.evaluate(task.validation)
    assert sp.ensemble([one, twin]).evaluate(task.validation).texts == alone.texts


def test_members_that_cannot_write_together_say_why(tiny, task):
    backbone = tiny("llama")
    first, other = members(backbone, task, ["prompt-tuning", "lora"])
    with pytest.raises(BackboneError, match=r"share one backbone to write together.* have 2"):
        sp.ensemble([first, other]).predict([dict(task.train[0].fields)])
    (beams,) = members(backbone, task, ["residual"], {"num_beams": 2})
    with pytest.raises(DataError, match=r"way to write of .*num_beams.: 1.*num_beams.: 2"):
        sp.ensemble([first, beams])
