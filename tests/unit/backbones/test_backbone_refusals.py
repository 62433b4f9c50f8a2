"""Model types that cannot carry prompts, inputs that do not fit, tokenizers without a frame."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
)
from transformers.models.auto import modeling_auto

from backbones import scatter
from reads import hidden, logits
from softprompts.backbones.backbone import Backbone
from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.backbones.families import REFUSED, find_class, find_family, names_head
from softprompts.backbones.frame import Frame, probe_frame
from softprompts.backbones.layers import call_only_at
from softprompts.errors import BackboneError, SoftPromptsError

IDS = torch.arange(12, 22).reshape(2, 5)
MASK = torch.ones_like(IDS)
GATHER = torch.zeros(2, 1, dtype=torch.long)


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_refused_types_exist_and_say_why(kind: str) -> None:
    known = {
        **modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        **modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        **modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        **modeling_auto.MODEL_MAPPING_NAMES,
    }
    assert kind in known
    config = AutoConfig.for_model(kind)
    with pytest.raises(
        BackboneError, match=f"model type '{kind}' cannot be a backbone: "
    ) as caught:
        find_family(config)
    assert REFUSED[kind] in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("gemma3", "it is not a text model alone .it has vision_config"),
        ("vit", "transformers knows it neither as a masked"),
        ("whisper", "transformers knows it neither as a masked"),
    ],
)
def test_other_types_are_refused(kind: str, reason: str) -> None:
    with pytest.raises(BackboneError, match=f"'{kind}' cannot be a backbone: {reason}"):
        find_family(AutoConfig.for_model(kind))


def test_forward_must_take_embeddings_and_mask() -> None:
    with pytest.raises(BackboneError, match=r"'fnet' .*FNetForMaskedLM must take attention_mask"):
        find_class(AutoConfig.for_model("fnet"), "encoder", True)
    with pytest.raises(BackboneError, match=r"'cpmant' .*CpmAntModel must take inputs_embeds"):
        find_class(AutoConfig.for_model("cpmant"), "decoder", False)


def test_family_of_a_bert_that_reads_leftwards_only() -> None:
    assert find_family(BertConfig()) == "encoder"
    assert find_family(BertConfig(is_decoder=True)) == "decoder"


@pytest.mark.parametrize(
    ("architectures", "has_head"),
    [
        (["BertForMaskedLM"], True),
        (["BertForPreTraining"], True),
        (["GPT2LMHeadModel"], True),
        (["LlamaForCausalLM"], True),
        (["T5ForConditionalGeneration"], True),
        (["T5WithLMHeadModel"], True),
        (["MarianMTModel"], True),
        (["BertModel"], False),
        (["BertForSequenceClassification"], False),
        ([], False),
        (None, False),
    ],
)
def test_heads_that_configurations_name(architectures: list[str] | None, has_head: bool) -> None:
    assert names_head(BertConfig(architectures=architectures)) is has_head


@pytest.mark.parametrize("where", ["hidden", "logits"])
def test_inputs_that_do_not_fit(tiny: Any, where: str) -> None:
    backbone = tiny("roberta")
    more = (GATHER,) if where == "logits" else ()

    def refuse(text: str, embeddings: Any, mask: Any = MASK, segments: Any = None) -> None:
        with pytest.raises(BackboneError, match=text):
            getattr(backbone, where)(embeddings, mask, segments, *more)

    embeddings = backbone.embed(IDS)
    refuse(r"tokens, 32\), none of it 0, but have \(2, 5, 31\)", embeddings[..., 1:])
    refuse(r"but have \(0, 5, 32\)", embeddings[:0], MASK[:0])
    refuse("attention_mask must hold whole numbers, but is .*float32", embeddings, MASK.float())
    refuse(r"but have \(5, 32\)", embeddings[0])
    refuse(r"attention_mask must have shape \(2, 5\), but has \(2, 4\)", embeddings, MASK[:, 1:])
    refuse(r"segment_ids must have shape \(2, 5\), but has \(1, 5\)", embeddings, MASK, MASK[:1])
    long = torch.zeros(1, 65, 32)
    refuse("tokens must be at most 64, .* but are 65", long, torch.ones(1, 65).long())


def test_gather_that_does_not_fit(tiny: Any) -> None:
    backbone = tiny("bert")
    embeddings = backbone.embed(IDS)
    fast = (partial(hidden, backbone), partial(logits, backbone))
    for call in (backbone.hidden, backbone.logits, *fast):
        with pytest.raises(
            BackboneError, match=r"gather must have shape \(2, k\) with k > 0, but has \(3, 1\)"
        ):
            call(embeddings, MASK, None, torch.zeros(3, 1, dtype=torch.long))
        with pytest.raises(BackboneError, match=r"but has \(2, 0\)"):
            call(embeddings, MASK, None, GATHER[:, :0])
    gap = torch.tensor([[1, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    for call in fast:
        with pytest.raises(BackboneError, match=r"attention_mask must be 1 at the left .* a gap"):
            call(embeddings, gap, None, GATHER)
    assert not backbone.model.base_model._forward_hooks


def test_ids_outside_the_table(tiny: Any) -> None:
    for bad in (400, -1):
        with pytest.raises(BackboneError, match=rf"\[0, 400\).* but are in \[.*{bad}"):
            tiny("bert").embed(torch.tensor([bad]))
    assert tiny("bert").embed(torch.empty(0, dtype=torch.long)).shape == (0, 32)


def test_decoder_inputs_fit_the_family(tiny: Any) -> None:
    decoder = DecoderInputs(IDS, torch.arange(2), MASK)
    for kind, given_inputs, text in (
        ("bert", decoder, "family 'encoder' and decoder is DecoderInputs"),
        ("gpt2", decoder, "family 'decoder' and decoder is DecoderInputs"),
        ("t5", None, "family 'encoder-decoder' and decoder is NoneType"),
    ):
        backbone = tiny(kind)
        with pytest.raises(BackboneError, match=text):
            backbone.logits(backbone.embed(IDS), MASK, None, GATHER, given_inputs)


def test_shift_right(tiny: Any) -> None:
    labels = torch.tensor([[20, 21, 1], [22, -100, -100]])
    assert tiny("t5").shift_right(labels).tolist() == [[0, 20, 21], [0, 22, 0]]
    assert tiny("bart").shift_right(labels).tolist() == [[2, 20, 21], [2, 22, 1]]
    assert labels[1, 1] == -100
    with pytest.raises(BackboneError, match="to shift labels, but is of family 'encoder'"):
        tiny("bert").shift_right(labels)


def test_shift_right_needs_a_start_token(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny("t5")
    labels = torch.tensor([[20]])
    monkeypatch.setattr(backbone.model.config, "decoder_start_token_id", None)
    monkeypatch.setattr(backbone.model.generation_config, "decoder_start_token_id", 7)
    assert backbone.shift_right(labels).tolist() == [[7]]
    monkeypatch.setattr(backbone.model.generation_config, "decoder_start_token_id", None)
    with pytest.raises(BackboneError, match="must be a token id, but is None"):
        backbone.shift_right(labels)


def test_backbone_is_no_module(tiny: Any) -> None:
    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = tiny("bert")

    assert not isinstance(tiny("bert"), torch.nn.Module)
    assert list(Holder().parameters()) == []
    assert repr(tiny("bert")).endswith(", encoder, torch.float32, cpu)")


def test_float32_rows_enter_a_half_precision_backbone(tiny: Any) -> None:
    backbone = tiny("bert")
    leaf = backbone.embed(IDS).double().requires_grad_()
    backbone.hidden(leaf, MASK, None).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == torch.float64


# -------------------------------------------------------------- what a body must not do


def make(model: Any, family: Any, tokenizer: Any) -> Backbone:
    """Return a backbone around a model in memory, with wide random weights."""
    scatter(model)
    return Backbone("mine", family, model, tokenizer, True, "-")


def plain_bert(**more: Any) -> BertForMaskedLM:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertForMaskedLM(BertConfig(vocab_size=400, intermediate_size=64, **sizes, **more))


def test_a_model_in_memory_will_do(tiny: Any) -> None:
    assert make(plain_bert(), "encoder", tiny("bert").tokenizer).hidden_size == 32


def test_a_decoder_must_not_look_ahead(tiny: Any) -> None:
    with pytest.raises(BackboneError, match="nor a decoder later ones, but they change its states"):
        make(plain_bert(), "decoder", tiny("bert").tokenizer)


SMALL = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2}
HEADS = {**SMALL, "num_attention_heads": 4, "intermediate_size": 64}
UNFIT = {
    "bert-generation": HEADS,
    "convbert": {**HEADS, "embedding_size": 32},
    "funnel": {"vocab_size": 400, "block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8},
    "mobilebert": {**HEADS, "embedding_size": 16},
    "nystromformer": HEADS,
    "recurrent_gemma": {**HEADS, "lru_width": 32, "num_key_value_heads": 1, "head_dim": 8},
    "rwkv": {**SMALL, "attention_hidden_size": 32},
    "xlnet": {"vocab_size": 400, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
    "yoso": HEADS,
}


@pytest.mark.parametrize("kind", UNFIT)
def test_positions_that_must_not_be_read(tiny: Any, kind: str) -> None:
    config = AutoConfig.for_model(kind, **UNFIT[kind])
    masked = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    auto = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        model = auto.from_config(config)
    with pytest.raises(
        BackboneError, match=r"must not read masked .* change its states by [0-9.]+"
    ):
        make(model, "encoder" if masked else "decoder", tiny("bert").tokenizer)
    assert "masked" in REFUSED[kind] or "later" in REFUSED[kind]


def test_a_body_must_give_states(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = plain_bert()
    monkeypatch.setattr(type(model.bert), "forward", lambda _self, **_inputs: SimpleNamespace())
    with pytest.raises(BackboneError, match="one state per position, but gives SimpleNamespace"):
        make(model, "encoder", tiny("bert").tokenizer)


def test_states_must_be_finite(tiny: Any) -> None:
    model = plain_bert()
    with torch.no_grad():
        model.bert.encoder.layer[1].output.LayerNorm.bias[0] = float("inf")
    with pytest.raises(BackboneError, match=r"finite, but are not in torch.float32: take a wider"):
        make(model, "encoder", tiny("bert").tokenizer)


def without_gradient(forward: Any, states: Any, *more: Any, **named: Any) -> Any:
    return forward(states.detach(), *more, **named)


def test_rows_must_have_a_gradient(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = plain_bert()
    for layer in model.bert.encoder.layer:
        attention = layer.attention.self
        cut = partial(without_gradient, attention.forward)
        monkeypatch.setattr(attention, "forward", cut)
    with pytest.raises(BackboneError, match=r"must be finite and not 0, .* but is 0"):
        make(model, "encoder", tiny("bert").tokenizer)


def test_ids_must_tell_no_more_than_embeddings(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = plain_bert()
    embeddings = model.bert.embeddings
    forward = embeddings.forward

    def more(input_ids: Any = None, **named: Any) -> Any:
        states = forward(input_ids=input_ids, **named)
        return states if input_ids is None else states * input_ids[..., None]

    monkeypatch.setattr(embeddings, "forward", more)
    with pytest.raises(BackboneError, match=r"but their states differ by [0-9.]+ of their size"):
        make(model, "encoder", tiny("bert").tokenizer)


@pytest.mark.parametrize("error", [NotImplementedError, AttributeError, None])
def test_a_body_must_have_a_table(tiny: Any, monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    model = plain_bert()

    def find(_self: Any) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(type(model.bert), "get_input_embeddings", find)
    with pytest.raises(BackboneError, match="table of input embeddings, but BertModel has none"):
        make(model, "encoder", tiny("bert").tokenizer)


def test_a_head_that_goes_around_the_body_is_noticed(tiny: Any) -> None:
    backbone = tiny("bert")
    unrelated = torch.nn.Linear(1, 1)
    with pytest.raises(BackboneError, match="must run once before the head, but ran 0 times"):
        call_only_at(unrelated, GATHER, lambda: backbone.hidden(backbone.embed(IDS), MASK, None))
    assert not unrelated._forward_hooks


# ------------------------------------------------------------------------------- frame

ids = st.lists(st.integers(0, 50), max_size=4)


@given(ids.map(tuple), ids.map(tuple), ids.map(tuple), ids.map(tuple), ids, ids)
def test_wrap(prefix: Any, middle: Any, suffix: Any, alone: Any, first: Any, second: Any) -> None:
    frame = Frame(prefix, middle, suffix, alone, (0, 1))
    single, single_segments = frame.wrap(first)
    assert single == list(prefix) + first + list(alone)
    assert single_segments == [0] * len(single)
    pair, pair_segments = frame.wrap(first, second)
    assert pair == list(prefix) + first + list(middle) + second + list(suffix)
    assert pair_segments == sorted(pair_segments)
    assert sum(pair_segments) == len(second) + len(suffix)


def word_tokenizer(single: str, pair: str, words: tuple[str, ...] = ("the", "of")) -> Any:
    """Return a tokenizer of whole words with a template."""
    names = ["[CLS]", "[SEP]", *words]
    backend = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_probed_frame() -> None:
    tokenizer = word_tokenizer("[CLS] $A", "[CLS] $A [SEP] [SEP] $B:1 [CLS]:1")
    assert probe_frame(tokenizer, 2) == Frame((0,), (1, 1), (0,), (), (0, 1))
    assert probe_frame(tokenizer, 0) == Frame((0,), (1, 1), (0,), (), (0, 0))


@pytest.mark.parametrize(
    ("single", "pair", "num_segments"),
    [
        ("[CLS] $A", "$A [SEP] $B:1", 0),
        ("[CLS] $A", "[CLS] $A [SEP]:1 $B:1", 2),
        ("[CLS]:1 $A", "[CLS] $A $B:1", 2),
    ],
)
def test_frames_that_cannot_be_expressed(single: str, pair: str, num_segments: int) -> None:
    with pytest.raises(BackboneError, match=r"the same special tokens .* but gives \["):
        probe_frame(word_tokenizer(single, pair), num_segments)


def test_tokenizer_that_makes_no_tokens() -> None:
    backend = Tokenizer(models.BPE({"[CLS]": 0}, []))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    with pytest.raises(BackboneError, match=r"must make tokens of \('the', 'of'\), but makes \[\]"):
        probe_frame(tokenizer, 0)


# ----------------------------------------------------------------------------- surface


def test_public_names_are_documented() -> None:
    for name, member in inspect.getmembers(Backbone):
        if not name.startswith("_"):
            assert inspect.getdoc(member), name
    assert issubclass(BackboneError, SoftPromptsError)


def test_the_page_names_every_refused_type() -> None:
    page = (Path(__file__).parents[3] / "docs" / "backbones.md").read_text(encoding="utf-8")
    for kind, reason in REFUSED.items():
        assert f"| `{kind}` | {reason} |" in page
