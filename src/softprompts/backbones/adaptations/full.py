"""Full adaptation: all weights of the backbone are trained."""

from __future__ import annotations

from typing import final

import torch

from softprompts.backbones.adaptations.base import Adaptation, Adapted
from softprompts.backbones.adaptations.copying import copy_backbone, train_what_is_read
from softprompts.backbones.backbone import Backbone


@final
class FullAdaptation(Adaptation):
    """Trains every weight that the readout reads, in a float32 copy of the model.

    Weights that it does not read get no gradient and are left out: a pooler, the language head
    under a readout of hidden states, and with it the decoder half of an encoder-decoder. Word
    embeddings are trained too; where the head shares them, they are one matrix as before.

    Differences:
        From the usual recipe (Devlin et al. 2018, arXiv 1810.04805): dropout is off.
    """

    def __init__(self) -> None:
        super().__init__()

    def adapt(self, backbone: Backbone, needs_head: bool, seed: int) -> Adapted:
        """Return a float32 copy that is trained where it is read."""
        copied = copy_backbone(backbone, dtype=torch.float32)
        return train_what_is_read(copied, dict(copied.model.named_parameters()), needs_head)
