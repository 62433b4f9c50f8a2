"""From what prompts emit to what a backbone reads: the spliced input, and the memory beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from softprompts.backbones.memory import KeyValues, Memory, Slot
from softprompts.prompts.prompt import PromptOutput
from softprompts.prompts.splice import Spliced, choose, splice, take_gates, with_gates


def arrange(
    output: PromptOutput, tokens: tuple[Tensor, Tensor, Tensor], edges: tuple[Tensor, Tensor]
) -> Spliced:
    """Put the rows of a prompt among tokens; choices keep their gradient.

    Args:
        output: what the prompt emitted.
        tokens: embeddings, attention mask and segment ids. Shape `(batch, tokens, hidden)`, and
            `(batch, tokens)` for the others.
        edges: index before which rows in front, and rows behind, stand. Shape `(batch,)` each.

    Returns:
        The spliced batch, with gates where rows are switched on and off.
    """
    embeddings, mask, segments = tokens
    rows = embeddings[:, :0] if output.prefixes else output.rows
    gates = output.activity.gates if not output.prefixes else None
    if gates is not None:
        embeddings, rows = with_gates(embeddings, None), with_gates(rows, gates)
    spliced = splice(embeddings, mask, segments, rows, output.anchors)
    weights = output.placement.weights
    is_learned = weights is not None and weights.requires_grad
    if weights is not None and is_learned:
        spliced = choose(spliced, weights, embeddings, mask, rows, edges)
    return spliced if gates is None else take_gates(spliced, is_learned)


def join_memories(outputs: Sequence[PromptOutput], spliced: Spliced) -> Memory | None:
    """Return what attention reads beside the input, for the batches of several prompts.

    Args:
        outputs: what the prompts emitted, in the order of their batches.
        spliced: all their inputs.

    Returns:
        The memory; `None` where attention reads the input alone.
    """
    if not any(output.prefixes for output in outputs):
        return None if spliced.gates is None else Memory(gates=spliced.gates, gated=spliced.gated)
    counts = [_length(output) for output in outputs]
    length = max(counts)
    sizes = torch.tensor([len(output.anchors) for output in outputs])
    lengths = torch.tensor(counts).repeat_interleave(sizes).to(outputs[0].anchors.device)
    slots = dict.fromkeys(slot for output in outputs for slot in output.prefixes)
    prefix_gates = None
    if any(output.prefixes and output.activity.weights is not None for output in outputs):
        prefix_gates = torch.cat([_prefix_gates(output, length) for output in outputs])
    prefixes = {slot: _join(outputs, slot, length) for slot in slots}
    return Memory(prefixes, prefix_gates, spliced.gates, spliced.gated, lengths)


def _length(output: PromptOutput) -> int:
    """Return the number of keys that a prompt gives to each attention."""
    return next((pair.keys.shape[2] for pair in output.prefixes.values()), 0)


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
