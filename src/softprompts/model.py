"""A frozen backbone with a trainable prompt, for a user's own training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.generation import check_written, generate
from softprompts.errors import BackboneError, PromptError
from softprompts.prompts.arranging import arrange, join_memories
from softprompts.prompts.draws import Draws
from softprompts.prompts.positions.base import Edges
from softprompts.prompts.prompt import Prompt, PromptOutput
from softprompts.prompts.splice import Spliced, splice
from softprompts.recipes.schema import PromptConfig
from softprompts.training.reader import Request, find_reader


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
    can be shared by many models. Works under left and right padding alike. A copy shares the
    backbone; a pickle holds the prompt and the backbone's name. Rows stay where the backbone is,
    in float32: `to` refuses another device or dtype.

    Args:
        backbone: from `load_backbone`.
        prompt: how the prompt is made, or a `Prompt` that exists already.
        seed: draws the first rows and, in training mode, dropout.
        with_logits: return vocabulary logits instead of hidden states (encoders and decoders
            with a language head).
        with_decoder: let rows in every layer reach the decoder half of an encoder-decoder too,
            which only `generate` runs here.

    Raises:
        BackboneError: if logits are asked of a backbone without a language head, or of an
            encoder-decoder, whose logits belong to its decoder.
        PromptError: if the prompt does not fit the backbone, or its rows stand at marked places.

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
        with_decoder: bool = False,
    ) -> None:
        super().__init__()
        if with_logits and (not backbone.has_language_head or backbone.family == "encoder-decoder"):
            raise BackboneError(
                f"`with_logits` must be False for {backbone.name}: its encoder side has no trained "
                "language head."
            )
        self._backbone = (backbone,)  # a tuple, so that nothing of it can be registered
        self.seed, self.with_logits = seed, with_logits
        if not isinstance(prompt, Prompt):
            prompt = self._build(prompt, seed, with_decoder)
        if prompt.position.needs_marks:
            raise PromptError(
                "`prompt.position` must have places of its own here, such as fixed, but is marked: "
                "token ids come without a template that could mark places."
            )
        self.prompt = prompt
        self.temperature = 1.0
        self._num_forwards = 0

    @property
    def backbone(self) -> Backbone:
        """The frozen backbone."""
        return self._backbone[0]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> SoftPromptOutput:
        """Read token ids with the prompt in place.

        `torch.compile` leaves it as it is and compiles what stands around it; layers are compiled
        by `load_backbone(..., compile=True)`.

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
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        draws = self._new_draws(len(input_ids))
        spliced, output = self._given(input_ids, mask, token_type_ids, draws)
        last = spliced.embeddings.shape[1] - 1
        places = spliced.token_positions.clamp(max=last)  # (batch, tokens)
        keep = mask[..., None]  # (batch, tokens, 1)
        gather = places if self.with_logits else None  # else states of rows are returned too
        request = Request(output, spliced, gather, self.with_logits)
        (states,) = find_reader().read(self.backbone, [request])
        if self.with_logits:
            return SoftPromptOutput(None, None, states * keep.to(states))
        rows = spliced.row_positions.clamp(max=last)  # (batch, length)
        tokens = _take(states, places) * keep.to(states)
        return SoftPromptOutput(tokens, _take(states, rows), None)

    @torch.no_grad()
    def generate(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any
    ) -> Tensor:
        """Write text after an input with the prompt in place.

        Args:
            input_ids: token ids, special tokens included. Shape `(batch, tokens)`.
            attention_mask: 1 on tokens, 0 on padding on either side; all ones when `None`. Shape
                `(batch, tokens)`.
            options: arguments of `generate` of transformers, such as `max_new_tokens`.

        Returns:
            Token ids, without the input; of an encoder-decoder with its start token. Shape
            `(batch, tokens)`.

        Raises:
            BackboneError: if the backbone does not write text, or input, prompt and new tokens
                together are longer than the context.
            PromptError: if the input and the prompt alone are.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        spliced, output = self._given(input_ids, mask, None, None)
        memory = join_memories([output], spliced)
        check_written(self.backbone, mask, spliced.lengths, memory, options)
        inputs = (spliced.embeddings, spliced.attention_mask, spliced.segment_ids)
        return generate(self.backbone, inputs, memory, **options)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SoftPromptModel:
        """Change all rows, as `to` and its like do, unless that parts them from the backbone.

        Raises:
            BackboneError: if they would lie on another device, or be no float32 any longer.
        """
        backbone = self.backbone
        moved = fn(torch.empty(0, device=backbone.device))
        if moved.device != backbone.device:
            raise BackboneError(
                f"the device must be that of {backbone.name}, {backbone.device}, which other "
                f"models may share, but is {moved.device}: load the backbone there instead."
            )
        if moved.dtype != torch.float32:
            raise BackboneError(
                f"the dtype of a prompt must be torch.float32, but is {moved.dtype}: that of the "
                "backbone is an argument of load_backbone."
            )
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def _given(
        self, input_ids: Tensor, mask: Tensor, token_type_ids: Tensor | None, draws: Draws | None
    ) -> tuple[Spliced, PromptOutput]:
        """Return what the backbone reads, without columns that are all padding.

        Raises:
            PromptError: if the input and the prompt together are longer than the context.
        """
        backbone = self.backbone
        segments = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        start, end = self._edges(input_ids, mask)
        tokens = self.prompt.embed(backbone.embed(input_ids), input_ids)
        instances = None
        if self.prompt.needs_instances:
            instances = self._instances(backbone.embed(input_ids), mask, segments)
        output = self.prompt(Edges.unmarked(start, end), instances, draws)
        spliced = arrange(output, (tokens, mask, segments), (start, end))
        longest = int(spliced.lengths.max())
        spliced = spliced.cut(longest)
        if output.prefixes or spliced.gates is not None:
            _ = backbone.slots  # found now, if a prompt that exists already comes to a new backbone
        limit = backbone.context_length
        taken = longest
        if output.prefixes and backbone.family == "decoder":
            taken += self.prompt.length
        if limit is not None and taken > limit:
            raise PromptError(
                f"input and prompt must take at most {limit} positions of {backbone.name}, but "
                f"take {taken}."
            )
        return spliced, output

    def _edges(self, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Find where rows before and behind the input stand, by the special tokens there."""
        tokens = input_ids.shape[1]
        places = torch.arange(tokens, device=input_ids.device)
        first = mask.long().argmax(dim=1)  # (batch,)
        stop = (mask * (places + 1)).max(dim=1).values  # (batch,)
        frame = self.backbone.frame
        if self.backbone.family != "decoder" or self.prompt.position.after_bos:
            first = first + _matching(input_ids, first, frame.prefix)
        size = len(frame.single_suffix)
        begin = (stop - size).clamp(min=0)
        return first, stop - _matching(input_ids, begin, frame.single_suffix)

    @torch.no_grad()
    def _instances(self, tokens: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        """Return the instance vector of each input. Shape `(batch, hidden)`, or as embeddings."""
        if self.prompt.instance == "embeddings":
            kept = mask[..., None]
            return (tokens.float() * kept).sum(dim=1) / kept.sum(dim=1)
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

    def _build(self, config: PromptConfig | None, seed: int, with_decoder: bool) -> Prompt:
        from softprompts.recipes.resolving import resolve_prompt
        from softprompts.training.prompt_building import build_prompt

        config = resolve_prompt(config or PromptConfig())
        if config.from_run is not None:
            raise PromptError(
                "`prompt.from_run` must be left out here, since only a run checks its source, but "
                f"is {config.from_run.folder!r}."
            )
        return build_prompt(config, self.backbone, (), seed, with_decoder)


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
