"""How the bundled tasks are read and scored."""

from __future__ import annotations

from typing import Final

from softprompts.examples import TaskFormat

_OURS = "softprompts, hand-written grammar; see docs/tasks/bundled.md"
_QUESTION_TYPES = ("person", "place", "time", "number", "reason", "thing")

SENTIMENT: Final = TaskFormat(
    name="bundled/sentiment",
    version=1,
    labels=("negative", "positive"),
    templates={
        "linear": "{text}",
        "cloze": "{text} It was {mask}.",
        "text": "sentence: {text} sentiment:",
        "chat": "{role:user}{text}{role:assistant}That is",
    },
    verbalizer={"negative": "bad", "positive": "good"},
    metrics=("accuracy",),
    reference=_OURS,
    instruction="Say whether the remark is good or bad.",
)

ENTAILMENT: Final = TaskFormat(
    name="bundled/entailment",
    version=1,
    labels=("entailment", "neutral", "contradiction"),
    templates={
        "linear": "{premise} {sep} {hypothesis}",
        "cloze": "{premise} {mask}, {hypothesis}",
        "text": "premise: {premise} hypothesis: {hypothesis} answer:",
        "chat": '{role:user}{premise}\n\nDoes it follow that "{hypothesis}"? '
        "Answer yes, no or maybe.",
    },
    verbalizer={"entailment": "yes", "neutral": "maybe", "contradiction": "no"},
    metrics=("accuracy",),
    reference=_OURS,
    instruction="Say whether the second sentence follows from the first: yes, maybe or no.",
)

QUESTION_TYPE: Final = TaskFormat(
    name="bundled/question-type",
    version=2,
    labels=_QUESTION_TYPES,
    templates={
        "linear": "{text}",
        "cloze": "{text} They are asking about a {mask}.",
        "text": "Question: {text}\nThe answer is a",
        "chat": "{role:user}Question: {text}\nWhat kind of thing is the answer?"
        "{role:assistant}The answer is a",
    },
    verbalizer={name: name for name in _QUESTION_TYPES},
    metrics=("accuracy",),
    reference=_OURS,
    instruction="Say what the question asks for: a person, a place, a time, a number, a reason "
    "or a thing.",
)

RECORD: Final = TaskFormat(
    name="bundled/record",
    version=1,
    labels=(),
    templates={
        "writing": "{record}\nIn a sentence:",
        "chat": "{role:user}Write this record as one sentence.\n\n{record}",
    },
    verbalizer={},
    metrics=("rouge-l", "exact-match", "perplexity"),
    reference=_OURS,
    instruction="Write the record as one sentence.",
)

POLITE: Final = TaskFormat(
    name="bundled/polite",
    version=1,
    labels=(),
    templates={
        "writing": "{remark}\nMore politely:",
        "chat": "{role:user}Say this more politely, in one sentence.\n\n{remark}",
    },
    verbalizer={},
    metrics=("rouge-l", "exact-match", "perplexity"),
    reference=_OURS,
    instruction="Say the remark again, more politely.",
)

FORMATS: Final[dict[str, TaskFormat]] = {
    one.name: one for one in (SENTIMENT, ENTAILMENT, QUESTION_TYPE, RECORD, POLITE)
}
