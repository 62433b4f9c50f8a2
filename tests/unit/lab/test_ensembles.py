"""Ensembles: mean probabilities, one forward, folders that come back, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch

import softprompts as sp
from softprompts.errors import MemoryShortageError, SoftPromptsWarning
from softprompts.examples import Example, TaskFormat
from softprompts.fast.reader import Ways
from softprompts.lab import ensembles
from softprompts.tasks.base import Task

FORMAT = TaskFormat(
    name="custom",
    version=1,
    labels=("bad", "good", "unsure"),
    templates={
        "linear": "{text}",
        "cloze": "{text} It was {mask}.",
        "text": "{text} It was",
    },
    verbalizer={"bad": "bad", "good": "good", "unsure": "hard to say"},
    metrics=("accuracy",),
)
TEXTS = ("the soup was cold", "a walk along the river in the evening light", "we waited", "rain")
ROWS = tuple(
    Example({"text": f"{TEXTS[i % 4]} {'again ' * (i % 5)}".strip()}, (i % 3,), source=f"row {i}")
    for i in range(9)
)
TASK = Task(FORMAT, ROWS, (), ROWS)
CHOICES = ("it rained", "the road was closed for the day", "nobody came")
CHOICE_ROWS = tuple(
    Example({"text": text}, (i % 2,), choices=CHOICES[: 2 + i % 2], source=f"row {i}")
    for i, text in enumerate(TEXTS)
)
CHOICE_TASK = Task(
    replace(
        FORMAT,
        labels=(),
        templates={"linear": "{text} because {choice}", "text": "{text} because"},
        verbalizer={},
    ),
    CHOICE_ROWS,
    (),
    CHOICE_ROWS,
)


def trained(backbone, seed=0, method="prompt-tuning", task=TASK, readout="linear", **prompt):
    """Return a small run that has learned something of its own."""
    if method not in ("head-only", "lora", "fine-tuning"):
        prompt = {"length": 3, **prompt}
    training = sp.TrainingConfig(steps=2, batch_size=4, num_evaluations=1, selection="last")
    config = sp.PromptConfig(method=method, **prompt)
    return sp.train(backbone, task, prompt=config, readout=readout, training=training, seed=seed)


def by_hand(members, examples, task=None):
    """Return mean probabilities: each member's own scores, one softmax and one mean by Python."""
    found = []
    for lines in zip(*(one.predict_examples(examples, task) for one in members), strict=True):
        shares = []
        for line in lines:
            weights = [math.exp(value) for value in line["scores"].values()]
            shares.append([weight / sum(weights) for weight in weights])
        found.append([sum(column) / len(lines) for column in zip(*shares, strict=True)])
    return found


def probabilities(joint, examples, task=None):
    return [list(line["scores"].values()) for line in joint.predict_examples(examples, task)]


def assert_close(found, wanted, tolerance=1e-6):
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, abs=tolerance)


@pytest.fixture
def forwards(monkeypatch):
    """The number of sequences of each forward of a backbone."""
    seen = []
    real = Ways.read_joint

    def counted(self, joint, below=()):
        seen.append(len(joint.spliced.embeddings))
        return real(self, joint, below)

    monkeypatch.setattr(Ways, "read_joint", counted)
    return seen


@pytest.mark.parametrize(
    ("kind", "readout", "task"),
    [
        ("bert", "linear", TASK),
        ("bert", "cloze", TASK),
        ("gpt2", "text", TASK),
        ("t5", "text", TASK),
        ("bert", "linear", CHOICE_TASK),
        ("gpt2", "text", CHOICE_TASK),
    ],
)
def test_probabilities_are_the_mean_of_the_members(tiny, kind, readout, task):
    backbone = tiny(kind)
    about = {"task": task, "readout": readout}
    members = [
        trained(backbone, 0, **about),
        trained(backbone, 1, "residual", rows={"bottleneck": 4}, **about),
        trained(backbone, 0, "p-tuning-v2", length=5, **about),
    ]
    joint = sp.ensemble(members)
    found = probabilities(joint, task.validation)
    assert_close(found, by_hand(members, task.validation))
    assert [sum(line) for line in found] == pytest.approx([1.0] * len(found), abs=1e-12)
    evaluated = joint.evaluate(task.validation)
    best = [max(range(len(line)), key=line.__getitem__) for line in found]
    right = [column in row.answers for column, row in zip(best, task.validation, strict=True)]
    losses = [
        -math.log(line[row.answers[0]]) for line, row in zip(found, task.validation, strict=True)
    ]
    assert evaluated.answers == "".join(str(int(one)) for one in right)
    assert evaluated.metrics == {"accuracy": sum(right) / len(right)}
    assert evaluated.score == evaluated.metrics["accuracy"]
    assert evaluated.loss == pytest.approx(sum(losses) / len(losses), abs=1e-9)
    assert evaluated.scores == tuple(map(tuple, found))


def test_every_kind_of_prompt_may_be_a_member(tiny):
    backbone = tiny("bert")
    methods = ("prompt-tuning", "adap-ins-vec-pos", "adap-ins-len", "p-tuning", "head-only")
    members = [trained(backbone, 0, method) for method in methods]
    other = replace(FORMAT, templates={**FORMAT.templates, "linear": "so: {text} {sep} then"})
    members.append(trained(backbone, 1, task=replace(TASK, format=other)))
    members.append(trained(backbone, 0, readout="cloze"))
    members.append(trained(backbone, 0, "lora"))
    joint = sp.ensemble(members)
    assert_close(probabilities(joint, ROWS), by_hand(members, ROWS), 2e-6)
    assert joint.cost(ROWS).num_forwards == 3  # states, logits, and the copy that LoRA trained


def test_equal_members_are_one_member(tiny):
    backbone = tiny("bert")
    first, *others = [trained(backbone, seed) for seed in range(3)]
    for other in others:
        other.model.load(first.model.state())
    joint = sp.ensemble([first, *others])
    assert_close(probabilities(joint, ROWS), by_hand([first], ROWS))
    assert joint.predict([row.fields["text"] for row in ROWS]) == first.predict(
        [dict(row.fields) for row in ROWS]
    )
    own, alone = joint.evaluate(ROWS), first.evaluate(ROWS)
    assert own.metrics == alone.metrics
    assert own.loss == pytest.approx(alone.loss, abs=1e-6)


def test_the_order_of_members_does_not_matter(tiny):
    members = [trained(tiny("bert"), seed) for seed in range(3)]
    found = sp.ensemble(members)
    turned = sp.ensemble(members[::-1])
    assert [one.config.seed for one in turned.members] == [0, 1, 2]
    assert probabilities(found, ROWS) == probabilities(turned, ROWS)


def test_the_mean_is_of_probabilities_not_of_scores(tiny):
    members = [trained(tiny("bert"), seed) for seed in range(2)]
    with torch.no_grad():
        for member, bias in zip(members, ([8.0, 0.0, 0.0], [0.0, 2.0, 0.0]), strict=True):
            member.model.readout.weight.zero_()
            member.model.readout.bias.copy_(torch.tensor(bias))
    first = [math.exp(8), 1, 1]
    second = [1, math.exp(2), 1]
    wanted = [(a / sum(first) + b / sum(second)) / 2 for a, b in zip(first, second, strict=True)]
    assert_close(probabilities(sp.ensemble(members), ROWS[:1]), [wanted])


def test_forwards_do_not_grow_with_members(tiny, forwards):
    backbone = tiny("bert")
    members = [trained(backbone, seed, length=2 + seed) for seed in range(5)]
    many = ROWS * 15  # two batches
    counts, sizes = [], []
    for size in (2, 5):
        forwards.clear()
        sp.ensemble(members[:size]).evaluate(many)
        counts.append(len(forwards))
        sizes.append(sum(forwards))
    forwards.clear()
    members[0].evaluate(many)
    assert counts == [len(forwards)] * 2 == [3, 3]
    assert sizes == [2 * len(many), 5 * len(many)]


def test_the_cost_counts_tokens_and_rows(tiny):
    backbone = tiny("bert")
    members = [trained(backbone, 0, length=2), trained(backbone, 1, length=6)]
    ids = [len(backbone.tokenizer(row.fields["text"])["input_ids"]) for row in ROWS]
    cost = sp.ensemble(members).cost(ROWS)
    assert (cost.num_members, cost.num_forwards) == (2, 1)
    assert cost.tokens == pytest.approx(2 * sum(ids) / len(ids) + 8)
    assert cost.tokens_of_one == cost.tokens / 2


def test_memory_that_is_short_is_halved_then_told(tiny, monkeypatch):
    members = [trained(tiny("bert"), seed) for seed in range(2)]
    wanted, real, most = by_hand(members, ROWS), ensembles.score, 4

    def short(backbone, parts):
        if sum(part.batch.size for part in parts) > most:
            raise torch.OutOfMemoryError("out of memory")
        return real(backbone, parts)

    monkeypatch.setattr(ensembles, "score", short)
    monkeypatch.setattr(ensembles, "free_memory", lambda _: None)  # it goes over all that is loaded
    joint = sp.ensemble(members)
    with pytest.warns(SoftPromptsWarning, match=r"examples by 2 members; they are scored in h"):
        assert_close(probabilities(joint, ROWS), wanted)
    most = 1
    with pytest.warns(SoftPromptsWarning, match="they are scored in halves"):
        assert_close(probabilities(joint, ROWS), wanted)
    most = 0
    with (
        pytest.warns(SoftPromptsWarning, match="halves"),
        pytest.raises(MemoryShortageError, match="one example must fit in memory to be scored"),
    ):
        joint.predict_examples(ROWS)


def test_an_ensemble_comes_back_from_its_folder(tiny, tmp_path):
    backbone = tiny("bert")
    members = [trained(backbone, 2), trained(backbone, 0, "residual"), trained(backbone, 1)]
    joint = sp.ensemble(members)
    joint.save(tmp_path / "one")
    again = sp.load((tmp_path / "one").rename(tmp_path / "two"), backbone)
    assert isinstance(again, sp.Ensemble)
    assert probabilities(again, ROWS) == probabilities(joint, ROWS)
    assert (again.score, again.format) == (None, joint.format)
    assert repr(again) == (
        "Ensemble(3 members, residual + prompt-tuning, score=not measured, seeds=0, 1, 2)"
    )
    assert f"{100 * members[0].score:.1f}" in again._repr_html_()
    single = sp.load(tmp_path / "two" / "members" / "1", backbone)
    assert isinstance(single, sp.Result)
    single.summary = {**single.summary, "split": "<script>"}
    assert f"{100 * single.score:.1f} (accuracy on" in single._repr_html_()
    assert "&lt;script&gt;" in single._repr_html_()
    assert single.config.seed == 0
    with pytest.raises(sp.RunFolderError, match="must be a new or empty folder, but holds ens"):
        joint.save(tmp_path / "two")


def test_members_may_be_loaded_each_with_a_backbone_of_its_own(
    tiny, backbone_folder, tmp_path, forwards
):
    members = [trained(tiny("bert"), seed) for seed in range(2)]
    for number, member in enumerate(members):
        member.save(tmp_path / str(number))
    loaded = [sp.load(tmp_path / str(i), backbone_folder("bert")) for i in range(2)]
    assert loaded[0].backbone is not loaded[1].backbone
    forwards.clear()
    found = probabilities(sp.ensemble(loaded), ROWS)
    assert len(forwards) == 1
    assert_close(found, by_hand(members, ROWS))


def test_tasks_of_a_mixture_are_named(tiny):
    other = replace(TASK, format=replace(FORMAT, labels=("no", "yes"), verbalizer={}))
    pairs = tuple(replace(row, answers=(i % 2,)) for i, row in enumerate(ROWS))
    tasks = {"one": TASK, "two": replace(other, train=pairs, validation=pairs)}
    members = [trained(tiny("bert"), seed, task=tasks) for seed in range(2)]
    joint = sp.ensemble(members)
    assert_close(probabilities(joint, ROWS, "two"), by_hand(members, ROWS, "two"))
    assert joint.evaluate(pairs, "two").score >= 0
    with pytest.raises(sp.DataError, match="`task` must be one of one, two, but was not given"):
        joint.predict_examples(ROWS)
    with pytest.raises(sp.DataError, match=r"results\[1\]` must have the tasks of results\[0\]"):
        sp.ensemble([members[0], trained(tiny("bert"))])


def test_nothing_in_gives_nothing_out(tiny):
    joint = sp.ensemble([trained(tiny("bert"), seed) for seed in range(2)])
    assert joint.predict([]) == []
    with pytest.raises(sp.DataError, match="must be at least one, but are 0"):
        joint.evaluate([])


def test_what_cannot_answer_together_is_refused(tiny):
    one, two = (trained(tiny("bert"), seed) for seed in range(2))
    with pytest.raises(sp.DataError, match="must be a list of two or more results, but is 1"):
        sp.ensemble([one])
    with pytest.raises(sp.DataError, match="two or more results, but is Result"):
        sp.ensemble(one)
    with pytest.raises(sp.DataError, match=r"`results\[1\]` must be a Result, but is 'two'"):
        sp.ensemble([one, "two"])
    twice = rf"\[0\] and \[2\] are both run {one.about['identity']}"
    with pytest.raises(sp.DataError, match=twice):
        sp.ensemble([one, two, one])
    labels = replace(FORMAT, labels=("bad", "good", "maybe"), verbalizer={})
    stranger = trained(tiny("bert"), 2, task=replace(TASK, format=labels))
    with pytest.raises(sp.DataError, match=r"results\[1\]` must have the labels .*but has .*maybe"):
        sp.ensemble([one, stranger])
    metrics = replace(FORMAT, metrics=("accuracy", "macro-f1"))
    stranger = trained(tiny("bert"), 2, task=replace(TASK, format=metrics))
    with pytest.raises(sp.DataError, match=r"must have the metrics of .*but has .*macro-f1"):
        sp.ensemble([one, stranger])
    with pytest.raises(sp.BackboneError, match=r"results\[2\]` must have the weights of"):
        sp.ensemble([one, two, trained(tiny("roberta"), 2)])


def test_a_dtype_that_differs_is_refused(tiny, backbone_folder):
    half = sp.load_backbone(backbone_folder("bert"), dtype="bfloat16")
    with pytest.raises(sp.BackboneError, match=r"the (weights|dtype) of .*but has"):
        sp.ensemble([trained(tiny("bert")), trained(half, 1)])


def test_a_diverged_member_is_refused(tiny):
    one, two = (trained(tiny("bert"), seed) for seed in range(2))
    two.summary = {**two.summary, "score": None, "status": "diverged"}
    with pytest.raises(sp.DataError, match=r"`results\[1\]` must be a run that finished, but"):
        sp.ensemble([one, two])


@pytest.fixture
def folder(tiny, tmp_path):
    """The folder of an ensemble."""
    sp.ensemble([trained(tiny("bert"), seed) for seed in range(2)]).save(tmp_path / "kept")
    return tmp_path / "kept"


def test_a_broken_folder_is_refused(tiny, folder):
    backbone, path = tiny("bert"), folder / "ensemble.json"
    whole = path.read_text()
    path.write_text(whole[:-20])
    with pytest.raises(sp.StorageError, match=r"ensemble\.json must be JSON"):
        sp.load(folder, backbone)
    path.write_text(json.dumps({"members": []}))
    with pytest.raises(sp.StorageError, match="must have `summary`, but lacks it"):
        sp.load(folder, backbone)
    path.write_text(json.dumps({"members": json.loads(whole)["members"][:1], "summary": None}))
    with pytest.raises(sp.RunFolderError, match=r"ensemble\.json: `members` must"):
        sp.load(folder, backbone)
    path.write_text(whole)
    shutil.copytree(folder / "members" / "1", folder / "members" / "3")
    shutil.rmtree(folder / "members" / "1")
    (folder / "members" / "2").rename(folder / "members" / "1")
    (folder / "members" / "3").rename(folder / "members" / "2")
    assert len(sp.load(folder, backbone).members) == 2  # by seed, wherever they lie
    prompt = folder / "members" / "2" / "prompt.safetensors"
    kept = prompt.read_bytes()
    prompt.write_bytes(kept[:-4])
    with pytest.raises(sp.StorageError, match=r"2/prompt\.safetensors must be"):
        sp.load(folder, backbone)
    shutil.rmtree(folder / "members" / "2")
    with pytest.raises(sp.StorageError, match="2 could not be read: no such folder"):
        sp.load(folder, backbone)


def test_a_member_that_was_exchanged_is_noticed(tiny, folder):
    place = folder / "members" / "2"
    shutil.rmtree(place)
    trained(tiny("bert"), 7).save(place)
    with pytest.raises(sp.RunFolderError, match=r"must hold the members .*\(seed 7\)"):
        sp.load(folder, tiny("bert"))
