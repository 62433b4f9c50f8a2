"""Presets: the published methods, each one line over the axes of a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from softprompts.prompts.registry import POOLS, ROWS

NUM_ROWS = 10
"""How many rows a prompt has where nothing else is said."""


@dataclass(frozen=True)
class Preset:
    """A published method, as choices on the axes that a recipe leaves open.

    Attributes:
        name: kebab-case name used in `prompt.method`.
        summary: one line.
        reference: the paper, or "" for a yardstick.
        rows, pool, position, active_length, depth, initializer: registry names of the axes.
        adaptation: registry name of what is trained of the backbone.
        length: the number of rows, or `text`: as many as the initializer's text has tokens.
        is_length_fixed: whether another length would be another method.
        is_trained: whether something is trained; else the first state is scored.
        training: fields of `training` where the recipe is silent; a component is named whole.
        objective: that of a readout that has several, where the recipe is silent.
        context: what stands in front of every input as text: `instruction`, `demonstrations`, or
            nothing.
    """

    name: str
    summary: str
    reference: str = ""
    rows: str = "plain"
    pool: str = "single"
    position: str = "fixed"
    active_length: str = "fixed"
    depth: str = "input"
    initializer: str = "vocabulary"
    adaptation: str = "none"
    length: int | Literal["text"] = NUM_ROWS
    is_length_fixed: bool = False
    is_trained: bool = True
    training: Mapping[str, Any] = field(default_factory=dict)
    objective: str | None = None
    context: Literal["instruction", "demonstrations"] | None = None


_LESTER = "Lester et al. 2021, arXiv 2104.08691"
_LIU = "Liu et al. 2021, arXiv 2110.07602"
_RESIDUAL = "Razdaibiedina et al. 2023, arXiv 2305.03937"
_DYNAMIC = "Yang et al. 2023, arXiv 2303.02909"

_without_rows = partial(Preset, length=0, is_length_fixed=True)
_untrained = partial(_without_rows, is_trained=False)

NO_PROMPT = Preset("none", "no prompt", length=0)
"""What the axes of a prompt without rows are."""

METHODS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("prompt-tuning", "free rows of embeddings before the input", _LESTER),
        Preset(
            "p-tuning",
            "an embedding read through a small encoder",
            "Liu et al. 2021, arXiv 2103.10385",
            rows="p-tuning",
        ),
        Preset(
            "p-tuning-v2",
            "free keys and values in every layer",
            _LIU,
            depth="every-layer",
        ),
        Preset(
            "prefix-tuning",
            "keys and values in every layer through a small network",
            "Li and Liang 2021, arXiv 2101.00190",
            rows="prefix-mlp",
            depth="every-layer",
        ),
        Preset(
            "residual",
            "rows plus a shallow network with a skip connection",
            _RESIDUAL,
            rows="residual",
        ),
        Preset("adap-pos", "position learned per task", _DYNAMIC, position="task"),
        Preset("adap-ins-pos", "position learned per input", _DYNAMIC, position="instance"),
        Preset("adap-len", "active length learned per task", _DYNAMIC, active_length="task"),
        Preset(
            "adap-ins-len", "active length learned per input", _DYNAMIC, active_length="instance"
        ),
        Preset("adap-ins-vec", "mixture of prompts per input", _DYNAMIC, pool="attention"),
        Preset(
            "adap-ins-vec-pos",
            "mixture and position per input",
            _DYNAMIC,
            pool="attention",
            position="instance",
        ),
        Preset(
            "adap-pos-ins-vec",
            "position per task, mixture per input",
            _DYNAMIC,
            pool="attention",
            position="task",
        ),
        Preset(
            "residual-dynamic",
            "residual rows with a position learned per input",
            f"{_RESIDUAL}; {_DYNAMIC}",
            rows="residual",
            position="instance",
        ),
        Preset(
            "stable",
            "keys and values in every layer that start as the task's instruction; ranked answers",
            _LIU,
            depth="every-layer",
            initializer="text",
            length="text",
            objective="ranking",
        ),
        # a kind of rows or a pool and nothing else: their registry entry says so
        *(Preset(e.name, e.summary, e.reference, rows=e.name) for e in ROWS.methods()),
        *(Preset(e.name, e.summary, e.reference, pool=e.name) for e in POOLS.methods()),
        _untrained("zero-shot", "nothing trained: the language model with the template alone"),
        _untrained(
            "instruction",
            "nothing trained: the task's instruction in front of the input",
            context="instruction",
        ),
        _untrained(
            "in-context",
            "nothing trained: training rows with their answers in front of the input",
            "Brown et al. 2020, arXiv 2005.14165",
            context="demonstrations",
        ),
        _without_rows(
            "head-only", "no prompt: a trained readout on the bare backbone, the yardstick"
        ),
        _without_rows(
            "fine-tuning",
            "no prompt: all weights of the backbone are trained, a yardstick",
            adaptation="full",
        ),
        _without_rows(
            "lora",
            "no prompt: low-rank changes of the backbone are trained, a yardstick",
            "Hu et al. 2021, arXiv 2106.09685",
            adaptation="lora",
        ),
    )
}
