"""Rows in every layer, and gates on attention: identities on every architecture."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import product

import pytest
import torch

import softprompts as sp
from backbones import KINDS
from contracts.conftest import covering, run_config
from softprompts import token_inputs
from softprompts.backbones import gating
from softprompts.backbones.backbone import Backbone
from softprompts.backbones.memory import KeyValues, Memory
from softprompts.errors import PromptError, RecipeError
from softprompts.prompts.active_lengths.instance import InstanceActiveLength
from softprompts.prompts.active_lengths.task import TaskActiveLength
from softprompts.prompts.draws import Draws
from softprompts.prompts.prompt import FixedActiveLength, FixedPosition, Prompt
from softprompts.prompts.rows.plain import PlainRows
from softprompts.recipes.parsing import parse_run
from softprompts.training.building import build_model
from softprompts.training.evaluation import score_examples

REACHED = [kind for kind in KINDS if kind != "deberta-v2"]
LENGTH = 3
FAMILIES = [
    kind if kind in ("bert", "t5", "gpt2", "llama") else pytest.param(kind, marks=pytest.mark.slow)
    for kind in REACHED
]
"""All that can be reached; not slow is one of each family, and one with grouped heads."""


def precise(backbone):
    """Return the backbone in float64."""
    return Backbone(
        backbone.name,
        backbone.family,
        copy.deepcopy(backbone.model).double(),
        backbone.tokenizer,
        backbone.has_language_head,
        backbone.fingerprint,
        backbone.has_checkpointing,
    )


def inputs(backbone):
    """Return two inputs, the second one shorter: embeddings and mask."""
    ids = torch.arange(14).view(2, 7) * 11 % backbone.vocabulary_size
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return backbone.embed(ids), mask


def random_prefixes(backbone, length=LENGTH, seed=0):
    """Return keys and values for two inputs and every attention of the first half."""
    draws = torch.Generator().manual_seed(seed)
    stack = backbone.slots[0].stack
    return {
        slot: KeyValues(
            *torch.randn(2, 2, slot.heads, length, slot.size, generator=draws, dtype=backbone.dtype)
        )
        for slot in backbone.slots
        if slot.stack == stack
    }


def at(prefixes, places):
    """Return chosen rows of each prefix."""
    places = torch.tensor(places)
    return {s: KeyValues(p.keys[:, :, places], p.values[:, :, places]) for s, p in prefixes.items()}


def read(backbone, memory):
    """Return states where nothing is padding."""
    tokens, mask = inputs(backbone)
    return backbone.hidden(tokens, mask, None, memory=memory)[mask.bool()]


@pytest.mark.parametrize("kind", REACHED)
def test_a_gate_of_two_is_the_row_twice_and_of_zero_is_none(tiny, kind):
    """Weights in attention mean copies: three rows, gates 2, 1, 0 are rows one, one, two."""
    backbone = tiny(kind)
    prefixes = random_prefixes(backbone)
    gates = torch.tensor([[2.0, 1.0, 0.0]] * 2)
    with torch.no_grad():
        weighed = read(backbone, Memory(prefixes, prefix_gates=gates))
        copied = read(backbone, Memory(at(prefixes, [0, 0, 1])))
        whole = read(backbone, Memory(prefixes))
    torch.testing.assert_close(weighed, copied, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(whole, copied, atol=1e-2)


@pytest.mark.parametrize("kind", REACHED)
def test_hidden_rows_and_gates_of_one_change_nothing(tiny, kind):
    backbone = tiny(kind)
    prefixes = random_prefixes(backbone)
    with torch.no_grad():
        bare = read(backbone, None)
        nothing = torch.zeros(2, LENGTH, dtype=torch.long)
        pairs = {s: KeyValues(p.keys, p.values, nothing) for s, p in prefixes.items()}
        hidden = Memory(pairs, lengths=nothing.sum(dim=1))
        ones = Memory(gates=torch.ones(2, 7))
        for memory in (hidden, ones):
            torch.testing.assert_close(read(backbone, memory), bare, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(read(backbone, Memory(prefixes)), bare, atol=1e-2)


@pytest.mark.parametrize("kind", FAMILIES)
def test_gradients_of_gates_equal_differences(tiny, kind):
    """In float64, open gates against finite differences of sixth order.

    Some models compute norms in float32 whatever they are given; differences see that noise.
    """
    backbone = precise(tiny(kind))
    prefixes = random_prefixes(backbone)
    start_prefix = torch.ones(2, LENGTH, dtype=torch.float64)
    start_input = torch.ones(2, 7, dtype=torch.float64)
    weights = torch.randn(12, backbone.hidden_size, generator=torch.Generator().manual_seed(3))

    def loss(prefix_gates, gates):
        memory = Memory(prefixes, prefix_gates=prefix_gates, gates=gates)
        return (read(backbone, memory) * weights.double()).sum()

    leaves = [start_prefix.clone().requires_grad_(), start_input.clone().requires_grad_()]
    loss(*leaves).backward()

    def slope(which, place, step):
        moved = [start_prefix.clone(), start_input.clone()]
        values = []
        for sign in (1, -1):
            moved[which][place] = (start_prefix, start_input)[which][place] + sign * step
            with torch.no_grad():
                values.append(float(loss(*moved)))
        return (values[0] - values[1]) / (2 * step)

    places = [(0, (r, c)) for r in (0, 1) for c in range(3)]
    places += [(1, (0, 0)), (1, (0, 1)), (1, (1, 2)), (1, (1, 3))]
    found = torch.stack([leaves[which].grad[place] for which, place in places])
    step, tolerance = (1e-2, 5e-3) if kind in ROUNDING else (2e-3, 1e-9)
    expected = torch.tensor([extrapolated(slope, p, step) for p in places], dtype=torch.float64)
    assert (expected.abs() > 1e-3).all()
    torch.testing.assert_close(found / expected, torch.ones_like(found), atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", FAMILIES)
def test_gradients_of_closed_gates_are_what_opening_them_would_change(tiny, kind, monkeypatch):
    """In float64, against a loop that opens each closed key by itself; all gradients."""
    backbone = precise(tiny(kind))
    prefixes = random_prefixes(backbone)
    gates = [
        torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64),
        torch.ones(2, 7, dtype=torch.float64),
    ]
    gates[1][0, 1] = gates[1][0, 2] = gates[1][1, 0] = 0.0
    weights = torch.randn(12, backbone.hidden_size, generator=torch.Generator().manual_seed(3))
    tokens, mask = inputs(backbone)

    def run(gated):
        leaves = [*(g.clone().requires_grad_() for g in gates), tokens.clone().requires_grad_()]
        leaves += [pair.keys.clone().requires_grad_() for pair in prefixes.values()]
        own = {
            s: KeyValues(k, prefixes[s].values) for s, k in zip(prefixes, leaves[3:], strict=True)
        }
        memory = Memory(own, prefix_gates=leaves[0], gates=leaves[1], gated=gated)
        states = backbone.hidden(leaves[2], mask, None, memory=memory)[mask.bool()]
        loss = (states * weights.double()).sum()
        loss.backward()
        return [loss.detach(), *(leaf.grad for leaf in leaves)]

    fast = run(None)
    monkeypatch.setattr(gating, "_Gated", OneByOne)
    for found, expected in zip(fast, run(None), strict=True):
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(
            found, expected, atol=1e-9, rtol=1e-6 if kind in ROUNDING else 1e-9
        )


class OneByOne:
    """What `_Gated` does, by definition: every closed key is opened by itself, in a loop."""

    @staticmethod
    def apply(weights, values, gates, span, own):
        before = weights.shape[3] - weights.shape[2]
        hard = gates.detach()
        itself = torch.zeros(weights.shape[2:], dtype=torch.bool)
        if own:
            itself[torch.arange(weights.shape[2]), torch.arange(weights.shape[2]) + before] = True
        opened = torch.where(itself, 1.0, torch.where(hard > 0, gates, hard)[:, None, None])
        mixed = weights * opened
        output = mixed @ values / mixed.sum(-1, keepdim=True)
        for row, key in (hard == 0).nonzero().tolist():
            with torch.no_grad():
                more = mixed[row].clone()
                more[..., key] = weights[row, ..., key]
                change = more @ values[row] / more.sum(-1, keepdim=True) - output[row]
            output = output.clone()
            output[row] = output[row] + (gates[row, key] - hard[row, key]) * change
        return output


def test_a_closed_key_that_would_take_all_attention_sends_a_bounded_gradient(tiny):
    backbone = tiny("bert")
    prefixes = {
        slot: KeyValues(40 * pair.keys, pair.values)
        for slot, pair in random_prefixes(backbone).items()
    }
    gates = torch.zeros(2, LENGTH, requires_grad=True)
    (read(backbone, Memory(prefixes, prefix_gates=gates)) ** 2).sum().backward()
    assert 1e-6 < gates.grad.abs().max() < 1e3


ROUNDING = ("modernbert", "t5", "llama", "qwen3", "gemma3")


def extrapolated(slope, place, step):
    """Return Richardson's sixth-order value of a central difference."""
    d = [slope(*place, step / 2**i) for i in range(3)]
    fourth = [(4 * d[i + 1] - d[i]) / 3 for i in range(2)]
    return (16 * fourth[1] - fourth[0]) / 15


@pytest.mark.parametrize(
    ("kind", "method"),
    covering(
        [(kind, "adap-ins-pos") for kind in KINDS]
        + [(k, m) for k in REACHED for m in ("p-tuning-v2", "adap-len", "residual-deep-pool-len")],
        1,
    ),
)
def test_checkpointing_changes_nothing(tiny, task, kind, method):
    backbone = tiny(kind)
    saving = Backbone(
        backbone.name,
        backbone.family,
        backbone.model,
        backbone.tokenizer,
        backbone.has_language_head,
        backbone.fingerprint,
        has_checkpointing=True,
    )
    readout = "linear" if backbone.family == "encoder" else "text"
    config = run_config(backbone, method, readout)
    results = []
    for model_of in (backbone, saving):
        model = build_model(config, model_of, task.format)
        results.append(gradients(model_of, model, task))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
        assert first.abs().sum() > 0


def gradients(backbone, model, task, examples=4):
    """Return the loss and every gradient of a training forward."""
    from softprompts.encoding.batch import collate
    from softprompts.training.forward import Part, score

    encoded = [model.readout.encode(row) for row in task.train[:examples]]
    batch = collate(encoded, backbone.tokenizer.pad_token_id)
    draws = Draws(0, 0, 0, batch.examples, len(encoded))
    scores = score(backbone, [Part(model.prompt, model.readout, batch, draws)])[0]
    loss = model.readout.loss(scores, batch).sum()
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters)]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3", "gemma3"])
def test_rows_from_a_text_are_that_text_before_the_input(tiny, kind):
    """Keys and values that a decoder made of a text stand for the text itself."""
    backbone = tiny(kind)
    text = "the"
    config = sp.PromptConfig(
        method="p-tuning-v2",
        length=len(backbone.tokenizer(text, add_special_tokens=False)["input_ids"]),
        initializer={"kind": "text", "text": text},
    )
    before = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = backbone.tokenizer("of", add_special_tokens=False)["input_ids"]
    assert len(before) + len(ids) <= 8  # within a sliding window
    deep = sp.SoftPromptModel(backbone, config).eval()
    empty = Prompt(PlainRows(torch.zeros(0, backbone.embedding_size), None), FixedPosition(0))
    bare = sp.SoftPromptModel(backbone, empty).eval()
    with torch.no_grad():
        found = deep(torch.tensor([ids])).last_hidden_state
        expected = bare(torch.tensor([before + ids])).last_hidden_state[:, len(before) :]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *covering(list(product(REACHED, ("p-tuning-v2", "adap-len", "adap-ins-len"))), 1),
        *(("llama", "dept"), ("t5", "dept"), ("bert", "dept")),
    ],
)
def test_left_padding_equals_right_padding(tiny, kind, method):
    backbone = tiny(kind)
    model = sp.SoftPromptModel(backbone, sp.PromptConfig(method=method, length=4)).eval()
    if method == "dept":
        torch.nn.init.normal_(
            model.prompt.pool.rows.right, generator=torch.Generator().manual_seed(0)
        )
    lines = [list(backbone.tokenizer(t)["input_ids"]) for t in ("the river", "rain all day long")]
    width, pad = max(map(len, lines)), backbone.tokenizer.pad_token_id
    states = {}
    for side in ("left", "right"):
        gaps = [[pad] * (width - len(line)) for line in lines]
        padded = [g + x if side == "left" else x + g for g, x in zip(gaps, lines, strict=True)]
        masks = [
            [0] * len(g) + [1] * len(x) if side == "left" else [1] * len(x) + [0] * len(g)
            for g, x in zip(gaps, lines, strict=True)
        ]
        mask = torch.tensor(masks)
        with torch.no_grad():
            states[side] = model(torch.tensor(padded), mask).last_hidden_state[mask.bool()]
    torch.testing.assert_close(states["left"], states["right"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("depth", ["input", "every-layer"])
@pytest.mark.parametrize("count", [0, 2, 4])
def test_a_selector_fixed_at_a_length_is_that_fixed_length(tiny, task, kind, depth, count):
    backbone = tiny(kind)
    method = "prompt-tuning" if depth == "input" else "p-tuning-v2"
    model = build_model(run_config(backbone, method, "linear"), backbone, task.format)
    prompt, width = model.prompt, backbone.hidden_size
    selectors = [
        TaskActiveLength(4, width, torch.Generator(), start=count, lead=1e4),
        InstanceActiveLength(4, width, torch.Generator().manual_seed(0), start=count, lead=1e4),
    ]
    encoded = [model.readout.encode(row) for row in task.train]

    def scores(active_length):
        whole = Prompt(prompt.pool, prompt.position, active_length, prompt.depth)
        return score_examples(backbone, whole, model.readout, encoded)[0]

    expected = scores(FixedActiveLength(4, count=count))
    for selector in selectors:
        torch.testing.assert_close(torch.tensor(scores(selector)), torch.tensor(expected))
    everything = torch.tensor(scores(FixedActiveLength(4)))
    assert torch.allclose(everything, torch.tensor(expected), atol=1e-5) == (count == 4)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_no_active_row_in_every_layer_is_the_bare_backbone(tiny, task, kind):
    backbone = tiny(kind)
    model = build_model(run_config(backbone, "p-tuning-v2", "linear"), backbone, task.format)
    encoded = [model.readout.encode(row) for row in task.train]
    prompt = model.prompt
    off = Prompt(prompt.pool, prompt.position, FixedActiveLength(4, count=0), prompt.depth)
    none = Prompt(PlainRows(torch.zeros(0, backbone.embedding_size), None), FixedPosition(0))
    found, _ = score_examples(backbone, off, model.readout, encoded)
    expected, _ = score_examples(backbone, none, model.readout, encoded)
    if kind == "bert":  # a decoder's tokens count their positions from the number of rows on
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))
    assert len(set(map(tuple, found))) > 1


@pytest.mark.parametrize("depth", ["input", "every-layer"])
@pytest.mark.parametrize(("start", "target"), [(1, 4), (6, 2)])
def test_a_length_grows_when_too_short_and_shrinks_when_too_long(tiny, depth, start, target):
    """Rows are given and stay; only the length is learned, to match a prompt of another one."""
    backbone = tiny("bert")
    length, width = 6, backbone.hidden_size
    data = {"method": "prompt-tuning", "length": length, "depth": depth}
    built = sp.SoftPromptModel(backbone, sp.PromptConfig.model_validate(data)).prompt
    ids = torch.arange(40).view(8, 5) * 7 % backbone.vocabulary_size

    def states(active_length, training):
        prompt = Prompt(built.pool, built.position, active_length, built.depth)
        return sp.SoftPromptModel(backbone, prompt).train(training)(ids).last_hidden_state

    with torch.no_grad():
        aim = states(FixedActiveLength(length, count=target), False)
    selector = TaskActiveLength(length, width, torch.Generator(), start=start, lead=2.0)
    built.requires_grad_(False)
    optimizer = torch.optim.Adam(selector.parameters(), lr=0.1)
    prompt = Prompt(built.pool, built.position, selector, built.depth)
    student = sp.SoftPromptModel(backbone, prompt)
    for _ in range(60):
        optimizer.zero_grad()
        (student(ids).last_hidden_state - aim).square().mean().backward()
        optimizer.step()
    assert int(selector.logits.argmax()) == target


def test_what_lengths_and_depths_refuse(tiny, task):
    generator = torch.Generator()
    for kind in (TaskActiveLength, InstanceActiveLength):
        with pytest.raises(PromptError, match="at least 1 for a learned length, but is 0"):
            kind(0, 6, generator)
        with pytest.raises(PromptError, match=r"active_length.start` must be 0 to 3, but is 5"):
            kind(3, 6, generator, start=5)
    with pytest.raises(PromptError, match=r"active_length.count` must be 0 to 3, but is 4"):
        FixedActiveLength(3, count=4)
    with pytest.raises(PromptError, match="instance vectors must be given to a length"):
        InstanceActiveLength(2, 6, generator)(1, None, None)
    backbone = tiny("bert")
    data = run_config(backbone, "p-tuning-v2", "linear").model_dump(mode="json")
    data["prompt"]["depth"] = {"kind": "every-layer", "from_layer": 2}
    with pytest.raises(PromptError, match=r"depth.from_layer` must be at most 1, but is 2"):
        build_model(sp.RunConfig.model_validate(data), backbone, task.format)
    base = {"backbone": {"name": "minilm"}, "task": {"name": "bundled/sentiment"}}
    for prompt, words in (
        ({"method": "p-tuning-v2", "position": "task"}, r"position` must be left out with depth"),
        ({"method": "adap-pos", "depth": "every-layer"}, r"left out with depth.*but is .*task"),
        ({"length": 3, "active_length": {"count": 4}}, r"count` must be at most.*3, but is 4"),
        ({"method": "adap-len", "length": 3, "active_length": {"start": 9}}, r"3, but is 9"),
        ({"method": "head-only", "depth": "every-layer"}, r"depth` must be left out when"),
    ):
        with pytest.raises(RecipeError, match=words):
            parse_run({**base, "prompt": prompt})


def test_only_upper_layers_get_rows(tiny, task):
    backbone = tiny("bert")
    data = run_config(backbone, "p-tuning-v2", "linear").model_dump(mode="json")
    whole = build_model(sp.RunConfig.model_validate(data), backbone, task.format)
    data["prompt"]["depth"] = {"kind": "every-layer", "from_layer": 1}
    upper = build_model(sp.RunConfig.model_validate(data), backbone, task.format)
    assert upper.prompt.bake().shape == (4, 64)
    assert torch.equal(whole.prompt.bake()[:, 64:], upper.prompt.bake())


@pytest.mark.parametrize("depth", ["input", "every-layer"])
def test_gradients_of_length_and_pool_logits_equal_brute_force(tiny, depth, monkeypatch):
    """In float64: mixtures by differences, gates one by one, then the rules of the selectors."""
    backbone = precise(tiny("bert"))
    length, size, temperature = 3, 2, 0.7
    config = sp.PromptConfig.model_validate(
        {"length": length, "depth": depth, "pool": {"kind": "attention", "size": size}}
        | {"active_length": {"kind": "instance", "start": 2}}
    )
    soft = sp.SoftPromptModel(backbone, config, seed=1)
    soft.prompt.double()
    soft.temperature = temperature
    read = token_inputs._instances
    monkeypatch.setattr(token_inputs, "_instances", lambda *given: read(*given).double())
    ids = torch.arange(14).view(2, 7) * 11 % backbone.vocabulary_size
    weights = torch.randn(2, 7, 1, generator=torch.Generator().manual_seed(3)).double()

    def loss():
        soft._num_forwards = 0  # the same noise each time
        return (soft(ids).last_hidden_state.double() * weights).sum()

    loss().backward()
    pool, selector = soft.prompt.pool, soft.prompt.active_length

    def moved(tensor, place):
        def slope(step):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    tensor[place] += sign * step
                    values.append(float(loss()))
                    tensor[place] -= sign * step
            return (values[0] - values[1]) / (2 * step)

        return extrapolated(slope, (), 2e-3)

    expected = torch.tensor([moved(pool.bias, k) for k in range(size)], dtype=torch.float64)
    assert expected.abs().min() > 1e-3
    torch.testing.assert_close(pool.bias.grad, expected, atol=0, rtol=1e-8)

    draws = Draws(1, 1, 0, torch.arange(2), 2, temperature)
    tokens = (backbone.embed(ids), torch.ones_like(ids), torch.zeros_like(ids))
    instances = token_inputs._instances(backbone, soft.prompt, tokens)
    whole = selector.forward
    chosen = whole(2, instances, draws)
    shift = torch.zeros(2, length + 1, dtype=torch.float64, requires_grad=True)
    selector.forward = lambda *given: replace(chosen, weights=chosen.weights.detach() + shift)
    monkeypatch.setattr(gating, "_Gated", OneByOne)
    loss().backward()
    of_weights, logits = shift.grad, chosen.logits.detach()
    noise = draws.gumbel("length", length + 1).double()
    chances = ((logits + noise) / temperature).softmax(1)
    of_logits = chances * (of_weights - (chances * of_weights).sum(1, keepdim=True)) / temperature
    assert of_logits.abs().max() > 1e-3
    torch.testing.assert_close(selector.bias.grad, of_logits.sum(0), atol=1e-9, rtol=1e-8)
