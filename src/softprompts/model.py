"""A frozen backbone with a trainable prompt, for a user's own training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from softprompts.backbones.backbone import Backbone
from softprompts.errors import BackboneError, PromptError
from softprompts.prompts.draws import Draws
from softprompts.prompts.prompt import Prompt
from softprompts.prompts.splice import choose, splice
from softprompts.recipes.schema import PromptConfig


@dataclass(frozen=True)
class SoftPromptOutput:
    """What the backbone says of the caller's tokens, in the caller's own layout.

    Attributes:
        last_hidden_state: hidden state per token, zero on padding; `None` with logits. Shape
            `(batch, tokens, hidden)`.
        prompt_hidden_state: hidden state per prompt row; `None` with logits. Shape
            `(batch, length, hidden)`.
        logits: vocabulary logits per token, zero on padding, where they were asked for, else
            `None`. Shape `(batch, tokens, vocab)`.
    """

    last_hidden_state: Tensor | None
    prompt_hidden_state: Tensor | None
    logits: Tensor | None


@final
class SoftPromptModel(nn.Module):
    """A frozen backbone with a trainable prompt.

    `parameters()` are the prompt's alone: the backbone is not a submodule, is never trained and
    can be shared by many models. Works under left and right padding alike.

    Args:
        backbone: from `load_backbone`.
        prompt: how the prompt is made, or a `Prompt` that exists already.
        seed: draws the first rows and, in training mode, dropout.
        with_logits: return vocabulary logits instead of hidden states (encoders and decoders
            with a language head).

    Raises:
        BackboneError: if logits are asked of a backbone without a language head, or of an
            encoder-decoder, whose logits belong to its decoder.
        PromptError: if the prompt does not fit the backbone.

    Example:
        ```python
        backbone = sp.load_backbone("minilm")
        model = sp.SoftPromptModel(backbone, sp.PromptConfig(method="residual", length=10))
        batch = backbone.tokenizer(["A fine day."], return_tensors="pt")
        state = model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        ```
    """

    def __init__(
        self,
        backbone: Backbone,
        prompt: PromptConfig | Prompt | None = None,
        *,
        seed: int = 0,
        with_logits: bool = False,
    ) -> None:
        super().__init__()
        if with_logits and (not backbone.has_language_head or backbone.family == "encoder-decoder"):
            raise BackboneError(
                f"`with_logits` must be False for {backbone.name}: its encoder side has no trained "
                "language head."
            )
        self._backbone = (backbone,)  # a tuple, so that nothing of it can be registered
        self.seed, self.with_logits = seed, with_logits
        self.prompt = prompt if isinstance(prompt, Prompt) else self._build(prompt, seed)
        self.temperature = 1.0
        self._num_forwards = 0

    @property
    def backbone(self) -> Backbone:
        """The frozen backbone."""
        return self._backbone[0]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> SoftPromptOutput:
        """Read token ids with the prompt in place.

        Args:
            input_ids: token ids, special tokens included. Shape `(batch, tokens)`.
            attention_mask: 1 on tokens, 0 on padding on either side; all ones when `None`. Shape
                `(batch, tokens)`.
            token_type_ids: segment ids; zeros when `None`. Shape `(batch, tokens)`.

        Returns:
            States and logits at the caller's tokens.

        Raises:
            PromptError: if the input and the prompt together are longer than the context.
        """
        backbone = self.backbone
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        segments = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        start, end = self._edges(input_ids, mask)
        tokens = backbone.embed(input_ids)
        instances = self._instances(tokens, mask, segments) if self.prompt.needs_instances else None
        output = self.prompt(start, end, instances, self._new_draws(len(input_ids)))
        spliced = splice(tokens, mask, segments, output.rows, output.anchors)
        weights = output.placement.weights
        if weights is not None and weights.requires_grad:
            spliced = choose(spliced, weights, tokens, mask, output.rows, (start, end))
        limit = backbone.context_length
        longest = int(spliced.lengths.max())
        if limit is not None and longest > limit:
            raise PromptError(
                f"input and prompt must take at most {limit} positions of {backbone.name}, but "
                f"take {longest}."
            )
        width = longest  # trailing padding is dropped before the backbone sees it
        inputs = (
            spliced.embeddings[:, :width],
            spliced.attention_mask[:, :width],
            spliced.segment_ids[:, :width],
        )
        places = spliced.token_positions.clamp(max=width - 1)  # (batch, tokens)
        keep = mask[..., None].to(output.rows)  # (batch, tokens, 1)
        if self.with_logits:
            logits = backbone.logits(*inputs, gather=places)  # (batch, tokens, vocab)
            return SoftPromptOutput(None, None, logits * keep.to(logits))
        states = backbone.hidden(*inputs)  # (batch, width, hidden)
        rows = spliced.row_positions.clamp(max=width - 1)  # (batch, length)
        tokens = _take(states, places) * keep.to(states)
        return SoftPromptOutput(tokens, _take(states, rows), None)

    def _edges(self, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Find where rows before and behind the input stand, by the special tokens there."""
        tokens = input_ids.shape[1]
        places = torch.arange(tokens, device=input_ids.device)
        first = mask.long().argmax(dim=1)  # (batch,)
        stop = (mask * (places + 1)).max(dim=1).values  # (batch,)
        frame = self.backbone.frame
        if self.backbone.family != "decoder":
            first = first + _matching(input_ids, first, frame.prefix)
        size = len(frame.single_suffix)
        begin = (stop - size).clamp(min=0)
        return first, stop - _matching(input_ids, begin, frame.single_suffix)

    @torch.no_grad()
    def _instances(self, tokens: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        """Return the mean state of each input read without the prompt. Shape `(batch, hidden)`."""
        none = tokens.new_zeros(len(tokens), 0, tokens.shape[-1])
        bare = splice(tokens, mask, segments, none, mask.new_zeros(len(tokens), 0))
        inputs = (bare.embeddings, bare.attention_mask, bare.segment_ids)
        states = self.backbone.hidden(*inputs).float()  # (batch, tokens, hidden)
        keep = bare.attention_mask[..., None]
        return (states * keep).sum(dim=1) / keep.sum(dim=1)

    def _new_draws(self, batch: int) -> Draws | None:
        """Return fresh draws per training forward; `None` in evaluation."""
        if not self.training:
            return None
        self._num_forwards += 1
        places = torch.arange(batch, device=self.backbone.device)
        return Draws(self.seed, self._num_forwards, 0, places, batch, self.temperature)

    def _build(self, config: PromptConfig | None, seed: int) -> Prompt:
        from softprompts.recipes.resolving import resolve_prompt
        from softprompts.training.building import build_prompt

        return build_prompt(resolve_prompt(config or PromptConfig()), self.backbone, (), seed)


def _matching(input_ids: Tensor, begin: Tensor, expected: tuple[int, ...]) -> Tensor:
    """Return `len(expected)` where these tokens stand at `begin`, else 0. Shape `(batch,)`."""
    if not expected:
        return torch.zeros_like(begin)
    offsets = torch.arange(len(expected), device=begin.device)
    places = (begin[:, None] + offsets).clamp(max=input_ids.shape[1] - 1)
    found = input_ids.gather(1, places) == torch.tensor(expected, device=begin.device)
    return found.all(dim=1).long() * len(expected)


def _take(states: Tensor, places: Tensor) -> Tensor:
    """Gather states at places. Shape `(batch, slots, hidden)`."""
    return states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
