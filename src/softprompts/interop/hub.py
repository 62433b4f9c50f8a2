"""Prompts on the Hugging Face hub, with a card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Protocol

import yaml

from softprompts.backbones.bundled import HUB_IDS
from softprompts.encoding.template import template_fields
from softprompts.hub_transfer import upload
from softprompts.metrics.wilson import wilson_interval
from softprompts.storage import is_there, read_json, write_bytes, write_json


class Saved(Protocol):
    """A result, or an ensemble of several."""

    @property
    def score(self) -> float | None:
        """The score on the reported split."""

    def save(self, folder: str | Path) -> None:
        """Write it to a folder."""


def push(prompt: Saved, name: str, *, scores: Sequence[float] = (), **options: Any) -> str:
    """Push a prompt to the hub with a card; return the address of the commit.

    Places on this machine are left out of what is pushed.

    Args:
        prompt: the prompt, or several that answer together.
        name: `owner/name`; made if it is not there.
        scores: of other seeds, for the card, in `[0, 1]`.
        options: `private`, `token`, `revision`; see `softprompts.hub_transfer.upload`.

    Raises:
        StorageError: if `name` is no repository's, or the hub does not take it.
    """

    def write(folder: Path) -> None:
        prompt.save(folder)
        for file in folder.rglob("config.json"):
            write_json(file, _without_data_dirs(read_json(file)))
        write_bytes(folder / "README.md", card(prompt, name, scores).encode())

    return upload(name, write, **options)


_CARD = """{front}
# {name}

{what} for [{base}](https://huggingface.co/{base}), trained by softprompts on `{task}`: {method}.

| what | {metric} |
| :--- | ---: |
| {num_items} rows of `{split}` | {score} |
| 95 % interval over rows | {interval} |
{spread}| the most frequent answer | {majority} |

## Use

```python
import softprompts as sp

prompt = sp.load("{name}")
prompt.predict([{example}])
```

In peft, vLLM and llama.cpp:

```bash
hf download {name} --local-dir prompt
softprompts export prompt --to peft --out adapter
softprompts export prompt --to vocabulary --out model --gguf model.gguf
vllm serve model
llama-server -m model.gguf
```

## Recipe

```yaml
{recipe}
```
"""


def card(prompt: Saved, name: str, scores: Sequence[float] = ()) -> str:
    """Return the text of a prompt's card; see `push`."""
    members: Sequence[Any] = getattr(prompt, "members", (prompt,))
    first, summary = members[0], members[0].summary
    score, num_items = prompt.score, summary["num_items"]
    base, config = _hub_id(first.config.backbone.name), first.config
    task = " + ".join(track.format.name for track in first.model.tracks.values())
    lines = "| over seeds | not measured |\n"
    if len(scores) > 1:
        mean, std = 100 * fmean(scores), 100 * stdev(scores)
        lines = f"| over {len(scores)} seeds | {mean:.1f} ± {std:.1f} |\n"
    track = next(iter(first.model.tracks.values()))
    fields = template_fields(track.format.templates[config.readout.kind])
    interval = None if score is None else wilson_interval(score, num_items)
    front = {
        "library_name": "softprompts",
        "base_model": base,
        "tags": list(dict.fromkeys(["soft-prompt", *(m.config.prompt.method for m in members)])),
    }
    return _CARD.format(
        front=f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        name=name,
        example=json.dumps(dict.fromkeys(fields, "…"), ensure_ascii=False),
        what="A soft prompt" if len(members) == 1 else f"{len(members)} soft prompts",
        base=base,
        task=task,
        method=f"{config.prompt.method}, {track.prompt.length} rows, seed {config.seed}",
        metric=summary["metric"],
        num_items=num_items,
        split=summary["split"],
        score="not measured" if score is None else f"{100 * score:.1f}",
        interval="" if interval is None else " to ".join(f"{100 * end:.1f}" for end in interval),
        spread="" if len(members) > 1 else lines,
        majority=f"{100 * summary['majority']:.1f}",
        recipe=yaml.safe_dump(
            _public(_without_data_dirs(config.model_dump(mode="json"))), sort_keys=False
        ).rstrip(),
    )


def _hub_id(name: str) -> str:
    """Return the hub's name of a backbone, where it has a short one here."""
    return HUB_IDS.get(name, Path(name).name if is_there(Path(name)) else name)


def _public(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without what is left out."""
    found = {key: value for key, value in config.items() if value not in (None, [], {})}
    return {key: _public(one) if isinstance(one, dict) else one for key, one in found.items()}


def _without_data_dirs(value: Any) -> Any:
    """Return a configuration that does not say where its data lay; its identity is the same."""
    if isinstance(value, list):
        return [_without_data_dirs(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {k: None if k == "data_dir" else _without_data_dirs(one) for k, one in value.items()}
