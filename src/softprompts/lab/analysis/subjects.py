"""What a landscape is drawn of: a finished run, and the rows that its loss is taken on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.batch import Batch, collate
from softprompts.encoding.inputs import EncodedExample
from softprompts.errors import DataError
from softprompts.examples import Example
from softprompts.recipes.parsing import parse_kept_run
from softprompts.recipes.schema import RunConfig
from softprompts.results import Result, load
from softprompts.seeding import generator
from softprompts.training.batching import by_length
from softprompts.training.building import choose_splits
from softprompts.training.finished import read_result
from softprompts.training.journal import read_about
from softprompts.training.resources import Resources
from softprompts.training.trainable import Track

SPLITS = ("train", "held-out", "validation")
DTYPES = ("float32", "bfloat16", "float16")

_MOST_TOKENS = defaultdict(lambda: 8192, cpu=1024)
"""Token positions of a batch, by device type."""


@final
@dataclass(frozen=True)
class Sample:
    """Which rows of which run's task a loss is taken on, and in what precision.

    Attributes:
        split: as the run had it; one of `SPLITS`.
        num_examples: most rows; all where there are fewer.
        seed: draws the rows: one seed draws the same places of a split for every run.
        task: the task of a run of several; `None` where there is one.
        dtype: what the backbone computes in; the run's own when `None`.

    Raises:
        DataError: if a value is none of those.
    """

    split: str = "train"
    num_examples: int = 64
    seed: int = 0
    task: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise DataError(f"`split` must be one of {', '.join(SPLITS)}, but is {self.split!r}.")
        if self.num_examples < 1:
            raise DataError(f"`num_examples` must be at least 1, but is {self.num_examples}.")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise DataError(f"`dtype` must be one of {', '.join(DTYPES)}, but is {self.dtype!r}.")


@final
@dataclass(frozen=True, eq=False)
class Subject:
    """A trained run in evaluation, and the rows that its loss is taken on.

    `about` names the run. Changes of inputs are counted in `unit`, the root-mean-square of the
    frozen backbone's embedding table, as perturbations are. Of the rows in `batches`, examples of
    like length are together.
    """

    about: dict[str, Any]
    backbone: Backbone
    unit: float
    track: Track
    batches: tuple[Batch, ...]
    sample: Sample

    @property
    def num_examples(self) -> int:
        """Number of rows."""
        return sum(batch.size for batch in self.batches)


def load_subject(folder: Path, sample: Sample, resources: Resources) -> Subject:
    """Load a finished run in its selected state, and draw rows of its task.

    Nothing of it asks for a gradient. Resources share backbones, tasks and encoded rows.

    Raises:
        SoftPromptsError: if the run did not finish well, its files are broken, or its task has
            changed.
        DataError: if the run has no such rows.
    """
    about = read_about(folder)
    status = read_result(folder, about["identity"])["status"]
    if status != "finished":
        raise DataError(f"must be `finished`, but is {status!r}.", file=folder, field="status")
    config = parse_kept_run(about["config"], str(folder / "config.json"))
    dtype = sample.dtype or about["dtype"]
    backbone = resources.backbone(config.backbone.model_copy(update={"dtype": dtype}))
    result = load(folder, backbone)
    for track in result.model.tracks.values():
        track.prompt.requires_grad_(False)
        track.readout.requires_grad_(False)
    name = _task_name(result, sample.task, folder)
    track = result.model.tracks[name]
    rows = _rows(config, name, about, sample, resources)
    encoded = resources.encode(config, name, track.readout, rows)
    return Subject(
        about={
            "folder": str(folder),
            "identity": about["identity"],
            "method": config.prompt.method,
            "task": name if config.mixture is not None else config.task_label,
            "seed": config.seed,
            "readout": config.readout.model_dump(mode="json"),
            "prompt": config.prompt.model_dump(mode="json"),
            "regularizers": [_named(one) for one in config.regularizers],
            "dtype": str(backbone.dtype).removeprefix("torch."),
        },
        backbone=result.model.backbone,
        unit=backbone.embedding_rms,
        track=track,
        batches=batches_of(encoded, result.model.backbone),
        sample=sample,
    )


def _named(regularizer: Any) -> str:
    """Return a regularizer's kind, or the kind of what it perturbs inputs with."""
    return str(getattr(regularizer.options, "perturbation", regularizer).kind)


def _task_name(result: Result, name: str | None, folder: Path) -> str:
    """Return the name, in the run, of the task that is asked for."""
    names = list(result.model.tracks)
    if name in names:
        return name
    if name is None and len(names) == 1:
        return names[0]
    said = "was not given" if name is None else f"is {name!r}"
    raise DataError(f"must be one of {', '.join(names)}, but {said}.", file=folder, field="task")


def _rows(
    config: RunConfig, name: str, about: dict[str, Any], sample: Sample, resources: Resources
) -> list[Example]:
    """Draw rows of the split that is asked for."""
    task = resources.task(config.tasks[name], config.seed)
    digest = about.get("task_digests", {name: about["data_digest"]})[name]
    if task.digest() != digest:
        raise DataError(
            f"rows of {task.format.name} must be those of the run, with digest {digest}, but have "
            f"{task.digest()}."
        )
    rows = choose_splits(config, task)[sample.split.replace("-", "_")]
    if not rows:
        raise DataError(f"split {sample.split!r} of the run must have rows, but is empty.")
    draws = generator(sample.seed, "landscape", sample.split)
    order: list[int] = torch.randperm(len(rows), generator=draws).tolist()
    return [rows[index] for index in order[: sample.num_examples]]


def batches_of(encoded: Sequence[EncodedExample], backbone: Backbone) -> tuple[Batch, ...]:
    """Put examples of like length together."""
    cuts = by_length(encoded, max_tokens=_MOST_TOKENS[backbone.device.type])
    pad = backbone.tokenizer.pad_token_id
    return tuple(
        collate([encoded[index] for index in cut], pad).to(backbone.device) for cut in cuts
    )
