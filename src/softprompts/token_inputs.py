"""From token ids and prompts to what a backbone reads, without a task or a template."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers.loss.loss_utils import ForCausalLMLoss, ForMaskedLMLoss

from softprompts.backbones.backbone import Backbone
from softprompts.backbones.decoder_inputs import DecoderInputs
from softprompts.errors import BackboneError, DataError, PromptError
from softprompts.prompts.draws import Draws
from softprompts.prompts.positions.base import Edges
from softprompts.prompts.prompt import Prompt
from softprompts.prompts.splice import Spliced, arrange, splice
from softprompts.training.reader import PlainReader, Request, find_reader, join

_NO_LABEL = -100


def read_tokens(
    backbone: Backbone,
    tokens: tuple[Tensor, Tensor, Tensor],
    prompts: Sequence[tuple[Prompt, int]],
    draws: Draws | None,
    *,
    needs_head: bool = False,
    inputs: Tensor | None = None,
) -> list[Request]:
    """Put prompts among token ids, without columns that are all padding, one request a prompt.

    Where a decoder is to say some of the tokens, the input ends before them: rows behind it stand
    there, as they do when it writes, and what follows its last token is said by the last row.

    Args:
        backbone: the frozen model.
        tokens: token ids, mask and segment ids. Shape `(batch, tokens)` each.
        prompts: each prompt, and how many inputs it has: the first ones, the next ones, and so on.
        draws: noise and dropout; `None` means evaluation.
        needs_head: ask for logits at tokens rather than for states everywhere.
        inputs: 1 on tokens that are input, 0 on padding and what is to be said; the mask when
            `None`. Shape `(batch, tokens)`.
    """
    (all_ids, all_masks, all_segments), found, first = tokens, [], 0
    for prompt, count in prompts:
        own = slice(first, first + count)
        ids, mask, segments = all_ids[own], all_masks[own], all_segments[own]
        first += count
        is_input = mask if inputs is None else inputs[own]
        start, end = _edges(backbone, prompt, ids, is_input)
        embeddings, instances = backbone.embed(ids), None
        if prompt.needs_instances:
            instances = _instances(backbone, prompt, (embeddings, is_input, segments))
        output = prompt(Edges(start, end, mask[:, :0]), instances, draws)
        if prompt.changes_tokens:
            numbers = (is_input.cumsum(dim=1) - 1).where(is_input > 0, -1)
            embeddings = prompt.embed(embeddings, ids, numbers)
        spliced = arrange(output, (embeddings, mask, segments), (start, end))
        taken = longest = int(spliced.lengths.max())
        limit = backbone.context_length
        if output.prefixes:
            _ = backbone.slots  # found now, if a prompt that exists already comes to a new backbone
            taken += prompt.length if backbone.family == "decoder" else 0
        if limit is not None and taken > limit:
            raise PromptError(
                f"input and prompt must take at most {limit} positions of {backbone.name}, but "
                f"take {taken}."
            )
        if longest < spliced.embeddings.shape[1]:
            spliced = spliced.cut(longest)
        at = spliced.token_positions
        if needs_head and backbone.family == "decoder":
            at = _said_at(spliced, end)
        places = at.clamp(max=longest - 1) if needs_head else None
        found.append(Request(output, spliced, places, needs_head))
    return found


def check_given(
    backbone: Backbone,
    labels: Tensor | None,
    decoder_input_ids: Tensor | None,
    mask: Tensor,
    *,
    with_logits: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Check that labels and decoder inputs fit what a model returns and the inputs.

    Returns:
        The labels that count, and the tokens that are input; of a decoder, what stands before the
        first label, or all where that is the first token. Nothing is said at padding, so the first
        token behind it counts as little as the first of all.

    Raises:
        BackboneError: if something is missing or too much.
        DataError: if labels are of another shape, or no token ids.
    """
    name = backbone.name
    if labels is not None and not with_logits:
        raise BackboneError(
            f"`labels` must be left out for hidden states of {name}: build the model with "
            "with_logits=True."
        )
    is_pair = with_logits and backbone.family == "encoder-decoder"
    if is_pair and labels is None and decoder_input_ids is None:
        raise BackboneError(
            f"`labels` or `decoder_input_ids` must be given for logits of {name}, which are those "
            "of its decoder."
        )
    if decoder_input_ids is not None and not is_pair:
        raise BackboneError(
            f"`decoder_input_ids` must be left out for {name}: they are for logits of an "
            "encoder-decoder."
        )
    if labels is None:
        return None, None
    _check_labels(labels, backbone.vocabulary_size, mask.shape[:1] if is_pair else mask.shape)
    if backbone.family != "decoder":
        return labels, None
    labels = labels.masked_fill(mask == 0, _NO_LABEL)
    is_input = mask * ((labels != _NO_LABEL).cumsum(dim=1) == 0)
    is_input = torch.where(is_input.any(dim=1, keepdim=True), is_input, mask)
    return labels.masked_fill(functional.pad(mask[:, :-1], (1, 0)) == 0, _NO_LABEL), is_input


def _check_labels(labels: object, vocab: int, shape: Sequence[int]) -> None:
    """Check that labels are token ids of a shape, or of one that begins so."""
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.dim() != 2
        or labels.shape[: len(shape)] != tuple(shape)
    ):
        said = type(labels).__name__
        if isinstance(labels, Tensor):
            said = f"{tuple(labels.shape)} and {labels.dtype}"
        wanted = tuple(shape) if len(shape) > 1 else f"({shape[0]}, targets)"
        raise DataError(f"`labels` must be of shape {wanted} and whole numbers, but are {said}.")
    wrong = labels[((labels < 0) | (labels >= vocab)) & (labels != _NO_LABEL)]
    if len(wrong):
        rule = f"from 0 to {vocab - 1}, or {_NO_LABEL}"
        raise DataError(f"`labels` must be token ids {rule}, but have {wrong[0].item()}.")


def loss_of(
    backbone: Backbone, logits: Tensor, labels: Tensor, num_items: Tensor | int | None
) -> Tensor:
    """Return the cross-entropy of labels: of a decoder, those of the next tokens.

    Args:
        backbone: what said the logits.
        logits: shape `(batch, tokens, vocab)`.
        labels: token ids, or -100. Shape `(batch, tokens)`.
        num_items: divides the sum; the number of labels that count when `None`.
    """
    measure = ForCausalLMLoss if backbone.family == "decoder" else ForMaskedLMLoss
    loss: Tensor = measure(logits, labels, logits.shape[-1], num_items_in_batch=num_items)
    return loss


def check_tokens(
    input_ids: object, attention_mask: object, token_type_ids: object
) -> tuple[Tensor, Tensor, Tensor]:
    """Return token ids, mask and segments as they are read; a mask may be of any dtype.

    Args:
        input_ids: token ids. Shape `(batch, tokens)`.
        attention_mask: 1 on tokens, 0 on padding; all ones when `None`. Shape `(batch, tokens)`.
        token_type_ids: segments; zeros when `None`. Shape `(batch, tokens)`.
    """
    for name, one in (("input_ids", input_ids), ("token_type_ids", token_type_ids)):
        if one is None and name != "input_ids":
            continue
        if not isinstance(one, Tensor) or one.is_floating_point() or one.dtype == torch.bool:
            kind = str(one.dtype) if isinstance(one, Tensor) else type(one).__name__
            raise DataError(f"`{name}` must be a tensor of whole numbers, but is {kind}.")
    assert isinstance(input_ids, Tensor)
    ids = input_ids
    if ids.dim() != 2 or 0 in ids.shape:
        raise DataError(
            "`input_ids` must be of shape (batch, tokens), neither of them 0, but is of shape "
            f"{tuple(ids.shape)}."
        )
    mask = torch.ones_like(ids) if attention_mask is None else attention_mask
    segments = torch.zeros_like(ids) if token_type_ids is None else token_type_ids
    for name, one in (("attention_mask", mask), ("token_type_ids", segments)):
        if not isinstance(one, Tensor) or one.shape != ids.shape:
            said = tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__
            raise DataError(f"`{name}` must be of shape {tuple(ids.shape)}, but is {said}.")
    assert isinstance(mask, Tensor)
    assert isinstance(segments, Tensor)
    wrong = mask[(mask != 0) & (mask != 1)]
    if len(wrong):
        raise DataError(f"`attention_mask` must be 1 or 0, but has {wrong[0].item():g}.")
    return ids, mask.to(ids.dtype), segments


def states_of(
    backbone: Backbone, requests: Sequence[Request], mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the last hidden states at tokens and at rows, zero on padding.

    `mask` is 1 on tokens, of shape `(batch, tokens)`.
    """
    tokens, rows = [], []
    length = max(request.spliced.row_positions.shape[1] for request in requests)
    reader = find_reader() if backbone.is_compiled else PlainReader()  # nothing can be left out
    for states, request in zip(reader.read(backbone, requests), requests, strict=True):
        last, one = states.shape[1] - 1, request.spliced  # states: (batch, width, hidden)
        tokens.append(states.take_along_dim(one.token_positions.clamp(max=last)[..., None], 1))
        own = states.take_along_dim(one.row_positions.clamp(max=last)[..., None], 1)
        rows.append(functional.pad(own, (0, 0, 0, length - own.shape[1])))
    found = torch.cat(tokens)
    return found * mask[..., None].to(found), torch.cat(rows)


def logits_of(backbone: Backbone, requests: Sequence[Request], mask: Tensor) -> Tensor:
    """Return the logits at tokens, zero on padding. Shape `(batch, tokens, vocab)`.

    `mask` is 1 on tokens, of shape `(batch, tokens)`.
    """
    is_whole = not backbone.is_compiled and bool(mask.all())  # nothing that could be left out
    reader = PlainReader() if is_whole else find_reader()
    read = reader.read(backbone, requests)
    logits = read[0] if len(read) == 1 else torch.cat(read)
    return logits * mask[..., None].to(logits)


def decoder_logits(backbone: Backbone, requests: Sequence[Request], ids: Tensor) -> Tensor:
    """Return the logits of the decoder half. Shape `(batch, targets, vocab)`.

    `requests` are what its encoder reads, `ids` what its decoder does, of shape `(batch, targets)`.
    """
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    source = torch.arange(len(ids), device=ids.device)
    decoder = DecoderInputs(ids, source, torch.ones_like(ids))
    joint = join(backbone, requests)
    one = joint.spliced
    given = (one.embeddings, one.attention_mask, one.segment_ids)
    return backbone.logits(*given, gather=places, decoder=decoder, memory=joint.memory)


def _said_at(spliced: Spliced, end: Tensor) -> Tensor:
    """Return where a decoder says what follows each token: behind the rows that end an input.

    `end` is the index behind its last token, of shape `(batch,)`. Shape `(batch, tokens)`.
    """
    at = spliced.token_positions  # (batch, tokens)
    follows = functional.pad(at, (0, 1), value=at.shape[1] + spliced.row_positions.shape[1])
    before = torch.minimum(follows.gather(1, end[:, None])[:, 0], spliced.lengths)
    return at.scatter(1, (end - 1).clamp(min=0)[:, None], spliced.last_active(before)[:, None])


def _edges(
    backbone: Backbone, prompt: Prompt, input_ids: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Find where rows before and behind the input stand, by the special tokens there."""
    tokens = input_ids.shape[1]
    places = torch.arange(tokens, device=input_ids.device)
    first = mask.long().argmax(dim=1)  # (batch,)
    stop = (mask * (places + 1)).max(dim=1).values  # (batch,)
    frame = backbone.frame
    if frame.prefix and (backbone.family != "decoder" or prompt.position.after_bos):
        first = first + _matching(input_ids, first, frame.prefix)
    if frame.single_suffix:
        begin = (stop - len(frame.single_suffix)).clamp(min=0)
        stop = stop - _matching(input_ids, begin, frame.single_suffix)
    return first, stop


@torch.no_grad()
def _instances(backbone: Backbone, prompt: Prompt, tokens: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return the instance vector of each input. Shape `(batch, hidden)`, or as embeddings."""
    embeddings, mask, segments = tokens
    if prompt.instance == "embeddings":
        kept = mask[..., None]
        return (embeddings.float() * kept).sum(dim=1) / kept.sum(dim=1)
    none = embeddings.new_zeros(len(embeddings), 0, embeddings.shape[-1])
    bare = splice(embeddings, mask, segments, none, mask.new_zeros(len(embeddings), 0))
    inputs = (bare.embeddings, bare.attention_mask, bare.segment_ids)
    states = backbone.hidden(*inputs).float()  # (batch, tokens, hidden)
    keep = bare.attention_mask[..., None]
    return (states * keep).sum(dim=1) / keep.sum(dim=1)


def _matching(input_ids: Tensor, begin: Tensor, expected: tuple[int, ...]) -> Tensor:
    """Return `len(expected)` where these tokens stand at `begin`, else 0. Shape `(batch,)`."""
    offsets = torch.arange(len(expected), device=begin.device)
    places = (begin[:, None] + offsets).clamp(max=input_ids.shape[1] - 1)
    found = input_ids.gather(1, places) == torch.tensor(expected, device=begin.device)
    return found.all(dim=1).long() * len(expected)
