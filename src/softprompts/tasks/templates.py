"""What each readout kind wants of a task's template, and what is wrong with a format."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from softprompts.encoding.template import CHAT, PLACES, template_names, template_pieces
from softprompts.errors import DataError
from softprompts.examples import WRITING, TaskFormat
from softprompts.registry import Registry


def readout_names() -> tuple[str, ...]:
    """Return the readouts that a task may have templates for: ours, and other packages'."""
    return ("linear", "cloze", "text", *Registry("readout").names())


def with_template(form: TaskFormat, template: str | None) -> TaskFormat:
    """Return a format that is read by a template of the user's own, whatever the readout."""
    if template is None:
        return form
    others = () if form.is_writing else (*readout_names(), CHAT)
    return replace(form, templates=dict.fromkeys([*form.templates, *others], template))


def template_problems(kind: str, template: str, has_choices: bool) -> list[str]:
    """Say what is wrong with one template, a sentence each."""
    try:
        names = template_names(template)
    except DataError as error:
        return [str(error)]
    counts = {place: names.count(place) for place in PLACES}
    wanted: dict[str, Collection[int]] = {"sep": (0, 1)}
    if kind == "linear":
        wanted |= {"mask": (0,), "choice": (1,) if has_choices else (0,)}
    elif kind == "cloze":
        wanted |= {"mask": (1,), "choice": (0,)}
    elif kind in ("text", CHAT, WRITING):
        wanted |= {"mask": (0,), "choice": (0,)}
    problems = _turn_problems(kind, template)
    problems += [
        f"{kind} template {template!r} must have {{{place}}} "
        f"{' or '.join(map(str, allowed))} times, but has it {counts[place]} times."
        for place, allowed in wanted.items()
        if counts[place] not in allowed
    ]
    ends = template_pieces(template)[:1] + template_pieces(template)[-1:]
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
    pieces = template_pieces(template)
    roles = [text for piece, text in pieces if piece == "role"]
    if not roles:
        return []
    rules = {
        "be for the text or writing readout": kind in ("", "text", CHAT, WRITING),
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
    """Say what is wrong with the labels of a format."""
    if form.is_writing:
        others = sorted(set(form.templates) - {WRITING, CHAT})
        return [
            f"templates of a task of writing must be {WRITING} and {CHAT} alone, but are for "
            f"{', '.join(others)} too."
        ] * bool(others)
    if len(set(form.labels)) == len(form.labels) != 1:
        return []
    return [f"labels must be at least two and distinct, but are {list(form.labels)}."]


def format_problems(form: TaskFormat) -> list[str]:
    """Say what is wrong with a format: its templates, labels and verbalizer."""
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
