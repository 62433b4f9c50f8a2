"""The options of the task `files`, and what they must not say together; no data is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from softprompts.encoding.template import CHAT, MESSAGES, template_names
from softprompts.errors import DataError
from softprompts.examples import WRITING
from softprompts.metrics.registry import METRICS, is_of_texts, scored
from softprompts.registry import Option, unknown_name
from softprompts.tasks.templates import readout_names, template_problems

_SOURCE = "below data_dir (jsonl, json, csv or parquet), or split of hub_dataset"
_SOME = {"min_length": 1}

optional_text = partial(Option, str | None, None, constraints=_SOME)
"""An option that is a text, or null where a recipe is silent; called with its description."""

OPTIONS: dict[str, Option] = {
    "train": Option(str, ..., f"training file {_SOURCE}", _SOME),
    "validation": Option(str, ..., f"reported file {_SOURCE}", _SOME),
    "held_out": optional_text(f"model-selection file {_SOURCE}"),
    "hub_dataset": optional_text("hub id, or folder laid out like one"),
    "hub_config": optional_text("configuration of hub_dataset"),
    "hub_revision": optional_text("branch, tag or commit of hub_dataset"),
    "label_field": Option(str, "label", "field with the label", _SOME),
    "target_field": optional_text(
        "field with the text to write, or a list of references; answers.text is one in another"
    ),
    "messages_field": optional_text(
        "field with a chat, a list of role and content; its last turn is the text to write"
    ),
    "labels": Option(
        list[str] | None, None, "labels in column order; null: those of train, sorted"
    ),
    "group_field": optional_text("field that rows scored together share"),
    "choices_fields": Option(
        list[str] | None,
        None,
        "fields with the choices of each row; the label is a position or field",
    ),
    "template": optional_text("one template for every readout"),
    "templates": Option(dict[str, str] | None, None, "template per readout"),
    "verbalizer": Option(dict[str, str] | None, None, "label words; null: the labels"),
    "metrics": Option(list[str], ["accuracy"], "metrics; the score is their mean", _SOME),
}
"""What a recipe may set under `task.options` for the task `files`."""


def writes(options: Mapping[str, Any]) -> bool:
    """Return whether rows bring texts to write instead of labels."""
    return options["target_field"] is not None or options["messages_field"] is not None


def all_templates(options: Mapping[str, Any]) -> dict[str, str]:
    """Return a template per readout kind, as checked options say them or out of one.

    One stands itself for `text`, or `writing` and `chat`; with `{mask}` at its end for `cloze`; for
    `linear` with `{choice}` at its end where there are choices.
    """
    if options["templates"]:
        return dict(options["templates"])
    template, has_choices = options["template"], bool(options["choices_fields"])
    if writes(options):
        return dict.fromkeys((WRITING, CHAT), template or MESSAGES)
    border = " " if "sep" in template_names(template) else " {sep} "
    linear = f"{template}{border}{{choice}}" if has_choices else template
    return {"linear": linear, "cloze": f"{template} {{mask}}", "text": template}


def files_problems(options: Mapping[str, Any]) -> list[str]:
    """Say what typed options of the task `files` contradict, a sentence each; reads no data."""
    parts = (_writing_problems, _template_problems, _label_problems, _metric_problems)
    return list(dict.fromkeys(problem for part in parts for problem in part(options)))


def _metric_problems(options: Mapping[str, Any]) -> Iterator[str]:
    """Say what does not go with a hub set, and which metrics do not fit the rows."""
    metrics, has_choices = options["metrics"], bool(options["choices_fields"])
    for key in ("hub_config", "hub_revision"):
        if options[key] is not None and options["hub_dataset"] is None:
            yield f"`{key}` must come with `hub_dataset`, but is {options[key]!r} alone."
    names = {name for name in metrics if name in METRICS}
    if names and not scored(names):
        wanted = "one that is a share, whose mean is the score"
        yield f"`metrics` must have {wanted}, but are {metrics}."
    for metric in metrics:
        if metric not in METRICS:
            yield unknown_name("metric", metric, METRICS.names())
        elif is_of_texts(metric) != writes(options):
            fitting = [one.name for one in METRICS if is_of_texts(one.name) == writes(options)]
            yield (
                f"`metrics` must be among {', '.join(fitting)}, which fit such rows, but one is "
                f"{metric!r}."
            )
        elif metrics.count(metric) > 1:
            yield f"`metrics` must be distinct, but {metric!r} comes twice."
        elif metric == "multirc-em" and options["group_field"] is None:
            yield f"metric {metric!r} must come with `group_field`, but it is null."
        elif metric.startswith("record-") and not has_choices:
            yield f"metric {metric!r} must come with `choices_fields`, but it is empty."
        elif metric.startswith(("multirc-", "macro-")) and has_choices:
            yield f"metric {metric!r} must be used with labels, but rows bring choices."


def _writing_problems(options: Mapping[str, Any]) -> list[str]:
    """Say what rows cannot bring beside texts to write."""
    if not writes(options):
        return []
    own = "messages_field" if options["target_field"] is None else "target_field"
    others = ("labels", "choices_fields", "verbalizer", "group_field")
    given = {name: options[name] for name in others if options[name] is not None}
    if options["label_field"] != OPTIONS["label_field"].default:
        given["label_field"] = options["label_field"]
    if own == "target_field" and options["messages_field"] is not None:
        given["messages_field"] = options["messages_field"]
    if own == "messages_field":
        names = ("template", "templates")
        given |= {name: options[name] for name in names if options[name] is not None}
    return [
        f"`{name}` must be left out when `{own}` is given, but is {value!r}."
        for name, value in given.items()
    ]


def _template_problems(options: Mapping[str, Any]) -> list[str]:
    template, templates = options["template"], options["templates"]
    has_choices = bool(options["choices_fields"])
    kinds = (WRITING, CHAT) if writes(options) else readout_names()
    if options["messages_field"] is not None:
        return []
    if (template is None) == (not templates):
        given = "neither is" if template is None else "both are"
        return [f"one of `template` and `templates` must be given, but {given}."]
    if template is None:
        problems = []
        for kind, text in templates.items():
            if kind not in kinds:
                problems.append(unknown_name("readout", kind, kinds))
            problems += template_problems(kind, text, has_choices)
        return problems
    try:
        places = [name for name in template_names(template) if name in ("mask", "choice")]
    except DataError as error:
        return [str(error)]
    if places:
        return [
            f"`template` must not have {{{places[0]}}}, which not every readout can fill, but is "
            f"{template!r}. Use `templates`."
        ]
    return template_problems("text", template, has_choices)


def _label_problems(options: Mapping[str, Any]) -> Iterator[str]:
    labels, choices, words = options["labels"], options["choices_fields"], options["verbalizer"]
    if choices is not None:
        if len(set(choices)) != len(choices) or len(choices) < 2:
            yield f"`choices_fields` must be at least two and distinct, but are {choices}."
        for key, value in (("labels", labels), ("verbalizer", words)):
            if value is not None:
                yield f"`{key}` must be left out when `choices_fields` is given, but is {value}."
        return
    if labels is not None:
        if len(set(labels)) != len(labels) or len(labels) < 2 or "" in labels:
            yield f"`labels` must be at least two, distinct and not empty, but are {labels}."
        if words is not None and set(words) != set(labels):
            yield (
                f"`verbalizer` must have exactly the labels {', '.join(labels)}, but has "
                f"{', '.join(words) or 'none'}."
            )
    if words is not None and (len(set(words.values())) != len(words) or "" in words.values()):
        yield f"`verbalizer` words must be distinct and not empty, but are {words}."
