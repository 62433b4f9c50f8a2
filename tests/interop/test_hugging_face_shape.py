"""A model with prompts works where a model of transformers does."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from interop_material import TEXTS
from safetensors.torch import load_file
from transformers import (
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
    pipeline,
)

import softprompts as sp
from parity.material import padded
from softprompts import prompt_folder
from softprompts.errors import (
    BackboneError,
    PromptError,
    RunFolderError,
    SoftPromptsWarning,
    StorageError,
)

KINDS = ["bert", "gpt2", "llama", "t5"]
FEW = ["gpt2", "t5", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("bert", "llama"))]
METHODS = ["prompt-tuning", "residual", "p-tuning-v2"]
MANY = {"few": sp.PromptConfig(length=2), "more": sp.PromptConfig(method="residual", length=4)}


def make(backbone, prompt=None, **options):
    config = prompt or sp.PromptConfig(length=3)
    return sp.SoftPromptModel(backbone, config, with_logits=True, **options)


def examples(backbone, count=8):
    """Return examples of equal length with labels, as a data set of transformers."""
    lines = [backbone.tokenizer(text)["input_ids"][:6] for text in TEXTS]
    rows = []
    for number in range(count):
        ids = lines[number % 2]
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": ids})
    return rows


def arguments(folder, kind=TrainingArguments, **more):
    given = {
        "output_dir": str(folder),
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "save_steps": 2,
        "eval_steps": 2,
        "logging_steps": 2,
    }
    return kind(**{**given, **more})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_that_of_its_logits(tiny, kind, method):
    backbone = tiny(kind)
    model = make(backbone, sp.PromptConfig(method=method, length=3))
    ids, mask = padded(backbone, TEXTS)
    labels = ids.masked_fill(mask == 0, -100)
    output = model(ids, mask, labels=labels)
    assert isinstance(output, transformers.utils.ModelOutput)
    assert list(output) == ["loss", "logits"]
    logits, wanted = output.logits, labels
    assert logits.shape == (*ids.shape, backbone.vocabulary_size)
    if backbone.family == "decoder":
        logits, wanted = logits[:, :-1], labels[:, 1:]
    chosen = wanted != -100
    picked = logits.log_softmax(dim=-1)[chosen].gather(1, wanted[chosen][:, None])
    torch.testing.assert_close(output.loss, -picked.mean())
    halved = model(ids, mask, labels=labels, num_items_in_batch=2 * int(chosen.sum())).loss
    torch.testing.assert_close(2 * halved, output.loss)
    output.loss.backward()
    assert all(one.grad is not None for one in model.parameters())
    assert any(one.grad.abs().sum() > 0 for one in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_logits_of_an_encoder_decoder_are_those_it_writes_by(tiny, method):
    backbone = tiny("t5")
    model = make(backbone, sp.PromptConfig(method=method, length=3)).eval()
    ids, mask = padded(backbone, TEXTS)
    written = model.generate(ids, mask, max_new_tokens=5, do_sample=False, eos_token_id=None)
    logits = model(ids, mask, decoder_input_ids=written).logits
    assert torch.equal(logits[:, :-1].argmax(dim=-1), written[:, 1:])


def test_what_does_not_fit_is_refused(tiny):
    ids = torch.tensor([[5, 6, 7]])
    with pytest.raises(BackboneError, match="`labels` or `decoder_input_ids` must be given for lo"):
        make(tiny("t5"))(ids)
    with pytest.raises(BackboneError, match="`decoder_input_ids` must be left out for"):
        make(tiny("gpt2"))(ids, decoder_input_ids=ids)
    with pytest.raises(BackboneError, match="`labels` must be left out for hidden states of"):
        sp.SoftPromptModel(tiny("gpt2"))(ids, labels=ids)
    with pytest.raises(BackboneError, match=r"but is {'use_reentrant': False, 'a': 1, "):
        make(tiny("gpt2")).gradient_checkpointing_enable({"a": 1})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("third", [{"method": "p-tuning-v2"}, {"active_length": {"count": 1}}])
def test_several_prompts_read_one_batch(tiny, kind, third):
    backbone = tiny(kind)
    names = ["more", "few", "third", "more"]
    ids, mask = padded(backbone, (*TEXTS, "rain", "a walk"))
    prompts = {**MANY, "third": sp.PromptConfig.model_validate({"length": 3, **third})}
    for with_logits in (False, True):
        model = sp.SoftPromptModel(backbone, prompts, with_logits=with_logits).eval()
        given = {"decoder_input_ids": ids} if with_logits and kind == "t5" else {}
        output = model(ids, mask, prompt_names=names, **given)
        for number, name in enumerate(names):
            prompt = model.prompts[name]
            alone = sp.SoftPromptModel(backbone, prompt, with_logits=with_logits).eval()
            one = {key: value[number : number + 1] for key, value in given.items()}
            single = alone(ids[number : number + 1], mask[number : number + 1], **one)
            for key, value in single.items():
                found = output[key][number : number + 1, : value.shape[1]]
                torch.testing.assert_close(found, value, atol=1e-5, rtol=1e-5)
        if not with_logits:
            assert output.prompt_hidden_state.shape[1] == 4
            assert output.prompt_hidden_state[1, 2:].abs().sum() == 0
    if kind != "bert":
        options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
        whole = model.generate(ids, mask, prompt_names=names, **options)
        for number, name in enumerate(names):
            alone = sp.SoftPromptModel(backbone, model.prompts[name])
            single = alone.generate(ids[number : number + 1], mask[number : number + 1], **options)
            assert torch.equal(whole[number : number + 1], single)


def test_names_of_prompts_are_checked(tiny):
    ids, model = torch.tensor([[5, 6, 7]]), make(tiny("gpt2"), MANY)
    for names, said in ((None, "is None"), (["few", "few"], "has 2"), (["no"], r"has \['no'\]")):
        with pytest.raises(
            PromptError, match=f"must have one of few, more for each of 1 .* {said}"
        ):
            model(ids, prompt_names=names)
    with pytest.raises(PromptError, match="`prompt_names` must be left out for a model of one"):
        make(tiny("gpt2"))(ids, prompt_names=["few"])
    for prompts in ({}, {"a.b": None}, {"keys": None}):
        with pytest.raises(PromptError, match="prompts must have names, without dots"):
            make(tiny("gpt2"), prompts) if prompts else sp.SoftPromptModel(tiny("gpt2"), prompts)


@pytest.mark.parametrize("kind", FEW)
def test_a_trainer_trains_evaluates_resumes_and_loads_the_best(tiny, tmp_path, kind):
    backbone = tiny(kind)
    before = copy.deepcopy(backbone.model.config.to_dict())
    rows = examples(backbone)

    def trainer(folder, **more):
        best = {"eval_strategy": "steps", "load_best_model_at_end": True}
        return Trainer(
            make(backbone),
            arguments(tmp_path / folder, **{**best, **more}),
            train_dataset=rows,
            eval_dataset=rows[:4],
        )

    whole = trainer("whole")
    start = whole.evaluate()["eval_loss"]
    whole.train()
    assert whole.evaluate()["eval_loss"] < start
    assert whole.predict(rows[:2]).predictions.shape == (2, 6, backbone.vocabulary_size)
    trainer("parts", max_steps=2, lr_scheduler_type="constant").train()
    again = trainer("parts", lr_scheduler_type="constant")
    again.train(resume_from_checkpoint=True)
    straight = trainer("straight", lr_scheduler_type="constant")
    straight.train()
    assert torch.equal(again.model.prompt.bake(), straight.model.prompt.bake())
    assert backbone.model.config.to_dict() == before
    assert all(not one.requires_grad for one in backbone.model.parameters())


def test_the_best_state_is_the_one_that_is_kept(tiny, tmp_path):
    rows = examples(tiny("gpt2"))
    others = [{**row, "labels": [30] * 6} for row in rows]
    trainer = Trainer(
        make(tiny("gpt2")),
        arguments(tmp_path, eval_strategy="steps", load_best_model_at_end=True, max_steps=6),
        train_dataset=[{**row, "labels": [20] * 6} for row in rows],  # the later, the worse
        eval_dataset=others,
    )
    trainer.train()
    losses = [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line]
    assert min(losses) < losses[-1]
    assert math.isclose(trainer.evaluate()["eval_loss"], min(losses), rel_tol=1e-5)


def test_a_sequence_to_sequence_trainer_writes(tiny, tmp_path):
    backbone = tiny("t5")
    rows = examples(backbone)
    trainer = Seq2SeqTrainer(
        make(backbone),
        arguments(
            tmp_path,
            Seq2SeqTrainingArguments,
            predict_with_generate=True,
            generation_max_length=7,
            eval_strategy="steps",
        ),
        train_dataset=rows,
        eval_dataset=rows[:4],
        processing_class=backbone.tokenizer,
        data_collator=DataCollatorForSeq2Seq(backbone.tokenizer, model=None),
    )
    trainer.train()
    found = trainer.predict(rows[:2])
    assert (found.predictions[:, 7:] == backbone.tokenizer.pad_token_id).all()
    assert (found.predictions[:, 1:7] != backbone.tokenizer.pad_token_id).any()
    assert found.metrics["test_loss"] > 0


def test_gradient_checkpointing_changes_no_number(backbone_folder):
    backbone = sp.load_backbone(str(backbone_folder("gpt2")))
    model = make(backbone)
    ids, mask = padded(backbone, TEXTS)
    grads = []
    for switch in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        switch()
        model.zero_grad()
        model(ids, mask, labels=ids).loss.backward()
        grads.append(next(model.parameters()).grad.clone())
    assert model.is_gradient_checkpointing
    assert torch.equal(*grads)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pipelines_take_it(tiny):
    backbone = tiny("gpt2")
    writer = make(backbone).eval()
    given = {"model": writer, "tokenizer": backbone.tokenizer, "device": "cpu"}
    pipe = pipeline("text-generation", **given, with_input=True, max_new_tokens=4, do_sample=False)
    ids = backbone.tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    new = backbone.tokenizer.decode(writer.generate(ids, max_new_tokens=4, do_sample=False)[0])
    assert pipe(TEXTS[0])[0]["generated_text"] == TEXTS[0] + new
    backbone = tiny("bert")
    filler = make(backbone).eval()
    pipe = pipeline("fill-mask", model=filler, tokenizer=backbone.tokenizer, device="cpu")
    text = f"the soup was {backbone.tokenizer.mask_token}"
    given = backbone.tokenizer(text, return_tensors="pt")
    place = given["input_ids"][0].tolist().index(backbone.tokenizer.mask_token_id)
    best = int(filler(**given).logits[0, place].argmax())
    assert pipe(text)[0]["token"] == best
    states = sp.SoftPromptModel(backbone, filler.prompt).eval()
    pipe = pipeline("feature-extraction", model=states, tokenizer=backbone.tokenizer, device="cpu")
    expected = states(**backbone.tokenizer(TEXTS[0], return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(torch.tensor(pipe(TEXTS[0])), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_folders_give_the_same_model_back(backbone_folder, tmp_path, kind):
    backbone = sp.load_backbone(str(backbone_folder(kind)))
    ids, mask = padded(backbone, TEXTS)
    for number, prompt in enumerate((*(sp.PromptConfig(method=m) for m in METHODS), MANY)):
        model = make(backbone, prompt, seed=3).eval()
        with torch.no_grad():
            for one in model.parameters():
                one.add_(0.1)
        names = {"prompt_names": ["few", "more"]} if prompt is MANY else {}
        model.save_pretrained(tmp_path / str(number))
        again = sp.SoftPromptModel.from_pretrained(tmp_path / str(number)).eval()
        labels = {"labels": ids}
        assert torch.equal(
            model(ids, mask, **names, **labels).logits, again(ids, mask, **names, **labels).logits
        )
        assert again._about() == model._about()
        with pytest.raises(RunFolderError, match="must be a new or empty folder"):
            again.save_pretrained(tmp_path / str(number))
    start = {"kind": "file", "path": str(tmp_path / "0")}
    first = sp.PromptConfig.model_validate({"length": 10, "initializer": start})
    kept = sp.SoftPromptModel.from_pretrained(tmp_path / "0", backbone).prompt.bake()
    torch.testing.assert_close(sp.SoftPromptModel(backbone, first).prompt.bake(), kept)


def test_folders_that_do_not_fit_are_refused(tiny, backbone_folder, tmp_path):
    make(tiny("gpt2")).save_pretrained(tmp_path / "one")
    with pytest.raises(
        BackboneError, match="must have the weights that the prompt was trained for"
    ):
        sp.SoftPromptModel.from_pretrained(tmp_path / "one", tiny("llama"))
    existing = sp.SoftPromptModel(tiny("gpt2"), make(tiny("gpt2")).prompt)
    with pytest.raises(
        PromptError, match="`prompt` must be a PromptConfig or a Result to be saved, but is a"
    ):
        existing.save_pretrained(tmp_path / "two")
    assert not (tmp_path / "two").exists()
    (tmp_path / "one" / "prompt_config.json").unlink()
    with pytest.raises(StorageError, match=r"[Nn]o such file"):
        sp.SoftPromptModel.from_pretrained(tmp_path / "one")


PUSH = """
import sys, softprompts as sp
model = sp.SoftPromptModel.from_pretrained(sys.argv[1])
print(model.push_to_hub("me/prompt", token="hf_none", private=True))
"""
LOAD = """
import softprompts as sp
print(sp.SoftPromptModel.from_pretrained("me/prompt").prompt.bake().tolist())
"""


@pytest.mark.parametrize(
    ("section", "key", "value", "text"),
    [
        ("backbone", "fingerprint", None, "`backbone.fingerprint` must be text, but is null"),
        ("backbone", "dtype", "int8", "`backbone.dtype` must be one of float32, bfloat16, float16"),
        ("options", "seed", -1, "`options.seed` must be at least 0, but is -1"),
        ("options", "shell", "x", "`options.shell` is an unknown key"),
        ("prompts", "", {"length": "x"}, "must be a whole number or one of text, but is 'x'"),
        ("prompts", "", {"length": 4}, "must be those of its prompts, "),
    ],
)
def test_a_folder_that_was_edited_is_one_line(tiny, tmp_path, section, key, value, text):
    backbone = tiny("gpt2")
    make(backbone).save_pretrained(tmp_path / "one")
    path = tmp_path / "one" / prompt_folder.ABOUT_FILE
    about = json.loads(path.read_text())
    about[section][key] = value
    path.write_text(json.dumps(about))
    with pytest.raises((RunFolderError, StorageError)) as caught:
        sp.SoftPromptModel.from_pretrained(tmp_path / "one", backbone)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_prompts_go_to_a_hub_and_come_back(backbone_folder, tmp_path, hub_elsewhere):
    model = make(sp.load_backbone(str(backbone_folder("gpt2"))))
    model.save_pretrained(tmp_path / "kept")
    pushed, error = hub_elsewhere.run(PUSH, str(tmp_path / "kept"))
    assert pushed.strip() == f"{hub_elsewhere.address}/me/prompt/commit/{'0' * 40}", error
    loaded, error = hub_elsewhere.run(LOAD)
    assert loaded, error
    assert json.loads(loaded) == model.prompt.bake().tolist()
    assert "POST /api/repos/create" in hub_elsewhere.asked
    files = sorted(one.name for one in (hub_elsewhere.root / "me" / "prompt").iterdir())
    assert files == ["prompt.safetensors", prompt_folder.ABOUT_FILE]


def test_it_says_what_it_is_and_is_copied(backbone_folder):
    backbone = sp.load_backbone(str(backbone_folder("gpt2")))
    model = make(backbone, MANY)
    count = sum(one.numel() for one in model.parameters())
    assert repr(model).endswith(f"few: 2 rows, more: 4 rows, {count:,} trainable numbers)")
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)
    assert model.config is not backbone.model.config
    assert model.to("cpu") is model
    ids = torch.tensor([[5, 6, 7]])
    expected = model(ids, prompt_names=["few"]).logits
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(ids, prompt_names=["few"]).logits, expected)


@pytest.mark.slow
def test_two_processes_train_as_one(backbone_folder, tmp_path):
    script, rows = Path(__file__).with_name("two_processes.py"), []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = ["-m", "torch.distributed.run", "--master-port", port]
    for count in (1, 2):
        place = tmp_path / f"{count}.safetensors"
        given = [str(script), str(backbone_folder("gpt2")), str(place)]
        command = [sys.executable, *launch, "--nproc-per-node", str(count), *given]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        found = load_file(place)
        assert int(found["processes"]) == count
        rows.append(found["rows"])
    torch.testing.assert_close(*rows)
    start = make(sp.load_backbone(str(backbone_folder("gpt2")))).prompt.bake()
    assert not torch.allclose(rows[0], start, atol=1e-3)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_the_same_under_left_padding(tiny, kind, method):
    backbone = tiny(kind)
    model = make(backbone, sp.PromptConfig(method=method, length=3)).eval()
    ids, mask = padded(backbone, TEXTS)
    shifts = (mask == 0).sum(dim=1)
    assert shifts.max() > 0
    pairs = zip(range(len(ids)), shifts.tolist(), strict=True)
    left = torch.stack([ids[row].roll(shift) for row, shift in pairs])
    pairs = zip(range(len(ids)), shifts.tolist(), strict=True)
    left_mask = torch.stack([mask[row].roll(shift) for row, shift in pairs])
    losses = [
        model(x, m, labels=x.masked_fill(m == 0, -100)).loss
        for x, m in ((ids, mask), (left, left_mask))
    ]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (torch.tensor([[1, 2]]), r"shape \(1, 3\) and whole numbers, but are \(1, 2\)"),
        (torch.ones(1, 3), "but are .* and torch.float32"),
        (torch.tensor([[1, 2, -7]]), "token ids from 0 to .*, or -100, but have -7"),
        (torch.tensor([[1, 2, 10**6]]), "but have 1000000"),
    ],
)
def test_wrong_labels_are_named(tiny, labels, text):
    with pytest.raises(sp.DataError, match=text):
        make(tiny("gpt2"))(torch.tensor([[5, 6, 7]]), labels=labels)


def test_labels_of_an_encoder_decoder_have_a_length_of_their_own(tiny):
    model, ids = make(tiny("t5")), torch.tensor([[5, 6, 7]])
    assert model(ids, labels=ids[:, :2]).logits.shape[:2] == (1, 2)
    with pytest.raises(sp.DataError, match=r"must be of shape \(1, targets\) .*, but are \(3,\)"):
        model(ids, labels=ids[0])


def test_trainer_switches_checkpointing_on(backbone_folder, tmp_path):
    backbone = sp.load_backbone(str(backbone_folder("gpt2")))
    weights = []
    for is_on in (False, True):
        model = make(backbone)
        given = arguments(tmp_path / str(is_on), activation_checkpointing=is_on)
        Trainer(model=model, args=given, train_dataset=examples(backbone)).train()
        assert model.is_gradient_checkpointing == model.is_activation_checkpointing == is_on
        weights.append(next(model.parameters()).detach().clone())
    assert torch.equal(*weights)
    saved = load_file(tmp_path / "True" / "checkpoint-4" / "model.safetensors")
    again = make(backbone)
    again.load_state_dict(saved)
    assert torch.equal(next(again.parameters()), weights[1])
    with pytest.raises(BackboneError, match=r"'every_n_layers': 2"):
        model.activation_checkpointing_enable(every_n_layers=2)
    model.activation_checkpointing_disable()
    assert not model.is_gradient_checkpointing


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_text_is_written_as_its_own_generation_config_says(tiny, kind):
    backbone = tiny(kind)
    model, ids = make(backbone).eval(), torch.tensor([[5, 6, 7]])
    options = {"do_sample": False, "eos_token_id": None}
    told = model.generate(ids, max_new_tokens=3, num_beams=2, **options)
    for name, value in {**options, "max_new_tokens": 3, "num_beams": 2}.items():
        setattr(model.generation_config, name, value)
    assert torch.equal(model.generate(ids), told)
    assert model.generate(ids, max_new_tokens=5).shape[1] == told.shape[1] + 2
    own = transformers.GenerationConfig(max_new_tokens=2, **options)
    assert model.generate(ids, generation_config=own).shape[1] == told.shape[1] - 1
    assert backbone.model.generation_config.max_new_tokens is None


def test_what_cannot_be_written_is_refused(tiny):
    model, ids = make(tiny("gpt2")), torch.tensor([[5, 6, 7]])
    with pytest.raises(BackboneError, match="`return_dict_in_generate` must be left out, since"):
        model.generate(ids, return_dict_in_generate=True)
    with pytest.raises(BackboneError, match="`assistant_model` must be left out, since it would"):
        model.generate(ids, assistant_model=model.backbone.model)
    with pytest.raises(BackboneError, match="must be what transformers can write, but it says"):
        model.generate(ids, max_new_tokens=-1)


def test_what_a_model_is_built_of_is_checked(tiny):
    with pytest.raises(BackboneError, match="must be what load_backbone returns, but is 'minilm'"):
        sp.SoftPromptModel("minilm")
    for wrong in ({"length": 4}, 4):
        with pytest.raises(
            PromptError, match=r"`prompt` must be a PromptConfig, a Prompt, .* is 4"
        ):
            sp.SoftPromptModel(tiny("gpt2"), wrong)
    with pytest.raises(PromptError, match="must not be labels here"):
        sp.SoftPromptModel(tiny("gpt2"), sp.PromptConfig(initializer="labels"))
    with pytest.warns(SoftPromptsWarning, match="text starts at random words here"):
        sp.SoftPromptModel(tiny("gpt2"), sp.PromptConfig(method="stable"))
    text = {"kind": "text", "text": "the soup was good"}
    model = sp.SoftPromptModel(tiny("gpt2"), sp.PromptConfig(initializer=text, length=2))
    words = model.backbone.tokenizer(text["text"])["input_ids"][:2]
    torch.testing.assert_close(model.prompt.bake(), model.backbone.embed(torch.tensor(words)))


@pytest.mark.parametrize("method", ["residual", "stable"])
def test_results_are_prompts_of_a_model(backbone_folder, tmp_path, method):
    task = sp.load_task("bundled/sentiment")
    backbone = sp.load_backbone(str(backbone_folder("llama")))
    few = sp.TrainingConfig(steps=2, num_evaluations=1)
    prompt = sp.PromptConfig(method=method)
    one, two = (
        sp.train(backbone, task, prompt=prompt, readout="text", training=few, seed=seed)
        for seed in (1, 2)
    )
    model = sp.SoftPromptModel(backbone, {"one": one, "two": two}, with_logits=True).eval()
    ids, mask = padded(backbone, TEXTS)
    logits = model(ids, mask, prompt_names=["two", "one"]).logits
    alone = sp.SoftPromptModel(backbone, one.prompt(), with_logits=True).eval()
    torch.testing.assert_close(logits[1], alone(ids, mask).logits[1])
    assert not torch.equal(logits, model(ids, mask, prompt_names=["one", "two"]).logits)
    model.save_pretrained(tmp_path / "both")
    again = sp.SoftPromptModel.from_pretrained(tmp_path / "both", backbone).eval()
    assert torch.equal(again(ids, mask, prompt_names=["two", "one"]).logits, logits)
    other = sp.load_backbone(str(backbone_folder("gpt2")))
    with pytest.raises(PromptError, match=r"must be a Result on the weights of .*, but is on"):
        sp.SoftPromptModel(other, one)
    one.save(tmp_path / "run")
    with torch.no_grad():
        assert sp.load(tmp_path / "run", backbone).score == one.score
    with pytest.raises(StorageError, match=r"is the folder of a run: give the Result"):
        sp.SoftPromptModel.from_pretrained(tmp_path / "run", backbone)
    with pytest.raises(StorageError, match=r"is that of a SoftPromptModel, which its from_pret"):
        sp.load(tmp_path / "both", backbone)


@pytest.mark.parametrize("method", ["lora", "zero-shot"])
def test_results_without_rows_are_no_prompts(backbone_folder, method):
    backbone = sp.load_backbone(str(backbone_folder("llama")))
    task, few = sp.load_task("bundled/sentiment"), sp.TrainingConfig(steps=1, num_evaluations=1)
    given = {} if method == "zero-shot" else {"training": few}
    result = sp.train(
        backbone, task, prompt=sp.PromptConfig(method=method), readout="text", **given
    )
    with pytest.raises(PromptError, match="must be a Result of rows on a frozen backbone, but is"):
        sp.SoftPromptModel(backbone, result)


def test_a_result_of_an_encoder_decoder_reaches_what_its_run_reached(backbone_folder):
    backbone = sp.load_backbone(str(backbone_folder("t5")))
    task, few = sp.load_task("bundled/sentiment"), sp.TrainingConfig(steps=1, num_evaluations=1)
    prompt = sp.PromptConfig(method="p-tuning-v2", length=2)
    result = sp.train(backbone, task, prompt=prompt, readout="text", training=few)
    assert sp.SoftPromptModel(backbone, result, with_logits=True).with_decoder
    with pytest.raises(PromptError, match="`with_decoder` must be True for this Result, whose"):
        sp.SoftPromptModel(backbone, result)
