"""Prompts as adapters of peft, and its adapters as prompts."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.loading import load_backbone
from softprompts.backbones.memory import Slot
from softprompts.errors import BackboneError, PromptError, StorageError
from softprompts.interop.baked import Baked, bake_task, check_exported
from softprompts.interop.destination import new_places
from softprompts.model import SoftPromptModel
from softprompts.prompts.depths.every_layer import EveryLayerDepth
from softprompts.recipes.schema import PromptConfig
from softprompts.results import Result
from softprompts.storage import ADAPTER_FILE, read_record, read_tensors, write_json
from softprompts.training.trainable import Track

CONFIG_FILE = "adapter_config.json"
ROWS = "prompt_embeddings"

_TASK_TYPES = {
    "decoder": "CAUSAL_LM",
    "encoder-decoder": "SEQ_2_SEQ_LM",
    "encoder": "FEATURE_EXTRACTION",
}


def export_peft(result: Result, folder: str | Path) -> dict[str, Any]:
    """Write a run's prompts as adapters of peft, one per task.

    Rows in the input become `PROMPT_TUNING`, rows in every layer `PREFIX_TUNING`. Of a run of
    several tasks, each has a folder of its own.

    Returns what `softprompts.json` in the folder says.

    Raises:
        BackboneError: if peft is missing, or the run has trained some of the backbone.
        PromptError: if peft's rows cannot do what the prompt's do.
        RunFolderError: if the place is taken.
    """
    if importlib.util.find_spec("peft") is None:
        raise BackboneError(
            "the package peft must be installed for --to peft, but is not: install softprompts "
            "with its extra `lora`."
        )
    check_exported(result)
    backbone, tracks = result.backbone, result.model.tracks
    adapters = {name: _adapter(backbone, track) for name, track in tracks.items()}
    is_single = len(tracks) == 1
    about = {
        "task": " + ".join(track.format.name for track in tracks.values()),
        "identity": result.about["identity"],
        "backbone": backbone.name,
        "adapters": {name: "." if is_single else name for name in tracks},
        "templates": {name: track.readout.template.source for name, track in tracks.items()},
        "first_position": None,
        "left_out": ["readout"] if result.config.readout.kind == "linear" else [],
    }
    first, _ = next(iter(adapters.values()))
    if backbone.family == "encoder" and first.peft_type == "PREFIX_TUNING":
        # what `position_ids` must begin with, since peft adds the number of rows to them
        about["first_position"] = backbone.first_position - int(first.num_virtual_tokens)
    with new_places(Path(folder)) as (place,):
        for name, (config, rows) in adapters.items():
            own = place / about["adapters"][name]
            own.mkdir(parents=True, exist_ok=True)
            config.save_pretrained(str(own))
            save_file({ROWS: rows.cpu().contiguous()}, own / ADAPTER_FILE)
        write_json(place / "softprompts.json", about)
    return about


def _adapter(backbone: Backbone, track: Track) -> tuple[Any, Tensor]:
    """Return peft's configuration and rows of one task."""
    from peft import PrefixTuningConfig, PromptTuningConfig

    baked = bake_task(track)
    given: dict[str, Any] = {
        "task_type": _TASK_TYPES[backbone.family],
        "base_model_name_or_path": backbone.name,
        "inference_mode": True,
        "num_transformer_submodules": 1,
        "num_layers": backbone.model.config.num_hidden_layers,
    }
    if not baked.prefixes:
        _check_in_front(backbone, track, baked)
        given |= {"num_virtual_tokens": len(baked.rows), "token_dim": backbone.embedding_size}
        return PromptTuningConfig(**given, num_attention_heads=1), baked.rows
    heads, size = _check_layers(backbone, baked)
    pairs = [
        states[0].transpose(0, 1).flatten(1)  # (length, heads * size)
        for slot in sorted(baked.prefixes, key=lambda slot: slot.number)
        for states in (baked.prefixes[slot].keys, baked.prefixes[slot].values)
    ]
    rows = torch.cat(pairs, dim=1).detach().float()
    config = PrefixTuningConfig(
        **given, num_virtual_tokens=len(rows), token_dim=heads * size, num_attention_heads=heads
    )
    return config, rows


def _check_in_front(backbone: Backbone, track: Track, baked: Baked) -> None:
    """Check that all rows stand before all tokens, and are read as peft reads them."""
    if baked.num_front < len(baked.rows):
        raise PromptError(
            f"all {len(baked.rows)} rows must stand in front of the input for --to peft, but "
            f"{len(baked.rows) - baked.num_front} stand elsewhere: peft has no other place. "
            "`--to vocabulary` takes them."
        )
    if backbone.embedding_scale != 1:
        raise PromptError(
            f"embeddings of {backbone.name} must be scaled in its table for --to peft, but are "
            "scaled behind it, which peft leaves out."
        )
    is_behind = backbone.family != "decoder" or track.prompt.position.after_bos
    if backbone.frame.prefix and is_behind:
        token = backbone.tokenizer.decode(backbone.frame.prefix)
        raise PromptError(
            f"rows must stand before all tokens for --to peft, but stand behind {token!r} of "
            f"{backbone.name}: peft has no other place. `--to vocabulary` takes them."
        )


def _check_layers(backbone: Backbone, baked: Baked) -> tuple[int, int]:
    """Return heads and their size, where every layer has rows and peft reads them alike."""
    slots = list(baked.prefixes)
    shapes = {(slot.heads, slot.size) for slot in slots}
    if backbone.family == "encoder-decoder":
        reason = "are in the encoder, where peft has none"
    elif len(slots) < backbone.model.config.num_hidden_layers:
        reason = f"are in {len(slots)} of {backbone.model.config.num_hidden_layers} layers"
    elif len(shapes) > 1:
        reason = "differ in size between layers"
    elif _has_narrow_window(backbone, slots):
        reason = "are seen past a sliding window, which peft's leave"
    else:
        return shapes.pop()
    raise PromptError(f"rows must be in all layers alike for --to peft, but {reason}.")


def _has_narrow_window(backbone: Backbone, slots: Iterable[Slot]) -> bool:
    """Return whether some attention cannot see the whole context."""
    windows = [slot.window for slot in slots if slot.window is not None]
    return any(backbone.context_length is None or one < backbone.context_length for one in windows)


def from_peft(
    folder: str | Path,
    backbone: Backbone | str | None = None,
    *,
    task: int = 0,
    with_logits: bool | None = None,
) -> SoftPromptModel:
    """Load a prompt that peft has trained.

    `PROMPT_TUNING` and `P_TUNING` become rows in front of all tokens, `PREFIX_TUNING` rows in every
    layer, and of `MULTITASK_PROMPT_TUNING` those of one task. They can be trained on.

    Args:
        folder: what `save_pretrained` of peft wrote.
        backbone: the frozen model, or its name; `None` loads the one that the folder names.
        task: the number of the task, of `MULTITASK_PROMPT_TUNING`.
        with_logits: see `SoftPromptModel`; wherever there is a language head when `None`.

    Returns:
        Backbone and prompt.

    Raises:
        PromptError: if the library has no rows that do what peft's do; the text says why.
        StorageError: if a file is missing or broken.
    """
    folder = Path(folder)
    about = read_record(folder / CONFIG_FILE, ["peft_type", "base_model_name_or_path"])
    kind = about["peft_type"]
    if kind not in ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING"):
        raise PromptError(
            "`peft_type` must be PROMPT_TUNING, P_TUNING, PREFIX_TUNING or "
            f"MULTITASK_PROMPT_TUNING, but is {kind!r}."
        )
    rows = _rows(folder, about, task)
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone or about["base_model_name_or_path"])
    _check_taken(backbone, kind == "PREFIX_TUNING")
    method = "p-tuning-v2" if kind == "PREFIX_TUNING" else "prompt-tuning"
    config = PromptConfig(method=method, length=len(rows), unit="absolute")
    with_logits = backbone.has_language_head if with_logits is None else with_logits
    model = SoftPromptModel(backbone, config, with_logits=with_logits)
    depth, widths = model.prompt.depth, [backbone.embedding_size]
    if isinstance(depth, EveryLayerDepth):
        widths = [2 * slot.width for slot in depth.slots]
    expected = (len(rows), sum(widths))
    if tuple(rows.shape) != expected:
        raise PromptError(
            f"{ROWS} must have shape {expected} for {backbone.name}, but have {tuple(rows.shape)}."
        )
    parts = torch.split(rows, widths, dim=1)
    with torch.no_grad():
        for parameter, part in zip(model.parameters(), parts, strict=True):
            parameter.copy_(part if depth.is_input else torch.cat(part.chunk(2, dim=1)))
    return model


def _rows(folder: Path, about: Mapping[str, Any], task: int) -> Tensor:
    """Return the rows that an adapter gives the encoder or decoder. Shape `(length, width)`."""
    tensors, _ = read_tensors(folder / ADAPTER_FILE)
    if ROWS not in tensors:
        found = ", ".join(sorted(tensors)) or "nothing"
        raise StorageError(f"{folder / ADAPTER_FILE} must hold {ROWS}, but holds {found}.")
    rows, count = tensors[ROWS].float(), about.get("num_virtual_tokens")
    if not isinstance(count, int) or not 1 <= count <= (len(rows) if rows.ndim else 0):
        raise StorageError(
            f"`num_virtual_tokens` of {folder / CONFIG_FILE} must be the number of rows, "
            f"{tuple(rows.shape)[:1]}, or fewer, but is {count!r:.60}."
        )
    if about["peft_type"] == "MULTITASK_PROMPT_TUNING":
        missing = [key for key in ("prefix_task_cols", "prefix_task_rows") if key not in tensors]
        if missing:
            raise StorageError(f"{folder / ADAPTER_FILE} must hold {missing[0]}, but does not.")
        submodules = about.get("num_transformer_submodules")
        if about.get("task_type") == "SEQ_2_SEQ_LM" and submodules != 1:
            raise PromptError(
                "`num_transformer_submodules` of MULTITASK_PROMPT_TUNING must be 1, but is "
                f"{submodules}: rows stand in the encoder's input alone."
            )
        columns, lines = tensors["prefix_task_cols"], tensors["prefix_task_rows"]
        if not 0 <= task < len(columns):
            raise PromptError(f"`task` must be 0 to {len(columns) - 1}, but is {task}.")
        rows = rows * (columns[task] @ lines[task]).float()
    elif task:
        raise PromptError(f"`task` must be 0 for {about['peft_type']}, but is {task}.")
    return rows[:count]


def _check_taken(backbone: Backbone, is_prefix: bool) -> None:
    """Check that the library has rows that do what peft's do in front of a backbone."""
    if not is_prefix:
        if backbone.embedding_scale != 1:
            raise PromptError(
                f"embeddings of {backbone.name} must be scaled in its table for rows of peft, but "
                "are scaled behind it, which peft leaves out."
            )
        if backbone.family != "decoder" and backbone.frame.prefix:
            token = backbone.tokenizer.decode(backbone.frame.prefix)
            raise PromptError(
                f"rows of peft must have no token of {backbone.name} before them here, but peft "
                f"puts them before {token!r}, where no rows stand. As the initializer `file` they "
                "start behind it."
            )
        return
    if backbone.family != "decoder":
        raise PromptError(
            "`peft_type` must be PROMPT_TUNING or P_TUNING for an encoder or encoder-decoder, but "
            "is PREFIX_TUNING: peft moves the tokens of one, and reaches only the decoder of the "
            "other."
        )
    if _has_narrow_window(backbone, backbone.slots):
        raise PromptError(
            f"layers of {backbone.name} must have no sliding window for PREFIX_TUNING, but have "
            "one, which rows of peft leave and rows here do not."
        )
