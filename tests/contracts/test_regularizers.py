"""What holds of every regularizer: idle ones change nothing, others touch field tokens alone."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import pytest
import torch

from contracts.conftest import covering, parts_of, run_config, shares_of
from softprompts.encoding.template import Role
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.regularizers.registry import PERTURBATIONS
from softprompts.training import forward, objective
from softprompts.training.building import build_model
from softprompts.training.execution import encode_splits, execute, make_member
from softprompts.training.forward import Part, score
from softprompts.training.journal import Journal, NoJournal
from softprompts.training.pack import train_pack
from softprompts.training.resources import Resources

PLACES = [("bert", "linear"), ("bert", "cloze"), ("gpt2", "text"), ("gpt2", "linear")]
PLACES += [("t5", "text"), ("t5", "linear")]
METHODS = ("prompt-tuning", "residual", "adap-ins-pos", "p-tuning-v2")
EVERY = covering([(*p, m, n) for p, m, n in product(PLACES, METHODS, PERTURBATIONS.names())], 1)
NEAR = {"min_cosine": -1.0}
STRONG = {
    "word-substitution": NEAR,
    "gaussian-noise": {"sigma": 0.5},
    "masking": {"fraction": 0.5},
    "gradient-ascent": {"radius": 0.4, "steps": 2},
}
IDLE = {
    "word-substitution": {"fraction": 0.0, "least_words": 0},
    "gaussian-noise": {"sigma": 0.0},
    "masking": {"fraction": 0.0},
    "gradient-ascent": {"radius": 0.0},
}


def ptp(name, **more):
    """Return a regularizer with a perturbation that does something."""
    return {"kind": "ptp", "perturbation": {"kind": name, **STRONG[name]}, **more}


def copies_of(name):
    """Return how many copies are of use."""
    return 1 if name == "word-substitution" else 2


def config_of(backbone, method, readout, regularizers, **training):
    data = run_config(backbone, method, readout, **training).model_dump(mode="json")
    return resolve(parse_run({**data, "regularizers": regularizers}))


class Lines(Journal):
    """Keeps the records of a run."""

    def __init__(self):
        self.records, self.texts = [], []

    def restore(self):
        return None

    def log(self, record):
        self.records.append(json.loads(json.dumps(dict(record))))

    def show(self, text):
        self.texts.append(text)

    def save(self, checkpoint):
        pass

    def finish(self, tensors, about, result):
        pass


def member_of(config, backbone, task, journal=None):
    model = build_model(config, backbone, task.format)
    splits = encode_splits(config, model, task, Resources())
    return make_member(config, model, splits, journal or NoJournal())


def trained(backbone, task, method, readout, regularizers, **training):
    """Return the records and the tensors of a run."""
    journal = Lines()
    config = config_of(backbone, method, readout, regularizers, **training)
    run = member_of(config, backbone, task, journal)
    train_pack(run.backbone, [run])
    records = [r for r in journal.records if "split" not in r]
    return records, {k: v.detach().clone() for k, v in run.model.state().items()}


def count_reads(monkeypatch):
    """Return a list that gets the number of parts of each forward in training."""
    counts = []

    def counted(backbone, parts):
        counts.append(len(parts))
        return score(backbone, parts)

    monkeypatch.setattr(objective, "score", counted)
    return counts


@pytest.mark.parametrize(
    ("kind", "readout", "name"),
    covering([(*p, n) for p, n in product(PLACES, PERTURBATIONS.names())], 1),
)
def test_weight_or_strength_zero_is_no_regularizer(tiny, task, kind, readout, name, monkeypatch):
    backbone, reads = tiny(kind), []
    trained(backbone, task, "adap-ins-pos", readout, [])  # which keeps instance vectors
    read, counts = backbone.read, count_reads(monkeypatch)
    monkeypatch.setattr(backbone, "read", lambda *a, **k: (reads.append(1), read(*a, **k))[1])
    lines, plain = trained(backbone, task, "adap-ins-pos", readout, [])
    num_plain, num_reads = list(counts), len(reads)
    idle = {"kind": "ptp", "perturbation": {"kind": name, **IDLE[name]}}
    for regularizer in (ptp(name, weight=0.0), idle):
        counts.clear()
        reads.clear()
        records, state = trained(backbone, task, "adap-ins-pos", readout, [regularizer])
        assert counts == num_plain
        assert len(reads) == num_reads
        assert set(counts) == {1}
        assert all(record.pop("regularizers") == [{"weight": 0.0}] for record in records)
        assert records == lines
        assert state.keys() == plain.keys()
        assert all(torch.equal(state[key], plain[key]) for key in plain)
    _, moved = trained(backbone, task, "adap-ins-pos", readout, [ptp(name, weight=3.0)])
    has_words = (kind, name) != ("gpt2", "word-substitution")  # no word of the task is one token
    is_near = all(torch.allclose(moved[key], plain[key], 1e-4, 1e-6) for key in plain)
    assert is_near != has_words  # it reads wrong label strings too, in other batches


@pytest.mark.parametrize(("kind", "readout", "method", "name"), EVERY)
def test_all_but_field_tokens_is_read_as_it_was(
    tiny, task, kind, readout, method, name, monkeypatch
):
    """Rows, padding, special tokens, masks and label words, each at its place, in every layer."""
    backbone, clean, others = tiny(kind), {}, []

    def watched(backbone, part, output):
        request, given = ask_one(backbone, part, output), part.embeddings
        found = (output, request.spliced, part.batch)
        if given is None or torch.equal(given, backbone.embed(part.batch.ids)):
            clean[id(part.batch)] = found
        else:
            others.append(found)
        return request

    ask_one = forward.ask
    monkeypatch.setattr(forward, "ask", watched)
    config = config_of(backbone, method, readout, [ptp(name)], steps=1)
    run = member_of(config, backbone, task)
    for share in shares_of(run, backbone):
        objective.accumulate(backbone, [share])
    num_rows = 0
    for output, spliced, batch in others:
        own, plain, same = clean[id(batch)]
        assert batch is same  # label words that a decoder reads are here
        for part in ("attention_mask", "segment_ids", "token_positions", "row_positions"):
            assert torch.equal(getattr(spliced, part), getattr(plain, part))
        is_field = torch.zeros_like(spliced.attention_mask)
        is_field.scatter_(1, spliced.token_positions, (batch.roles == Role.FIELD).long())
        change = (spliced.embeddings != plain.embeddings).any(dim=-1)
        assert change.any()
        assert not (change & ~is_field.bool()).any()
        num_rows += spliced.row_positions.numel() + len(output.prefixes)
        for slot, pair in output.prefixes.items():
            assert torch.equal(pair.keys, own.prefixes[slot].keys)
            assert torch.equal(pair.values, own.prefixes[slot].values)
    has_words = (kind, name) != ("gpt2", "word-substitution")  # no word of the task is one token
    assert bool(others) == bool(num_rows) == has_words


@pytest.mark.parametrize(("kind", "readout", "method", "name"), EVERY)
def test_only_field_tokens_are_touched(tiny, task, kind, readout, method, name, monkeypatch):
    backbone, touched = tiny(kind), []

    def watched(backbone, parts):
        for part in parts:
            if part.embeddings is not None:
                change = (part.embeddings - backbone.embed(part.batch.ids)).detach()
                is_moved = (change != 0).any(dim=-1)
                is_field = part.batch.roles == Role.FIELD
                assert not (is_moved & ~is_field).any()
                touched.append(int(is_moved.sum()))
        return score(backbone, parts)

    monkeypatch.setattr(objective, "score", watched)
    records, _ = trained(backbone, task, method, readout, [ptp(name)])
    assert len(touched) >= len(records)
    norms = [record["regularizers"][0]["perturbation_norm"] for record in records]
    if (kind, name) == ("gpt2", "word-substitution"):  # no word of the task is one token
        assert not sum(touched) + max(norms)
    elif name == "word-substitution":  # some micro-batches have none
        assert sum(touched) * max(norms) > 0
    else:
        assert all(touched)
        assert min(norms) > 0


def test_noise_and_its_clean_inputs_share_a_forward(tiny, task, monkeypatch):
    counts = count_reads(monkeypatch)
    noise = ptp("gaussian-noise", num_copies=3)
    trained(tiny("bert"), task, "prompt-tuning", "linear", [noise, ptp("gaussian-noise")])
    assert set(counts) == {5}


def test_shared_copies_are_reckoned_with_where_an_update_is_cut(tiny, task):
    """Copies make a micro-batch cheaper beside what it saves, unless they are idle."""
    nums = []
    for regularizers in (
        [],
        [ptp("gaussian-noise", weight=0.0, num_copies=3)],
        [ptp("gradient-ascent", num_copies=3)],
        [ptp("gaussian-noise", num_copies=3), ptp("masking")],
    ):
        config = config_of(tiny("bert"), "prompt-tuning", "linear", regularizers)
        nums.append(member_of(config, tiny("bert"), task).penalties.num_reads)
    assert nums == [1, 1, 1, 5]


@pytest.mark.parametrize(
    ("consistency", "is_live"),
    [("ce", False), *((c, live) for c in ("kl", "symmetric-kl") for live in (True, False))],
)
def test_the_gradient_is_that_of_the_whole_objective(tiny, task, consistency, is_live):
    """The update's gradient is that of `loss + weight * mean penalty`, written out here."""
    backbone = tiny("bert")
    options = {"weight": 0.7, "num_copies": 2, "consistency": consistency, "is_clean_live": is_live}
    config = config_of(
        backbone, "prompt-tuning", "linear", [ptp("gaussian-noise", **options)], batch_size=9
    )
    run = member_of(config, backbone, task)
    shares = shares_of(run, backbone)
    for share in shares:
        objective.accumulate(backbone, [share])
    got = [p.grad.clone() for p in run.model.parameters]
    run.optimizer.zero_grad()
    (_, regularizer, factor) = shares[0].regularizers[0]
    assert factor == 0.7
    for share in shares:
        part = share.part
        reading = objective._prepare(backbone, share)
        objective._copies(backbone, [reading])
        inputs = reading.inputs[0]
        clean = score(backbone, [part])[0]
        total = part.readout.loss(clean, part.batch)
        for copy in regularizer.copies(inputs):
            found = score(backbone, [replace(part, embeddings=copy.embeddings)])[0]
            p, q = (clean if is_live else clean.detach()).softmax(1), found.softmax(1)
            penalty = part.readout.loss(found, part.batch)
            if consistency == "kl":
                penalty = (p * (p / q).log()).sum(1)
            elif consistency == "symmetric-kl":
                penalty = ((p - q) * (p / q).log()).sum(1) / 2
            total = total + 0.7 * penalty / 2
        (total.sum() * share.weight).backward()
    for one, parameter in zip(got, run.model.parameters, strict=True):
        assert parameter.grad.abs().max() > 0
        torch.testing.assert_close(one, parameter.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("readout", "name", "consistency"),
    covering(
        list(product(("linear", "cloze"), PERTURBATIONS.names(), ("ce", "kl", "symmetric-kl"))), 1
    ),
)
def test_absent_columns_make_no_nan(tiny, choice_task, readout, name, consistency):
    options = {"consistency": consistency, "is_clean_live": consistency != "ce"}
    records, state = trained(
        tiny("bert"), choice_task, "prompt-tuning", readout, [ptp(name, **options)]
    )
    for record in records:
        assert record["regularizers"][0]["penalty"] > 0
    assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize("name", PERTURBATIONS.names())
def test_perturbations_do_not_depend_on_how_an_update_is_cut(tiny, task, name):
    backbone, found = tiny("bert"), []
    for size, accumulation in ((9, 1), (3, 3), (1, 9)):
        config = config_of(
            backbone,
            "adap-ins-pos",
            "linear",
            [ptp(name, num_copies=copies_of(name))],
            batch_size=size,
            accumulation_steps=accumulation,
        )
        run = member_of(config, backbone, task)
        for share in shares_of(run, backbone):
            objective.accumulate(backbone, [share])
        gradient = torch.cat([p.grad.flatten() for p in run.model.parameters])
        about = run.penalties.summary()["regularizers"][0]
        found.append((about, gradient))
    for about, gradient in found[1:]:
        assert about == pytest.approx(found[0][0], rel=1e-3, abs=1e-5)
        torch.testing.assert_close(gradient, found[0][1], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", PERTURBATIONS.names())
def test_a_pack_trains_each_run_with_its_own_regularizers(tiny, task, name):
    backbone = tiny("bert")
    lists = [[], [ptp(name)], [ptp(name, weight=0.5, consistency="kl"), ptp("gaussian-noise")]]
    configs = [
        config_of(backbone, method, "cloze", one, steps=4, learning_rate=0.02)
        for one, method in zip(lists, ("prompt-tuning", "adap-ins-pos", "p-tuning-v2"), strict=True)
    ]
    alone = [member_of(config, backbone, task) for config in configs]
    for run in alone:
        train_pack(backbone, [run])
    together = [member_of(config, backbone, task) for config in configs]
    train_pack(backbone, together)
    for single, packed in zip(alone, together, strict=True):
        torch.testing.assert_close(packed.model.bake(), single.model.bake(), atol=1e-4, rtol=1e-3)
    plain = member_of(config_of(backbone, "adap-ins-pos", "cloze", [], steps=4), backbone, task)
    train_pack(backbone, [plain])
    assert not torch.allclose(plain.model.bake(), together[1].model.bake(), atol=1e-4)


@pytest.mark.parametrize("name", PERTURBATIONS.names())
def test_a_resumed_run_ends_with_the_same_bits(tiny, task, name, tmp_path, monkeypatch):
    backbone = tiny("bert")
    more = {"weight": 1.0, "warmup_steps": 4, "consistency": "kl"}
    regularizers = [ptp(name, num_copies=copies_of(name), **more)]
    config = config_of(
        backbone, "adap-ins-pos", "linear", regularizers, steps=6, checkpoint_every_steps=2
    )
    whole = execute(config, backbone, task, folder=tmp_path / "whole")

    class Stop:
        def update(self, step, total):
            if step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(config, backbone, task, folder=tmp_path / "cut", progress=Stop())
    resumed = execute(config, backbone, task, folder=tmp_path / "cut")
    expected = whole.model.state()
    assert all(torch.equal(v, expected[k]) for k, v in resumed.model.state().items())
    texts = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "cut")]
    assert texts[0] == texts[1]
    lines = [json.loads(line) for line in texts[0].splitlines()]
    weights = [line["regularizers"][0]["weight"] for line in lines if "split" not in line]
    assert weights == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("method", "name"),
    covering(list(product(("head-only", "fine-tuning", "lora"), PERTURBATIONS.names())), 1),
)
def test_yardsticks_can_be_regularized_too(tiny, task, method, name):
    records, state = trained(tiny("bert"), task, method, "linear", [ptp(name)], learning_rate=0.001)
    assert all(record["regularizers"][0]["penalty"] > 0 for record in records)
    _, plain = trained(tiny("bert"), task, method, "linear", [], learning_rate=0.001)
    assert any(not torch.equal(state[key], plain[key]) for key in plain)


def test_embeddings_of_a_part_replace_its_tokens(tiny, task):
    """A part that is given its own tokens' embeddings scores as one that is not."""
    backbone = tiny("bert")
    run = member_of(config_of(backbone, "adap-ins-pos", "linear", []), backbone, task)
    part = parts_of(run, backbone)[0][0]
    own = backbone.embed(part.batch.ids)
    assert torch.equal(*(score(backbone, [replace(part, embeddings=e)])[0] for e in (None, own)))
    other = score(backbone, [replace(part, embeddings=own * 1.5)])[0]
    assert not torch.allclose(other, score(backbone, [Part(*_fields(part))])[0])


def _fields(part):
    return part.prompt, part.readout, part.batch, part.draws
