"""Each supported architecture does what transformers does, through embeddings and gathers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from backbones import KINDS
from reads import logits, shortcuts
from softprompts.backbones.attention import IMPLEMENTATIONS
from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.backbones.loading import load_backbone
from softprompts.fast.fused_attention import why_not

FAMILIES = {"t5": "encoder-decoder", "bart": "encoder-decoder"}
FAMILIES |= dict.fromkeys(("gpt2", "llama", "qwen3", "gemma3"), "decoder")
HAVE_TOKEN_TYPES = {"bert", "albert", "electra"}
WIDTHS = {"albert": 16, "electra": 16}
LENGTHS = (19, 7, 12)
FIRST = "The river rose in the night."
SECOND = "Nobody believed it."

every_kind = pytest.mark.parametrize("kind", KINDS)
encoder_decoders = pytest.mark.parametrize("kind", ["t5", "bart"])


def draw_batch(backbone: Any, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return right-padded ids, mask and segments of rows of several lengths."""
    draws = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    ids = torch.randint(12, backbone.vocabulary_size, shape, generator=draws)
    mask = (torch.arange(shape[1]) < torch.tensor(LENGTHS)[:, None]).long()
    segments = (torch.arange(shape[1]) >= 5).long().expand(shape) * mask
    return ids, mask, segments


def draw_decoder(backbone: Any) -> tuple[DecoderInputs, torch.Tensor]:
    """Return five targets that read three sources out of order, and positions to gather."""
    draws = torch.Generator().manual_seed(1)
    labels = torch.randint(12, backbone.vocabulary_size, (5, 4), generator=draws)
    mask = torch.ones_like(labels)
    mask[1, 2:] = 0
    mask[0, 1] = 0  # a hole, which a causal decoder would read but for the mask
    source = torch.tensor([2, 0, 0, 1, 2])
    gather = torch.tensor([[0, 3], [1, 0], [2, 2], [3, 1], [0, 1]])
    return DecoderInputs(backbone.shift_right(labels), source, mask), gather


def call_by_ids(backbone: Any, kind: str, ids: Any, mask: Any, segments: Any) -> Any:
    """Return transformers' own last hidden state for token ids."""
    body = backbone.model.base_model
    body = backbone.model.get_encoder() if backbone.family == "encoder-decoder" else body
    more = {"token_type_ids": segments} if kind in HAVE_TOKEN_TYPES else {}
    with torch.no_grad():
        return body(input_ids=ids, attention_mask=mask, **more).last_hidden_state


@every_kind
def test_sizes_and_family(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    assert backbone.family == FAMILIES.get(kind, "encoder")
    assert backbone.embedding_size == WIDTHS.get(kind, 32)
    assert backbone.hidden_size == 32
    assert backbone.vocabulary_size == 400 > len(backbone.tokenizer)
    assert backbone.context_length == (None if kind == "t5" else 64)
    assert backbone.has_language_head
    assert backbone.tokenizer.pad_token_id is not None
    assert not backbone.model.training


@every_kind
def test_embeddings_equal_ids(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    ids, mask, segments = draw_batch(backbone)
    states = backbone.hidden(backbone.embed(ids), mask, segments)
    expected = call_by_ids(backbone, kind, ids, mask, segments)
    is_real = mask.bool()
    torch.testing.assert_close(states[is_real], expected[is_real], rtol=0, atol=1e-5)
    assert expected[is_real].std() > 0.1
    other = backbone.hidden(backbone.embed(ids.roll(1, dims=1)), mask, segments)
    assert (other - states)[is_real].abs().max() > 0.05


@every_kind
def test_segment_ids_reach_models_with_token_types(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    ids, mask, segments = draw_batch(backbone)
    embeddings = backbone.embed(ids)
    with_segments = backbone.hidden(embeddings, mask, segments)
    without = backbone.hidden(embeddings, mask, torch.zeros_like(segments))
    is_same = torch.equal(with_segments, without)
    assert is_same == (kind not in HAVE_TOKEN_TYPES)
    assert torch.equal(without, backbone.hidden(embeddings, mask, None))


@every_kind
def test_last_position_may_be_used(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    ids = torch.arange(12, 12 + 64)[None]
    mask = torch.ones_like(ids)
    states = backbone.hidden(backbone.embed(ids), mask, torch.zeros_like(ids))
    assert states.isfinite().all()


@every_kind
def test_gathered_states_are_states(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    ids, mask, segments = draw_batch(backbone)
    gather = torch.tensor([[18, 0], [6, 3], [0, 11]])
    embeddings = backbone.embed(ids)
    states = backbone.hidden(embeddings, mask, segments)
    expected = torch.stack([states[row, gather[row]] for row in range(3)])
    found = backbone.hidden(embeddings, mask, segments, gather)
    assert torch.allclose(
        found, expected, atol=1e-5
    )  # one row for all inputs sums in another order


@every_kind
def test_padding_changes_nothing(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    ids, mask, segments = draw_batch(backbone)
    states = backbone.hidden(backbone.embed(ids), mask, segments)
    for row, length in enumerate(LENGTHS):
        one = slice(row, row + 1), slice(0, length)
        alone = backbone.hidden(backbone.embed(ids[one]), mask[one], segments[one])
        torch.testing.assert_close(states[row, :length], alone[0], rtol=0, atol=1e-5)


@every_kind
def test_masked_position_in_the_middle_is_not_read(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    ids, mask, segments = draw_batch(backbone)
    mask[:, 3] = 0
    first = backbone.embed(ids)
    second = first.clone()
    second[:, 3] = backbone.embed(torch.tensor(399))
    is_read = mask.bool()
    states = backbone.hidden(first, mask, segments)[is_read]
    torch.testing.assert_close(backbone.hidden(second, mask, segments)[is_read], states)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"t5", "bart"}])
def test_gathered_logits_equal_full_logits(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    ids, mask, segments = draw_batch(backbone)
    gather = torch.tensor([[18, 0, 4], [6, 3, 3], [0, 11, 5]])
    logits = backbone.logits(backbone.embed(ids), mask, segments, gather)
    more = {"token_type_ids": segments} if kind in HAVE_TOKEN_TYPES else {}
    with torch.no_grad():
        full = backbone.model(input_ids=ids, attention_mask=mask, **more).logits
    expected = torch.stack([full[row, gather[row]] for row in range(3)])
    assert logits.shape == (3, 3, backbone.vocabulary_size)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        again = backbone.model(input_ids=ids, attention_mask=mask, **more).logits
    assert torch.equal(again, full), "the hook must be gone"


@encoder_decoders
def test_encoder_decoder_logits_equal_transformers(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    ids, mask, segments = draw_batch(backbone)
    decoder, gather = draw_decoder(backbone)
    logits = backbone.logits(backbone.embed(ids), mask, segments, gather, decoder)
    with torch.no_grad():
        full = backbone.model(
            input_ids=ids[decoder.source],
            attention_mask=mask[decoder.source],
            decoder_input_ids=decoder.ids,
            decoder_attention_mask=decoder.mask,
        ).logits
    expected = torch.stack([full[row, gather[row]] for row in range(5)])
    assert logits.shape == (5, 2, backbone.vocabulary_size)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@encoder_decoders
def test_labels_give_the_same_logits(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    ids, mask, segments = draw_batch(backbone)
    labels = torch.tensor([[20, 30, 40], [50, 60, -100], [70, -100, -100]])
    decoder = DecoderInputs(backbone.shift_right(labels), torch.arange(3), torch.ones_like(labels))
    gather = torch.arange(3).expand(3, 3)
    logits = backbone.logits(backbone.embed(ids), mask, segments, gather, decoder)
    with torch.no_grad():
        expected = backbone.model(input_ids=ids, attention_mask=mask, labels=labels).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@encoder_decoders
def test_encoder_runs_once_for_many_targets(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    ids, mask, segments = draw_batch(backbone)
    decoder, gather = draw_decoder(backbone)
    assert shortcuts(backbone)
    batches: list[int] = []
    handle = backbone.model.get_encoder().register_forward_hook(
        lambda _module, _arguments, output: batches.append(len(output.last_hidden_state))
    )
    try:
        logits(backbone, backbone.embed(ids), mask, segments, gather, decoder)
    finally:
        handle.remove()
    assert batches == [1 if shortcuts(backbone).joins else 3]


@every_kind
def test_gradient_reaches_embeddings_and_nothing_else(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    ids, mask, segments = draw_batch(backbone)
    embeddings = backbone.embed(ids)
    assert not embeddings.requires_grad
    for call in ("hidden", "logits"):
        leaf = embeddings.clone().requires_grad_()
        if call == "hidden":
            backbone.hidden(leaf, mask, segments).square()[mask.bool()].sum().backward()
        elif backbone.family == "encoder-decoder":
            decoder, gather = draw_decoder(backbone)
            backbone.logits(leaf, mask, segments, gather, decoder).square().sum().backward()
        else:
            last = mask.sum(dim=1, keepdim=True) - 1
            backbone.logits(leaf, mask, segments, last).square().sum().backward()
        size = leaf.grad.abs().sum(dim=2)
        assert size[:, 0].min() > 0, call
        assert size[~mask.bool()].max() == 0, call
    assert all(p.grad is None and not p.requires_grad for p in backbone.model.parameters())


@every_kind
def test_frame_rebuilds_the_tokenizer(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    tokenizer, frame = backbone.tokenizer, backbone.frame
    has_types = kind in HAVE_TOKEN_TYPES
    first, second = tokenizer([FIRST, SECOND], add_special_tokens=False)["input_ids"]
    for texts, parts in (((FIRST,), (first,)), ((FIRST, SECOND), (first, second))):
        encoded = tokenizer(*texts, return_token_type_ids=True)
        ids, segments = frame.wrap(*parts)
        assert ids == encoded["input_ids"]
        expected = encoded["token_type_ids"] if has_types else [0] * len(ids)
        assert segments == expected
    assert frame.segments == ((0, 1) if has_types else (0, 0))
    assert tokenizer.decode(first).strip().lower() == FIRST.lower()


@every_kind
def test_table_statistics(tiny: Any, kind: str) -> None:
    backbone = tiny(kind)
    rows = backbone.embed(torch.arange(backbone.vocabulary_size))
    assert backbone.embedding_rms == pytest.approx(rows.square().mean().sqrt().item(), rel=1e-6)
    scale = 32**0.5 if kind in {"bart", "gemma3"} else 1.0
    assert backbone.embedding_rms == pytest.approx(0.2 * scale, rel=0.05)


@every_kind
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(tiny: Any, kind: str, dtype: str) -> None:
    exact = tiny(kind)
    half = load_backbone(exact.name, dtype=dtype)
    assert half.dtype == getattr(torch, dtype) == half.model.dtype
    ids, mask, segments = draw_batch(exact)
    embeddings = exact.embed(ids)
    states = half.hidden(embeddings, mask, segments)
    assert states.dtype == half.dtype
    is_real = mask.bool()
    expected = exact.hidden(embeddings, mask, segments)[is_real]
    error = (states.float()[is_real] - expected).norm() / expected.norm()
    assert 0 < error < 0.1
    own = "plain" if why_not() else "fused"
    chosen = f"softprompts-{own}" if dtype == "bfloat16" else "sdpa"
    chosen = "eager" if kind == "deberta-v2" else chosen
    assert half.model.config._attn_implementation == chosen


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "deberta-v2"])
@pytest.mark.parametrize("attention", ["eager", "plain"])
def test_attention_implementations_agree(tiny: Any, kind: str, attention: str) -> None:
    fused = tiny(kind)
    plain = load_backbone(fused.name, attention=attention)
    assert fused.model.config._attn_implementation == "sdpa"
    assert plain.model.config._attn_implementation == IMPLEMENTATIONS[attention]
    ids, mask, segments = draw_batch(fused)
    embeddings, is_real = fused.embed(ids), mask.bool()
    torch.testing.assert_close(
        plain.hidden(embeddings, mask, segments)[is_real],
        fused.hidden(embeddings, mask, segments)[is_real],
        rtol=0,
        atol=1e-5,
    )
