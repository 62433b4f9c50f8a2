"""What the frozen backbone says of an input is read once and kept, the same wherever it is from."""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import softprompts as sp
from contracts.conftest import run_config
from softprompts import cache_folder
from softprompts.encoding.batch import collate
from softprompts.errors import PromptError, RecipeError, StorageError
from softprompts.fast import READER, cache_key, readings
from softprompts.fast.disk_cache import _read
from softprompts.fast.reader import Ways
from softprompts.prompts.prompt import FixedPosition, Prompt
from softprompts.prompts.registry import ACTIVE_LENGTHS, POOLS, POSITIONS
from softprompts.prompts.rows.plain import PlainRows
from softprompts.readouts.linear import LinearReadout
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.training import features, forward
from softprompts.training.building import build_model
from softprompts.training.evaluation import EncodedSplit, evaluate, score_examples
from softprompts.training.execution import execute
from softprompts.training.forward import Part
from softprompts.training.progress import Progress

KINDS = ["bert", "albert", "modernbert", "gpt2", "t5"]
RUNS = [("adap-ins-vec-pos", "states"), ("adap-ins-vec-pos", "embeddings"), ("head-only", "states")]


@pytest.fixture(autouse=True)
def fresh():
    """Let every test begin and end without memory."""
    readings.forget_readings()
    yield
    readings.forget_readings()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Turn the disk cache on, in a folder of the test's own."""
    monkeypatch.setenv(cache_folder.FOLDER, str(tmp_path / "cache"))
    return tmp_path / "cache" / "readings"


@pytest.fixture
def forwards(tiny, monkeypatch):
    """Return the number of inputs of each forward for hidden states."""
    calls = []
    read = Ways.read_joint

    def counted(self, joint, below=()):
        calls.append(len(joint.spliced.embeddings))
        return read(self, joint, below)

    monkeypatch.setattr(Ways, "read_joint", counted)
    return calls


def config_of(backbone, method, instance, **training):
    config = run_config(backbone, method, "linear", **training)
    prompt = config.prompt.model_copy(update={"instance": instance})
    return resolve(config.model_copy(update={"prompt": prompt}))


def batch_of(backbone, task, readout="linear", method="adap-ins-pos"):
    model = build_model(run_config(backbone, method, readout), backbone, task.format)
    encoded = [model.readout.encode(row) for row in task.train]
    return model, collate(encoded, backbone.tokenizer.pad_token_id)


def test_memory_equals_reading(tiny, task, choice_task, monkeypatch):
    for kind in ("bert", "gpt2", "t5"):
        backbone = tiny(kind)
        for rows in (task, choice_task):
            model, batch = batch_of(backbone, rows, method="head-only")
            part = Part(model.prompt, model.readout, batch)
            with torch.no_grad():
                kept = [forward.score(backbone, [part])[0] for _ in range(2)]
                with monkeypatch.context() as patch:
                    patch.setattr(forward, "is_bare", lambda *_: False)
                    read = forward.score(backbone, [part])[0]
            assert torch.equal(*kept)
            torch.testing.assert_close(kept[0], read, atol=1e-5, rtol=1e-4)


def test_five_seeds_read_each_input_once(tiny, task, forwards):
    backbone = tiny("bert")
    config = run_config(backbone, "head-only", "linear", steps=4)
    for seed in range(5):
        execute(config.model_copy(update={"seed": seed}), backbone, task)
    distinct = {tuple(row.fields.items()) for row in (*task.train, *task.validation)}
    assert sum(forwards) == len(forwards) == len(distinct)


def test_a_frozen_prompt_is_no_bare_run(tiny, task):
    backbone = tiny("bert")
    model = build_model(run_config(backbone, "prompt-tuning", "linear"), backbone, task.format)
    model.prompt.requires_grad_(False)
    assert not features.is_bare(backbone, model.prompt, model.readout)


@pytest.mark.parametrize("kind", [*KINDS, "electra", "gemma3"])
def test_embeddings_are_averaged_over_the_inputs_own_tokens(tiny, task, kind, forwards):
    backbone = tiny(kind)
    _, batch = batch_of(backbone, task)
    found = features.instance_vectors(backbone, batch, "embeddings")
    assert found.shape == (len(batch.items), backbone.embedding_size)
    assert len({len(item.ids) for item in batch.items}) > 1
    for line, item in zip(found, batch.items, strict=True):
        expected = torch.stack([backbone.embed(torch.tensor(i)) for i in item.ids]).mean(dim=0)
        torch.testing.assert_close(line, expected, atol=1e-6, rtol=1e-5)
    assert forwards == []


@pytest.mark.parametrize("kind", ["states", "embeddings"])
def test_no_label_enters_an_instance_vector(tiny, task, kind):
    backbone = tiny("gpt2")
    _, batch = batch_of(backbone, task, "text", "adap-ins-vec-pos")
    vectors = features.instance_vectors(backbone, batch, kind)
    first = vectors[batch.examples == 0]
    assert len(first) > 1
    assert all(torch.equal(first[0], other) for other in first[1:])
    assert not torch.equal(first[0], vectors[batch.examples == 1][0])


@pytest.mark.parametrize("kind", ["states", "embeddings"])
def test_vectors_do_not_depend_on_the_batch(tiny, task, kind):
    backbone = tiny("bert")
    _, batch = batch_of(backbone, task)
    whole = features.instance_vectors(backbone, batch, kind)
    readings.forget_readings()
    for place in range(len(batch.items)):
        alone = replace(batch, items=batch.items[place : place + 1])
        assert torch.equal(features.instance_vectors(backbone, alone, kind)[0], whole[place])


@pytest.mark.parametrize("kind", ["albert", "electra", "bert"])
def test_selectors_are_as_wide_as_what_they_look_at(tiny, task, kind):
    backbone = tiny(kind)
    for instance, width in (
        ("states", backbone.hidden_size),
        ("embeddings", backbone.embedding_size),
    ):
        config = config_of(backbone, "adap-ins-vec-pos", instance)
        model = build_model(config, backbone, task.format)
        assert model.prompt.instance == instance
        assert model.prompt.pool.weight.shape[1] == width
        assert model.prompt.position.weight.shape[1] == width
    assert kind == "bert" or backbone.hidden_size != backbone.embedding_size


def test_embeddings_choose_otherwise_than_states(tiny, task):
    backbone = tiny("bert")
    scores = []
    for instance in ("states", "embeddings"):
        model = build_model(config_of(backbone, "adap-ins-vec", instance), backbone, task.format)
        with torch.no_grad():
            model.prompt.pool.weight.mul_(50)
        encoded = [model.readout.encode(row) for row in task.train]
        scores.append(score_examples(backbone, model.prompt, model.readout, encoded)[0])
    assert scores[0] != scores[1]


@pytest.mark.parametrize("kind", ["bert", "albert"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_users_own_loop_sees_the_same_embeddings(tiny, task, kind, side):
    backbone = tiny(kind)
    prompt = sp.PromptConfig(method="adap-ins-vec", length=3, instance="embeddings")
    model = sp.SoftPromptModel(backbone, prompt).eval()
    _, batch = batch_of(backbone, task)
    seen = []
    model.prompt.pool.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    ids, mask = batch.ids, batch.attention_mask
    if side == "left":
        ids, mask = ids.flip(1), mask.flip(1)
    model(ids, mask)
    expected = features.instance_vectors(backbone, batch, "embeddings")
    torch.testing.assert_close(seen[0], expected, atol=1e-6, rtol=1e-5)


def test_predictions_use_the_kind_that_was_trained(tiny, task, tmp_path):
    backbone = tiny("albert")
    config = config_of(backbone, "adap-ins-vec-pos", "embeddings")
    outcome = execute(config, backbone, task, folder=tmp_path / "run")
    result = sp.load(tmp_path / "run", backbone)
    assert result.model.prompt.instance == "embeddings"
    inputs = [dict(row.fields) for row in task.validation]
    assert result.predict_scores(inputs) == sp.Result.of(outcome).predict_scores(inputs)


def test_a_prompt_that_looks_at_nothing_refuses_a_kind():
    rows = PlainRows(torch.randn(2, 4), torch.Generator())
    with pytest.raises(PromptError, match=r"`prompt.instance` must be left out.*is 'embeddings'"):
        Prompt(rows, FixedPosition(2), instance="embeddings")
    with pytest.raises(PromptError, match=r"must be one of states, embeddings, but is 'mean'"):
        Prompt(rows, FixedPosition(2), instance="mean")


@pytest.mark.parametrize("registry", [POOLS, POSITIONS, ACTIVE_LENGTHS])
def test_a_class_says_whether_it_looks(registry):
    assert {"single", "instance", "task"} & set(registry.names())
    for name in registry.names():
        assert registry.load(name).needs_instances == (name in ("instance", "attention", "smop")), (
            name
        )


@pytest.mark.parametrize(
    "prompt", [{}, {"method": "adap-pos"}, {"method": "head-only"}, {"method": "residual"}]
)
def test_a_recipe_that_looks_at_nothing_refuses_a_kind(prompt):
    recipe = {"backbone": {"name": "minilm"}, "task": {"name": "bundled/sentiment"}}
    parse_run({**recipe, "prompt": {**prompt, "instance": "states"}})
    with pytest.raises(RecipeError, match=r"`prompt.instance` must be left out.*is 'embeddings'"):
        parse_run({**recipe, "prompt": {**prompt, "instance": "embeddings"}})
    for method in ("adap-ins-vec", "adap-ins-pos", "residual-dynamic"):
        parse_run({**recipe, "prompt": {"method": method, "instance": "embeddings"}})


def outcome_of(backbone, task, folder, method, instance):
    """Run, and return what must be the same bytes."""
    training = {"selection": "held-out", "held_out_fraction": 0.4, "num_evaluations": 2}
    config = config_of(backbone, method, instance, steps=6, **training)
    execute(config, backbone, task, folder=folder)
    result = json.loads((folder / "result.json").read_text())
    kept = {key: result[key] for key in ("metrics", "last_metrics", "choices", "selected_step")}
    return [(folder / name).read_bytes() for name in ("prompt.safetensors", "metrics.jsonl")], kept


@pytest.mark.parametrize(("method", "instance"), RUNS)
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_cold_warm_and_no_cache_give_the_same_bytes(
    tiny, task, tmp_path, monkeypatch, forwards, kind, method, instance
):
    backbone, found, counts = tiny(kind), [], []
    for name in ("none", "none", "cold", "warm"):  # once before: what a backbone is probed for
        monkeypatch.setenv(cache_folder.FOLDER, "off" if name == "none" else str(tmp_path / "c"))
        readings.forget_readings()
        forwards.clear()
        place = tmp_path / f"{len(found)}-{name}"
        found.append(outcome_of(backbone, task, place, method, instance))
        counts.append(len(forwards))
    found, counts = found[1:], counts[1:]
    assert found[0] == found[1] == found[2]
    distinct = {tuple(row.fields.items()) for row in (*task.train, *task.validation)}
    saved = 0 if instance == "embeddings" else len(distinct)
    assert counts[0] == counts[1] == counts[2] + saved
    shards = list((tmp_path / "c").rglob("*.safetensors"))
    assert bool(shards) == bool(saved)


def test_what_was_read_is_on_disk_after_an_evaluation(tiny, task, cache, forwards):
    backbone = tiny("bert")
    model, batch = batch_of(backbone, task)
    first = features.instance_vectors(backbone, batch)
    assert not cache.exists()
    READER.save(backbone)
    (shard,) = cache.rglob("*.safetensors")
    READER.save(backbone)
    assert list(cache.rglob("*.safetensors")) == [shard]
    num_read = len(forwards)
    readings.forget_readings()
    assert torch.equal(features.instance_vectors(backbone, batch), first)
    assert len(forwards) == num_read > 0
    assert model.prompt.needs_instances


def test_an_evaluation_saves(tiny, task, cache):
    backbone = tiny("bert")
    model, _ = batch_of(backbone, task)
    split = EncodedSplit(task.train, tuple(map(model.readout.encode, task.train)))
    evaluate(backbone, model.prompt, model.readout, split, task.format)
    assert len(list(cache.rglob("*.safetensors"))) == 1


class Stop(Progress):
    """Ends a run after its second update, like a kill."""

    def update(self, step, total_steps):
        if step == 2:
            raise KeyboardInterrupt


def test_a_checkpoint_saves(tiny, task, cache, tmp_path):
    config = config_of(tiny("bert"), "adap-ins-vec", "states", checkpoint_every_steps=2)
    with pytest.raises(KeyboardInterrupt):
        execute(config, tiny("bert"), task, folder=tmp_path / "run", progress=Stop())
    assert len(list(cache.rglob("*.safetensors"))) == 1


def test_many_readings_are_saved_without_being_asked(tiny, task, cache, monkeypatch):
    backbone = tiny("bert")
    _, batch = batch_of(backbone, task)
    monkeypatch.setattr(readings, "_MOST_WAITING", 3)
    features.instance_vectors(backbone, batch)
    distinct = len({item.ids for item in batch.items})
    assert len(list(cache.rglob("*.safetensors"))) == distinct // 3 > 1
    monkeypatch.setattr(readings, "_MOST_WAITING", 10**6)
    monkeypatch.setattr(readings, "_MOST_SECONDS", 0.0)
    features.instance_vectors(tiny("gpt2"), batch_of(tiny("gpt2"), task)[1])
    assert len(list(cache.rglob("*.safetensors"))) == distinct // 3 + distinct


AT_EXIT = """
import sys
import softprompts as sp
from softprompts.encoding.batch import collate
from softprompts.encoding.inputs import EncodedExample, EncodedInput
from softprompts.training.features import instance_vectors

item = EncodedInput((5, 6, 7), (0, 0, 0), (0, 0, 0), 0, 3)
batch = collate([EncodedExample((item,), 1, (), False)], 0)
backbone = sp.load_backbone(sys.argv[1])
print(instance_vectors(backbone, batch).tolist())
"""


@pytest.mark.slow
def test_the_end_of_a_process_saves(backbone_folder, cache):
    command = [sys.executable, "-c", AT_EXIT, str(backbone_folder("bert"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    (path,) = cache.rglob("*.safetensors")
    rows = _read(path)
    assert list(rows) == [readings.reading_key(("instance/states", (5, 6, 7), (0, 0, 0)))]
    assert rows.popitem()[1].tolist() == json.loads(done.stdout)[0]


def test_the_end_of_a_backbone_saves(backbone_folder, task, cache, tiny):
    batch = batch_of(tiny("bert"), task)[1]
    backbone = sp.load_backbone(str(backbone_folder("bert")))
    features.instance_vectors(backbone, batch)
    assert not cache.exists()
    del backbone
    gc.collect()
    assert len(list(cache.rglob("*.safetensors"))) == 1


def test_kinds_of_readings_are_apart(tiny, task, cache, forwards):
    backbone = tiny("bert")
    model, batch = batch_of(backbone, task)
    vectors = features.instance_vectors(backbone, batch)
    bare = features.bare_summary(backbone, model.readout, batch)
    model.readout.pool = model.readout.summary_name = "cls"
    first = features.bare_summary(backbone, model.readout, batch)
    distinct = len({item.ids for item in batch.items})
    assert len(forwards) == 3 * distinct
    assert not torch.equal(bare, first)
    torch.testing.assert_close(vectors, bare, atol=1e-5, rtol=1e-4)


def test_a_readout_that_no_registry_knows_is_kept_in_memory_only(tiny, task, cache, forwards):
    class Strange(LinearReadout.__mro__[1]):  # the base of readouts
        needs_head, summary_name = False, "strange"

        def __init__(self):
            torch.nn.Module.__init__(self)

        encode = scores = None
        places = LinearReadout.places
        pool = "cls"

        def summary(self, values, batch):
            return values[:, 0]

    backbone = tiny("bert")
    _, batch = batch_of(backbone, task)
    first = features.bare_summary(backbone, Strange(), batch)
    num_read = len(forwards)
    assert torch.equal(features.bare_summary(backbone, Strange(), batch), first)
    assert len(forwards) == num_read > 0
    READER.save(backbone)
    assert not cache.exists()


def test_other_weights_have_readings_of_their_own(backbone_folder, task, cache):
    backbone = sp.load_backbone(str(backbone_folder("bert")))
    _, batch = batch_of(backbone, task)
    before = features.instance_vectors(backbone, batch)
    READER.save(backbone)
    other = sp.load_backbone(str(backbone_folder("bert")))
    assert other.fingerprint == backbone.fingerprint
    with torch.no_grad():
        next(iter(other.model.parameters())).mul_(1.5)
    after = features.instance_vectors(other, batch)
    assert not torch.equal(before, after)
    readings.forget_readings()
    assert torch.equal(features.instance_vectors(other, batch), after)


@pytest.mark.parametrize("kind", ["states", "embeddings"])
def test_nothing_is_kept_of_a_backbone_that_is_trained(backbone_folder, task, cache, kind):
    backbone = sp.load_backbone(str(backbone_folder("bert")))
    model, batch = batch_of(backbone, task)
    frozen_vectors = features.instance_vectors(backbone, batch, kind)
    table = backbone.model.get_input_embeddings().weight
    backbone.train_only([table])
    assert torch.equal(features.instance_vectors(backbone, batch, kind), frozen_vectors)
    readings.forget_readings()
    with torch.no_grad():
        table.mul_(1.5)
    trained = features.instance_vectors(backbone, batch, kind)
    assert not torch.equal(trained, frozen_vectors)
    assert not trained.requires_grad
    with torch.no_grad():
        table.mul_(1.5)
    assert not torch.equal(features.instance_vectors(backbone, batch, kind), trained)
    READER.save(backbone)
    assert not cache.exists()
    assert model.prompt.needs_instances


def surroundings_of(backbone):
    about = cache_key.describe_reading(backbone, cache_key.read_switches())
    return json.dumps(about, sort_keys=True)


def test_the_key_covers_what_the_bits_depend_on(tiny, backbone_folder, monkeypatch):
    backbone = tiny("bert")
    folder = str(backbone_folder("bert"))
    keys = [surroundings_of(backbone), surroundings_of(tiny("gpt2"))]
    keys.append(surroundings_of(sp.load_backbone(folder, dtype="bfloat16", attention="sdpa")))
    keys.append(surroundings_of(sp.load_backbone(folder, attention="eager")))
    for name, value in (("CACHE_FORMAT", 99), ("version", lambda _: "0")):
        with monkeypatch.context() as patch:
            patch.setattr(cache_key, name, value)
            keys.append(surroundings_of(backbone))
    for name, value in (("MKL_CBWR", "COMPATIBLE"), ("ONEDNN_MAX_CPU_ISA", "AVX2")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            keys.append(surroundings_of(backbone))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.9")
        keys.append(surroundings_of(backbone))
    with monkeypatch.context() as patch:
        patch.setattr(backbone.model.config, "layer_norm_eps", 0.5)
        keys.append(surroundings_of(backbone))
    with monkeypatch.context() as patch:  # setting it would leave a trace in torch
        patch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
        keys.append(surroundings_of(backbone))
    assert len(set(keys)) == len(keys)
    assert surroundings_of(sp.load_backbone(folder)) == surroundings_of(backbone) == keys[0]


def test_another_number_of_threads_reads_anew(tiny, task, forwards):
    backbone = tiny("bert")
    _, batch = batch_of(backbone, task)
    features.instance_vectors(backbone, batch)
    num_read, threads = len(forwards), torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        features.instance_vectors(backbone, batch)
        assert len(forwards) == 2 * num_read > 0
    finally:
        torch.set_num_threads(threads)
    features.instance_vectors(backbone, batch)
    assert len(forwards) == 2 * num_read


def test_a_callers_modes_do_not_reach_a_reading(tiny, task):
    backbone = tiny("bert")
    model, batch = batch_of(backbone, task, method="adap-ins-vec")
    plain = features.instance_vectors(backbone, batch)
    readings.forget_readings()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(features.instance_vectors(backbone, batch), plain)
    score = forward.score(backbone, [Part(model.prompt, model.readout, batch)])[0]
    score.sum().backward()  # what was read in inference mode serves training too
    assert model.prompt.pool.weight.grad is not None


def test_a_wrong_bound_is_said(tiny, task, cache, monkeypatch):
    monkeypatch.setenv(cache_folder.BYTES, "2 GiB")
    backbone = tiny("bert")
    with pytest.raises(StorageError, match=r"`SOFTPROMPTS_CACHE_BYTES` must be .* is '2 GiB'"):
        features.instance_vectors(backbone, batch_of(backbone, task)[1])


def test_an_unusable_folder_never_fails_a_run(tiny, task, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache_folder.FOLDER, str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        config = config_of(tiny("bert"), "adap-ins-vec", "states")
        execute(config, tiny("bert"), task)
        readings.forget_readings()
        execute(config, tiny("bert"), task)
    (line,) = [record.getMessage() for record in caplog.records]
    assert str(tmp_path / "file") in line
    assert "are not kept" in line
    assert "\n" not in line
