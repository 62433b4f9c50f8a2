"""One run inside a pack: its prompt, readout, optimizer, order, selection and traces."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from softprompts.backbones.backbone import Backbone
from softprompts.encoding.batch import collate
from softprompts.prompts.choices import ChoiceLog
from softprompts.prompts.draws import Draws
from softprompts.prompts.prompt import Prompt
from softprompts.readouts.base import Readout
from softprompts.tasks.base import TaskFormat
from softprompts.training.batching import cut_by_length, update_indices
from softprompts.training.evaluation import EncodedSplit, Evaluation, evaluate
from softprompts.training.forward import Part
from softprompts.training.journal import Checkpoint, Journal

_OVERHEAD_TOKENS = defaultdict(lambda: 8192, cpu=128)
"""What one more micro-batch costs, in token positions, by device type."""


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
        prompt: the prompt, float32, on the backbone's device.
        readout: the readout, likewise.
        optimizer: over their parameters; each group's `initial_lr` is its full learning rate.
        plan: how the run is trained.
        splits: `train`, and `held_out` for selection (empty: the last state is selected).
        journal: where traces go.
    """

    def __init__(
        self,
        prompt: Prompt,
        readout: Readout,
        optimizer: Optimizer,
        plan: Plan,
        splits: Mapping[str, EncodedSplit],
        journal: Journal,
    ) -> None:
        self.prompt, self.readout, self.optimizer = prompt, readout, optimizer
        self.plan, self.journal = plan, journal
        self.train, self.held_out = splits["train"], splits["held_out"]
        self.modules = nn.ModuleDict({"prompt": prompt, "readout": readout})
        self.best = self._snapshot()
        self._parts: list[Part] = []
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
        plan, step = self.plan, self.counters.step
        size = plan.batch_size * plan.accumulation_steps
        indices = update_indices(len(self.train), size, plan.seed, step)
        encoded = [self.train.encoded[i] for i in indices]
        lengths = [example.num_tokens * len(example.inputs) for example in encoded]
        overhead = _OVERHEAD_TOKENS[backbone.device.type]
        parts = []
        for micro, chosen in enumerate(cut_by_length(lengths, plan.batch_size, overhead)):
            rows = [encoded[i] for i in chosen]
            batch = collate(rows, backbone.tokenizer.pad_token_id).to(backbone.device)
            draws = Draws(
                plan.seed,
                step,
                micro,
                torch.tensor(chosen, device=backbone.device)[batch.examples],
                len(indices),
                plan.temperature(step),
            )
            parts.append((Part(self.prompt, self.readout, batch, draws), 1 / len(indices)))
        self.counters.examples += len(indices)
        self._parts = [part for part, _ in parts]
        return parts

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
        record = {
            "step": counters.step,
            "loss": _finite(loss),
            "learning_rate": rates[0],
            "gradient_norm": _finite(norm),
        }
        chosen = self._choices()
        if "position" in chosen:
            record["temperature"] = self.plan.temperature(counters.step - 1)
        record |= chosen
        self.journal.log(record)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            counters.divergence = {**record, "loss": repr(loss), "gradient_norm": repr(norm)}
            return
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def after_update(self, backbone: Backbone, format: TaskFormat) -> None:
        """Evaluate and checkpoint where the plan says so."""
        step, plan = self.counters.step, self.plan
        is_evaluation = step in plan.evaluation_steps and not self.counters.divergence
        if is_evaluation and len(self.held_out):
            self._select(evaluate(backbone, self.prompt, self.readout, self.held_out, format))
        every = plan.checkpoint_every_steps
        if is_evaluation if not every else step % every == 0 or self.is_done:
            self.counters.seconds = self.elapsed()
            self.journal.save(self._checkpoint())

    def select_last(self) -> None:
        """Make the current state the selected one, where there was nothing to select on."""
        if not len(self.held_out):
            self.best = self._snapshot()
            self.counters.best_step = self.counters.step

    def elapsed(self) -> float:
        """Return the seconds that the run has taken, earlier sittings included."""
        return time.perf_counter() - self._began

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put a snapshot into prompt and readout."""
        self.modules.load_state_dict(dict(state))

    def _select(self, evaluation: Evaluation) -> None:
        """Log an evaluation on held-out rows; keep the state if it is the best so far."""
        counters = self.counters
        self.journal.log(
            {
                "step": counters.step,
                "split": "held_out",
                "score": evaluation.score,
                "loss": _finite(evaluation.loss),
                **evaluation.metrics,
                **evaluation.choices,
            }
        )
        loss = evaluation.loss if math.isfinite(evaluation.loss) else math.inf  # NaN has no order
        is_better = (evaluation.score, -loss) > (counters.best_score, -counters.best_loss)
        if is_better:
            counters.best_score, counters.best_loss = evaluation.score, loss
            counters.best_step = counters.step
            self.best = self._snapshot()
        counters.stale = 0 if is_better else counters.stale + 1

    def _choices(self) -> dict[str, Any]:
        """Return what the prompt chose in the last update."""
        choices = ChoiceLog()
        for part in self._parts:
            choices.extend(part.choices)
        return choices.summary()

    def _snapshot(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.modules.state_dict().items()}

    def _checkpoint(self) -> Checkpoint:
        tensors = {f"model.{name}": value for name, value in self.modules.state_dict().items()}
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
        self.load(_under("model.", tensors))
        self.best = _under("best.", tensors)
        state: dict[int, dict[str, Any]] = {}
        for name, value in [
            *_under("optimizer.", tensors).items(),
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


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
