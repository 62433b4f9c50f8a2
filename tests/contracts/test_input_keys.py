"""Keys of what stands before a decoder's prompt are read once: as if all were read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import pytest
import torch

import backbones
from backbones import BOS, LIKE_LLAMA, Kind, _plain
from contracts.conftest import covering, parts_of, run_config
from reads import forget_kept, ways
from softprompts.backbones.backbone import Backbone
from softprompts.backbones.loading import load_backbone
from softprompts.encoding.batch import collate
from softprompts.fast import READER, reader
from softprompts.fast.input_keys import can_read_on, read_input_keys
from softprompts.fast.kept import Kept
from softprompts.fast.reader import Ways
from softprompts.fast.shortcuts import Shortcuts
from softprompts.prompts.draws import Draws
from softprompts.recipes.schema import RunConfig
from softprompts.regularizers.row_penalties import RowNorm
from softprompts.training import pack as training_cutting
from softprompts.training.building import build_model
from softprompts.training.execution import encode_splits, make_member
from softprompts.training.forward import Part, score
from softprompts.training.journal import NoJournal
from softprompts.training.resources import Resources

MORE_KINDS = {
    "mistral": Kind(  # every layer has a window
        "MistralConfig",
        "MistralForCausalLM",
        "bytes",
        LIKE_LLAMA,
        BOS,
        _plain(num_key_value_heads=2, sliding_window=6, tie_word_embeddings=False),
    ),
    "gpt-oss": Kind(  # sinks beside the keys, experts, and windows in every other layer
        "GptOssConfig",
        "GptOssForCausalLM",
        "bytes",
        LIKE_LLAMA,
        BOS,
        _plain(
            num_key_value_heads=2,
            head_dim=8,
            sliding_window=7,
            num_local_experts=4,
            num_experts_per_tok=2,
            layer_types=["sliding_attention", "full_attention"],
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=False,
        ),
    ),
}
KINDS = ["gpt2", "llama", "qwen3", "gemma3", *MORE_KINDS]
BEHIND = {"kind": "fixed", "split": 0}
PROMPTS: dict[str, dict[str, object]] = {
    "plain": {"method": "prompt-tuning"},
    "residual": {"method": "residual", "rows": {"kind": "residual", "bottleneck": 6, "gain": 0.5}},
    "length": {"active_length": {"kind": "task", "start": 2}},
    "length-of-instance": {"active_length": "instance"},
    "pool": {"pool": {"kind": "attention", "size": 2}},
}
TEMPLATES = {
    "linear": "{text} the {aspect} was {aspect} and {text} the",
    "text": "review: {text} the {aspect} was",
}
MARKED = {"linear": "{text} the {aspect} {prompt} was {prompt}"}


@pytest.fixture(scope="module")
def decoder(tiny, tmp_path_factory):
    """Return a function from a kind to its loaded backbone."""
    loaded: dict[str, Backbone] = {}

    def get(kind: str) -> Backbone:
        if kind not in MORE_KINDS:
            return tiny(kind)
        if kind not in loaded:
            loaded[kind] = built(kind, tmp_path_factory.mktemp(kind))
        return loaded[kind]

    return get


def built(kind, folder, name=None, **overrides):
    """Return a new backbone; `name` is the kind that it is built like."""
    with pytest.MonkeyPatch.context() as patch:
        for more, recipe in MORE_KINDS.items():
            patch.setitem(backbones.KINDS, more, recipe)
        return load_backbone(str(backbones.build(name or kind, folder, **overrides)))


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """Let each test begin with nothing kept."""
    forget_kept()


@pytest.fixture
def widths(monkeypatch):
    """Return the widths of the batches that are read for scores."""
    found: list[int] = []
    true = Ways.read_joint

    def spy(self, joint, below=()):
        found.append(joint.spliced.embeddings.shape[1])
        return true(self, joint, below)

    monkeypatch.setattr(Ways, "read_joint", spy)
    return found


def behind(task, templates: Mapping[str, str] = TEMPLATES):
    """Return a task whose inputs are long beside a prompt of four rows."""
    return replace(task, format=replace(task.format, templates=dict(templates)))


def config_of(backbone, readout, prompt, **more):
    """Return a run whose rows stand behind the input."""
    data = run_config(backbone, "prompt-tuning", readout).model_dump(mode="json")
    data["prompt"] |= {"position": BEHIND} | prompt | more
    return RunConfig.model_validate(data)


def part_of(backbone, task, config, rows=slice(0, 4), step=0):
    """Return a model and its micro-batch."""
    model = build_model(config, backbone, task.format)
    encoded = [model.readout.encode(row) for row in task.train[rows]]
    batch = collate(encoded, backbone.tokenizer.pad_token_id)
    draws = Draws(0, step, 0, batch.examples, len(encoded))
    return model, Part(model.prompt, model.readout, batch, draws)


def results(backbone, models, parts):
    """Return all scores and gradients of a training forward."""
    scores = score(backbone, parts)
    losses = [
        part.readout.loss(one, part.batch).sum() for part, one in zip(parts, scores, strict=True)
    ]
    sum(losses).backward()
    found = [one.detach() for one in scores]
    for model in models:
        found += [p.grad for p in model.parameters if p.grad is not None]
        for parameter in model.parameters:
            parameter.grad = None
    return found


def recomputed(monkeypatch, call):
    """Return what a call returns where nothing is known ahead."""
    with monkeypatch.context() as patch:
        patch.setattr(reader, "read_ahead", lambda *given: None)
        return call()


def assert_same(found, expected, tolerance=1e-5):
    """Compare scores and gradients, each by its own size."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        finite = other[other.isfinite()]
        size = float(finite.abs().max())
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize(
    ("kind", "prompt", "readout"),
    covering(
        [
            (kind, prompt, readout)
            for kind, prompt, readout in product(KINDS, PROMPTS, ("linear", "text"))
            if kind != "gpt-oss" or "length" not in prompt
        ]
    ),
)
def test_scores_and_gradients_are_those_of_recomputing(
    decoder, task, kind, readout, prompt, monkeypatch, widths
):
    backbone, task = decoder(kind), behind(task)
    model, part = part_of(backbone, task, config_of(backbone, readout, PROMPTS[prompt]))
    expected = recomputed(monkeypatch, lambda: results(backbone, [model], [part]))
    whole = widths[-1]
    for _ in range(2):
        found = results(backbone, [model], [part])
        assert 2 * widths[-1] <= whole  # else nothing was left out
        assert_same(found, expected)
        assert all(one.abs().sum() > 0 for one in found[1:])


@pytest.mark.parametrize("prompt", ["plain", "length"])
def test_checkpointing_changes_nothing(decoder, task, prompt, monkeypatch, widths):
    backbone, task = decoder("gpt2"), behind(task)
    config = config_of(backbone, "text", PROMPTS[prompt])
    model, part = part_of(backbone, task, config)
    expected = results(backbone, [model], [part])
    monkeypatch.setattr(backbone, "has_checkpointing", True)
    found = results(backbone, [model], [part])
    assert widths[-1] == widths[-2] < 20
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("kind", ["gpt2", "gemma3"])
def test_rows_at_marked_places_leave_out_what_stands_before_the_first(
    decoder, task, kind, monkeypatch, widths
):
    backbone, task = decoder(kind), behind(task, MARKED)
    config = config_of(backbone, "linear", {"position": {"kind": "marked"}})
    model, part = part_of(backbone, task, config)
    expected = recomputed(monkeypatch, lambda: results(backbone, [model], [part]))
    assert_same(results(backbone, [model], [part]), expected)
    assert 2 * widths[-1] <= widths[-2]


@pytest.mark.parametrize("readout", ["linear", "text"])
def test_a_pack_of_all_sorts_of_runs_is_each_by_itself(decoder, task, readout, monkeypatch, widths):
    backbone, task = decoder("gpt2"), behind(task)
    prompts: list[dict[str, object]] = [
        PROMPTS["plain"],
        {"position": {"kind": "fixed"}},
        {**PROMPTS["length"], "length": 2},
        {"depth": "every-layer", "position": {"kind": "fixed"}},
        PROMPTS["pool"],
    ]
    rows = [slice(0, 4), slice(1, 3), slice(4, 8), slice(0, 2), slice(2, 3)]
    made = [
        part_of(backbone, task, config_of(backbone, readout, prompt), chosen)
        for prompt, chosen in zip(prompts, rows, strict=True)
    ]
    plain, part = part_of(backbone, task, config_of(backbone, readout, PROMPTS["plain"]))
    embeddings = backbone.embed(part.batch.ids)
    made.append((plain, replace(part, embeddings=embeddings + 0.1)))  # as a perturbation makes them
    alone = []
    for model, part in made:
        alone.append(recomputed(monkeypatch, lambda m=model, p=part: results(backbone, [m], [p])))
    widths.clear()
    together = results(backbone, [model for model, _ in made], [part for _, part in made])
    assert len(widths) == 2
    assert 2 * min(widths) <= max(widths)
    assert_same(together[: len(made)], [found[0] for found in alone])
    assert_same(together[len(made) :], [one for found in alone for one in found[1:]], 1e-4)


def test_other_embeddings_are_read_whole(decoder, task, widths):
    backbone, task = decoder("llama"), behind(task)
    _, part = part_of(backbone, task, config_of(backbone, "text", PROMPTS["plain"]))
    embeddings = backbone.embed(part.batch.ids).requires_grad_()
    clean = score(backbone, [part])[0]
    found = score(backbone, [replace(part, embeddings=embeddings)])[0]
    assert 2 * widths[0] <= widths[1]
    assert_same([found.detach()], [clean.detach()])
    found.sum().backward()
    assert (embeddings.grad.abs().sum(dim=2) > 0).sum(dim=1).gt(4).all()


def test_a_selector_in_training_reads_whole_inputs_and_in_evaluation_what_is_behind(
    decoder, task, monkeypatch, widths
):
    backbone, task = decoder("qwen3"), behind(task)
    config = config_of(backbone, "text", {"position": "task"})
    model, part = part_of(backbone, task, config)
    with torch.no_grad():
        model.prompt.position.logits[0] = 9.0  # nearly always no row in front
    expected = recomputed(monkeypatch, lambda: results(backbone, [model], [part]))
    found = results(backbone, [model], [part])
    assert widths[-1] == widths[-2]
    assert all(map(torch.equal, found, expected))
    part = replace(part, draws=None)
    with torch.no_grad():
        expected = recomputed(monkeypatch, lambda: score(backbone, [part]))
        found = score(backbone, [part])
    assert 2 * widths[-1] <= widths[-2]
    assert_same(found, expected)


def test_labels_share_the_keys_of_their_input(decoder, task):
    backbone, task = decoder("gpt2"), behind(task)
    _, part = part_of(backbone, task, config_of(backbone, "text", PROMPTS["plain"]))
    score(backbone, [part])
    assert len(part.batch.items) == 3 * 4
    assert ways(backbone).kept.num_read == 4


@pytest.mark.parametrize("prompt", ["plain", "length"])
def test_what_is_kept_has_the_bits_of_what_is_read_now(decoder, task, prompt, monkeypatch):
    backbone, task = decoder("gemma3"), behind(task)
    config = config_of(backbone, "text", PROMPTS[prompt])
    model, part = part_of(backbone, task, config)
    cold = results(backbone, [model], [part])
    warm = results(backbone, [model], [part])
    assert all(map(torch.equal, cold, warm))
    forget_kept()
    others = part_of(backbone, task, config, slice(2, 9))[1]
    results(backbone, [model], [others])  # half of the inputs are met in other company
    assert all(map(torch.equal, results(backbone, [model], [part]), cold))


def test_an_input_that_changes_has_other_keys(decoder, task, monkeypatch):
    backbone, task = decoder("gpt2"), behind(task)
    config = config_of(backbone, "linear", PROMPTS["plain"])
    model, part = part_of(backbone, task, config)
    results(backbone, [model], [part])
    for place in (0, 5):
        ids = part.batch.ids.clone()
        ids[:, place] = (ids[:, place] + 7) % 390
        changed = replace(part, batch=replace(part.batch, ids=ids))
        expected = recomputed(monkeypatch, lambda p=changed: results(backbone, [model], [p]))
        assert_same(results(backbone, [model], [changed]), expected)


def test_the_latest_are_kept_within_the_limit_and_an_evaluation_displaces_none():
    reads = []

    def read(group):
        reads.append(group)
        return [torch.full((len(one),), float(one[0])) for one in group]

    store = Kept(torch.device("cpu"), most_bytes=2 * 3 * 4)
    for one in ("abc", "def", "abc", "ghi"):
        store.find("letters", [one.encode()], read)
    assert reads == [[b"abc"], [b"def"], [b"ghi"]]
    assert store.num_bytes == 24
    with torch.no_grad():
        store.find("letters", [b"def", b"def", b"larger!"], read)
    assert reads[3:] == [[b"def"], [b"larger!"]]
    assert store.num_bytes == 24
    found = store.find("letters", [b"ghi", b"abc", b"ghi"], read)
    assert [int(one[0]) for one in found] == [ord("g"), ord("a"), ord("g")]
    assert len(reads) == store.num_read == 5
    store.find("letters", [b"larger!"], read)  # larger than the limit: read, and not kept
    assert store.num_bytes == 24
    store.find("letters", [b"def"], read)  # in place of the one that was used least lately
    assert len(reads) == 7
    store.find("letters", [b"abc", b"def"], read)
    assert len(reads) == 7
    store.find("digits", [b"def"], read)  # something else of the same input
    assert len(reads) == 8
    with torch.no_grad():  # the store is full: what all inputs share is read once all the same
        for shared in (b"xyz", b"xyz", b"uvw", b"xyz"):
            store.find("letters", [shared, shared], read)
    assert reads[8:] == [[b"xyz"], [b"uvw"], [b"xyz"]]
    assert store.num_bytes == 24


@pytest.mark.parametrize(
    ("position", "templates"),
    [(BEHIND, TEMPLATES), ({"kind": "marked"}, MARKED), ({"kind": "fixed"}, TEMPLATES)],
)
@pytest.mark.parametrize("readout", ["linear", "text"])
def test_an_update_is_cut_by_what_is_read_of_its_examples(
    decoder, task, readout, position, templates, widths
):
    if readout not in templates:
        return
    backbone, task = decoder("gpt2"), behind(task, templates)
    config = config_of(backbone, readout, {"position": position})
    for place in range(len(task.train)):
        model, part = part_of(backbone, task, config, slice(place, place + 1))
        score(backbone, [part])
        example = model.readout.encode(task.train[place])
        assert READER.num_positions(backbone, model.prompt, [example], True) == widths[-1:]


def test_with_regularizers_an_update_is_cut_by_whole_inputs(decoder, task, monkeypatch):
    backbone, task = decoder("gpt2"), behind(task)
    config = config_of(backbone, "linear", PROMPTS["plain"]).model_copy(
        update={"training": run_config(backbone, "prompt-tuning", "linear", batch_size=9).training}
    )
    sizes = []
    for weight in (None, 0.0, 1.0):
        model = build_model(config, backbone, task.format)
        splits = encode_splits(config, model, task, Resources())
        member = make_member(config, model, splits, NoJournal())
        if weight is not None:
            member.penalties.regularizers = (RowNorm(backbone, weight=weight),)
        monkeypatch.setattr(training_cutting, "_OVERHEAD_TOKENS", {"joined": 8})
        sizes.append(len(parts_of(member, backbone)))
    assert sizes[0] == sizes[1] == 1 < sizes[2]


def test_sequences_read_together_have_the_keys_of_each_alone(decoder):
    backbone = decoder("gemma3")
    assert can_read_on(backbone)
    ids = [tuple(range(20)), (5,), tuple(range(40, 52))]
    together = read_input_keys(backbone, ids)
    for one, found in zip(ids, together, strict=True):
        (alone,) = read_input_keys(backbone, [one])
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "modernbert", "t5", "bart"])
def test_what_sees_both_ways_cannot_read_on(tiny, kind):
    assert not can_read_on(tiny(kind))


def test_lengths_that_change_rotations_cannot_read_on(tmp_path):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    plain = built("llama", tmp_path / "plain")
    assert can_read_on(plain)
    assert not can_read_on(built("llama", tmp_path / "dynamic", rope_parameters=rope))


def test_a_window_that_attention_is_not_told_of_cannot_read_on(decoder, monkeypatch):
    backbone = decoder("llama")
    config = backbone.model.config.get_text_config(decoder=True)
    for kinds, window, is_able in (
        (None, None, True),
        (None, 8, False),
        (["full_attention"] * 2, 8, True),  # a window that no layer has
        (["full_attention", "sliding_attention"], 8, False),
        (["full_attention", "chunked_attention"], None, False),
    ):
        monkeypatch.setattr(config, "layer_types", kinds, raising=False)
        monkeypatch.setattr(config, "sliding_window", window, raising=False)
        assert can_read_on(backbone) == is_able, (kinds, window)


def test_a_layer_that_carries_more_than_keys_cannot_read_on(decoder, monkeypatch):
    """A layer that adds the token before, as a convolution does, is found by trying."""
    backbone = decoder("llama")
    assert can_read_on(backbone)
    layer = backbone.stacks[0].layers[1]
    true = type(layer).forward

    def shifted(self, states, *given, **options):
        before = torch.nn.functional.pad(states, (0, 0, 1, 0))[:, :-1]
        return true(self, states + before, *given, **options)

    monkeypatch.setattr(type(layer), "forward", shifted)
    assert not can_read_on(backbone)


def test_a_model_that_fails_the_trial_is_read_whole(decoder, task, monkeypatch, widths):
    backbone, task = decoder("llama"), behind(task)
    true = type(backbone.stacks[0].layers[0]).forward

    def strict(self, states, *given, position_ids=None, **options):
        if position_ids is not None and int(position_ids.min()) > 0:
            raise TypeError("positions must begin at 0")
        return true(self, states, *given, position_ids=position_ids, **options)

    monkeypatch.setattr(type(backbone.stacks[0].layers[0]), "forward", strict)
    monkeypatch.setitem(vars(ways(backbone)), "shortcuts", Shortcuts())
    _, part = part_of(backbone, task, config_of(backbone, "linear", PROMPTS["plain"]))
    score(backbone, [part])
    assert widths == [part.batch.ids.shape[1] + 4]


def test_a_copy_that_is_trained_is_read_whole(decoder, task, monkeypatch, widths):
    backbone, task = decoder("gpt2"), behind(task)
    _, part = part_of(backbone, task, config_of(backbone, "text", PROMPTS["plain"]))
    score(backbone, [part])
    monkeypatch.setattr(backbone, "is_frozen", False)
    score(backbone, [part])
    assert 2 * widths[0] <= widths[1]


def test_a_short_input_is_read_whole(decoder, task, widths):
    backbone = decoder("gpt2")
    task = behind(task, {"linear": "{aspect}"})
    _, part = part_of(backbone, task, config_of(backbone, "linear", {"length": 9}))
    score(backbone, [part])
    assert widths == [part.batch.ids.shape[1] + 9]


def test_autocast_reads_whole_inputs(decoder, task, widths):
    backbone, task = decoder("gpt2"), behind(task)
    _, part = part_of(backbone, task, config_of(backbone, "text", PROMPTS["plain"]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        score(backbone, [part])
    assert widths == [part.batch.ids.shape[1] + 4]


def test_a_reading_in_inference_mode_can_be_trained_on(decoder, task):
    backbone, task = decoder("gpt2"), behind(task)
    model, part = part_of(backbone, task, config_of(backbone, "text", PROMPTS["plain"]))
    with torch.inference_mode():
        score(backbone, [part])
    assert ways(backbone).kept.num_read == 4
    assert results(backbone, [model], [part])[-1].abs().sum() > 0
    assert ways(backbone).kept.num_read == 4
