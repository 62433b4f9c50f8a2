"""Training does not depend on what the caller does with gradients."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

import softprompts as sp


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_a_run_is_the_same_where_gradients_are_off(backbone_folder, task, mode, kind):
    scores = []
    for context in (nullcontext, mode):
        with context():
            backbone = sp.load_backbone(str(backbone_folder(kind)))
            training = sp.TrainingConfig(steps=4, num_evaluations=1, selection="last")
            result = sp.train(backbone, task, training=training)
            assert torch.is_grad_enabled() == (context is nullcontext)
        scores.append(result.predict_examples(task.train))
    assert scores[0] == scores[1]
    assert not result.model.bake().is_inference()
