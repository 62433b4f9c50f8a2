"""Each architecture of transformers is read as transformers reads it, or is refused."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from architectures import AS_DECODER, DECODERS, NOT_BUILT, build_any, text_types
from softprompts.backbones.adaptations.lora import LoraAdaptation
from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.backbones.families import find_body, without_cache
from softprompts.backbones.generation import generate
from softprompts.backbones.loading import load_backbone
from softprompts.errors import BackboneError

LENGTHS = torch.tensor([19, 7, 12])
LONG = torch.tensor([60, 53, 30, 60, 3, 59])
NUM_NEW = 4
TOLERANCE = 2e-4
HALF_TOLERANCE = 0.25
"""A router may send a token to another expert in half precision."""

REFUSED_IN_HALF = {"deberta": "but the model's own code fails: expected scalar type Float"}
WRITES_FROM_IDS = ("bamba", "falcon_h1", "nemotron_h", "openai-gpt", "zamba2")
WITHOUT_FULL_ATTENTION = ("qwen4_exp_text",)
"""Built so small that transformers' own cache does not work."""

SLICE = ["pegasus", "opt", "falcon", "switch_transformers", "minimax", "roberta@decoder"]
LATER = ["marian", "mvp", "blenderbot-small", "afmoe", "openai-gpt", "deepseek_v3", "bart@decoder"]
"""Architectures that were wrong; the latter are looked at with the slow tests."""

NUM_PARTS = 8


def batch_of(lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return right-padded ids and mask."""
    width = int(lengths.max())
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(12, 390, (len(lengths), width), generator=draws)
    return ids, (torch.arange(width) < lengths[:, None]).long()


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference relative to the size of what is expected."""
    size = expected.double().square().mean().sqrt()
    return float((found.double() - expected.double()).abs().max() / size)


def check_states(backbone: Any) -> None:
    """Embeddings give the states of token ids; a batch those of its inputs, read in any way."""
    body = find_body(backbone.model, backbone.family)
    for lengths in (LENGTHS, LONG):
        ids, mask = batch_of(lengths)
        real, last = mask.bool(), mask.sum(dim=1, keepdim=True) - 1
        embeddings = backbone.embed(ids)
        states = backbone.hidden(embeddings, mask, None)
        with torch.no_grad():
            given = {"input_ids": ids, "attention_mask": mask, "return_dict": True}
            expected = body(**given, **without_cache(body)).last_hidden_state
        assert off(states[real], expected[real]) < TOLERANCE, "not the states of token ids"
        at_last = backbone.hidden(embeddings, mask, None, last)
        for row, length in enumerate(lengths.tolist()):
            one = slice(row, row + 1), slice(0, length)
            alone = backbone.hidden(embeddings[one], mask[one], None)[0]
            assert off(states[row, :length], alone) < TOLERANCE, "a batch is not its inputs"
            assert off(at_last[row, 0], alone[-1]) < TOLERANCE, "shortcuts give other states"


def check_gradients(backbone: Any) -> None:
    """Rows get the same gradient in all ways to read a batch, and padding gets none."""
    ids, mask = batch_of(LENGTHS)
    last = mask.sum(dim=1, keepdim=True) - 1
    direction = torch.arange(backbone.hidden_size).cos()

    def gradient(gather: torch.Tensor | None) -> torch.Tensor:
        rows = backbone.embed(ids).requires_grad_()
        states = backbone.hidden(rows, mask, None, gather)
        states = states[torch.arange(len(ids)), last[:, 0]] if gather is None else states[:, 0]
        (states.float() @ direction).sum().backward()
        assert rows.grad is not None
        return rows.grad

    padded, narrow = gradient(None), gradient(last)
    assert padded.isfinite().all()
    assert padded[mask.bool()].any()
    assert not padded[~mask.bool()].any()
    assert off(narrow, padded) < 10 * TOLERANCE, "shortcuts give other gradients"


def check_logits(backbone: Any) -> None:
    """Logits at positions are those that transformers gives for token ids."""
    ids, mask = batch_of(LENGTHS)
    places = torch.tensor([[3, 0], [2, 1], [0, 3]])
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    decoder = None
    if backbone.family == "encoder-decoder":
        starts = backbone.shift_right(ids[:, :4])
        decoder = DecoderInputs(starts, torch.arange(3), torch.ones_like(starts))
        given |= {"decoder_input_ids": starts, "decoder_attention_mask": decoder.mask}
    found = backbone.logits(backbone.embed(ids), mask, None, places, decoder)
    with torch.no_grad():
        whole = backbone.model(**given, **without_cache(backbone.model)).logits
    expected = torch.stack([whole[row, places[row]] for row in range(3)])
    assert off(found, expected) < TOLERANCE, "not the logits of token ids"


def check_writing(backbone: Any, kind: str) -> None:
    """A batch writes what each input writes alone, which are the likeliest tokens."""
    ids, mask = batch_of(LENGTHS)
    embeddings = backbone.embed(ids)
    settings = backbone.model.generation_config
    settings.eos_token_id = settings.forced_eos_token_id = settings.forced_bos_token_id = None
    settings.encoder_no_repeat_ngram_size = settings.no_repeat_ngram_size = None
    options = {"max_new_tokens": NUM_NEW, "do_sample": False}
    if kind in (*WRITES_FROM_IDS, *WITHOUT_FULL_ATTENTION):
        why = "from token ids only" if kind in WRITES_FROM_IDS else "it says: `get_seq_length` can"
        with pytest.raises(BackboneError, match=why):
            generate(backbone, (embeddings, mask, None), **options)
        return
    written = generate(backbone, (embeddings, mask, None), **options)
    for row, length in enumerate(LENGTHS.tolist()):
        one = slice(row, row + 1), slice(0, length)
        alone = generate(backbone, (embeddings[one], mask[one], None), **options)
        assert written[row].tolist() == alone[0].tolist(), "a batch writes something else"
        tokens = ids[one]
        if backbone.family == "encoder-decoder":
            continue
        for _ in range(NUM_NEW):
            with torch.no_grad():
                logits = backbone.model(tokens, **without_cache(backbone.model)).logits
            tokens = torch.cat([tokens, logits[:, -1:].argmax(dim=2)], dim=1)
        assert alone[0].tolist() == tokens[0, length:].tolist(), "not the likeliest tokens"


def check_half(backbone: Any, kind: str) -> None:
    """In bfloat16 states are about the same, or the type is refused."""
    if kind in REFUSED_IN_HALF:
        with pytest.raises(BackboneError, match=REFUSED_IN_HALF[kind]):
            load_backbone(backbone.name, dtype="bfloat16")
        return
    half = load_backbone(backbone.name, dtype="bfloat16")
    ids, mask = batch_of(LENGTHS)
    embeddings, real = backbone.embed(ids), mask.bool()
    found = half.hidden(embeddings, mask, None)[real].float()
    expected = backbone.hidden(embeddings, mask, None)[real]
    assert (found - expected).norm() / expected.norm() < HALF_TOLERANCE


def check_reach(backbone: Any) -> None:
    """Attention can be reached, or a line says why not."""
    with suppress(BackboneError):
        assert backbone.slots
        return
    with pytest.raises(BackboneError, match="for a prompt that reaches into"):
        _ = backbone.slots


def check(name: str, folder: Path) -> None:
    """Check all of an architecture; `@decoder` asks for the half that writes."""
    kind, _, is_decoder = name.partition("@")
    build_any(kind, folder, **(AS_DECODER if is_decoder else {}))
    backbone = load_backbone(str(folder))
    check_states(backbone)
    check_gradients(backbone)
    check_logits(backbone)
    check_reach(backbone)
    if backbone.family != "encoder":
        check_writing(backbone, kind)
    check_half(backbone, kind)


@pytest.mark.parametrize(
    ("kind", "why"),
    [("mamba", r"adapt in_proj.*incompatible"), ("deepseek_v2", r"adapt down_proj.*up_proj\.$")],
)
def test_layers_that_peft_does_not_adapt_are_named(kind: str, why: str, tmp_path: Path) -> None:
    build_any(kind, tmp_path)
    with pytest.raises(BackboneError, match=f"`adaptation.targets` must name layers .*{why}"):
        LoraAdaptation().adapt(load_backbone(str(tmp_path)), False, seed=0)


@pytest.mark.parametrize(
    "name", [*SLICE, *(pytest.param(name, marks=pytest.mark.slow) for name in LATER)]
)
def test_architectures_that_were_wrong(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_every_architecture(part: int, tmp_path: Path) -> None:
    names = [*text_types(), "gemma4_text", *(f"{kind}@decoder" for kind in DECODERS)]
    names = [name for name in names if name not in (*NOT_BUILT, *SLICE, *LATER)]
    failures = {}
    for name in names[part::NUM_PARTS]:
        try:
            check(name, tmp_path / name)
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"[:300]
    assert not failures


@pytest.mark.slow
def test_types_that_are_not_built(tmp_path: Path) -> None:
    for kind, why in NOT_BUILT.items():
        with pytest.raises(Exception, match=why):
            build_any(kind, tmp_path / kind)


def test_plain_attention_where_a_model_asks_for_a_view(tmp_path: Path) -> None:
    folder = str(build_any("afmoe", tmp_path))
    (ids, mask), real = batch_of(LENGTHS), batch_of(LENGTHS)[1].bool()
    own, plain = load_backbone(folder), load_backbone(folder, attention="plain")
    embeddings = own.embed(ids)
    found = plain.hidden(embeddings, mask, None)[real]
    assert off(found, own.hidden(embeddings, mask, None)[real]) < TOLERANCE


@pytest.mark.parametrize("kind", ["pegasus", "blenderbot-small", "bart"])
def test_decoders_read_rows_of_tokens_as_they_read_the_tokens(kind: str, tmp_path: Path) -> None:
    backbone = load_backbone(str(build_any(kind, tmp_path, scale_embedding=True)))
    ids = torch.arange(20, 25)
    (mask, encoder, decoder) = (torch.ones(1, 5).long(), *backbone.stacks)
    expected = (
        decoder.record(
            lambda: backbone.model(ids[None], mask, decoder_input_ids=ids[None], use_cache=False)
        )
        if backbone.slots
        else {}
    )
    found = backbone.keys_and_values(backbone.embed(ids))
    assert encoder.slots
    assert expected
    for slot, (keys, _) in expected.items():
        assert off(found[slot].keys, keys) < TOLERANCE, slot


@pytest.mark.parametrize("kind", ["opt", "roberta"])
def test_attention_of_models_that_count_positions_can_be_reached(kind: str, tmp_path: Path) -> None:
    build_any(kind, tmp_path, **(AS_DECODER if kind == "roberta" else {}))
    assert len(load_backbone(str(tmp_path)).slots) == 2


def test_widths_of_keys_and_values_must_be_one(tmp_path: Path) -> None:
    backbone = load_backbone(str(build_any("deepseek_v3", tmp_path)))
    with pytest.raises(BackboneError, match=r"of one width .* but are of 16 and 8"):
        _ = backbone.slots


@pytest.mark.parametrize("kind", ["falcon", "gptj", "gpt_neo"])
def test_attention_without_the_interface(kind: str, tmp_path: Path) -> None:
    folder = str(build_any(kind, tmp_path))
    assert load_backbone(folder, dtype="bfloat16").attention in ("sdpa", "eager")
    with pytest.raises(BackboneError, match=r"attention must be eager or sdpa .*is 'plain'"):
        load_backbone(folder, attention="plain")


@pytest.mark.parametrize("kind", ["gemma3n_text", "gemma4_text"])
def test_embeddings_of_each_layer_are_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=rf"'{kind}' cannot be .*hidden_size_per_layer_input"):
        build_any(kind, tmp_path, hidden_size_per_layer_input=8)
