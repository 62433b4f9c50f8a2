"""Ensembles: several trained prompts that answer through one frozen forward.

The forward reads each input once per member, side by side. Members that train a copy of the
backbone, as LoRA does, and members of which some read a language head and some do not, cannot share
one: each such kind is read by itself.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, final

import torch
from torch import Tensor

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.sources import first_line
from softprompts.encoding.batch import collate
from softprompts.encoding.inputs import EncodedExample
from softprompts.errors import BackboneError, MemoryShortageError, SoftPromptsWarning
from softprompts.examples import Example, TaskFormat
from softprompts.html_card import html_card
from softprompts.hub_transfer import fetch, is_hub_name
from softprompts.lab.ensemble_checks import check_results
from softprompts.lab.ensemble_record import (
    FILE,
    check_members,
    describe_members,
    key_of,
    member_places,
    read_ensemble,
)
from softprompts.machine_memory import free_memory, is_out_of_memory
from softprompts.metrics.scoring import answers_of, compute, mean_score
from softprompts.readouts.writing import WritingReadout
from softprompts.results import Result
from softprompts.results import load as load_run
from softprompts.storage import is_there, make_new_folder, remove_file, remove_parts, write_json
from softprompts.tasks.checking import check_choices, check_labelled
from softprompts.training.batching import by_length
from softprompts.training.evaluation import Evaluation, as_written, best_column, write_examples
from softprompts.training.forward import Part, score
from softprompts.training.journal import read_about
from softprompts.training.reader import find_reader
from softprompts.training.trainable import Track


@final
@dataclass(frozen=True)
class Cost:
    """What an answer costs.

    Attributes:
        num_members: how many members read each input.
        num_forwards: how many kinds of members a batch has that cannot share a forward.
        tokens: tokens and prompt rows that all members read of an example, on average.
        tokens_of_one: the same of one member, averaged over members.
    """

    num_members: int
    num_forwards: int
    tokens: float
    tokens_of_one: float


@final
class Ensemble:
    """Trained prompts that answer together: the mean of their probabilities.

    `p(c) = 1/K sum_k softmax(s_k)(c)`, where `s_k` are the scores of member `k` over the columns
    that an input has. Members that write take the mean for each next token.

    Attributes:
        members: the results, as `ensemble` takes them, by seed.
        summary: what `softprompts ensemble` found of it; empty elsewhere.

    Reference:
        Lester et al. (2021), arXiv 2104.08691, section on prompt ensembling.

    Differences:
        There members vote; here probabilities are averaged, so that even numbers have no ties.
    """

    def __init__(self, members: Sequence[Result], summary: Mapping[str, Any] | None = None) -> None:
        check_results(members)
        self.members = tuple(sorted(members, key=lambda member: key_of(member.about)))
        self.summary: Mapping[str, Any] = dict(summary or {})

    @property
    def score(self) -> float | None:
        """The score on the reported split, in `[0, 1]`; `None` where it was not measured."""
        return self.summary.get("score")

    @property
    def format(self) -> TaskFormat:
        """Labels, templates and metrics, those of the first member; for members of one task."""
        return self.members[0].format

    def __repr__(self) -> str:
        score = "not measured" if self.score is None else f"{100 * self.score:.1f}"
        methods = " + ".join(dict.fromkeys(one.config.prompt.method for one in self.members))
        seeds = ", ".join(str(one.config.seed) for one in self.members)
        return f"Ensemble({len(self.members)} members, {methods}, score={score}, seeds={seeds})"

    def _repr_html_(self) -> str:
        alone = [f"{100 * one.score:.1f}" for one in self.members if one.score is not None]
        return html_card(repr(self), {"members alone": ", ".join(alone)})

    def predict(
        self, inputs: Sequence[str | Mapping[str, Any]], task: str | None = None
    ) -> list[str]:
        """Return the label, or the chosen text, for each input; see `Result.predict`."""
        found = self.predict_scores(inputs, task)
        return [one["text" if "text" in one else "label"] for one in found]

    def predict_scores(
        self, inputs: Sequence[str | Mapping[str, Any]], task: str | None = None
    ) -> list[dict[str, Any]]:
        """Return `label`, mean `scores` and `is_cut` per input; see `Result.predict_scores`."""
        return self.predict_examples(self.members[0].examples(inputs, task), task)

    def predict_examples(
        self, examples: Sequence[Example], task: str | None = None
    ) -> list[dict[str, Any]]:
        """Return label and mean probabilities for each example, as `predict_scores` does."""
        for example in examples:
            check_choices(example)
        encoded = self._encode(examples, task)
        if self.members[0].model.track(task).format.is_writing:
            pairs = zip(self._write(encoded, task), zip(*encoded, strict=True), strict=True)
            return [{"text": text, "is_cut": any(o.is_cut for o in own)} for text, own in pairs]
        results: list[dict[str, Any]] = []
        for place, logs in enumerate(self._log_probabilities(encoded, task)):
            names = examples[place].choices or self.members[0].model.track(task).format.labels
            values = logs.exp().tolist()
            label, scores = names[best_column(values)], dict(zip(names, values, strict=True))
            is_cut = any(rows[place].is_cut for rows in encoded)
            results.append({"label": label, "scores": scores, "is_cut": is_cut})
        return results

    def evaluate(self, examples: Sequence[Example], task: str | None = None) -> Evaluation:
        """Evaluate on labelled examples of the task's format.

        Its `scores` are the mean probabilities; it has no `choices`: those are the members'.
        """
        check_labelled(examples, self.members[0].model.track(task).format)
        encoded = self._encode(examples, task)
        found = self._log_probabilities(encoded, task)
        scores = tuple(tuple(logs.exp().tolist()) for logs in found)
        form = self.members[0].model.track(task).format
        texts: Sequence[str] = ()
        predictions: Sequence[Any] = [best_column(line) for line in scores]
        losses = [  # NaN for an unlabelled example
            -float(logs[list(one.answers)].logsumexp(dim=0)) if one.answers else math.nan
            for logs, one in zip(found, encoded[0], strict=True)
        ]
        if form.is_writing:
            texts = self._write(encoded, task)
            predictions = as_written(texts, [logs.tolist() for logs in found])
            losses = [-float(logs.mean()) for logs in found]
        metrics = compute(form.metrics, predictions, examples, form)
        num_cut = sum(any(one.is_cut for one in views) for views in zip(*encoded, strict=True))
        for backbone, _ in self._readers(task):
            find_reader().save(backbone)
        score, loss = mean_score(metrics), fmean(losses)
        right = answers_of(predictions, examples, form)
        return Evaluation(scores, metrics, score, loss, num_cut, texts=tuple(texts), answers=right)

    def cost(self, examples: Sequence[Example], task: str | None = None) -> Cost:
        """Return what it costs to answer some examples; nothing is read for it."""
        total = 0
        for track, encoded in zip(self._tracks(task), self._encode(examples, task), strict=True):
            inputs = [item for example in encoded for item in example.inputs]
            total += sum(len(item.ids) + track.prompt.length for item in inputs)
        each = total / max(1, len(examples))
        count = len(self.members)
        return Cost(count, len(self._readers(task)), each, each / count)

    def save(self, folder: str | Path) -> None:
        """Write the members and, last, `ensemble.json` to a folder that `load` reads.

        Raises:
            RunFolderError: if the folder holds something already.
            StorageError: if it cannot be written.
        """
        path = Path(folder)
        make_new_folder(path)
        write_ensemble(path, self.members, self.summary)

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Push it to the hub with a card; see `softprompts.interop.hub.push`."""
        from softprompts.interop.hub import push

        return push(self, name, **options)

    def _tracks(self, task: str | None) -> list[Track]:
        return [member.model.track(task) for member in self.members]

    def _readers(self, task: str | None) -> list[tuple[Backbone, tuple[int, ...]]]:
        """Return what the members read through, and which of them share a forward."""
        frozen = [one.model.backbone for one in self.members if one.model.backbone.is_frozen]
        found: dict[tuple[int, bool], tuple[Backbone, tuple[int, ...]]] = {}
        for number, track in enumerate(self._tracks(task)):
            own = self.members[number].model.backbone
            through = frozen[0] if own.is_frozen else own  # of the same weights
            key = (id(through), track.readout.needs_head)
            found[key] = (through, (*found.get(key, (through, ()))[1], number))
        return list(found.values())

    def _encode(
        self, examples: Sequence[Example], task: str | None
    ) -> list[tuple[EncodedExample, ...]]:
        """Return the examples as each member reads them; members that read alike share them."""
        known: dict[str, tuple[EncodedExample, ...]] = {}
        found = []
        for member, track in zip(self.members, self._tracks(task), strict=True):
            prompt, name = member.config.prompt, task or next(iter(member.config.tasks))
            shape = (prompt.length, prompt.depth, prompt.position)
            way = (id(member.backbone), track.format, member.config.readout)
            key = repr((way, member.config.tasks[name], shape))
            if key not in known or prompt.context is not None:  # which is of the run's own
                known[key] = tuple(map(track.readout.encode, examples))
            found.append(known[key])
        return found

    def _write(self, encoded: Sequence[Sequence[EncodedExample]], task: str | None) -> list[str]:
        """Return texts whose next token has, each time, the mean of the members' probabilities."""
        backbones = [own for own, _ in self._readers(task)]
        if len(backbones) > 1:
            raise BackboneError(
                "members must share one backbone to write together, token by token, but have "
                f"{len(backbones)}: one that trains a copy of it has its own."
            )
        writers = [
            (track.prompt, track.readout)
            for track in self._tracks(task)
            if isinstance(track.readout, WritingReadout)
        ]
        return write_examples(backbones[0], writers, encoded)

    @torch.no_grad()
    def _log_probabilities(
        self, encoded: Sequence[Sequence[EncodedExample]], task: str | None
    ) -> list[Tensor]:
        """Return the logarithm of the mean probability of each example's columns, float64."""

        def size(one: EncodedExample) -> tuple[int, int]:
            return one.num_tokens * len(one.inputs), len(one.inputs)

        widest = [max(views, key=size) for views in zip(*encoded, strict=True)]
        found: list[list[Tensor]] = [[torch.empty(0)] * len(self.members) for _ in widest]
        readers, tracks = self._readers(task), self._tracks(task)
        for batch in by_length(widest):
            for backbone, members in readers:
                pairs = [(example, member) for example in batch for member in members]
                for (example, member), line in _read(backbone, pairs, tracks, encoded):
                    found[example][member] = line[: widest[example].num_columns]
        return [torch.stack(own).logsumexp(dim=0) - math.log(len(own)) for own in found]


def _read(
    backbone: Backbone,
    pairs: Sequence[tuple[int, int]],
    tracks: Sequence[Track],
    encoded: Sequence[Sequence[EncodedExample]],
) -> list[tuple[tuple[int, int], Tensor]]:
    """Return pairs of example and member with their log-probabilities, read side by side."""
    members = list(dict.fromkeys(member for _, member in pairs))
    ordered = [pair for member in members for pair in pairs if pair[1] == member]
    try:
        parts = []
        for member in members:
            rows = [encoded[member][example] for example, own in pairs if own == member]
            batch = collate(rows, backbone.tokenizer.pad_token_id).to(backbone.device)
            parts.append(Part(tracks[member].prompt, tracks[member].readout, batch))
        scores = [own.cpu().double() for own in score(backbone, parts)]
        if not isinstance(parts[0].readout, WritingReadout):  # whose scores are such of tokens
            scores = [own.log_softmax(dim=1) for own in scores]
        return list(zip(ordered, (line for own in scores for line in own), strict=True))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error)
    free_memory(backbone.device)
    if len(pairs) == 1:
        raise MemoryShortageError(
            f"one example must fit in memory to be scored, but does not: {reason}"
        )
    counts = f"{len({example for example, _ in pairs})} examples by {len(members)} members"
    text = f"memory does not hold {counts}; they are scored in halves."
    warnings.warn(text, SoftPromptsWarning, stacklevel=2)
    halves = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]
    return [read for half in halves for read in _read(backbone, half, tracks, encoded)]


def ensemble(results: Sequence[Result]) -> Ensemble:
    """Let trained prompts answer together, with the mean of their probabilities.

    Args:
        results: two or more finished runs on the same backbone weights, in one dtype and on one
            device, of tasks with the same labels; they may differ in all else, in any order.

    Raises:
        BackboneError: if weights, dtypes or devices differ.
        DataError: if they are too few, one comes twice or diverged, or labels or metrics differ.
    """
    return Ensemble(results)


def members_of(result: Result | Ensemble) -> tuple[Result, ...]:
    """Return the members of an ensemble; of a run, itself."""
    return result.members if isinstance(result, Ensemble) else (result,)


def load(folder: str | Path, backbone: Backbone | str | Path | None = None) -> Result | Ensemble:
    """Load a finished run, or an ensemble of several, from its folder or from the hub.

    Args:
        folder: a run folder, a folder that `Result.save` or `Ensemble.save` wrote, one that
            `softprompts ensemble` kept, or `owner/name` of a prompt of the hub.
        backbone: the frozen model; a name or folder to load it from; or `None` for that which the
            run, or the first member, names.

    Raises:
        BackboneError: if `backbone` is something else, or cannot be loaded.
        StorageError: if a run is not finished or its files are broken.
        RecipeError: if a configuration breaks the schema.
        RunFolderError: if a configuration was edited, or the backbone's weights are not those
            that the prompt was trained for.
    """
    path = fetch(str(folder)) if is_hub_name(folder) else Path(folder)
    kept = read_ensemble(path) if is_there(path) else None
    if kept is None:
        return load_run(path, backbone)
    members: list[Result] = []
    for place in member_places(path, len(kept["members"])):
        members.append(load_run(place, members[0].backbone if members else backbone))
    check_members(path, kept["members"], [member.about for member in members])
    return Ensemble(members, kept["summary"])


def write_ensemble(
    folder: Path, members: Sequence[Result], summary: Mapping[str, Any] | None = None
) -> None:
    """Write an ensemble to a folder; what an interrupted writing left there is finished.

    A member that is whole is left as it is.

    Raises:
        RunFolderError: if the place of a member holds something else.
        StorageError: if it cannot be written.
    """
    for member, place in zip(members, member_places(folder, len(members)), strict=True):
        if is_there(place / "result.json"):
            check_members(folder, describe_members([member.about]), [read_about(place)])
            continue
        if is_there(place):
            remove_parts(place)
            for name in ("config.json", "prompt.safetensors"):  # of a member that was cut short
                remove_file(place / name)
        member.save(place)
    about = describe_members([member.about for member in members])
    write_json(folder / FILE, {"members": about, "summary": dict(summary or {}) or None})
