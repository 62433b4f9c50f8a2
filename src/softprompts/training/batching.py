"""Which examples go together in an evaluation: those of like length."""

from __future__ import annotations

from collections.abc import Sequence

from softprompts.encoding.inputs import EncodedExample


def by_length(
    examples: Sequence[EncodedExample], max_tokens: int = 8192, max_inputs: int = 64
) -> list[list[int]]:
    """Group examples of like length, so that evaluation pays little padding.

    Args:
        examples: encoded examples.
        max_tokens: tokens per batch, padding included; one example may exceed it alone.
        max_inputs: inputs per batch; likewise.

    Returns:
        Indices per batch, every example once, longest first.
    """
    order = sorted(range(len(examples)), key=lambda i: (-examples[i].num_tokens, i))
    batches: list[list[int]] = []
    inputs = width = 0
    for index in order:
        example = examples[index]
        wider = max(width, example.num_tokens)
        more = inputs + len(example.inputs)
        if batches and more <= max_inputs and more * wider <= max_tokens:
            batches[-1].append(index)
            inputs, width = more, wider
        else:
            batches.append([index])
            inputs, width = len(example.inputs), example.num_tokens
    return batches


def by_equal_length(examples: Sequence[EncodedExample]) -> list[list[int]]:
    """Group examples as `by_length` does, only such of one length together."""
    groups: dict[int, list[int]] = {}
    for batch in by_length(examples):
        for index in batch:
            groups.setdefault(examples[index].num_tokens, []).append(index)
    return [group[i : i + 64] for group in groups.values() for i in range(0, len(group), 64)]
