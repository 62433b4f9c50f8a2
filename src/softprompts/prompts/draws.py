"""What a prompt may draw in one training forward, and from where."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from softprompts.seeding import generator


@dataclass(frozen=True, eq=False)
class Draws:
    """The random numbers of one run in one forward of one update.

    Noise belongs to an example's place in the update, so that it is the same however the update is
    cut into micro-batches.

    Attributes:
        seed: the run's seed.
        step: updates done before this one.
        micro: number of the micro-batch within the update.
        places: place in the update of each input's example. Shape `(batch,)`.
        num_examples: examples in the update.
        temperature: of selections.
    """

    seed: int
    step: int
    micro: int
    places: Tensor
    num_examples: int
    temperature: float = 1.0

    def generator(self, name: str) -> Generator:
        """Return a fresh generator for numbers that belong to the forward as a whole."""
        return generator(self.seed, name, self.step, self.micro)

    def own(self, name: str, place: int, *path: int) -> Generator:
        """Return a fresh generator for numbers that belong to the example at a place.

        `path` tells apart what draws more than once for an example.
        """
        return generator(self.seed, name, self.step, place, *path)

    def gumbel(self, name: str, width: int) -> Tensor:
        """Return standard Gumbel noise per input, float32. Shape `(batch, width)`.

        Inputs of one example get the same noise.
        """
        draws = generator(self.seed, name, self.step)
        uniform = torch.rand(self.num_examples, width, generator=draws)
        smallest = torch.finfo(uniform.dtype).tiny
        noise = -(-uniform.clamp(min=smallest).log()).clamp(min=smallest).log()
        return noise.to(self.places.device)[self.places]
