"""Prefix tuning against peft's, on the decoders that peft supports."""

from __future__ import annotations

import copy

import peft
import pytest
import torch

import softprompts as sp
from backbones import build
from parity.material import padded

LENGTH = 4
BOTTLENECK = 24
KINDS = ("gpt2", "llama", "qwen3", "gemma3")
TEXTS = ("the soup was cold and the waiter forgot us", "a walk along the river")


def oracle(backbone, has_network):
    """Return peft's model on a copy of the same weights."""
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=LENGTH,
        prefix_projection=has_network,
        encoder_hidden_size=BOTTLENECK,
    )
    with torch.random.fork_rng(devices=[]):
        return peft.get_peft_model(copy.deepcopy(backbone.model), config).eval()


def ours(backbone, has_network):
    config = {"method": "p-tuning-v2", "length": LENGTH, "unit": "absolute"}
    if has_network:
        config["rows"] = {"kind": "prefix-mlp", "bottleneck": BOTTLENECK}
    prompt = sp.PromptConfig.model_validate(config)
    return sp.SoftPromptModel(backbone, prompt, with_logits=True).eval()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_network", [False, True])
def test_prefix_tuning_is_that_of_peft(tiny, tmp_path, kind, has_network):
    backbone = tiny(kind)
    if kind == "gemma3":  # peft's prefix leaves a sliding window with the tokens, ours stays
        backbone = sp.load_backbone(str(build(kind, tmp_path, sliding_window=64)))
    theirs, mine = oracle(backbone, has_network), ours(backbone, has_network)
    encoder = theirs.prompt_encoder["default"]
    parts = mine.prompt.pool.rows.parts
    with torch.no_grad():
        if has_network:
            network = parts[0]
            narrow = encoder.embedding.weight.shape[1]  # with grouped heads, that of the keys
            network.weight.zero_()[:, :narrow].copy_(encoder.embedding.weight)
            network.network[0].weight[:, :narrow].copy_(encoder.transform[0].weight)
            network.network[0].bias.copy_(encoder.transform[0].bias)
            network.network[2].weight.copy_(encoder.transform[2].weight)
            network.network[2].bias.copy_(encoder.transform[2].bias)
        else:
            width = parts[0].weight.shape[1]
            for number, part in enumerate(parts):
                begin = 2 * number * width
                keys = encoder.embedding.weight[:, begin : begin + width]
                values = encoder.embedding.weight[:, begin + width : begin + 2 * width]
                part.weight.copy_(torch.cat([keys, values]))
    ids, mask = padded(backbone, TEXTS)
    keep = mask.bool()
    expected = theirs(input_ids=ids, attention_mask=mask).logits[keep]
    found = mine(ids, mask).logits[keep]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    grad = encoder.embedding.weight.grad
    if has_network:
        found = parts[0].weight.grad[:, : grad.shape[1]]
        torch.testing.assert_close(found, grad, atol=1e-3, rtol=1e-3)
    else:
        mine_grad = torch.cat([torch.cat(p.weight.grad.split(LENGTH), dim=1) for p in parts], dim=1)
        torch.testing.assert_close(mine_grad, grad, atol=1e-3, rtol=1e-3)
    assert grad.abs().max() > 0.1
