"""The floor under similarity: what is left is what undoing the weakest swaps by hand leaves."""

from __future__ import annotations

import pytest
import torch

from contracts.test_gradient_ascent import seen_of, share_of
from contracts.test_regularizers import ptp, trained
from contracts.test_word_substitution import RECIPE, with_words
from softprompts.regularizers.perturbations.word_substitution import WordSubstitution
from softprompts.regularizers.words import words_of

PLACES = [("bert", "linear"), ("gpt2", "text"), ("t5", "linear"), ("t5", "text")]
WIDE = {"min_cosine": -1.0, "least_words": 5}


def vector_of(backbone, batch, row, swaps):
    """Return the mean state of one input with words swapped, read alone and without a prompt."""
    item = batch.items[row]
    ids = list(item.ids)
    fields = [place for place, role in enumerate(item.roles) if role == 3]
    for number, token in swaps.items():
        if number < len(fields):
            ids[fields[number]] = token
    ids = ids[: len(ids) - item.num_continuation_tokens]
    segments = torch.tensor([item.segments[: len(ids)]])
    with torch.no_grad():
        embeddings = backbone.embed(torch.tensor([ids]))
        states = backbone.read(embeddings, torch.ones_like(segments), segments).last_hidden_state
    return states[0].mean(dim=0)


def similarity_of(backbone, batch, example, swaps):
    rows = torch.where(batch.examples == example)[0].tolist()
    return min(
        float(
            torch.cosine_similarity(
                vector_of(backbone, batch, row, {}), vector_of(backbone, batch, row, swaps), dim=0
            )
        )
        for row in rows
    )


def found_of(tiny, task, kind, readout):
    """Return what a substitution without a floor swaps, with what each swap gains."""
    backbone = with_words(tiny, kind)
    seen = seen_of(backbone, share_of(backbone, task, readout, None, RECIPE))
    free = WordSubstitution(backbone, **WIDE)
    words = words_of(seen.inputs.batch)
    swaps, gains = [], []
    for own, gradient in zip(words, seen.gradient, strict=True):
        swap = free._swaps(own, gradient)
        old = {word.numbers[0]: word.ids[0] for word in own}
        gain = {}
        for number, new in swap.items():
            first, second = backbone.embed(torch.tensor([old[number], new]))
            gain[number] = float((second - first) @ gradient[number])
        swaps.append(swap)
        gains.append(gain)
    return backbone, seen, swaps, gains


@pytest.mark.parametrize("share", [0.3, 0.8])
@pytest.mark.parametrize(("kind", "readout"), PLACES)
def test_the_weakest_swaps_are_undone_until_the_floor_holds(tiny, task, kind, readout, share):
    check_undoing(tiny, task, kind, readout, share)


def test_an_example_is_as_similar_as_its_least_similar_input(tiny, choice_task):
    check_undoing(tiny, choice_task, "bert", "linear", 0.5)


def check_undoing(tiny, task, kind, readout, share):
    backbone, seen, swaps, gains = found_of(tiny, task, kind, readout)
    batch = seen.inputs.batch
    reached = [similarity_of(backbone, batch, e, swap) for e, swap in enumerate(swaps) if swap]
    floor = sorted(reached)[round(share * (len(reached) - 1))] + 1e-4
    found = WordSubstitution(backbone, **WIDE, min_similarity=floor).perturb(seen.inputs, 0, seen)
    undone = 0
    for example, (swap, gain) in enumerate(zip(swaps, gains, strict=True)):
        left = dict(swap)
        while left and similarity_of(backbone, batch, example, left) < floor:
            del left[min(left, key=gain.__getitem__)]
        undone += len(swap) - len(left)
        assert int(found.about["words_changed"][example]) == len(left)
        assert int(found.about["swaps_undone"][example]) == len(swap) - len(left)
        assert bool(found.changed[example]) == bool(left)
        expected = similarity_of(backbone, batch, example, left) if left else 1.0
        assert float(found.about["similarity"][example]) == pytest.approx(expected, abs=1e-5)
        row = int((batch.examples == example).long().argmax())
        change = (found.embeddings[row] != seen.inputs.embeddings[row]).any(dim=-1)
        assert set(torch.where(change[seen.inputs.fields.mask[row]])[0].tolist()) == set(left)
    assert undone > 0


def test_a_floor_that_nothing_reaches_leaves_the_input_as_it_is(tiny, task):
    backbone, seen, _, _ = found_of(tiny, task, "bert", "linear")
    found = WordSubstitution(backbone, **WIDE, min_similarity=1.0).perturb(seen.inputs, 0, seen)
    assert torch.equal(found.embeddings, seen.inputs.embeddings)
    assert not found.changed.any()


def reads_of(backbone, task, monkeypatch, **options):
    """Return how often the backbone is read in a run, its records and its tensors."""
    reads: list[int] = []
    with monkeypatch.context() as patch:
        read = backbone.run_body
        patch.setattr(backbone, "run_body", lambda *a: (reads.append(1), read(*a))[1])
        regularizer = ptp("word-substitution")
        regularizer["perturbation"] |= options
        records, state = trained(backbone, task, "prompt-tuning", "linear", [regularizer])
    return len(reads), records, state


def test_no_floor_costs_nothing_and_a_low_one_changes_nothing(tiny, task, monkeypatch):
    backbone = tiny("bert")
    reads_of(backbone, task, monkeypatch, min_similarity=-1.0)  # clean inputs are read once
    plain, records, state = reads_of(backbone, task, monkeypatch)
    assert "similarity" not in records[0]["regularizers"][0]
    low, others, same = reads_of(backbone, task, monkeypatch, min_similarity=-1.0)
    assert all(torch.equal(state[key], same[key]) for key in state)
    # one more read of each micro-batch with a swap, beside clean and perturbed
    assert plain < low <= plain * 3 // 2
    for record in others:
        (line,) = record["regularizers"]
        assert line["swaps_undone"] == 0
        assert -1 < line["similarity"] <= 1
