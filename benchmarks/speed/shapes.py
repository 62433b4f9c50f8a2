"""The frozen models that are measured: the bundled ones, and random weights in well-known shapes.

A random model has a folder like any other: configuration, weights, and a tokenizer trained on the
task's own texts, since nothing may be downloaded. The cost of a step does not depend on what the
weights are.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.gguf import unpacked
from softprompts.backbones.registry import BACKBONES
from softprompts.backbones.sources import resolve

TOKENIZER_ROWS = 4000
BERT = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
T5 = {"vocab_size": 32128, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
T5_BASE = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
T5_LARGE = {"d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 24, "num_heads": 16}


@dataclass(frozen=True)
class Shape:
    """How a random model is built.

    Attributes:
        config: class of its configuration.
        model: class of the model.
        readout: our readout that is closest to what peft trains on it.
        sizes: fields of the configuration.
    """

    config: str
    model: str
    readout: str = "linear"
    sizes: dict[str, Any] = field(default_factory=dict)


SHAPES = {
    "bert-base": Shape("BertConfig", "BertModel", sizes={**BERT, "intermediate_size": 3072}),
    "t5-small": Shape("T5Config", "T5ForConditionalGeneration", "text", T5),
    "t5-base": Shape("T5Config", "T5ForConditionalGeneration", "text", {**T5, **T5_BASE}),
    "t5-large": Shape("T5Config", "T5ForConditionalGeneration", "text", {**T5, **T5_LARGE}),
    "gpt2-small": Shape("GPT2Config", "GPT2LMHeadModel"),
    "tiny-bert": Shape(
        "BertConfig",
        "BertModel",
        sizes={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
        },
    ),
    "tiny-t5": Shape(
        "T5Config",
        "T5ForConditionalGeneration",
        "text",
        {**T5, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    ),
    "tiny-gpt2": Shape(
        "GPT2Config", "GPT2LMHeadModel", sizes={"n_embd": 32, "n_layer": 2, "n_head": 4}
    ),
    "tiny-llama": Shape(
        "LlamaConfig",
        "LlamaForCausalLM",
        "text",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 64,
        },
    ),
}
"""Models by name; `minilm` and `smollm2` are bundled and need no shape. Sizes that are left out are
those of the configuration's own defaults, which are BERT-base, T5-small and GPT-2-small."""


def readout_of(name: str) -> str:
    """Return the readout that a model is measured with."""
    return SHAPES[name].readout if name in SHAPES else {"smollm2": "text"}.get(name, "linear")


def is_bundled(name: str) -> bool:
    """Return whether a model is loaded by its name."""
    return name in BACKBONES


def find_model(name: str, texts: Iterable[str], folder: Path) -> Path:
    """Return the folder of a model, building it in `folder` where it is random.

    Args:
        name: a bundled model, or a name of `SHAPES`.
        texts: what the tokenizer of a random model is trained on.
        folder: an empty or absent folder.
    """
    if (folder / "config.json").exists():
        return folder
    if is_bundled(name):
        source = resolve(name)
        if source.file is None:
            return source.folder
        with unpacked(source, "float32") as found:
            return Path(shutil.copytree(found.folder, folder))
    shape = SHAPES[name]
    tokenizer = _tokenizer(name, texts)
    config = getattr(transformers, shape.config)(**shape.sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, shape.model)(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def layer_parameters(backbone: Backbone) -> int:
    """Return the parameters of all layers that read the input.

    A decoder that reads an encoder makes keys and values of the encoder's output once per input
    token: these parameters count too, the rest of that decoder not.
    """
    crossed = [
        parameter
        for stack in backbone.stacks[1:]
        for layer in stack.layers
        for name, parameter in layer.named_parameters()
        if "EncDecAttention.k." in name or "EncDecAttention.v." in name
    ]
    reading = [p for layer in backbone.stacks[0].layers for p in layer.parameters()]
    return sum(parameter.numel() for parameter in [*reading, *crossed])


def _tokenizer(name: str, texts: Iterable[str]) -> transformers.PreTrainedTokenizerFast:
    """Train a byte-level tokenizer on texts, framed as the family frames its inputs."""
    if "bert" in name:
        roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
        frame = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    elif "t5" in name:
        roles = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
        frame = ("$A </s>", "$A </s> $B </s>")
    else:
        roles, frame = {"eos": "<|endoftext|>", "bos": "<|endoftext|>"}, None
    specials = list(dict.fromkeys(roles.values()))
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_ROWS,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if frame is not None:
        single, pair = frame
        known = [(token, backend.token_to_id(token)) for token in specials if token in pair]
        backend.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=known
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=512,
        **{f"{role}_token": token for role, token in roles.items()},
    )
