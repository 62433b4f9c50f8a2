"""A trained prompt with its score: to predict with, to save and to load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from softprompts.backbones.backbone import Backbone
from softprompts.errors import DataError, RunFolderError, StorageError
from softprompts.recipes.parsing import parse_run
from softprompts.recipes.schema import RunConfig
from softprompts.storage import entries, is_there, make_folder, write_json, write_tensors
from softprompts.tasks.base import Example, TaskFormat
from softprompts.tasks.templates import template_fields
from softprompts.training.building import Model, build_model
from softprompts.training.evaluation import (
    EncodedSplit,
    Evaluation,
    best_column,
    evaluate,
    score_examples,
)
from softprompts.training.execution import Outcome, load_finished, prompt_header, read_result
from softprompts.training.journal import read_about
from softprompts.training.resources import Resources


@final
class Result:
    """A trained prompt and what it scored.

    Args:
        config: the resolved configuration.
        backbone: the frozen model.
        format: the task's labels, templates and metrics.
        model: prompt and readout in the selected state.
        about: content of `config.json`.
        summary: content of `result.json`.

    Attributes:
        score: the score on the reported split, in `[0, 1]`; `None` if the run diverged.
    """

    def __init__(
        self,
        config: RunConfig,
        backbone: Backbone,
        format: TaskFormat,
        model: Model,
        *,
        about: Mapping[str, Any],
        summary: Mapping[str, Any],
    ) -> None:
        self.config, self.backbone, self.format, self.model = config, backbone, format, model
        self.about, self.summary = about, summary

    @classmethod
    def of(cls, outcome: Outcome) -> Result:
        """Return the result of a finished run."""
        return cls(
            outcome.config,
            outcome.backbone,
            outcome.task.format,
            outcome.model,
            about=outcome.about,
            summary=outcome.result,
        )

    @property
    def score(self) -> float | None:
        """The score on the reported split, in `[0, 1]`; `None` if the run diverged."""
        score: float | None = self.summary["score"]
        return score

    def __repr__(self) -> str:
        score = "diverged" if self.score is None else f"{100 * self.score:.1f}"
        return (
            f"Result({self.format.name}, {self.config.prompt.method}, score={score}, "
            f"majority={100 * self.summary['majority']:.1f}, seed={self.config.seed})"
        )

    def predict(self, inputs: Sequence[str | Mapping[str, Any]]) -> list[str]:
        """Return the label, or the chosen text, for each input.

        Args:
            inputs: a mapping of the template's fields each; a plain string where the template has
                one field. Choice tasks also need `choices`, a list of texts.

        Returns:
            One label name or choice per input.

        Raises:
            DataError: if an input lacks a field.
        """
        return [prediction["label"] for prediction in self.predict_scores(inputs)]

    def predict_scores(self, inputs: Sequence[str | Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return label and scores for each input; see `predict` for the inputs.

        Returns:
            A mapping with `label` and `scores` (score by label or choice) per input.
        """
        examples = [self._example(value, place) for place, value in enumerate(inputs)]
        return self.predict_examples(examples)

    def predict_examples(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Return label and scores for each example, as `predict_scores` does."""
        prompt, readout = self.model.prompt, self.model.readout
        encoded = [readout.encode(example) for example in examples]
        scores, _ = score_examples(self.backbone, prompt, readout, encoded)
        results = []
        for example, line in zip(examples, scores, strict=True):
            names = example.choices or self.format.labels
            if len(set(names)) < len(names):
                raise DataError(
                    f"must be different texts, but are {names}.",
                    file=example.source or None,
                    field="choices",
                )
            label = names[best_column(line)]
            results.append({"label": label, "scores": dict(zip(names, line, strict=True))})
        return results

    def evaluate(self, examples: Sequence[Example]) -> Evaluation:
        """Evaluate on labelled examples of the same format."""
        encoded = tuple(map(self.model.readout.encode, examples))
        split = EncodedSplit(tuple(examples), encoded)
        return evaluate(self.backbone, self.model.prompt, self.model.readout, split, self.format)

    def save(self, folder: str | Path) -> None:
        """Write configuration, prompt and result to a folder that `load` reads.

        Raises:
            RunFolderError: if the folder holds something already.
            StorageError: if it cannot be written.
        """
        path = Path(folder)
        if is_there(path) and entries(path):
            raise RunFolderError(f"{path} must be a new or empty folder, but is not.")
        make_folder(path)
        modules = (("prompt", self.model.prompt), ("readout", self.model.readout))
        tensors = {f"{name}.{k}": v for name, m in modules for k, v in m.state_dict().items()}
        tensors["rows"] = self.model.prompt.bake()
        write_json(path / "config.json", dict(self.about))
        write_tensors(path / "prompt.safetensors", tensors, prompt_header(self.about))
        write_json(path / "result.json", dict(self.summary))

    def _example(self, value: str | Mapping[str, Any], place: int) -> Example:
        """Turn a user's input into an example."""
        source = f"input {place + 1}"
        if isinstance(value, str):
            fields = template_fields(self.format.templates[self.config.readout.kind])
            if len(fields) != 1 or self.format.has_choices:
                raise DataError(
                    f"must be a mapping with {', '.join(fields)}, but is a string.", file=source
                )
            return Example({fields[0]: value}, source=source)
        choices = value.get("choices", ())
        if self.format.has_choices and (not choices or isinstance(choices, str)):
            raise DataError(
                f"must be a list of at least one text, but is {choices!r}.",
                file=source,
                field="choices",
            )
        wrong = [k for k, v in value.items() if k != "choices" and not isinstance(v, str)]
        if wrong:
            raise DataError(
                f"must be text, but is {value[wrong[0]]!r}.", file=source, field=wrong[0]
            )
        texts = {k: v for k, v in value.items() if k != "choices"}
        return Example(texts, choices=tuple(choices), source=source)


def load(folder: str | Path, backbone: Backbone | None = None) -> Result:
    """Load a finished run from its folder.

    Args:
        folder: a run folder, or a folder that `Result.save` wrote.
        backbone: the frozen model, or `None` to load the one that the run names.

    Returns:
        The result, ready to predict.

    Raises:
        StorageError: if the run is not finished or its files are broken.
        RecipeError: if its configuration breaks the schema.
        RunFolderError: if its configuration was edited, or the backbone's weights are not those
            that the prompt was trained for.
    """
    path = Path(folder)
    about = read_about(path)
    read_result(path, about["identity"])  # before anything heavy
    config = parse_run(about["config"], str(path / "config.json"))
    if backbone is None:
        kept = config.backbone.model_copy(update={"dtype": about["dtype"]})
        backbone = Resources().backbone(kept)
    if backbone.fingerprint != about["backbone_fingerprint"]:
        raise RunFolderError(
            f"{path} was trained on backbone weights {about['backbone_fingerprint']}, but "
            f"{backbone.name} has {backbone.fingerprint}."
        )
    format = _format(about["task_format"], path)
    model = build_model(config, backbone, format)
    summary = load_finished(path, about, model)
    return Result(config, backbone, format, model, about=about, summary=summary)


def _format(data: Any, folder: Path) -> TaskFormat:
    """Rebuild a task format from JSON."""
    try:
        lists = {key: tuple(data[key]) for key in ("labels", "metrics")}
        return TaskFormat(**{**data, **lists})
    except (TypeError, LookupError) as error:
        raise StorageError(
            f"{folder / 'config.json'} must have a whole `task_format`, but has not: {error}."
        ) from error
