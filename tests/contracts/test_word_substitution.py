"""Substitution keeps its budget and its rules, and its neighbours are those of a full search."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contracts.test_gradient_ascent import seen_of, share_of
from contracts.test_regularizers import PLACES
from softprompts.backbones.loading import load_backbone
from softprompts.regularizers.neighbours import STOP_WORDS, Neighbours, neighbours_of
from softprompts.regularizers.perturbations.word_substitution import WordSubstitution
from softprompts.regularizers.words import Word, words_of

FOLDER = Path(__file__).resolve().parents[1] / "text_models"
RECIPE = {"kind": "word-substitution"}


@cache
def text_model(kind):
    return load_backbone(str(FOLDER / kind))


def with_words(tiny, kind):
    """Return a backbone with words in its vocabulary: byte-level tiny ones have mere pieces."""
    return tiny(kind) if kind == "bert" else text_model(kind)


def found_of(tiny, task, kind, readout, **options):
    """Return what a substitution was given, and what became of each example's words."""
    backbone = with_words(tiny, kind)
    seen = seen_of(backbone, share_of(backbone, task, readout, None, RECIPE))
    substitution = WordSubstitution(backbone, **options)
    found = substitution.perturb(seen.inputs, 0, seen)
    words = words_of(seen.inputs.batch)
    swaps = [
        substitution._swaps(own, gradient)
        for own, gradient in zip(words, seen.gradient, strict=True)
    ]
    return substitution, seen, found, words, swaps


@pytest.mark.parametrize(("kind", "readout"), PLACES)
@pytest.mark.parametrize(("fraction", "least"), [(0.1, 4), (0.3, 1), (0.1, 0), (1.0, 0)])
def test_the_budget_is_never_left(tiny, task, kind, readout, fraction, least):
    options = {"fraction": fraction, "least_words": least, "min_cosine": -1.0}
    _, seen, found, words, swaps = found_of(tiny, task, kind, readout, **options)
    for example, own in enumerate(words):
        row = int((seen.inputs.batch.examples == example).long().argmax())
        change = (found.embeddings[row] != seen.inputs.embeddings[row]).any(dim=-1)
        moved = int(change.sum())
        assert moved == len(swaps[example]) == int(found.about["words_changed"][example])
        assert moved <= max(least, int(fraction * len(own)))
        assert not change[~seen.inputs.fields.mask[row]].any()
        assert bool(found.changed[example]) == (moved > 0)
    if least == 4:
        assert any(swaps)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_the_rules_of_a_swap(tiny, task, kind):
    substitution, seen, _, words, swaps = found_of(
        tiny, task, kind, "linear", least_words=8, min_cosine=0.05
    )
    backbone, near = substitution.backbone, substitution.neighbours
    for own, swap, gradient in zip(words, swaps, seen.gradient, strict=True):
        by_number = {word.numbers[0]: word for word in own}
        old = [by_number[number].ids[0] for number in swap]
        assert all(len(by_number[number].ids) == 1 for number in swap)
        assert len({*old, *swap.values()}) == 2 * len(swap)
        for number, new in swap.items():
            ids = torch.tensor([by_number[number].ids[0], new])
            first, second = backbone.embed(ids)
            assert float(torch.cosine_similarity(first, second, dim=0)) >= 0.05
            assert float((second - first) @ gradient[number]) > 0
            assert not {near.words[int(i)].lower() for i in ids} & STOP_WORDS
    assert sum(map(len, swaps)) > 0


def test_swaps_are_where_the_gradient_is_largest(tiny, task):
    substitution, seen, _, words, swaps = found_of(
        tiny, task, "bert", "linear", fraction=0.0, least_words=1, min_cosine=-1.0
    )
    backbone = tiny("bert")
    for own, swap, gradient in zip(words, swaps, seen.gradient, strict=True):
        known = substitution.neighbours.words
        able = {w.numbers[0]: w.ids[0] for w in own if len(w.ids) == 1 and w.ids[0] in known}
        ranked = sorted(able, key=lambda number: -float(gradient[number].norm()))
        for number in ranked:
            (near,) = substitution.neighbours.find([able[number]], substitution.num_candidates)
            rows = backbone.embed(torch.tensor([able[number], *(one.id for one in near)]))
            gains = (rows[1:] - rows[0]) @ gradient[number]
            if float(gains.max()) > 0:
                assert swap == {number: near[int(gains.argmax())].id}
                break
        else:
            assert not swap
    assert any(swaps)


def test_kept_fields_stay(tiny, task):
    options = {"min_cosine": -1.0, "least_words": 20}
    _, _, _, words, swaps = found_of(tiny, task, "bert", "linear", kept_fields=["text"], **options)
    for own, swap in zip(words, swaps, strict=True):
        fields = {word.field for word in own if word.numbers[0] in swap}
        assert fields <= {"aspect"}
    assert any(swaps)


def test_swaps_mostly_raise_the_loss(tiny, task):
    _, seen, found, _, _ = found_of(tiny, task, "bert", "linear", min_cosine=-1.0)
    with torch.no_grad():
        rise = seen.loss(seen.forward(found.embeddings)) - seen.loss(seen.scores)
    assert float(rise[found.changed].mean()) > 0


def may_stand_for(old, new):
    """Return whether a word is another one, in the same case."""
    is_same_case = (old.islower(), old.isupper()) == (new.islower(), new.isupper())
    return is_same_case and old.lower() != new.lower()


@pytest.mark.parametrize("kind", ["bert", "roberta", "t5", "gpt2"])
def test_blocks_find_what_a_full_search_finds(tiny, kind):
    backbone = tiny(kind)
    small, large = Neighbours(backbone, block=7), Neighbours(backbone)
    ids = list(large.words)[::5]
    assert len(large.words) > 10
    table = torch.nn.functional.normalize(
        backbone.embed(torch.arange(backbone.vocabulary_size)), dim=1
    )
    for token, one, other in zip(ids, small.find(ids, 6), large.find(ids, 6), strict=True):
        assert [n.id for n in one] == [n.id for n in other]
        assert [n.cosine for n in one] == sorted((n.cosine for n in one), reverse=True)
        assert token not in [n.id for n in one]
        allowed = [i for i in large.words if may_stand_for(large.words[token], large.words[i])]
        expected = sorted(allowed, key=lambda i: -float(table[i] @ table[token]))[:6]
        assert [n.id for n in one] == expected


@pytest.mark.parametrize("kind", ["bert", "roberta", "t5", "gpt2"])
def test_words_are_whole_words(tiny, kind):
    words = neighbours_of(tiny(kind)).words
    assert neighbours_of(tiny(kind)).words is words
    for token, text in words.items():
        assert text.isalpha()
        assert text.lower() not in STOP_WORDS
        assert tiny(kind).tokenizer.decode([token]).strip().lower() == text.lower()


@given(
    ids=st.lists(st.integers(0, 400), max_size=30),
    fraction=st.floats(0, 1),
    least=st.integers(0, 6),
    min_cosine=st.floats(-1, 1),
    seed=st.integers(0, 1000),
)
def test_no_gradient_makes_a_swap_leave_the_rules(tiny, ids, fraction, least, min_cosine, seed):
    """Whatever the words and the gradient: the budget, the kept field, and no word twice."""
    backbone, draws = tiny("bert"), random.Random(seed)
    ids = [i % backbone.vocabulary_size for i in ids]
    words, number = [], 0
    for token in ids:
        size = draws.choice((1, 1, 1, 2))
        numbers = tuple(range(number, number + size))
        words.append(Word(numbers, (token,) * size, draws.choice(("text", "premise"))))
        number += size
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn(max(1, number), backbone.embedding_size, generator=generator)
    options = {"fraction": fraction, "least_words": least, "min_cosine": min_cosine}
    substitution = WordSubstitution(backbone, **options)
    swaps = substitution._swaps(words, gradient)
    assert len(swaps) <= max(least, int(fraction * len(words)))
    by_number = {word.numbers[0]: word for word in words}
    old = [by_number[number].ids[0] for number in swaps]
    assert len({*old, *swaps.values()}) == 2 * len(swaps)
    for number in swaps:
        assert len(by_number[number].ids) == 1
        assert by_number[number].field == "text"
    known = substitution.neighbours.words
    assert {*old, *swaps.values()} <= known.keys()
