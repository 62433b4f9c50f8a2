"""Runs that train the backbone do so in a copy of their own, and are what their papers say."""

from __future__ import annotations

import copy
import sys
from itertools import chain, product

import pytest
import torch
from safetensors import safe_open

import softprompts as sp
from backbones import KINDS
from contracts.conftest import YARDSTICKS, covering, run_config
from softprompts.backbones.adaptations.lora import LoraAdaptation
from softprompts.backbones.loading import load_backbone
from softprompts.encoding.batch import collate
from softprompts.errors import BackboneError, PromptError
from softprompts.recipes.parsing import parse_run
from softprompts.training import forward
from softprompts.training.building import build_model, build_optimizer
from softprompts.training.evaluation import score_examples
from softprompts.training.execution import execute
from softprompts.training.forward import Part, score
from softprompts.training.member import Member
from softprompts.training.pack import train_pack

RANKING = {"kind": "text", "objective": "ranking"}
FAST = {"backbone_learning_rate": 1e-2, "steps": 6}


def built(backbone, task, method, readout="linear", **training):
    return build_model(run_config(backbone, method, readout, **training), backbone, task.format)


def scores_of(model, task, rows=None):
    encoded = [model.readout.encode(row) for row in rows or task.train]
    found, _ = score_examples(model.backbone, model.prompt, model.readout, encoded)
    return torch.tensor(found)


def weights_of(backbone):
    return {name: value.clone() for name, value in backbone.model.state_dict().items()}


def set_kind(config, adaptation):
    data = config.model_dump(mode="json") | {"adaptation": adaptation}
    return parse_run(data)


@pytest.mark.parametrize(("kind", "method"), covering(list(product(KINDS, YARDSTICKS)), 1))
def test_before_training_a_yardstick_scores_as_the_head_alone(tiny, task, kind, method):
    backbone = tiny(kind)
    found = scores_of(built(backbone, task, method), task)
    expected = scores_of(built(backbone, task, "head-only"), task)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("method", YARDSTICKS)
def test_a_vanishing_rate_trains_the_head_alone(tiny, task, kind, method):
    backbone = tiny(kind)
    still = {"steps": 6, "clip_norm": None}
    config = run_config(backbone, method, "linear", backbone_learning_rate=1e-30, **still)
    head = run_config(backbone, "head-only", "linear", **still)
    found = execute(config, backbone, task)
    expected = execute(head, backbone, task)
    assert not torch.equal(
        expected.model.readout.weight, built(backbone, task, method).readout.weight
    )
    torch.testing.assert_close(
        found.model.readout.weight, expected.model.readout.weight, atol=2e-4, rtol=1e-3
    )


@pytest.mark.parametrize(("kind", "method"), covering(list(product(KINDS, YARDSTICKS)), 1))
def test_training_moves_the_copy_and_never_the_shared_backbone(tiny, task, kind, method):
    backbone = tiny(kind)
    before, state = weights_of(backbone), torch.random.get_rng_state()
    config = run_config(backbone, method, "linear", **FAST)
    start = scores_of(build_model(config, backbone, task.format), task)
    outcome = execute(config, backbone, task)
    assert outcome.result["status"] == "finished"
    assert torch.equal(state, torch.random.get_rng_state())
    assert backbone.is_frozen
    assert not outcome.model.backbone.is_frozen
    assert not outcome.model.backbone.model.training
    after = backbone.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[name], value) for name, value in after.items())
    first = built(backbone, task, method).adaptation.state_dict()
    moved = outcome.model.adaptation.state_dict()
    assert list(moved) == list(first)
    assert all(not torch.equal(first[name], value) for name, value in moved.items())
    assert (scores_of(outcome.model, task) - start).abs().max() > 1e-3


@pytest.mark.parametrize("method", YARDSTICKS)
@pytest.mark.parametrize(
    ("kind", "readout"),
    [
        ("bert", "linear"),
        pytest.param("bert", "cloze", marks=pytest.mark.slow),
        pytest.param("gpt2", RANKING, marks=pytest.mark.slow),
        pytest.param("bart", RANKING, marks=pytest.mark.slow),
    ],
)
def test_a_run_learns_its_training_rows(tiny, task, kind, method, readout):
    """All but one of nine, since two of them are the same text with different labels."""
    backbone = tiny(kind)
    config = run_config(
        backbone, method, readout, steps=80, batch_size=9, backbone_learning_rate=1e-2
    )
    model = build_model(config, backbone, task.format)
    answers = torch.tensor([row.answers[0] for row in task.train])
    assert (scores_of(model, task).argmax(1) == answers).sum() < 7
    outcome = execute(config, backbone, task)
    assert (scores_of(outcome.model, task).argmax(1) == answers).sum() == 8


def test_the_bare_backbone_is_not_read_in_its_place(tiny, task, monkeypatch):
    """What the frozen backbone said of an input is remembered; a copy in training says other."""
    backbone = tiny("bert")
    for method in YARDSTICKS:
        model = built(backbone, task, method)
        scores_of(built(backbone, task, "head-only"), task)  # now everything is remembered
        before = scores_of(model, task)
        with torch.no_grad():
            for parameter in model.adaptation.parameters():
                parameter.add_(0.1)
        assert (scores_of(model, task) - before).abs().max() > 1e-3
    monkeypatch.setattr(forward, "bare_summary", None)
    scores_of(model, task)
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        scores_of(built(backbone, task, "head-only"), task)


@pytest.mark.parametrize("kind", ["bert", "albert", "t5", "gpt2", "qwen3"])
def test_one_update_of_all_weights_equals_transformers_and_torch_alone(tiny, task, kind):
    backbone = tiny(kind)
    rates = {"backbone_learning_rate": 1e-3, "readout_learning_rate": 1e-2}
    config = run_config(backbone, "fine-tuning", "linear", steps=1, batch_size=9, **rates)
    first = build_model(config, backbone, task.format)
    outcome = execute(config, backbone, task)
    model = copy.deepcopy(backbone.model).requires_grad_(True)
    body = model.get_encoder() if kind == "t5" else model.base_model
    weight, bias = (p.detach().clone().requires_grad_() for p in first.readout.parameters())
    encoded = [first.readout.encode(row) for row in task.train]
    losses = []
    for row, example in zip(task.train, encoded, strict=True):  # one by one, so without padding
        (item,) = example.inputs
        inputs = {"input_ids": torch.tensor([item.ids])}
        if kind in ("bert", "albert"):
            inputs["token_type_ids"] = torch.tensor([item.segments])
        states = body(**inputs).last_hidden_state[0]
        pooled = states[-1] if backbone.family == "decoder" else states.mean(dim=0)
        logits = weight @ pooled + bias
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(row.answers[0])))
    torch.stack(losses).mean().backward()
    named = {name: p for name, p in model.named_parameters() if p.grad is not None}
    groups = [{"params": list(named.values()), "lr": 1e-3}, {"params": [weight, bias], "lr": 1e-2}]
    parameters = [p for group in groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    gradients = {name: p.grad.clone() for name, p in named.items()}
    torch.optim.AdamW(groups, weight_decay=1e-5).step()
    trained = outcome.model.adaptation.state_dict()
    assert set(trained) == set(named)
    start = first.adaptation.state_dict()
    for name, value in trained.items():
        # Adam's first step is the gradient's sign: it is compared where rounding cannot turn it
        clear = gradients[name].abs() > 1e-6
        assert not torch.equal(value, start[name])
        torch.testing.assert_close(value[clear], named[name].detach()[clear], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(outcome.model.readout.weight, weight, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_adds_its_product_to_the_weights(tiny, task, kind):
    backbone = tiny(kind)
    model = built(backbone, task, "lora")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.adaptation.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    state = model.adaptation.state_dict()
    merged = copy.deepcopy(backbone.model)
    for name, first in state.items():
        if ".lora_A" in name:
            product = 2.0 * state[name.replace("lora_A", "lora_B")] @ first
            weight = merged.get_submodule(name.split(".lora_A")[0]).weight
            weight += product.T if kind == "gpt2" else product
    body = merged.get_encoder() if backbone.family == "encoder-decoder" else merged.base_model
    encoded = [model.readout.encode(row) for row in task.train]
    batch = collate(encoded, backbone.tokenizer.pad_token_id)
    inputs = {"input_ids": batch.ids, "attention_mask": batch.attention_mask}
    if backbone.model.config.to_dict().get("type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = batch.segments
    found, bare = (
        one.hidden(one.embed(batch.ids), batch.attention_mask, batch.segments)
        for one in (model.backbone, backbone)
    )
    mask = batch.attention_mask[..., None]
    expected = body(**inputs).last_hidden_state * mask
    torch.testing.assert_close(found * mask, expected, atol=5e-5, rtol=1e-4)
    assert ((found - bare) * mask).abs().max() > 1e-2


def test_lora_starts_as_its_paper_says(tiny, task):
    backbone = tiny("bert")
    models = [
        build_model(
            run_config(backbone, "lora", "linear").model_copy(update={"seed": seed}),
            backbone,
            task.format,
        )
        for seed in (0, 0, 1)
    ]
    states = [model.adaptation.state_dict() for model in models]
    firsts = [value for name, value in states[0].items() if "lora_A" in name]
    assert len(firsts) == 4
    for value in firsts:
        assert value.shape == (8, 32)
        assert 0.9 * 32**-0.5 < value.abs().max() <= 32**-0.5
        assert sum(torch.equal(value, other) for other in firsts) == 1
    assert all(not value.any() for name, value in states[0].items() if "lora_B" in name)
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    changed = [name for name, value in states[0].items() if not torch.equal(value, states[2][name])]
    assert len(changed) == 4


def test_rank_alpha_and_targets_are_obeyed(tiny, task):
    backbone = tiny("bert")
    config = run_config(backbone, "lora", "linear")
    chosen = {"kind": "lora", "rank": 3, "alpha": 6.0, "targets": ["key", "1.output.dense"]}
    model = build_model(set_kind(config, chosen), backbone, task.format)
    shapes = {
        name.removeprefix("bert.encoder.layer."): tuple(value.shape)
        for name, value in model.adaptation.state_dict().items()
    }
    start, end = "attention.self.key.lora_", ".default.weight"
    assert shapes == {
        **{f"{i}.{start}A{end}": (3, 32) for i in (0, 1)},
        **{f"{i}.{start}B{end}": (32, 3) for i in (0, 1)},
        f"1.output.dense.lora_A{end}": (3, 64),
        f"1.output.dense.lora_B{end}": (32, 3),
    }
    layers = [m for m in model.backbone.model.modules() if hasattr(m, "lora_A")]
    assert {layer.scaling["default"] for layer in layers} == {2.0}
    assert model.num_parameters == sum(map(torch.numel, model.parameters)) == 384 + 288 + 99


def test_a_target_that_is_not_read_is_refused(tiny, task):
    config = run_config(tiny("bert"), "lora", "linear")
    wrong = set_kind(config, {"kind": "lora", "targets": ["query", "q_proj"]})
    with pytest.raises(BackboneError, match=r"such as query, key, value, .*but has 'q_proj'"):
        build_model(wrong, tiny("bert"), task.format)
    unread = {"kind": "lora", "targets": ["encoder_attn.q_proj"]}
    config = run_config(tiny("bart"), "lora", "linear")
    with pytest.raises(BackboneError, match=r"readout reads.*but has 'encoder_attn.q_proj'"):
        build_model(set_kind(config, unread), tiny("bart"), task.format)
    config = run_config(tiny("bart"), "lora", "text")
    model = build_model(set_kind(config, unread), tiny("bart"), task.format)
    assert len(model.adaptation.state_dict()) == 4


def test_layers_of_unusual_names_all_get_an_adapter(tiny, task, monkeypatch):
    from peft.utils import constants

    known = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
    monkeypatch.setattr(constants, known, {})
    monkeypatch.setattr("softprompts.backbones.adaptations.lora._QUERIES_AND_VALUES", frozenset())
    names = built(tiny("bert"), task, "lora", "cloze").adaptation.state_dict()
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == {
        *("query", "key", "value", "dense")
    }
    assert len(names) == 2 * (2 * 6 + 1)


def test_what_is_not_read_is_not_trained(tiny, task):
    counts = {}
    for kind, readout in (("t5", "linear"), ("t5", "text"), ("bert", "linear"), ("bert", "cloze")):
        model = built(tiny(kind), task, "fine-tuning", readout)
        counts[kind, readout] = len(list(model.adaptation.parameters()))
        names = set(model.adaptation.state_dict())
        assert not any("pooler" in name for name in names)
        if readout == "linear":
            assert not any(name.startswith(("decoder.", "cls.", "lm_head")) for name in names)
    everything = {kind: len(list(tiny(kind).model.parameters())) for kind in ("t5", "bert")}
    assert counts["t5", "text"] == everything["t5"] > counts["t5", "linear"] > 0
    assert counts["bert", "cloze"] == everything["bert"] > counts["bert", "linear"] > 0


@pytest.mark.parametrize("method", YARDSTICKS)
def test_trained_numbers_are_counted_and_kept(tiny, task, tmp_path, method):
    backbone = tiny("bert")
    config = run_config(backbone, method, "linear", **FAST)
    outcome = execute(config, backbone, task, folder=tmp_path / "run")
    with safe_open(tmp_path / "run" / "prompt.safetensors", "pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    trained = {name: v for name, v in kept.items() if name.startswith("adaptation.")}
    head = {name: v for name, v in kept.items() if name.startswith("readout.")}
    count = sum(value.numel() for value in chain(trained.values(), head.values()))
    assert count == outcome.result["trainable_parameters"] == outcome.model.num_parameters
    assert sum(v.numel() for v in head.values()) == 99
    assert len(trained) == {"lora": 8, "fine-tuning": 37}[method]
    assert all(value.dtype == torch.float32 for value in trained.values())
    loaded = sp.load(tmp_path / "run", backbone)
    again = loaded.evaluate(task.validation)
    assert again.score == outcome.result["score"]
    inputs = [dict(row.fields) for row in task.validation]
    found = [tuple(one["scores"].values()) for one in loaded.predict_scores(inputs)]
    assert found == list(again.scores)
    assert loaded.backbone is backbone
    bare = built(backbone, task, "head-only")
    bare.readout.load_state_dict(loaded.model.readout.state_dict())
    different = scores_of(bare, task, task.validation) - torch.tensor(again.scores)
    assert different.abs().max() > 1e-3


def test_a_folder_without_what_was_trained_is_refused(tiny, task, tmp_path):
    from softprompts.storage import read_tensors, write_tensors

    backbone = tiny("bert")
    execute(run_config(backbone, "lora", "linear"), backbone, task, folder=tmp_path / "run")
    path = tmp_path / "run" / "prompt.safetensors"
    tensors, about = read_tensors(path)
    name = next(name for name in tensors if "lora_B" in name)
    write_tensors(path, {k: v for k, v in tensors.items() if k != name}, about)
    missing = name.removeprefix("adaptation.")
    with pytest.raises(sp.StorageError, match=rf"run's adaptation, but does not.*{missing}"):
        sp.load(tmp_path / "run", backbone)


@pytest.mark.parametrize("has_checkpointing", [True, False])
@pytest.mark.parametrize("method", YARDSTICKS)
def test_a_bfloat16_backbone(backbone_folder, task, method, has_checkpointing):
    backbone = load_backbone(str(backbone_folder("bert")), dtype="bfloat16")
    backbone.has_checkpointing = has_checkpointing
    outcome = execute(run_config(backbone, method, "linear", **FAST), backbone, task)
    model = outcome.model
    expected = {"fine-tuning": torch.float32, "lora": torch.bfloat16}[method]
    assert model.backbone.dtype == expected
    assert model.backbone.has_checkpointing == has_checkpointing
    assert {p.dtype for p in model.parameters} == {torch.float32}
    assert outcome.result["status"] == "finished"
    shared = {p.data_ptr() for p in backbone.model.parameters()}
    frozen = [p for p in model.backbone.model.parameters() if not p.requires_grad]
    if method == "lora":  # the copy's frozen weights are the shared ones
        assert {p.data_ptr() for p in frozen} == shared
    assert backbone.dtype == torch.bfloat16


@pytest.mark.parametrize("method", YARDSTICKS)
def test_recomputed_layers_give_the_same_gradient(tiny, backbone_folder, task, method):
    gradients = []
    for has_checkpointing in (False, True):
        backbone = load_backbone(str(backbone_folder("bert")))
        backbone.has_checkpointing = has_checkpointing
        model = built(backbone, task, method)
        encoded = [model.readout.encode(row) for row in task.train]
        batch = collate(encoded, backbone.tokenizer.pad_token_id)
        scores = score(model.backbone, [Part(model.prompt, model.readout, batch)])[0]
        model.readout.loss(scores, batch).sum().backward()
        gradients.append([p.grad for p in model.parameters])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)
    assert sum(float(g.abs().sum()) for g in gradients[0]) > 0


def test_a_rate_of_rows_is_refused_where_there_are_none(tiny, task):
    training = sp.TrainingConfig(learning_rate=0.5, steps=1)
    with pytest.raises(
        sp.RecipeError, match=r"`training\.learning_rate` must be left out .* is 0\.5"
    ):
        sp.train(tiny("bert"), task, prompt=sp.PromptConfig(method="lora"), training=training)


def test_rates_of_backbone_and_readout_are_apart(tiny, task):
    backbone = tiny("bert")
    for method, default in (("fine-tuning", 2e-5), ("lora", 1e-3)):
        for training, rate in (({}, default), ({"backbone_learning_rate": 0.5}, 0.5)):
            config = run_config(backbone, method, "linear", **training)
            assert config.training.backbone_learning_rate == rate
            model = build_model(config, backbone, task.format)
            groups = build_optimizer(config.training, model).param_groups
            assert [group["initial_lr"] for group in groups] == [rate, 0.01]
            assert [len(group["params"]) for group in groups] == [
                len(list(model.adaptation.parameters())),
                2,
            ]
            unset = config.training.model_copy(update={"backbone_learning_rate": None})
            with pytest.raises(PromptError, match=r"backbone_learning_rate` must be given.*null"):
                build_optimizer(unset, model)


def test_a_pack_refuses_a_run_with_a_backbone_of_its_own(tiny, task):
    from contracts.test_packs import member

    backbone = tiny("bert")
    runs = [
        member(run_config(backbone, method, "linear"), backbone, task)
        for method in ("head-only", "lora")
    ]
    assert all(isinstance(run, Member) for run in runs)
    with pytest.raises(BackboneError, match="but 1 of 2 read through another"):
        train_pack(backbone, runs)
    assert [run.counters.step for run in runs] == [0, 0]


def test_only_a_copy_is_trained(tiny):
    backbone = tiny("bert")
    copied = LoraAdaptation().adapt(backbone, False, 0).backbone
    assert copied is not backbone
    assert copied.model is not backbone.model
    assert (copied.is_frozen, backbone.is_frozen) == (False, True)
    copied.train_only([])
    assert copied.is_frozen
    own = [name for name, _ in backbone.model.named_modules()]
    assert not any("lora" in name for name in own)


def test_a_missing_peft_is_said_in_one_line(tiny, task, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(BackboneError, match=r"'lora' must have the package peft.*extra `lora`"):
        built(tiny("bert"), task, "lora")
    built(tiny("bert"), task, "fine-tuning")


def test_from_python(tiny, task):
    prompt = sp.PromptConfig(method="lora")
    training = sp.TrainingConfig(steps=2, selection="last")
    result = sp.train(tiny("bert"), task, prompt=prompt, adaptation={"rank": 2}, training=training)
    assert result.config.adaptation.options["rank"] == 2
    assert result.config.training.backbone_learning_rate == 1e-3
    assert result.summary["trainable_parameters"] == 4 * (2 * 32 + 32 * 2) + 99
    (label,) = result.predict([{"text": "good bread", "aspect": "price"}])
    assert label in task.format.labels


def test_a_run_must_be_resolved(tiny, task):
    config = run_config(tiny("bert"), "lora", "linear").model_copy(update={"adaptation": None})
    with pytest.raises(PromptError, match="`adaptation` must be resolved"):
        build_model(config, tiny("bert"), task.format)
