"""Inputs in one row, and a last layer run in places, are what a padded batch and all layers are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from backbones import KINDS
from memories import draw_memory
from reads import hidden, logits, shortcuts, states_at
from softprompts.backbones.layers import gather_positions
from softprompts.backbones.loading import load_backbone
from softprompts.backbones.memory import Memory
from softprompts.fast.joined_inputs import JoinedInputs
from softprompts.fast.route import Route
from softprompts.fast.tail import Tail

LENGTHS = (19, 7, 40, 33, 7)
WITHOUT_PACKING = {"bart", "deberta-v2"}
WITHOUT_TRIMMING = {"t5", "deberta-v2"}
WITH_SHARING = {"t5", "bart"}

every_kind = pytest.mark.parametrize("kind", KINDS)
packing_kinds = pytest.mark.parametrize("kind", [k for k in KINDS if k not in WITHOUT_PACKING])


def draw(backbone: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return right-padded embeddings, their mask, and positions, one of them twice."""
    draws = torch.Generator().manual_seed(0)
    shape = (len(LENGTHS), max(LENGTHS))
    ids = torch.randint(12, backbone.vocabulary_size, shape, generator=draws)
    mask = (torch.arange(shape[1]) < torch.tensor(LENGTHS)[:, None]).long()
    last = torch.tensor(LENGTHS) - 1
    return backbone.embed(ids), mask, torch.stack([last, last // 2, last], dim=1)


def routes(backbone: Any, mask: torch.Tensor, gather: torch.Tensor) -> dict[str, Route]:
    """Return every way to read a batch with less work."""
    found, joined = shortcuts(backbone), JoinedInputs(mask)
    ways = {}
    if found.joins:
        ways["packed"] = Route(joined, found.first_position)
    if found.trims:
        ways["trimmed"] = Route(tail=Tail(gather, None), num_runs=found.num_runs)
    if found.joins and found.trims:
        both = Tail(gather, joined)
        ways["both"] = Route(joined, found.first_position, both, found.num_runs)
    return ways


@every_kind
def test_which_shortcuts_an_architecture_has(tiny: Any, kind: str) -> None:
    found = shortcuts(tiny(kind))
    assert found.joins == (kind not in WITHOUT_PACKING)
    assert found.trims == (kind not in WITHOUT_TRIMMING)
    assert found.shares == (kind in WITH_SHARING)


@packing_kinds
def test_states_and_gradients_are_those_of_a_padded_batch(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    rows, mask, gather = draw(backbone)
    factors = torch.randn(*gather.shape, backbone.hidden_size)

    def read(route: Route | None) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = rows.clone().requires_grad_(True)
        if route is None:
            states = gather_positions(backbone.read(leaf, mask).last_hidden_state, gather)
        else:
            states = states_at(backbone, leaf, mask, gather, route)
        (states * factors).sum().backward()
        assert leaf.grad is not None
        return states.detach(), leaf.grad

    states, gradient = read(None)
    ways = routes(backbone, mask, gather)
    assert set(ways) == ({"packed"} if kind in WITHOUT_TRIMMING else {"packed", "trimmed", "both"})
    for route in ways.values():
        found_states, found_gradient = read(route)
        torch.testing.assert_close(found_states, states, atol=1e-5, rtol=1e-4)
        assert (found_gradient - gradient).norm() < 1e-5 * gradient.norm()
        assert not found_gradient[mask == 0].any()


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in WITHOUT_PACKING | WITH_SHARING])
def test_logits_are_those_of_one_input_at_a_time(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    rows, mask, gather = draw(backbone)
    joint = logits(backbone, rows, mask, None, gather)
    for number, length in enumerate(LENGTHS):
        own = slice(number, number + 1)
        inputs = (rows[own, :length], mask[own, :length], None)
        alone = logits(backbone, *inputs, gather[own])
        torch.testing.assert_close(joint[own], alone, atol=1e-5, rtol=1e-4)


@packing_kinds
@pytest.mark.parametrize("is_hidden", [False, True])
def test_keys_beside_the_input_reach_inputs_in_one_row(
    tiny: Any, kind: str, is_hidden: bool
) -> None:
    backbone = tiny(kind)
    rows, mask, gather = draw(backbone)
    memory = draw_memory(backbone, len(rows), is_hidden)
    joint = hidden(backbone, rows, mask, None, gather, memory)
    for number, length in enumerate(LENGTHS):
        own = torch.tensor([number])
        inputs = (rows[own, :length], mask[own, :length], None)
        alone = hidden(backbone, *inputs, memory=memory.take(own))
        expected = gather_positions(alone, gather[own])
        torch.testing.assert_close(joint[own], expected, atol=1e-5, rtol=1e-4)


@packing_kinds
def test_gates_reach_inputs_in_one_row(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    assert backbone.slots
    rows, mask, gather = draw(backbone)

    def gates() -> torch.Tensor:
        values = torch.ones(mask.shape)
        values[::2, 2:4] = 0
        return values.requires_grad_(True)

    joint_gates, own_gates = gates(), gates()
    joint = hidden(backbone, rows, mask, None, gather, Memory(gates=joint_gates, gated=(1, 6)))
    joint.sum().backward()
    for number, length in enumerate(LENGTHS):
        own = slice(number, number + 1)
        memory = Memory(gates=own_gates[own, :length], gated=(1, 6))
        states = hidden(backbone, rows[own, :length], mask[own, :length], None, memory=memory)
        expected = gather_positions(states, gather[own])
        torch.testing.assert_close(joint[own], expected, atol=1e-5, rtol=1e-4)
        expected.sum().backward()
    torch.testing.assert_close(joint_gates.grad, own_gates.grad, atol=1e-4, rtol=1e-3)
    assert joint_gates.grad is not None
    assert joint_gates.grad[:, 1:6].any()


@pytest.mark.parametrize("kind", ["bert", "llama", "gemma3"])
def test_bfloat16_is_within_its_rounding(backbone_folder: Any, kind: str) -> None:
    wide, narrow = (
        load_backbone(str(backbone_folder(kind)), dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    rows, mask, gather = draw(wide)
    expected = hidden(wide, rows, mask, None, gather)
    found = hidden(narrow, rows.bfloat16(), mask, None, gather).float()
    assert float((found - expected).square().mean().sqrt()) < 0.03
    assert float((found - expected).square().mean()) > 0  # it was another dtype


def test_a_batch_is_unpacked_with_the_gradient_of_its_positions() -> None:
    mask = (torch.arange(20) < torch.tensor([20, 3, 1, 8])[:, None]).long()
    joined, draws = JoinedInputs(mask), torch.Generator().manual_seed(0)
    values = torch.randn(4, 20, 5, generator=draws, requires_grad=True)
    slope = torch.randn(4, 20, 5, generator=draws)
    found = joined.part(joined.join(values))
    assert torch.equal(found[mask.bool()], values[mask.bool()])
    found.backward(slope)
    assert torch.equal(values.grad, slope * mask[..., None])


def test_a_row_has_few_shapes_and_groups_waste_little() -> None:
    mask = (torch.arange(200) < torch.tensor([200, 30, 31, 64, 5])[:, None]).long()
    joined = JoinedInputs(mask)
    assert joined.size == 352
    widths = sorted((group.width, len(group.inputs)) for group in joined.groups)
    assert widths == [(64, 4), (224, 1)]
    assert sorted(i for group in joined.groups for i in group.inputs.tolist()) == [0, 1, 2, 3, 4]
    values = torch.randn(5, 200, 3)
    packed = joined.join(values)
    assert packed.shape == (1, 352, 3)
    assert not packed[0, 330:].any()
    everywhere = joined.at(torch.arange(200).expand(5, -1)).view(5, 200)
    assert torch.equal(packed[0, everywhere][mask.bool()], values[mask.bool()])
    assert torch.equal(everywhere[1, 30:], everywhere[1, :1].expand(170))
