"""Threads that read through backbones at once get what each gets alone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from memories import draw_memory
from reads import hidden, logits
from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.backbones.loading import load_backbone

LENGTHS = (19, 7, 40, 33)
ROUNDS = 12
SECONDS = 1e-5
"""After which threads take turns."""


def reader(backbone: Any, seed: int, is_given: bool) -> Callable[[], list[Tensor]]:
    """Return a function that reads a batch and returns the result and the gradient of its input."""
    draws = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    ids = torch.randint(12, backbone.vocabulary_size, shape, generator=draws)
    mask = (torch.arange(shape[1]) < torch.tensor(LENGTHS)[:, None]).long()
    memory = draw_memory(backbone, len(LENGTHS), True) if is_given else None
    gather = torch.zeros(len(LENGTHS), 1, dtype=torch.long)
    decoder = None
    if backbone.family == "encoder-decoder":
        source = torch.arange(len(LENGTHS))
        decoder = DecoderInputs(backbone.shift_right(ids[:, :1]), source, torch.ones_like(gather))

    def read() -> list[Tensor]:
        rows = backbone.embed(ids).requires_grad_()
        if decoder is None:
            states = hidden(backbone, rows, mask, None, gather, memory)
        else:
            states = logits(backbone, rows, mask, None, gather, decoder, memory)
        return [states.detach(), *torch.autograd.grad(states.float().square().sum(), rows)]

    return read


def at_once(readers: list[Callable[[], list[Tensor]]]) -> None:
    """Call each function in a thread of its own, often, and compare with what it gives alone."""
    expected = [read() for read in readers]
    wrong: list[str] = []
    before, go = sys.getswitchinterval(), threading.Event()
    ready = [threading.Event() for _ in readers]

    def work(number: int) -> None:
        ready[number].set()
        go.wait()
        for _ in range(ROUNDS):
            try:
                pairs = zip(readers[number](), expected[number], strict=True)
                wrong.extend("a number" for own, other in pairs if not torch.equal(own, other))
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(readers))]
    for thread, one in zip(threads, ready, strict=True):
        thread.start()
        one.wait()  # two that begin at once may not both be traced, as for coverage
    sys.setswitchinterval(SECONDS)
    try:
        go.set()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert wrong == []


def names(backbone: Any) -> set[str]:
    return {config._attn_implementation for stack in backbone.stacks for config in stack.configs}


@pytest.mark.parametrize("kind", ["bert", "t5", "gpt2"])
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_one_backbone(backbone_folder: Any, kind: str, is_checkpointed: bool) -> None:
    folder = str(backbone_folder(kind))
    backbone = load_backbone(folder, gradient_checkpointing=is_checkpointed)
    before = names(backbone)
    at_once([reader(backbone, 0, False), reader(backbone, 1, True), reader(backbone, 2, False)])
    assert names(backbone) == before
    assert not any(
        "forward" in layer.__dict__ for stack in backbone.stacks for layer in stack.layers
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_several_backbones(backbone_folder: Any, dtype: str) -> None:
    kinds = ("bert", "gpt2", "t5")
    loaded = [load_backbone(str(backbone_folder(kind)), dtype=dtype) for kind in kinds]
    at_once([reader(backbone, 0, number == 1) for number, backbone in enumerate(loaded)])
