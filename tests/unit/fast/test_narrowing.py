"""Gradients at rows are the same where those of tokens are left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backbones import KINDS
from reads import hidden, logits
from softprompts.backbones.adaptations.lora import LoraAdaptation
from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.backbones.loading import load_backbone
from softprompts.fast import prepacking, weight_layouts
from softprompts.fast.fused_attention import attend_row, why_not
from softprompts.fast.joined_inputs import JoinedInputs
from softprompts.fast.spans import Spans
from softprompts.fast.weight_layouts import works

pytestmark = pytest.mark.skipif(
    why_not() is not None or not works(torch.bfloat16), reason="nothing is compiled or packed here"
)

ROUNDING = 1e-2
LOWEST = torch.finfo(torch.bfloat16).min


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@settings(max_examples=40, deadline=None)
@given(
    inputs=st.lists(
        st.integers(1, 120).flatmap(
            lambda count: st.tuples(
                st.just(count), st.lists(st.integers(0, count - 1), max_size=4, unique=True)
            )
        ),
        min_size=1,
        max_size=5,
    ),
    heads=st.sampled_from([(1, 1), (4, 4), (4, 2)]),
    size=st.sampled_from([32, 64, 6]),
    is_causal=st.booleans(),
    rest=st.integers(0, 5),
    seed=st.integers(0, 1000),
)
def test_attention_has_the_same_gradients_where_they_are_wanted(
    inputs: list[tuple[int, list[int]]],
    heads: tuple[int, int],
    size: int,
    is_causal: bool,
    rest: int,
    seed: int,
) -> None:
    draws = torch.Generator().manual_seed(seed)
    counts = torch.tensor([count for count, _ in inputs])
    starts, total, longest = counts.cumsum(0) - counts, int(counts.sum()), int(counts.max())
    mask = (torch.arange(longest) < counts[:, None]).long()
    is_row = torch.zeros_like(mask, dtype=torch.bool)
    for number, (_, chosen) in enumerate(inputs):
        is_row[number, chosen] = True
    joined = JoinedInputs(mask)
    size_of_row = joined.size
    states = [
        torch.randn(1, one, size_of_row, size, generator=draws).bfloat16().requires_grad_()
        for one in (heads[0], heads[1], heads[1])
    ]
    bias = torch.full((1, 1, longest, longest), LOWEST).triu(1).bfloat16() if is_causal else None
    spans = Spans(starts, counts, starts, counts, total, total)
    wanted = joined.wanted(is_row)
    slope = torch.randn(1, size_of_row, heads[0], size, generator=draws).bfloat16()
    found = []
    for given_places in (None, wanted):
        output = attend_row(*states, spans, bias, 0.3, given_places)
        found.append((output, *torch.autograd.grad(output, states, slope)))
    assert torch.equal(found[0][0], found[1][0])
    scale = max(float(one.double().norm()) for one in found[0][1:])
    is_between = torch.zeros(size_of_row, dtype=torch.bool)
    for start, first, count in zip(starts, wanted.starts, wanted.counts, strict=True):
        is_between[start + first : start + first + count] = True
    for whole, narrow in zip(found[0][1:], found[1][1:], strict=True):
        there = whole[:, :, wanted.places].double() - narrow[:, :, wanted.places].double()
        assert float(there.norm()) <= ROUNDING * scale
        assert not narrow[:, :, ~is_between].any()


def read(backbone: Any, wanted: bool) -> tuple[Tensor, Tensor, int]:
    """Return what is read, the gradient of rows among tokens, and where it is not 0."""
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(12, backbone.vocabulary_size, (3, 9), generator=draws)
    mask = (torch.arange(9) < torch.tensor([[9], [4], [6]])).long()
    is_row = torch.zeros_like(mask, dtype=torch.bool)
    is_row[0, 2:5] = is_row[1, 0] = is_row[2, 5] = is_row[2, 1] = True
    rows = backbone.embed(ids).requires_grad_()
    asked = {"wanted": is_row} if wanted else {}
    if backbone.family == "encoder-decoder":
        labels = ids[:, :4]
        inputs = backbone.shift_right(labels), torch.arange(3), torch.ones_like(labels)
        places = torch.arange(4).expand(3, 4)
        found = logits(backbone, rows, mask, None, places, DecoderInputs(*inputs), **asked)
    else:
        found = hidden(backbone, rows, mask, None, gather=mask.cumsum(dim=1) - 1, **asked)
    factors = torch.randn(found.shape, generator=draws).to(found)
    (slope,) = torch.autograd.grad((found * factors).sum(), rows)
    return found.detach(), slope[is_row], int(slope.any(dim=-1).sum())


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepacking, "_LEAST_WEIGHTS", 1)


@pytest.mark.parametrize("has_checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_all_architectures_have_the_same_gradients_at_rows(
    backbone_folder: Any, kind: str, has_checkpointing: bool, everywhere: None
) -> None:
    backbone = load_backbone(
        str(backbone_folder(kind)),
        dtype="bfloat16",
        attention=None if kind == "deberta-v2" else "fused",  # which has no interface
        gradient_checkpointing=has_checkpointing,
    )
    whole, narrow = read(backbone, wanted=False), read(backbone, wanted=True)
    assert torch.equal(whole[0], narrow[0])
    assert error(narrow[1], whole[1]) <= ROUNDING


def test_products_in_front_of_the_first_attention_are_narrow_and_no_others(
    backbone_folder: Any, everywhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(str(backbone_folder("bert")), dtype="bfloat16")
    rows = []
    multiply = weight_layouts.Weights.multiply_back

    def counted(self: Any, gradients: Tensor, numbers: tuple[int, ...]) -> Tensor:
        rows.append(gradients.numel() // gradients.shape[-1])
        return multiply(self, gradients, numbers)

    monkeypatch.setattr(weight_layouts.Weights, "multiply_back", counted)
    read(backbone, wanted=False)
    whole = list(rows)
    rows.clear()
    read(backbone, wanted=True)
    assert rows[:-1] == whole[:-1]
    assert (whole[-1], rows[-1]) == (32, 6)


def test_what_is_trained_itself_is_not_narrow(backbone_folder: Any, everywhere: None) -> None:
    backbone = load_backbone(str(backbone_folder("bert")), dtype="bfloat16")
    adapted = LoraAdaptation(rank=2, targets=["query", "value"]).adapt(backbone, False, 0)
    whole, narrow = (read(adapted.backbone, wanted) for wanted in (False, True))
    assert torch.equal(whole[1], narrow[1])
    assert whole[2] == narrow[2]


def test_nothing_is_narrow_after_a_layer_that_failed(
    backbone_folder: Any, everywhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(str(backbone_folder("bert")), dtype="bfloat16")
    hints, wanted = prepacking.hints_of(backbone.model), []

    def fail(values: Tensor, weights: Any, given: Any) -> Any:
        wanted.append(given.wanted)
        raise ValueError("within")

    read(backbone, wanted=True)  # shortcuts are tried before the first
    monkeypatch.setattr(prepacking, "multiply", fail)
    with pytest.raises(ValueError, match="within"):
        read(backbone, wanted=True)
    assert wanted[0] is not None
    assert hints.wanted is None
