"""YAML as people mean it: `1e-3` is a number, `no` is a word, and a key is text and stands once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from softprompts.errors import RecipeError

_DEEPEST = 50
_MOST_VALUES = 10_000
_TAG = "tag:yaml.org,2002:"
_KINDS: Mapping[type, tuple[str, ...]] = {
    yaml.ScalarNode: ("str", "int", "float", "bool", "null", "merge"),
    yaml.SequenceNode: ("seq",),
    yaml.MappingNode: ("map",),
}
"""Tags that a node may have: plain values, and no others."""


class _Loader(yaml.SafeLoader):
    """The safe loader with the scalars of YAML 1.2 and without duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (as in the base)
    _num_nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Build a node, unless there are more than a recipe may have."""
        self._num_nodes += 1
        if self._num_nodes > 2 * _MOST_VALUES:  # keys are nodes too
            raise yaml.composer.ComposerError(
                None, None, f"has more than {_MOST_VALUES} values", self.get_mark()
            )
        return super().compose_node(parent, index)

    def kind_of(self, text: str) -> str:
        """Return what kind of value a text without quotes is, such as `int`."""
        kind: str = super().resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        return kind.removeprefix(_TAG)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, refusing a key that stands twice; a whole number as a key is text."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = _as_text(self.construct_object(key_node, deep=True))
            if not isinstance(key, str):
                raise _refusal(f"a key must be text, but is {key!r}", key_node)
            if key in seen:
                raise _refusal(f"a key must stand once, but {key!r} stands again", key_node)
            seen.add(key)
        built = super().construct_mapping(node, deep=deep)
        return {_as_text(key): value for key, value in built.items()}


def _refusal(text: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)


def _as_text(key: Any) -> Any:
    """Return a whole number as text: names of one's own, and of devices, may be numbers."""
    return str(key) if isinstance(key, int) and not isinstance(key, bool) else key


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
    ("merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def read_yaml(text: str, source: str) -> Any:
    """Return the value that a YAML text describes; `None` for an empty one.

    What is no YAML is refused with line and column; so is a key that stands twice, or is neither
    text nor a whole number, and a value that is too large or contains itself.
    """
    try:
        return _load(text, source)
    except RecipeError:
        raise
    except yaml.MarkedYAMLError as error:
        raise RecipeError([_sentence(error)], source) from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise RecipeError([f"the text must be valid YAML, but is not: {reason}."], source) from None
    except (RecursionError, ValueError) as error:
        raise RecipeError([f"the text must be plain YAML, but is not: {error}."], source) from None


def _load(text: str, source: str) -> Any:
    """Return the value of a text, once its size is known: nothing is written out before."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        size, height = _measured(node, {})
        if height > _DEEPEST or size > _MOST_VALUES:
            problem = f"values must nest at most {_DEEPEST} deep and number at most {_MOST_VALUES}."
            raise RecipeError([problem], source)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _sentence(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    reason = (error.problem or error.context or "it cannot be read").removeprefix("but ")
    return f"{place}the text must be valid YAML, but {reason}."


def _measured(node: yaml.Node, known: dict[yaml.Node, tuple[int, int]]) -> tuple[int, int]:
    """Return how many values a checked node holds, aliases written out, and how deep they nest."""
    if node in known:
        return known[node]
    _check_tag(node)
    known[node] = (_MOST_VALUES + 1, 0)
    size, height = 1, 0
    if not isinstance(node, yaml.ScalarNode):
        is_mapping = isinstance(node, yaml.MappingNode)
        for key, value in node.value if is_mapping else [(None, item) for item in node.value]:
            key_size, key_height = (1, 0) if key is None else _measured(key, known)
            inner, depth = _measured(value, known)
            size, height = size + key_size - 1 + inner, max(height, 1 + key_height, 1 + depth)
    known[node] = (min(size, _MOST_VALUES + 1), min(height, _DEEPEST + 1))
    return known[node]


def _check_tag(node: yaml.Node) -> None:
    """Check that a tag is one of plain values, and that the value is of its kind."""
    kind = node.tag.removeprefix(_TAG)
    fits: bool = kind in _KINDS[type(node)]
    if fits and kind in ("bool", "null", "int", "float"):
        meant = _Loader("").kind_of(node.value)
        fits = meant == kind or (meant, kind) == ("int", "float")
    if not fits:
        shown = node.tag.replace(_TAG, "!!")
        raise _refusal(f"a tag must be left out or fit its value, but is {shown!r}", node)
