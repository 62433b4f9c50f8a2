"""How the bundled tasks are read and scored."""

from __future__ import annotations

from typing import Final

from softprompts.tasks.base import TaskFormat

_OURS = "softprompts, hand-written grammar; see docs/tasks/bundled.md"

SENTIMENT: Final = TaskFormat(
    name="bundled/sentiment",
    version=1,
    labels=("negative", "positive"),
    templates={
        "linear": "{text}",
        "cloze": "{text} It was {mask}.",
        "text": "sentence: {text} sentiment:",
    },
    verbalizer={"negative": "bad", "positive": "good"},
    metrics=("accuracy",),
    reference=_OURS,
)

ENTAILMENT: Final = TaskFormat(
    name="bundled/entailment",
    version=1,
    labels=("entailment", "neutral", "contradiction"),
    templates={
        "linear": "{premise} {sep} {hypothesis}",
        "cloze": "{premise} {mask}, {hypothesis}",
        "text": "premise: {premise} hypothesis: {hypothesis} answer:",
    },
    verbalizer={"entailment": "yes", "neutral": "maybe", "contradiction": "no"},
    metrics=("accuracy",),
    reference=_OURS,
)

QUESTION_TYPE: Final = TaskFormat(
    name="bundled/question-type",
    version=1,
    labels=("person", "place", "time", "number", "reason", "thing"),
    templates={
        "linear": "{text}",
        "cloze": "{text} They are asking about a {mask}.",
        "text": "question: {text} answer type:",
    },
    verbalizer={
        "person": "person",
        "place": "place",
        "time": "time",
        "number": "number",
        "reason": "reason",
        "thing": "thing",
    },
    metrics=("accuracy",),
    reference=_OURS,
)

FORMATS: Final[dict[str, TaskFormat]] = {
    one.name: one for one in (SENTIMENT, ENTAILMENT, QUESTION_TYPE)
}
