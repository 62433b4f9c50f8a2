"""The splice against a plain loop, on every layout it may meet."""

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from softprompts.prompts.splice import concatenate, splice


@st.composite
def layouts(draw):
    """A batch of token rows with padding anywhere at the edges, and anchors."""
    batch, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    length = draw(st.integers(0, 4))
    rows = []
    for _ in range(batch):
        left = draw(st.integers(0, tokens - 1))
        count = draw(st.integers(1, tokens - left))
        anchors = sorted(draw(st.integers(left, left + count)) for _ in range(length))
        rows.append((left, count, anchors))
    return tokens, length, rows


@given(layouts())
@settings(max_examples=200, deadline=None)
def test_splice_equals_a_plain_loop(layout):
    tokens, length, rows = layout
    batch = len(rows)
    embeddings = torch.arange(batch * tokens, dtype=torch.float32).view(batch, tokens, 1) + 1
    prompt = -torch.arange(batch * length, dtype=torch.float32).view(batch, length, 1) - 1
    segments = torch.randint(0, 2, (batch, tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(batch, tokens, dtype=torch.long)
    for row, (left, count, _) in enumerate(rows):
        mask[row, left : left + count] = 1
    anchors = torch.tensor([r[2] for r in rows], dtype=torch.long).view(batch, length)

    result = splice(embeddings, mask, segments, prompt, anchors)

    assert torch.equal(result.is_row, result.embeddings[..., 0] < 0)
    for row, (left, count, places) in enumerate(rows):
        expected, expected_segments = [], []
        for j in range(left, left + count + 1):
            for i in range(length):
                if places[i] == j:
                    expected.append(float(prompt[row, i, 0]))
                    anchor = min(j, left + count - 1)
                    expected_segments.append(int(segments[row, anchor]))
            if j < left + count:
                expected.append(float(embeddings[row, j, 0]))
                expected_segments.append(int(segments[row, j]))
        size = len(expected)
        assert result.embeddings[row, :size, 0].tolist() == expected
        assert result.segment_ids[row].tolist() == expected_segments + [0] * (
            tokens + length - size
        )
        assert result.attention_mask[row].tolist() == [1] * size + [0] * (tokens + length - size)
        assert int(result.lengths[row]) == size
        for j in range(left, left + count):
            place = int(result.token_positions[row, j])
            assert float(result.embeddings[row, place, 0]) == float(embeddings[row, j, 0])
        for i in range(length):
            place = int(result.row_positions[row, i])
            assert float(result.embeddings[row, place, 0]) == float(prompt[row, i, 0])


def test_left_and_right_padding_give_the_same_result():
    generator = torch.Generator().manual_seed(1)
    content = torch.randn(1, 3, 2, generator=generator)
    prompt = torch.randn(1, 2, 2, generator=generator)
    pad = torch.zeros(1, 2, 2)
    ones, zeros = torch.ones(1, 3, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long)
    no_segments = torch.zeros(1, 5, dtype=torch.long)
    right = splice(
        torch.cat([content, pad], 1),
        torch.cat([ones, zeros], 1),
        no_segments,
        prompt,
        torch.tensor([[1, 3]]),
    )
    left = splice(
        torch.cat([pad, content], 1),
        torch.cat([zeros, ones], 1),
        no_segments,
        prompt,
        torch.tensor([[3, 5]]),
    )
    assert torch.equal(left.embeddings[:, :5], right.embeddings[:, :5])
    assert torch.equal(left.attention_mask, right.attention_mask)
    assert left.token_positions[:, 2:].tolist() == right.token_positions[:, :3].tolist()


def test_gradient_reaches_rows_and_embeddings():
    embeddings = torch.randn(2, 3, 4, requires_grad=True)
    rows = torch.randn(2, 2, 4, requires_grad=True)
    mask = torch.ones(2, 3, dtype=torch.long)
    anchors = torch.tensor([[1, 2], [0, 3]])
    result = splice(embeddings, mask, torch.zeros_like(mask), rows, anchors)
    weights = torch.arange(10.0).view(2, 5, 1)
    (result.embeddings * weights).sum().backward()
    expected = weights[:, :, 0].gather(1, result.row_positions)
    assert torch.equal(rows.grad, expected[..., None].expand(-1, -1, 4))
    assert (embeddings.grad[:, 1:] != 0).all()
    assert result.is_row is None


def test_concatenate_pads_and_keeps_order():
    def part(tokens, value):
        mask = torch.ones(1, tokens, dtype=torch.long)
        rows = torch.full((1, 1, 2), value)
        embeddings = torch.full((1, tokens, 2), value)
        return splice(embeddings, mask, torch.zeros_like(mask), rows, torch.zeros(1, 1).long())

    joint = concatenate([part(2, 1.0), part(4, 2.0)])
    assert joint.embeddings.shape == (2, 5, 2)
    assert joint.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert joint.embeddings[0, 3:].abs().sum() == 0
    assert joint.lengths.tolist() == [3, 5]
    first_alone = [True, False, False, False, False]
    assert joint.is_row.tolist() == [first_alone, first_alone]
    assert joint.cut(3).is_row.tolist() == [first_alone[:3], first_alone[:3]]
    trained = replace(part(2, 1.0), is_row=None)
    assert concatenate([trained, part(4, 2.0)]).is_row is None


@given(layouts(), st.data())
@settings(max_examples=100, deadline=None)
def test_behind_equals_what_is_left_of_each_input(layout, data):
    tokens, length, rows = layout
    batch = len(rows)
    embeddings = torch.arange(batch * tokens, dtype=torch.float32).view(batch, tokens, 1) + 1
    prompt = -torch.arange(batch * length, dtype=torch.float32).view(batch, length, 1) - 1
    segments = torch.randint(0, 2, (batch, tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(batch, tokens, dtype=torch.long)
    for row, (left, count, _) in enumerate(rows):
        mask[row, left : left + count] = 1
    anchors = torch.tensor([r[2] for r in rows], dtype=torch.long).view(batch, length)
    whole = splice(embeddings, mask, segments, prompt, anchors)
    firsts = whole.row_positions.min(dim=1).values if length else whole.lengths - 1
    lead = [data.draw(st.integers(0, int(first))) for first in firsts]
    gated = replace(whole, gates=whole.embeddings[..., 0] / 7, gated=(0, int(whole.lengths.max())))

    rest = (gated if length else whole).behind(torch.tensor(lead))

    for row, begin in enumerate(lead):
        size = int(whole.lengths[row]) - begin
        kept = slice(begin, begin + size)
        assert int(rest.lengths[row]) == size
        assert torch.equal(rest.embeddings[row, :size], whole.embeddings[row, kept])
        assert torch.equal(rest.segment_ids[row, :size], whole.segment_ids[row, kept])
        assert rest.attention_mask[row].tolist() == (
            [1] * size + [0] * (rest.attention_mask.shape[1] - size)
        )
        assert not rest.segment_ids[row, size:].any()
        assert torch.equal(rest.is_row[row, :size], whole.is_row[row, kept])
        assert not rest.is_row[row, size:].any()
        if length:
            assert torch.equal(rest.gates[row, :size], gated.gates[row, kept])
        assert torch.equal(rest.row_positions[row], whole.row_positions[row] - begin)
        assert torch.equal(rest.token_positions[row], whole.token_positions[row] - begin)
    assert rest.attention_mask.shape[1] == int(rest.lengths.max())
    if length:
        places = rest.row_positions
        assert rest.gated == (int(places.min()), int(places.max()) + 1)
