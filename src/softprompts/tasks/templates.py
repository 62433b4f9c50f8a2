"""Templates: their syntax, and what each readout kind wants of one.

`{field}` names a field. `{choice}`, `{mask}`, `{prompt}` and `{sep}` are places. `{{` and `}}` are
braces.
"""

from __future__ import annotations

import string
from collections.abc import Collection
from dataclasses import replace

from softprompts.readouts.registry import READOUTS
from softprompts.tasks.base import TaskFormat

PLACES = frozenset({"choice", "mask", "prompt", "sep"})
MARK = "prompt"
"""The place that adds no token: it marks where rows of a prompt stand."""


def parse_template(template: str) -> tuple[tuple[str, str], ...]:
    """Cut a template into pieces.

    Args:
        template: such as `"{premise} {sep} {hypothesis}"`.

    Returns:
        `("text", literal)` and `("name", name)` pairs in order.

    Raises:
        ValueError: if a brace has no partner, or a name is empty or more than a plain name.

    Example:
        >>> parse_template("{text} It was {mask}.")
        (('name', 'text'), ('text', ' It was '), ('name', 'mask'), ('text', '.'))
    """
    pieces: list[tuple[str, str]] = []
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"template {template!r} must have paired braces: {error}.") from error
    for literal, name, spec, conversion in parts:
        if literal:
            pieces.append(("text", literal))
        if name is None:
            continue
        if spec or conversion or not name.isidentifier():
            raise ValueError(
                f"template {template!r} must name plain fields such as {{text}}, but has "
                f"{{{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}."
            )
        pieces.append(("name", name))
    return tuple(pieces)


def template_names(template: str) -> tuple[str, ...]:
    """Return the names in a template, in order, each as often as it stands there.

    Raises:
        ValueError: if the template cannot be parsed.
    """
    return tuple(text for kind, text in parse_template(template) if kind == "name")


def template_fields(template: str) -> tuple[str, ...]:
    """Return the distinct fields that a template names, without places such as `{mask}`.

    Raises:
        ValueError: if the template cannot be parsed.
    """
    return tuple(dict.fromkeys(n for n in template_names(template) if n not in PLACES))


def num_marks(template: str) -> int:
    """Return how often a template marks a place for rows of a prompt.

    Raises:
        ValueError: if the template cannot be parsed.

    Example:
        >>> num_marks("{prompt} {premise} {prompt} so {hypothesis}")
        2
    """
    return template_names(template).count(MARK)


def with_template(form: TaskFormat, template: str | None) -> TaskFormat:
    """Return a format that is read by a template of the user's own, whatever the readout.

    Args:
        form: the format.
        template: the template; `None` keeps the format's own.

    Returns:
        The format with that template for every readout.
    """
    if template is None:
        return form
    return replace(form, templates=dict.fromkeys([*form.templates, *READOUTS.names()], template))


def template_problems(kind: str, template: str, has_choices: bool) -> list[str]:
    """Say what is wrong with one template.

    Args:
        kind: readout kind; `linear`, `cloze` and `text` have rules of their own.
        template: the template.
        has_choices: whether each row brings its own choices.

    Returns:
        One sentence per problem.
    """
    try:
        names = template_names(template)
    except ValueError as error:
        return [str(error)]
    counts = {place: names.count(place) for place in PLACES}
    wanted: dict[str, Collection[int]] = {"sep": (0, 1)}
    if kind == "linear":
        wanted |= {"mask": (0,), "choice": (1,) if has_choices else (0,)}
    elif kind == "cloze":
        wanted |= {"mask": (1,), "choice": (0,)}
    elif kind == "text":
        wanted |= {"mask": (0,), "choice": (0,)}
    problems = [
        f"{kind} template {template!r} must have {{{place}}} "
        f"{' or '.join(map(str, allowed))} times, but has it {counts[place]} times."
        for place, allowed in wanted.items()
        if counts[place] not in allowed
    ]
    ends = parse_template(template)[:1] + parse_template(template)[-1:]
    if ("name", "sep") in ends:
        problems.append(
            f"{kind} template {template!r} must have something on each side of {{sep}}, but has "
            "not."
        )
    if not any(name not in PLACES for name in names):
        problems.append(f"{kind} template {template!r} must name at least one field.")
    return problems


def label_problems(form: TaskFormat) -> list[str]:
    """Say what is wrong with the labels of a format.

    Args:
        form: the format.

    Returns:
        One sentence, or none when all is well.
    """
    if len(set(form.labels)) == len(form.labels) != 1:
        return []
    return [f"labels must be at least two and distinct, but are {list(form.labels)}."]


def format_problems(form: TaskFormat) -> list[str]:
    """Say what is wrong with a format: its templates, labels and verbalizer.

    Args:
        form: the format.

    Returns:
        One sentence per problem; empty when all is well.
    """
    problems = [
        problem
        for kind, template in form.templates.items()
        for problem in template_problems(kind, template, form.has_choices)
    ]
    problems += label_problems(form)
    if form.has_choices and form.verbalizer:
        problems.append(
            f"a task whose rows bring choices has no verbalizer, but it is {dict(form.verbalizer)}."
        )
    if not form.has_choices and set(form.verbalizer) != set(form.labels):
        problems.append(
            f"verbalizer must have exactly the labels {', '.join(form.labels)}, but has "
            f"{', '.join(form.verbalizer) or 'none'}."
        )
    words = list(form.verbalizer.values())
    if len(set(words)) != len(words) or not all(word.strip() for word in words):
        problems.append(f"verbalizer words must be distinct and not blank, but are {words}.")
    return problems
