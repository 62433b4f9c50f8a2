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
    version=2,
    reference="Schick and Schütze 2021, arXiv 2001.07676",
    facts={"has_parameters": False},
    options={
        "is_length_normalized": Option(bool, True, "mean instead of sum over a label's tokens"),
    },
)
_FORM = Option(
    str,
    "plain",
    "plain text, or a chat in the form of the tokenizer's chat template",
    {"pattern": "^(plain|chat)$"},
    is_late=True,
)
READOUTS.register(
    "text",
    "softprompts.readouts.text:TextReadout",
    summary="label strings scored by the likelihood of a decoder or encoder-decoder",
    version=2,
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
        "form": _FORM,
    },
)
READOUTS.register(
    "writing",
    "softprompts.readouts.writing:WritingReadout",
    summary="a text of its own, written by a decoder or encoder-decoder",
    facts={"has_parameters": False},
    options={
        "form": _FORM,
        "max_new_tokens": Option(
            int, 64, "most tokens of a text, its end among them; longer targets are cut", {"ge": 1}
        ),
        "num_beams": Option(int, 1, "beams of the search; 1 takes the likeliest token", {"ge": 1}),
        "temperature": Option(
            float | None, None, "draw tokens at this temperature; null draws nothing", {"gt": 0}
        ),
        "top_p": Option(
            float,
            1.0,
            "draw among the likeliest tokens that have this probability together",
            {"gt": 0, "le": 1},
        ),
        "sampling_seed": Option(int, 0, "draws tokens, for each input by itself", {"ge": 0}),
        "stop": Option(list[str], [], "texts that end what is written"),
    },
)
