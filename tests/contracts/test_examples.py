"""Examples whose words were replaced are written for reading: few, true, and once."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch

from contracts.test_gradient_ascent import share_of
from contracts.test_mixture import config_of as mixture_config
from contracts.test_mixture import member_of as mixture_member
from contracts.test_regularizers import Lines, config_of, member_of, ptp
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.resolving import resolve
from softprompts.regularizers.base import Illustration, Penalty
from softprompts.regularizers.row_penalties import RowNorm
from softprompts.regularizers.words import words_of
from softprompts.training import objective
from softprompts.training.execution import execute
from softprompts.training.forward import score
from softprompts.training.pack import train_pack
from softprompts.training.penalties import PenaltyLog

BLOCK = re.compile(
    r"step (\d+), regularizers\.(\d(?:, task \w+)?): label (.+), loss (\S+) -> (\S+), "
    r"prediction (.+) -> (.+)\n"
    r"  before: (.+)\n  after:  (.+)\n\n"
)
IN_TEXT = ("masking", "word-substitution")


def blocks(text):
    """Return the blocks of a file, which must be nothing but blocks."""
    assert not BLOCK.sub("", text)
    return BLOCK.findall(text)


@pytest.mark.parametrize("name", IN_TEXT)
def test_an_example_says_what_was_replaced_and_what_that_did(tiny, task, name):
    """Loss, prediction and words are those of the two readings, found here by hand."""
    backbone = tiny("bert")
    share = share_of(backbone, task, "linear", None, ptp(name)["perturbation"])
    kept = {}

    def note(number, penalty):
        kept[number] = penalty

    share = objective.Share(share.part, share.weight, share.regularizers, note)
    perturbed = []
    perturb = share.regularizers[0][1].perturbation.perturb

    def watched(*given):
        perturbed.append(perturb(*given))
        return perturbed[-1]

    share.regularizers[0][1].perturbation.perturb = watched
    objective.accumulate(backbone, [share])
    (copy,), part = perturbed, share.part
    shown = kept[0].illustrate(100)
    changed = torch.where(copy.changed)[0].tolist()
    assert len(shown) == len(changed) > 2
    assert len(kept[0].illustrate(2)) == 2
    part = objective.replace(part, embeddings=copy.embeddings)
    before = score(backbone, [share.part])[0].detach()
    after = score(backbone, [part])[0].detach()
    for example, one in zip(changed, shown, strict=True):
        assert one.answers == (int(part.batch.first_answers[example]),)
        losses = [float(part.readout.loss(s, part.batch)[example]) for s in (before, after)]
        assert one.losses == pytest.approx(losses, rel=1e-4)
        assert one.predictions == tuple(int(s[example].argmax()) for s in (before, after))
        words = words_of(part.batch)[example]
        texts = [backbone.tokenizer.decode(list(word.ids)) for word in words]
        assert one.before.replace("[", "").replace("]", "") == " ".join(texts)
        row = int((part.batch.examples == example).long().argmax())
        is_moved = (copy.embeddings[row] != backbone.embed(part.batch.ids[row])).any(dim=-1)
        moved = is_moved[part.batch.roles[row] == 3].tolist()
        bracketed = [word[0] == "[" for word in one.before.split()]
        assert bracketed == [any(moved[n] for n in word.numbers) for word in words]
        if name == "masking":
            assert "[MASK]" in one.after


@pytest.mark.parametrize("name", IN_TEXT)
@pytest.mark.parametrize("size", [2, 9])
def test_few_are_shown_and_only_now_and_then(tiny, task, name, size):
    journal = Lines()
    steps = {
        "steps": 12,
        "num_evaluations": 3,
        "batch_size": size,
        "accumulation_steps": 18 // size,
    }
    regularizers = [ptp("gaussian-noise"), ptp(name), ptp(name, weight=0.0)]
    config = config_of(tiny("bert"), "prompt-tuning", "linear", regularizers, **steps)
    train_pack(tiny("bert"), [member_of(config, tiny("bert"), task, journal)])
    found = blocks("".join(journal.texts))
    assert {number for _, number, *_ in found} == {"1"}
    assert [int(step) for step, *_ in found] == [step for step in (1, 4, 8, 12) for _ in range(3)]
    for _, _, label, _, _, first, second, before, after in found:
        assert {label, first, second} <= {"bad", "good", "unsure"}
        assert before != after


def test_choices_are_named_by_number(tiny, choice_task):
    journal = Lines()
    config = config_of(tiny("bert"), "prompt-tuning", "cloze", [ptp("masking")])
    train_pack(tiny("bert"), [member_of(config, tiny("bert"), choice_task, journal)])
    assert {label for _, _, label, *_ in blocks("".join(journal.texts))} == {"choice 1", "choice 2"}


@pytest.mark.parametrize("name", IN_TEXT)
def test_a_resumed_run_has_the_same_examples(tiny, task, name, tmp_path):
    """Examples that were written after the last checkpoint are taken back with the metrics."""
    backbone = tiny("bert")
    training = {"steps": 8, "num_evaluations": 8, "checkpoint_every_steps": 3}
    config = config_of(backbone, "adap-ins-pos", "linear", [ptp(name)], **training)
    execute(config, backbone, task, folder=tmp_path / "whole")

    class Stop:
        def update(self, step, total):
            if step == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(config, backbone, task, folder=tmp_path / "cut", progress=Stop())
    path = tmp_path / "cut" / "examples.txt"
    assert {int(step) for step, *_ in blocks(path.read_text())} == {1, 2, 3}
    with open(path, "a") as file:  # as if the process had died between file and checkpoint
        file.write("step 4, half a li")
    execute(config, backbone, task, folder=tmp_path / "cut")
    texts = [(tmp_path / run / "examples.txt").read_bytes() for run in ("whole", "cut")]
    assert texts[0] == texts[1]
    assert {int(step) for step, *_ in blocks(texts[0].decode())} == set(range(1, 9))


def test_a_run_in_embedding_space_has_no_such_file(tiny, task, tmp_path):
    config = config_of(tiny("bert"), "prompt-tuning", "linear", [ptp("gaussian-noise")])
    execute(config, tiny("bert"), task, folder=tmp_path / "run")
    assert not (tmp_path / "run" / "examples.txt").exists()


def test_a_long_example_is_cut():
    log = PenaltyLog([RowNorm(SimpleNamespace(embedding_rms=1.0))])
    log.begin(0, 1)
    shown = Illustration("a " * 2000, "b", (0, 1), (0.5, 1.0), (1, 0))
    log.add("", ("no", "yes"), 0, Penalty(torch.zeros(2), illustrate=lambda count: [shown] * count))
    ((step, _, label, first, _, old, new, before, after),) = blocks(log.examples(7))
    assert (step, label, first, old, new, after) == ("7", "no or yes", "0.5000", "yes", "no", "b")
    assert before == ("a " * 1000) + "…"


def test_columns_are_named_as_their_own_task_does(tiny, tasks):
    """Two tasks in one run: each example has the labels of the task that it is of."""
    plain = mixture_config(tiny("bert"), tasks, {"length": 3}, steps=2, batch_size=14)
    data = {**plain.model_dump(mode="json"), "regularizers": [ptp("masking")]}
    journal = Lines()
    run = mixture_member(resolve(parse_run(data)), tiny("bert"), tasks, journal)
    train_pack(run.backbone, [run])
    found = blocks("".join(journal.texts))
    labels = {"0, task one": {"bad", "good", "unsure"}, "0, task two": {"no", "yes"}}
    for _, place, label, _, _, first, second, *_ in found:
        assert {label, first, second} <= labels[place]
    assert [place for step, place, *_ in found if step == "1"] == [
        p for p in labels for _ in range(3)
    ]
