"""How the eight SuperGLUE tasks are read and scored: data, with versions.

The wording is our own. `linear` puts the short text last where the long one is cut, `cloze` asks a
question that one word answers, `text` ends where a decoder goes on.
"""

from __future__ import annotations

from dataclasses import replace

from softprompts.tasks.base import TaskFormat

SUITES = ("superglue", "fewglue")
FOLDERS = {
    "boolq": "BoolQ",
    "cb": "CB",
    "copa": "COPA",
    "multirc": "MultiRC",
    "record": "ReCoRD",
    "rte": "RTE",
    "wic": "WiC",
    "wsc": "WSC",
}
"""The folder of each task in the original archives."""

_NO_YES = {"False": "No", "True": "Yes"}
_BOOLEAN = ("False", "True")

_BOOLQ = TaskFormat(
    name="boolq",
    version=1,
    labels=_BOOLEAN,
    templates={
        "linear": "{question}? {sep} {passage}",
        "cloze": "{passage} {sep} Question: {question}? Answer: {mask}.",
        "text": "passage: {passage} question: {question}? answer:",
    },
    verbalizer=_NO_YES,
    metrics=("accuracy",),
    reference="Clark et al. 2019, arXiv 1905.10044",
)
_CB = TaskFormat(
    name="cb",
    version=1,
    labels=("entailment", "contradiction", "neutral"),
    templates={
        "linear": "{premise} {sep} {hypothesis}",
        "cloze": '{premise} {sep} Does it follow that "{hypothesis}"? {mask}.',
        "text": 'passage: {premise} claim: "{hypothesis}" does the claim follow?',
    },
    verbalizer={"entailment": "Yes", "contradiction": "No", "neutral": "Maybe"},
    metrics=("accuracy", "macro-f1"),
    reference="de Marneffe et al. 2019, The CommitmentBank",
)
_COPA = TaskFormat(
    name="copa",
    version=1,
    labels=(),
    templates={
        "linear": "{premise} {sep} {connective} {choice}",
        "cloze": "{premise_clause} {connective} {mask}",
        "text": "{premise_clause} {connective}",
    },
    verbalizer={},
    metrics=("accuracy",),
    reference="Roemmele et al. 2011, Choice of Plausible Alternatives",
)
_MULTIRC = TaskFormat(
    name="multirc",
    version=1,
    labels=_BOOLEAN,
    templates={
        "linear": "{question} {answer} {sep} {passage}",
        "cloze": '{passage} {sep} Question: {question} Is "{answer}" a right answer? {mask}.',
        "text": "passage: {passage} question: {question} proposed answer: {answer} is it right?",
    },
    verbalizer=_NO_YES,
    metrics=("multirc-f1a", "multirc-em"),
    reference="Khashabi et al. 2018, Looking Beyond the Surface",
)
_RECORD = TaskFormat(
    name="record",
    version=1,
    labels=(),
    templates={
        "linear": "{query_before}{choice}{query_after} {sep} {passage}",
        "cloze": "{passage} {sep} {query_before}{mask}{query_after}",
        "text": "passage: {passage} sentence: {query_before}____{query_after} missing name:",
    },
    verbalizer={},
    metrics=("record-f1", "record-em"),
    reference="Zhang et al. 2018, arXiv 1810.12885",
)
_RTE = TaskFormat(
    name="rte",
    version=1,
    labels=("entailment", "not_entailment"),
    templates=_CB.templates,
    verbalizer={"entailment": "Yes", "not_entailment": "No"},
    metrics=("accuracy",),
    reference="Dagan et al. 2006 and later, Recognizing Textual Entailment",
)
_WIC = TaskFormat(
    name="wic",
    version=1,
    labels=_BOOLEAN,
    templates={
        "linear": "{word}: {sentence1} {sep} {sentence2}",
        "cloze": '{sentence1} {sep} {sentence2} Does "{word}" mean the same in both? {mask}.',
        "text": "first: {sentence1} second: {sentence2} same meaning of {word}?",
    },
    verbalizer=_NO_YES,
    metrics=("accuracy",),
    reference="Pilehvar and Camacho-Collados 2019, arXiv 1808.09121",
)
_WSC = TaskFormat(
    name="wsc",
    version=1,
    labels=_BOOLEAN,
    templates={
        "linear": "{marked} {sep} {span2_text} is {span1_text}",
        "cloze": '{marked} {sep} Does "{span2_text}" stand for {span1_text}? {mask}.',
        "text": "passage: {marked} does #{span2_text}# stand for {span1_text}?",
    },
    verbalizer=_NO_YES,
    metrics=("accuracy",),
    reference="Levesque et al. 2012, The Winograd Schema Challenge",
)

FORMATS: dict[str, TaskFormat] = {
    f"{suite}/{form.name}": replace(form, name=f"{suite}/{form.name}")
    for suite in SUITES
    for form in (_BOOLQ, _CB, _COPA, _MULTIRC, _RECORD, _RTE, _WIC, _WSC)
}
"""The formats by registry name; the two suites differ in the name only."""
