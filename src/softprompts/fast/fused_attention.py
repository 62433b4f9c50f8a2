"""Attention in one pass for bfloat16 on the processor, over inputs behind each other in one row.

A score is made, used and forgotten while it is in the processor's own memory: only the largest
score of each query and the logarithm of its sum are kept for the way back. No input is padded or
moved to meet others. The code is in `kernels/kernels.cpp`.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from softprompts.errors import BackboneError
from softprompts.fast.kernels.building import load_library
from softprompts.fast.plain_attention import HARMLESS, attend_plainly
from softprompts.fast.spans import Spans, Wanted

NAME = "softprompts-fused"
"""The name under which transformers finds `attend_fused`."""

_KNOWN = frozenset({"scaling", "dropout", "position_bias"})
"""Options that it does as it is asked to; a drop of attention weights only where it is 0."""

_TOLERANCE = 0.03


def find_library() -> ctypes.CDLL:
    """Return the compiled code, which attends as it should.

    Raises:
        BackboneError: if this machine cannot run it.
    """
    return load_library(check_library)


def why_not() -> str | None:
    """Return why this machine cannot run it; `None` where it can."""
    try:
        find_library()
    except BackboneError as error:
        return str(error)
    return None


def check_library(library: ctypes.CDLL) -> None:
    """Check that compiled attention and GELU give, both ways, what they are by their formulas.

    Raises:
        BackboneError: if it does not.
    """
    draws = torch.Generator().manual_seed(0)
    query, key, value, slope = torch.randn(4, 1, 2, 53, 40, generator=draws).bfloat16()
    spans, factor = Spans.of_batch(1, 53, 53), 0.2
    output, sums = _run(library, query, key, value, spans, None, factor)
    slope = slope.transpose(1, 2).contiguous()
    found = (output, *_run_back(library, (query, key, value, sums), slope, spans, None, factor))
    q, k, v, g = (one.double() for one in (query, key, value, slope.transpose(1, 2)))
    weights = torch.softmax(factor * q @ k.mT, dim=-1)
    bent = weights * (g @ v.mT)
    bent = factor * (bent - weights * bent.sum(dim=-1, keepdim=True))
    expected = ((weights @ v).transpose(1, 2), bent @ k, bent.mT @ q, weights.mT @ g)
    for one, other in zip(found, expected, strict=True):
        if not (one.double() - other).norm() <= _TOLERANCE * other.norm():
            raise BackboneError("compiled kernels must attend as the formula says, but do not.")
    _check_gelu(library)


def _check_gelu(library: ctypes.CDLL) -> None:
    values = torch.linspace(-4, 4, 37).bfloat16()
    x = values.double()
    share, bell = torch.special.ndtr(x), torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    ones = torch.ones_like(values)
    for gradient, expected in ((None, x * share), (ones, share + x * bell)):
        found = torch.empty_like(values)
        given = (values, gradient, found)
        pointers = (ctypes.c_void_p(None if one is None else one.data_ptr()) for one in given)
        library.gelu(*pointers, ctypes.c_int64(len(x)), ctypes.c_int32(0), ctypes.c_int32(1))
        if not (found.double() - expected).norm() <= _TOLERANCE * expected.norm():
            raise BackboneError("compiled kernels must take GELU as the formula says, but do not.")


def fits(states: Sequence[Tensor], mask: Tensor | None, options: Mapping[str, Any]) -> bool:
    """Return whether it can be asked for some attention; plain attention can for the rest.

    Args:
        states: queries, keys and values. Shape `(batch, heads, tokens, size)` each.
        mask: added to the scores, or `None`.
        options: whatever else a model gives its attention.
    """
    special = {name for name, one in options.items() if one is not None and one is not False}
    is_plain = not options.get("dropout") and special - _KNOWN <= HARMLESS
    added = (mask, options.get("position_bias"))
    is_trained = any(one is not None and one.requires_grad for one in added)
    is_half = all(one.dtype == torch.bfloat16 and one.device.type == "cpu" for one in states)
    is_even = all(one.shape[-1] % 2 == 0 for one in states)
    return is_plain and not is_trained and is_half and is_even


def attend_fused(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend in a batch; see `attend_plainly`, which does what this cannot.

    Args:
        module: the attention of the model.
        query: queries. Shape `(targets, heads, tokens, size)`; where targets are more than keys,
            as many that follow each other read the same.
        key: keys; heads may be fewer. Shape `(batch, heads, keys, size)`.
        value: values, of as many heads. Shape `(batch, heads, keys, width)`.
        attention_mask: added to the scores, or `None`.
        scaling: factor on the scores; `size ** -0.5` when `None`.
        options: whatever else the model gives its attention.

    Returns:
        The output. Shape `(targets, tokens, heads, width)`. And weights, where eager code ran.
    """
    if not fits((query, key, value), attention_mask, options):
        return attend_plainly(module, query, key, value, attention_mask, scaling, **options)
    (targets, _, tokens, size), (batch, _, keys, _) = query.shape, key.shape
    scaling = size**-0.5 if scaling is None else scaling
    bias = add_biases(attention_mask, options.get("position_bias"))
    copies = targets // batch
    if copies > 1 and bias is not None and bias.shape[2] > 1:
        bias = bias.repeat(1, 1, copies, 1)
    spans = Spans.of_batch(batch, copies * tokens, keys)
    output = attend_row(_row(query), _row(key), _row(value), spans, bias, scaling)
    return output.view(targets, tokens, *output.shape[2:]), None


def add_biases(mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """Return what is added to scores: a mask, a bias of positions, both or neither."""
    if mask is None or bias is None:
        return bias if mask is None else mask
    return mask + bias


def _row(batch: Tensor) -> Tensor:
    """Return a batch of shape `(batch, heads, tokens, size)` as one row, input behind input."""
    return batch.transpose(1, 2).flatten(0, 1).transpose(0, 1)[None]


def register() -> None:
    """Make this attention known to transformers under its name."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(NAME, attend_fused)
    AttentionMaskInterface.register(NAME, eager_mask)


def attend_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spans: Spans,
    bias: Tensor | None,
    scaling: float,
    wanted: Wanted | None = None,
) -> Tensor:
    """Return `softmax(scaling * Q K^T + bias) V` of each input by itself.

    All is bfloat16; `size` and `width` are even.

    Args:
        query: queries. Shape `(1, heads, tokens, size)`.
        key: keys; heads may be fewer. Shape `(1, heads, keys, size)`.
        value: values, of as many heads as keys. Shape `(1, heads, keys, width)`.
        spans: where inputs stand.
        bias: added to scores. Shape `(inputs, heads, tokens, keys)`, at least as many of the last
            two as an input has; any but the last may be 1.
        scaling: factor on the scores.
        wanted: places whose queries, keys and values have a gradient, which is 0 elsewhere; all
            when `None`. Queries and keys must be those of the same places.

    Returns:
        0 at places that belong to no input. Shape `(1, tokens, heads, width)`.

    Raises:
        BackboneError: if inputs reach beyond queries, keys, values or bias.
    """
    counts = (spans.num_queries, spans.num_keys, spans.num_keys)
    for name, one, count in zip(
        ("query", "key", "value"), (query, key, value), counts, strict=True
    ):
        if one.shape[2] < count:
            raise BackboneError(f"{name} must have {count} places, but has {one.shape[2]}.")
    least = (len(spans.key_counts), query.shape[1], *spans.most)
    if bias is not None and any(
        size < count and (size != 1 or place == 3)
        for place, (size, count) in enumerate(zip(bias.shape, least, strict=True))
    ):
        raise BackboneError(f"bias must have shape {least} at least, but has {tuple(bias.shape)}.")
    return _Fused.apply(query, key, value, spans, bias, scaling, wanted)  # type: ignore[no-any-return, no-untyped-call]


class _Layout(ctypes.Structure):
    """What the compiled code is told; the fields are those of its `Layout`."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("query_starts", "query_counts", "key_starts", "key_counts")
        ),
        *((name, ctypes.c_int64) for name in ("inputs", "heads", "key_heads", "size", "width")),
        *(
            (f"{name}_{step}", ctypes.c_int64)
            for name in ("query", "key", "value")
            for step in ("place", "head")
        ),
        ("bias", ctypes.c_void_p),
        *((f"bias_{step}", ctypes.c_int64) for step in ("input", "head", "query")),
        ("scaling", ctypes.c_float),
        ("threads", ctypes.c_int32),
    )


class _Fused(torch.autograd.Function):
    """Forward keeps queries, keys, values and two numbers for each query and head.

    Where only some places are wanted it keeps the output too.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        spans: Spans,
        bias: Tensor | None,
        scaling: float,
        wanted: Wanted | None,
    ) -> Tensor:
        query, key, value = (
            one if one.stride(3) == 1 else one.contiguous() for one in (query, key, value)
        )
        if bias is not None:
            bias = bias.to(torch.bfloat16).contiguous()
        output, sums = _run(find_library(), query, key, value, spans, bias, scaling)
        ctx.save_for_backward(query, key, value, sums, output if wanted is not None else None)
        ctx.given, ctx.wanted = (spans, bias, scaling), wanted
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *saved, output = ctx.saved_tensors
        narrowed = None if ctx.wanted is None else (ctx.wanted, output)
        given = (*ctx.given, narrowed)
        rows = _run_back(find_library(), tuple(saved), gradient.contiguous(), *given)
        return *rows, None, None, None, None


def _run(
    library: ctypes.CDLL,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spans: Spans,
    bias: Tensor | None,
    scaling: float,
) -> tuple[Tensor, Tensor]:
    """Return the output, and each query's largest score and the logarithm of its sum, to base 2.

    Shape `(2, heads, tokens)` of these.
    """
    heads, places = query.shape[1:3]
    output = query.new_empty(1, places, heads, value.shape[3])
    sums = torch.empty(2, heads, places)
    layout = _lay_out(query, key, value, spans, bias, scaling)
    pointers = (one.data_ptr() for one in (query, key, value, output, sums))
    _check(
        library.attend(
            ctypes.byref(layout), *map(ctypes.c_void_p, pointers), ctypes.c_int64(places)
        )
    )
    output[:, spans.num_queries :].zero_()
    return output, sums


def _run_back(
    library: ctypes.CDLL,
    saved: tuple[Tensor, ...],
    gradient: Tensor,
    spans: Spans,
    bias: Tensor | None,
    scaling: float,
    narrowed: tuple[Wanted, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients of queries, keys and values from that of the output, which is contiguous.

    A place's lie side by side, of keys and values at least, so that what made them of the same
    values can take them as one. Where some places are wanted, the output is given beside them.
    """
    query, key, value, sums = saved
    layout = _lay_out(query, key, value, spans, bias, scaling)
    rows = _empty_rows(saved[:3])
    places: list[int | None] = [None, None, None]
    if narrowed is not None:
        for row in rows:
            row.zero_()
        wanted, output = narrowed
        places = [one.data_ptr() for one in (wanted.starts, wanted.counts, output)]
    pointers = [one.data_ptr() for one in (query, key, value, sums, gradient, *rows)]
    _check(
        library.attend_backward(
            ctypes.byref(layout),
            *map(ctypes.c_void_p, pointers[:4]),
            ctypes.c_int64(query.shape[2]),
            *map(ctypes.c_void_p, pointers[4:]),
            *(ctypes.c_int64(row.stride(0)) for row in rows),
            *map(ctypes.c_void_p, places),
        )
    )
    counts = (spans.num_queries, spans.num_keys, spans.num_keys)
    for row, count in zip(rows, counts, strict=True):
        row[count:].zero_()
    of_query, of_key, of_value = (row.transpose(0, 1)[None] for row in rows)
    return of_query, of_key, of_value


def _empty_rows(states: Sequence[Tensor]) -> list[Tensor]:
    """Return room for something like queries, keys and values. Shape `(places, heads, size)`."""
    shapes = [(one.shape[2], one.shape[1], one.shape[3]) for one in states]
    found = []
    for places, alike in groupby(shapes, lambda shape: shape[0]):
        parts = list(alike)
        ends = list(accumulate(heads * size for _, heads, size in parts))
        joint = states[0].new_empty(places, ends[-1])
        starts = (0, *ends[:-1])
        found += [joint[:, i:j].view(part) for i, j, part in zip(starts, ends, parts, strict=True)]
    return found


def _lay_out(
    query: Tensor, key: Tensor, value: Tensor, spans: Spans, bias: Tensor | None, scaling: float
) -> _Layout:
    starts = (spans.query_starts, spans.query_counts, spans.key_starts, spans.key_counts)
    steps = [one.stride(i) for one in (query, key, value) for i in (2, 1)]
    biases = (
        [0, 0, 0]
        if bias is None
        else [bias.stride(i) if bias.shape[i] > 1 else 0 for i in range(3)]
    )
    return _Layout(
        *(one.data_ptr() for one in starts),
        *(len(starts[0]), query.shape[1], key.shape[1], query.shape[3], value.shape[3]),
        *steps,
        None if bias is None else bias.data_ptr(),
        *biases,
        scaling,
        torch.get_num_threads(),
    )


def _check(code: int) -> None:
    if code:
        raise MemoryError("attention must have memory for the scores of 96 queries of an input.")
