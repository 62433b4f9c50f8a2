"""PEFT's P-tuning as oracle: its encoder alone, and a decoder under right padding."""

from __future__ import annotations

import pytest
import torch
from peft import PromptEncoder, PromptEncoderConfig, get_peft_model
from transformers import AutoModelForCausalLM

import softprompts as sp
from parity.material import padded
from softprompts.prompts.prompt import FixedPosition, Prompt
from softprompts.prompts.rows.p_tuning import PTuningRows

LENGTH, INNER = 5, 6
CASES = [("mlp", 2), ("lstm", 1), ("lstm", 2)]

# peft asks for a name that transformers has renamed; nothing of ours is concerned.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def peft_config(encoder, num_layers, **more):
    return PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=LENGTH,
        encoder_reparameterization_type=encoder.upper(),
        encoder_hidden_size=INNER,
        encoder_num_layers=num_layers,
        **more,
    )


def ours(initial, encoder, num_layers):
    draws = torch.Generator().manual_seed(2)
    return PTuningRows(initial, draws, encoder=encoder, hidden_size=INNER, num_layers=num_layers)


def name_there(name):
    """Return what PEFT's encoder calls one of our parameters."""
    name = {"weight": "embedding.weight"}.get(name, name)
    return name.replace("encoder.head.", "mlp_head.").replace("encoder.lstm.", "lstm_head.")


def copy(rows, encoder):
    encoder.load_state_dict({name_there(k): v for k, v in rows.state_dict().items()})


def assert_equal_gradients(rows, encoder, **tolerance):
    there = dict(encoder.named_parameters())
    for name, parameter in rows.named_parameters():
        expected = there.pop(name_there(name)).grad
        assert expected.abs().max() > 1e-4, name
        torch.testing.assert_close(parameter.grad, expected, **tolerance)
    assert not there


@pytest.mark.parametrize(("encoder", "num_layers"), CASES)
def test_rows_are_pefts_prompt_encoder(encoder, num_layers):
    initial = torch.randn(LENGTH, 8, generator=torch.Generator().manual_seed(1))
    rows = ours(initial, encoder, num_layers)
    config = peft_config(encoder, num_layers, token_dim=8, num_transformer_submodules=1)
    theirs = PromptEncoder(config)
    copy(rows, theirs)

    expected = theirs(torch.arange(LENGTH)[None])[0]
    torch.testing.assert_close(rows(), expected, atol=1e-6, rtol=1e-6)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    (rows() * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_equal_gradients(rows, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("encoder", "num_layers"), CASES)
def test_a_decoder_with_p_tuning_is_pefts(tiny, backbone_folder, encoder, num_layers):
    backbone = tiny("gpt2")
    initial = backbone.embed(torch.arange(30, 30 + LENGTH)).float() * 10
    rows = ours(initial, encoder, num_layers)
    model = sp.SoftPromptModel(backbone, Prompt(rows, FixedPosition(LENGTH)), with_logits=True)

    peft = get_peft_model(
        AutoModelForCausalLM.from_pretrained(backbone_folder("gpt2")),
        peft_config(encoder, num_layers),
    ).eval()
    theirs = peft.prompt_encoder["default"]
    copy(rows, theirs)

    ids, mask = padded(backbone)
    assert mask.min() == 0

    expected = peft(input_ids=ids, attention_mask=mask).logits[:, LENGTH:]
    got = model(ids, mask).logits
    weights = torch.linspace(-1, 1, expected.shape[-1]) * mask[..., None]
    (expected * weights).sum().backward()
    (got * weights).sum().backward()
    keep = mask.bool()
    torch.testing.assert_close(got[keep], expected[keep], atol=1e-5, rtol=1e-5)
    assert_equal_gradients(rows, theirs, atol=1e-4, rtol=1e-4)
