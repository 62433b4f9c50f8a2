"""Laid-out weights give what plain ones do, both ways, and only where they are what they were."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones import KINDS
from reads import hidden, logits, shortcuts
from softprompts import fast
from softprompts.backbones.adaptations.copying import copy_backbone
from softprompts.backbones.adaptations.full import FullAdaptation
from softprompts.backbones.adaptations.lora import LoraAdaptation
from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.backbones.loading import load_backbone
from softprompts.fast import joined_inputs, prepacking, weight_layouts
from softprompts.fast.fused_activation import FusedGelu
from softprompts.fast.fused_attention import why_not
from softprompts.fast.hints import Hints
from softprompts.fast.prepacking import laid_out_bytes, prepack
from softprompts.fast.weight_layouts import can_prepack, works

TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 3e-2}
KNOWN = [dtype for dtype in TOLERANCES if works(dtype)]

pytestmark = pytest.mark.skipif(not KNOWN, reason="this machine packs no weights")
every_dtype = pytest.mark.parametrize("dtype", KNOWN, ids=str)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pack the smallest weights too, whatever is faster."""
    monkeypatch.setattr(prepacking, "_LEAST_WEIGHTS", 1)
    monkeypatch.setattr(prepacking, "can_prepack", works)


def plainly(folder: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """Load a backbone whose weights stay as they are."""
    with monkeypatch.context() as patch:
        patch.setattr(fast, "prepack", lambda model, run: 0)
        return load_backbone(str(folder), **options)


def owners(model: nn.Module) -> list[prepacking._Prepacked]:
    """Return what stands for the layers of a model, each once."""
    found = {}
    for module in model.modules():
        forward: Any = vars(module).get("forward")
        owner = getattr(getattr(forward, "func", None), "__self__", None)
        if isinstance(owner, prepacking._Prepacked):
            found[id(owner)] = owner
    return list(found.values())


def read(backbone: Any) -> tuple[Tensor, Tensor]:
    """Return logits or states of a ragged batch, and the gradient of its embeddings."""
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(12, backbone.vocabulary_size, (3, 9), generator=draws)
    mask = (torch.arange(9) < torch.tensor([[9], [4], [6]])).long()
    rows = backbone.embed(ids).requires_grad_()
    if backbone.family == "encoder-decoder":
        source, labels = torch.arange(3), ids[:, :4]
        decoder = DecoderInputs(backbone.shift_right(labels), source, torch.ones_like(labels))
        places = torch.arange(4).expand(3, 4)
        found = logits(backbone, rows, mask, None, places, decoder)
    else:
        found = hidden(backbone, rows, mask, None)[mask.bool()]
    factors = torch.randn(found.shape, generator=draws).to(found)
    (gradient,) = torch.autograd.grad((found * factors).sum(), rows)
    return found.detach(), gradient


def assert_near(first: Tensor, second: Tensor) -> None:
    error = float((first.double() - second.double()).norm() / second.double().norm())
    assert error <= TOLERANCES[second.dtype], error


@every_dtype
@pytest.mark.parametrize("kind", KINDS)
def test_all_architectures_read_the_same(
    backbone_folder: Any,
    kind: str,
    dtype: torch.dtype,
    everywhere: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = str(dtype).removeprefix("torch.")
    plain = plainly(backbone_folder(kind), monkeypatch, dtype=name)
    packed = load_backbone(str(backbone_folder(kind)), dtype=name)
    assert owners(packed.model)
    assert not owners(plain.model)
    for own, other in zip(read(packed), read(plain), strict=True):
        assert_near(own, other)
    assert laid_out_bytes(packed.model) > 0
    for own, other in zip(read(packed), read(packed), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("bert", {3, 1}),  # queries, keys and values; all else
        ("gpt2", {1}),  # one weight for all three already
        ("llama", {3, 2, 1}),  # gate and up too
        ("t5", {3, 2, 1}),  # the decoder's keys and values of the encoder's states
    ],
)
def test_layers_that_read_the_same_values_are_one_product(
    backbone_folder: Any, kind: str, sizes: set[int], everywhere: None
) -> None:
    backbone = load_backbone(str(backbone_folder(kind)))
    groups = owners(backbone.model)
    assert {len(one.layers) for one in groups} == sizes
    number = sum(type(one).__name__ in ("Linear", "Conv1D") for one in backbone.model.modules())
    assert sum(len(one.layers) for one in groups) == number
    count = 0
    run = weight_layouts.Weights.multiply

    def counted(self: Any, *arguments: Any) -> Tensor:
        nonlocal count
        count += 1
        return run(self, *arguments)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(weight_layouts.Weights, "multiply", counted)
        hidden(backbone, backbone.embed(torch.arange(5)[None]), torch.ones(1, 5).long(), None)
    ran = [one for one in groups if kind != "t5" or one.layers[0] in list(_encoder(backbone))]
    assert count == len(ran) - (backbone.has_language_head and kind != "t5") * _heads(backbone)


def _encoder(backbone: Any) -> Any:
    return backbone.model.get_encoder().modules()


def _heads(backbone: Any) -> int:
    """Return how many products the head has, which states do without."""
    body = set(backbone.stacks[0].body.modules())
    return sum(one.layers[0] not in body for one in owners(backbone.model))


class Layers(nn.Module):
    """Three layers, of which two read the same."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.first = nn.Linear(24, 16, dtype=dtype)
        self.second = nn.Linear(24, 40, bias=False, dtype=dtype)
        self.third = nn.Linear(40, 8, dtype=dtype)
        self.requires_grad_(False)

    def forward(self, values: Tensor) -> Tensor:
        return self.first(values)[..., :8] + self.third(self.second(values))


def make(dtype: torch.dtype) -> tuple[Layers, Layers]:
    """Return a model with laid-out weights, and the same without."""
    torch.manual_seed(0)
    plain = Layers(dtype)
    packed = copy.deepcopy(plain)
    values = torch.randn(2, 24, dtype=dtype)
    assert prepack(packed, lambda: packed(values)) == 3
    assert sorted(len(one.layers) for one in owners(packed)) == [1, 2]
    return packed, plain


@every_dtype
@pytest.mark.parametrize("shape", [(5,), (1, 1), (2, 3, 4), (0,), (3, 0)])
def test_values_of_any_shape_and_stride(
    shape: tuple[int, ...], dtype: torch.dtype, everywhere: None
) -> None:
    packed, plain = make(dtype)
    wide = torch.randn(*shape, 48, dtype=dtype)
    for values in (wide[..., :24], wide[..., ::2], wide[..., 24:].contiguous()):
        given = [values.detach().clone(memory_format=torch.preserve_format) for _ in range(2)]
        given = [one.requires_grad_() for one in given]
        own, other = packed(given[0]), plain(given[1])
        factors = torch.randn_like(other)
        gradients = [
            torch.autograd.grad(output, one, factors)[0]
            for output, one in zip((own, other), given, strict=True)
        ]
        assert own.shape == other.shape
        assert gradients[0].shape == gradients[1].shape
        if own.numel():
            assert_near(own.detach(), other.detach())
            assert_near(*gradients)


def test_nothing_is_packed_before_it_is_needed(everywhere: None) -> None:
    packed, _ = make(KNOWN[0])
    weights = [packed.first.weight, packed.second.weight, packed.third.weight]
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    assert laid_out_bytes(packed) == 0
    values = torch.randn(2, 24, dtype=KNOWN[0])
    packed(values)
    assert laid_out_bytes(packed) == size
    packed(values.requires_grad_()).float().sum().backward()
    assert laid_out_bytes(packed) == 2 * size


def _train(model: Any) -> None:
    model.second.weight.requires_grad_(True)


def _train_bias(model: Any) -> None:
    model.first.bias.requires_grad_(True)


def _change(model: Any) -> None:
    model.first.weight.mul_(3)
    model.third.bias.add_(1)


def _replace(model: Any) -> None:
    model.first.weight = nn.Parameter(2 * model.first.weight.detach(), requires_grad=False)


def _set(model: Any) -> None:
    model.third.weight.data = 2 * model.third.weight.detach()


def _widen(model: Any) -> None:
    model.double()


@pytest.mark.parametrize("change", [_train, _train_bias, _change, _replace, _set, _widen])
def test_weights_that_are_others_now_are_used(
    change: Callable[[Any], None], everywhere: None
) -> None:
    packed, plain = make(KNOWN[0])
    values = torch.randn(2, 24, dtype=KNOWN[0])
    before = packed(values)
    change(packed)
    change(plain)
    values = values.to(packed.first.weight.dtype).requires_grad_()
    trained = [one for one in packed.parameters() if one.requires_grad]
    others = [one for one in plain.parameters() if one.requires_grad]
    own, other = packed(values), plain(values)
    assert other.dtype != before.dtype or trained or not torch.allclose(own, before, atol=0.1)
    torch.testing.assert_close(own, other)
    found = torch.autograd.grad(own.sum(), [values, *trained])
    expected = torch.autograd.grad(other.sum(), [values, *others])
    for one, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(one, wanted)


def test_parts_are_of_the_values_that_were_given(everywhere: None) -> None:
    packed, plain = make(KNOWN[0])
    values = torch.randn(2, 24, dtype=KNOWN[0])
    packed.first(values)
    other = values + 1
    assert_near(packed.second(other), plain.second(other))  # not those that were given before
    packed.first(values)
    packed.first(other)
    assert_near(packed.second(values), plain.second(values))
    assert_near(packed.second(other), plain.second(other))
    packed.first(values)
    values += 1
    assert_near(packed.second(values), plain.second(values))  # the same tensor, but changed
    with torch.no_grad():
        asked = values.clone().requires_grad_()
        packed.first(asked)
    assert packed.second(asked).requires_grad  # what was made without a graph has none
    packed.first(values)
    assert_near(packed.second(values), plain.second(values))
    assert_near(packed.second(values), plain.second(values))  # given once, then computed again


def test_nothing_is_held_when_all_parts_are_taken(everywhere: None) -> None:
    packed, _ = make(KNOWN[0])
    values = torch.randn(2, 24, dtype=KNOWN[0])
    held = weakref.ref(values)
    packed.first(values)
    packed.second(values)
    del values
    assert held() is None


def test_layers_that_read_the_same_only_at_times_stay_alone(everywhere: None) -> None:
    plain = Layers(KNOWN[0]).eval()
    packed = copy.deepcopy(plain)
    values = torch.randn(2, 24, dtype=KNOWN[0])

    def run() -> None:
        packed(values)
        packed.second(values + 1)

    assert prepack(packed, run) == 3
    assert [len(one.layers) for one in owners(packed)] == [1, 1, 1]
    assert_near(packed(values), plain(values))
    twice = copy.deepcopy(plain)  # the same layer twice on the same values
    prepack(twice, lambda: (twice.first(values), twice.first(values)))
    assert [len(one.layers) for one in owners(twice)] == [1, 1, 1]


def test_models_that_cannot_be_tried_are_packed_layer_by_layer(everywhere: None) -> None:
    plain = Layers(KNOWN[0])
    packed = copy.deepcopy(plain)
    assert prepack(packed, lambda: packed(torch.randn(3))) == 3
    assert [len(one.layers) for one in owners(packed)] == [1, 1, 1]
    values = torch.randn(2, 24, dtype=KNOWN[0])
    assert_near(packed(values), plain(values))


def test_values_given_by_name(everywhere: None) -> None:
    plain = Layers(KNOWN[0])
    packed = copy.deepcopy(plain)
    values = torch.randn(2, 24, dtype=KNOWN[0])
    prepack(packed, lambda: (packed.first(input=values), packed.second(values)))
    assert [len(one.layers) for one in owners(packed)] == [1, 1, 1]
    assert torch.equal(packed.first(input=values), plain.first(values))
    with pytest.raises(TypeError):
        packed.first()
    assert_near(packed.second(values), plain.second(values))


def test_outputs_may_be_changed_in_place(everywhere: None) -> None:
    packed, plain = make(KNOWN[0])
    results = []
    for model in (packed, plain):
        values = torch.linspace(-1, 1, 48).view(2, 24).to(KNOWN[0]).requires_grad_()
        first, second = model.first(values), model.second(values)
        first *= 2
        first += 1
        total = first.float().sum() + 3 * second.float().sum()
        results.append((first.detach(), second.detach(), *torch.autograd.grad(total, values)))
    for own, other in zip(*results, strict=True):
        assert_near(own, other)


@every_dtype
def test_outputs_that_nobody_reads(everywhere: None, dtype: torch.dtype) -> None:
    packed, plain = make(dtype)
    for read_from in ("first", "second"):
        found = []
        for model in (packed, plain):
            values = torch.linspace(-1, 1, 48).view(2, 24).to(dtype).requires_grad_()
            outputs = {name: getattr(model, name)(values) for name in ("first", "second")}
            found.append(torch.autograd.grad(outputs[read_from].sum(), values)[0])
        assert_near(*found)


def test_gradients_of_gradients(everywhere: None) -> None:
    if torch.float32 not in KNOWN:
        pytest.skip("float32 is not packed")
    packed, plain = make(torch.float32)
    found = []
    for model in (packed, plain):
        values = torch.linspace(-1, 1, 48).view(2, 24).requires_grad_()
        (slope,) = torch.autograd.grad(model(values).square().sum(), values, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), values)[0])
    assert_near(*found)


def test_weights_packed_under_inference_mode_train(everywhere: None) -> None:
    packed, plain = make(KNOWN[0])
    with torch.inference_mode():
        given = torch.randn(2, 24, dtype=KNOWN[0])
        assert_near(packed(given).clone(), plain(given).clone())
    values = torch.randn(2, 24, dtype=KNOWN[0], requires_grad=True)
    (own,) = torch.autograd.grad(packed(values).sum(), values)
    (other,) = torch.autograd.grad(plain(values).sum(), values)
    assert_near(own, other)


def test_other_dtypes_and_autocast_go_to_pytorch(everywhere: None) -> None:
    packed, plain = make(torch.float32 if torch.float32 in KNOWN else KNOWN[0])
    values = torch.randn(2, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert packed(values).dtype == plain(values).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="dtype"):
        packed(values.double())


def test_gradients_that_lie_side_by_side_are_not_copied() -> None:
    joint = torch.randn(1, 6, 10)
    parts = (joint[..., :2], joint[..., 2:7], joint[..., 7:])
    found = weight_layouts._side_by_side(parts)
    assert found.data_ptr() == joint.data_ptr()
    assert torch.equal(found, joint)
    for others in (parts[::-1], (parts[0], parts[1].clone(), parts[2]), (parts[0], parts[2])):
        assert torch.equal(weight_layouts._side_by_side(others), torch.cat(others, dim=-1))
    whole = (joint[..., 2:7], joint[..., 7:])  # side by side, but not all there is of a row
    assert torch.equal(weight_layouts._side_by_side(whole), joint[..., 2:])


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_attention_gives_gradients_side_by_side(
    backbone_folder: Any, kind: str, everywhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(backbone_folder(kind))
    backbone = load_backbone(name, dtype="bfloat16", attention="fused")
    copied = []
    side_by_side = weight_layouts._side_by_side

    def watched(parts: Any) -> Tensor:
        found = side_by_side(parts)
        if len(parts) > 1:
            copied.append(found.data_ptr() != parts[0].data_ptr())
        return found

    monkeypatch.setattr(weight_layouts, "_side_by_side", watched)
    ids = torch.arange(12, 42).view(3, 10)
    mask = (torch.arange(10) < torch.tensor([[10], [4], [7]])).long()
    rows = backbone.embed(ids).requires_grad_()
    hidden(backbone, rows, mask, None, torch.tensor([[0], [1], [2]])).sum().backward()
    assert len(copied) == len(backbone.stacks[0].layers)  # keys and values alone in the last
    assert not any(copied)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_layers_go_with_their_backbone(backbone_folder: Any, everywhere: None, kind: str) -> None:
    gc.collect()
    gc.disable()  # what refers to itself stays then
    try:
        backbone = load_backbone(str(backbone_folder(kind)))
        read(backbone)
        assert laid_out_bytes(backbone.model)
        layers = [weakref.ref(one) for one in backbone.model.modules()]
        del backbone
        assert not [one for one in layers if one() is not None]
    finally:
        gc.enable()


def test_copies_share_what_is_packed(backbone_folder: Any, everywhere: None) -> None:
    backbone = load_backbone(str(backbone_folder("bert")))
    shared = copy_backbone(backbone, shares_weights=True)
    states, gradient = read(shared)
    assert laid_out_bytes(shared.model) == laid_out_bytes(backbone.model) > 0
    for own, other in zip(read(backbone), (states, gradient), strict=True):
        assert torch.equal(own, other)
    layers = {layer for one in owners(shared.model) for layer in one.layers}
    assert layers <= set(shared.model.modules())
    assert not layers & set(backbone.model.modules())


def test_adapted_copies_compute_with_their_own_weights(
    backbone_folder: Any, everywhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = backbone_folder("bert")
    packed, plain = load_backbone(str(folder)), plainly(folder, monkeypatch)
    read(packed)
    for adaptation in (FullAdaptation(), LoraAdaptation()):
        found = []
        for backbone in (packed, plain):
            adapted = adaptation.adapt(backbone, False, 3)
            parameters = list(adapted.parameters.parameters())
            with torch.no_grad():
                for parameter in parameters:
                    parameter.add_(0.05)
            rows = adapted.backbone.embed(torch.arange(12, 20)[None])
            states = hidden(adapted.backbone, rows, torch.ones(1, 8).long(), None)
            gradients = torch.autograd.grad(states[..., 0].sum(), parameters)
            found.append((states.detach(), torch.cat([one.flatten() for one in gradients])))
        for own, other in zip(*found, strict=True):
            assert_near(own, other)


def test_large_models_stay_as_they_are(
    backbone_folder: Any, everywhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepacking, "total_bytes", lambda device: 100_000)
    assert not owners(load_backbone(str(backbone_folder("bert"))).model)


def test_layers_with_a_hook_of_accelerate_stay_as_they_are(everywhere: None) -> None:
    model = Layers(KNOWN[0])
    vars(model.third)["_hf_hook"] = object()
    assert prepack(model, lambda: model(torch.randn(2, 24, dtype=KNOWN[0]))) == 2


def test_machines_that_multiply_wrongly_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    multiply, pack = weight_layouts._operators()
    works.cache_clear()
    try:
        for wrong in (
            lambda *given: multiply(*given) * 1.05,
            lambda *given: multiply(*given)[..., :7],
            lambda *given: torch.ops.mkldnn.there_is_no_such_operator(*given),
        ):
            monkeypatch.setattr(weight_layouts, "_operators", lambda wrong=wrong: (wrong, pack))
            assert not works(KNOWN[0])
            assert not can_prepack(KNOWN[0])
            works.cache_clear()
    finally:
        monkeypatch.undo()
        works.cache_clear()


def test_the_global_generator_is_left_as_it_was(backbone_folder: Any, everywhere: None) -> None:
    works.cache_clear()
    state = torch.get_rng_state()
    load_backbone(str(backbone_folder("bert")))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_not_faster_is_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_layouts, "_is_slow_in_float32", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    assert not can_prepack(torch.float32)
    assert not can_prepack(torch.bfloat16)
    assert not can_prepack(torch.float64)


def bend_and_multiply(is_tanh: bool) -> tuple[Any, Any, Tensor, Tensor]:
    """Return what multiplies with laid-out weights, the layer as it is, values and a gradient."""
    draws = torch.Generator().manual_seed(3)
    layer = nn.Linear(48, 24).bfloat16().requires_grad_(False)
    packed = prepacking._Prepacked([layer], Hints())
    values = torch.randn(7, 48, generator=draws).bfloat16().requires_grad_()
    slope = torch.randn(7, 24, generator=draws).bfloat16()

    def plain(given: Tensor) -> Tensor:
        weight, bias = layer.weight.double(), layer.bias.double()
        return nn.functional.linear(given, weight, bias)

    return packed, plain, values, slope


needs_gelu = pytest.mark.skipif(
    torch.bfloat16 not in KNOWN or why_not() is not None, reason="GELU is not compiled here"
)


@needs_gelu
@pytest.mark.parametrize("is_tanh", [False, True])
def test_gelu_is_taken_back_with_the_product_behind_it(is_tanh: bool) -> None:
    packed, plain, values, slope = bend_and_multiply(is_tanh)
    found = packed.forward(0, FusedGelu(is_tanh, packed.hints).forward(values))
    assert type(found.grad_fn).__name__ == "_ProductOfGeluBackward"
    known = slope.clone()
    (own,) = torch.autograd.grad(found, values, slope, retain_graph=True)
    (again,) = torch.autograd.grad(found, values, slope)
    assert torch.equal(own, again)
    assert torch.equal(slope, known)  # what is written is not what was given
    exact = values.detach().double().requires_grad_()
    bent = nn.functional.gelu(exact, approximate="tanh" if is_tanh else "none")
    expected = plain(bent)
    assert_near(found.detach(), expected.detach().bfloat16())
    (other,) = torch.autograd.grad(expected, exact, slope.double())
    assert_near(own, other.bfloat16())


@needs_gelu
def test_gelu_that_others_read_too_gets_both_gradients() -> None:
    packed, plain, values, slope = bend_and_multiply(is_tanh=False)
    bent = FusedGelu(False, packed.hints).forward(values)
    total = (packed.forward(0, bent) * slope).sum() + 3 * bent.sum()
    (own,) = torch.autograd.grad(total, values)
    exact = values.detach().double().requires_grad_()
    bent = nn.functional.gelu(exact)
    (other,) = torch.autograd.grad((plain(bent) * slope).sum() + 3 * bent.sum(), exact)
    assert_near(own, other.bfloat16())


@needs_gelu
@pytest.mark.parametrize("changed", ["values", "output"])
def test_gelu_that_was_changed_is_not_taken_back_with_the_product(changed: str) -> None:
    packed, plain, values, _ = bend_and_multiply(is_tanh=False)
    given = values + 0
    bent = FusedGelu(False, packed.hints).forward(given)
    with torch.no_grad():
        (given if changed == "values" else bent).mul_(2)
    found = packed.forward(0, bent)
    assert type(found.grad_fn).__name__ == "_ProductBackward"
    assert_near(found.detach(), plain(bent.detach().double()).bfloat16())


@needs_gelu
def test_gelu_with_the_product_behind_it_has_no_second_derivative() -> None:
    packed, _plain, values, _slope = bend_and_multiply(is_tanh=False)
    found = packed.forward(0, FusedGelu(False, packed.hints).forward(values)).square().sum()
    (slope,) = torch.autograd.grad(found, values, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.sum().backward()


@every_dtype
@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_keys_of_a_padded_input_are_made_of_its_row(
    backbone_folder: Any,
    kind: str,
    dtype: torch.dtype,
    everywhere: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A batch that was a row before is multiplied as a row, where much of it is padding."""
    backbone = load_backbone(str(backbone_folder(kind)), dtype=str(dtype).removeprefix("torch."))
    assert shortcuts(backbone)  # tried now
    sizes = []
    multiply = weight_layouts.Weights.multiply

    def counted(self: Any, values: Tensor) -> Tensor:
        sizes.append(values.numel() // values.shape[-1])
        return multiply(self, values)

    monkeypatch.setattr(weight_layouts.Weights, "multiply", counted)
    found, rows = [], []
    for least in (0, 1_000_000):
        monkeypatch.setattr(joined_inputs, "_LEAST_PADDING", least)
        sizes.clear()
        found.append(read_ragged(backbone))
        rows.append(list(sizes))
    assert len(rows[0]) == len(rows[1])
    changed = {pair for pair in zip(*rows, strict=True) if pair[0] != pair[1]}
    assert changed == ({(4 * 30, 64)} if shortcuts(backbone).joins else set())
    for own, other in zip(found[1], found[0], strict=True):
        assert_near(own, other)


def read_ragged(backbone: Any) -> tuple[Tensor, Tensor]:
    """Return logits of an encoder-decoder, and the gradient of embeddings that count."""
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(12, backbone.vocabulary_size, (4, 30), generator=draws)
    mask = (torch.arange(30) < torch.tensor([[3], [30], [9], [1]])).long()
    rows = backbone.embed(ids).requires_grad_()
    labels = ids[:, :3]
    decoder = DecoderInputs(backbone.shift_right(labels), torch.arange(4), torch.ones_like(labels))
    found = logits(backbone, rows, mask, None, torch.arange(3).expand(4, 3), decoder)
    factors = torch.randn(found.shape, generator=draws).to(found)
    (gradient,) = torch.autograd.grad((found * factors).sum(), rows)
    return found.detach(), gradient[mask.bool()]


def test_a_batch_that_was_changed_has_no_row() -> None:
    own = joined_inputs.JoinedInputs((torch.arange(90) < torch.tensor([[90], [3], [2]])).long())
    row, hints = torch.randn(1, own.size, 8), Hints()
    batch = own.part(row)
    with hints.remembering(batch, row, own):
        found = hints.row_of(batch)
        assert found is not None
        assert found[0] is row
        assert hints.row_of(batch + 0) is None
        batch[0, 0] = 1.0
        assert hints.row_of(batch) is None
    little = joined_inputs.JoinedInputs(torch.ones(3, 90, dtype=torch.long))
    row = torch.randn(1, little.size, 8)
    batch = little.part(row)
    with hints.remembering(batch, row, little):
        assert hints.row_of(batch) is None
