"""Scores against transformers' own forward, computed the slow way from the text."""

from __future__ import annotations

import pytest
import torch

from contracts.conftest import FORMAT
from softprompts.encoding.batch import collate
from softprompts.encoding.tokenization import Tokenization
from softprompts.errors import BackboneError
from softprompts.examples import Example
from softprompts.prompts.prompt import Prompt
from softprompts.prompts.registry import POSITIONS
from softprompts.prompts.rows.plain import PlainRows
from softprompts.readouts.base import Setting
from softprompts.readouts.registry import READOUTS
from softprompts.training.forward import Part, score

ROW = Example({"text": "the soup was cold", "aspect": "price"}, answers=(2,))
OTHER = Example({"text": "good bread and a long walk home", "aspect": "place"}, answers=(0,))


def scores_of(backbone, kind, rows=(ROW, OTHER), **options):
    """Score rows with no prompt in the way."""
    setting = Setting(backbone, FORMAT, Tokenization(backbone), torch.Generator().manual_seed(0))
    readout = READOUTS.load(kind)(setting, **options)
    empty = PlainRows(torch.zeros(0, backbone.embedding_size), torch.Generator())
    prompt = Prompt(empty, POSITIONS.load("fixed")(0))
    encoded = [readout.encode(row) for row in rows]
    batch = collate(encoded, backbone.tokenizer.pad_token_id)
    with torch.no_grad():
        return score(backbone, [Part(prompt, readout, batch)])[0], readout, batch, encoded


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "modernbert"])
@pytest.mark.parametrize("is_mean", [True, False])
def test_cloze_is_the_masked_model_on_the_text(tiny, kind, is_mean):
    backbone = tiny(kind)
    got, readout, _, _ = scores_of(backbone, "cloze", is_length_normalized=is_mean)
    mask = backbone.tokenizer.mask_token
    for row, example in enumerate((ROW, OTHER)):
        for column, ids in enumerate(readout.labels):
            text = f"{example.fields['text']} The {example.fields['aspect']} was "
            encoded = backbone.tokenizer(text + mask * len(ids) + ".", return_tensors="pt")
            with torch.no_grad():
                logits = backbone.model(**encoded).logits[0]
            places = (encoded["input_ids"][0] == backbone.tokenizer.mask_token_id).nonzero()[:, 0]
            each = logits[places].log_softmax(-1)[range(len(ids)), list(ids)]
            expected = each.mean() if is_mean else each.sum()
            torch.testing.assert_close(got[row, column], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3", "gemma3"])
@pytest.mark.parametrize("has_end", [True, False])
def test_text_is_the_decoders_likelihood_of_the_string(tiny, kind, has_end):
    backbone = tiny(kind)
    got, readout, _, encoded = scores_of(backbone, "text", has_end_token=has_end)
    for row, example in enumerate((ROW, OTHER)):
        text = f"review: {example.fields['text']} the {example.fields['aspect']} was"
        context = list(backbone.tokenizer(text)["input_ids"])
        for column, ids in enumerate(readout.labels):
            assert (ids[-1] == backbone.tokenizer.eos_token_id) == has_end
            with torch.no_grad():
                logits = backbone.model(torch.tensor([context + list(ids)])).logits[0]
            places = range(len(context) - 1, len(context) + len(ids) - 1)
            expected = logits[list(places)].log_softmax(-1)[range(len(ids)), list(ids)].sum()
            torch.testing.assert_close(got[row, column], expected, atol=2e-5, rtol=1e-4)
    if not has_end:  # labels of one token share an input
        singles = sum(len(ids) == 1 for ids in readout.labels)
        assert len(encoded[0].inputs) == len(readout.labels) - max(0, singles - 1)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_text_is_the_encoder_decoders_loss_on_the_string(tiny, kind):
    backbone = tiny(kind)
    got, readout, batch, encoded = scores_of(backbone, "text")
    assert all(len(example.inputs) == 1 for example in encoded)
    for row, example in enumerate((ROW, OTHER)):
        text = f"review: {example.fields['text']} the {example.fields['aspect']} was"
        source = backbone.tokenizer(text, return_tensors="pt")
        for column, ids in enumerate(readout.labels):
            assert ids[-1] == backbone.tokenizer.eos_token_id
            with torch.no_grad():
                output = backbone.model(
                    input_ids=source["input_ids"],
                    attention_mask=source["attention_mask"],
                    labels=torch.tensor([ids]),
                )
            expected = -output.loss * len(ids)
            torch.testing.assert_close(got[row, column], expected, atol=2e-5, rtol=1e-4)
    right = torch.stack([got[0, 2], got[1, 0]])
    torch.testing.assert_close(readout.loss(got, batch), -right)
    readout.objective = "ranking"
    expected = torch.nn.functional.cross_entropy(got, torch.tensor([2, 0]), reduction="none")
    torch.testing.assert_close(readout.loss(got, batch), expected)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_linear_pools_the_inputs_own_states(tiny, pool):
    backbone = tiny("bert")
    got, readout, batch, _ = scores_of(backbone, "linear", pool=pool)
    own = backbone.tokenizer(
        [ROW.fields["text"], OTHER.fields["text"]],
        [ROW.fields["aspect"], OTHER.fields["aspect"]],
        padding=True,
        return_token_type_ids=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        states = backbone.model.base_model(**own).last_hidden_state
    mask = own["attention_mask"][..., None]
    pooled = states[:, 0] if pool == "cls" else (states * mask).sum(1) / mask.sum(1)
    expected = torch.nn.functional.linear(pooled, readout.weight, readout.bias)
    torch.testing.assert_close(got, expected.detach(), atol=1e-5, rtol=1e-4)
    loss = torch.nn.functional.cross_entropy(got, torch.tensor([2, 0]), reduction="none")
    torch.testing.assert_close(readout.loss(got, batch), loss)


def test_loss_of_several_right_answers_is_minus_the_log_of_their_share(tiny):
    row = Example(ROW.fields, answers=(0, 2))
    got, readout, batch, _ = scores_of(tiny("bert"), "linear", rows=(row,))
    share = got.softmax(-1)[0, [0, 2]].sum()
    torch.testing.assert_close(readout.loss(got, batch)[0], -share.log())


@pytest.mark.parametrize(
    ("kind", "readout", "options", "message"),
    [
        ("gpt2", "cloze", {}, "'cloze' for .*: it has no trained masked-language head"),
        ("t5", "cloze", {}, "'cloze' for .*: it has no trained masked-language head"),
        ("bert", "text", {}, "'text' for .*: it is no language model"),
        ("gpt2", "linear", {"pool": "cls"}, "must not be 'cls'"),
        ("bert", "linear", {"pool": "last"}, "must not be 'last'"),
    ],
)
def test_readouts_that_make_no_sense_are_refused(tiny, kind, readout, options, message):
    with pytest.raises(BackboneError, match=message):
        scores_of(tiny(kind), readout, **options)
