"""A prompt as embeddings, for servers that read these in place of text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from softprompts.errors import BackboneError
from softprompts.interop import embeds_client
from softprompts.interop.baked import bake_task, check_exported
from softprompts.interop.destination import new_places
from softprompts.interop.probes import read_probes
from softprompts.interop.task_text import write_task
from softprompts.interop.words import describe, table_with_rows, with_words
from softprompts.results import Result
from softprompts.storage import write_bytes, write_json, write_tensors


def export_embeds(result: Result, folder: str | Path, task: str | None = None) -> dict[str, Any]:
    """Write a client that asks a server for a task by embeddings of template and rows.

    The server runs the backbone as it is. vLLM takes such requests with `--enable-prompt-embeds`.

    Returns what `softprompts.json` in the folder says.

    Args:
        result: a finished run of a decoder with the readout `text` or `writing`.
        folder: a new or empty folder.
        task: the task of a run of several.

    Raises:
        BackboneError: if the backbone is no decoder, or the run has trained some of it.
        PromptError: if the prompt is not the same for every input.
        DataError: if the template is not read alike as text.
        RunFolderError: if the place is taken.
    """
    check_exported(result)
    backbone, track = result.backbone, result.model.track(task)
    if backbone.family != "decoder":
        raise BackboneError(
            f"`backbone` must be a decoder for --to embeds, but {backbone.name} is of family "
            f"{backbone.family!r}: such servers run decoders alone."
        )
    baked = bake_task(track, "--to embeds")
    tokenizer, words, ids = with_words(backbone, baked)
    probes = read_probes(backbone, track, baked.rows, ids)
    text = write_task(backbone, (track, baked), words, tokenizer, probes)
    about = describe(result, track, words, ids, text)
    with new_places(Path(folder)) as (place,):
        tokenizer.save_pretrained(place)
        table = table_with_rows(backbone, baked.rows, ids, is_scaled=True)
        write_tensors(place / "embeddings.safetensors", {"embeddings": table})
        write_bytes(place / "client.py", Path(embeds_client.__file__).read_bytes())
        write_json(place / "softprompts.json", about)
    return about
