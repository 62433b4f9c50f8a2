"""Readouts that a recipe may name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softprompts.registry import Option, Registry

if TYPE_CHECKING:
    from softprompts.readouts.base import Readout

READOUTS: Registry[type[Readout]] = Registry("readout", "softprompts.readouts.base:Readout")
READOUTS.register(
    "linear",
    "softprompts.readouts.linear:LinearReadout",
    summary="a trained linear head on a pooled hidden state",
    facts={"has_parameters": True},
    options={
        "pool": Option(
            str,
            "auto",
            "cls, mean (over the input's own tokens), last, or auto by family",
            {"pattern": "^(auto|cls|mean|last)$"},
        ),
    },
)
READOUTS.register(
    "cloze",
    "softprompts.readouts.cloze:ClozeReadout",
    summary="label words scored at mask tokens by the masked-language head",
    reference="Schick and Schütze 2021, arXiv 2001.07676",
    facts={"has_parameters": False},
    options={
        "is_length_normalized": Option(bool, True, "mean instead of sum over a label's tokens"),
    },
)
READOUTS.register(
    "text",
    "softprompts.readouts.text:TextReadout",
    summary="label strings scored by the likelihood of a decoder or encoder-decoder",
    facts={"has_parameters": False},
    options={
        "is_length_normalized": Option(bool, False, "mean instead of sum over a label's tokens"),
        "objective": Option(
            str,
            "likelihood",
            "likelihood of the right string, or ranking among the labels",
            {"pattern": "^(likelihood|ranking)$"},
        ),
        "has_end_token": Option(
            bool | None, None, "score the end token too; null: where strings need it"
        ),
        "form": Option(
            str,
            "plain",
            "plain text, or a chat in the form of the tokenizer's chat template",
            {"pattern": "^(plain|chat)$"},
            is_late=True,
        ),
    },
)
