"""Backbones that are spread: weights on disk go through hooks, and nothing is read otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from reads import hidden, logits, shortcuts
from softprompts.backbones.adaptations.copying import copy_backbone
from softprompts.backbones.backbone import Backbone
from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.backbones.layers import call_wrapped
from softprompts.backbones.loading import load_backbone
from softprompts.backbones.memory import KeyValues, Memory
from softprompts.backbones.placing import device_of, map_of
from softprompts.errors import BackboneError
from softprompts.recipes.reading import read_yaml
from softprompts.recipes.schema import BackboneConfig
from softprompts.training.resources import Resources

MAPS: Mapping[str, Mapping[str, str]] = {
    "bert": {"bert.embeddings": "cpu", "bert.encoder.layer.1": "disk", "cls": "cpu"},
    "gpt2": {
        **{f"transformer.{name}": "cpu" for name in ("wte", "wpe", "drop", "ln_f")},
        "transformer.h.1": "disk",
        "lm_head": "cpu",
    },
    "t5": {
        "shared": "cpu",
        "lm_head": "cpu",
        **{
            f"{half}.{name}": place
            for half in ("encoder", "decoder")
            for name, place in (
                ("embed_tokens", "cpu"),
                ("block.0", "cpu"),
                ("block.1", "disk"),
                ("final_layer_norm", "cpu"),
                ("dropout", "cpu"),
            )
        },
    },
}
FIRST = {"bert": "bert.encoder.layer.0", "gpt2": "transformer.h.0", "t5": "encoder.block.0"}
IDS = torch.arange(3, 23).view(2, 10)
MASK = torch.ones_like(IDS)
MASK[1, 7:] = 0


def whole_map(kind: str) -> dict[str, str]:
    return {**MAPS[kind], FIRST[kind]: "cpu"}


@pytest.fixture(params=MAPS, scope="module")
def pair(request: Any, backbone_folder: Any, tiny: Any) -> tuple[Backbone, Backbone]:
    """A backbone in memory, and the same with its last layers on disk."""
    kind = request.param
    return tiny(kind), load_backbone(str(backbone_folder(kind)), device_map=whole_map(kind))


def on_disk(backbone: Backbone) -> set[str]:
    return {
        name for name, value in backbone.model.named_parameters() if value.device.type == "meta"
    }


def read(backbone: Backbone, memory: Memory | None, gather: Any = None) -> list[torch.Tensor]:
    """Return states and the gradient with respect to the rows that go in."""
    rows = backbone.embed(IDS).clone().requires_grad_(True)
    states = hidden(backbone, rows, MASK, None, gather, memory)
    weights = torch.linspace(-1, 1, states.numel()).view_as(states)
    return [states.detach(), *torch.autograd.grad((states * weights).sum(), rows)]


def is_close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((found - expected).abs().max()) <= 1e-6 * float(expected.abs().max())


@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("given", ["rows", "memory", "gates", "places"])
def test_a_spread_backbone_reads_as_one_in_memory(pair, given, is_checkpointed, monkeypatch):
    whole, spread = pair
    disk = on_disk(spread)
    assert disk
    monkeypatch.setattr(spread, "has_checkpointing", is_checkpointed)
    memory, gather = None, None
    if given in ("memory", "gates"):
        assert spread.slots == whole.slots
    if given == "memory":
        draws = torch.Generator().manual_seed(1)
        memory = Memory(
            {
                slot: KeyValues(*(torch.randn(2, slot.heads, 3, slot.size, generator=draws),) * 2)
                for slot in whole.slots
                if slot.stack == whole.stacks[0].name
            }
        )
    elif given == "gates":
        memory = Memory(gates=torch.linspace(1, 0.5, IDS.numel()).view_as(IDS))
    elif given == "places":
        gather = torch.tensor([[0], [2]])
    for found, expected in zip(
        read(spread, memory, gather), read(whole, memory, gather), strict=True
    ):
        assert is_close(found, expected)
    assert on_disk(spread) == disk, "weights must leave memory again"


def test_logits_of_a_spread_backbone(pair):
    whole, spread = pair
    gather, decoder = torch.tensor([[0, 2], [1, 2]]), None
    if whole.family == "encoder-decoder":
        decoder = DecoderInputs(IDS[:, :3], torch.tensor([1, 0]), torch.ones(2, 3).long())
    rows = whole.embed(IDS)
    found, expected = (logits(one, rows, MASK, None, gather, decoder) for one in (spread, whole))
    assert is_close(found, expected)


def test_no_shortcut_is_taken_where_hooks_stand(pair):
    _, spread = pair
    assert spread.is_spread
    assert not shortcuts(spread).joins
    assert not shortcuts(spread).trims


def test_hooks_come_back_after_layers_were_wrapped(pair):
    _, spread = pair
    layers = spread.stacks[0].layers
    before = [layer.__dict__["forward"] for layer in layers]
    spread.slots  # noqa: B018  (finds them by wrapping layers)
    wrapped = call_wrapped(
        layers,
        lambda _, forward: lambda *a, **k: forward(*a, **k),
        lambda: layers[0].__dict__["forward"],
    )
    assert wrapped is not before[0]
    assert [layer.__dict__["forward"] for layer in layers] == before


def test_where_a_spread_backbone_lies_is_known(pair):
    whole, spread = pair
    assert map_of(whole.model) is None
    assert sorted(set((map_of(spread.model) or {}).values())) == ["cpu", "disk"]
    assert spread.device == torch.device("cpu")
    assert device_of(spread.stacks[0].layers[1]) == torch.device("cpu")


def test_embeddings_on_disk_are_read_where_their_hook_runs_them(backbone_folder, tiny):
    places = {"bert.embeddings": "disk", "bert.encoder": "cpu", "cls": "disk"}
    spread = load_backbone(str(backbone_folder("bert")), device_map=places)
    assert spread.device == torch.device("cpu")
    assert torch.equal(spread.embed(IDS), tiny("bert").embed(IDS))


def test_a_map_to_one_device_is_no_spreading(backbone_folder):
    backbone = load_backbone(str(backbone_folder("bert")), device_map={"": "cpu"})
    assert not backbone.is_spread
    assert shortcuts(backbone).joins


def test_transformers_makes_the_map_within_the_memory_that_is_allowed(backbone_folder, tiny):
    size = sum(p.numel() * 4 for p in tiny("bert").model.parameters())
    spread = load_backbone(
        str(backbone_folder("bert")), device_map="auto", max_memory={"cpu": size // 2}
    )
    assert spread.is_spread
    assert on_disk(spread)
    for found, expected in zip(read(spread, None), read(tiny("bert"), None), strict=True):
        assert is_close(found, expected)


def test_what_cannot_be_spread_is_refused(backbone_folder, pair):
    _, spread = pair
    with pytest.raises(BackboneError, match=r"compile must be false with device_map.*is True"):
        load_backbone(str(backbone_folder("bert")), device_map="auto", compile=True)
    with pytest.raises(BackboneError, match="must lie on one device to be adapted"):
        copy_backbone(spread)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"device_map": {"bert": "cuda:7", "cls": "cpu"}},
            r"devices that torch can use, or disk, but 'bert' is 'cuda:7': .*(CUDA|cuda)",
        ),
        ({"device_map": {"": 99}}, r"devices that torch can use, or disk, but '' is 99"),
        ({"device_map": {"": "nowhere"}}, r"devices that torch can use.* but '' is 'nowhere'"),
        (
            {"device_map": {"": "cpu", "zz": "cpu"}},
            r"modules of BertForMaskedLM, such as bert, cls, but names 'zz'",
        ),
        (
            {"device_map": {"bert": "cpu"}},
            r"cover all weights of BertForMaskedLM, but leaves out 'cls\.",
        ),
        ({"max_memory": {"cpu": 5}}, r"max_memory must be None unless .* but is {'cpu': 5}"),
        (
            {"max_memory": {"cpu": 5}, "device_map": {"": "cpu"}},
            r"max_memory must be None unless .* but is {'cpu': 5}",
        ),
        (
            {"max_memory": {"cpu": -1}, "device_map": "auto"},
            r"max_memory must be sizes, .* but is {'cpu': -1}",
        ),
    ],
)
def test_maps_and_limits_that_do_not_fit_are_refused(backbone_folder, given, text):
    with pytest.raises(BackboneError, match=text):
        load_backbone(str(backbone_folder("bert")), **given)


def test_a_recipes_limits_reach_accelerate_with_numbers_as_devices(backbone_folder, monkeypatch):
    import transformers.integrations.accelerate as accelerate

    seen: list[Any] = []

    def is_told(limits: Any = None) -> Any:
        seen.append(dict(limits))
        limits.update(cpu=2**30)  # accelerate writes into what it is given
        return {"cpu": 2**30}

    monkeypatch.setattr(accelerate, "accelerate_max_memory", is_told)
    limits = read_yaml("{0: 20GB, cpu: 60GB}", "mine")
    config = BackboneConfig(
        name=str(backbone_folder("bert")), device_map="sequential", max_memory=limits
    )
    for load in (
        lambda: Resources().backbone(config),
        lambda: load_backbone(config.name, device_map="sequential", max_memory=limits),
    ):
        seen.clear()
        load()
        assert seen[0] == {0: "20GB", "cpu": "60GB"}
