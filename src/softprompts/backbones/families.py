"""How a transformer is built, which of its modules a backbone needs, and what none can be of."""

from __future__ import annotations

import inspect
import sys
from typing import Any, Literal

from torch import Tensor, nn

from softprompts.errors import BackboneError

Family = Literal["encoder", "encoder-decoder", "decoder"]

_HEAD_ENDINGS = (
    "ForMaskedLM",
    "ForPreTraining",
    "ForCausalLM",
    "LMHeadModel",
    "WithLMHead",
    "ForConditionalGeneration",
    "MTModel",
)
_OURS = ("plain", "fused")
_MULTIMODAL_PARTS = ("vision_config", "audio_config", "speech_config")

_READS_MASKED = "its states change with what stands at masked positions"

REFUSED: dict[str, str] = {
    "bert-generation": "it is filed as a decoder but reads later positions by default",
    "big_bird": "one short input turns its sparse attention off for all later inputs",
    "bigbird_pegasus": "one short input turns its sparse attention off for all later inputs",
    "convbert": f"{_READS_MASKED} (convolutions)",
    "cpmant": "it takes token ids only",
    "ctrl": "it overwrites its input embeddings in place",
    "deepseek_v4": "its first layers choose experts by token id, which rows have none of",
    "encoder-decoder": "it joins two models, each with a tokenizer of its own",
    "esm": "it rescales embeddings when it is given token ids, but not when it is given embeddings",
    "fnet": "it mixes positions by a Fourier transform, which takes no attention mask",
    "fsmt": "its encoder does not tell which table embeds the input",
    "funnel": f"{_READS_MASKED} (pooling of neighbours)",
    "hrm_text": "it gives the gradient of its last iterations only",
    "ibert": "it needs the scale that only its own look-up of token ids gives",
    "llama4_text": "its body cannot be told from its head",
    "mobilebert": f"{_READS_MASKED} (embeddings of three neighbours)",
    "mra": "its attention has a gradient only with a kernel that it downloads",
    "nystromformer": f"{_READS_MASKED} (landmarks)",
    "perceiver": "it takes no input embeddings",
    "recurrent_gemma": f"{_READS_MASKED} (recurrence)",
    "prophetnet": "its decoder gives the states of two streams behind each other",
    "reformer": "its gradient works in training mode only",
    "roc_bert": "it changes its input embeddings in place, which leaves them without a gradient",
    "rwkv": f"{_READS_MASKED} (recurrence)",
    "seamless_m4t": "it reads speech too",
    "seamless_m4t_v2": "it reads speech too",
    "xlnet": "it is filed as a decoder but reads later positions unless it is given a permutation",
    "xlstm": "it takes no attention mask",
    "yoso": f"{_READS_MASKED} (convolutions)",
}


def find_family(config: Any) -> Family:
    """Return the family of a model's configuration.

    Models that cannot carry soft prompts are refused, with the reason.
    """
    from transformers.models.auto import modeling_auto

    kind = config.model_type
    if kind in REFUSED:
        raise BackboneError(f"model type {kind!r} cannot be a backbone: {REFUSED[kind]}.")
    parts = [part for part in _MULTIMODAL_PARTS if getattr(config, part, None) is not None]
    if parts:
        raise BackboneError(
            f"model type {kind!r} cannot be a backbone: it is not a text model alone (it has "
            f"{', '.join(parts)}); save its text model by itself."
        )
    if getattr(config, "hidden_size_per_layer_input", None):
        raise BackboneError(
            f"model type {kind!r} cannot be a backbone: each layer looks up embeddings of its own "
            "by token id (hidden_size_per_layer_input), and rows of a prompt have none."
        )
    if getattr(config, "is_encoder_decoder", False):
        if kind in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
            return "encoder-decoder"
    elif kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "decoder" if getattr(config, "is_decoder", False) else "encoder"
    elif kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "decoder"
    raise BackboneError(
        f"model type {kind!r} cannot be a backbone: transformers knows it neither as a masked, "
        "causal nor text-to-text language model."
    )


def names_head(config: Any) -> bool:
    """Return whether one of `config.architectures` is a class with a language head."""
    return any(name.endswith(_HEAD_ENDINGS) for name in config.architectures or ())


def find_class(config: Any, family: Family, with_head: bool) -> Any:
    """Return the model class of a configuration.

    Its forward must take input embeddings and an attention mask.
    """
    from transformers.models.auto import modeling_auto

    heads = {
        "encoder": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING,
        "encoder-decoder": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        "decoder": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING,
    }
    mapping = heads[family] if with_head else modeling_auto.MODEL_MAPPING
    chosen = mapping[type(config)]
    chosen = chosen[0] if isinstance(chosen, tuple | list) else chosen
    takes = inspect.signature(chosen.forward).parameters
    for argument in ("inputs_embeds", "attention_mask"):
        if argument not in takes:
            raise BackboneError(
                f"model type {config.model_type!r} cannot be a backbone: the forward of "
                f"{chosen.__name__} must take {argument}, but takes none."
            )
    return chosen


def choose_attention(chosen: Any, attention: str, is_asked: bool) -> str:
    """Return the implementation of attention that a model of a class is loaded with.

    Where it was not asked for, `sdpa` or `eager` takes its place if the class cannot have it.
    """
    home = sys.modules[chosen.__module__]
    is_ours, has_interface = attention in _OURS, hasattr(home, "ALL_ATTENTION_FUNCTIONS")
    if is_asked and is_ours and not has_interface:
        raise BackboneError(
            "attention must be eager or sdpa where it does not go through transformers' attention "
            f"interface, as that of {chosen.__name__} does not, but is {attention!r}."
        )
    if is_asked or (chosen._supports_sdpa and (has_interface or not is_ours)):
        return attention
    return "sdpa" if chosen._supports_sdpa else "eager"


def context_length(body: nn.Module) -> int | None:
    """Return how many positions a body may read, or `None` when the configuration sets no limit.

    Tables of positions that keep a padding row, as RoBERTa's, start counting behind it.
    """
    table = _padded_positions(body)
    if table is not None:
        return int(table.num_embeddings) - first_position(body)
    return _first_limit(body, "max_encoder_position_embeddings", "max_position_embeddings")


def first_position(body: nn.Module) -> int:
    """Return what a body calls its first position; see `context_length`."""
    table = _padded_positions(body)
    return 0 if table is None or table.padding_idx is None else int(table.padding_idx) + 1


def _padded_positions(body: nn.Module) -> nn.Embedding | None:
    """Return the table of positions that keeps a row for padding; `None` where there is none."""
    tables = (
        module
        for name, module in body.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings")
    )
    return next((table for table in tables if table.padding_idx is not None), None)


def decoder_length(model: nn.Module) -> int | None:
    """Return how many positions the decoder of an encoder-decoder may read, or `None`."""
    return _first_limit(model, "max_decoder_position_embeddings", "max_position_embeddings")


def _first_limit(model: nn.Module, *names: str) -> int | None:
    limits = (getattr(model.config, name, None) for name in names)
    return next((one for one in limits if isinstance(one, int) and one > 0), None)


def find_body(model: Any, family: Family) -> Any:
    """Return the part that turns input embeddings into states."""
    if family == "encoder-decoder":
        return model.get_encoder()
    body = model.base_model
    return body if family == "encoder" or body is model else body.get_decoder()


def find_table(body: Any) -> nn.Module:
    """Return the module of a body that embeds token ids."""
    try:
        table = body.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        table = None
    if not isinstance(table, nn.Module) or not isinstance(getattr(table, "weight", None), Tensor):
        raise BackboneError(
            f"the body must have a table of input embeddings, but {type(body).__name__} has none."
        )
    return table


def takes(module: nn.Module, argument: str) -> bool:
    """Return whether a module's forward has an argument."""
    return argument in inspect.signature(module.forward).parameters


def without_cache(module: nn.Module) -> dict[str, bool]:
    """Return the argument that turns the key/value cache off, for a module that has one."""
    return {"use_cache": False} if takes(module, "use_cache") else {}
