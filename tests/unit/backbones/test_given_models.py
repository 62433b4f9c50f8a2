"""A model that the caller has: read as it is, never changed, refused where it is not still."""

from __future__ import annotations

import pytest
import torch
from backbone_damage import assert_refused
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import softprompts as sp
from softprompts.errors import BackboneError


@pytest.fixture
def given(backbone_folder):
    folder = backbone_folder("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.eval().requires_grad_(False)
    return model, AutoTokenizer.from_pretrained(folder)


def described(model):
    """Return all that could be changed of a model without replacing it."""
    modules = {
        name: (id(module), module.training, sorted(vars(module)), type(module))
        for name, module in model.named_modules()
    }
    weights = {
        name: (id(value), value.requires_grad, value._version, value.dtype, value.double().sum())
        for name, value in model.named_parameters()
    }
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    return modules, weights, hooks, model.config.to_dict(), model.config._attn_implementation


def refuse(text, model, **options):
    with pytest.raises(BackboneError, match=text) as caught:
        sp.load_backbone(model, **options)
    assert "\n" not in str(caught.value)


def test_it_reads_as_the_loaded_one_and_is_not_changed(given, backbone_folder, tmp_path):
    model, tokenizer = given
    tokenizer.padding_side = "left"
    before = described(model)
    backbone = sp.load_backbone(model, tokenizer=tokenizer)
    loaded = sp.load_backbone(backbone_folder("llama"), dtype="bfloat16", attention="sdpa")
    assert backbone.model is model
    assert (backbone.dtype, backbone.family) == (torch.bfloat16, "decoder")
    assert backbone.has_language_head
    assert (backbone.context_length, backbone.attention) == (loaded.context_length, "sdpa")
    ids = torch.arange(5, 15)[None]
    mask = torch.ones_like(ids)
    own, other = (
        one.logits(one.embed(ids), mask, None, ids - 5, None) for one in (backbone, loaded)
    )
    torch.testing.assert_close(own, other, atol=0.02, rtol=0.02)
    task = sp.load_task("bundled/sentiment", shots=2)
    training = sp.TrainingConfig(steps=2, batch_size=2)
    for method in ("prompt-tuning", "p-tuning-v2"):
        sp.train(backbone, task, prompt=sp.PromptConfig(method=method, length=2), training=training)
    assert described(model) == before
    assert tokenizer.padding_side == "left"
    assert backbone.tokenizer.padding_side == "right"


def test_what_is_trained_with_it_needs_it_again(given, tmp_path):
    model, tokenizer = given
    backbone = sp.load_backbone(model, tokenizer=tokenizer)
    task = sp.load_task("bundled/sentiment", shots=2)
    training = sp.TrainingConfig(steps=2, batch_size=2)
    prompt = sp.PromptConfig(length=2)
    result = sp.train(backbone, task, prompt=prompt, training=training, out=tmp_path / "run")
    with pytest.raises(BackboneError, match=r"must be given from Python, .* 'given:LlamaForCausal"):
        sp.load(tmp_path / "run")
    again = sp.load(tmp_path / "run", backbone=sp.load_backbone(model, tokenizer=tokenizer))
    assert again.score == result.score


def test_the_fingerprint_is_of_the_weights(given):
    model, tokenizer = given
    first = sp.load_backbone(model, tokenizer=tokenizer)
    assert sp.load_backbone(model, tokenizer=tokenizer).fingerprint == first.fingerprint
    assert first.name == f"given:LlamaForCausalLM-{first.fingerprint[:12]}"
    model.model.layers[1].mlp.up_proj.weight.mul_(1.5)
    assert sp.load_backbone(model, tokenizer=tokenizer).fingerprint != first.fingerprint


def test_a_bare_body_has_no_head(given):
    model, tokenizer = given
    assert not sp.load_backbone(model.model, tokenizer=tokenizer).has_language_head


@pytest.mark.parametrize("what", ["one weight", "one module"])
def test_a_model_that_is_not_still_is_refused_and_left(given, what):
    model, tokenizer = given
    if what == "one weight":
        model.model.norm.weight.requires_grad_(True)
        refuse(
            r"must be frozen, but 1 parameters require a gradient, model\.norm\.weight first",
            model,
            tokenizer=tokenizer,
        )
        assert model.model.norm.weight.requires_grad
    else:
        model.model.layers[0].train()
        refuse(
            r"must be in evaluation mode, but model\.layers\.0 is in training mode",
            model,
            tokenizer=tokenizer,
        )
        assert model.model.layers[0].training


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dtype": "float32"}, "`dtype` must be left out .* 'bfloat16', but is 'float32'"),
        ({"device": "cuda:0"}, "`device` must be left out .* 'cpu', but is 'cuda:0'"),
        ({"attention": "eager"}, "`attention` must be left out .* 'sdpa', but is 'eager'"),
        ({"revision": "main"}, "`revision` must be left out for a given model, but is 'main'"),
        ({"compile": True}, "`compile` must be left out for a given model, but is True"),
        ({"device_map": "auto"}, "`device_map` must be left out for a given model, but is 'auto'"),
        ({"tokenizer": None}, "`tokenizer` must be the tokenizer .* is of class NoneType"),
        ({"tokenizer": 7}, "`tokenizer` must be the tokenizer .* is of class int"),
    ],
)
def test_what_does_not_go_with_a_given_model(given, options, text):
    model, tokenizer = given
    refuse(text, model, **{"tokenizer": tokenizer, **options})


def test_its_own_options_may_be_said(given):
    model, tokenizer = given
    own = {"dtype": "bfloat16", "device": "cpu", "attention": "sdpa"}
    assert sp.load_backbone(model, tokenizer=tokenizer, **own).model is model


def test_what_is_no_backbone(given, backbone_folder):
    tokenizer = given[1]
    refuse("PreTrainedModel.*, but is of class Linear", torch.nn.Linear(2, 2), tokenizer=tokenizer)
    refuse("but is of class int", 7)
    other = AutoModelForSequenceClassification.from_config(given[0].config)
    other.eval().requires_grad_(False)
    refuse("is a LlamaForSequenceClassification", other, tokenizer=tokenizer)
    folder = backbone_folder("llama")
    assert_refused("`tokenizer` must be left out for a name", folder, tokenizer=tokenizer)
