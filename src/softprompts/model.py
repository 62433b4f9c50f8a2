"""A frozen backbone with trainable prompts, in the shape of a model of transformers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from softprompts import prompt_folder
from softprompts.backbones.backbone import Backbone
from softprompts.backbones.generation import check_written, generate, with_settings
from softprompts.errors import BackboneError
from softprompts.hub_transfer import upload
from softprompts.named_prompts import ONLY, Given, build, check_names, choose
from softprompts.prompts.draws import Draws
from softprompts.prompts.prompt import Prompt
from softprompts.recipes.resolving import resolve_prompt
from softprompts.recipes.schema import PromptConfig
from softprompts.recipes.sources import without_source
from softprompts.results import require_backbone
from softprompts.token_inputs import (
    check_given,
    check_tokens,
    decoder_logits,
    logits_of,
    loss_of,
    read_tokens,
    states_of,
)
from softprompts.training.reader import join


@dataclass
class SoftPromptOutput(ModelOutput):  # type: ignore[misc]
    """What the backbone says of the caller's tokens, in the caller's own layout.

    Attributes:
        loss: the mean cross-entropy of the labels, where they were given.
        logits: vocabulary logits per token, zero on padding, where they were asked for, else
            `None`; of an encoder-decoder, per token of its decoder. Shape
            `(batch, tokens, vocab)`.
        last_hidden_state: hidden state per token, zero on padding; `None` with logits. Shape
            `(batch, tokens, hidden)`.
        prompt_hidden_state: hidden state per prompt row; `None` with logits. Shape
            `(batch, length, hidden)`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    prompt_hidden_state: Tensor | None = None


@final
class SoftPromptModel(nn.Module):
    """A frozen backbone with a trainable prompt, or with several by name.

    `parameters()` are the prompts' alone: the backbone is not a submodule, is never trained and
    can be shared by many models. Works under left and right padding alike. A copy shares the
    backbone; a pickle holds the prompt and the backbone's name. Rows stay where the backbone is,
    in float32: `to` refuses another device or dtype. `Trainer` and `accelerate` take it as it is.

    Args:
        backbone: from `load_backbone`.
        prompt: how the prompt is made, a `Result` of a run or a `Prompt`; or several by name.
        seed: draws the first rows and, in training mode, dropout.
        with_logits: return vocabulary logits instead of hidden states; of an encoder-decoder those
            of its decoder.
        with_decoder: let rows in every layer reach the decoder half of an encoder-decoder too;
            always so with logits.

    Attributes:
        config: a copy of the backbone's configuration.
        generation_config: likewise, and what `generate` goes by; `None` where it writes no text.

    Raises:
        BackboneError: if logits are asked of a backbone without a language head.
        PromptError: if the prompt does not fit the backbone, or its rows stand at marked places.

    Example:
        ```python
        backbone = sp.load_backbone("minilm")
        model = sp.SoftPromptModel(backbone, sp.PromptConfig(method="residual", length=10))
        batch = backbone.tokenizer(["A fine day."], return_tensors="pt")
        state = model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        ```
    """

    prompt: Prompt
    accepts_loss_kwargs = True
    main_input_name = "input_ids"
    input_modalities = output_modalities = ("text",)

    def __init__(
        self,
        backbone: Backbone,
        prompt: Given | Mapping[str, Given] = None,
        *,
        seed: int = 0,
        with_logits: bool = False,
        with_decoder: bool = False,
    ) -> None:
        super().__init__()
        require_backbone(backbone)
        if with_logits and not backbone.has_language_head:
            raise BackboneError(
                f"`with_logits` must be False for {backbone.name}: it has no trained language head."
            )
        self._backbone = (backbone,)  # a tuple, so that nothing of it can be registered
        self.seed, self.with_logits = seed, with_logits
        self.with_decoder = with_decoder or (with_logits and backbone.family == "encoder-decoder")
        given = prompt if isinstance(prompt, Mapping) else {ONLY: prompt}
        both = {n: build(backbone, one, seed, self.with_decoder) for n, one in given.items()}
        self._configs = {name: config for name, (_, config) in both.items()}
        built = {name: one for name, (one, _) in both.items()}
        if isinstance(prompt, Mapping):
            check_names(prompt)
            self.prompts = nn.ModuleDict(built)
        else:
            self.prompt = built[ONLY]
        self.config = copy.deepcopy(backbone.model.config)
        self.generation_config = (
            copy.deepcopy(backbone.model.generation_config) if self.can_generate() else None
        )
        self.temperature = 1.0
        self._num_forwards = 0

    def __repr__(self) -> str:
        prompts = ", ".join(
            f"{f'{name}: ' if name else ''}{one.length} rows" for name, one in self._named.items()
        )
        count = sum(one.numel() for one in self.parameters() if one.requires_grad)
        return f"SoftPromptModel({self.backbone!r}, {prompts}, {count:,} trainable numbers)"

    @property
    def backbone(self) -> Backbone:
        """The frozen backbone."""
        return self._backbone[0]

    @property
    def device(self) -> torch.device:
        """Where inputs go in."""
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the backbone and of what it returns; prompts are float32."""
        return self.backbone.dtype

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are computed again in the backward pass."""
        return self.backbone.has_checkpointing

    is_activation_checkpointing = is_gradient_checkpointing

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Compute layers again in the backward pass, to save memory; of all models on the backbone.

        Raises:
            BackboneError: if it is told something else than what it does: without reentrance, every
                layer, and nothing offloaded.
        """
        told = {**(activation_checkpointing_kwargs or {}), "every_n_layers": every_n_layers}
        told = {"use_reentrant": False, **told, "offload": offload}
        only = {"use_reentrant": False, "every_n_layers": 1, "offload": False}
        if told != only:
            raise BackboneError(f"checkpointing must be {only}, but is {told}.")
        self.backbone.has_checkpointing = True

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Do `activation_checkpointing_enable`, by the name that older releases have for it."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """Keep what layers compute for the backward pass; for all models on the backbone."""
        self.backbone.has_checkpointing = False

    activation_checkpointing_disable = gradient_checkpointing_disable

    def can_generate(self) -> bool:
        """Return whether the backbone writes text."""
        return self.backbone.family != "encoder" and self.backbone.has_language_head

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        decoder_input_ids: Tensor | None = None,
        prompt_names: Sequence[str] | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> SoftPromptOutput:
        """Read token ids with the prompt in place.

        `torch.compile` leaves it as it is and compiles what stands around it; layers are compiled
        by `load_backbone(..., compile=True)`.

        Args:
            input_ids: token ids, special tokens included. Shape `(batch, tokens)`.
            attention_mask: 1 on tokens, 0 on padding on either side; all ones when `None`. Shape
                `(batch, tokens)`.
            token_type_ids: segment ids; zeros when `None`. Shape `(batch, tokens)`.
            labels: what the logits are to say, -100 where nothing; a decoder is to say the next
                token, but for the first behind padding. Shape `(batch, tokens)`, or of an
                encoder-decoder `(batch, targets)`.
            decoder_input_ids: what the decoder of an encoder-decoder reads; made of the labels when
                `None`. Shape `(batch, targets)`.
            prompt_names: the prompt of each input, in a model with several.
            num_items_in_batch: divides the sum of the losses; their number when `None`.

        Returns:
            States or logits at the caller's tokens, and the loss.

        Raises:
            BackboneError: if labels or decoder inputs do not fit the backbone.
            DataError: if ids, mask, segments or labels are not of their shape or kind.
            PromptError: if the input and the prompt together are longer than the context, or names
                are missing or unknown.
        """
        backbone = self._backbone[0]
        tokens = check_tokens(input_ids, attention_mask, token_type_ids)
        labels, inputs = check_given(
            backbone, labels, decoder_input_ids, tokens[1], with_logits=self.with_logits
        )
        order: Any = slice(None)
        back, prompts = order, [(self.prompt, len(input_ids))] if "prompt" in self._modules else []
        if prompt_names is not None or not prompts:
            order, prompts = choose(self._named, prompt_names, input_ids)
            back, tokens = order.argsort(), (tokens[0][order], tokens[1][order], tokens[2][order])
        draws, is_pair = self._new_draws(len(input_ids)), backbone.family == "encoder-decoder"
        needs_head = self.with_logits and not is_pair
        inputs = inputs if inputs is None else inputs[order]
        given: dict[str, Any] = {"needs_head": needs_head, "inputs": inputs}
        requests = read_tokens(backbone, tokens, prompts, draws, **given)
        if not self.with_logits:
            states, rows = states_of(backbone, requests, tokens[1])
            return SoftPromptOutput(last_hidden_state=states[back], prompt_hidden_state=rows[back])
        if is_pair:
            ids = decoder_input_ids
            if ids is None and labels is not None:
                ids = backbone.shift_right(labels)
            assert ids is not None
            logits = decoder_logits(backbone, requests, ids[order])[back]
        else:
            logits = logits_of(backbone, requests, tokens[1])[back]
        loss = None
        if labels is not None:
            loss = loss_of(backbone, logits, labels, num_items_in_batch)
        return SoftPromptOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        prompt_names: Sequence[str] | None = None,
        with_input: bool = False,
        labels: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Write text after an input with the prompt in place.

        Args:
            input_ids: as `forward` takes them.
            attention_mask: likewise.
            token_type_ids: likewise.
            prompt_names: the prompt of each input, in a model with several.
            with_input: put a decoder's input in front of what it writes, as `generate` of
                transformers does with token ids, and pipelines expect.
            labels: not read; `Seq2SeqTrainer` hands them over.
            options: arguments of `generate` of transformers, such as `max_new_tokens`.

        Returns:
            Token ids, without the input unless it is asked for; of an encoder-decoder with its
            start token. Shape `(batch, tokens)`.

        Raises:
            BackboneError: if the backbone does not write text, or input, prompt and new tokens
                together are longer than the context.
            DataError: if ids, mask or segments are not of their shape or kind.
            PromptError: if the input and the prompt alone are, or names are missing or unknown.
        """
        given = check_tokens(input_ids, attention_mask, token_type_ids)
        options = with_settings(self.backbone, self.generation_config, options)
        order, prompts = choose(self._named, prompt_names, input_ids)
        tokens = (given[0][order], given[1][order], given[2][order])
        joint = join(self.backbone, read_tokens(self.backbone, tokens, prompts, None))
        spliced, memory = joint.spliced, joint.memory
        check_written(self.backbone, tokens[1], spliced.lengths, memory, options)
        inputs = (spliced.embeddings, spliced.attention_mask, spliced.segment_ids)
        ids = generate(self.backbone, inputs, memory, **options)
        copies = len(ids) // len(input_ids)
        ids = ids.view(len(input_ids), copies, -1)[order.argsort()].flatten(0, 1)
        if with_input and self.backbone.family == "decoder":
            ids = torch.cat([input_ids.repeat_interleave(copies, dim=0), ids], dim=1)
        return ids

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the prompts, and the backbone's name, to a new or empty folder.

        Raises:
            PromptError: if a prompt was not made by a configuration.
            RunFolderError: if the folder holds something.
        """
        rows = {"rows": self.prompt.bake()} if ONLY in self._named else {}  # for others to start at
        tensors = {**self.state_dict(), **rows}
        prompt_folder.write_prompts(Path(save_directory), self._about(), tensors)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload what `save_pretrained` writes; return its address.

        Args:
            repo_id: the repository; made if it is not there.
            options: `private`, `token`, `revision`; see `softprompts.hub_transfer.upload`.
        """
        return upload(repo_id, self.save_pretrained, **options)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, backbone: Backbone | str | None = None, revision: str | None = None
    ) -> SoftPromptModel:
        """Load what `save_pretrained` or `push_to_hub` wrote.

        Args:
            name: the folder, or the repository of a hub.
            backbone: the frozen model, or where it is; `None` for the place that was said.
            revision: branch, tag or commit of the repository.

        Raises:
            BackboneError: if the backbone's weights are not those of the prompts.
            StorageError: if it cannot be read.
        """
        about, tensors = prompt_folder.read_prompts(name, revision)
        found = prompt_folder.backbone_of(about["backbone"], backbone)
        configs = {n: PromptConfig.model_validate(one) for n, one in about["prompts"].items()}
        plain = {n: without_source(one) for n, one in configs.items()}
        model = cls(found, plain.get(ONLY, plain), **about["options"])
        tensors.pop("rows", None)
        prompt_folder.check_tensors(name, tensors, model.state_dict())
        model.load_state_dict(tensors)
        model._configs = {n: resolve_prompt(one) for n, one in configs.items()}
        return model

    def _about(self) -> dict[str, Any]:
        """Return what the prompts are, and how the model is built again."""
        options = {name: getattr(self, name) for name in ("seed", "with_logits", "with_decoder")}
        return prompt_folder.describe(self.backbone, self._configs, options)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SoftPromptModel:
        """Change all rows, as `to` and its like do, unless that parts them from the backbone."""
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

    def _new_draws(self, batch: int) -> Draws | None:
        """Return fresh draws per training forward; `None` in evaluation."""
        if not self.training:
            return None
        self._num_forwards += 1
        places = torch.arange(batch, device=self._backbone[0].device)
        return Draws(self.seed, self._num_forwards, 0, places, batch, self.temperature)

    @property
    def _named(self) -> dict[str, Prompt]:
        """The prompts by name."""
        if "prompt" in self._modules:
            return {ONLY: self.prompt}
        return {name: one for name, one in self.prompts.items() if isinstance(one, Prompt)}
