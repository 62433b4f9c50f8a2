"""Compiled layers read as plain ones do, in few graphs, and a graph that breaks is an error.

Most tests trace only (`aot_eager`), which finds breaks and variants alike.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from reads import hidden, shortcuts
from softprompts.backbones.adaptations.copying import copy_backbone
from softprompts.backbones.adaptations.lora import LoraAdaptation
from softprompts.backbones.loading import load_backbone
from softprompts.backbones.memory import Memory
from softprompts.errors import BackboneError
from softprompts.fast import compiling
from softprompts.fast.compiling import CompiledLayer, parts_of

pytestmark = [
    # torch looks for a gradient while it traces, and says at each look that there is none
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not:UserWarning"),
    # what makes code is imported when it is first used, and uses what torch itself has given up
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]

PARTS = {
    "bert": ["BertSelfOutput", "BertIntermediate", "BertOutput"],
    "gpt2": ["GPT2MLP"],
    "llama": ["LlamaMLP", "LlamaRMSNorm", "LlamaRMSNorm"],
    "t5": ["T5LayerNorm", "T5LayerFF"],
    "albert": [],
    "deberta-v2": [],
}


SLOW = pytest.mark.slow


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch):
    """Trace only, and forget what other tests traced."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    counters.clear()


@pytest.fixture
def compiled(backbone_folder):
    """Return a function from a kind to a compiled backbone."""
    return lambda kind, **options: load_backbone(
        str(backbone_folder(kind)), compile=True, **options
    )


def num_graphs() -> int:
    return counters["stats"]["unique_graphs"]


def read(backbone: Any, shape: tuple[int, int], is_gathered: bool = True, memory: Any = None):
    """Return states and the gradient of the input, of inputs that end one after the other."""
    batch, tokens = shape
    draws = torch.Generator().manual_seed(tokens)
    ids = torch.randint(backbone.vocabulary_size, shape, generator=draws)
    mask = (torch.arange(tokens) < tokens - torch.arange(batch)[:, None]).long()
    rows = backbone.embed(ids).requires_grad_()
    gather = torch.zeros(batch, 1, dtype=torch.long) if is_gathered else None
    states = hidden(backbone, rows, mask, None, gather, memory)
    if not is_gathered:
        states = states * mask[..., None]
    (states * torch.linspace(-1, 1, states.shape[-1])).sum().backward()
    return states.detach(), rows.grad


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize(
    ("kind", "is_gathered"),
    [
        ("bert", True),
        pytest.param("gpt2", False, marks=SLOW),
        pytest.param("llama", True, marks=SLOW),
    ],
)
def test_states_and_gradients_are_those_of_plain_layers(tiny, compiled, kind, is_gathered):
    """Gathered states are read packed and with a tail, others as the model reads them."""
    backbone = compiled(kind)
    assert shortcuts(backbone).joins
    for shape in ((5, 9), (1, 11)):  # a row as long as states are wide would pass for the same size
        found = read(backbone, shape, is_gathered)
        assert_same(found, read(tiny(kind), shape, is_gathered))
    graphs = num_graphs()
    assert 0 < graphs <= 10
    for shape in ((3, 7), (5, 30), (1, 25)):
        assert_same(read(backbone, shape, is_gathered), read(tiny(kind), shape, is_gathered))
    assert num_graphs() == graphs, "a new shape was compiled anew"


@SLOW
def test_code_that_is_made_reads_the_same(tiny, compiled, monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "inductor")
    assert_same(read(compiled("gpt2"), (4, 9)), read(tiny("gpt2"), (4, 9)))
    assert num_graphs() > 0


@pytest.mark.parametrize("kind", PARTS)
def test_parts_are_what_lies_beside_attention(tiny, kind):
    backbone = tiny(kind)
    for layer in backbone.stacks[0].layers:
        assert [type(part).__name__ for part in parts_of(layer)] == PARTS[kind]


def test_layers_without_parts_are_read_padded_and_whole(tiny, compiled):
    backbone = compiled("albert")
    assert shortcuts(tiny("albert")).joins
    assert not shortcuts(backbone).joins
    assert_same(read(backbone, (3, 9)), read(tiny("albert"), (3, 9)))
    assert num_graphs() > 0


def test_layers_without_parts_take_no_memory(compiled):
    memory = Memory(gates=torch.ones(2, 6))
    with pytest.raises(BackboneError, match=r"`backbone.compile` must be false .*AlbertLayerGroup"):
        read(compiled("albert"), (2, 6), memory=memory)


def test_gates_beside_compiled_parts(tiny, compiled):
    memory = Memory(gates=torch.full((2, 6), 0.5))
    backbone = compiled("gpt2")
    assert backbone.slots
    assert tiny("gpt2").slots
    found = read(backbone, (2, 6), False, memory)
    assert num_graphs() > 0
    assert_same(found, read(tiny("gpt2"), (2, 6), False, memory))
    assert not [one for one in backbone.model.modules() if "forward" in vars(one)], "not undone"
    assert not torch.allclose(found[0], read(tiny("gpt2"), (2, 6), False)[0])


def test_layers_are_computed_again_backwards(tiny, compiled):
    backbone = compiled("gpt2", gradient_checkpointing=True)
    assert_same(read(backbone, (2, 6)), read(tiny("gpt2"), (2, 6)))
    assert num_graphs() > 0


def test_nothing_is_compiled_without_a_gradient_nor_by_loading(tiny, compiled):
    backbone = compiled("gpt2")
    assert backbone.slots
    rows, mask = backbone.embed(torch.ones(2, 5, dtype=torch.long)), torch.ones(2, 5).long()
    with torch.no_grad():
        states = hidden(backbone, rows, mask, None)
    assert torch.equal(states, hidden(tiny("gpt2"), rows, mask, None))
    assert num_graphs() == 0
    assert backbone.is_compiled


def test_a_copy_is_compiled_where_its_backbone_is(tiny, compiled):
    backbone = compiled("gpt2")
    assert copy_backbone(backbone).is_compiled
    assert not copy_backbone(tiny("gpt2")).is_compiled
    adapted = LoraAdaptation().adapt(backbone, False, seed=0)
    assert num_graphs() == 0
    plain = LoraAdaptation().adapt(tiny("gpt2"), False, seed=0)
    results = []
    for one in (adapted, plain):
        read(one.backbone, (3, 7))
        results.append([weight.grad for weight in one.parameters.parameters()])
    assert num_graphs() > 0
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second)


class Breaking(nn.Module):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return states + 1


def test_a_break_in_a_graph_is_an_error():
    layer = CompiledLayer(Breaking())
    with pytest.raises(BackboneError, match=r"Breaking must be one graph .*`backbone.compile` to"):
        layer.whole(torch.ones(2))


class ByNumber(nn.Module):
    def forward(self, states: torch.Tensor, number: str) -> torch.Tensor:
        return states + len(number)


@pytest.fixture
def process_limit():
    """Set the limit of the process to two while a test runs."""
    with torch._dynamo.config.patch(recompile_limit=2):
        yield lambda: torch._dynamo.config.recompile_limit


def test_more_variants_than_are_kept_are_an_error(monkeypatch, process_limit):
    monkeypatch.setattr(compiling, "_MOST_VARIANTS", 2)
    layer = CompiledLayer(ByNumber())
    layer.whole(torch.ones(3), "a")
    layer.whole(torch.ones(3), "b")
    with pytest.raises(BackboneError, match=r"ByNumber must be compiled at most 2 times"):
        layer.whole(torch.ones(3), "c")


def test_the_limit_of_the_process_is_raised_only_while_layers_run(monkeypatch, process_limit):
    monkeypatch.setattr(compiling, "_MOST_VARIANTS", 4)
    layer = CompiledLayer(ByNumber())
    assert process_limit() == 2
    for number in "abc":
        layer.whole(torch.ones(3), number)
        assert process_limit() == 2
    with ThreadPoolExecutor(1) as pool:  # torch may keep a setting for each thread
        pool.submit(layer.whole, torch.ones(3), "d").result()
    with pytest.raises(BackboneError, match=r"must be compiled at most 4 times"):
        layer.whole(torch.ones(3), "e")
    assert process_limit() == 2


def test_a_larger_limit_of_the_process_stays(monkeypatch, process_limit):
    monkeypatch.setattr(compiling, "_MOST_VARIANTS", 1)
    layer = CompiledLayer(ByNumber())
    for number in "ab":
        layer.whole(torch.ones(3), number)
    assert process_limit() == 2
