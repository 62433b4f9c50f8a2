"""How the rows of a prompt are shared out among marked places; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from softprompts.errors import PromptError


def share_rows(
    length: int, num_marks: int, counts: Sequence[int] | None = None, where: str = "the template"
) -> tuple[int, ...]:
    """Return how many rows stand at each mark.

    Without `counts` they are shared out evenly, where the first marks get one more if need be.
    `where` is the text that has the marks.

    Example:
        >>> share_rows(7, 3)
        (3, 2, 2)
    """
    if not num_marks:
        raise PromptError(
            f"{where} must have `{{prompt}}` at least once with position marked, but has it 0 "
            "times."
        )
    if counts is None:
        if num_marks > length:
            raise PromptError(
                f"`prompt.length` must be at least {num_marks}, a row for each `{{prompt}}` of "
                f"{where}, but is {length}. `prompt.position.counts` may leave one without."
            )
        each, more = divmod(length, num_marks)
        return tuple(each + (place < more) for place in range(num_marks))
    check_counts(length, counts)
    if len(counts) != num_marks:
        raise PromptError(
            f"`prompt.position.counts` must have a number for each of the {num_marks} "
            f"`{{prompt}}` of {where}, but is {list(counts)}."
        )
    return tuple(counts)


def check_marks(
    length: int,
    num_marks: int,
    where: str,
    *,
    is_marked: bool,
    counts: Sequence[int] | None = None,
) -> None:
    """Check that a template's marks fit a prompt."""
    if is_marked:
        share_rows(length, num_marks, counts, where)
    elif num_marks:
        raise PromptError(
            f"{where} must have `{{prompt}}` 0 times unless position is marked, since nothing else "
            f"puts rows there, but has it {num_marks} times."
        )


def check_counts(length: int, counts: Sequence[int]) -> None:
    """Check that rows per mark are whole and add up."""
    if sum(counts) != length or any(count < 0 for count in counts):
        raise PromptError(
            f"`prompt.position.counts` must be at least 0 each and add up to `prompt.length`, "
            f"{length}, but is {list(counts)}."
        )
