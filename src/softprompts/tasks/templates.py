"""Templates: their syntax, and what each readout kind wants of one.

`{field}` names a field. `{choice}`, `{mask}`, `{prompt}` and `{sep}` are places. `{role:user}`
begins a turn of a chat. `{{` and `}}` are braces.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from softprompts.readouts.registry import READOUTS
from softprompts.tasks.base import TaskFormat

PLACES = frozenset({"choice", "mask", "prompt", "sep"})
MARK = "prompt"
"""The place that adds no token: it marks where rows of a prompt stand."""

ROLES = ("system", "user", "assistant")
"""Who may speak a turn of a chat."""

CHAT = "chat"
"""The name of a task's template for the `text` readout in the form of a chat."""


def parse_template(template: str) -> tuple[tuple[str, str], ...]:
    """Cut a template into pieces.

    Args:
        template: such as `"{premise} {sep} {hypothesis}"`.

    Returns:
        `("text", literal)`, `("name", name)` and `("role", role)` pairs in order.

    Raises:
        ValueError: if a brace has no partner, a name is empty or more than a plain name, or a role
            unknown.

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
        if name == "role" and spec in ROLES and not conversion:
            pieces.append(("role", spec))
            continue
        if spec or conversion or not name.isidentifier():
            raise ValueError(
                f"template {template!r} must name plain fields such as {{text}}, or turns such as "
                "{role:user}, but has "
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


def spell_turns(turns: Sequence[Mapping[str, str]]) -> str:
    """Write the turns of a chat as one template.

    Args:
        turns: a mapping with `role` and `content` each; the content is a template. Where the last
            is the assistant's, its content is the beginning of the answer.

    Raises:
        ValueError: if there is no turn, or one has other keys, an unknown role or no text.

    Example:
        >>> spell_turns([{"role": "user", "content": "{text} Good or bad?"}])
        '{role:user}{text} Good or bad?'
    """
    if not turns:
        raise ValueError("template must have at least one turn, but is empty.")
    for number, turn in enumerate(turns):
        if not isinstance(turn, Mapping) or set(turn) != {"role", "content"}:
            raise ValueError(
                f"turn {number} of template must be a mapping with role and content, but is {turn}."
            )
        if turn["role"] not in ROLES:
            raise ValueError(
                f"role of turn {number} must be one of {', '.join(ROLES)}, but is {turn['role']!r}."
            )
        if not isinstance(turn["content"], str):
            raise ValueError(f"content of turn {number} must be text, but is {turn['content']!r}.")
    return "".join(f"{{role:{turn['role']}}}{turn['content']}" for turn in turns)


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
    names = [*form.templates, *READOUTS.names(), CHAT]
    return replace(form, templates=dict.fromkeys(names, template))


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
    elif kind in ("text", CHAT):
        wanted |= {"mask": (0,), "choice": (0,)}
    problems = _turn_problems(kind, template)
    problems += [
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


def _turn_problems(kind: str, template: str) -> list[str]:
    """Say what is wrong with the turns of a template, if it has some."""
    pieces = parse_template(template)
    roles = [text for piece, text in pieces if piece == "role"]
    if not roles:
        return []
    rules = {
        "be for the text readout": kind in ("", "text", CHAT),
        "begin with a turn": pieces[0][0] == "role",
        "have the system's turn first": "system" not in roles[1:],
        "end with a turn of the user, or the beginning of the assistant's": roles[-1] != "system",
        "have a turn of the user": "user" in roles,
        "have {sep} in no turn": ("name", "sep") not in pieces,
    }
    return [
        f"{kind} template {template!r} must {rule}, but has not the form of such a chat."
        for rule, holds in rules.items()
        if not holds
    ]


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
