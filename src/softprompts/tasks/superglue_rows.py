"""Rows of the eight SuperGLUE tasks to examples, in both forms.

The original jsonl files nest passages, questions and answers; the hub's tables are flat.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import accumulate

from softprompts.examples import Example, TaskFormat
from softprompts.tasks.rows import BOOLEAN_LABELS, Row, shown

ConvertRow = Callable[[Row, TaskFormat], Iterator[Example]]

_CONNECTIVES = {"cause": "because", "effect": "so"}
_PLACEHOLDER = "@placeholder"
_HIGHLIGHT = "@highlight"
_SENTENCE_END = (".", "!", "?", ".'", '."', "!'", '!"', "?'", '?"', ".”", "!”", "?”")
_NOUN_MARK, _PRONOUN_MARK = "*", "#"
_EDGES = re.compile(r"^\W+|\W+$")


def plain_row(row: Row, form: TaskFormat) -> Iterator[Example]:
    """Yield the example of a row whose template fields are its own: BoolQ, CB, RTE and WiC."""
    names = {
        "boolq": ("question", "passage"),
        "cb": ("premise", "hypothesis"),
        "rte": ("premise", "hypothesis"),
        "wic": ("word", "sentence1", "sentence2"),
    }[form.name.rpartition("/")[2]]
    fields = {name: row.text(name) for name in names}
    yield Example(fields, row.label("label", form.labels), source=row.source)


def copa_row(row: Row, form: TaskFormat) -> Iterator[Example]:
    """Yield the example of a COPA row: two choices, and the word that joins premise and choice."""
    question = row.text("question")
    if question not in _CONNECTIVES:
        raise row.error("question", f"must be cause or effect, but is {shown(question)}.")
    premise = row.text("premise")
    fields = {
        "premise": premise,
        "premise_clause": premise.rstrip().removesuffix("."),
        "question": question,
        "connective": _CONNECTIVES[question],
    }
    choices = (row.text("choice1"), row.text("choice2"))
    answers: tuple[int, ...] = ()
    if row.has_label("label"):
        columns = {"0": 0, "1": 1, "choice1": 0, "choice2": 1}
        label = row.value("label")
        if isinstance(label, bool) or str(label) not in columns:
            raise row.error("label", f"must be 0 or 1, but is {shown(label)}.")
        answers = (columns[str(label)],)
    yield Example(fields, answers, choices, tuple(choices[a] for a in answers), source=row.source)


def multirc_row(row: Row, form: TaskFormat) -> Iterator[Example]:
    """Yield one example per proposed answer of a MultiRC row; `group` is `passage/question`."""
    if "paragraph" in row.values:
        idx = row.child("idx")
        group = f"{idx.integer('paragraph')}/{idx.integer('question')}"
        fields = {
            "passage": _without_tags(row.text("paragraph")),
            "question": row.text("question"),
            "answer": row.text("answer"),
        }
        answers = row.label("label", BOOLEAN_LABELS)
        yield Example(fields, answers, group=group, source=row.source)
        return
    passage = row.child("passage")
    text = _without_tags(passage.text("text"))
    for question in passage.children("questions"):
        group = f"{row.integer('idx')}/{question.integer('idx')}"
        for answer in question.children("answers"):
            fields = {
                "passage": text,
                "question": question.text("question"),
                "answer": answer.text("text"),
            }
            columns = answer.label("label", BOOLEAN_LABELS)
            yield Example(fields, columns, group=group, source=row.source)


def record_row(row: Row, form: TaskFormat) -> Iterator[Example]:
    """Yield one example per query of a ReCoRD row; its choices are the passage's entities."""
    if "query" in row.values:
        idx = row.child("idx")
        group = f"{idx.integer('passage')}/{idx.integer('query')}"
        choices = tuple(dict.fromkeys(row.texts("entities")))
        golds = row.texts("answers")
        yield _record_example(row, row.text("passage"), choices, golds, group)
        return
    passage = row.child("passage")
    text = passage.text("text")
    choices = tuple(dict.fromkeys(_entity(e, text) for e in passage.children("entities")))
    for query in row.children("qas"):
        group = f"{row.integer('idx')}/{query.integer('idx')}"
        has_answers = row.needs_label or "answers" in query.values
        golds = [a.text("text") for a in query.children("answers")] if has_answers else []
        yield _record_example(query, text, choices, golds, group)


def wsc_row(row: Row, form: TaskFormat) -> Iterator[Example]:
    """Yield the example of a WSC row, with the noun phrase marked `*…*` and the pronoun `#…#`."""
    target = row.child("target") if "target" in row.values else row
    text = row.text("text")
    fields = {
        "text": text,
        "span1_text": target.text("span1_text"),
        "span2_text": target.text("span2_text"),
        "marked": mark_spans(target, text),
    }
    yield Example(fields, row.label("label", form.labels), source=row.source)


def _without_tags(text: str) -> str:
    """Drop the sentence markup that some copies of MultiRC carry."""
    return re.sub(r"<b>Sent \d+: </b>|</?b>", "", re.sub(r"<br ?/?>", " ", text)).strip()


def _entity(entity: Row, passage: str) -> str:
    """Return an entity's text; `end` is the last character, not the one after it."""
    start, end = entity.integer("start"), entity.integer("end")
    if not start <= end < len(passage):
        raise entity.error(
            "end",
            f"must be within start {start} and the passage's last character {len(passage) - 1}, "
            f"but is {end}.",
        )
    return passage[start : end + 1]


def _record_example(
    row: Row, passage: str, choices: tuple[str, ...], golds: list[str], group: str
) -> Example:
    query = row.text("query")
    if query.count(_PLACEHOLDER) != 1:
        raise row.error(
            "query", f"must have {_PLACEHOLDER} once, but has it {query.count(_PLACEHOLDER)} times."
        )
    if not choices:
        raise row.error("entities", "must be at least one, but there is none.")
    references = tuple(dict.fromkeys(golds))
    answers = tuple(i for i, choice in enumerate(choices) if choice in references)
    if row.needs_label and not answers:
        raise row.error(
            "answers", f"must have one of the entities, but are {shown(list(references))}."
        )
    before, _, after = query.partition(_PLACEHOLDER)
    fields = {
        "passage": _with_plain_highlights(passage),
        "query_before": before,
        "query_after": after,
    }
    return Example(fields, answers, choices, references, group, row.source)


def _with_plain_highlights(passage: str) -> str:
    """Turn the `@highlight` lines of a passage into sentences that end in a stop."""
    sentences = [" ".join(part.split()) for part in passage.split(_HIGHLIGHT)]
    return " ".join(s if s.endswith(_SENTENCE_END) else f"{s}." for s in sentences if s)


def mark_spans(target: Row, text: str) -> str:
    """Mark the noun phrase as `*…*` and the pronoun as `#…#`, punctuation outside.

    Each span has a text and a word index, counted in `text.split(" ")`. The words at the index may
    differ from the span's text in case and punctuation. Where they differ in more (the official
    validation file has such a row), the nearest place where they agree is taken. A pronoun may lie
    inside its noun phrase (`*#their# mothers*`, in the same file).
    """
    noun, pronoun = _place(target, "span1", text), _place(target, "span2", text)
    is_apart = noun[1] <= pronoun[0] or pronoun[1] <= noun[0]
    is_inside = noun[0] <= pronoun[0] and pronoun[1] <= noun[1] and noun != pronoun
    if not (is_apart or is_inside):
        raise target.error(
            "span2_index",
            f"must stand apart from or inside {shown(text[slice(*noun)])}, but is "
            f"{target.integer('span2_index')}.",
        )
    inner_first = [(pronoun, _PRONOUN_MARK), (noun, _NOUN_MARK)]
    if is_apart:
        inner_first.sort(reverse=True)
    for (start, stop), mark in inner_first:
        # Marks inside this span have made it longer by two.
        stop += 2 if is_inside and mark == _NOUN_MARK else 0
        text = f"{text[:start]}{mark}{text[start:stop]}{mark}{text[stop:]}"
    return text


def _place(target: Row, name: str, text: str) -> tuple[int, int]:
    """Return the first character of a span and the one after its last."""
    span, index = target.text(f"{name}_text"), target.integer(f"{name}_index")
    words = text.split(" ")
    starts = list(accumulate((len(word) + 1 for word in words), initial=0))
    core = re.escape(_EDGES.sub("", span))
    found: dict[int, tuple[int, int]] = {}  # word index → characters
    if core:
        for match in re.finditer(rf"(?<!\w){core}(?!\w)", text, re.IGNORECASE):
            word = text.count(" ", 0, match.start())
            if not _EDGES.sub("", text[starts[word] : match.start()]):
                found.setdefault(word, match.span())
    if not found or index >= len(words):
        raise target.error(
            f"{name}_index",
            f"must be the word where {shown(span)} stands in the text, but is {index}.",
        )
    return found[min(found, key=lambda word: (abs(word - index), word))]


CONVERTERS: dict[str, ConvertRow] = {
    "boolq": plain_row,
    "cb": plain_row,
    "copa": copa_row,
    "multirc": multirc_row,
    "record": record_row,
    "rte": plain_row,
    "wic": plain_row,
    "wsc": wsc_row,
}
"""The converter of each task."""
