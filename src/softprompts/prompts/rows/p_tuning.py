"""P-tuning rows: an embedding read through a small encoder."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Generator, Tensor, nn

from softprompts.errors import PromptError
from softprompts.prompts.rows.base import Rows
from softprompts.prompts.rows.drawing import drawn, linear, start_as_nothing


@final
class MlpEncoder(nn.Module):
    """`num_layers` times Linear and ReLU, then Linear: each row on its own."""

    def __init__(
        self, hidden: int, hidden_size: int, num_layers: int, generator: Generator
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for layer in range(num_layers):
            width = hidden_size if layer else hidden
            layers += [linear(width, hidden_size, generator), nn.ReLU()]
        self.head = nn.Sequential(*layers, linear(hidden_size, hidden, generator))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the encoded rows. Shapes in and out `(length, hidden)`."""
        encoded: Tensor = self.head(rows)
        return encoded


@final
class LstmEncoder(nn.Module):
    """A bidirectional LSTM, then Linear, ReLU, Linear: each row sees all the others.

    The Linear between is as wide as both directions together.
    """

    def __init__(
        self, hidden: int, hidden_size: int, num_layers: int, generator: Generator
    ) -> None:
        super().__init__()
        lstm = nn.LSTM(hidden, hidden_size, num_layers, bidirectional=True, device="meta")
        self.lstm = drawn(lstm, hidden_size, generator)
        both = 2 * hidden_size
        self.head = nn.Sequential(
            linear(both, both, generator), nn.ReLU(), linear(both, hidden, generator)
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Return the encoded rows. Shapes in and out `(length, hidden)`."""
        states, _ = self.lstm(rows)  # (length, 2 * hidden_size)
        encoded: Tensor = self.head(states)  # (length, hidden)
        return encoded


_ENCODERS: dict[str, type[MlpEncoder | LstmEncoder]] = {"mlp": MlpEncoder, "lstm": LstmEncoder}


@final
class PTuningRows(Rows):
    """Rows read through an encoder: `P = encoder(E)`.

    `E` and the encoder are trained together; afterwards only `P` is kept for inference. Trainable
    numbers, with `d = hidden`, `h = hidden_size` and two layers: `d l + 2 d h + h h + 2 h + d` for
    `mlp`; `d l + 10 d h + 36 h h + 34 h + d` for `lstm`.

    In a unit `u`, `P = u (w + encoder(w))` with `w = E / u`, the encoder's last weights starting at
    0.

    Reference:
        Liu et al. (2021), arXiv 2103.10385, section 3.

    Differences:
        No dropout inside the LSTM. The sizes are those of PEFT; the authors' own code has an LSTM
        half as wide for one benchmark, and a narrower network after it for the other. They have
        no skip, which is there in a unit only.
    """

    has_unit = True
    draws = False
    groups: ClassVar = {"encoder": "network"}

    def __init__(
        self,
        initial: Tensor,
        generator: Generator,
        *,
        encoder: str = "mlp",
        hidden_size: int | None = None,
        num_layers: int = 2,
        unit: Tensor | None = None,
    ) -> None:
        super().__init__(initial, generator, unit=unit)
        length, hidden = initial.shape
        if not length:
            raise PromptError("`prompt.length` must be at least 1 for p-tuning rows, but is 0.")
        if encoder not in _ENCODERS:
            raise PromptError(f"`prompt.rows.encoder` must be mlp or lstm, but is {encoder!r}.")
        self.weight = self.start(initial)
        width = hidden if hidden_size is None else hidden_size
        self.encoder = _ENCODERS[encoder](hidden, width, num_layers, generator)
        if self.is_relative:
            start_as_nothing(self.encoder.head[-1])

    def forward(self, generator: Generator | None = None) -> Tensor:
        """Return `P`; nothing is drawn, so `generator` is not used. Shape `(length, hidden)`."""
        rows: Tensor = self.encoder(self.weight)
        return (self.weight + rows) * self.unit if self.is_relative else rows
