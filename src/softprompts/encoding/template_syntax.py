"""The syntax of templates; needs no torch.

`{field}` names a field. `{choice}`, `{mask}`, `{prompt}` and `{sep}` are places. `{role:user}`
begins a turn of a chat. `{{` and `}}` are braces.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

from softprompts.errors import DataError

PLACES = frozenset({"choice", "mask", "prompt", "sep"})
MARK = "prompt"
"""The place that adds no token: it marks where rows of a prompt stand."""

ROLES = ("system", "user", "assistant")
"""Who may speak a turn of a chat."""

CHAT = "chat"
"""The name of a task's template for the `text` readout in the form of a chat."""

MESSAGES = "{messages}"
"""The template of a task whose rows are chats: turns of their own instead of fields."""


def parse_template(template: str) -> tuple[tuple[str, str], ...]:
    """Cut a template into pieces.

    Returns:
        `("text", literal)`, `("name", name)` and `("role", role)` pairs in order.

    Raises:
        DataError: if a brace has no partner, a name is empty or more than a plain name, or a role
            unknown; so do all below.

    Example:
        >>> parse_template("{text} It was {mask}.")
        (('name', 'text'), ('text', ' It was '), ('name', 'mask'), ('text', '.'))
    """
    pieces: list[tuple[str, str]] = []
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise DataError(f"template {template!r} must have paired braces: {error}.") from None
    for literal, name, spec, conversion in parts:
        if literal:
            pieces.append(("text", literal))
        if name is None:
            continue
        if name == "role" and spec in ROLES and not conversion:
            pieces.append(("role", spec))
            continue
        if spec or conversion or not name.isidentifier():
            raise DataError(
                f"template {template!r} must name plain fields such as {{text}}, or turns such as "
                "{role:user}, but has "
                f"{{{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}."
            )
        pieces.append(("name", name))
    return tuple(pieces)


def template_names(template: str) -> tuple[str, ...]:
    """Return the names in a template, in order, each as often as it stands there."""
    return tuple(text for kind, text in parse_template(template) if kind == "name")


def template_fields(template: str) -> tuple[str, ...]:
    """Return the distinct fields that a template names, without places such as `{mask}`."""
    return tuple(dict.fromkeys(n for n in template_names(template) if n not in PLACES))


def num_marks(template: str) -> int:
    """Return how often a template marks a place for rows of a prompt.

    Example:
        >>> num_marks("{prompt} {premise} {prompt} so {hypothesis}")
        2
    """
    return template_names(template).count(MARK)


def spell_turns(turns: Sequence[Mapping[str, str]]) -> str:
    """Write the turns of a chat, each with a `role` and a template as `content`, as one template.

    Where the last is the assistant's, its content is the beginning of the answer.

    Example:
        >>> spell_turns([{"role": "user", "content": "{text} Good or bad?"}])
        '{role:user}{text} Good or bad?'
    """
    if not turns:
        raise DataError("template must have at least one turn, but is empty.")
    for number, turn in enumerate(turns):
        if not isinstance(turn, Mapping) or set(turn) != {"role", "content"}:
            raise DataError(
                f"turn {number} of template must be a mapping with role and content, but is {turn}."
            )
        if turn["role"] not in ROLES:
            raise DataError(
                f"role of turn {number} must be one of {', '.join(ROLES)}, but is {turn['role']!r}."
            )
        if not isinstance(turn["content"], str):
            raise DataError(f"content of turn {number} must be text, but is {turn['content']!r}.")
    return "".join(f"{{role:{turn['role']}}}{turn['content']}" for turn in turns)


def spell_chat(fields: Sequence[str]) -> str:
    """Write the turns of a chat, by who speaks each and its number, as a template.

    Example:
        >>> spell_chat(("system_1", "user_2"))
        '{role:system}{system_1}{role:user}{user_2}'
    """
    return "".join(f"{{role:{name.rpartition('_')[0]}}}{{{name}}}" for name in fields)
