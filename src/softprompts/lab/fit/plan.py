"""What a budget of time is spent on: methods, their rates, and updates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompts.backbones.backbone import Backbone
from softprompts.errors import BackboneError, DataError
from softprompts.lab.fit.table import Splits, Table
from softprompts.recipes.presets import METHODS as PRESETS
from softprompts.recipes.resolving import default_rate

METHODS = ("prompt-tuning", "residual", "stable")
"""What is tried, the simplest first: it wins where scores are equal. The last is tried alone where
there is time for one."""

MULTIPLES = (0.3, 1.0, 3.0)
"""Rates that are tried, as multiples of a method's own."""

SEARCH_SEED = 1000
NUM_SEEDS = 5
SHOWN = 8
"""Rows with their answers that the untouched model is shown at most; one of each label if more."""

BATCH_SIZE = 8
FEWEST_UPDATES, MOST_UPDATES = 20, 400
_KEEP = 2
_SCORING = 0.4
"""What scoring an example costs of what training on it costs."""


@dataclass(frozen=True)
class Plan:
    """How a budget is spent: on methods at multiples of their rates; and what all of it takes.

    Updates are those of each run of the last rung, and of the runs that are kept.
    """

    methods: tuple[str, ...]
    multiples: tuple[float, ...]
    updates: int
    seconds: float

    def text(self, budget_seconds: float) -> str:
        """Say what is done, and where that does not fit the budget."""
        what = ", ".join(self.methods)
        if len(self.multiples) > 1:
            what += f" at {', '.join(f'{one:g}' for one in self.multiples)} times their rates"
        took = f"about {shown_time(self.seconds)}"
        if self.seconds > budget_seconds:
            took += f", more than the budget of {shown_time(budget_seconds)}, the least that tells"
        runs = f"{self.updates} updates a run, {NUM_SEEDS} seeds of the best"
        return f"to be tried: {what}; {runs}; {took}"


@dataclass(frozen=True)
class Candidate:
    """A method at a learning rate."""

    method: str
    multiple: float

    @property
    def rate(self) -> float:
        """The learning rate."""
        return float(f"{self.multiple * default_rate(PRESETS[self.method].depth):g}")

    @property
    def name(self) -> str:
        """What its variant is called."""
        return f"{self.method}-{self.rate:g}"

    @property
    def changes(self) -> dict[str, Any]:
        """What its variant sets."""
        changes = {"prompt.method": self.method, "training.learning_rate": self.rate}
        return changes if becomes_words(self.method) else {**changes, "prompt.position": None}


def becomes_words(method: str) -> bool:
    """Return whether a method's rows are embeddings, which can become words of a model."""
    return PRESETS[method].depth == "input"


def fitting_methods(backbone: Backbone, needs_words: bool) -> tuple[tuple[str, ...], str]:
    """Return the methods that a backbone can have, and why another is left out, if one is."""
    outer = tuple(filter(becomes_words, METHODS))
    if needs_words:
        return outer, ""
    try:
        _ = backbone.slots  # found, and tried, when they are first asked for
    except BackboneError as error:
        inner = ", ".join(method for method in METHODS if method not in outer)
        return outer, f"{inner} left out: {str(error).rstrip('.')}"
    return METHODS, ""


def make_plan(
    budget_seconds: float,
    examples_per_second: float,
    splits: Splits,
    methods: tuple[str, ...] = METHODS,
    beside: int = 1,
) -> Plan:
    """Return the widest plan that a budget has room for: methods and rates, else one method.

    Where not even the narrowest fits, that is returned, with what it is expected to take by the
    examples that a run trained here per second. `beside` is what `cost_of_yardsticks` says.
    """
    rate = 1 / examples_per_second
    num_held_out = round(0.2 * len(splits.train))
    for some, multiples in ((methods, MULTIPLES), (methods, (1.0,)), (methods[-1:], (1.0,))):
        num = len(some) * len(multiples)
        rungs = [] if num == 1 else [(num, 1.0)]
        if len(multiples) > 1:
            rungs = [(num, 1 / _KEEP), (len(some) * num_kept(len(multiples)), 1.0)]
        runs = sum(count * part for count, part in rungs) + NUM_SEEDS
        scored = (sum(count for count, _ in rungs) + NUM_SEEDS) * 3 * num_held_out
        fixed = rate * _SCORING * (scored + (2 * NUM_SEEDS + beside) * len(splits.held_back))
        each = runs * BATCH_SIZE * rate
        updates = int((budget_seconds - fixed) / each)
        num_updates = min(max(updates, FEWEST_UPDATES), MOST_UPDATES)
        plan = Plan(some, multiples, num_updates, fixed + each * num_updates)
        if updates >= FEWEST_UPDATES:
            break
    return plan


def shown_time(seconds: float) -> str:
    """Return a time in seconds, or in minutes from two on."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def num_kept(count: int) -> int:
    """Return how many of a method's rates go on to the next rung."""
    return -(-count // _KEEP)


def read_budget(text: str) -> float:
    """Return the seconds of a budget such as `90s`, `10m` or `2h`.

    Raises:
        DataError: if it is none.

    Example:
        >>> read_budget("1.5h")
        5400.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds < 1e7:
        raise DataError(f"`--budget` must be a time such as 90s, 10m or 2h, but is {text!r}.")
    return seconds


def base_recipe(table: Table, backbone: Backbone, data_dir: Path) -> dict[str, Any]:
    """Return the run recipe that all of a fit's runs share.

    An encoder is read by a trained head, others by their own words. `train.jsonl` and
    `held-back.jsonl` lie in `data_dir`.
    """
    is_text = backbone.family != "encoder"
    what = table.label.replace("_", " ")
    shown = "\n".join(f"{name.replace('_', ' ')}: {{{name}}}" for name in table.fields)
    if len(table.fields) == 1:
        shown = f"{{{table.fields[0]}}}"
    words = {label: label.replace("_", " ") for label in table.labels}
    options = {
        "train": "train.jsonl",
        "validation": "held-back.jsonl",
        "label_field": table.label,
        "labels": list(table.labels),
        "verbalizer": words,
        "template": f"{shown}\n{what}:" if is_text else shown,
    }
    *others, last = words.values()
    has_first = backbone.family == "decoder" and bool(backbone.frame.prefix)
    prompt = {"position": {"kind": "fixed", "after_bos": True}} if has_first else {}  # to export
    return {
        "backbone": {"name": backbone.name, "dtype": "auto"},
        "prompt": prompt,
        "task": {
            "name": "files",
            "data_dir": str(data_dir),
            "instruction": f"Say what the {what} is: {', '.join(others)} or {last}.",
            "options": options,
        },
        "readout": {"kind": "text", "objective": "ranking"} if is_text else {"kind": "linear"},
        "training": {"batch_size": BATCH_SIZE, "num_evaluations": 3, "selection": "held-out"},
    }


def search_study(
    name: str, base: Mapping[str, Any], variants: Mapping[str, Any], seeds: Any, **training: Any
) -> dict[str, Any]:
    """Return a study in which the rows that are held back decide nothing: it reads one of them."""
    base = {**base, "task": {**base["task"], "num_items": 1}}
    base = {**base, "training": {**base["training"], **training}}
    return {"name": name, "base": base, "variants": variants, "seeds": seeds}


def yardsticks(base: Mapping[str, Any], family: str) -> dict[str, dict[str, Any]]:
    """Return what a prompt must beat to be worth training, by method: all that has none.

    A model that writes is left untouched, and a decoder is also shown answered rows, which it reads
    once for all inputs; an encoder has a trained head.
    """
    if base["readout"]["kind"] != "text":
        return {"head-only": {}}
    if family != "decoder":
        return {"zero-shot": {}}
    shown = max(SHOWN, len(base["task"]["options"]["labels"]))
    return {"zero-shot": {}, "in-context": {"prompt.num_demonstrations": shown}}


def cost_of_yardsticks(methods: Iterable[str]) -> int:
    """Return about how often all of them together read a row that is scored."""
    times = {"zero-shot": 1, "in-context": 2 * NUM_SEEDS, "head-only": NUM_SEEDS}
    return sum(times[method] for method in methods)


def final_study(
    base: Mapping[str, Any],
    plan: Plan,
    winner: Candidate,
    beside: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the study of the method that won, with its yardsticks beside it."""
    without = {"prompt.position": None} if base["prompt"] else {}
    variants: dict[str, Any] = {
        method: {"prompt.method": method, **without, **changes}
        for method, changes in beside.items()
    }
    variants[winner.name] = winner.changes
    return {
        "name": "fit",
        "description": (
            f"Single runs of {winner.name}, which was chosen on other rows, beside what needs no "
            "prompt. What to expect of its seeds together, and whether they were worth training, "
            "is in README.md of the fit."
        ),
        "base": {**base, "training": {**base["training"], "steps": plan.updates}},
        "variants": variants,
        "baseline": winner.name,
        "seeds": NUM_SEEDS,
    }
