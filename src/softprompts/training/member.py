"""One run inside a pack: its model, optimizer, order, selection and traces."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from statistics import fmean
from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.batch import collate
from softprompts.encoding.inputs import EncodedExample
from softprompts.prompts.choices import ChoiceLog
from softprompts.prompts.draws import Draws
from softprompts.readouts.base import Readout
from softprompts.regularizers.base import Regularizer
from softprompts.training.evaluation import EncodedSplit, Evaluation, evaluate_tasks
from softprompts.training.forward import Part
from softprompts.training.journal import Checkpoint, Journal
from softprompts.training.mixing import Mixing
from softprompts.training.objective import Share
from softprompts.training.penalties import PenaltyLog
from softprompts.training.plan import Plan
from softprompts.training.reader import find_reader
from softprompts.training.trainable import Model, under

_NUM_SHOWN = 3
"""Examples that a regularizer shows of a task, at the first update and at each evaluation."""


@final
@dataclass(frozen=True)
class Taken:
    """One example of one run's update.

    Attributes:
        task: the task's name.
        encoded: the example.
        place: its place in the run's update.
        width: positions of its longest input, prompt rows included.
    """

    task: str
    encoded: EncodedExample
    place: int
    width: int


@dataclass
class _Counters:
    """What a checkpoint keeps beside tensors."""

    step: int = 0
    examples: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    best_step: int = 0
    best_score: float = -math.inf
    best_loss: float = math.inf
    stale: int = 0
    divergence: dict[str, Any] = field(default_factory=dict)
    most_positions: int | None = None


@final
class Member:
    """A run in training; `Pack` drives it.

    Args:
        model: prompts, readouts and what is trained of the backbone, float32, on its device.
        optimizer: over their parameters; each group's `initial_lr` is its full learning rate.
        plan: how the run is trained.
        splits: by task `train`, and `held_out` for selection (empty: the last state is selected).
        journal: where traces go.
        regularizers: what is added to the loss.
    """

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer,
        plan: Plan,
        splits: Mapping[str, Mapping[str, EncodedSplit]],
        journal: Journal,
        regularizers: Sequence[Regularizer] = (),
    ) -> None:
        self.model, self.backbone, self.optimizer = model, model.backbone, optimizer
        self.plan, self.journal = plan, journal
        self.penalties = PenaltyLog(regularizers)
        self.train = {name: splits[name]["train"] for name in model.tracks}
        if all(one.is_idle for one in regularizers):  # others compare the scores of all labels
            self.train = {
                name: _trained_on(split, model.tracks[name].readout)
                for name, split in self.train.items()
            }
        held_out = {name: splits[name]["held_out"] for name in model.tracks}
        self.held_out = {name: split for name, split in held_out.items() if len(split)}
        sizes = {name: len(split) for name, split in self.train.items()}
        size = plan.batch_size * plan.accumulation_steps
        self._mixing = Mixing(sizes, plan.sampling(list(sizes.values())), size, plan.seed)
        self.best = self._snapshot()
        self._average = self._snapshot() if plan.average is not None else {}
        self._parts: list[tuple[str, Part]] = []
        self._drawn: dict[str, int] = {}
        self._widths: dict[str, dict[int, int]] = {}
        self._active: list[tuple[int, Regularizer, float]] = []
        self.counters = _Counters()
        self._restore()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to train."""
        counters = self.counters
        return bool(
            counters.divergence
            or counters.step >= self.plan.total_steps
            or counters.stale >= self.plan.patience
        )

    def draw(self) -> list[Taken]:
        """Draw the next update's examples; what was drawn before and not used is forgotten."""
        step, taken = self.counters.step, []
        self._parts, self._drawn, self._active = [], {}, []
        if self.penalties.regularizers:
            is_shown = not step or step + 1 in self.plan.evaluation_steps
            self._active = self.penalties.begin(step, _NUM_SHOWN if is_shown else 0)
        self.optimizer.zero_grad(set_to_none=True)
        for one in self._mixing.update(step):
            self._drawn[one.task] = len(one.indices)
            widths, encoded = self._measure(one.task, one.indices), self.train[one.task].encoded
            for index, place in zip(one.indices, one.places, strict=True):
                taken.append(Taken(one.task, encoded[index], place, widths[index]))
        return taken

    def longest(self) -> Taken:
        """Return the training example that takes the most positions, as the first of an update."""
        every = []
        for task, split in self.train.items():
            widths = self._measure(task, range(len(split)))
            every += [Taken(task, one, 0, widths[n]) for n, one in enumerate(split.encoded)]
        return max(every, key=lambda one: one.width * len(one.encoded.inputs))

    def _measure(self, task: str, indices: Iterable[int]) -> Mapping[int, int]:
        """Return the positions of examples by their index, among others; found once each."""
        known = self._widths.setdefault(task, {})
        missing = list(set(indices).difference(known))
        if missing:
            examples = list(map(self.train[task].encoded.__getitem__, missing))
            is_clean = all(one.is_idle for one in self.penalties.regularizers)
            prompt = self.model.tracks[task].prompt
            found = find_reader().num_positions(self.backbone, prompt, examples, is_clean)
            known.update(zip(missing, found, strict=True))
        return known

    def share(self, taken: Sequence[Taken], backbone: Backbone) -> Share:
        """Return examples of one task as this run's share of a micro-batch.

        Args:
            taken: examples of the last `draw`, all of one task.
            backbone: the model that they are read through.
        """
        task, num_examples = taken[0].task, sum(self._drawn.values())
        track, step = self.model.tracks[task], self.counters.step
        rows = list(map(attrgetter("encoded"), taken))
        batch = collate(rows, backbone.tokenizer.pad_token_id).to(backbone.device)
        places = torch.tensor(list(map(attrgetter("place"), taken)), device=backbone.device)
        temperature = self.plan.temperature(step)
        own = places[batch.examples]
        draws = Draws(self.plan.seed, step, 0, own, num_examples, temperature)
        part = Part(track.prompt, track.readout, batch, draws)
        self._parts.append((task, part))
        if not self._active:
            return Share(part, 1 / num_examples)
        name = task if self.model.is_mixture else ""
        note = partial(self.penalties.add, name, track.format.labels)
        return Share(part, 1 / num_examples, self._active, note)

    def update(self, loss: float, about: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Clip, step and log; a loss or gradient that is not finite ends the run instead.

        Args:
            loss: mean loss of the update's examples.
            about: what else to log of the update.
        """
        counters, groups = self.counters, self.optimizer.param_groups
        factor = self.plan.factor(counters.step)
        parameters: list[Tensor] = []
        for group in groups:
            parameters += group["params"]
        norm = float(nn.utils.clip_grad_norm_(parameters, self.plan.clip_norm))
        counters.step += 1
        counters.examples += sum(self._drawn.values())
        record: dict[str, Any] = {
            "step": counters.step,
            "loss": loss if math.isfinite(loss) else None,
            "learning_rate": groups[0]["initial_lr"] * factor,
            "gradient_norm": norm if math.isfinite(norm) else None,
            **about,
        }
        if self.penalties.regularizers:
            record |= self.penalties.summary()
        if self.model.is_mixture or self._parts[-1][1].choices.answers:
            chosen = self._choices()
            if any("position" in one or "length" in one for one in chosen.values()):
                record["temperature"] = self.plan.temperature(counters.step - 1)
            record |= self._named(chosen)
        self.journal.log(record)
        if self.penalties.regularizers and (text := self.penalties.examples(counters.step)):
            self.journal.show(text)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            counters.divergence = {**record, "loss": repr(loss), "gradient_norm": repr(norm)}
            return
        for group in groups:
            group["lr"] = group["initial_lr"] * factor
        self.optimizer.step()
        if self.plan.average is not None:
            self._add_to_average(self.plan.average(counters.step))
        self.optimizer.zero_grad(set_to_none=True)  # frees them before the next draw

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether the plan asks for a checkpoint after the last update."""
        every = self.plan.checkpoint_every_steps
        if not every:
            return self._is_evaluation_due
        return self.counters.step % every == 0 or self.is_done

    @property
    def _is_evaluation_due(self) -> bool:
        return self.counters.step in self.plan.evaluation_steps and not self.counters.divergence

    def evaluate(self) -> None:
        """Score the held-out rows where the plan says so, and keep the state if it is the best."""
        if self.held_out and self._is_evaluation_due:
            with self.timed():
                newest = self._snapshot() if self._average else None
                self.settle()
                self._select(evaluate_tasks(self.model, self.held_out))
                if newest is not None:
                    self.load(newest)

    def save(self, backbone: Backbone) -> None:
        """Give a checkpoint to the journal."""
        with self.timed():
            find_reader().save(backbone)
            self.journal.save(self._checkpoint())

    def select_last(self) -> None:
        """Make the current state the selected one, where there was nothing to select on."""
        if not self.held_out:
            self.best = self.last
            self.counters.best_step = self.counters.step

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count what is done meanwhile among the run's seconds."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.counters.seconds += time.perf_counter() - began

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put a snapshot into all that is trained."""
        self.model.load(state)

    def _select(self, found: Mapping[str, Evaluation]) -> None:
        """Log an evaluation on held-out rows; keep the state if it is the best so far."""
        counters = self.counters
        score = fmean(one.score for one in found.values())
        loss = fmean(one.loss for one in found.values())
        line = {"step": counters.step, "split": "held_out", "score": score, "loss": _finite(loss)}
        if self.model.is_mixture:
            details = {name: _details(one) for name, one in found.items()}
        else:
            details = {name: {**one.metrics, **one.choices} for name, one in found.items()}
        self.journal.log({**line, **self._named(details)})
        loss = loss if math.isfinite(loss) else math.inf  # NaN has no order
        is_better = (score, -loss) > (counters.best_score, -counters.best_loss)
        if is_better:
            counters.best_score, counters.best_loss = score, loss
            counters.best_step = counters.step
            self.best = self.last
        counters.stale = 0 if is_better else counters.stale + 1

    def _choices(self) -> dict[str, dict[str, Any]]:
        """Return what each task's prompt chose in the last update."""
        logs: dict[str, ChoiceLog] = {}
        for name, part in self._parts:
            logs.setdefault(name, ChoiceLog()).extend(part.choices)
        found = {name: log.summary() for name, log in logs.items()}
        if self.model.is_mixture:
            return {name: {"num_examples": self._drawn[name], **one} for name, one in found.items()}
        return found

    def _named(self, details: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """Return what a record says of tasks: under `tasks`, or by itself where there is one."""
        if self.model.is_mixture:
            return {"tasks": dict(details)}
        return next(iter(details.values()))

    @property
    def last(self) -> dict[str, Tensor]:
        """A copy of the state as it is scored and kept: the newest, or the average."""
        return {k: v.clone() for k, v in self._average.items()} or self._snapshot()

    def settle(self) -> None:
        """Put the state as it is scored and kept into all that is trained."""
        if self._average:
            self.load(self._average)

    @torch.no_grad()
    def _add_to_average(self, weight: float) -> None:
        """Move the average towards the newest state; what is no fraction is taken from there."""
        for name, value in self.model.state().items():
            kept = self._average[name]
            if value.is_floating_point():
                kept.lerp_(value.to(kept), weight)
            else:
                kept.copy_(value)

    def _snapshot(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state().items()}

    def _checkpoint(self) -> Checkpoint:
        tensors = {f"model.{name}": value for name, value in self.model.state().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"average.{name}": value for name, value in self._average.items()}
        numbers: dict[str, Any] = {}
        for index, state in self.optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{key}"] = value
                else:
                    numbers[f"{index}.{key}"] = value
        counters = {k: v if v != -math.inf else None for k, v in vars(self.counters).items()}
        counters["best_loss"] = _finite(self.counters.best_loss)
        return Checkpoint(tensors, {"counters": counters, "optimizer": numbers})

    def _restore(self) -> None:
        checkpoint = self.journal.restore()
        if checkpoint is None:
            return
        tensors = checkpoint.tensors
        self.model.load(under("model.", tensors), "the checkpoint")
        self.best = under("best.", tensors)
        self._average = under("average.", tensors)
        state: dict[int, dict[str, Any]] = {}
        for name, value in [
            *under("optimizer.", tensors).items(),
            *checkpoint.about["optimizer"].items(),
        ]:
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        counters = dict(checkpoint.about["counters"])
        for key, absent in (("best_score", -math.inf), ("best_loss", math.inf)):
            counters[key] = absent if counters[key] is None else counters[key]
        self.counters = _Counters(**counters)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _trained_on(split: EncodedSplit, readout: Readout) -> EncodedSplit:
    """Return a split with what the loss depends on alone."""
    return replace(split, encoded=tuple(map(readout.trained_on, split.encoded)))


def _details(evaluation: Evaluation) -> dict[str, Any]:
    """Return what a record says of one task of a mixture."""
    return {
        "score": evaluation.score,
        "loss": _finite(evaluation.loss),
        "metrics": evaluation.metrics,
        **evaluation.choices,
    }
