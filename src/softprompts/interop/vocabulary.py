"""Rows as words: a model folder whose last tokens are the rows of a trained prompt.

Any program that serves the model then does the task from text alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.loading import quiet
from softprompts.errors import BackboneError, PromptError
from softprompts.interop.baked import bake_task, check_exported
from softprompts.interop.destination import new_places
from softprompts.interop.gguf import check_gguf, write_gguf
from softprompts.interop.probes import Probe, library_logits, read_probes, stands_before_bos
from softprompts.interop.task_text import TaskText, write_task
from softprompts.interop.words import describe, table_of, table_with_rows, with_words
from softprompts.results import Result
from softprompts.storage import write_bytes, write_json

ABOUT_FILE, TEMPLATE_FILE = "softprompts.json", "prompt_template"


def export_vocabulary(
    result: Result, folder: str | Path, task: str | None = None, gguf: str | Path | None = None
) -> dict[str, Any]:
    """Write a model folder in which the rows of a run's prompt are tokens.

    The head is untied and knows no new words: logits of all others stay as they are.

    Returns what `softprompts.json` in the folder says.

    Args:
        result: a finished run with the readout `text`, `writing` or `cloze`.
        folder: a new or empty folder.
        task: the task of a run of several.
        gguf: a new file for the same model as GGUF, of Llama's shape only.

    Raises:
        BackboneError: if the backbone cannot be written, or not as GGUF.
        PromptError: if the prompt is not the same for every input, or stands where text cannot.
        DataError: if the template is not read alike as text.
        RunFolderError: if a place is taken.
    """
    check_exported(result)
    backbone, track = result.backbone, result.model.track(task)
    head = _head(backbone)
    if gguf is not None:
        check_gguf(backbone)
    baked = bake_task(track, "--to vocabulary")
    tokenizer, words, ids = with_words(backbone, baked)
    probes = read_probes(backbone, track, baked.rows, ids)
    if stands_before_bos(backbone, probes):
        raise PromptError(
            "`prompt.position` must have after_bos: true for --to vocabulary, but is before the "
            f"token that texts of {backbone.name} begin with, which servers put first. Train with "
            "it, or use --to embeds."
        )
    text = write_task(backbone, (track, baked), words, tokenizer, probes)
    expected = [library_logits(backbone, probe) for probe in probes]
    state = _state(backbone, head, (baked.rows, ids), expected)
    with new_places(Path(folder), *([] if gguf is None else [Path(gguf)])) as (place, *files):
        with quiet():
            _save(backbone, place, state, (tokenizer, text), ids)
            difference = _difference(backbone, place, probes, expected)
        about = {**describe(result, track, words, ids, text), "max_difference": difference}
        write_json(place / ABOUT_FILE, about)
        for file in files:
            write_gguf(place, file)
    return about


def _head(backbone: Backbone) -> Any:
    """Return the language head."""
    if backbone.quantization is not None or backbone.is_spread:
        found = backbone.quantization or "on several devices"
        raise BackboneError(
            f"backbone {backbone.name!r} must have plain weights in one place to be written, but "
            f"they are {found}."
        )
    head = backbone.model.get_output_embeddings() if backbone.has_language_head else None
    if head is None:
        raise BackboneError(
            f"backbone {backbone.name!r} must have a language head for --to vocabulary, but has "
            "none."
        )
    return head


@torch.no_grad()
def _state(
    backbone: Backbone,
    head: Any,
    given: tuple[Tensor, Sequence[int]],
    logits: Sequence[Tensor],
) -> dict[str, Tensor]:
    """Return all weights with rows in the table, and an untied head that gives them no chance.

    A new word has the head's row of the word that is least likely anywhere on the probes.
    """
    table = table_of(backbone)
    chances = torch.cat([one.softmax(dim=-1) for one in logits]).amax(dim=0)
    quiet = int(chances[: min(len(backbone.tokenizer), len(table))].argmin())
    new_table = table_with_rows(backbone, *given)
    num_new = len(new_table) - len(table)

    def grown(old: Tensor) -> Tensor:
        return torch.cat([old, old[[quiet] * num_new]])

    new_head = grown(head.weight.detach().clone())
    bias = None if getattr(head, "bias", None) is None else grown(head.bias.detach())
    heads = [f"{n}.weight" for n, module in backbone.model.named_modules() if module is head]
    state = dict(backbone.model.state_dict())
    for name, tensor in state.items():  # copies, since nothing is tied when it is loaded again
        if name in heads:
            state[name] = new_head
        elif tensor.data_ptr() == table.data_ptr():
            state[name] = new_table.clone()
        elif bias is not None and tensor.data_ptr() == head.bias.data_ptr():
            state[name] = bias.clone()
        elif name == "final_logits_bias":
            state[name] = grown(tensor[0])[None]
    return state


def _save(
    backbone: Backbone,
    folder: Path,
    state: dict[str, Tensor],
    given: tuple[Any, TaskText],
    ids: Sequence[int],
) -> None:
    """Write weights, configuration, tokenizer and templates."""
    tokenizer, text = given
    model, config = backbone.model, copy.deepcopy(backbone.model.config)
    config.vocab_size = max(config.vocab_size, 1 + max(ids))
    if not hasattr(config, "scale_decoder_outputs"):  # T5 takes it for another switch
        config.tie_word_embeddings = False
    if hasattr(config, "quantization_config"):  # of the file that plain weights came from
        del config.quantization_config
    config._attn_implementation = "eager"  # ours is known nowhere else
    with torch.device("meta"):
        shell = type(model)(config)
    settings = copy.deepcopy(model.generation_config) if model.can_generate() else None
    shell.save_pretrained(folder, state_dict=state)
    if settings is not None:
        settings.suppress_tokens = sorted({*(settings.suppress_tokens or ()), *ids})
        settings.save_pretrained(folder)
    if text.chat is not None:
        tokenizer.chat_template = text.chat
    tokenizer.save_pretrained(folder)
    write_bytes(folder / TEMPLATE_FILE, text.template.encode())
    if text.pair is not None:
        write_bytes(folder / f"{TEMPLATE_FILE}_pair", text.pair.encode())


@torch.no_grad()
def _difference(
    backbone: Backbone, folder: Path, probes: Sequence[Probe], expected: Sequence[Tensor]
) -> float:
    """Return how far logits of the written model are from the library's, at most."""
    kind = type(backbone.model)
    model = kind.from_pretrained(folder, dtype=backbone.dtype, local_files_only=True)
    worst = 0.0
    for probe, logits in zip(probes, expected, strict=True):
        given = {"input_ids": torch.tensor([probe.ids])}
        if backbone.frame.segments[1]:
            given["token_type_ids"] = probe.spliced.segment_ids.cpu()
        if backbone.family == "encoder-decoder":
            given["decoder_input_ids"] = backbone.shift_right(probe.decoder_ids).cpu()
        found = model.eval()(**given).logits[0].float()
        worst = max(worst, float((found[:, : logits.shape[1]] - logits).abs().max()))
    return worst
