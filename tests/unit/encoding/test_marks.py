"""Marks in a template: they add no token, and stay between the same pieces."""

from __future__ import annotations

import re
from itertools import pairwise, product
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from backbones import KINDS
from softprompts.encoding.batch import collate
from softprompts.encoding.inputs import EncodedExample, EncodedInput
from softprompts.encoding.template import Role, parse_template
from softprompts.encoding.tokenization import Tokenization

VALUES = {"a": "the soup was cold", "b": "we waited, and waited", "choice": "rain all day"}
SPACED = (
    "{prompt} {a} {prompt} so {b} {prompt}",
    "{a} {prompt}{b}",
    "{a}{prompt} {b}",
    "{prompt}{a}{prompt}",
    "{a} {prompt} {prompt} {b}",
    "note: {a}. {prompt} Then: {b} {prompt}",
    "{a}, {prompt} {choice}",
    "{a} {prompt} {sep} {b}",
    "{a} {sep} {prompt} {b} {prompt}",
    "{prompt} {prompt} {a} {sep} x {prompt} {b}",
    "{{ {prompt} {a} }} {b}",
)
MASKED = (
    "{prompt} {a} It was {prompt} {mask}. {prompt} {b}",
    "{a} {mask} {prompt} {b} {prompt}",
    "{a} {prompt}{mask}{prompt} {b}",
    "{mask} {prompt} {sep} {prompt} {a}",
)
ENCODERS = ("bert", "roberta", "albert", "modernbert")


def without(template: str) -> str:
    """Return a template without its marks; one space is left where spaces stood beside them."""
    bare = re.sub(r" *(?:\{prompt\} *)+", lambda m: "\0 " if " " in m[0] else "\0", f"<{template}>")
    return bare.replace("<\0 ", "<").replace("\0 >", ">").replace("\0", "")[1:-1]


def encode(backbone, template, values=VALUES, max_tokens=None, **more):
    return Tokenization(backbone, max_tokens=max_tokens).encode(
        parse_template(template), values, **more
    )


def test_the_reference_takes_marks_out():
    assert without("{prompt} {a} {prompt} {b} {prompt}") == "{a} {b}"
    assert without("{a}{prompt}{b} {prompt}{choice}") == "{a}{b} {choice}"


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_template_without_marks(tiny, kind):
    for template in SPACED:
        item, _ = encode(tiny(kind), template)
        bare, _ = encode(tiny(kind), without(template))
        assert (item.ids, item.segments, item.roles) == (bare.ids, bare.segments, bare.roles)
        assert (item.start, item.end) == (bare.start, bare.end), template
        assert bare.marks == (), template
        assert len(item.marks) == template.count("{prompt}"), template
        assert list(item.marks) == sorted(item.marks), template


@pytest.mark.parametrize("kind", ENCODERS)
def test_masks_and_marks_go_together(tiny, kind):
    for template, num_masks in product(MASKED, (1, 3)):
        item, _ = encode(tiny(kind), template, num_masks=num_masks)
        bare, _ = encode(tiny(kind), without(template), num_masks=num_masks)
        assert (item.ids, item.slots, item.segments) == (bare.ids, bare.slots, bare.segments)
        assert len(item.marks) == template.count("{prompt}"), template
        first = template.split("{mask}")[0].count("{prompt}")
        assert all(mark <= item.slots[0] for mark in item.marks[:first]), template
        assert all(mark > item.slots[-1] for mark in item.marks[first:]), template


@pytest.mark.parametrize("kind", KINDS)
def test_marks_stand_before_the_word_that_follows(tiny, kind):
    backbone = tiny(kind)
    item, _ = encode(backbone, "{prompt} {a} {prompt} so {prompt} {b} {prompt}")

    def text(begin, stop):
        kept = [i for i, r in zip(item.ids, item.roles, strict=True) if r is not Role.SPECIAL]
        gone = sum(role is Role.SPECIAL for role in item.roles[:begin])
        decoded = backbone.tokenizer.decode(kept[begin - gone :][: stop - begin])
        return decoded.replace(" ", "")

    front, second, third, back = item.marks
    assert (front, back) == (item.start, item.end)
    assert text(second, third) == "so"
    assert text(third, back) == VALUES["b"].replace(" ", "")


@pytest.mark.parametrize("kind", ["bert", "roberta", "albert"])
def test_without_a_space_the_text_is_cut_there(tiny, kind):
    backbone = tiny(kind)
    item, _ = encode(backbone, "{a}{prompt}{b}", {"a": "wait", "b": "ing"})
    parts = [
        backbone.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("wait", "ing")
    ]
    (mark,) = item.marks
    assert item.ids[item.start : item.end] == (*parts[0], *parts[1])
    assert mark == item.start + len(parts[0])


def test_a_space_in_a_value_counts_as_one_beside_the_mark(tiny):
    item, _ = encode(tiny("gpt2"), "{a}{prompt}{b}", {"a": "rain", "b": " all day"})
    assert list(item.ids) == tiny("gpt2").tokenizer("rain all day")["input_ids"]
    one = tiny("gpt2").tokenizer("rain")["input_ids"]
    assert item.marks == (len(one),)


def test_empty_values_leave_marks_in_order(tiny):
    values = {"a": "", "b": ""}
    item, _ = encode(tiny("llama"), "{prompt} {a}{prompt}{b}{prompt}", values)
    assert item.start == 0
    size = len(tiny("llama").frame.prefix)
    assert item.marks == (0, size, size)  # only what precedes everything stands before `<s>`


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_marks_at_the_end_stand_before_label_tokens(tiny, kind):
    item, _ = encode(tiny(kind), "{a} so {prompt}", continuation=(5, 6))
    assert item.marks == (item.end,) == (len(item.ids) - 2,)


def test_a_mark_beside_the_border_stays_on_its_side(tiny):
    item, _ = encode(tiny("bert"), "{a}{prompt}{sep}{prompt}{b}")
    border = item.segments.index(1)
    assert item.marks == (border - 1, border)
    alone, _ = encode(tiny("bert"), "{prompt}{sep}{b}")
    assert alone.marks == (alone.start,) == (1,)


PIECES = st.lists(
    st.sampled_from(["{prompt}", " {prompt} ", "{a}", "{b}", " so ", "then ", "{choice}"]),
    min_size=1,
    max_size=8,
)
WORDS = st.lists(st.sampled_from(["rain", "cold", "waiter's", "walking"]), max_size=12)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    pieces=PIECES,
    one=WORDS,
    other=WORDS,
    max_tokens=st.integers(8, 40),
    kind=st.sampled_from(["bert", "gpt2", "t5"]),
    has_border=st.booleans(),
)
def test_marks_survive_the_cut(tiny, pieces, one, other, max_tokens, kind, has_border):
    half = len(pieces) // 2
    border = "x{sep}y" if has_border else ""
    template = "".join([*pieces[:half], border, *pieces[half:], "{a}"])
    values = {"a": " ".join(one), "b": " ".join(other), "choice": "rain"}
    tokenization = Tokenization(tiny(kind))
    tokenization.budget = None
    written = template.replace("{a}", values["a"]).replace("{b}", values["b"])
    assume(written or kind != "gpt2")  # an input of no token is refused
    full, _ = tokenization.encode(parse_template(template), values)
    assume(sum(role != Role.FIELD for role in full.roles) <= max_tokens)
    tokenization.budget = max_tokens
    item, is_cut = tokenization.encode(parse_template(template), values)
    assert is_cut == (len(full.ids) > max_tokens)
    assert len(item.ids) == min(len(full.ids), max_tokens)
    assert len(item.marks) == len(full.marks) == template.count("{prompt}")
    for kept, whole in zip(between(item), between(full), strict=True):
        assert is_subsequence(kept, whole)
        assert rigid(kept) == rigid(whole)  # nothing but field tokens goes


def between(item: EncodedInput) -> list[list[tuple[int, int]]]:
    """Return ids and roles in front of each mark and behind the last."""
    tokens = list(zip(item.ids, item.roles, strict=True))
    borders = [0, *item.marks, len(tokens)]
    return [tokens[i:j] for i, j in pairwise(borders)]


def rigid(tokens: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [token for token in tokens if token[1] != Role.FIELD]


def is_subsequence(part: list[tuple[int, int]], whole: list[tuple[int, int]]) -> bool:
    rest = iter(whole)
    return all(token in rest for token in part)


def with_own_tokenizer(has_long_tokens: bool):
    """Return a decoder's tokenizer that adds a space in front, with tokens of several words or not.

    It prepends a space whatever stands there, so that a text cut before a space has two.
    """
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    if not has_long_tokens:
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(special_tokens=["<unk>"], show_progress=False)
    text = "the soup was cold"
    if has_long_tokens:
        text = text.replace(" ", "\u2581")
    backend.train_from_iterator([text, f"{text} {text}"] * 4, trainer)
    backend.pre_tokenizer = pre_tokenizers.Split("\0", "isolated")  # none
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    frame = SimpleNamespace(prefix=(), middle=(), suffix=(), single_suffix=(), segments=(0, 0))
    backbone = SimpleNamespace(
        tokenizer=tokenizer, frame=frame, family="decoder", context_length=None, name="own"
    )
    return backbone, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_tokenizer_that_adds_a_space_adds_none_at_a_mark():
    backbone, tokens = with_own_tokenizer(has_long_tokens=False)
    item, _ = encode(backbone, "{a} {prompt} {b}", {"a": "the soup", "b": "was cold"})
    assert list(item.ids) == tokens("the soup was cold")
    assert len(item.ids) < len(tokens("the soup") + tokens(" was cold"))
    assert item.marks == (len(tokens("the soup")),)


def test_no_token_reaches_across_a_mark():
    backbone, tokens = with_own_tokenizer(has_long_tokens=True)
    assert len(tokens("the soup was cold")) < len(tokens("the soup") + tokens(" was cold"))
    item, _ = encode(backbone, "{a} {prompt} {b}", {"a": "the soup", "b": "was cold"})
    assert list(item.ids) == tokens("the soup") + tokens(" was cold")
    assert item.marks == (len(tokens("the soup")),)


def test_a_batch_carries_marks():
    items = [EncodedInput((1, 2, 3), (0,) * 3, (3,) * 3, 0, 3, marks=(0, m)) for m in (1, 3)]
    batch = collate([EncodedExample((item,), 2, (0,), False) for item in items], 0)
    assert batch.marks.tolist() == [[0, 1], [0, 3]]
    assert batch.to(batch.ids.device).marks.tolist() == [[0, 1], [0, 3]]
    bare = collate([EncodedExample((EncodedInput((1,), (0,), (3,), 0, 1),), 2, (), False)], 0)
    assert bare.marks.shape == (1, 0)


def test_inputs_of_one_batch_have_as_many_marks():
    items = [EncodedInput((1,), (0,), (3,), 0, 1, marks=marks) for marks in ((0,), (0, 1))]
    with pytest.raises(ValueError, match="expected sequence of length 1 at dim 1"):
        collate([EncodedExample((item,), 2, (0,), False) for item in items], 0)
