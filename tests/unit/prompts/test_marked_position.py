"""Rows at marked places: who stands where, and what does not fit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softprompts.errors import PromptError
from softprompts.prompts.positions.base import Edges
from softprompts.prompts.positions.marked import MarkedPosition
from softprompts.prompts.sharing import check_marks, share_rows

MARKS = torch.tensor([[0, 3, 7], [0, 2, 2]])


def edges(marks=MARKS):
    return Edges(marks[:, 0], marks[:, 0] + 9, marks)


def anchors(length, counts=None, marks=MARKS):
    return MarkedPosition(length, counts=counts)(edges(marks), None, None).anchors.tolist()


def test_rows_stand_at_their_marks_in_order():
    assert anchors(5) == [[0, 0, 3, 3, 7], [0, 0, 2, 2, 2]]
    assert anchors(4) == [[0, 0, 3, 7], [0, 0, 2, 2]]
    assert anchors(4, [1, 3, 0]) == [[0, 3, 3, 3], [0, 2, 2, 2]]
    assert anchors(2, [0, 0, 2]) == [[7, 7], [2, 2]]


@given(st.integers(0, 40), st.integers(1, 10))
def test_an_even_share(length, num_marks):
    if num_marks > length:
        with pytest.raises(PromptError, match=rf"at least {num_marks}, .*, but is {length}\."):
            share_rows(length, num_marks)
        return
    shares = share_rows(length, num_marks)
    assert sum(shares) == length
    assert len(shares) == num_marks
    assert list(shares) == sorted(shares, reverse=True)
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("counts", [[1, 2], [5, -1, 0], []])
def test_counts_must_add_up(counts):
    message = rf"at least 0 each and add up to `prompt.length`, 4, but is {counts}".replace(
        "[", r"\["
    )
    with pytest.raises(PromptError, match=message):
        MarkedPosition(4, counts=counts)


def test_counts_must_be_as_many_as_marks():
    position = MarkedPosition(4, counts=[1, 3])
    with pytest.raises(PromptError, match=r"each of the 3 `{prompt}` of an input, but is \[1, 3\]"):
        position(edges(), None, None)


def test_an_input_without_marks_is_refused():
    bare = Edges(torch.zeros(2, dtype=torch.long), torch.full((2,), 5), torch.empty(2, 0))
    with pytest.raises(
        PromptError, match=r"an input must have `{prompt}` at least once .* 0 times"
    ):
        MarkedPosition(4)(bare, None, None)


def test_marks_without_a_marked_position_are_refused():
    with pytest.raises(PromptError, match=r"T must have `{prompt}` 0 times .* but has it 2 times"):
        check_marks(4, 2, "T", is_marked=False)
    check_marks(4, 0, "T", is_marked=False)
    check_marks(4, 2, "T", is_marked=True, counts=[2, 2])
