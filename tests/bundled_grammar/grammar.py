"""What a grammar file holds, and how it is read and checked.

A grammar has *tables* of records (the fillers, apart for each split), *words* that any frame of a
split may use, and *families* of frames. A family has frames for every label; a frame is a sentence
with `{column}` places. See `expansion.py` for how a family becomes rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from softprompts.errors import DataError

Split = Literal["train", "validation"]
"""A split of a bundled task."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Filler = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]
"""One text, or the texts to choose from."""

Columns = dict[str, Filler]
"""Fillers by column name."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Table(_Strict):
    """The fillers of one topic in one split.

    Attributes:
        shared: columns that every record has unless it brings its own.
        records: fillers that go together, such as a dish and what one says of it.
    """

    shared: Columns = Field(default_factory=dict)
    records: tuple[Columns, ...] = Field(min_length=1)


class Family(_Strict):
    """Frames that one drawn record fills, for every label.

    Attributes:
        tables: the tables whose records fit.
        frames: frames of the first field, by label.
        pair: frames of the second field, shared by all labels; empty when there is one field.
        weight: how often the family is drawn, relative to the others of its split.
        splits: the splits that use it.
    """

    tables: tuple[str, ...] = Field(min_length=1)
    frames: dict[str, Filler]
    pair: tuple[str, ...] = ()
    weight: int = Field(default=1, ge=1)
    splits: tuple[Split, ...] = ("train", "validation")


class Grammar(_Strict):
    """One task as data.

    Attributes:
        rows: number of rows, by split.
        tables: tables by name, then by split.
        families: the families.
        words: columns that every record of a split has, by split.
        anchors: where a file keeps lists that its families repeat; not read.
    """

    rows: dict[Split, int]
    tables: dict[str, dict[Split, Table]]
    families: tuple[Family, ...] = Field(min_length=1)
    words: dict[Split, Columns] = Field(default_factory=dict)
    anchors: dict[str, Any] = Field(default_factory=dict)


def parse_grammar(text: str, labels: tuple[str, ...], file: str = "grammar") -> Grammar:
    """Read a grammar and check that its parts fit together.

    Args:
        text: the YAML text.
        labels: the labels of the task; every family must have frames for each.
        file: the name that errors give.

    Returns:
        The grammar.

    Raises:
        DataError: if the text is not YAML, breaks the schema, or names a table or label that is not
            there.
    """
    try:
        # The C loader is ten times faster; both read the same YAML.
        content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        grammar = Grammar.model_validate(content)
    except yaml.YAMLError as error:
        raise DataError(f"must be YAML, but {' '.join(str(error).split())}.", file=file) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        reason = f"{first['msg']}, but is {first['input']!r}."
        raise DataError(reason, file=file, field=place) from error
    _check_rows(grammar.rows, labels, file)
    for number, family in enumerate(grammar.families):
        _check_family(family, grammar.tables, labels, (file, f"families.{number}"))
    return grammar


def _check_rows(rows: Mapping[Split, int], labels: tuple[str, ...], file: str) -> None:
    for split, count in rows.items():
        if count < 1 or count % len(labels):
            raise DataError(
                f"must be a positive multiple of {len(labels)}, but is {count}.",
                file=file,
                field=f"rows.{split}",
            )


def _check_family(
    family: Family,
    tables: Mapping[str, Mapping[Split, Table]],
    labels: tuple[str, ...],
    place: tuple[str, str],
) -> None:
    file, field = place
    if set(family.frames) != set(labels):
        raise DataError(
            f"must have the labels {', '.join(labels)}, but has {', '.join(family.frames)}.",
            file=file,
            field=f"{field}.frames",
        )
    for table in family.tables:
        for split in family.splits:
            if split not in tables.get(table, {}):
                raise DataError(
                    f"must name a table of the {split} split, but is {table!r}.",
                    file=file,
                    field=f"{field}.tables",
                )
