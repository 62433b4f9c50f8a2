"""Quantized backbones: trained in front of, held to a check, and refused where it fails."""

from __future__ import annotations

import pytest
import torch
from backbone_damage import assert_refused, edit_json
from transformers import AutoModelForCausalLM, AutoTokenizer

import softprompts as sp
from softprompts.backbones.probing import read_once, short_input
from softprompts.backbones.quantized import plain_parts
from softprompts.errors import BackboneError

# ------------------------------------------------------------------- without a package


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"quant_method": "gptq"}, "missing 1 required positional argument: 'bits'"),
        ({"bits": 4}, "has no `quant_method` attribute"),
        ({"quant_method": "nonsense"}, "must be of a kind that transformers loads on this machine"),
        (7, "must be a mapping, but is 7"),
        ("x", "`quantization_config` of"),
    ],
)
def test_what_cannot_be_loaded_says_why(copy, config, text):
    folder = copy("llama")
    edit_json(folder / "config.json", quantization_config=config)
    assert_refused(text, folder)


def test_quantized_weights_are_not_compiled(copy):
    folder = copy("llama")
    edit_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    assert_refused("must hold plain weights to be compiled", folder, compile=True)


@pytest.fixture
def marked(backbone_folder):
    """A plain model that says of itself that it is quantized, and its tokenizer."""
    folder = backbone_folder("llama")
    model = AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
    model.config.quantization_config = {"quant_method": "odd"}
    model.is_quantized = True
    return model, AutoTokenizer.from_pretrained(folder)


def test_what_passes_the_check_is_let_in(marked):
    model, tokenizer = marked
    assert sp.load_backbone(model, tokenizer=tokenizer).quantization == "odd"


def test_weights_that_change_when_read_are_refused(marked):
    model, tokenizer = marked
    weight = model.model.layers[1].mlp.up_proj.weight

    def change(*_):
        weight.mul_(1.5)

    model.model.layers[0].register_forward_hook(change)
    with pytest.raises(BackboneError, match="quantized with odd, must stay as they are"):
        sp.load_backbone(model, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda states: states.detach(), "must be read in torch.float32 and have a gradient, but"),
        (
            lambda states: states * 0 + states.detach(),
            "must be finite and not 0, for a prompt to be trained, but is 0",
        ),
    ],
)
def test_no_gradient_is_refused(marked, spoil, text):
    model, tokenizer = marked
    model.model.norm.register_forward_hook(lambda _module, _given, states: spoil(states))
    with pytest.raises(BackboneError, match=text):
        sp.load_backbone(model, tokenizer=tokenizer)


@pytest.mark.parametrize("adaptation", ["full", "lora"])
def test_a_quantized_backbone_is_not_adapted(marked, adaptation):
    model, tokenizer = marked
    backbone = sp.load_backbone(model, tokenizer=tokenizer)
    task = sp.load_task("bundled/sentiment", shots=2)
    with pytest.raises(BackboneError, match=r"must hold plain weights to be adapted .* with odd"):
        sp.train(backbone, task, prompt=sp.PromptConfig(method="head-only"), adaptation=adaptation)


# ---------------------------------------------------------------------- int8 by torchao


@pytest.fixture(scope="module")
def int8_folder(backbone_folder, tmp_path_factory):
    pytest.importorskip("torchao", reason="the package torchao is not installed")
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    folder = tmp_path_factory.mktemp("int8")
    how = TorchAoConfig(Int8WeightOnlyConfig(version=2))
    source = backbone_folder("llama")
    AutoModelForCausalLM.from_pretrained(source, quantization_config=how).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def plain_of(backbone, source):
    """Return a backbone whose plain weights are those that quantized ones stand for."""
    model = AutoModelForCausalLM.from_pretrained(source).eval().requires_grad_(False)
    state = backbone.model.state_dict()
    plain = {k: v.dequantize() if hasattr(v, "dequantize") else v for k, v in state.items()}
    model.load_state_dict(plain)
    return sp.load_backbone(model, tokenizer=backbone.tokenizer)


def gradient(backbone):
    rows = short_input(backbone).requires_grad_()
    read = read_once(backbone, True, rows)
    torch.nn.functional.cross_entropy(read[0], torch.arange(4)).backward()
    return rows.grad


def test_int8_trains_a_prompt_and_gradients_are_those_of_plain_weights(
    int8_folder, backbone_folder, tmp_path
):
    backbone = sp.load_backbone(int8_folder)
    layer = backbone.model.model.layers[0].mlp.up_proj
    assert (backbone.quantization, backbone.dtype) == ("torchao", torch.float32)
    assert torch.int8 in {part.dtype for part in plain_parts(layer.weight)}
    own, plain = gradient(backbone), gradient(plain_of(backbone, backbone_folder("llama")))
    torch.testing.assert_close(own, plain, atol=1e-5, rtol=1e-4)
    before = [part.clone() for part in plain_parts(layer.weight)]
    task = sp.load_task("bundled/sentiment", shots=4)
    result = sp.train(
        backbone,
        task,
        prompt=sp.PromptConfig(length=3),
        training=sp.TrainingConfig(steps=4, batch_size=2, learning_rate=0.1),
        out=tmp_path / "run",
    )
    assert all(map(torch.equal, before, plain_parts(layer.weight)))
    assert sp.load(tmp_path / "run").score == result.score


def test_int8_reads_in_bfloat16_too(int8_folder):
    backbone = sp.load_backbone(int8_folder, dtype="bfloat16")
    assert (backbone.dtype, read_once(backbone, True).dtype) == (torch.bfloat16,) * 2
