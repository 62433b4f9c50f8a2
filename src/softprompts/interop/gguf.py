"""A model folder of Llama's shape as one GGUF file, for llama.cpp and what is built on it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.errors import BackboneError
from softprompts.storage import read_json, read_tensors

_BYTE_LEVEL, _DIGITS = "ByteLevel", "Digits"
_PRE_TOKENIZERS = {(_BYTE_LEVEL,): "gpt-2", (_DIGITS, _BYTE_LEVEL): "smollm"}
"""What llama.cpp calls the ways to cut text before byte pairs are merged."""

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def check_gguf(backbone: Backbone) -> None:
    """Check that a backbone can be written as GGUF."""
    config = backbone.model.config
    if config.model_type != "llama":
        raise BackboneError(
            f"model type of {backbone.name} must be llama for --gguf, but is {config.model_type!r}."
        )
    rope = config.rope_parameters["rope_type"]
    if rope != "default" or config.attention_bias or config.mlp_bias:
        raise BackboneError(
            f"{backbone.name} must have plain rotations and no biases for --gguf, but has "
            f"rope_type {rope!r}, attention_bias {config.attention_bias}, mlp_bias "
            f"{config.mlp_bias}."
        )
    _pre_tokenizer(json.loads(backbone.tokenizer.backend_tokenizer.to_str()), backbone.name)
    if importlib.util.find_spec("gguf") is None:
        raise BackboneError(
            "the package gguf must be installed for --gguf, but is not: install softprompts with "
            "its extra `gguf`."
        )


def write_gguf(folder: Path, file: Path) -> None:
    """Write a model folder as one file, in the precision of its weights.

    The folder has weights in one file, of a model that `check_gguf` has nothing against.
    """
    import gguf
    import torch

    config = read_json(folder / "config.json")
    writer = gguf.GGUFWriter(file, "llama")
    _add_sizes(writer, config)
    _add_tokenizer(writer, folder)
    tensors, _ = read_tensors(folder / "model.safetensors")
    for name, tensor in _renamed(tensors, config):
        is_short = tensor.dtype == torch.bfloat16 and tensor.dim() > 1
        if is_short:
            raw = tensor.contiguous().view(torch.uint8).numpy()
            writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            whole = tensor if tensor.dtype == torch.float16 and tensor.dim() > 1 else tensor.float()
            writer.add_tensor(name, whole.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: Any, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_name(config.get("_name_or_path") or "softprompts")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(size)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])


def _add_tokenizer(writer: Any, folder: Path) -> None:
    import gguf
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    content = read_json(folder / "tokenizer.json")
    size = read_json(folder / "config.json")["vocab_size"]
    known = {number: token for token, number in tokenizer.get_vocab().items()}
    added = {one["id"]: one for one in content["added_tokens"]}
    kinds = []
    for number in range(size):
        kind = gguf.TokenType.NORMAL if number in known else gguf.TokenType.UNUSED
        if number in added:
            is_special = added[number]["special"]
            kind = gguf.TokenType.CONTROL if is_special else gguf.TokenType.USER_DEFINED
        kinds.append(kind)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(content, str(folder)))
    writer.add_token_list([known.get(number, f"[PAD{number}]") for number in range(size)])
    writer.add_token_types(kinds)
    merges = content["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    for role in ("bos", "eos", "pad", "unk"):
        number = getattr(tokenizer, f"{role}_token_id")
        if number is not None:
            getattr(writer, f"add_{role}_token_id")(number)
    first = tokenizer("a")["input_ids"][:1]
    writer.add_add_bos_token(first == [tokenizer.bos_token_id])
    writer.add_add_eos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _pre_tokenizer(content: dict[str, Any], name: str) -> str:
    """Return what llama.cpp calls a tokenizer's way to cut text."""
    cutter = content["pre_tokenizer"] or {"type": None}
    parts = cutter.get("pretokenizers", [cutter])
    kinds = tuple(part["type"] for part in parts)
    is_plain = content["model"]["type"] == "BPE" and content["normalizer"] is None
    if not is_plain or kinds not in _PRE_TOKENIZERS or not parts[-1].get("use_regex", True):
        raise BackboneError(
            f"the tokenizer of {name} must merge byte pairs as that of GPT-2 or SmolLM does for "
            f"--gguf, but is {content['model']['type']} behind {kinds}."
        )
    return _PRE_TOKENIZERS[kinds]


def _renamed(tensors: dict[str, Tensor], config: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors by llama.cpp's names, queries and keys in its order."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, tensor in tensors.items():
        stem = name.removesuffix(".weight")
        if stem in _NAMES:
            yield f"{_NAMES[stem]}.weight", tensor
            continue
        number, part = stem.removeprefix("model.layers.").split(".", 1)
        kind = _LAYER_NAMES[part]
        if kind in heads:
            tensor = _interleaved(tensor, heads[kind])
        yield f"blk.{number}.{kind}.weight", tensor


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """Put the two halves that a rotation turns side by side. Shape `(heads * size, hidden)`."""
    whole, hidden = weight.shape
    halves = weight.view(heads, 2, whole // heads // 2, hidden)
    return halves.transpose(1, 2).reshape(whole, hidden).contiguous()
