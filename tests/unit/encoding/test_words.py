"""Which tokens start a word, under every tokenizer."""

from __future__ import annotations

import re

import pytest

from backbones import KINDS
from softprompts.encoding.template import Role, parse_template
from softprompts.encoding.tokenization import Tokenization, word_starts

TEXT = "the soup wasn't cold, and half-price: 30 % overpriced!"
WORDS = ["the", "soup", "wasn't", "cold", ",", "and", "half", "-", "price", ":", "30", "%"]
WORDS += ["overpriced", "!"]


def grouped(item, role=Role.FIELD):
    """Return the token ids of each word of a role."""
    words = []
    for token, own, start in zip(item.ids, item.roles, item.starts, strict=True):
        if own == role:
            words += [[]] if start else []
            words[-1].append(token)
    return words


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_whole_whatever_the_pieces(tiny, kind):
    backbone = tiny(kind)
    item, _ = Tokenization(backbone).encode(parse_template("review: {a} ok"), {"a": TEXT})
    words = grouped(item)
    assert len(words) == len(WORDS)
    assert max(map(len, words)) > 1, "nothing was split, so nothing was shown"
    for ids, word in zip(words, WORDS, strict=True):
        if backbone.tokenizer.unk_token_id in ids:
            continue
        decoded = backbone.tokenizer.decode(ids)
        assert re.sub(r"\s", "", decoded).lower() == word


def test_a_field_starts_a_word_where_the_template_leaves_no_space(tiny):
    item, _ = Tokenization(tiny("bert")).encode(
        parse_template("({a}{b})"), {"a": "good", "b": "bread"}
    )
    assert [item.fields[i] for i, s in enumerate(item.starts) if s and item.fields[i]] == ["a", "b"]
    assert {f for f, r in zip(item.fields, item.roles, strict=True) if r == Role.FIELD} == {
        "a",
        "b",
    }
    assert {f for f, r in zip(item.fields, item.roles, strict=True) if r != Role.FIELD} == {""}


def test_label_tokens_and_cuts_keep_the_lists_aligned(tiny):
    tokenization = Tokenization(tiny("gpt2"), max_tokens=12)
    item, is_cut = tokenization.encode(
        parse_template("{a} so {b} is"), {"a": TEXT, "b": TEXT}, continuation=(5, 6)
    )
    assert is_cut
    assert len(item.ids) == len(item.roles) == len(item.starts) == len(item.fields) == 12
    assert item.fields[-2:] == ("", "")


def test_signs_of_scripts_without_spaces_are_words_and_a_lone_space_joins_what_follows():
    assert word_starts("東京は", [(0, 1), (1, 2), (2, 3)]) == [True, True, True]
    assert word_starts("a hello", [(0, 1), (1, 2), (2, 4), (4, 7)]) == [True, True, False, False]
    assert word_starts("a  hi", [(0, 1), (1, 2), (2, 5)]) == [True, True, True]
    assert word_starts("é!", [(0, 1), (0, 1), (1, 2)]) == [True, False, True]
