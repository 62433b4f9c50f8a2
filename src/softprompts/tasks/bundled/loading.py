"""Loads a bundled task."""

from __future__ import annotations

from importlib.resources import files

from softprompts.errors import UnknownNameError
from softprompts.registry import unknown_name
from softprompts.tasks.base import Example, Task, TaskFormat
from softprompts.tasks.bundled.expansion import expand
from softprompts.tasks.bundled.formats import FORMATS
from softprompts.tasks.bundled.grammar import Grammar, Split, parse_grammar

_FIELDS = {"bundled/entailment": ("premise", "hypothesis")}


def load_bundled(name: str) -> Task:
    """Load one of the tasks that come with the library.

    Args:
        name: the registry name, such as `bundled/sentiment`.

    Returns:
        The task: the same rows in the same order on every machine.

    Raises:
        UnknownNameError: if there is no such task.

    Example:
        >>> len(load_bundled("bundled/sentiment").train)
        480
    """
    if name not in FORMATS:
        raise UnknownNameError(unknown_name("bundled task", name, FORMATS))
    form = FORMATS[name]
    grammar = load_grammar(name)
    return Task(
        format=form,
        train=_examples(form, grammar, "train"),
        held_out=(),
        validation=_examples(form, grammar, "validation"),
        validation_name="validation",
    )


def load_grammar(name: str) -> Grammar:
    """Read the grammar of a bundled task.

    Args:
        name: the registry name, such as `bundled/sentiment`.

    Returns:
        The grammar.
    """
    file = _file(name)
    text = (files(__package__) / file).read_text(encoding="utf-8")
    return parse_grammar(text, FORMATS[name].labels, file)


def _file(name: str) -> str:
    return name.removeprefix("bundled/").replace("-", "_") + ".yaml"


def _examples(form: TaskFormat, grammar: Grammar, split: Split) -> tuple[Example, ...]:
    fields = _FIELDS.get(form.name, ("text",))
    return tuple(
        Example(
            fields=dict(zip(fields, row, strict=False)),  # a one-field task has an empty pair
            answers=(form.labels.index(row[2]),),
            source=f"{form.name} {split}:{number}",
        )
        for number, row in enumerate(expand(grammar, split, file=_file(form.name)), start=1)
    )
