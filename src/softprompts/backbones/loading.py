"""Load a backbone: from a name to a frozen model that is known to be whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from logging import ERROR, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch

from softprompts.backbones.attention import IMPLEMENTATIONS
from softprompts.backbones.backbone import Backbone
from softprompts.backbones.families import (
    Family,
    choose_attention,
    find_class,
    find_family,
    names_head,
)
from softprompts.backbones.finding_fast import find_fast
from softprompts.backbones.frame import check_fast, set_padding
from softprompts.backbones.gguf import unpacked
from softprompts.backbones.given import take_model
from softprompts.backbones.placing import check_device, check_modules, check_spreading
from softprompts.backbones.probing import read_once
from softprompts.backbones.quantized import check_quantized
from softprompts.backbones.registry import Source
from softprompts.backbones.sources import check_folder, fingerprint, first_line, resolve
from softprompts.collecting import uncollected
from softprompts.errors import BackboneError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO = "auto"
_NUM_NAMED_KEYS = 3


@uncollected()
@torch.inference_mode(False)
def load_backbone(
    name: str | Path | PreTrainedModel,
    *,
    tokenizer: Any = None,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
    attention: str | None = None,
    gradient_checkpointing: bool = False,
    compile: bool = False,
    device_map: str | Mapping[str, int | str] | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
) -> Backbone:
    """Load a frozen backbone, or take a model that is there already.

    The language head is loaded when the configuration names one and the weights hold it. Weights
    are read from safetensors or GGUF only; code that comes with a model is never run.

    Args:
        name: a registered short name such as `smollm2`, a local folder, a GGUF file, or a hub id;
            or a model of transformers, which must be frozen and in evaluation mode and is never
            changed.
        tokenizer: the tokenizer of a model that is given; for a name it must be left out.
        revision: branch, tag or commit of a hub id.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`; see `choose_dtype`. By default float32;
            of a model that is given its own, as are device and attention.
        device: a torch device such as `cpu`, the default, or `cuda:0`.
        attention: `eager`, `sdpa`, `flash_attention_2`, `plain` or `fused`. By default for bfloat16
            on the CPU `fused` where that can be compiled and layers are not, else `plain`; for all
            else `sdpa` where the model has it.
        gradient_checkpointing: compute layers again in the backward pass, to save memory.
        compile: compile layers with torch.compile where gradients are taken, without graph breaks;
            the first updates take seconds to minutes.
        device_map: spreads the model over devices, as transformers does: `auto`, `balanced`,
            `balanced_low_0`, `sequential`, or devices by module; `device` must then be `cpu` or
            that of the embeddings, and `compile` false.
        max_memory: most memory by device, for a map that is made.

    Returns:
        The backbone.

    Raises:
        BackboneError: if the name cannot be found, or what is found or given cannot be a backbone;
            the text says why in one line.
    """
    dtype = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype
    if not isinstance(name, str | Path):
        places = {"revision": revision, "device_map": device_map, "max_memory": max_memory}
        _check_left_out({**places, "compile": compile or None}, "a given model")
        wanted = {"dtype": dtype, "device": device, "attention": attention}
        return take_model(name, tokenizer, wanted, gradient_checkpointing)
    _check_left_out({"tokenizer": tokenizer}, "a name, which brings its own")
    if dtype not in (*DTYPES, AUTO, None):
        known = ", ".join((*DTYPES, AUTO))
        raise BackboneError(f"dtype must be one of {known}, but is {dtype!r}.")
    if attention is not None and attention not in IMPLEMENTATIONS:
        raise BackboneError(
            f"attention must be one of {', '.join(IMPLEMENTATIONS)}, but is {attention!r}."
        )
    place = check_device(device or "cpu")
    dtype = choose_dtype(place) if dtype == AUTO else dtype or "float32"
    spreading = check_spreading(device_map, max_memory, compile)
    _check_fast(attention, compile)
    fast = find_fast()
    quickest = fast.choose_attention(dtype, place, compile) if fast else "sdpa"
    placing = _Placing(dtype, place, attention or quickest, attention is not None, spreading)
    return _load(str(name), revision, placing, gradient_checkpointing, compile)


def _check_left_out(options: Mapping[str, Any], kind: str) -> None:
    """Check that options are `None`."""
    for field, value in options.items():
        if value is not None:
            found = " ".join(repr(value).split())
            raise BackboneError(f"`{field}` must be left out for {kind}, but is {found:.60}.")


def _load(
    name: str, revision: str | None, placing: _Placing, has_checkpointing: bool, is_compiled: bool
) -> Backbone:
    """Load a backbone by its name; see `load_backbone`."""
    with quiet(), unpacked(resolve(name, revision), placing.dtype) as source:
        content = check_folder(source)
        config = _load_config(source, content, is_compiled)
        family = find_family(config)
        tokenizer = _load_tokenizer(source, config)
        model, has_language_head = _load_model(source, config, family, placing)
        identity = fingerprint(source, content)
    set_padding(tokenizer, model)
    is_moved = not placing.spreading and placing.device.type != "cpu"
    with _reported(source, "model"):
        backbone = Backbone(
            name,
            family,
            model.to(placing.device) if is_moved else model,
            tokenizer,
            has_language_head,
            identity,
            has_checkpointing,
            is_compiled,
            revision,
        )
        _check_as_asked(backbone, content, placing)
        check_quantized(backbone, has_language_head)
    backbone.reload = partial(_load, name, revision, placing, has_checkpointing, is_compiled)
    is_plain = backbone.quantization is None and not placing.spreading and not is_compiled
    if is_plain and placing.device.type == "cpu" and (fast := find_fast()) is not None:
        fast.prepack(model, partial(read_once, backbone, needs_head=has_language_head))
    return backbone


def _check_as_asked(backbone: Backbone, content: dict[str, Any], placing: _Placing) -> None:
    """Check that transformers did what quantized weights ask for, and not something else."""
    if content.get("quantization_config") and backbone.quantization is None:
        method = content["quantization_config"].get("quant_method", "unknown")
        raise BackboneError(
            "quantization_config must be of a kind that transformers loads on this machine, but "
            f"is of {method!r}."
        )
    if backbone.dtype != DTYPES[placing.dtype]:
        found = str(backbone.dtype).removeprefix("torch.")
        raise BackboneError(
            f"dtype must be {found}, which quantized weights come in, but is {placing.dtype!r}."
        )


@final
@dataclass(frozen=True)
class _Placing:
    """How and where weights are held.

    Where the caller named no attention, another takes its place in a model that cannot have it.
    `spreading` is what transformers is told of it; empty where nothing is spread.
    """

    dtype: str
    device: torch.device
    attention: str
    is_asked: bool
    spreading: Mapping[str, Any]


def _check_fast(attention: str | None, is_compiled: bool) -> None:
    """Check that attention and compiled layers can be had, if they are asked for."""
    fast = find_fast()
    if is_compiled and fast is None:
        raise BackboneError("compile must be False without softprompts.fast, but is True.")
    if attention == "fused" and is_compiled:
        raise BackboneError("attention must not be 'fused' with compile, whose graphs it breaks.")
    reason = None if attention not in ("plain", "fused") else "softprompts.fast is not there."
    if fast is not None:
        reason = fast.why_not(attention)
    if reason is not None:
        raise BackboneError(f"attention must not be {attention!r} on this machine: {reason}")


def choose_dtype(device: torch.device) -> str:
    """Return `bfloat16` where the device computes in it natively, else `float32`.

    On a processor without such instructions bfloat16 is emulated and slower than float32.
    """
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    has_list = device.type == "cpu" and hasattr(torch.cpu, "get_capabilities")
    able: Mapping[str, Any] = torch.cpu.get_capabilities() if has_list else {}
    return "bfloat16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32"


def _load_config(source: Source, content: dict[str, Any], is_compiled: bool) -> Any:
    from transformers import AutoConfig

    if "quantization_config" in content and is_compiled:
        raise BackboneError(
            f"backbone {source.name!r} must hold plain weights to be compiled, but has a "
            "quantization_config: leave out compile."
        )
    with _reported(source, "configuration"):
        config = AutoConfig.from_pretrained(
            source.folder, local_files_only=True, trust_remote_code=False
        )
    config.return_dict = True
    return config


def _load_tokenizer(source: Source, config: Any) -> Any:
    from transformers import AutoTokenizer

    with _reported(source, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            source.folder, config=config, local_files_only=True, trust_remote_code=False
        )
    check_fast(tokenizer, source.name)
    names = sorted(set(tokenizer.vocab_files_names.values()))
    if not any((source.folder / name).is_file() for name in names):
        raise BackboneError(
            f"backbone {source.name!r}: {source.folder} must have a tokenizer, but has none of "
            f"{', '.join(names)}."
        )
    return tokenizer


def _load_model(source: Source, config: Any, family: Family, placing: _Placing) -> tuple[Any, bool]:
    """Return the model, and whether it has a trained language head."""
    for with_head in (True, False) if names_head(config) else (False,):
        chosen = find_class(config, family, with_head)
        model, missing = _load_weights(source, config, chosen, placing)
        heads = {key for key in missing if _is_head(key, model)}
        absent = sorted(key for key in missing - heads if "pooler" not in key.split("."))
        if absent:  # a pooler is never read
            shown = ", ".join(absent[:_NUM_NAMED_KEYS])
            raise BackboneError(
                f"backbone {source.name!r} must have all weights of {chosen.__name__}, but lacks "
                f"{len(absent)}: {shown}{' …' if len(absent) > _NUM_NAMED_KEYS else ''}."
            )
        if with_head and not heads:
            return model, True
    return model, False


def _load_weights(
    source: Source, config: Any, chosen: Any, placing: _Placing
) -> tuple[Any, set[str]]:
    """Return a model and the keys that its files lack."""
    attention = choose_attention(chosen, placing.attention, placing.is_asked)
    options: dict[str, Any] = dict(placing.spreading)
    if "add_pooling_layer" in chosen.__init__.__code__.co_varnames:
        options["add_pooling_layer"] = False
    with _reported(source, "model"), torch.random.fork_rng(devices=[]):
        check_modules(placing.spreading.get("device_map"), lambda: chosen(config))
        model, report = chosen.from_pretrained(
            source.folder,
            config=config,
            dtype=DTYPES[placing.dtype],
            attn_implementation=IMPLEMENTATIONS[attention],
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    if (fast := find_fast()) is not None:
        fast.fuse(model, attention)
    return model, set(report["missing_keys"])


def _is_head(key: str, model: Any) -> bool:
    """Return whether a weight belongs to the head, not to the body."""
    if model.base_model is not model:
        return not key.startswith(model.base_model_prefix + ".")
    return key.startswith(("lm_head.", "final_logits_bias"))


@contextmanager
def _reported(source: Source, part: str) -> Iterator[None]:
    """Turn what transformers raises while loading into one line."""
    try:
        yield
    except Exception as error:  # any of a dozen kinds, by what is wrong and version
        if isinstance(error, BackboneError):
            named = f"backbone {source.name!r}"
            text = str(error)
            raise BackboneError(text if text.startswith(named) else f"{named}: {text}") from error
        raise BackboneError(
            f"backbone {source.name!r}: the {part} in {source.folder} must be loadable, but "
            f"is not: {first_line(error)}"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' bars and reports off the terminal; what matters is checked and raised."""
    from transformers.utils import logging

    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    spreader = getLogger("accelerate.big_modeling")  # says that weights on disk are not in memory
    own = spreader.level
    spreader.setLevel(ERROR)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        spreader.setLevel(own)
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()
