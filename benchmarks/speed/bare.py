"""A training loop as one writes it by hand: float32, padded batches in random order, AdamW."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from softprompts.encoding.inputs import EncodedExample

from .contestants import Contestant


@final
class Bare(Contestant):
    """Prompt tuning by hand: rows in front of the input's embeddings.

    A linear layer reads the input's own first token, or its last where the model reads from left to
    right; a model that writes is trained on the right answer's tokens.

    Args:
        folder: the frozen model.
        encoded: the rows.
        num_labels: labels of the task, where they are not written.
        length: rows of the prompt.
        batch_size: examples in a batch.
    """

    name = "bare loop"

    def __init__(
        self,
        folder: Path,
        encoded: Sequence[EncodedExample],
        num_labels: int | None,
        *,
        length: int = 10,
        batch_size: int = 16,
    ) -> None:
        self._is_writer = bool(encoded[0].inputs[0].targets)
        self._is_decoder = not AutoConfig.from_pretrained(folder).is_encoder_decoder
        writer = AutoModelForCausalLM if self._is_decoder else AutoModelForSeq2SeqLM
        kind = writer if self._is_writer else AutoModel
        self._model = kind.from_pretrained(folder, dtype=torch.float32).requires_grad_(False).eval()
        self._encoded, self._length, self._batch_size = encoded, length, batch_size
        self._draws = torch.Generator().manual_seed(0)
        width = self._model.get_input_embeddings().weight.shape[1]
        self._rows = nn.Parameter(0.02 * torch.randn(length, width, generator=self._draws))
        self._head = nn.Linear(self._model.config.hidden_size, num_labels or 1)
        trained = [self._rows, *(() if self._is_writer else self._head.parameters())]
        self._optimizer = torch.optim.AdamW(trained, lr=0.01)
        self._order: list[int] = []

    def step(self) -> int:
        """Do one update."""
        if not self._order:
            self._order = torch.randperm(len(self._encoded), generator=self._draws).tolist()
        chosen, self._order = self._order[: self._batch_size], self._order[self._batch_size :]
        rows = [self._encoded[i] for i in chosen]
        own = [row.inputs[0].ids[: self._end(row)] for row in rows]
        ids = _pad(own, 0)  # (batch, tokens)
        mask = _pad([[1] * len(one) for one in own], 0)
        words = self._model.get_input_embeddings()(ids)
        inputs = {
            "inputs_embeds": torch.cat([self._rows.expand(len(rows), -1, -1), words], dim=1),
            "attention_mask": torch.cat([mask.new_ones(len(rows), self._length), mask], dim=1),
        }
        loss = self._write(rows, inputs) if self._is_writer else self._classify(rows, inputs, mask)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return sum(len(row.inputs[0].ids) for row in rows) + self._length * len(rows)

    def _end(self, row: EncodedExample) -> int:
        """Return where an input ends: behind it a decoder that writes has the answer's begin."""
        item = row.inputs[0]
        return item.end if self._is_writer and self._is_decoder else len(item.ids)

    def _classify(
        self, rows: Sequence[EncodedExample], inputs: dict[str, Any], mask: Tensor
    ) -> Tensor:
        states = self._model(**inputs).last_hidden_state
        is_causal = self._model.config.model_type == "gpt2"
        place = self._length + (mask.sum(dim=1) - 1 if is_causal else 0)
        scores = self._head(states[torch.arange(len(rows)), place])
        return nn.functional.cross_entropy(scores, torch.tensor([row.answers[0] for row in rows]))

    def _write(self, rows: Sequence[EncodedExample], inputs: dict[str, Any]) -> Tensor:
        answers = [
            target.tokens
            for row in rows
            for target in row.inputs[0].targets
            if target.column == row.answers[0]
        ]
        if self._is_decoder:
            return self._go_on(answers, inputs)
        loss: Tensor = self._model(**inputs, labels=_pad(answers, -100)).loss
        return loss

    def _go_on(self, answers: Sequence[Sequence[int]], inputs: dict[str, Any]) -> Tensor:
        """Return the loss of a decoder that reads the answers behind right-padded inputs."""
        words = self._model.get_input_embeddings()(_pad(answers, 0))
        embeddings = torch.cat([inputs["inputs_embeds"], words], dim=1)
        mask = torch.cat([inputs["attention_mask"], _pad([[1] * len(a) for a in answers], 0)], 1)
        labels = torch.full_like(mask, -100)
        labels[:, -words.shape[1] :] = _pad(answers, -100)
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)
        given = {"inputs_embeds": embeddings, "attention_mask": mask, "position_ids": places}
        loss: Tensor = self._model(**given, labels=labels).loss
        return loss


def _pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *([value] * (width - len(row)))] for row in rows])
