"""Head-only runs read each input once, and read the same as without memory."""

from __future__ import annotations

import torch

from contracts.conftest import run_config
from softprompts.encoding.batch import collate
from softprompts.training import forward, frozen
from softprompts.training.building import build_model
from softprompts.training.execution import execute
from softprompts.training.forward import Part


def test_memory_equals_reading(tiny, task, choice_task, monkeypatch):
    for kind in ("bert", "gpt2", "t5"):
        backbone = tiny(kind)
        for rows in (task, choice_task):
            model = build_model(run_config(backbone, "head-only", "linear"), backbone, rows.format)
            encoded = [model.readout.encode(row) for row in rows.train]
            batch = collate(encoded, backbone.tokenizer.pad_token_id)
            part = Part(model.prompt, model.readout, batch)
            with torch.no_grad():
                kept = [forward.score(backbone, [part])[0] for _ in range(2)]
                with monkeypatch.context() as patch:
                    patch.setattr(forward, "is_bare", lambda *_: False)
                    read = forward.score(backbone, [part])[0]
            assert torch.equal(*kept)
            torch.testing.assert_close(kept[0], read, atol=1e-5, rtol=1e-4)


def test_five_seeds_read_each_input_once(tiny, task, monkeypatch):
    backbone = tiny("bert")
    frozen._KEPT.clear()
    calls = []
    hidden = type(backbone).hidden

    def counted(self, embeddings, *rest, **more):
        calls.append(embeddings.shape[0])
        return hidden(self, embeddings, *rest, **more)

    monkeypatch.setattr(type(backbone), "hidden", counted)
    config = run_config(backbone, "head-only", "linear", steps=4)
    for seed in range(5):
        execute(config.model_copy(update={"seed": seed}), backbone, task)
    distinct = {tuple(row.fields.items()) for row in (*task.train, *task.validation)}
    assert sum(calls) == len(calls) == len(distinct)


def test_a_frozen_prompt_is_no_bare_run(tiny, task):
    backbone = tiny("bert")
    model = build_model(run_config(backbone, "prompt-tuning", "linear"), backbone, task.format)
    model.prompt.requires_grad_(False)
    assert not frozen.is_bare(model.prompt, model.readout)
