"""One run inside a pack: its model, optimizer, order, selection and traces."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.cutting import cut_by_size
from softprompts.encoding.batch import collate
from softprompts.prompts.choices import ChoiceLog
from softprompts.prompts.draws import Draws
from softprompts.regularizers.base import Regularizer
from softprompts.training.evaluation import EncodedSplit, Evaluation, evaluate_tasks
from softprompts.training.forward import Part
from softprompts.training.frozen import save_readings
from softprompts.training.input_keys import num_positions
from softprompts.training.journal import Checkpoint, Journal
from softprompts.training.mixing import Drawn, Mixing
from softprompts.training.objective import Share
from softprompts.training.penalties import PenaltyLog
from softprompts.training.tracks import Model, under

_OVERHEAD_TOKENS = defaultdict(lambda: 8192, cpu=128)
"""What one more micro-batch costs, in token positions; where inputs are packed, it saves none."""

_NUM_SHOWN = 3
"""Examples that a regularizer shows of a task, at the first update and at each evaluation."""


@dataclass(frozen=True)
class Plan:
    """How a run is trained: flat numbers, no recipe.

    Attributes:
        seed: the run's seed; order and dropout derive from it.
        total_steps: most updates.
        batch_size: examples per micro-batch.
        accumulation_steps: micro-batches per update; an update sees their product in examples.
        clip_norm: largest gradient norm, or infinity.
        evaluation_steps: updates after which the held-out rows are scored.
        checkpoint_every_steps: updates between checkpoints; 0 checkpoints at evaluations.
        patience: evaluations without gain before stopping, or infinity.
        factor: schedule, from the number of updates done to the factor on the learning rates.
        temperature: from the number of updates done to the temperature of selections.
        sampling: from the training rows of each task to how often it is drawn.
    """

    seed: int
    total_steps: int
    batch_size: int
    accumulation_steps: int
    clip_norm: float
    evaluation_steps: frozenset[int]
    checkpoint_every_steps: int
    patience: float
    factor: Callable[[int], float]
    temperature: Callable[[int], float]
    sampling: Callable[[Sequence[int]], Sequence[float]]


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
        held_out = {name: splits[name]["held_out"] for name in model.tracks}
        self.held_out = {name: split for name, split in held_out.items() if len(split)}
        sizes = {name: len(split) for name, split in self.train.items()}
        size = plan.batch_size * plan.accumulation_steps
        self._mixing = Mixing(sizes, plan.sampling(list(sizes.values())), size, plan.seed)
        self.best = self._snapshot()
        self._parts: list[tuple[str, Part]] = []
        self._drawn: dict[str, int] = {}
        self.counters = _Counters()
        self._restore()
        self._began = time.perf_counter() - self.counters.seconds

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to train."""
        counters = self.counters
        return bool(
            counters.divergence
            or counters.step >= self.plan.total_steps
            or counters.stale >= self.plan.patience
        )

    def parts(self, backbone: Backbone) -> list[tuple[Part, float]]:
        """Return the next update's micro-batches, each with the weight of one of its examples."""
        drawn = self._mixing.update(self.counters.step)
        num_examples = sum(len(one.indices) for one in drawn)
        self._parts, self._drawn = [], {one.task: len(one.indices) for one in drawn}
        for one in drawn:
            self._cut(one, num_examples, backbone)
        self.counters.examples += num_examples
        return [(part, 1 / num_examples) for _, part in self._parts]

    def shares(self, backbone: Backbone) -> list[Share]:
        """Return the next update's micro-batches, each with what regularizes it."""
        parts = self.parts(backbone)
        step = self.counters.step
        is_shown = not step or step + 1 in self.plan.evaluation_steps
        active = self.penalties.begin(step, _NUM_SHOWN if is_shown else 0)
        notes = [
            partial(
                self.penalties.add,
                name if self.model.is_mixture else "",
                self.model.tracks[name].format.labels,
            )
            for name, _ in self._parts
        ]
        given = zip(parts, notes, strict=True)
        return [Share(part, weight, active, note) for (part, weight), note in given]

    def _cut(self, drawn: Drawn, num_examples: int, backbone: Backbone) -> None:
        """Cut one task's share of an update into micro-batches."""
        plan, step, track = self.plan, self.counters.step, self.model.tracks[drawn.task]
        encoded = [self.train[drawn.task].encoded[i] for i in drawn.indices]
        lengths = [example.num_tokens * len(example.inputs) for example in encoded]
        if all(one.is_idle for one in self.penalties.regularizers):
            lengths = [num_positions(backbone, track.prompt, example) for example in encoded]
        kind = "packed" if backbone.shortcuts.packs else backbone.device.type
        overhead = _OVERHEAD_TOKENS[kind] // self.penalties.num_reads
        for chosen in cut_by_size(lengths, plan.batch_size, overhead):
            rows = [encoded[i] for i in chosen]
            batch = collate(rows, backbone.tokenizer.pad_token_id).to(backbone.device)
            places = torch.tensor([drawn.places[i] for i in chosen], device=backbone.device)
            draws = Draws(
                plan.seed,
                step,
                len(self._parts),
                places[batch.examples],
                num_examples,
                plan.temperature(step),
            )
            part = Part(track.prompt, track.readout, batch, draws)
            self._parts.append((drawn.task, part))

    def update(self, loss: float) -> None:
        """Clip, step and log; a loss or gradient that is not finite ends the run instead.

        Args:
            loss: mean loss of the update's examples.
        """
        counters = self.counters
        factor = self.plan.factor(counters.step)
        rates = [group["initial_lr"] * factor for group in self.optimizer.param_groups]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = float(nn.utils.clip_grad_norm_(parameters, self.plan.clip_norm))
        counters.step += 1
        record: dict[str, Any] = {
            "step": counters.step,
            "loss": _finite(loss),
            "learning_rate": rates[0],
            "gradient_norm": _finite(norm),
        }
        record |= self.penalties.summary()
        chosen = self._choices()
        if any("position" in one or "length" in one for one in chosen.values()):
            record["temperature"] = self.plan.temperature(counters.step - 1)
        record |= self._named(chosen)
        self.journal.log(record)
        text = self.penalties.examples(counters.step)
        if text:
            self.journal.show(text)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            counters.divergence = {**record, "loss": repr(loss), "gradient_norm": repr(norm)}
            return
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def after_update(self, backbone: Backbone) -> None:
        """Evaluate and checkpoint where the plan says so."""
        step, plan = self.counters.step, self.plan
        is_evaluation = step in plan.evaluation_steps and not self.counters.divergence
        if is_evaluation and self.held_out:
            self._select(evaluate_tasks(self.model, self.held_out))
        every = plan.checkpoint_every_steps
        if is_evaluation if not every else step % every == 0 or self.is_done:
            self.counters.seconds = self.elapsed()
            save_readings(backbone)
            self.journal.save(self._checkpoint())

    def select_last(self) -> None:
        """Make the current state the selected one, where there was nothing to select on."""
        if not self.held_out:
            self.best = self._snapshot()
            self.counters.best_step = self.counters.step

    def elapsed(self) -> float:
        """Return the seconds that the run has taken, earlier sittings included."""
        return time.perf_counter() - self._began

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
            self.best = self._snapshot()
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

    def _snapshot(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state().items()}

    def _checkpoint(self) -> Checkpoint:
        tensors = {f"model.{name}": value for name, value in self.model.state().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
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


def _details(evaluation: Evaluation) -> dict[str, Any]:
    """Return what a record says of one task of a mixture."""
    return {
        "score": evaluation.score,
        "loss": _finite(evaluation.loss),
        "metrics": evaluation.metrics,
        **evaluation.choices,
    }
