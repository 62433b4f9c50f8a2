"""What Llama's layers do between products, in one pass each way for bfloat16 on the processor."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from softprompts.fast.fused_attention import find_library

_TOLERANCE = 0.1
"""Of a trial: modules round in between."""

_TRIAL_SIZE = 0.3
"""Of what a trial reads: with larger scores attention's gradients cancel to what was rounded."""

Forward = Callable[..., Any]


def fuse_layers(model: nn.Module) -> int:
    """Let a model's norms, gated layers and rotations run in one pass; return how many do.

    One of each class is tried first: what does not give what it gave, both ways, stays as it is.

    Args:
        model: a model of transformers; its modules' `forward` is replaced, but of those that have a
            hook of accelerate, which stands there.
    """
    agrees: dict[type, bool] = {}
    found = 0
    for module in model.modules():
        kind, forward = type(module), _forward_of(module)
        if forward is None or hasattr(module, "_hf_hook"):
            continue
        if kind not in agrees:
            agrees[kind] = _agrees(module, forward)
        if agrees[kind]:
            module.forward = partial(forward, module)
            found += 1
    return found


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return `silu(gate) * up` (Shazeer, 2020, arXiv 2002.05202).

    Args:
        gate: bfloat16 on the processor. Shape `(..., hidden)`.
        up: likewise. Shape `(..., hidden)`.

    Returns:
        Shape `(..., hidden)`.
    """
    return _SwiGlu.apply(gate, up)  # type: ignore[no-any-return, no-untyped-call]


def rms_norm(values: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Return `weight * values / sqrt(mean(values^2) + epsilon)` (Zhang and Sennrich, 2019).

    Reference: arXiv 1910.07467, equation 4.

    Args:
        values: bfloat16 on the processor. Shape `(..., hidden)`.
        weight: likewise, without a gradient. Shape `(hidden,)`.
        epsilon: added to the mean.

    Returns:
        Shape `(..., hidden)`.
    """
    return _RmsNorm.apply(values, weight, epsilon)  # type: ignore[no-any-return, no-untyped-call]


def rotate(
    query: Tensor, key: Tensor, value: Tensor, cosine: Tensor, sine: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries and keys turned by the angles of their places, and the values they go with.

    The gradients of all three lie side by side. Reference: Su et al., 2021, arXiv 2104.09864.

    Args:
        query: bfloat16 on the processor. Shape `(1, heads, tokens, size)`.
        key: heads may be fewer. Shape `(1, heads, tokens, size)`.
        value: of as many heads as keys. Shape `(1, heads, tokens, size)`.
        cosine: of each angle. Shape `(1, tokens, size)`.
        sine: of each angle. Shape `(1, tokens, size)`.

    Returns:
        Of the same shapes.
    """
    given = (query, key, value, cosine, sine)
    return _Rotate.apply(*given)  # type: ignore[no-any-return, no-untyped-call]


def _forward_of(module: nn.Module) -> Forward | None:
    """Return what may stand in the place of a module's `forward`."""
    from transformers.activations import ACT2FN

    names = ("gate_proj", "up_proj", "down_proj")
    if type(module).__name__ == "LlamaAttention":
        return _attend
    if isinstance(getattr(module, "act_fn", None), nn.SiLU | type(ACT2FN["silu"])):
        is_linear = all(type(getattr(module, name, None)) is nn.Linear for name in names)
        return _gate if is_linear else None
    return _norm if hasattr(module, "variance_epsilon") and hasattr(module, "weight") else None


def _agrees(module: nn.Module, forward: Forward) -> bool:
    """Return whether a forward gives what a module's own does, and the gradient of it."""
    tried: Any = copy.deepcopy(module).requires_grad_(False)
    weight = next(tried.parameters())
    draws = torch.Generator().manual_seed(0)
    rows = _TRIAL_SIZE * torch.randn(1, 5, weight.shape[-1], generator=draws).to(weight.dtype)
    rest: tuple[Any, ...] = ()
    if forward is _attend:
        angles = torch.randn(1, 5, tried.head_dim // 2, generator=draws).repeat(1, 1, 2)
        rest = ((angles.cos().to(rows), angles.sin().to(rows)),)
    try:
        expected, found = (
            _both_ways(partial(one, tried), rows, rest) for one in (type(module).forward, forward)
        )
        return all(
            bool((one - other).norm() <= _TOLERANCE * other.norm())
            for one, other in zip(found, expected, strict=True)
        )
    except Exception:  # whatever a module does with what it does not know
        return False


@torch.enable_grad()
def _both_ways(forward: Forward, rows: Tensor, rest: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """Return what a forward gives, and the gradient of that with slopes drawn alike."""
    rows = rows.clone().requires_grad_()
    output = forward(rows, *rest)
    output = output[0] if isinstance(output, tuple) else output
    slopes = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
    (slope,) = torch.autograd.grad(output, rows, slopes)
    return output.detach().float(), slope.float()


def _fits(*states: Tensor) -> bool:
    return all(one.dtype == torch.bfloat16 and one.device.type == "cpu" for one in states)


def _norm(module: Any, hidden_states: Tensor, *more: Any, **options: Any) -> Tensor:
    weight = module.weight
    is_known = _fits(hidden_states, weight) and hidden_states.shape[-1:] == weight.shape
    if more or options or not is_known or weight.requires_grad:  # such as a gate beside it
        return cast(Tensor, type(module).forward(module, hidden_states, *more, **options))
    return rms_norm(hidden_states, weight, module.variance_epsilon)


def _gate(module: Any, x: Tensor) -> Tensor:
    gate, up = module.gate_proj(x), module.up_proj(x)
    bent = swiglu(gate, up) if _fits(gate, up) else module.act_fn(gate) * up
    return cast(Tensor, module.down_proj(bent))


def _attend(
    module: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Do what Llama's attention does with a row of inputs; it does the rest itself."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    given = (hidden_states, position_embeddings, attention_mask, past_key_values)
    angles = (1, hidden_states.shape[1], module.head_dim)
    is_row = len(hidden_states) == 1 and all(one.shape == angles for one in position_embeddings)
    is_known = is_row and past_key_values is None and not module.training
    attend = ALL_ATTENTION_FUNCTIONS.get(module.config._attn_implementation)
    if attend is None or not is_known or not _fits(hidden_states, *position_embeddings):
        return type(module).forward(module, *given, **options)  # type: ignore[no-any-return]
    shape = (*angles[:2], -1, module.head_dim)
    projections = (module.q_proj, module.k_proj, module.v_proj)
    states = [one(hidden_states).view(shape).transpose(1, 2) for one in projections]
    query, key, value = states
    states = [*rotate(query, key, value, *position_embeddings)]
    scaling = {"dropout": 0.0, "scaling": module.scaling}
    output, weights = attend(module, *states, attention_mask, **scaling, **options)
    return module.o_proj(output.flatten(2)), weights


FORWARDS = (_norm, _gate, _attend)
"""What may stand in the place of a module's `forward`."""


def _pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(None if one is None else one.data_ptr()) for one in tensors]


def _sizes(*sizes: int) -> list[ctypes.c_int64]:
    return list(map(ctypes.c_int64, sizes))


def _threads() -> ctypes.c_int32:
    return ctypes.c_int32(torch.get_num_threads())


def _rows(values: Tensor) -> Tensor:
    """Return values as rows, each in one piece. Shape `(tokens, hidden)`."""
    rows = values.reshape(-1, values.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


class _SwiGlu(torch.autograd.Function):
    """Backwards gradients lie side by side, so that one product takes both."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return _write_swiglu(gate, up, None, gate.new_empty(gate.shape))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        gate, up = ctx.saved_tensors
        joint = gate.new_empty(*gate.shape[:-1], 2 * gate.shape[-1])
        return _write_swiglu(gate, up, gradient.contiguous(), joint).chunk(2, dim=-1)


def _write_swiglu(gate: Tensor, up: Tensor, gradient: Tensor | None, output: Tensor) -> Tensor:
    gates, ups = _rows(gate), _rows(up)
    pointers = _pointers(gates, ups, gradient, output)
    sizes = _sizes(*gates.shape, gates.stride(0), ups.stride(0))
    find_library().swiglu(*pointers, *sizes, _threads())
    return output


class _RmsNorm(torch.autograd.Function):
    """Keeps what it read, and one number for each row."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        scales = torch.empty(values.shape[:-1])
        ctx.save_for_backward(values, weight, scales)
        return _write_norm(values, weight, scales, None, epsilon)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        values, weight, scales = ctx.saved_tensors
        return _write_norm(values, weight, scales, gradient.contiguous()), None, None


def _write_norm(
    values: Tensor, weight: Tensor, scales: Tensor, gradient: Tensor | None, epsilon: float = 0.0
) -> Tensor:
    values, weight = values.contiguous(), weight.contiguous()
    output = torch.empty_like(values)
    pointers = _pointers(values, weight, gradient, output, scales)
    sizes = _sizes(scales.numel(), len(weight))
    find_library().rms_norm(*pointers, *sizes, ctypes.c_float(epsilon), _threads())
    return output


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, cosine: Tensor, sine: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        cosine, sine = cosine.contiguous(), sine.contiguous()
        ctx.save_for_backward(cosine, sine)
        ctx.set_materialize_grads(False)
        tokens, size = query.shape[2:]
        heads = (query.shape[1], key.shape[1])
        parts = query.new_empty(tokens, sum(heads), size).split_with_sizes(heads, dim=1)
        for part, state in zip(parts, (query, key), strict=True):
            _write_rotated(state, cosine, sine, part, is_back=False)
        turned_query, turned_key = (part.transpose(0, 1)[None] for part in parts)
        return turned_query, turned_key, value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        cosine, sine = ctx.saved_tensors
        known = [one for one in gradients if one is not None]  # a tail has queries, or the others
        heads = [one.shape[1] for one in known]
        joint = known[0].new_empty(len(cosine[0]), sum(heads), cosine.shape[2])
        parts = iter(joint.split_with_sizes(heads, dim=1))
        found: list[Tensor | None] = []
        for gradient, is_turned in zip(gradients, (True, True, False), strict=True):
            if gradient is None:
                found.append(None)
                continue
            part = next(parts)
            if is_turned:
                _write_rotated(gradient, cosine, sine, part, is_back=True)
            else:
                part.copy_(gradient[0].transpose(0, 1))
            found.append(part.transpose(0, 1)[None])
        return *found, None, None


def _write_rotated(
    states: Tensor, cosine: Tensor, sine: Tensor, output: Tensor, *, is_back: bool
) -> None:
    """Write what is turned. Shape of `states` `(1, heads, tokens, size)`."""
    states = states if states.stride(3) == 1 else states.contiguous()
    pointers = _pointers(states, cosine, sine, output)
    sizes = _sizes(*output.shape, states.stride(2), states.stride(1), output.stride(0))
    find_library().rotate(*pointers, *sizes, ctypes.c_int32(is_back), _threads())
