"""Names become checked folders, folders become whole backbones; everything else is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_damage import Copy, assert_refused, edit_json
from safetensors.torch import load_file, save_file

from softprompts.backbones.loading import load_backbone

# ------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("./nothing/here", "backbone folder must be a folder, but is './nothing/here'"),
        ("/no/such", "'/no/such': no such folder exists"),
        ("a/b/c", "'a/b/c': no such folder exists"),
        ("", "backbone folder must be a folder, but is ''"),
        ("white space", "hub id within reach, but is 'white space'"),
    ],
)
def test_bad_names(no_network: None, name: str, text: str) -> None:
    assert_refused(text, name)


def test_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    assert_refused(f"{str(file)!r}: is a file", file)


def test_unknown_name_gives_near_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = assert_refused(
        "but is 'minillm'. Did you mean 'minilm' or 'smollm2'? From the hub: ", "minillm"
    )
    assert isinstance(error.__cause__, Exception)


def test_hub_id_is_downloaded_once_into_a_folder(
    monkeypatch: pytest.MonkeyPatch, backbone_folder: Any
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def fake(hub_id: str, **options: Any) -> str:
        asked.append((hub_id, options))
        return str(backbone_folder("gpt2"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    backbone = load_backbone("owner/model")
    assert backbone.name == "owner/model"
    assert backbone.family == "decoder"
    [(hub_id, options)] = asked
    assert hub_id == "owner/model"
    assert not any(
        pattern.endswith((".bin", ".pt", ".py")) for pattern in options["allow_patterns"]
    )


def test_hub_cache_is_read_without_network(
    monkeypatch: pytest.MonkeyPatch, backbone_folder: Any, tmp_path: Path
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--owner--tiny-model"
    shutil.copytree(backbone_folder("bert"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    backbone = load_backbone("owner/tiny-model")
    assert backbone.fingerprint == load_backbone(str(backbone_folder("bert"))).fingerprint
    assert_refused("but is 'owner/other-model'", "owner/other-model")


def test_hub_errors_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_hub_id: str, **_options: Any) -> str:
        raise TimeoutError("first line\nsecond line")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    assert_refused("but is 'owner/model'. From the hub: first line.", "owner/model")


# ----------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"dtype": "float64"},
            "dtype must be one of float32, bfloat16, float16, auto, but is 'float64'",
        ),
        ({"device": "toaster"}, "device must be usable by torch, but is 'toaster'"),
        ({"device": "cuda:99"}, "device must be usable by torch, but is 'cuda:99'"),
        ({"attention": "fast"}, "flash_attention_2, plain, fused, but is 'fast'"),
    ],
)
def test_bad_options(options: dict[str, str], text: str) -> None:
    assert_refused(text, "minilm", **options)


def test_attention_that_a_model_lacks(backbone_folder: Any) -> None:
    assert_refused("the model in", backbone_folder("deberta-v2"), attention="sdpa")


# ------------------------------------------------------------------------------- files


def test_folder_without_config(tmp_path: Path) -> None:
    assert_refused(f"{tmp_path} must have config.json, but has none", tmp_path)


def test_broken_config(copy: Copy) -> None:
    folder = copy("bert")
    (folder / "config.json").write_text("{")
    assert_refused("config.json must be JSON, but is not", folder)
    (folder / "config.json").write_text("[7]")
    assert_refused("config.json must be a JSON object, but is [7]", folder)


def test_pickled_weights_are_refused(copy: Copy) -> None:
    folder = copy("bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert_refused("only pytorch_model.bin, which is pickled and may run code", folder)
    (folder / "pytorch_model.bin").unlink()
    assert_refused("must have model.safetensors, but has none", folder)


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "number"])
def test_corrupt_weights(copy: Copy, damage: str) -> None:
    folder = copy("bert")
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    broken, text = {
        "cut": (whole[:-100], f"must have {len(whole)} bytes"),
        "garbage": (b"\xff" * 4096, "its header is bad"),
        "empty": (b"", "its header is bad"),
        "number": (b"\x01" + b"\x00" * 7 + b"7", "its header is bad"),
    }[damage]
    file.write_bytes(broken)
    assert_refused(text, folder)


def test_shards(copy: Copy) -> None:
    folder = copy("bert")
    expected = load_backbone(str(folder))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2]}
    halves["model-00002-of-00002.safetensors"] = names[1::2]
    for file, members in halves.items():
        save_file({n: tensors[n] for n in members}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {n: f for f, part in halves.items() for n in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    backbone = load_backbone(str(folder))
    ids = torch.arange(12, 20)
    assert torch.equal(backbone.embed(ids), expected.embed(ids))
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert_refused("but model-00002-of-00002.safetensors is missing", folder)
    for wrong in ([], 3, {"a": 1}, {"a": "../model.safetensors"}):
        edit_json(folder / "model.safetensors.index.json", weight_map=wrong)
        assert_refused("`weight_map` of ", folder)
    edit_json(folder / "model.safetensors.index.json", weight_map={})
    assert_refused("must name files that exist, but it names none", folder)


def test_more_layers_than_weights_are_not_built(copy: Copy) -> None:
    folder = copy("bert")
    edit_json(folder / "config.json", num_hidden_layers=10_000_000)
    assert_refused("tensors can be of, but is 10000000", folder)
    edit_json(folder / "config.json", num_hidden_layers=2, architectures=[3])
    assert_refused("`architectures` of ", folder)


def test_adapter_folder_is_refused(copy: Copy) -> None:
    folder = copy("bert")
    (folder / "adapter_config.json").write_text("{}")
    assert_refused("has adapter_config.json: merge the adapter", folder)


def test_no_tokenizer(copy: Copy) -> None:
    for kind in ("bert", "roberta", "t5", "gpt2"):
        folder = copy(kind)
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            (folder / name).unlink(missing_ok=True)
        assert_refused("must have a tokenizer, but has none of ", folder)


def test_slow_tokenizer_is_refused(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "transformers.PreTrainedTokenizerFast.is_fast", property(lambda _self: False)
    )
    assert_refused("must have a fast tokenizer", copy("bert"))


def test_tokenizer_without_a_frame(copy: Copy) -> None:
    folder = copy("bert")
    content = json.loads((folder / "tokenizer.json").read_text())
    del content["post_processor"]["single"][0]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert_refused(f"backbone {str(folder)!r}: tokenizer must put the same special", folder)


def test_refused_type_in_a_folder(copy: Copy) -> None:
    folder = copy("bert")
    edit_json(folder / "config.json", model_type="yoso")
    assert_refused("model type 'yoso' cannot be a backbone: its states change with", folder)
    edit_json(folder / "config.json", model_type="no-such-type")
    assert_refused("the configuration in", folder)


def test_code_in_a_folder_is_not_run(copy: Copy) -> None:
    folder = copy("bert")
    (folder / "mine.py").write_text("raise SystemExit('run')")
    places = {"AutoConfig": "mine.Config", "AutoModelForMaskedLM": "mine.Model"}
    edit_json(folder / "config.json", model_type="mine", auto_map=places)
    assert_refused("the configuration in", folder)
    edit_json(folder / "config.json", model_type="bert")
    assert load_backbone(str(folder)).has_language_head


def test_auto_dtype_is_what_the_processor_computes_natively(backbone_folder, monkeypatch):
    folder = str(backbone_folder("bert"))
    for capability, expected in (("avx512_bf16", torch.bfloat16), ("sse2", torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda c=capability: {c: True})
        assert load_backbone(folder, dtype="auto").dtype is expected
