"""Optimizers, averages, schedules, temperatures and samplings that a recipe may name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from softprompts.registry import Option, Registry

OPTIMIZERS: Registry[Callable[..., Any]] = Registry("optimizer")
OPTIMIZERS.register(
    "adamw",
    "softprompts.training.optimizers:adamw",
    summary="AdamW",
    reference="Loshchilov and Hutter 2019, arXiv 1711.05101",
    options={
        "weight_decay": Option(float, 1e-5, "decoupled weight decay", {"ge": 0.0}),
        "beta1": Option(float, 0.9, "decay of the first moment", {"ge": 0.0, "lt": 1.0}),
        "beta2": Option(float, 0.999, "decay of the second moment", {"ge": 0.0, "lt": 1.0}),
    },
)
OPTIMIZERS.register(
    "adafactor",
    "softprompts.training.optimizers:adafactor",
    summary="Adafactor with a fixed learning rate",
    reference="Shazeer and Stern 2018, arXiv 1804.04235",
    options={"weight_decay": Option(float, 0.0, "weight decay", {"ge": 0.0})},
)

TEMPERATURES: Registry[Callable[..., Any]] = Registry("temperature")
TEMPERATURES.register(
    "exponential",
    "softprompts.training.temperatures:exponential",
    summary="falls by a constant factor per update to a floor",
    options={
        "start": Option(float, 1.0, "temperature of the first update", {"gt": 0.0}),
        "floor": Option(float, 0.5, "temperature from `steps` on", {"gt": 0.0}),
        "steps": Option(int | None, None, "updates to the floor; null: all of them", {"ge": 1}),
    },
)
TEMPERATURES.register(
    "constant",
    "softprompts.training.temperatures:constant",
    summary="stays the same",
    options={"start": Option(float, 1.0, "the temperature", {"gt": 0.0})},
)

AVERAGES: Registry[Callable[..., Any]] = Registry("average")
AVERAGES.register(
    "tail",
    "softprompts.training.averages:tail",
    summary="the mean of the states after the last updates",
    reference="Izmailov et al. 2018, arXiv 1803.05407",
    options={
        "fraction": Option(float, 0.5, "part of the updates that counts", {"gt": 0.0, "le": 1.0}),
    },
)
AVERAGES.register(
    "exponential",
    "softprompts.training.averages:exponential",
    summary="newer states count more, by a constant factor",
    reference="Tarvainen and Valpola 2017, arXiv 1703.01780",
    options={"decay": Option(float, 0.9, "what stays at each update", {"ge": 0.0, "lt": 1.0})},
)

SCHEDULES: Registry[Callable[..., Any]] = Registry("schedule")
_WARMUP = {
    "warmup_steps": Option(int, 0, "steps of linear warm-up from 0", {"ge": 0}),
    "warmup_fraction": Option(
        float, 0.0, "part of the updates, instead", {"ge": 0.0, "lt": 1.0}, is_late=True
    ),
}
SCHEDULES.register(
    "constant",
    "softprompts.training.schedules:constant",
    summary="constant after warm-up",
    options=_WARMUP,
)
SCHEDULES.register(
    "linear",
    "softprompts.training.schedules:linear",
    summary="linear to 0 after warm-up",
    options=_WARMUP,
)
SCHEDULES.register(
    "cosine",
    "softprompts.training.schedules:cosine",
    summary="half a cosine to 0 after warm-up",
    options=_WARMUP,
)

SAMPLINGS: Registry[Callable[..., Any]] = Registry("sampling")
_LIMIT = {
    "limit": Option(int | None, None, "most rows of a task that count; null is all", {"ge": 1}),
}
SAMPLINGS.register(
    "size",
    "softprompts.training.samplings:size",
    summary="each task as often as it has training rows",
    reference="Raffel et al. 2020, arXiv 1910.10683",
    options=_LIMIT,
)
SAMPLINGS.register(
    "temperature",
    "softprompts.training.samplings:temperature",
    summary="the number of training rows to the power of one over the temperature",
    reference="Raffel et al. 2020, arXiv 1910.10683",
    options={
        "temperature": Option(float, 2.0, "1 is by size; higher is more even", {"ge": 1.0}),
        **_LIMIT,
    },
)
SAMPLINGS.register(
    "uniform",
    "softprompts.training.samplings:uniform",
    summary="each task as often as the others",
)
