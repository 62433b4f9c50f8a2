"""The splice: the only place that builds what the backbone reads.

Tokens and prompt rows are put into one sequence. Embeddings, attention mask and segment ids are
built together, and every token's new place is returned, so that nothing downstream has to guess.
The result is always padded on the right, whatever side the tokens were padded on: position ids
counted from the left are then right for every architecture, and left padding cannot differ from
right padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from softprompts.backbones.memory import KeyValues, Memory, Slot
from softprompts.prompts.prompt import PromptOutput
from softprompts.prompts.split_gradient import tie


@dataclass(frozen=True)
class Spliced:
    """What the backbone reads, and where everything went.

    Attributes:
        embeddings: rows and tokens. Shape `(batch, length + tokens, hidden)`.
        attention_mask: 1 on tokens and rows. Shape `(batch, length + tokens)`.
        segment_ids: segment ids. Shape `(batch, length + tokens)`.
        token_positions: where each token went. Shape `(batch, tokens)`.
        row_positions: where each row went. Shape `(batch, length)`.
        lengths: how many positions count. Shape `(batch,)`.
        gates: weight of each position in attention, or `None` where all are 1. Shape
            `(batch, length + tokens)`.
        gated: first position whose gate may need a gradient and the one behind the last, the
            same for all inputs; any may when `None`.
        is_row: whether a position is a row, where rows alone have a gradient; else `None`. Shape
            `(batch, length + tokens)`.
    """

    embeddings: Tensor
    attention_mask: Tensor
    segment_ids: Tensor
    token_positions: Tensor
    row_positions: Tensor
    lengths: Tensor
    gates: Tensor | None = None
    gated: tuple[int, int] | None = None
    is_row: Tensor | None = None

    def cut(self, width: int) -> Spliced:
        """Return the first `width` positions; what is behind them must be padding."""
        return replace(
            self,
            embeddings=self.embeddings[:, :width],
            attention_mask=self.attention_mask[:, :width],
            segment_ids=self.segment_ids[:, :width],
            gates=None if self.gates is None else self.gates[:, :width],
            is_row=None if self.is_row is None else self.is_row[:, :width],
        )

    def behind(self, lead: Tensor) -> Spliced:
        """Return what stands behind the first positions of each input, moved to the left.

        Rows must stand behind what `lead` leaves out; tokens that are left out have positions below
        0. Shape `(batch,)`.
        """
        lengths = self.lengths - lead
        places = torch.arange(int(lengths.max()), device=lead.device)
        sources = lead[:, None] + places  # (batch, rest)
        sources = sources.clamp(max=self.attention_mask.shape[1] - 1)
        is_there = (places < lengths[:, None]).long()
        rows = self.row_positions - lead[:, None]
        gated = None if self.gated is None else (int(rows.min()), int(rows.max()) + 1)
        wide = sources[..., None].expand(-1, -1, self.embeddings.shape[2])
        return Spliced(
            embeddings=self.embeddings.gather(1, wide),
            attention_mask=is_there,
            segment_ids=self.segment_ids.gather(1, sources) * is_there,
            token_positions=self.token_positions - lead[:, None],
            row_positions=rows,
            lengths=lengths,
            gates=None if self.gates is None else self.gates.gather(1, sources),
            gated=gated,
            is_row=None if self.is_row is None else self.is_row.gather(1, sources) & (is_there > 0),
        )

    def last_active(self, before: Tensor) -> Tensor:
        """Return the last position in front of others whose gate is not 0.

        Shapes of both `(batch,)`.
        """
        if self.gates is None:
            return before - 1
        places = torch.arange(self.gates.shape[1], device=before.device)
        is_active = (self.gates.detach() > 0) & (places < before[:, None])
        return (places * is_active).argmax(dim=1)


def arrange(
    output: PromptOutput, tokens: tuple[Tensor, Tensor, Tensor], edges: tuple[Tensor, Tensor]
) -> Spliced:
    """Put the rows of a prompt among tokens; choices keep their gradient.

    Args:
        output: what the prompt emitted.
        tokens: embeddings, attention mask and segment ids. Shape `(batch, tokens, hidden)`, and
            `(batch, tokens)` for the others.
        edges: index before which rows in front, and rows behind, stand. Shape `(batch,)` each.
    """
    embeddings, mask, segments = tokens
    rows = embeddings[:, :0] if output.prefixes else output.rows
    gates = None
    if output.activity.weights is not None and not output.prefixes:
        gates = output.activity.gates
    if gates is not None:
        ones = embeddings.new_ones(embeddings.shape[:2])
        embeddings, rows = _with_gates(embeddings, ones), _with_gates(rows, gates)
    spliced = splice(embeddings, mask, segments, rows, output.anchors)
    weights = output.placement.weights
    is_learned = weights is not None and weights.requires_grad
    if weights is not None and is_learned:
        tied = tie(spliced.embeddings, weights, embeddings, mask, rows, edges)
        spliced = replace(spliced, embeddings=tied, is_row=None)
    if gates is None:
        return spliced
    both, places, gated = spliced.embeddings, spliced.row_positions, None
    if not is_learned and places.numel():  # else gates tell where rows might have stood
        gated = (int(places.min()), int(places.max()) + 1)
    return replace(spliced, embeddings=both[..., :-1], gates=both[..., -1], gated=gated)


def splice(
    embeddings: Tensor,
    attention_mask: Tensor,
    segment_ids: Tensor,
    rows: Tensor,
    anchors: Tensor,
) -> Spliced:
    """Put prompt rows between tokens.

    Row `i` stands before token `anchors[:, i]`; an anchor equal to the number of tokens puts it
    after the last one. Rows with one anchor keep their order. A row takes the segment id of the
    token it stands before, or of the last token.

    Args:
        embeddings: token embeddings. Shape `(batch, tokens, hidden)`.
        attention_mask: 1 on tokens, 0 on padding, on either side. Shape `(batch, tokens)`.
        segment_ids: segment ids. Shape `(batch, tokens)`.
        rows: prompt rows, cast to the embeddings' dtype. Shape `(batch, length, hidden)`.
        anchors: token index per row, in `[0, tokens]`. Shape `(batch, length)`.
    """
    batch, tokens, _ = embeddings.shape
    length = rows.shape[1]
    device = embeddings.device
    there = torch.ones(batch, length, dtype=torch.bool, device=device)
    valid = torch.cat([attention_mask.bool(), there], dim=1)  # (batch, tokens + length)
    token_keys = torch.arange(tokens, device=device) * (length + 1) + length  # (tokens,)
    row_keys = anchors * (length + 1) + torch.arange(length, device=device)  # (batch, length)
    keys = torch.cat([token_keys.expand(batch, -1), row_keys], dim=1)  # (batch, tokens + length)
    keys = torch.where(valid, keys, keys + (tokens + 2) * (length + 1))
    order = keys.argsort(dim=1, stable=True)  # (batch, length + tokens): source of each place
    places = torch.empty_like(order).scatter_(
        1, order, torch.arange(tokens + length, device=device).expand(batch, -1)
    )  # (batch, tokens + length): place of each source
    last = (attention_mask * torch.arange(tokens, device=device)).argmax(dim=1, keepdim=True)
    row_segments = segment_ids.gather(1, torch.minimum(anchors, last))  # (batch, length)
    segments = torch.cat([segment_ids, row_segments], dim=1)
    return Spliced(
        embeddings=_place(embeddings, rows.to(embeddings.dtype), places),
        attention_mask=valid.gather(1, order).long(),
        segment_ids=segments.gather(1, order) * valid.gather(1, order),
        token_positions=places[:, :tokens],
        row_positions=places[:, tokens:],
        lengths=valid.sum(dim=1),
        is_row=None if embeddings.requires_grad else order >= tokens,
    )


def _place(tokens: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    """Put tokens and rows in their places.

    Only rows that need a gradient pay for one: frozen tokens are no part of the graph.

    Shape `(batch, tokens + length, hidden)`.
    """
    batch, num_tokens, hidden = tokens.shape
    width = places.shape[1]
    flat = places + width * torch.arange(batch, device=places.device)[:, None]
    spliced = tokens.new_zeros(batch * width, hidden)
    for values, index in ((tokens, flat[:, :num_tokens]), (rows, flat[:, num_tokens:])):
        spliced = spliced.index_copy(0, index.flatten(), values.flatten(0, 1))
    return spliced.view(batch, width, hidden)


def _with_gates(embeddings: Tensor, gates: Tensor) -> Tensor:
    """Put gates beside embeddings as one more dimension, so that they are spliced alike."""
    return torch.cat([embeddings, gates[..., None].to(embeddings)], dim=-1)


def concatenate(parts: Sequence[Spliced]) -> Spliced:
    """Stack spliced batches of several runs into one, padding all to the widest.

    The positions of tokens and rows are left to the parts and empty here.
    """
    if len(parts) == 1:
        return parts[0]
    width = max(part.embeddings.shape[1] for part in parts)

    def stack(tensors: Sequence[Tensor]) -> Tensor:
        padded = []
        for tensor in tensors:
            shape = (tensor.shape[0], width - tensor.shape[1], *tensor.shape[2:])
            padded.append(torch.cat([tensor, tensor.new_zeros(shape)], dim=1))
        return torch.cat(padded)

    gates = gated = None
    if any(part.gates is not None for part in parts):
        gates = stack(
            [part.attention_mask.float() if part.gates is None else part.gates for part in parts]
        )
        spans = [part.gated for part in parts if part.gated is not None]
        if len(spans) == len(parts):
            gated = (min(first for first, _ in spans), max(last for _, last in spans))
    is_row = None
    if all(part.is_row is not None for part in parts):
        is_row = stack([part.is_row for part in parts if part.is_row is not None])
    empty = parts[0].lengths.new_zeros((sum(p.lengths.shape[0] for p in parts), 0))
    return Spliced(
        embeddings=stack([part.embeddings for part in parts]),
        attention_mask=stack([part.attention_mask for part in parts]),
        segment_ids=stack([part.segment_ids for part in parts]),
        token_positions=empty,
        row_positions=empty,
        lengths=torch.cat([part.lengths for part in parts]),
        gates=gates,
        gated=gated,
        is_row=is_row,
    )


def join_memories(outputs: Sequence[PromptOutput], spliced: Spliced) -> Memory | None:
    """Return what attention reads beside the input, for the batches of several prompts.

    It is `None` where attention reads the input alone.
    """
    if not any(output.prefixes for output in outputs):
        return None if spliced.gates is None else Memory(gates=spliced.gates, gated=spliced.gated)
    first = [next(iter(output.prefixes.values()), None) for output in outputs]
    counts = [0 if pair is None else pair.keys.shape[2] for pair in first]
    length = max(counts)
    sizes = torch.tensor([len(output.anchors) for output in outputs])
    lengths = torch.tensor(counts).repeat_interleave(sizes).to(outputs[0].anchors.device)
    slots = dict.fromkeys(slot for output in outputs for slot in output.prefixes)
    prefix_gates = None
    if any(output.prefixes and output.activity.weights is not None for output in outputs):
        prefix_gates = torch.cat([_prefix_gates(output, length) for output in outputs])
    prefixes = {slot: _join(outputs, slot, length) for slot in slots}
    return Memory(prefixes, prefix_gates, spliced.gates, spliced.gated, lengths)


def _prefix_gates(output: PromptOutput, length: int) -> Tensor:
    """Return one prompt's gates, 1 where it has none. Shape `(batch, length)`."""
    gates = output.activity.gates if output.prefixes else None
    if gates is None:
        return torch.ones(len(output.anchors), length, device=output.anchors.device)
    return functional.pad(gates, (0, length - gates.shape[1]), value=1.0)


def _join(outputs: Sequence[PromptOutput], slot: Slot, length: int) -> KeyValues:
    """Stack the keys and values of one attention, padded with zeros to the longest."""
    keys, values, shown, are_all_there = [], [], [], True
    for output in outputs:
        batch, pair = len(output.anchors), output.prefixes.get(slot)
        if pair is None:
            empty = output.rows.new_zeros(batch, slot.heads, 0, slot.size)
            pair = KeyValues(empty, empty)
        count = pair.keys.shape[2]
        keys.append(functional.pad(pair.keys, (0, 0, 0, length - count)))
        values.append(functional.pad(pair.values, (0, 0, 0, length - count)))
        is_there = torch.arange(length, device=output.anchors.device) < count
        shown.append(is_there.expand(batch, -1))
        are_all_there &= count == length  # numbers, so that no accelerator is waited for
    return KeyValues(
        torch.cat(keys), torch.cat(values), None if are_all_there else torch.cat(shown).long()
    )
