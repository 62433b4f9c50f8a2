"""Small damages of values and bytes, each from a seeded generator."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

STRANGE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**40,
    -(10**40),
    0.5,
    -0.0,
    1e-300,
    1e30,
    1e300,
    float("inf"),
    float("nan"),
    "",
    " ",
    "x",
    "null",
    "1e5",
    "../x",
    "/etc/passwd",
    "~",
    "a.b.c",
    "{text}",
    "{",
    "%s",
    "\x00",
    "\x1b[2J\r\n",
    "\ud800",
    "ß漢🙂",
    "x" * 5000,
    [],
    [[]],
    {},
    {"": 1},
    {"kind": "x"},
    [1, "a", None],
    {"a": {"b": [1]}},
)
"""Values that nobody writes on purpose."""

TAGS = ("!!bool x", "!!timestamp x", '!!int ""', '!!float ""', "!!map [1]", "!!set [a]", "!!str 1")


def strange(draw: random.Random) -> Any:
    """Return a copy of a value that nobody writes on purpose."""
    return copy.deepcopy(draw.choice(STRANGE))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside a value, and its own."""
    found = [path]
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in inner:
            found += places(one, (*path, key))
    return found


def damaged(value: Any, draw: random.Random) -> Any:
    """Return a copy of plain data with one to three places changed."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        path = draw.choice(places(value))
        if not path:
            value = draw.choice((value, value, value, strange(draw)))
            continue
        node = value
        for key in path[:-1]:
            node = node[key]
        _change(node, path[-1], draw)
    return value


def _change(node: Any, key: Any, draw: random.Random) -> None:
    how = draw.randrange(6)
    if how == 0:
        del node[key]
    elif how == 1 and isinstance(node, dict):
        node[draw.choice((key + "x", "", "seed", "kind", key.upper(), "a.b"))] = node.pop(key)
    elif how == 2 and isinstance(node[key], int | float) and not isinstance(node[key], bool):
        node[key] *= draw.choice((-1, 0, 1.5, 10, 10**6, 1e25))
    elif how == 3 and isinstance(node[key], str):
        node[key] = node[key] + draw.choice(("x", " ", "\n", "é", "."))
    else:
        node[key] = strange(draw)


def torn(content: bytes, draw: random.Random) -> bytes:
    """Return bytes with some changed, cut, doubled or put in."""
    for _ in range(draw.choice((1, 1, 2, 5))):
        place, width = draw.randrange(len(content) + 1), draw.choice((1, 1, 2, 8, 64))
        other = bytes(draw.randrange(256) for _ in range(width))
        size = draw.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)).to_bytes(8, "little")
        content = draw.choice(
            (
                content[:place],
                content[:place] + content[place + width :],
                content[:place] + other + content[place + width :],
                content[:place] + other + content[place:],
                content[:place] + content[place : place + width] * 3 + content[place:],
                content[:place] + size + content[place + 8 :],
            )
        )
    return content


def said(value: Any) -> str:
    """Return plain data as JSON, also where that cannot hold it."""
    return json.dumps(value, ensure_ascii=True)
