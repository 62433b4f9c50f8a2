"""How steep a trained run's loss is around it, in inputs and prompt; and that of a study's runs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from softprompts.errors import DataError, SoftPromptsError
from softprompts.lab.analysis.curvature import (
    Objective,
    ascend,
    estimate_trace,
    hessian_product,
    lanczos,
)
from softprompts.lab.analysis.subjects import Sample, Subject, load_subject
from softprompts.lab.analysis.surfaces import InputSurface, PromptSurface
from softprompts.recipes.grid import expand
from softprompts.recipes.study import parse_kept_study
from softprompts.seeding import generator
from softprompts.storage import is_there, make_folder, read_json, read_record, write_json
from softprompts.training.reader import find_reader
from softprompts.training.resources import Resources

MEASURES = ("input", "prompt", "curvature")
VERSION = 1
"""Goes up when the numbers may change."""

CURVATURE_DTYPE = "float32"
"""Differences of gradients need it; half precision would drown them."""


@final
@dataclass(frozen=True)
class Effort:
    """What is measured, and how thoroughly.

    Attributes:
        measures: `input`, `prompt` and `curvature`, or some of them.
        input_radii: root-mean-square changes of the inputs, in that of the embedding table.
        prompt_radii: changes of each row, in its own length.
        steps: of ascent for each radius.
        num_noise: random changes of the inputs for each radius.
        num_curvature_examples: most rows that curvature is taken on.
        num_products: most products with the Hessian for its ends.
        num_probes: random vectors for its trace.
        step: mean change of a row, in its own length, that gradients are taken apart.

    Raises:
        DataError: if a value makes no sense.
    """

    measures: tuple[str, ...] = MEASURES
    input_radii: tuple[float, ...] = (0.03, 0.1, 0.3)
    prompt_radii: tuple[float, ...] = (0.1, 0.3)
    steps: int = 3
    num_noise: int = 2
    num_curvature_examples: int = 32
    num_products: int = 10
    num_probes: int = 4
    step: float = 3e-4

    def __post_init__(self) -> None:
        if not self.measures or not set(MEASURES).issuperset(self.measures):
            raise DataError(
                f"`measures` must be some of {', '.join(MEASURES)}, but is "
                f"{', '.join(self.measures) or 'empty'}."
            )
        for name in ("input_radii", "prompt_radii"):
            radii = getattr(self, name)
            if not radii or min(radii) <= 0 or list(radii) != sorted(set(radii)):
                raise DataError(f"`{name}` must be positive and rising, but is {list(radii)}.")
        for name in ("steps", "num_curvature_examples", "num_products", "num_probes"):
            if getattr(self, name) < 1:
                raise DataError(f"`{name}` must be at least 1, but is {getattr(self, name)}.")
        if self.num_noise < 0:
            raise DataError(f"`num_noise` must be at least 0, but is {self.num_noise}.")
        if self.step <= 0:
            raise DataError(f"`step` must be more than 0, but is {self.step}.")


QUICK = Effort(
    input_radii=(0.03, 0.1),
    prompt_radii=(0.1,),
    steps=2,
    num_noise=1,
    num_curvature_examples=6,
    num_products=4,
    num_probes=1,
)
QUICK_SAMPLE = Sample(num_examples=16)
"""What measures a run in a few seconds on one core, to compare many."""


def measure_sharpness(
    folder: Path, sample: Sample, effort: Effort, resources: Resources | None = None
) -> dict[str, Any]:
    """Measure how steep the loss of a finished run is around it.

    Resources share backbones, tasks and encoded rows between runs.

    Returns:
        What JSON can hold: the run, its `loss`, `seconds`, and by measure what was found. A
        measure that the run has no place for is `None`, with the reason in `left_out`.

    Raises:
        SoftPromptsError: if the run cannot be read.
    """
    began = time.perf_counter()
    resources = resources or Resources()
    subject = load_subject(folder, sample, resources)
    found: dict[str, Any] = {
        "version": VERSION,
        **{name: value for name, value in subject.about.items() if name != "prompt"},
        "sample": asdict(sample),
        "effort": asdict(effort),
        "num_examples": subject.num_examples,
        "left_out": {},
        **dict.fromkeys(MEASURES),
    }
    if "input" in effort.measures:
        found |= _measure_input(subject, effort)
    of_rows = [name for name in ("prompt", "curvature") if name in effort.measures]
    if not subject.track.prompt.length:
        reason = f"method {subject.about['method']} has no prompt rows"
        found["left_out"], of_rows = dict.fromkeys(of_rows, reason), []
    if "prompt" in of_rows:
        found |= _measure_prompt(subject, effort)
    if "curvature" in of_rows:
        most = min(sample.num_examples, effort.num_curvature_examples)
        few = replace(sample, num_examples=most, dtype=CURVATURE_DTYPE)
        found["curvature"] = _measure_curvature(load_subject(folder, few, resources), effort)
    find_reader().save(subject.backbone)
    found["seconds"] = time.perf_counter() - began
    return found


def _measure_input(subject: Subject, effort: Effort) -> dict[str, Any]:
    """Return the loss, and its increase in balls of the input embeddings."""
    surface = InputSurface(subject)
    draws = generator(subject.sample.seed, "landscape", "noise")
    noises = [surface.noise(draws) for _ in range(effort.num_noise)]
    own: list[Tensor] = []
    worst: dict[float, list[Tensor]] = {radius: [] for radius in effort.input_radii}
    noisy: dict[float, list[Tensor]] = {radius: [] for radius in effort.input_radii}
    for number, spans in enumerate(surface.spans):
        objective = Objective(
            partial(surface.losses_of, number=number), partial(surface.gradient_of, number=number)
        )
        first = objective.gradients(surface.origin[number])
        own.append(first[0])
        for radius, highest in _by_radius(objective, first, spans, effort.input_radii, effort):
            worst[radius].append(highest - first[0])
            for noise in noises:
                noisy[radius].append(objective.values(noise[number] * radius) - first[0])
    lines = []
    for radius in effort.input_radii:
        rises = torch.cat(worst[radius]).double()
        error = float(rises.std() / len(rises) ** 0.5) if len(rises) > 1 else None
        risen = float(torch.cat(noisy[radius]).double().mean()) if noises else None
        found = {"radius": radius, "worst": float(rises.mean()), "worst_error": error}
        lines.append({**found, "noise": risen})
    loss = float(torch.cat(own).double().mean())
    return {"loss": loss, "input": {"unit": subject.unit, "radii": lines}}


def _measure_prompt(subject: Subject, effort: Effort) -> dict[str, Any]:
    """Return the loss, and its increase where every row may move by a share of its length."""
    surface = PromptSurface(subject)

    def values(change: Tensor) -> Tensor:
        return surface.losses([(change,)]).mean(dim=1)

    def gradients(change: Tensor) -> tuple[Tensor, Tensor]:
        losses, (gradient,) = surface.gradient((change,))
        return losses.mean()[None], gradient

    objective = Objective(values, gradients)
    first = gradients(surface.origin[0])
    spans = surface.spans[0]
    lines = [
        {"radius": radius, "worst": float(highest - first[0])}
        for radius, highest in _by_radius(objective, first, spans, effort.prompt_radii, effort)
    ]
    norms = torch.linalg.vector_norm(first[1], dim=1)
    return {
        "loss": float(first[0]),
        "prompt": {
            "unit": float(surface.norms.mean()),
            "gradient_norm": float(torch.linalg.vector_norm(norms)),
            "radii": lines,
        },
    }


def _by_radius(
    objective: Objective,
    first: tuple[Tensor, Tensor],
    spans: Tensor,
    radii: Sequence[float],
    effort: Effort,
) -> Iterator[tuple[float, Tensor]]:
    """Yield the highest values within each radius; those of a smaller ball are in the larger."""
    best = first[0]
    for radius in radii:
        best = torch.maximum(best, ascend(objective, first, spans * radius, effort.steps))
        yield radius, best


def _measure_curvature(subject: Subject, effort: Effort) -> dict[str, Any]:
    """Return the ends and the trace of the Hessian in the rows, each in its own length."""
    surface = PromptSurface(subject)
    (origin,) = surface.origin

    def gradient(change: Tensor) -> Tensor:
        return surface.gradient((change.to(origin).view_as(origin),))[1][0].flatten()

    product = hessian_product(gradient, effort.step * len(origin) ** 0.5)
    draws = generator(subject.sample.seed, "landscape", "start")
    noise = torch.randn(origin.numel(), generator=draws).to(origin)
    slope = gradient(torch.zeros_like(noise))  # leans towards the top, which is found sooner
    norm = torch.linalg.vector_norm(slope).clamp(min=1e-30)
    start = slope / norm + 0.1 * noise / torch.linalg.vector_norm(noise)
    ends = lanczos(product, start, effort.num_products, tolerance=0.01)
    probes = generator(subject.sample.seed, "landscape", "probes")
    trace, trace_error = estimate_trace(product, noise, effort.num_probes, probes)
    return {
        "num_examples": subject.num_examples,
        "dtype": subject.about["dtype"],
        **asdict(ends),
        "trace": trace,
        "trace_error": trace_error,
    }


Told = Callable[[Mapping[str, Any]], None]


def study_sharpness(
    study: Path, sample: Sample, effort: Effort, told: Told | None = None
) -> list[dict[str, Any]]:
    """Measure the sharpness of every finished run of a study.

    What was measured is kept in `STUDY/analysis/sharpness/<identity>.json` and not measured again
    with the same sample and effort; so an interrupted call goes on where it stopped. Runs are
    measured task by task, and backbones, tasks and encoded rows are loaded once.

    Returns:
        A row per run, in the study's order: `variant`, `point`, `task`, `seed`, `identity`, and
        what was measured. A run that is not finished, diverged or cannot be measured has an
        `error` instead. `told` is given each as it is ready.

    Raises:
        SoftPromptsError: if the folder holds no study, or a result cannot be kept.
    """
    resources, rows = Resources(), []
    content = read_record(study / "study.json", ["name", "base"])
    for cell in expand(parse_kept_study(content, str(study / "study.json"))):
        try:
            found = _kept(study, cell.identity, sample, effort, resources)
        except SoftPromptsError as error:
            found = {"error": " ".join(str(error).split())}
        about = {"variant": cell.variant, "point": cell.point, "task": cell.task}
        rows.append({**found, **about, "seed": cell.config.seed, "identity": cell.identity})
        if told is not None:
            told(rows[-1])
    return rows


def _kept(
    study: Path, identity: str, sample: Sample, effort: Effort, resources: Resources
) -> dict[str, Any]:
    """Return a run's sharpness from the study's folder, or measure it and keep it there."""
    wanted = json.dumps([VERSION, asdict(sample), asdict(effort)], sort_keys=True)
    key = hashlib.sha256(wanted.encode()).hexdigest()[:16]
    path = study / "analysis" / "sharpness" / f"{identity}.json"
    kept: dict[str, Any] = read_json(path) if is_there(path) else {}
    if key not in kept:
        kept[key] = measure_sharpness(study / "runs" / identity, sample, effort, resources)
        make_folder(path.parent)
        write_json(path, kept)
    return dict(kept[key])
