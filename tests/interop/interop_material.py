"""Small trained prompts to export, and what reads them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import transformers

import softprompts as sp
from softprompts.results import Result

READOUTS = {"bert": "cloze", "roberta": "cloze"}
MODELS = {
    "encoder": transformers.AutoModelForMaskedLM,
    "decoder": transformers.AutoModelForCausalLM,
    "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
}
TEXTS = ("the soup was cold and the waiter forgot us", "a lovely day, and then rain")
TEMPLATES = {"cloze": "{text} It was {mask}.", "text": "{text} It was"}


def trained(
    backbone: sp.Backbone, template: str | None = None, readout: Any = None, **prompt: Any
) -> Result:
    """Return a prompt of five rows after a step on two rows."""
    readout = readout or READOUTS.get(backbone.model.config.model_type, "text")
    kind = readout if isinstance(readout, str) else readout["kind"]
    format = sp.TaskFormat(
        name="mood",
        version=1,
        labels=("good", "bad"),
        templates={kind: template or TEMPLATES.get(kind, "{text}")},
        verbalizer={"good": "good", "bad": "bad"},
        metrics=("accuracy",),
    )
    rows = tuple(sp.Example({"text": text}, answers=(n,)) for n, text in enumerate(TEXTS))
    config = sp.PromptConfig.model_validate({"length": 5, **prompt})
    return sp.train(
        backbone,
        sp.Task(format, rows, (), rows),
        prompt=config,
        readout=readout,
        training=sp.TrainingConfig(steps=1, num_evaluations=1, selection="last", batch_size=2),
    )


def writer(backbone: sp.Backbone, **prompt: Any) -> Result:
    """Return a prompt of five rows that writes, after a step on two rows."""
    templates = {"writing": "{text} and so"}
    format = sp.TaskFormat("story", 1, (), templates, {}, ("exact-match",))
    rows = tuple(sp.Example({"text": text}, (0,), (), (text[:9],)) for text in TEXTS)
    return sp.train(
        backbone,
        sp.Task(format, rows, (), rows),
        prompt=sp.PromptConfig.model_validate({"length": 5, **prompt}),
        readout={"kind": "writing", "max_new_tokens": 6},
        training=sp.TrainingConfig(steps=1, num_evaluations=1, selection="last", batch_size=2),
    )


def served(folder: Path, family: str, **options: Any) -> tuple[Any, Any]:
    """Return a folder's model and tokenizer, as transformers loads them."""
    model = MODELS[family].from_pretrained(folder, **options).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def client_of(folder):
    """Return the written client."""
    spec = importlib.util.spec_from_file_location("client", folder / "client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Client()
