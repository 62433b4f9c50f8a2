"""YAML as people mean it: `1e-3` is a number, `no` is a word, and a key is text and stands once."""

from __future__ import annotations

import re
from typing import Any

import yaml

from softprompts.errors import RecipeError

_DEEPEST = 50
_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """The safe loader with the scalars of YAML 1.2 and without duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (as in the base)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, refusing a key that stands twice; a whole number as a key is text."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = _as_text(self.construct_object(key_node, deep=True))
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"a key must be text, but is {key!r}", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"a key must stand once, but {key!r} stands again",
                    key_node.start_mark,
                )
            seen.add(key)
        built = super().construct_mapping(node, deep=deep)
        return {_as_text(key): value for key, value in built.items()}


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
    """Return the value that a YAML text describes.

    Args:
        text: one YAML document.
        source: what to call it in an error.

    Returns:
        Plain mappings, lists and values; `None` for an empty text.

    Raises:
        RecipeError: if the text is not YAML, with line and column; if a key stands twice or is
            neither text nor a whole number; or if the value is too large or contains itself.
    """
    try:
        value = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        raise RecipeError([_sentence(error)], source) from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise RecipeError([f"the text must be valid YAML, but is not: {reason}."], source) from None
    except (RecursionError, ValueError) as error:
        raise RecipeError([f"the text must be plain YAML, but is not: {error}."], source) from None
    if _is_too_large(value):
        text = f"values must nest at most {_DEEPEST} deep and number at most {_MOST_VALUES}."
        raise RecipeError([text], source)
    return value


def _sentence(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    reason = (error.problem or error.context or "it cannot be read").removeprefix("but ")
    return f"{place}the text must be valid YAML, but {reason}."


def _is_too_large(value: Any) -> bool:
    """Return whether a value nests too deep or holds too much, aliases written out."""
    waiting, seen = [(value, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST_VALUES:
            return True
        if isinstance(item, dict | list):
            inner = item.values() if isinstance(item, dict) else item
            waiting.extend((value, depth + 1) for value in inner)
    return False
