"""Adaptations: how a run may change the backbone, in a copy of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softprompts.registry import Option, Registry

if TYPE_CHECKING:
    from softprompts.backbones.adaptations.base import Adaptation

ADAPTATIONS: Registry[type[Adaptation]] = Registry(
    "adaptation", "softprompts.backbones.adaptations.base:Adaptation"
)
ADAPTATIONS.register(
    "none",
    "softprompts.backbones.adaptations.base:NoAdaptation",
    summary="the backbone stays frozen",
)
ADAPTATIONS.register(
    "full",
    "softprompts.backbones.adaptations.full:FullAdaptation",
    summary="all weights that the readout reads are trained, in a float32 copy",
    defaults={"backbone_learning_rate": 2e-5},
)
ADAPTATIONS.register(
    "lora",
    "softprompts.backbones.adaptations.lora:LoraAdaptation",
    summary="a product of two narrow matrices is added to projections; needs the extra `lora`",
    reference="Hu et al. 2021, arXiv 2106.09685",
    defaults={"backbone_learning_rate": 1e-3},
    options={
        "rank": Option(int, 8, "width between the two matrices", {"ge": 1, "le": 8192}),
        "alpha": Option(float, 16.0, "the product is scaled by alpha / rank", {"gt": 0.0}),
        "targets": Option(
            list[str] | None,
            None,
            "names, or ends of dotted names, of the layers; null: those of queries and values, "
            "as peft knows them",
            {"min_length": 1},
        ),
    },
)
