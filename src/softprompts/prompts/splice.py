"""The splice: the only place that builds what the backbone reads.

Tokens and prompt rows are put into one sequence. Embeddings, attention mask and segment ids are
built together, and every token's new place is returned, so that nothing downstream has to guess.
The result is always padded on the right, whatever side the tokens were padded on and wherever
inactive rows stood: position ids counted from the left are then right for every architecture, and
left padding cannot differ from right padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spliced:
    """What the backbone reads, and where everything went.

    Attributes:
        embeddings: rows and tokens. Shape `(batch, length + tokens, hidden)`.
        attention_mask: 1 on tokens and active rows. Shape `(batch, length + tokens)`.
        segment_ids: segment ids. Shape `(batch, length + tokens)`.
        token_positions: where each token went. Shape `(batch, tokens)`.
        row_positions: where each row went. Shape `(batch, length)`.
        lengths: how many positions count. Shape `(batch,)`.
    """

    embeddings: Tensor
    attention_mask: Tensor
    segment_ids: Tensor
    token_positions: Tensor
    row_positions: Tensor
    lengths: Tensor


def splice(
    embeddings: Tensor,
    attention_mask: Tensor,
    segment_ids: Tensor,
    rows: Tensor,
    anchors: Tensor,
    active: Tensor | None = None,
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
        active: which rows take part; all when `None`. Shape `(batch, length)`.

    Returns:
        The spliced batch, padded on the right.
    """
    batch, tokens, hidden = embeddings.shape
    length = rows.shape[1]
    device = embeddings.device
    if active is None:
        active = torch.ones(batch, length, dtype=torch.bool, device=device)
    valid = torch.cat([attention_mask.bool(), active.bool()], dim=1)  # (batch, tokens + length)
    token_keys = torch.arange(tokens, device=device) * (length + 1) + length  # (tokens,)
    row_keys = anchors * (length + 1) + torch.arange(length, device=device)  # (batch, length)
    keys = torch.cat([token_keys.expand(batch, -1), row_keys], dim=1)  # (batch, tokens + length)
    keys = torch.where(valid, keys, keys + (tokens + 2) * (length + 1))
    order = keys.argsort(dim=1, stable=True)  # (batch, length + tokens): source of each place
    places = torch.empty_like(order).scatter_(
        1, order, torch.arange(tokens + length, device=device).expand(batch, -1)
    )  # (batch, tokens + length): place of each source
    sources = torch.cat([embeddings, rows.to(embeddings.dtype)], dim=1)
    last = (attention_mask * torch.arange(tokens, device=device)).argmax(dim=1, keepdim=True)
    row_segments = segment_ids.gather(1, torch.minimum(anchors, last))  # (batch, length)
    segments = torch.cat([segment_ids, row_segments], dim=1)
    return Spliced(
        embeddings=sources.gather(1, order[..., None].expand(-1, -1, hidden)),
        attention_mask=valid.gather(1, order).long(),
        segment_ids=segments.gather(1, order) * valid.gather(1, order),
        token_positions=places[:, :tokens],
        row_positions=places[:, tokens:],
        lengths=valid.sum(dim=1),
    )


def concatenate(parts: Sequence[Spliced]) -> Spliced:
    """Stack spliced batches of several runs into one, padding all to the widest.

    Args:
        parts: spliced batches; a single one is returned as it is.

    Returns:
        One batch whose first rows are the first part's. `token_positions` and `row_positions`
        are left to the parts and empty here.
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

    empty = parts[0].lengths.new_zeros((sum(p.lengths.shape[0] for p in parts), 0))
    return Spliced(
        embeddings=stack([part.embeddings for part in parts]),
        attention_mask=stack([part.attention_mask for part in parts]),
        segment_ids=stack([part.segment_ids for part in parts]),
        token_positions=empty,
        row_positions=empty,
        lengths=torch.cat([part.lengths for part in parts]),
    )
