"""Tasks that a recipe may name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from softprompts.examples import TaskFormat
from softprompts.registry import Registry
from softprompts.tasks.bundled.formats import FORMATS as BUNDLED_FORMATS
from softprompts.tasks.files_options import OPTIONS, optional_text
from softprompts.tasks.formats import FORMATS

if TYPE_CHECKING:
    from softprompts.tasks.base import Task, TaskRequest

    LoadTask = Callable[[TaskRequest], Task]

_SUMMARIES = {
    "boolq": "yes/no question about a passage",
    "cb": "does a clause follow from, contradict or neither, its context",
    "copa": "which of two sentences is the cause or effect",
    "multirc": "is a proposed answer to a question about a passage right",
    "record": "which of a passage's names fills a gap",
    "rte": "does a sentence follow from a passage",
    "wic": "does a word mean the same in two sentences",
    "wsc": "does a pronoun stand for a noun phrase",
}
_HUB_OPTIONS = {
    "repository": optional_text(
        "hub id or folder laid out like one, when data_dir is null; null: aps/super_glue"
    ),
    "revision": optional_text("branch, tag or commit of the repository"),
}
BUNDLED = {
    "bundled/sentiment": "is a remark positive or negative",
    "bundled/entailment": "does a sentence follow from another",
    "bundled/question-type": "what a question asks for",
    "bundled/record": "a record, written as a sentence",
    "bundled/polite": "a blunt remark, written politely",
}
"""The tasks that come with the library, with their summaries."""

TASKS: Registry[LoadTask] = Registry("task")
for _name, _form in FORMATS.items():
    _suite, _, _short = _name.partition("/")
    TASKS.register(
        _name,
        f"softprompts.tasks.superglue:load_{_suite}",
        summary=_SUMMARIES[_short] + ("; 32 training rows" if _suite == "fewglue" else ""),
        version=_form.version,
        options=_HUB_OPTIONS if _suite == "superglue" else {},
        reference=_form.reference,
    )
for _name, _summary in BUNDLED.items():
    TASKS.register(
        _name,
        "softprompts.tasks.bundled:load_bundled_task",
        summary=_summary,
        version=BUNDLED_FORMATS[_name].version,
    )
TASKS.register(
    "files",
    "softprompts.tasks.files:load_files",
    summary="your own jsonl, csv or parquet files, or a hub set",
    options=OPTIONS,
)
TASKS.register(
    "custom",
    "softprompts.tasks.loading:refuse_custom",
    summary="a Task object built in a program; cannot be loaded by name",
)


def task_format(name: str) -> TaskFormat | None:
    """Return the format of a task without reading its rows.

    It is `None` where only the rows tell it (`files`, third parties).
    """
    TASKS.entry(name)
    return {**FORMATS, **BUNDLED_FORMATS}.get(name)
