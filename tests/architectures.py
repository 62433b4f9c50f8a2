"""Tiny random models of every text architecture that transformers knows and that can be small."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from backbones import KINDS, VOCABULARY, build_tokenizer, scatter
from softprompts.backbones.families import find_class, find_family
from softprompts.errors import BackboneError

_SIZES: dict[int, str] = {
    32: "hidden_size d_model n_embd dim embedding_size emb_dim d_embed hidden_dim lru_width",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers "
    "num_decoder_layers num_encoder_layers num_key_value_heads num_kv_heads num_experts_per_tok "
    "moe_topk top_k experts_per_token num_experts_per_token",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads "
    "decoder_attention_heads num_experts num_local_experts n_routed_experts",
    8: "head_dim d_kv linear_key_head_dim linear_value_head_dim qk_nope_head_dim qk_rope_head_dim "
    "v_head_dim attention_head_dim",
    16: "q_lora_rank kv_lora_rank qk_head_dim",
    64: "intermediate_size ffn_dim d_ff encoder_ffn_dim decoder_ffn_dim n_inner ffn_hidden_size "
    "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size",
    128: "max_position_embeddings n_positions max_seq_len",
    VOCABULARY: "vocab_size",
}
SIZES = {name: size for size, names in _SIZES.items() for name in names.split()}

_MOST_WEIGHTS = 2_000_000

_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 16}
_PARTS = {"qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "num_key_value_heads": 4}
_GEMMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": VOCABULARY,
}
_MIXED = {"layer_types": ["linear_attention", "full_attention"]}
_SCALED = {"scale_embedding": True}

OPTIONS: dict[str, dict[str, Any]] = {
    "axk1": {**_PARTS, "n_group": 2, "topk_group": 1},
    "axk2": _PARTS,
    "bailing_hybrid": {**_MIXED, **_PARTS},
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "blenderbot": _SCALED,
    "blenderbot-small": _SCALED,
    "codegen": {"rotary_dim": 4},
    "deepseek_v2": _PARTS,
    "deepseek_v3": _PARTS,
    "deepseek_v32": _PARTS,
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note_text": {"num_key_value_heads": 4},
    "esmc": {"num_key_value_heads": 4},
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 64},
    "gemma4_text": {"hidden_size_per_layer_input": 0},
    "glm4_moe_lite": _PARTS,
    "glm_moe_dsa": _PARTS,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {**_MAMBA, "layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {
        **_MIXED,
        **_PARTS,
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "num_local_experts": 4,
    },
    "longformer": {"attention_window": 64, "max_position_embeddings": 130},
    "longcat_flash": {"zero_expert_num": 2, "num_key_value_heads": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 16},
    "marian": {**_SCALED, "decoder_start_token_id": 1},
    "mbart": _SCALED,
    "minicpm3": _PARTS,
    "minimax": _MIXED,
    "mvp": _SCALED,
    "nemotron_h": {
        "layers_block_type": ["mamba", "attention", "mlp"],
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 16,
    },
    "neomme": {"head_dim": 16},
    "nllb-moe": {"encoder_sparse_step": 1, "decoder_sparse_step": 1},
    "pegasus": _SCALED,
    "pegasus_x": _SCALED,
    "plbart": _SCALED,
    "qwen3_5_moe_text": _MIXED,
    "qwen3_5_text": _MIXED,
    "qwen3_next": _MIXED,
    "roc_bert": {"pronunciation_embed_dim": 8, "shape_embed_dim": 8, "shape_vocab_size": 50},
    "switch_transformers": {"num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2},
    "t5gemma": {"encoder": _GEMMA, "decoder": _GEMMA},
    "xmod": {"default_language": "en_XX"},
    "youtu": _PARTS,
    "zamba": {
        "layers_block_type": ["mamba", "hybrid"],
        "n_mamba_heads": 2,
        "attention_head_dim": 16,
        "num_key_value_heads": 4,
        "mamba_d_state": 8,
    },
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid"],
        "n_mamba_heads": 4,
        "mamba_d_state": 8,
        "chunk_size": 16,
        "num_key_value_heads": 4,
        "adapter_rank": 8,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""What an architecture needs beside the sizes that most know by the same names."""

DECODERS = (
    *("bart", "bert", "blenderbot", "blenderbot-small", "camembert", "data2vec-text", "electra"),
    *("ernie", "marian", "mbart", "megatron-bert", "mvp", "pegasus", "plbart", "rembert"),
    *("roberta", "roberta-prelayernorm", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""Encoders and encoder-decoders that transformers knows as decoders too."""

NOT_BUILT = {
    "blt": "must be small",
    "cohere_compass_text": "full_attention",
    "dbrx": "rope_theta",
    "emu3": "vocab_size",
    "esmc": "must take inputs_embeds, but takes none",
    "fuyu": "must be small",
    "gemma4": "must be small",
    "gemma4_unified": "must be small",
    "neomme": "must take inputs_embeds, but takes none",
    "t5gemma2": "must be small",
    "zamba": "tie_weights_keys",
}
"""Types of which no tiny model was made, and what building one says."""

AS_DECODER = {"is_encoder_decoder": False, "is_decoder": True, "add_cross_attention": False}


def text_types() -> list[str]:
    """Return model types that a backbone may be of, in order."""
    found = []
    for kind in sorted(CONFIG_MAPPING.keys() & modeling_auto.MODEL_MAPPING_NAMES.keys()):
        try:
            find_family(AutoConfig.for_model(kind))
        except BackboneError:
            continue
        found.append(kind)
    return found


def build_any(kind: str, folder: Path, **overrides: Any) -> Path:
    """Build a tiny model of a type in `folder`, with a tokenizer that reads words in letters."""
    chosen = CONFIG_MAPPING[kind]
    known = {**inspect.signature(chosen.__init__).parameters, **vars(chosen())}
    known |= dict.fromkeys(chosen.attribute_map)
    options = {name: size for name, size in SIZES.items() if name in known}
    options |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = chosen(**{**options, **OPTIONS.get(kind, {}), **overrides})
    family = find_family(config)
    if family == "encoder-decoder" and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 2
    made = find_class(config, family, True)
    with torch.device("meta"):
        num_weights = sum(one.numel() for one in made(config).parameters())
    assert num_weights < _MOST_WEIGHTS, f"{kind} must be small, but has {num_weights} weights"
    with torch.random.fork_rng(devices=[]):
        model = made(config)
    scatter(model)
    model.save_pretrained(folder)
    build_tokenizer(KINDS["roberta"]).save_pretrained(folder)
    return folder
