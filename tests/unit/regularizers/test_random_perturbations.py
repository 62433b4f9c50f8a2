"""Noise and masking: how much, where, and the same for all inputs of an example."""

from __future__ import annotations

import pytest
import torch

from softprompts.errors import BackboneError
from softprompts.regularizers.perturbations.gaussian_noise import GaussianNoise
from softprompts.regularizers.perturbations.masking import Masking
from softprompts.regularizers.words import words_of


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_noise_has_the_deviation_that_it_is_given(tiny, inputs_of, moves, kind):
    backbone = tiny(kind)
    inputs = inputs_of(kind, texts=["the soup was cold and good bread " * 3] * 40)
    found = GaussianNoise(backbone, sigma=0.3).perturb(inputs, 0, None)
    numbers = torch.cat([one[0].flatten() for one in moves(inputs, found)])
    assert float(numbers.std()) == pytest.approx(0.3 * backbone.embedding_rms, rel=0.02)
    assert abs(float(numbers.mean())) < 0.02 * backbone.embedding_rms
    assert found.changed.all()


@pytest.mark.parametrize("name", ["noise", "masking"])
def test_all_inputs_of_an_example_get_the_same_change(tiny, inputs_of, moves, name):
    backbone = tiny("bert")
    kind = {"noise": GaussianNoise, "masking": Masking}[name]
    inputs = inputs_of("bert", template="{text} because {sep} {other} {choice}")
    found = moves(inputs, kind(backbone).perturb(inputs, 0, None))
    assert [len(one) for one in found] == [1, 2, 1]
    assert found[1][0].any()
    torch.testing.assert_close(*found[1], atol=1e-6, rtol=0)
    size = min(len(found[0][0]), len(found[1][0]))
    assert not torch.equal(found[0][0][:size], found[1][0][:size])


@pytest.mark.parametrize("name", ["noise", "masking"])
def test_copies_steps_and_regularizers_draw_apart(tiny, inputs_of, name):
    kind = {"noise": GaussianNoise, "masking": Masking}[name]
    perturbation = kind(tiny("bert"))
    texts = ["the second half of the book is better than the first half"] * 8
    given = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    found = [
        perturbation.perturb(inputs_of("bert", texts, step=step, number=number), copy, None)
        for copy, step, number in given
    ]
    again = perturbation.perturb(inputs_of("bert", texts), 0, None)
    assert torch.equal(found[0].embeddings, again.embeddings)
    for i in range(4):
        for j in range(i):
            assert not torch.equal(found[i].embeddings, found[j].embeddings)


@pytest.mark.parametrize(
    ("kind", "replacement"),
    [("bert", "mask"), ("t5", "sentinel"), ("bert", "unknown"), ("gpt2", "random")],
)
@pytest.mark.parametrize("fraction", [0.01, 0.4, 1.0])
def test_whole_words_are_masked_and_at_least_one(tiny, inputs_of, kind, replacement, fraction):
    backbone = tiny(kind)
    inputs = inputs_of(kind)
    masking = Masking(backbone, fraction=fraction, replacement=replacement)
    found = masking.perturb(inputs, 0, None)
    is_moved = (found.embeddings != inputs.embeddings).any(dim=-1)
    for example, words in enumerate(words_of(inputs.batch)):
        row = int((inputs.batch.examples == example).long().argmax())
        moved = is_moved[row][inputs.fields.mask[row]].tolist()
        masked = [word for word in words if any(moved[n] for n in word.numbers)]
        expected = max(1, round(fraction * len(words)))
        if replacement != "random":  # which may draw the word's own piece again
            assert len(masked) == expected
            assert all(moved[n] for word in masked for n in word.numbers)
        assert found.about["words_changed"][example] == expected
    rows = backbone.embed(torch.tensor(masking.tokens))
    for vector in found.embeddings[is_moved]:
        assert (rows == vector).all(dim=-1).any()


def test_each_masked_word_has_a_sentinel_of_its_own_in_order(tiny, inputs_of):
    backbone = tiny("t5")
    inputs = inputs_of("t5", ["good bread all day"], template="{text}")
    masking = Masking(backbone, fraction=1.0)
    assert masking.replacement == "sentinel"
    found = masking.perturb(inputs, 0, None)
    (words,) = words_of(inputs.batch)
    for order, word in enumerate(words):
        for number in word.numbers:
            assert torch.equal(
                found.embeddings[0, number],
                backbone.embed(torch.tensor([masking.tokens[order]]))[0],
            )


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_collecting_is_the_transpose_of_spreading(inputs_of, kind):
    fields = inputs_of(kind).fields
    generator = torch.Generator().manual_seed(1)
    own = torch.randn(fields.num_examples, fields.width, 5, generator=generator)
    given = torch.randn(*fields.mask.shape, 5, generator=generator)
    leaf = own.clone().requires_grad_()
    (fields.spread(leaf) * given).sum().backward()
    assert leaf.grad.abs().max() > 0
    torch.testing.assert_close(fields.collect(given), leaf.grad)
    assert fields.spread(own)[~fields.mask].abs().max() == 0


def test_kept_fields_are_left_alone(tiny, inputs_of, moves):
    inputs = inputs_of("bert", ["good bread"], template="{text} {sep} {other}")
    (words,) = words_of(inputs.batch)
    masking = Masking(tiny("bert"), fraction=1.0, kept_fields=["text"])
    ((change,),) = moves(inputs, masking.perturb(inputs, 0, None))
    for word in words:
        for number in word.numbers:
            assert bool(change[number].any()) == (word.field == "other")


def test_an_example_without_words_is_not_changed(tiny, inputs_of):
    inputs = inputs_of("bert", ["good bread"], template="review: {choice}")
    for perturbation in (Masking(tiny("bert")), GaussianNoise(tiny("bert"))):
        found = perturbation.perturb(inputs, 0, None)
        assert not found.changed.any()
        assert torch.equal(found.embeddings, inputs.embeddings)


@pytest.mark.parametrize(("kind", "wrong"), [("gpt2", "mask"), ("bert", "sentinel")])
def test_a_token_that_is_missing_is_said(tiny, kind, wrong):
    with pytest.raises(BackboneError, match=f"`replacement` must be one of .*, but is '{wrong}'"):
        Masking(tiny(kind), replacement=wrong)


def test_what_is_taken_by_default(tiny):
    found = {kind: Masking(tiny(kind)).replacement for kind in ("bert", "t5", "gpt2")}
    assert found == {"bert": "mask", "t5": "sentinel", "gpt2": "random"}
