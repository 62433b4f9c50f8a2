"""Compiled attention is attention, of each input by itself, wherever inputs stand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from backbones import KINDS
from reads import hidden, shortcuts
from softprompts.backbones.attention import IMPLEMENTATIONS
from softprompts.backbones.loading import load_backbone
from softprompts.errors import BackboneError
from softprompts.fast import fused_attention
from softprompts.fast.fused_attention import (
    NAME,
    attend_fused,
    attend_row,
    find_library,
    why_not,
)
from softprompts.fast.spans import Spans

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

ROUNDING = 6e-3
"""Relative error that products of bfloat16 have."""


@pytest.fixture(scope="module", autouse=True, params=[False, True], ids=["lanes", "tiles"])
def tiles(request: pytest.FixtureRequest) -> Any:
    """Products by AVX-512, and by AMX where the processor has it."""
    library = find_library()
    if library.use_tiles(request.param) != request.param:
        pytest.skip("the processor has no AMX")
    yield
    library.use_tiles(1)


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    """Return a row as a model makes it: heads side by side in each place."""
    places, heads, size = shape
    row = torch.randn(places, heads, size, generator=generator).bfloat16()
    return row.transpose(0, 1)[None].requires_grad_()


def spans_of(counts: list[int], keys: list[int] | None = None) -> Spans:
    queries, keys = torch.tensor(counts), torch.tensor(counts if keys is None else keys)
    starts = (queries.cumsum(0) - queries, keys.cumsum(0) - keys)
    totals = (int(queries.sum()), int(keys.sum()))
    return Spans(starts[0], queries, starts[1], keys, *totals)


def reference(
    states: tuple[Tensor, ...], spans: Spans, bias: Tensor | None, scaling: float
) -> Tensor:
    """Return attention of each input by PyTorch, in double precision."""
    query, key, value = states
    copies = query.shape[1] // key.shape[1]
    output = query.new_zeros(query.shape[2], query.shape[1], value.shape[3])
    for number in range(len(spans.query_counts)):
        q, n = int(spans.query_starts[number]), int(spans.query_counts[number])
        k, m = int(spans.key_starts[number]), int(spans.key_counts[number])
        mask = None
        if bias is not None:
            own = bias[number if len(bias) > 1 else 0]
            mask = own.expand(query.shape[1], max(n, own.shape[1]), -1)[:, :n, :m].double()
        keys, values = (
            one[0, :, k : k + m].repeat_interleave(copies, dim=0) for one in (key, value)
        )
        found = functional.scaled_dot_product_attention(
            query[0, :, q : q + n], keys, values, attn_mask=mask, scale=scaling
        )
        output = output.index_copy(0, torch.arange(q, q + n), found.transpose(0, 1))
    return output[None]


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).detach().norm() / expected.detach().norm())


def biases(kind: str, generator: torch.Generator, inputs: int, heads: int, width: int) -> Any:
    lowest = torch.finfo(torch.bfloat16).min
    causal = torch.full((1, 1, width, width), lowest).triu(1)
    shapes = {"per head": (1, heads, width, width), "per input": (inputs, 1, 1, width)}
    if kind in shapes:
        return torch.randn(shapes[kind], generator=generator).bfloat16()
    return None if kind == "none" else causal.bfloat16()


def both(
    states: tuple[Tensor, ...], spans: Spans, bias: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Check the output; return it, and gradients as they are found and as PyTorch has them."""
    found = attend_row(*states, spans, bias, 0.2)
    exact = tuple(one.detach().double().requires_grad_() for one in states)
    expected = reference(exact, spans, bias, 0.2)
    assert error(found, expected) < ROUNDING
    slope = torch.randn(found.shape, generator=generator).bfloat16()
    gradients = torch.autograd.grad(found, states, slope)
    return found, list(gradients), list(torch.autograd.grad(expected, exact, slope.double()))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 130), min_size=1, max_size=6),
    heads=st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]),
    sizes=st.sampled_from([(32, 32), (64, 64), (8, 8), (2, 6), (20, 36), (80, 48)]),
    kind=st.sampled_from(["none", "causal", "per head", "per input"]),
    rest=st.integers(0, 5),
    seed=st.integers(0, 1000),
)
def test_values_and_gradients_are_those_of_pytorch(
    counts: list[int],
    heads: tuple[int, int],
    sizes: tuple[int, int],
    kind: str,
    rest: int,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    spans, places = spans_of(counts), sum(counts) + rest
    states = (
        draw(generator, places, heads[0], sizes[0]),
        draw(generator, places, heads[1], sizes[0]),
        draw(generator, places, heads[1], sizes[1]),
    )
    bias = biases(kind, generator, len(counts), heads[0], max(counts) + 3)
    found, gradients, wanted = both(states, spans, bias, generator)
    scale = max(float(one.norm()) for one in wanted)  # one key alone has no gradient of scores
    for own, other in zip(gradients, wanted, strict=True):
        assert float((own.double() - other).norm()) < ROUNDING * max(scale, float(other.norm()))
        assert not own[:, :, sum(counts) :].any()
    assert not found[:, sum(counts) :].any()


def test_queries_and_keys_may_be_of_other_numbers() -> None:
    generator = torch.Generator().manual_seed(1)
    spans = spans_of([1, 3, 0, 200], [70, 5, 9, 33])
    states = (draw(generator, 204, 2, 32), *(draw(generator, 117, 2, 32) for _ in range(2)))
    _, gradients, wanted = both(states, spans, None, generator)
    for own, other in zip(gradients, wanted, strict=True):
        assert error(own, other) < ROUNDING
    assert not gradients[1][:, :, 75:84].any()  # keys that no query meets


def test_an_input_without_keys_does_not_disturb_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    states = (draw(generator, 5, 2, 8), draw(generator, 3, 2, 8), draw(generator, 3, 2, 8))
    found = attend_row(*states, spans_of([2, 3], [0, 3]), None, 0.2)
    alone = attend_row(states[0][:, :, 2:], *states[1:], spans_of([3]), None, 0.2)
    assert torch.equal(found[:, 2:], alone)
    gradients = torch.autograd.grad(found[:, 2:].float().sum(), states)
    for own, other in zip(gradients, torch.autograd.grad(alone.float().sum(), states), strict=True):
        assert torch.equal(own[:, :, -3:], other[:, :, -3:])


def test_an_input_is_not_touched_by_the_others() -> None:
    generator = torch.Generator().manual_seed(2)
    states = [draw(generator, 100, 4, 32) for _ in range(3)]
    spans = spans_of([40, 25, 35])

    def run(given: list[Tensor]) -> list[Tensor]:
        output = attend_row(*given, spans, None, 0.2)
        return [
            output[0],
            *(g[0].transpose(0, 1) for g in torch.autograd.grad(output.sum(), given)),
        ]

    before = run(states)
    other = [one.detach().clone() for one in states]
    for one in other:
        one[:, :, 40:65] = float("nan")
    after = run([one.requires_grad_() for one in other])
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[:40], new[:40])
        assert torch.equal(old[65:], new[65:])
        assert new[40:65].isnan().all()


def test_bits_do_not_depend_on_threads() -> None:
    generator = torch.Generator().manual_seed(3)
    states = [draw(generator, 300, 4, 64) for _ in range(3)]
    spans, found = spans_of([120, 3, 77, 100]), []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            output = attend_row(*states, spans, None, 0.125)
            found.append([output, *torch.autograd.grad(output.sum(), states)])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    states = [draw(torch.Generator().manual_seed(4), 3, 1, 2) for _ in range(3)]
    output = attend_row(*states, spans_of([3]), None, 1.0)
    (first,) = torch.autograd.grad(output.sum(), states[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(first.sum(), states[:1])


class Special(torch.nn.Module):
    """An attention whose options only its own eager code knows."""


def eager_attention_forward(*arguments: Any, **options: Any) -> tuple[Any, None]:
    return options["softcap"], None


def test_what_it_cannot_do_is_left_to_others() -> None:
    batch = [torch.randn(2, 4, 5, 8).bfloat16() for _ in range(3)]
    assert attend_fused(Special(), *batch, None, softcap=3.0) == (3.0, None)
    for states in ([one.float() for one in batch], [one[..., :7] for one in batch]):
        expected = functional.scaled_dot_product_attention(*(one.double() for one in states))
        found, _ = attend_fused(Special(), *states, None)
        assert error(found.transpose(1, 2), expected) < ROUNDING


@pytest.mark.parametrize("is_laid_by_heads", [False, True])
def test_a_batch_may_lie_in_memory_either_way(is_laid_by_heads: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    batch = [torch.randn(3, 9, 4, 8, generator=generator).bfloat16() for _ in range(3)]
    batch = [one.transpose(1, 2) for one in batch]
    if is_laid_by_heads:
        batch = [one.contiguous() for one in batch]
    mask = torch.randn(3, 1, 9, 9, generator=generator).bfloat16()
    found, _ = attend_fused(Special(), *batch, mask, scaling=0.3)
    given = [one.double() for one in (*batch, mask)]
    expected = functional.scaled_dot_product_attention(*given[:3], attn_mask=given[3], scale=0.3)
    assert error(found.transpose(1, 2), expected) < ROUNDING


LENGTHS = (19, 7, 40, 33, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_backbone_reads_with_it_what_it_reads_without(tiny: Any, kind: str) -> None:
    exact = tiny(kind)
    try:
        own = load_backbone(exact.name, dtype="bfloat16", attention="fused")
    except BackboneError:
        assert kind == "deberta-v2"  # whose attention is its own
        return
    plain = load_backbone(exact.name, dtype="bfloat16", attention="plain")
    assert own.attention == "fused"
    assert shortcuts(own) == shortcuts(plain)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    gather = (torch.tensor(LENGTHS) - 1)[:, None]

    def read(backbone: Any, seed: int) -> tuple[Tensor, Tensor]:
        draws = torch.Generator().manual_seed(seed)
        ids = torch.randint(12, exact.vocabulary_size, mask.shape, generator=draws)
        rows = backbone.embed(ids).requires_grad_()
        states = hidden(backbone, rows, mask, None, gather)
        return states, torch.autograd.grad(states.float().square().sum(), rows)[0]

    errors = torch.zeros(2, 2)  # of states and gradients, with and without
    for seed in range(4):
        wanted = [one.double() for one in read(exact, seed)]
        for column, backbone in enumerate((own, plain)):
            found = read(backbone, seed)
            errors[:, column] += torch.tensor(list(map(error, found, wanted)))
    assert (errors[:, 0] < 1.25 * errors[:, 1]).all(), errors


def test_it_is_chosen_for_bfloat16_where_it_can_be(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = tiny("bert").name
    assert load_backbone(name, dtype="bfloat16").attention == "fused"
    assert load_backbone(name, dtype="bfloat16", compile=True).attention == "plain"
    assert load_backbone(name).attention == "sdpa"
    monkeypatch.setattr(fused_attention, "why_not", lambda: "no compiler.")
    assert load_backbone(name, dtype="bfloat16").attention == "plain"
    with pytest.raises(BackboneError, match="'fused' on this machine: no compiler"):
        load_backbone(name, dtype="bfloat16", attention="fused")


def test_it_is_not_to_be_had_with_compiled_layers(tiny: Any) -> None:
    with pytest.raises(BackboneError, match="must not be 'fused' with compile"):
        load_backbone(tiny("bert").name, dtype="bfloat16", attention="fused", compile=True)


def test_its_name_is_known() -> None:
    assert IMPLEMENTATIONS["fused"] == NAME


def test_a_query_that_sees_nothing_has_the_gradient_of_even_weights() -> None:
    generator = torch.Generator().manual_seed(1)
    states = tuple(draw(generator, 4, 1, 8) for _ in range(3))
    bias = torch.zeros(1, 1, 4, 4).bfloat16()
    bias[:, :, 1] = torch.finfo(torch.bfloat16).min
    _, gradients, wanted = both(states, spans_of([4]), bias, generator)
    for own, other in zip(gradients, wanted, strict=True):
        assert error(own, other) < ROUNDING


@pytest.mark.parametrize(
    ("spans", "bias", "text"),
    [
        (Spans.of_batch(1, 9, 8), None, "query must have 9 places, but has 8"),
        (Spans.of_batch(2, 4, 5), None, "key must have 10 places, but has 8"),
        (spans_of([4, 4], [4, 4]), (1, 1, 1, 3), r"bias must have shape \(2, 2, 4, 4\) at least"),
        (spans_of([4, 4], [4, 4]), (1, 1, 3, 4), r"but has \(1, 1, 3, 4\)"),
        (spans_of([4, 2, 2]), (2, 1, 4, 4), r"bias must have shape \(3, 2, 4, 4\) at least"),
        (
            Spans(
                torch.tensor([0, 5]), torch.tensor([4, 4]), *torch.tensor([[0, 4], [4, 4]]), 8, 8
            ),
            None,
            r"queries of inputs must stand in \[0, 8\], but reach from 0 to 9",
        ),
        (
            Spans(*torch.tensor([[0, 4], [4, 4], [-1, 4], [4, 4]]), 8, 8),
            None,
            "keys of inputs must stand .* from -1",
        ),
    ],
)
def test_inputs_that_reach_beyond_a_row_are_refused(
    spans: Spans, bias: tuple[int, ...] | None, text: str
) -> None:
    generator = torch.Generator().manual_seed(1)
    states = tuple(draw(generator, 8, 2, 8) for _ in range(3))
    added = None if bias is None else torch.zeros(bias).bfloat16()
    with pytest.raises(BackboneError, match=text):
        attend_row(*states, spans, added, 1.0)
