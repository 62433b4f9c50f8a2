"""Writing text with a prompt in place."""

from __future__ import annotations

from itertools import product

import pytest
import torch

import softprompts as sp
from contracts.conftest import covering, run_config
from softprompts.errors import BackboneError, DataError
from softprompts.recipes import presets
from softprompts.training.execution import execute

WRITERS = ("gpt2", "llama", "qwen3", "gemma3", "t5", "bart")
METHODS = {
    "prompt-tuning": {},
    "split": {"position": {"split": 2}},
    "adap-ins-pos": {},
    "adap-len": {"active_length": {"start": 2}},
    "behind": {"position": {"split": 0}},
    "closed behind": {"position": {"split": 0}, "active_length": {"kind": "fixed", "count": 2}},
    "closed anywhere": {"method": "adap-pos", "active_length": {"kind": "task", "start": 1}},
    "after bos": {"position": {"kind": "fixed", "after_bos": True}},
    "dept": {},
    "adap-ins-len": {},
    "adap-ins-vec-pos": {},
    "residual-dynamic": {},
    "p-tuning-v2": {},
    "prefix-tuning": {},
    "pool-len": {
        "pool": {"kind": "attention", "size": 2},
        "active_length": {"kind": "instance", "start": 2},
        "depth": "every-layer",
    },
}


def model(backbone, method, **options):
    known = method in presets.METHODS
    config = {"method": method if known else "prompt-tuning", "length": 4, **METHODS[method]}
    prompt = sp.PromptConfig.model_validate(config)
    soft = sp.SoftPromptModel(backbone, prompt, with_decoder=True, **options)
    if method == "dept":
        with torch.no_grad():
            soft.prompt.pool.rows.right.normal_(generator=torch.Generator().manual_seed(0))
    return soft


def batch(backbone, side):
    lines = [
        list(backbone.tokenizer(text)["input_ids"])
        for text in ("the soup was cold", "rain", "nobody answered the phone for a week")
    ]
    width, pad = max(map(len, lines)), backbone.tokenizer.pad_token_id
    ids = [[pad] * (width - len(x)) + x if side == "left" else x for x in lines]
    ids = [x + [pad] * (width - len(x)) for x in ids]
    mask = [[0] * (width - len(x)) + [1] * len(x) for x in lines]
    mask = mask if side == "left" else [row[::-1] for row in mask]
    return torch.tensor(ids), torch.tensor(mask)


def write(soft, side, **options):
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, **options}
    return soft.generate(*batch(soft.backbone, side), **options)


@pytest.mark.parametrize(("kind", "method"), covering(list(product(WRITERS, METHODS)), 1))
def test_the_text_is_the_same_with_and_without_a_cache(tiny, kind, method):
    soft = model(tiny(kind), method)
    found = write(soft, "right", use_cache=True)
    assert torch.equal(found, write(soft, "right", use_cache=False))
    assert torch.equal(found, write(soft, "left", use_cache=True))
    texts = {tuple(row) for row in found.tolist()}
    assert len(texts) > 1 or method.startswith("closed")  # it depends on the input
    bare = model(tiny(kind), "prompt-tuning", seed=5)
    assert not torch.equal(found, write(bare, "right"))  # and on the prompt


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma3"])
@pytest.mark.parametrize(
    "method",
    [
        *("prompt-tuning", "adap-len", "p-tuning-v2", "pool-len", "split"),
        *("behind", "closed behind", "closed anywhere", "dept", "after bos"),
        *("adap-ins-pos", "adap-ins-len", "adap-ins-vec-pos", "residual-dynamic"),
    ],
)
def test_each_token_written_is_the_likeliest(tiny, kind, method):
    """Against logits of the whole text, read at once by another path."""
    backbone = tiny(kind)
    soft = model(backbone, method, with_logits=True).eval()
    ids, mask = batch(backbone, "right")
    ids, mask = ids[:1, : int(mask[0].sum())], mask[:1, : int(mask[0].sum())]
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    written = soft.generate(ids, mask, **options)
    whole = torch.cat([ids, written], dim=1)
    labels = torch.cat([torch.full_like(ids, -100), written], dim=1)
    with torch.no_grad():
        logits = soft(whole, labels=labels).logits[0, ids.shape[1] - 1 : -1]
        first = soft(ids).logits[0, -1]
    assert torch.equal(logits.argmax(dim=1), written[0])
    torch.testing.assert_close(first, logits[0])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["behind", "closed behind", "dept"])
def test_what_is_to_be_said_is_no_input(tiny, kind, method):
    """The loss of a text behind an input, in a batch, on either side of padding, and alone."""
    soft = model(tiny(kind), method, with_logits=True).eval()
    losses = []
    for side in ("left", "right"):
        ids, mask = batch(soft.backbone, side)
        count = (mask.cumsum(dim=1) * mask).long()
        labels = ids.masked_fill(count < 3, -100)
        output = soft(ids, mask, labels=labels)
        losses.append(output.loss)
    torch.testing.assert_close(*losses)
    ids = ids[:1, : int(mask[0].sum())]
    labels = ids.clone()
    labels[:, :2] = -100
    alone = soft(ids, labels=labels)
    torch.testing.assert_close(alone.logits[0], output.logits[0, : ids.shape[1]])
    alone.loss.backward()
    assert all(one.grad.any() for one in soft.parameters() if one.requires_grad)


@pytest.mark.parametrize("method", ["behind", "dept", "adap-ins-pos"])
def test_where_the_first_token_has_a_label_all_is_input(tiny, method):
    soft = model(tiny("gpt2"), method, with_logits=True).eval()
    losses, without = [], []
    for side in ("left", "right"):
        ids, mask = batch(soft.backbone, side)
        losses.append(soft(ids, mask, labels=ids).loss)  # labels at padding do not count
        without.append(soft(ids, mask).logits[mask.bool()])
        labelled = soft(ids, mask, labels=ids).logits[mask.bool()]
        torch.testing.assert_close(labelled, without[-1])
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*without)


def test_what_follows_the_first_token_is_said_behind_rows_after_it(tiny):
    soft = model(tiny("llama"), "after bos", with_logits=True).eval()
    bos = torch.tensor([[soft.backbone.frame.prefix[0]]])
    assert soft(bos).logits[0, -1].argmax() == soft.generate(bos, max_new_tokens=1)[0, 0]
    ids = torch.cat([bos, torch.tensor([[20, 21]])], dim=1)
    soft(ids, labels=torch.tensor([[-100, 20, -100]])).loss.backward()
    assert all(one.grad.any() for one in soft.parameters())


def test_logits_of_an_encoder_are_at_its_tokens_wherever_rows_stand(tiny):
    backbone = tiny("bert")
    soft = model(backbone, "behind", with_logits=True).eval()
    (ids, mask), rows = batch(backbone, "right"), soft.prompt.bake()
    row, count = ids[0, : int(mask[0].sum())], int(mask[0].sum())
    table = backbone.embed(row)
    both = torch.cat([table[:-1], rows.to(table), table[-1:]])[None]
    with torch.no_grad():
        whole = backbone.model(inputs_embeds=both).logits[0]
        found = soft(row[None]).logits[0]
    torch.testing.assert_close(found[: count - 1], whole[: count - 1], atol=1e-5, rtol=1e-4)


def test_nothing_is_an_option_too(tiny):
    soft = model(tiny("gpt2"), "prompt-tuning")
    ids, _ = batch(soft.backbone, "right")
    options = {"max_new_tokens": 5, "do_sample": False}
    free = soft.generate(ids[:1], eos_token_id=None, **options)
    stop = int(free[0, 1])
    told = {"eos_token_id": stop, **options}
    assert soft.generate(ids[:1], **told).shape[1] <= 2
    soft.backbone.model.generation_config.eos_token_id, before = (
        stop,
        soft.backbone.model.generation_config.eos_token_id,
    )
    try:
        assert torch.equal(soft.generate(ids[:1], eos_token_id=None, **options), free)
        soft.generation_config.eos_token_id = None
        assert torch.equal(soft.generate(ids[:1], **options), free)
    finally:
        soft.backbone.model.generation_config.eos_token_id = before


def test_a_head_that_is_not_called_is_no_reason_to_write_something_else(tiny, monkeypatch):
    soft = model(tiny("gpt2"), "closed behind")
    other = torch.nn.Linear(1, 1)
    monkeypatch.setattr(soft.backbone.model, "get_output_embeddings", lambda: other)
    with pytest.raises(BackboneError, match=r"rows behind the input of .* must be active where it"):
        soft.generate(*batch(soft.backbone, "right"), max_new_tokens=2)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_beams_and_samples_share_their_inputs_memory(tiny, kind):
    soft = model(tiny(kind), "p-tuning-v2")
    beams = write(soft, "right", num_beams=3)
    assert beams.shape[0] == 3
    alone = [
        soft.generate(
            row[keep.bool()][None], None, max_new_tokens=12, num_beams=3, eos_token_id=None
        )
        for row, keep in zip(*batch(soft.backbone, "right"), strict=True)
    ]
    assert [row.tolist() for row in beams] == [row[0].tolist() for row in alone]
    assert write(soft, "right", num_beams=3, num_return_sequences=2).shape[0] == 6


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
@pytest.mark.parametrize("method", ["prompt-tuning", "adap-ins-len", "prefix-tuning"])
def test_a_result_writes(tiny, task, kind, method):
    backbone = tiny(kind)
    result = sp.Result.of(execute(run_config(backbone, method, "text"), backbone, task))
    inputs = [dict(row.fields) for row in task.validation[:3]]
    texts = result.generate(inputs, max_new_tokens=5)
    assert len(texts) == 3
    assert texts == result.generate(inputs, max_new_tokens=5, use_cache=False)
    assert texts[1:2] == result.generate(inputs[1:2], max_new_tokens=5)
    assert result.generate([]) == []


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["prompt-tuning", "adap-ins-len", "p-tuning-v2"])
def test_a_long_input_is_cut_so_that_what_is_written_fits(tiny, task, kind, method):
    backbone = tiny(kind)
    result = sp.Result.of(execute(run_config(backbone, method, "text"), backbone, task))
    fields = dict(task.validation[0].fields)
    long = {**fields, "text": "the soup was cold " * 60}
    options = {"max_new_tokens": 9, "eos_token_id": None}
    whole = result.generate([long], **options)
    assert whole == result.generate([long], use_cache=False, **options)
    assert result.generate([long], max_length=backbone.context_length - 4, eos_token_id=None)
    assert result.generate([long, fields], **options)[0] == whole[0]
    with pytest.raises(DataError, match=r"`max_new_tokens` must leave at least 8 of .* but is 55"):
        result.generate([long], max_new_tokens=55)


@pytest.mark.parametrize("method", ["prompt-tuning", "adap-len", "p-tuning-v2", "pool-len"])
def test_tokens_that_leave_no_room_for_new_ones_are_refused(tiny, method):
    backbone = tiny("gpt2")
    soft = model(backbone, method)
    ids = torch.full((2, backbone.context_length - 4 - 5), 7)
    fitting = soft.generate(ids, max_new_tokens=5, eos_token_id=None)
    assert fitting.shape == (2, 5)
    told = "at most 64 positions .* takes 65: 55 of the input, 4 of the prompt and 6 new tokens"
    with pytest.raises(BackboneError, match=told):
        soft.generate(ids, max_new_tokens=6)
    with pytest.raises(BackboneError, match=r"takes 79: .* and 20 new tokens"):
        soft.generate(ids)


def test_a_decoder_half_has_room_for_what_is_written(tiny):
    soft = model(tiny("bart"), "prompt-tuning")
    ids = torch.full((1, 5), 7)
    assert soft.generate(ids, max_new_tokens=63, eos_token_id=None).shape[1] == 64
    with pytest.raises(BackboneError, match="takes 65: a start token and 64 new tokens"):
        soft.generate(ids, max_new_tokens=64)


def test_what_writing_refuses(tiny, task):
    with pytest.raises(BackboneError, match="to write text, but is of family 'encoder'"):
        model(tiny("bert"), "prompt-tuning").generate(torch.tensor([[5, 6]]))
    with pytest.raises(BackboneError, match="`position_ids` must be left out"):
        model(tiny("gpt2"), "prompt-tuning").generate(torch.tensor([[5, 6]]), position_ids=None)
    backbone = tiny("gpt2")
    result = sp.Result.of(execute(run_config(backbone, "residual", "linear"), backbone, task))
    with pytest.raises(BackboneError, match=r"`readout` must be text.*but is linear"):
        result.generate(["a"])
