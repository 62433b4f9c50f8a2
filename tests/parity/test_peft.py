"""PEFT as oracle, where it is right: decoders under right padding."""

from __future__ import annotations

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

import softprompts as sp
from parity.material import padded
from softprompts.prompts.prompt import FixedPosition, Prompt
from softprompts.prompts.rows.plain import PlainRows

LENGTH = 5

# peft asks for a name that transformers has renamed; nothing of ours is concerned.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3", "gemma3"])
def test_plain_rows_are_pefts_prompt_tuning(tiny, backbone_folder, kind):
    backbone = tiny(kind)
    rows = backbone.embed(torch.arange(30, 30 + LENGTH)).float() * 1.1
    prompt = Prompt(PlainRows(rows, torch.Generator()), FixedPosition(LENGTH))
    ours = sp.SoftPromptModel(backbone, prompt, with_logits=True)

    model = AutoModelForCausalLM.from_pretrained(backbone_folder(kind))
    peft = get_peft_model(
        model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)
    ).eval()
    table = peft.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        table.copy_(rows)

    ids, mask = padded(backbone)

    theirs = peft(input_ids=ids, attention_mask=mask).logits[:, LENGTH:]
    got = ours(ids, mask).logits
    weights = torch.linspace(-1, 1, theirs.shape[-1]) * mask[..., None]
    (theirs * weights).sum().backward()
    (got * weights).sum().backward()
    keep = mask.bool()
    torch.testing.assert_close(got[keep], theirs[keep], atol=1e-5, rtol=1e-5)
    assert table.grad.abs().max() > 1e-3
    torch.testing.assert_close(prompt.pool.rows.weight.grad, table.grad, atol=1e-4, rtol=1e-4)
