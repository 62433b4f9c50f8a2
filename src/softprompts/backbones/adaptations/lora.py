"""LoRA: a product of two narrow matrices is trained beside frozen projections, through peft."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import nn

from softprompts.backbones.adaptations.base import Adaptation, Adapted
from softprompts.backbones.adaptations.copying import copy_backbone, train_what_is_read
from softprompts.backbones.backbone import Backbone
from softprompts.backbones.probing import read_once
from softprompts.backbones.sources import first_line
from softprompts.errors import BackboneError
from softprompts.seeding import generator

_ADAPTER = "default"
_QUERIES_AND_VALUES = frozenset(
    {
        *("query", "value", "q", "v", "q_proj", "v_proj", "q_lin", "v_lin"),
        *("query_proj", "value_proj", "Wqkv", "c_attn", "query_key_value", "qkv_proj", "qkv"),
    }
)
"""What models that peft has no default for call the projections of queries and values."""


@final
class LoraAdaptation(Adaptation):
    """Adds `alpha / rank · B A x` to what frozen projections make of `x`; `A` and `B` are trained.

    `A (rank, in)` starts uniform in `±1 / sqrt(in)`, `B (out, rank)` at zero, so the first state
    reads as the backbone does. Both are float32, whatever the backbone's dtype. The frozen weights
    are those of the shared backbone, which takes no second copy.

    Without `targets` it takes the layers that peft has for the architecture, else the projections
    of queries and values by their usual names, else all linear layers but the language head.

    Reference:
        Hu et al. (2021), arXiv 2106.09685, section 4.1.

    Differences:
        The paper draws `A` from a normal distribution; its code, and peft, draw it uniformly.
        Dropout is off.
    """

    def __init__(
        self, *, rank: int = 8, alpha: float = 16.0, targets: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.rank, self.alpha = rank, alpha
        self.targets = None if targets is None else tuple(targets)

    def adapt(self, backbone: Backbone, needs_head: bool, seed: int) -> Adapted:
        """Return a copy with an adapter on each target that the readout reads."""
        try:
            import peft
        except ImportError as error:
            raise BackboneError(
                "adaptation 'lora' must have the package peft, but it cannot be imported "
                f"({error}): install softprompts with its extra `lora`."
            ) from error
        copied = copy_backbone(backbone, shares_weights=True)
        layers = _layers_read(copied, needs_head)
        names = self._choose(copied, layers)
        kind: Any = peft.LoraConfig  # which says that alpha is whole
        config = kind(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=names,
            fan_in_fan_out=not isinstance(layers[names[0]], nn.Linear),
        )
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            # a model may have layers of both kinds; peft sets this right for each, and says so
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            warnings.filterwarnings("ignore", message=".*keys did not match any targeted module")
            warnings.filterwarnings("ignore", message=".*but no parameter was matched")
            why, left = "", names
            try:
                peft.inject_adapter_in_model(config, copied.model, _ADAPTER)
                left = [n for n in names if not hasattr(copied.model.get_submodule(n), "lora_A")]
            except ValueError as error:  # such as layers that its model reads past
                why = f": {first_line(error).partition('. ')[0]}."  # peft lists sets behind it
        if left:  # peft turns names of some models into those of their experts
            ends = ", ".join(sorted({name.rpartition(".")[2] for name in left}))
            raise BackboneError(
                f"`adaptation.targets` must name layers of {backbone.name} that peft adapts, but "
                f"it does not adapt {ends}{why or '.'}"
            )
        copied.model.eval()
        return train_what_is_read(copied, self._draw(copied, names, seed), needs_head)

    def _draw(self, backbone: Backbone, names: Sequence[str], seed: int) -> dict[str, nn.Parameter]:
        """Put the adapters into their first state; return their parameters by name."""
        found: dict[str, nn.Parameter] = {}
        for name in names:
            layer: Any = backbone.model.get_submodule(name)
            first, second = layer.lora_A[_ADAPTER].float(), layer.lora_B[_ADAPTER].float()
            draws = generator(seed, "initialization", "lora", name)
            bound = first.weight.shape[1] ** -0.5
            start = torch.empty(first.weight.shape).uniform_(-bound, bound, generator=draws)
            with torch.no_grad():
                first.weight.copy_(start)
                second.weight.zero_()
            found[f"{name}.lora_A.{_ADAPTER}.weight"] = first.weight
            found[f"{name}.lora_B.{_ADAPTER}.weight"] = second.weight
        return found

    def _choose(self, backbone: Backbone, layers: Mapping[str, nn.Module]) -> list[str]:
        """Return the dotted names of the layers that get an adapter."""
        for target in self.targets or ():
            if not any(_ends(name, [target]) for name in layers):
                shown = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in layers))
                raise BackboneError(
                    f"`adaptation.targets` must name linear layers of {backbone.name} that the "
                    f"readout reads, such as {shown}, but has {target!r}."
                )
        if self.targets is not None:
            return [name for name in layers if _ends(name, self.targets)]
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

        known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
        usual = known.get(backbone.model.config.model_type)
        for ends in ([usual] if isinstance(usual, str) else usual, _QUERIES_AND_VALUES):
            found = [name for name in layers if ends and _ends(name, ends)]
            if found:
                return found
        head = backbone.model.get_output_embeddings()
        return [name for name, layer in layers.items() if layer is not head]


def _layers_read(backbone: Backbone, needs_head: bool) -> dict[str, nn.Module]:
    """Return the linear layers that run when a readout reads, by dotted name."""
    from transformers.pytorch_utils import Conv1D

    found: set[nn.Module] = set()
    modules = backbone.model.named_modules()
    named = {name: one for name, one in modules if isinstance(one, nn.Linear | Conv1D)}
    handles = [
        layer.register_forward_pre_hook(lambda module, _: found.add(module))
        for layer in named.values()
    ]
    try:
        with torch.no_grad():
            read_once(backbone, needs_head)
    finally:
        for handle in handles:
            handle.remove()
    return {name: layer for name, layer in named.items() if layer in found}


def _ends(name: str, ends: Sequence[str] | frozenset[str]) -> bool:
    """Return whether a dotted name is one of `ends`, or ends with one after a dot."""
    return any(f".{name}".endswith(f".{end}") for end in ends)
