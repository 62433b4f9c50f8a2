"""peft's prompt tuning under transformers' `Trainer`, by its defaults and at its best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

QUIET = {
    "logging_strategy": "no",
    "save_strategy": "no",
    "eval_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "use_cpu": True,
    "dataloader_pin_memory": False,
}
"""Nothing that costs time beside training: no logs, checkpoints or evaluations."""


@dataclass(frozen=True)
class Setup:
    """How peft is run.

    Attributes:
        dtype: of the frozen weights.
        options: training arguments.
        is_sorted: whether rows to predict come sorted by length.
        prediction_batch_size: rows per batch of a prediction; 8 is the default.
    """

    dtype: torch.dtype = torch.float32
    options: dict[str, Any] = field(default_factory=dict)
    is_sorted: bool = False
    prediction_batch_size: int = 8


GROUPED = {"train_sampling_strategy": "group_by_length"}
SETUPS = {
    "peft, default": Setup(),
    "peft, best": Setup(torch.bfloat16, GROUPED, True, 64),
    "peft, autocast": Setup(torch.float32, {**GROUPED, "bf16": True}, True, 64),
}
"""Both ways to bfloat16; weights in it are the faster one on a processor, so they are the best."""


def build_peer(folder: Path, dtype: torch.dtype, num_labels: int | None, length: int = 10) -> Any:
    """Return peft's model: prompt tuning of a classifier, or of a model that writes.

    Args:
        folder: the frozen model.
        dtype: of its weights.
        num_labels: labels of the task; `None` where the model writes them.
        length: rows of the prompt.
    """
    from transformers import AutoConfig

    if AutoConfig.from_pretrained(folder).is_encoder_decoder:
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype)
        kind = "SEQ_2_SEQ_LM"
    elif num_labels is None:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        kind = "CAUSAL_LM"
    else:
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=dtype, num_labels=num_labels
        )
        kind = "SEQ_CLS"
    if model.config.pad_token_id is None:
        model.config.pad_token_id = model.config.eos_token_id
    peer = get_peft_model(model, PromptTuningConfig(task_type=kind, num_virtual_tokens=length))
    peer.num_rows = length
    return peer


def build_trainer(
    peer: Any,
    records: Sequence[dict[str, Any]],
    tokenizer: Any,
    setup: Setup,
    *,
    batch_size: int,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> Trainer:
    """Return a `Trainer` that goes on until a callback stops it."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=setup.prediction_batch_size,
        learning_rate=0.01,
        max_steps=1_000_000,
        **QUIET,
        **setup.options,
    )
    is_writer = peer.peft_config["default"].task_type != TaskType.SEQ_CLS
    collator = (
        DataCollatorForSeq2Seq(tokenizer) if is_writer else DataCollatorWithPadding(tokenizer)
    )
    trainer = Trainer(
        peer,
        arguments,
        data_collator=collator,
        train_dataset=list(records),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class TokenCount:
    """Counts the tokens that a peer reads, rows of the prompt included, padding not.

    Nor is the last token of an answer that a decoder writes: nothing follows from it.
    """

    def __init__(self, peer: Any) -> None:
        is_writer = peer.peft_config["default"].task_type == TaskType.CAUSAL_LM
        self.tokens, self._length = 0, peer.num_rows - is_writer
        peer.register_forward_pre_hook(self._note, with_kwargs=True)

    def take(self) -> int:
        """Return the count since the last call."""
        tokens, self.tokens = self.tokens, 0
        return tokens

    def _note(self, module: Any, arguments: Any, options: dict[str, Any]) -> None:
        mask = options["attention_mask"]
        self.tokens += int(mask.sum()) + self._length * len(mask)


class Host(TrainerCallback):
    """Calls the others after each of a trainer's updates.

    Args:
        turn: called after each update, told nothing; returns whether the race goes on.
    """

    def __init__(self, turn: Callable[[], bool]) -> None:
        self._turn = turn

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Let the others have their turn."""
        control.should_training_stop = not self._turn()
