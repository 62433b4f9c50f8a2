"""A trained prompt with its score: to predict with, to save and to load."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.generation import num_new_tokens
from softprompts.encoding.batch import collate
from softprompts.encoding.inputs import EncodedExample
from softprompts.encoding.template import template_fields
from softprompts.errors import BackboneError, DataError, RunFolderError, StorageError
from softprompts.examples import Example, TaskFormat
from softprompts.html_card import html_card
from softprompts.problems import misfits, show
from softprompts.prompts.prompt import Prompt
from softprompts.readouts.text import TextReadout
from softprompts.readouts.writing import WritingReadout
from softprompts.recipes.parsing import parse_kept_run
from softprompts.recipes.schema import BackboneConfig, RunConfig
from softprompts.recipes.sources import without_source
from softprompts.storage import make_new_folder, write_json, write_tensors
from softprompts.tasks.checking import Format, check_choices, check_labelled
from softprompts.tasks.files import chat_turns
from softprompts.tasks.rows import Row, refuse_wrong_texts, shown
from softprompts.training.building import build_model
from softprompts.training.evaluation import (
    EncodedSplit,
    Evaluation,
    best_column,
    evaluate,
    score_examples,
    write_examples,
)
from softprompts.training.execution import Outcome
from softprompts.training.finished import load_finished, prompt_header, read_result
from softprompts.training.forward import Part, write
from softprompts.training.journal import read_about
from softprompts.training.resources import Resources
from softprompts.training.trainable import Model

Inputs: TypeAlias = Sequence[str | Mapping[str, Any]]
"""What a user asks about; see `Result.predict`."""


@final
@dataclass(eq=False, repr=False)
class Result:
    """A trained prompt and what it scored.

    Args:
        config: the resolved configuration.
        backbone: the frozen model.
        model: prompts, readouts and what is trained of the backbone, in the selected state.
        about: content of `config.json`.
        summary: content of `result.json`.
    """

    config: RunConfig
    backbone: Backbone
    model: Model
    _: KW_ONLY
    about: Mapping[str, Any]
    summary: Mapping[str, Any]

    @classmethod
    def of(cls, outcome: Outcome) -> Result:
        """Return the result of a finished run."""
        parts = (outcome.config, outcome.backbone, outcome.model)
        return cls(*parts, about=outcome.about, summary=outcome.result)

    @property
    def score(self) -> float | None:
        """The score on the reported split, in `[0, 1]`; `None` if the run diverged."""
        score: float | None = self.summary["score"]
        return score

    @property
    def format(self) -> TaskFormat:
        """Labels, templates and metrics of the task, where there is only one."""
        return self.model.track().format

    def prompt(self, task: str | None = None) -> Prompt:
        """Return the trained prompt, as `SoftPromptModel` takes it; see `predict` for the task."""
        return self.model.track(task).prompt

    def digest(self, task: str) -> str:
        """Return the fingerprint of the rows that a task had in training."""
        found: str = self.about.get("task_digests", {task: self.about["data_digest"]})[task]
        return found

    def __repr__(self) -> str:
        score = "diverged" if self.score is None else f"{100 * self.score:.1f}"
        return (
            f"Result({self._names()}, {self.config.prompt.method}, score={score}, "
            f"majority={100 * self.summary['majority']:.1f}, seed={self.config.seed})"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        about = self.summary
        where = f"{about['metric']} on {about['num_items']} items of {about['split']}"
        found = None if self.score is None else f"{100 * self.score:.1f} ({where})"
        facts = {
            "score": found or about["status"],
            "majority": f"{100 * about['majority']:.1f}",
            "seed": self.config.seed,
            "backbone": self.backbone.name,
            "trained numbers": f"{about['trainable_parameters']:,}",
        }
        return html_card(f"{self.config.prompt.method} on {self._names()}", facts)

    def _names(self) -> str:
        return " + ".join(track.format.name for track in self.model.tracks.values())

    def predict(self, inputs: Inputs, task: str | None = None) -> list[str]:
        """Return the label, the chosen text, or what is written, for each input.

        Args:
            inputs: a mapping of the template's fields each, or a data frame of pandas; a plain
                string where the template has one field. Choice tasks also need `choices`, a list of
                texts.
            task: the task, by its name in the mixture; `None` in a run of one task.

        Returns:
            One label name, choice or text per input.

        Raises:
            DataError: if an input lacks a field, or the run has no such task.
        """
        found = self.predict_scores(inputs, task)
        return [one["text" if "text" in one else "label"] for one in found]

    def predict_scores(self, inputs: Inputs, task: str | None = None) -> list[dict[str, Any]]:
        """Return label and scores for each input; see `predict` for the inputs.

        Returns:
            A mapping with `label`, `scores` (score by label or choice) and `is_cut`, whether the
            input was cut to fit, per input; of a run that writes `text` and `is_cut`.
        """
        return self.predict_examples(self.examples(inputs, task), task)

    def predict_examples(
        self, examples: Sequence[Example], task: str | None = None
    ) -> list[dict[str, Any]]:
        """Return label and scores for each example, as `predict_scores` does."""
        track = self.model.track(task)
        for example in examples:
            check_choices(example)
        encoded = [track.readout.encode(example) for example in examples]
        if isinstance(track.readout, WritingReadout):
            texts = write_examples(self.model.backbone, [(track.prompt, track.readout)], [encoded])
            pairs = zip(texts, encoded, strict=True)
            return [{"text": text, "is_cut": one.is_cut} for text, one in pairs]
        scores, _ = score_examples(self.model.backbone, track.prompt, track.readout, encoded)
        results = []
        for example, one, line in zip(examples, encoded, scores, strict=True):
            names = example.choices or track.format.labels
            label = names[best_column(line)]
            by_name = dict(zip(names, line, strict=True))
            results.append({"label": label, "scores": by_name, "is_cut": one.is_cut})
        return results

    def generate(self, inputs: Inputs, task: str | None = None, **options: Any) -> list[str]:
        """Return the text that the backbone writes after each input, the prompt in place.

        Args:
            inputs: as for `predict`.
            task: likewise.
            options: arguments of `generate` of transformers, such as `max_new_tokens`. The fields
                of an input are cut so that the context has room for what is written.

        Returns:
            One text per input, without special tokens; several with `num_return_sequences`.

        Raises:
            BackboneError: if the run was not trained with the `text` or `writing` readout, or the
                context has no room for as much text.
            DataError: if an input lacks a field, or cannot be cut to leave room.
        """
        track = self.model.track(task)
        readout = track.readout
        if not isinstance(readout, TextReadout | WritingReadout):
            raise BackboneError(
                "`readout` must be text or writing for a run that writes, but is "
                f"{self.config.readout.kind}."
            )
        new = num_new_tokens(self.backbone, options)
        encoded = [
            EncodedExample((readout.encode_input(example, new),), 1, (), False)
            for example in self.examples(inputs, task)
        ]
        if not encoded:
            return []
        tokenizer = self.backbone.tokenizer
        batch = collate(encoded, tokenizer.pad_token_id).to(self.backbone.device)
        ids = write(self.model.backbone, [Part(track.prompt, readout, batch)], **options)
        texts: list[str] = tokenizer.batch_decode(ids, skip_special_tokens=True)
        return texts

    def evaluate(self, examples: Sequence[Example], task: str | None = None) -> Evaluation:
        """Evaluate on labelled examples of the task's format; see `predict` for the task.

        Raises:
            DataError: if one is no `Example`, or its answers are no columns of it.
        """
        track = self.model.track(task)
        check_labelled(examples, track.format)
        encoded = tuple(map(track.readout.encode, examples))
        split = EncodedSplit(tuple(examples), encoded)
        return evaluate(self.model.backbone, track.prompt, track.readout, split, track.format)

    def save(self, folder: str | Path) -> None:
        """Write configuration, prompt and result to a folder that `load` reads.

        Raises:
            RunFolderError: if the folder holds something already.
            StorageError: if it cannot be written.
        """
        path = Path(folder)
        make_new_folder(path)
        tensors = {"rows": self.model.bake(), **self.model.state()}
        write_json(path / "config.json", dict(self.about))
        write_tensors(path / "prompt.safetensors", tensors, prompt_header(self.about))
        write_json(path / "result.json", dict(self.summary))

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Push it to the hub with a card; see `softprompts.interop.hub.push`."""
        from softprompts.interop.hub import push

        return push(self, name, **options)

    def examples(self, inputs: Inputs, task: str | None = None) -> list[Example]:
        """Return inputs as examples; see `predict` for both and for what is refused."""
        format = self.model.track(task).format
        if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable):
            raise DataError(f"must be a list of inputs, but is {shown(inputs)}.", file="inputs")
        if hasattr(inputs, "iterrows") and hasattr(inputs, "to_dict"):
            inputs = inputs.to_dict("records")  # a data frame of pandas gives its columns
        return [self._example(value, place, format) for place, value in enumerate(inputs)]

    def _example(self, value: str | Mapping[str, Any], place: int, format: TaskFormat) -> Example:
        """Turn a user's input into an example."""
        source = f"input {place + 1}"
        fields = template_fields(format.templates[self.config.readout.kind])
        if isinstance(value, str):
            if len(fields) != 1 or format.has_choices:
                raise DataError(
                    f"must be a mapping with {', '.join(fields)}, but is a string.", file=source
                )
            value = {fields[0]: value}
        if not isinstance(value, Mapping):
            raise DataError(f"must be a string or a mapping, but is {value!r}.", file=source)
        if fields == ("messages",) and format.is_writing:
            turns, _ = chat_turns(Row(value, source, 1, needs_label=False), "messages")
            return Example(turns, source=source)
        read = {k: v for k, v in value.items() if k in fields or isinstance(v, str)}
        texts = {name: _text(one) for name, one in read.items() if name != "choices"}
        if not texts:
            raise DataError("must be given, but is missing.", file=source, field=fields[0])
        refuse_wrong_texts(texts, source)
        return Example(texts, choices=_choices(value, format, source), source=source)


def _text(value: Any) -> Any:
    """Return a finite number as text, as files may have it, and anything else as it is."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number and math.isfinite(value) else value


def _choices(value: Mapping[str, Any], format: TaskFormat, source: str) -> tuple[str, ...]:
    """Return the choices of a user's input, as the task wants them."""
    choices = value.get("choices", ())
    if not format.has_choices:
        if "choices" in value:
            what = "brings texts to write" if format.is_writing else "has labels"
            reason = f"must be left out, as the task {what}, but is {shown(choices)}."
            raise DataError(reason, file=source, field="choices")
        return ()
    if not isinstance(choices, list | tuple) or not choices:
        reason = f"must be a list of at least one text, but is {shown(choices)}."
        raise DataError(reason, file=source, field="choices")
    refuse_wrong_texts({f"choices[{i}]": one for i, one in enumerate(choices)}, source)
    return tuple(choices)


def load(folder: str | Path, backbone: Backbone | str | Path | None = None) -> Result:
    """Load a finished run from its folder.

    Args:
        folder: a run folder, or a folder that `Result.save` wrote.
        backbone: the frozen model; a name or folder to load it from; or `None` for that which the
            run names.

    Returns:
        The result, ready to predict.

    Raises:
        BackboneError: if `backbone` is something else, or cannot be loaded.
        StorageError: if the run is not finished or its files are broken.
        RecipeError: if its configuration breaks the schema.
        RunFolderError: if its configuration was edited, or the backbone's weights are not those
            that the prompt was trained for.
    """
    if backbone is not None and not isinstance(backbone, str | Path):
        require_backbone(backbone)
    path = Path(folder)
    about = read_about(path)
    read_result(path, about["identity"])  # before anything heavy
    config = parse_kept_run(about["config"], str(path / "config.json"))
    if not isinstance(backbone, Backbone):
        backbone = _load_own(config.backbone, about["dtype"], backbone)
    if backbone.fingerprint != about["backbone_fingerprint"]:
        raise RunFolderError(
            f"{path} was trained on backbone weights {about['backbone_fingerprint']}, but "
            f"{backbone.name} has {backbone.fingerprint}."
        )
    formats = _formats(config, about["task_format"], path)
    initializer = config.prompt.initializer
    is_from_file = initializer is not None and initializer.kind == "file"
    start = without_source(config.prompt) if is_from_file else config.prompt  # rows are read anyway
    model = build_model(config.model_copy(update={"prompt": start}), backbone, formats)
    summary = load_finished(path, about, model)
    return Result(config, backbone, model, about=about, summary=summary)


def _load_own(config: BackboneConfig, dtype: str, source: str | Path | None) -> Backbone:
    """Load a run's backbone, from another place where one is given."""
    moved = {} if source is None else {"name": str(source), "revision": None}
    changes = {"dtype": dtype, **moved}
    try:
        return Resources().backbone(config.model_copy(update=changes))
    except BackboneError as error:
        if source is not None:
            raise
        raise BackboneError(
            f"{error} The run was trained with it; --backbone, or `backbone` of `load`, names "
            "another place."
        ) from error


def require_backbone(value: object) -> None:
    """Refuse what is no backbone, such as a model's name."""
    if not isinstance(value, Backbone):
        raise BackboneError(
            f"`backbone` must be what load_backbone returns, but is {shown(value)}."
        )


def _formats(config: RunConfig, data: Any, folder: Path) -> dict[str, TaskFormat]:
    """Rebuild the format of every task from JSON."""
    if config.mixture is None:
        data = dict.fromkeys(config.tasks, data)
    if not isinstance(data, Mapping) or set(data) != set(config.tasks):
        held = list(data) if isinstance(data, Mapping) else data
        raise StorageError(
            f"{folder / 'config.json'} must have a `task_format` of each of "
            f"{', '.join(config.tasks)}, but has {show(held)}."
        )
    return {name: _format(data[name], folder) for name in config.tasks}


def _format(data: Any, folder: Path) -> TaskFormat:
    """Rebuild a task format from JSON."""
    is_object = isinstance(data, Mapping)
    problems = (
        misfits(Format, data) if is_object else [f"it must be a mapping, but is {show(data)}."]
    )
    if problems:
        raise RunFolderError(
            f"{folder / 'config.json'} must have a whole `task_format`, but has not: "
            f"{' '.join(problems)}"
        )
    lists = {key: tuple(data[key]) for key in ("labels", "metrics")}
    return TaskFormat(**{**data, **lists})
