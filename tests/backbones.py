"""Tiny random backbones, one per architecture of the support table, built in a second each.

Weights and tokenizers are the same each time; the global generator is left as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = Path(__file__).parent / "data" / "corpus.txt"
VOCABULARY = 400
POSITIONS = 64

BERT = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
BERT |= {"pad_token": "[PAD]", "unk_token": "[UNK]"}
ROBERTA = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
ROBERTA |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
SENTINELS = tuple(f"<extra_id_{index}>" for index in range(10))


@dataclass(frozen=True)
class Kind:
    """How one tiny backbone is built.

    `frame` is the tokenizer's template for one text and a pair, in the notation of `tokenizers`.
    """

    config: str
    model: str
    style: str
    specials: dict[str, str]
    frame: tuple[str, str] | None
    options: dict[str, Any]
    extras: tuple[str, ...] = ()


def _plain(**more: Any) -> dict[str, Any]:
    """Return the sizes that most configurations call by the same names."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": POSITIONS}
    return {**sizes, **more}


CLS_SEP = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
CLS_SEP_ONE_TYPE = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]")
S_S = ("<s> $A </s>", "<s> $A </s> </s> $B </s>")
END = ("$A </s>", "$A </s> $B </s>")
BOS = ("<s> $A", "<s> $A <s> $B:1")
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
LIKE_T5 = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
LIKE_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
LIKE_GPT2 = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
LIKE_QWEN = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
LIKE_GEMMA = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}

KINDS: dict[str, Kind] = {
    "bert": Kind("BertConfig", "BertForMaskedLM", "wordpiece", BERT, CLS_SEP, _plain()),
    "roberta": Kind(
        "RobertaConfig",
        "RobertaForMaskedLM",
        "bytes",
        ROBERTA,
        S_S,
        _plain(max_position_embeddings=POSITIONS + 2, type_vocab_size=1),
    ),
    "albert": Kind(
        "AlbertConfig",
        "AlbertForMaskedLM",
        "metaspace",
        BERT,
        CLS_SEP,
        _plain(embedding_size=16),
    ),
    "deberta-v2": Kind(
        "DebertaV2Config",
        "DebertaV2ForMaskedLM",
        "metaspace",
        BERT,
        CLS_SEP,
        _plain(
            relative_attention=True,
            position_buckets=8,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            type_vocab_size=0,
            max_relative_positions=-1,
        ),
    ),
    "electra": Kind(
        "ElectraConfig",
        "ElectraForMaskedLM",
        "wordpiece",
        BERT,
        CLS_SEP,
        _plain(embedding_size=16),
    ),
    "modernbert": Kind(
        "ModernBertConfig",
        "ModernBertForMaskedLM",
        "bytes",
        BERT,
        CLS_SEP_ONE_TYPE,
        _plain(
            local_attention=8,
            layer_types=["full_attention", "sliding_attention"],
            bos_token_id=None,
            eos_token_id=None,
        ),
    ),
    "t5": Kind(
        "T5Config",
        "T5ForConditionalGeneration",
        "metaspace",
        LIKE_T5,
        END,
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 4,
            "relative_attention_num_buckets": 8,
            "feed_forward_proj": "gated-gelu",
            "decoder_start_token_id": 0,
        },
        SENTINELS,
    ),
    "bart": Kind(
        "BartConfig",
        "BartForConditionalGeneration",
        "bytes",
        ROBERTA,
        S_S,
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": POSITIONS,
            "scale_embedding": True,
            "forced_eos_token_id": None,
        },
    ),
    "gpt2": Kind(
        "GPT2Config",
        "GPT2LMHeadModel",
        "bytes",
        LIKE_GPT2,
        None,
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS},
    ),
    "llama": Kind(
        "LlamaConfig",
        "LlamaForCausalLM",
        "bytes",
        LIKE_LLAMA,
        BOS,
        _plain(num_key_value_heads=2, tie_word_embeddings=False),
    ),
    "qwen3": Kind(
        "Qwen3Config",
        "Qwen3ForCausalLM",
        "bytes",
        LIKE_QWEN,
        None,
        _plain(**GROUPED, tie_word_embeddings=True),
    ),
    "gemma3": Kind(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        "metaspace",
        LIKE_GEMMA,
        BOS,
        _plain(
            head_dim=8,
            num_key_value_heads=1,
            query_pre_attn_scalar=8,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
            tie_word_embeddings=True,
        ),
    ),
}


def build(kind: str, folder: Path, **overrides: Any) -> Path:
    """Build one tiny backbone in `folder`, weights and tokenizer, and return the folder.

    `overrides` change fields of the configuration.
    """
    recipe = KINDS[kind]
    tokenizer = build_tokenizer(recipe)
    known = {
        f"{role}_token_id": tokenizer.convert_tokens_to_ids(token)
        for role in ("pad", "bos", "eos", "cls", "sep")
        if (token := recipe.specials.get(f"{role}_token")) is not None
    }
    options = {"vocab_size": VOCABULARY, "pad_token_id": None, **known, **recipe.options}
    if recipe.config == "BartConfig":
        options["decoder_start_token_id"] = known["eos_token_id"]
    config = getattr(transformers, recipe.config)(**{**options, **overrides})
    with torch.random.fork_rng(devices=[]):
        model = getattr(transformers, recipe.model)(config)
    scatter(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def scatter(model: Any, seed: int = 0) -> None:
    """Draw all weights, wide enough that outputs visibly depend on inputs."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draws)
            if parameter.dim() > 1:
                parameter.copy_(0.2 * noise)
            else:
                parameter.add_(0.1 * noise)


def build_tokenizer(recipe: Kind) -> PreTrainedTokenizerFast:
    """Train a tokenizer of the recipe's style on the committed text."""
    specials = list(dict.fromkeys([*recipe.specials.values(), *recipe.extras]))
    backend = _STYLES[recipe.style](specials, recipe.specials.get("unk_token"))
    if recipe.frame is not None:
        single, pair = recipe.frame
        backend.post_processor = processors.TemplateProcessing(
            single=single,
            pair=pair,
            special_tokens=[
                (token, backend.token_to_id(token)) for token in specials if token in pair
            ],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        additional_special_tokens=list(recipe.extras),
        model_max_length=512,
        **recipe.specials,
    )


def _lines() -> list[str]:
    return CORPUS.read_text(encoding="utf-8").splitlines()


def _wordpiece(specials: list[str], unknown: str | None) -> Tokenizer:
    """Return whole words and single characters; the library's trainer varies from run to run."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    cutter = pre_tokenizers.BertPreTokenizer()
    words = Counter(
        word
        for line in _lines()
        for word, _ in cutter.pre_tokenize_str(normalizer.normalize_str(line))
    )
    letters = sorted(set("".join(words)))
    tokens = [*specials, *letters, *(f"##{letter}" for letter in letters)]
    tokens += sorted(words.keys() - set(letters), key=lambda word: (-words[word], word))
    vocabulary = {token: index for index, token in enumerate(tokens[: VOCABULARY - 8])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    backend.normalizer = normalizer
    backend.pre_tokenizer = cutter
    backend.decoder = decoders.WordPiece()
    return backend


def _bytes(specials: list[str], unknown: str | None) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 8,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_lines(), trainer)
    return backend


def _metaspace(specials: list[str], unknown: str | None) -> Tokenizer:
    backend = Tokenizer(models.BPE(unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 8, special_tokens=specials, show_progress=False
    )
    backend.train_from_iterator(_lines(), trainer)
    return backend


_STYLES: dict[str, Callable[[list[str], str | None], Tokenizer]] = {
    "wordpiece": _wordpiece,
    "bytes": _bytes,
    "metaspace": _metaspace,
}
