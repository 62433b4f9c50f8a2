"""All that is trained has the same gradient where tokens are left out in front of attention."""

from __future__ import annotations

import pytest
import torch

from contracts.conftest import run_config, shares_of
from contracts.test_packs import member
from contracts.test_regularizers import STRONG
from softprompts.backbones.loading import load_backbone
from softprompts.fast import fused_attention, prepacking, shortcuts, weight_layouts
from softprompts.recipes.schema import RunConfig
from softprompts.training.objective import accumulate

pytestmark = pytest.mark.skipif(
    fused_attention.why_not() is not None or not weight_layouts.works(torch.bfloat16),
    reason="nothing is compiled or packed here",
)

METHODS = (
    *("prompt-tuning", "residual", "split", "adap-len", "adap-pos", "adap-ins-vec-pos"),
    *("p-tuning-v2", "residual-deep-pool-len", "lora"),
)
READOUT = {"bert": "linear", "gpt2": "text", "t5": "text"}


@pytest.fixture
def load(backbone_folder, monkeypatch):
    monkeypatch.setattr(prepacking, "_LEAST_WEIGHTS", 1)
    return lambda kind: load_backbone(str(backbone_folder(kind)), dtype="bfloat16")


def configs_of(backbone, readout):
    found = [run_config(backbone, method, readout) for method in METHODS]
    for kind, options in STRONG.items():
        data = found[0].model_dump(mode="json")
        data["regularizers"] = [{"kind": "ptp", "perturbation": {"kind": kind, **options}}]
        found.append(RunConfig.model_validate(data))
    return found


def gradients(backbone, task, config, monkeypatch, is_narrow):
    """Return the gradients of an update, and of each forward whether it was asked to be narrow."""
    seen = []
    whole = shortcuts.Shortcuts.whole

    def asked(self, mask, wanted=None):
        seen.append(wanted is not None)
        return whole(self, mask, wanted if is_narrow else None)

    with monkeypatch.context() as patch:
        patch.setattr(shortcuts.Shortcuts, "whole", asked)
        one = member(config, backbone, task)
        one.draw()
        accumulate(one.backbone, shares_of(one, one.backbone))
    trained = [p for group in one.optimizer.param_groups for p in group["params"]]
    return [p.grad.clone() for p in trained if p.grad is not None], seen


@pytest.mark.parametrize("kind", [pytest.param("bert", marks=pytest.mark.slow), "gpt2", "t5"])
def test_every_method_has_the_same_gradients(load, task, monkeypatch, kind):
    backbone = load(kind)
    narrowed = []
    for config in configs_of(backbone, READOUT[kind]):
        found, seen = gradients(backbone, task, config, monkeypatch, is_narrow=True)
        expected, _ = gradients(backbone, task, config, monkeypatch, is_narrow=False)
        assert len(found) == len(expected) > 0
        for own, other in zip(found, expected, strict=True):
            assert float((own - other).norm()) <= 0.03 * float(other.norm()), config.prompt
        narrowed.append(any(seen))
    assert sum(narrowed) >= 5
    assert not all(narrowed)
