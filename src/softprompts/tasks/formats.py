"""How the eight SuperGLUE tasks are read and scored: data, with versions.

The wording is our own. `linear` puts the short text last where the long one is cut, `cloze` asks a
question that one word answers, `text` ends where a decoder goes on, `chat` asks it as a user.

The wording of `text` and `chat` was chosen on training rows, with `smollm2` and nothing trained:
see docs/results/wordings.md.
"""

from __future__ import annotations

from dataclasses import replace

from softprompts.examples import TaskFormat

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
    version=2,
    labels=_BOOLEAN,
    templates={
        "linear": "{question}? {sep} {passage}",
        "cloze": "{passage} {sep} Question: {question}? Answer: {mask}.",
        "text": "{passage}\nQuestion: {question}?\nAnswer:",
        "chat": "{role:user}Read the passage and answer the question with Yes or No.\n\n"
        "Passage: {passage}\n\nQuestion: {question}?",
    },
    verbalizer=_NO_YES,
    metrics=("accuracy",),
    reference="Clark et al. 2019, arXiv 1905.10044",
    instruction="Answer the question about the passage with Yes or No.",
)
_CB = TaskFormat(
    name="cb",
    version=2,
    labels=("entailment", "contradiction", "neutral"),
    templates={
        "linear": "{premise} {sep} {hypothesis}",
        "cloze": '{premise} {sep} Does it follow that "{hypothesis}"? {mask}.',
        "text": "passage: {premise}\nclaim: {hypothesis}\nDoes the claim follow?\nAnswer:",
        "chat": "{role:user}Passage: {premise}\nClaim: {hypothesis}\n\n"
        "Is the claim true, given the passage? Answer with Yes, No or Maybe.",
    },
    verbalizer={"entailment": "Yes", "contradiction": "No", "neutral": "Maybe"},
    metrics=("accuracy", "macro-f1"),
    reference="de Marneffe et al. 2019, The CommitmentBank",
    instruction="Say whether the claim follows from the passage: Yes, No or Maybe.",
)
_COPA = TaskFormat(
    name="copa",
    version=1,
    labels=(),
    templates={
        "linear": "{premise} {sep} {connective} {choice}",
        "cloze": "{premise_clause} {connective} {mask}",
        "text": "{premise_clause} {connective}",
        "chat": "{role:user}Continue the sentence: {premise_clause} {connective}"
        "{role:assistant}{premise_clause} {connective}",
    },
    verbalizer={},
    metrics=("accuracy",),
    reference="Roemmele et al. 2011, Choice of Plausible Alternatives",
    instruction="Complete the sentence with what is more plausible.",
)
_MULTIRC = TaskFormat(
    name="multirc",
    version=2,
    labels=_BOOLEAN,
    templates={
        "linear": "{question} {answer} {sep} {passage}",
        "cloze": '{passage} {sep} Question: {question} Is "{answer}" a right answer? {mask}.',
        "text": "{passage}\nQuestion: {question}\nProposed answer: {answer}\n"
        "Question: Is the proposed answer right?\nAnswer:",
        "chat": "{role:user}{passage}\n\nQuestion: {question}\nProposed answer: {answer}\n\n"
        "Is the proposed answer right? Answer Yes or No.",
    },
    verbalizer=_NO_YES,
    metrics=("multirc-f1a", "multirc-em"),
    reference="Khashabi et al. 2018, Looking Beyond the Surface",
    instruction="Say whether the answer to the question about the passage is right: Yes or No.",
)
_RECORD = TaskFormat(
    name="record",
    version=1,
    labels=(),
    templates={
        "linear": "{query_before}{choice}{query_after} {sep} {passage}",
        "cloze": "{passage} {sep} {query_before}{mask}{query_after}",
        "text": "passage: {passage} sentence: {query_before}____{query_after} missing name:",
        "chat": "{role:user}{passage}\n\nFill the blank with a name from the passage: "
        "{query_before}____{query_after}",
    },
    verbalizer={},
    metrics=("record-f1", "record-em"),
    reference="Zhang et al. 2018, arXiv 1810.12885",
    instruction="Name who or what of the passage is missing in the sentence.",
)
_RTE = TaskFormat(
    name="rte",
    version=2,
    labels=("entailment", "not_entailment"),
    templates={
        **_CB.templates,
        "text": '{premise}\nQuestion: Does it follow that "{hypothesis}"?\nAnswer:',
        "chat": '{role:user}{premise}\n\nDoes it follow that "{hypothesis}"? Answer Yes or No.',
    },
    verbalizer={"entailment": "Yes", "not_entailment": "No"},
    metrics=("accuracy",),
    reference="Dagan et al. 2006 and later, Recognizing Textual Entailment",
    instruction="Say whether the claim follows from the passage: Yes or No.",
)
_WIC = TaskFormat(
    name="wic",
    version=2,
    labels=_BOOLEAN,
    templates={
        "linear": "{word}: {sentence1} {sep} {sentence2}",
        "cloze": '{sentence1} {sep} {sentence2} Does "{word}" mean the same in both? {mask}.',
        "text": "{sentence1}\n{sentence2}\n"
        'Question: Is the word "{word}" used in the same sense in both sentences?\nAnswer:',
        "chat": "{role:user}{sentence1}\n{sentence2}\n\n"
        'Does "{word}" mean the same in both sentences? Answer Yes or No.',
    },
    verbalizer=_NO_YES,
    metrics=("accuracy",),
    reference="Pilehvar and Camacho-Collados 2019, arXiv 1808.09121",
    instruction="Say whether the word means the same in both sentences: Yes or No.",
)
_WSC = TaskFormat(
    name="wsc",
    version=2,
    labels=_BOOLEAN,
    templates={
        "linear": "{marked} {sep} {span2_text} is {span1_text}",
        "cloze": '{marked} {sep} Does "{span2_text}" stand for {span1_text}? {mask}.',
        "text": '{marked}\nQuestion: Does "{span2_text}" refer to {span1_text}?\nAnswer:',
        "chat": '{role:user}{marked}\n\nDoes "{span2_text}" refer to {span1_text}? '
        "Answer Yes or No.",
    },
    verbalizer=_NO_YES,
    metrics=("accuracy",),
    reference="Levesque et al. 2012, The Winograd Schema Challenge",
    instruction="Say whether the pronoun refers to the noun phrase: Yes or No.",
)

FORMATS: dict[str, TaskFormat] = {
    f"{suite}/{form.name}": replace(form, name=f"{suite}/{form.name}")
    for suite in SUITES
    for form in (_BOOLQ, _CB, _COPA, _MULTIRC, _RECORD, _RTE, _WIC, _WSC)
}
"""The formats by registry name; the two suites differ in the name only."""
