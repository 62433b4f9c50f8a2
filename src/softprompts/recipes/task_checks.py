"""What is wrong with the task of a recipe, or each task of a mixture, its template and marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from softprompts.encoding.template import num_marks
from softprompts.errors import DataError, PromptError
from softprompts.examples import WRITING
from softprompts.problems import Problem, broken
from softprompts.prompts.sharing import check_counts, check_marks
from softprompts.readouts.registry import READOUTS
from softprompts.recipes.schema import RunConfig, TaskConfig
from softprompts.tasks.files_options import all_templates, files_problems, writes
from softprompts.tasks.registry import BUNDLED, task_format
from softprompts.tasks.templates import template_problems

NO_TASK = Problem(("task", "mixture"), "`task` must be given, but is missing.")
"""A run needs a task, or a mixture of several."""


def task_problems(config: RunConfig) -> Iterator[Problem]:
    """Find what is wrong with the tasks of a run, each with its place in the recipe."""
    if config.task is not None and config.mixture is not None:
        yield broken("be left out when `mixture` is given", config.task.name, "task", "mixture")
    if config.task is None and config.mixture is None:
        yield NO_TASK
    for name, place in config.task_fields.items():
        yield from _field_problems(config.tasks[name], place)


def _field_problems(task: TaskConfig, place: str) -> Iterator[Problem]:
    """Find what is wrong between the fields of one task."""
    if task.shots is not None and task.shots_total is not None:
        yield Problem(
            (f"{place}.shots", f"{place}.shots_total"),
            f"`{place}.shots_total` must be left out when `{place}.shots` is set, "
            f"but is {task.shots_total} (with {task.shots} shots per class).",
        )
    if task.sample_seed is not None and task.shots is None and task.shots_total is None:
        rule = f"be left out where neither `{place}.shots` nor `{place}.shots_total` is set"
        yield broken(rule, task.sample_seed, f"{place}.sample_seed")
    if task.name in BUNDLED and task.data_dir is not None:
        rule = f"be left out for {task.name}, which brings its own rows"
        yield broken(rule, task.data_dir, f"{place}.data_dir", f"{place}.name")
    if task.name.startswith("fewglue/") and task.data_dir is None:
        rule = f"be the folder with the files of {task.name}"
        yield broken(rule, None, f"{place}.data_dir", f"{place}.name")
    if task.name == "files":
        for sentence in files_problems(task.options):
            text = f"`{place}.options`: {sentence.rstrip('.')}."
            yield Problem((f"{place}.name", f"{place}.options"), text)


def writing_problems(config: RunConfig) -> Iterator[Problem]:
    """Find tasks that bring something else than what the readout reads, and what texts lack."""
    kind = config.readout.kind
    for name, place in config.task_fields.items():
        task = config.tasks[name]
        brings = _brings(task)
        if brings is not None and (brings == "texts") != (kind == WRITING):
            wanted = WRITING if brings == "texts" else "another"
            what = "texts to write" if brings == "texts" else "labels or choices"
            rule = f"be {wanted} for {task.name}, whose rows bring {what}"
            yield broken(rule, kind, "readout", f"{place}.name")
        if brings == "texts" and task.shots is not None:
            yield Problem(
                (f"{place}.shots", f"{place}.name"),
                f"`{place}.shots` must be left out for {task.name}, whose rows have no class, but "
                f"is {task.shots}. Use `{place}.shots_total`.",
            )
    if kind == WRITING:
        yield from _text_problems(config)


def _text_problems(config: RunConfig) -> Iterator[Problem]:
    """Find what does not go with texts, and ways to write that exclude each other."""
    options = config.readout.options
    if options["temperature"] is not None and options["num_beams"] > 1:
        rule = "be 1 where `readout.temperature` is given, since tokens are drawn then"
        yield broken(rule, options["num_beams"], "readout", name="readout.num_beams")
    if options["temperature"] is None:
        for field in ("top_p", "sampling_seed"):
            if options[field] != READOUTS.entry(WRITING).options[field].default:
                rule = "be left out where `readout.temperature` is null, since nothing is drawn"
                yield broken(rule, options[field], "readout", name=f"readout.{field}")
    for number, regularizer in enumerate(config.regularizers):
        if regularizer.options.get("consistency", "ce") != "ce":
            field = f"regularizers.{number}"
            found = regularizer.options["consistency"]
            reason = "since a text has no labels whose probabilities could be compared"
            rule = f"be ce with readout {WRITING}, {reason}"
            yield broken(rule, found, field, "readout", name=f"{field}.consistency")


def task_template_problems(config: RunConfig) -> Iterator[Problem]:
    """Find what is wrong with the tasks' own `template` for the run's readout."""
    for name, place in config.task_fields.items():
        task = config.tasks[name]
        template, brings = task.template, _brings(task)
        if template is None:
            continue
        kind = config.readout.kind if brings else ""  # rules that hold whatever the rows
        has_choices = brings == "choices" or bool(task.options.get("choices_fields"))
        for sentence in template_problems(kind, template, has_choices):
            fields = (f"{place}.template", f"{place}.name", "readout")
            yield Problem(fields, f"`{place}.template`: {sentence.strip()}")


def known_marks(config: RunConfig) -> list[tuple[str, str, int]]:
    """Return the field, the name in an error and the marks of each template that a recipe tells."""
    found = [
        _known_template(config.tasks[name], config.readout.kind, place)
        for name, place in config.task_fields.items()
    ]
    return [one for one in found if one is not None]


def mark_problems(
    config: RunConfig, found: tuple[str, str, int], length: int, is_marked: bool
) -> Iterator[Problem]:
    """Find marks of a task, as `known_marks` has it, without rows, and rows without a mark."""
    field, where, marks = found
    position = config.prompt.position
    counts = position.options.get("counts") if is_marked and position is not None else None
    if counts is not None and counts_problem(length, counts):
        return  # said already
    try:
        check_marks(length, marks, where, is_marked=is_marked, counts=counts)
    except PromptError as error:
        name = f"{field.rpartition('.')[0]}.name"
        fields = (field, name, "prompt.position", "prompt.length", "prompt.method")
        yield Problem(fields, str(error))


def counts_problem(length: int, counts: Sequence[int]) -> str:
    """Return what is wrong with rows per mark by themselves, or ""."""
    try:
        check_counts(length, counts)
    except PromptError as error:
        return str(error)
    return ""


def _known_template(task: TaskConfig, readout: str, place: str) -> tuple[str, str, int] | None:
    """Return the field, the name in an error and the marks of the template, if a recipe tells."""
    field, source = f"{place}.template", task.template
    if source is None and task.name == "files" and not files_problems(task.options):
        field, source = f"{place}.options", all_templates(task.options).get(readout)
    if source is None:
        own = f"`{place}.template` is null, and {task.name}'s own template"
        return (field, own, 0) if task_format(task.name) else None
    try:
        return field, f"template {source!r}", num_marks(source)
    except DataError:  # said already
        return None


def _brings(task: TaskConfig) -> str | None:
    """Return whether rows bring choices, labels or texts; `None` where a recipe does not tell."""
    if task.name == "files":
        rows = "choices" if task.options["choices_fields"] else "labels"
        return "texts" if writes(task.options) else rows
    form = task_format(task.name)
    if form is None:
        return None
    return "texts" if form.is_writing else "choices" if form.has_choices else "labels"
