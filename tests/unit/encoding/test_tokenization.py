"""From rows to tokens: frames, roles, budget, and text that must not be obeyed."""

from __future__ import annotations

import pytest
from torch import Generator

from backbones import KINDS
from softprompts.encoding.template import Role, parse_template
from softprompts.encoding.tokenization import Tokenization
from softprompts.errors import DataError
from softprompts.examples import Example, TaskFormat
from softprompts.readouts.base import Setting
from softprompts.readouts.registry import READOUTS

A, B = "the soup was cold and the waiter forgot us", "rain all day"
ENCODERS = ("bert", "roberta", "albert", "deberta-v2", "electra", "modernbert")


@pytest.mark.parametrize("kind", KINDS)
def test_pair_and_single_equal_the_tokenizers_own(tiny, kind):
    backbone = tiny(kind)
    tokenization = Tokenization(backbone)
    single, is_cut = tokenization.encode(parse_template("{a}"), {"a": A})
    assert list(single.ids) == backbone.tokenizer(A)["input_ids"]
    assert not is_cut
    pair, _ = tokenization.encode(parse_template("{a}{sep}{b}"), {"a": A, "b": B})
    if backbone.family == "decoder":
        assert list(pair.ids) == backbone.tokenizer(f"{A}\n{B}")["input_ids"]
    else:
        own = backbone.tokenizer(A, B, return_token_type_ids=True)
        assert list(pair.ids) == own["input_ids"]
        if backbone.frame.segments == (0, 1):
            assert list(pair.segments) == own["token_type_ids"]
    assert pair.start == (0 if backbone.family == "decoder" else len(backbone.frame.prefix))
    assert pair.end == len(pair.ids) - len(backbone.frame.suffix)


@pytest.mark.parametrize("kind", KINDS)
def test_roles_say_what_a_token_is_for(tiny, kind):
    backbone = tiny(kind)
    item, _ = Tokenization(backbone).encode(
        parse_template("review: {a} so {choice}"), {"a": "cold soup", "choice": "good"}
    )
    decoded = {
        role: backbone.tokenizer.decode(
            [i for i, r in zip(item.ids, item.roles, strict=True) if r == role]
        )
        for role in (Role.TEMPLATE, Role.FIELD, Role.LABEL)
    }
    assert decoded[Role.FIELD].replace(" ", "") == "coldsoup"
    assert decoded[Role.LABEL].replace(" ", "") == "good"
    assert decoded[Role.TEMPLATE].replace(" ", "") in ("review:so", "review:so ")
    specials = sum(role == Role.SPECIAL for role in item.roles)
    assert specials == len(backbone.frame.prefix) + len(backbone.frame.single_suffix)


@pytest.mark.parametrize("kind", ENCODERS)
def test_masks_stand_where_the_template_says(tiny, kind):
    backbone = tiny(kind)
    item, _ = Tokenization(backbone).encode(
        parse_template("{a} It was {mask}."), {"a": B}, num_masks=3
    )
    mask = backbone.tokenizer.mask_token_id
    assert [item.ids[i] for i in item.slots] == [mask] * 3
    assert list(item.ids).count(mask) == 3
    assert [item.roles[i] for i in item.slots] == [Role.MASK] * 3
    one = backbone.tokenizer(f"{B} It was {backbone.tokenizer.mask_token}.")["input_ids"]
    single, _ = Tokenization(backbone).encode(
        parse_template("{a} It was {mask}."), {"a": B}, num_masks=1
    )
    if kind not in ("albert", "deberta-v2"):  # these mark a word's beginning after a special token
        assert list(single.ids) == one


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_a_field_are_not_obeyed(tiny, kind):
    backbone = tiny(kind)
    specials = set(backbone.tokenizer.all_special_ids)
    text = " ".join(["cold", *backbone.tokenizer.all_special_tokens, "soup"])
    item, _ = Tokenization(backbone).encode(parse_template("{a}"), {"a": text})
    frame = backbone.frame
    inner = item.ids[len(frame.prefix) : len(item.ids) - len(frame.single_suffix)]
    unknown = backbone.tokenizer.unk_token_id
    assert not (set(inner) & (specials - {unknown}))


def test_the_longest_field_is_cut_and_nothing_else(tiny):
    backbone = tiny("bert")
    template = parse_template("say {a} {sep} then {b} now")
    values = {"a": "rain " * 40, "b": "cold soup"}
    full, _ = Tokenization(backbone).encode(template, values)
    item, is_cut = Tokenization(backbone, max_tokens=24).encode(template, values)
    assert is_cut
    assert len(item.ids) == 24
    words = backbone.tokenizer.convert_ids_to_tokens(list(item.ids))
    everything = backbone.tokenizer.convert_ids_to_tokens(list(full.ids))
    assert words.count("rain") == everything.count("rain") - (len(full.ids) - 24)
    assert [w for w in words if w != "rain"] == [w for w in everything if w != "rain"]
    assert item.ids[-1] == full.ids[-1]


@pytest.mark.parametrize(("kind", "readout"), [("gpt2", "text"), ("t5", "text"), ("bert", "cloze")])
def test_all_inputs_of_a_row_are_cut_alike(tiny, kind, readout):
    backbone = tiny(kind)
    words = {"short": "bad", "long": "hard to say today", "middle": "good bread"}
    template = "{text} it was {mask}" if readout == "cloze" else "{text} it was"
    form = TaskFormat("t", 1, tuple(words), {readout: template}, words, ("accuracy",))
    setting = Setting(backbone, form, Tokenization(backbone, max_tokens=24), Generator())
    encoded = READOUTS.load(readout)(setting).encode(Example({"text": "rain " * 40}, (0,)))
    fields = [
        [i for i, role in zip(one.ids, one.roles, strict=True) if role is Role.FIELD]
        for one in encoded.inputs
    ]
    assert encoded.is_cut
    assert all(one == fields[0] for one in fields)
    assert max(len(one.ids) for one in encoded.inputs) == 24


def test_equal_fields_are_cut_evenly(tiny):
    template = parse_template("{a} {sep} {b}")
    item, _ = Tokenization(tiny("bert"), max_tokens=13).encode(
        template, {"a": "rain " * 20, "b": "rain " * 20}
    )
    assert item.segments.count(0) - 2 == item.segments.count(1) - 1 == 5


def test_what_must_not_be_cut_must_fit(tiny):
    template = parse_template("a rather long instruction that says what to do with {a}")
    with pytest.raises(DataError, match=r"file.jsonl:3.*must fit 8 tokens, but take \d+"):
        Tokenization(tiny("bert"), max_tokens=8).encode(
            template, {"a": "rain"}, source="file.jsonl:3"
        )


def test_an_input_must_have_a_token(tiny):
    template = parse_template("{a}")
    with pytest.raises(DataError, match=r"file.jsonl:3.*must come to at least one token"):
        Tokenization(tiny("gpt2")).encode(template, {"a": ""}, source="file.jsonl:3")
    item, _ = Tokenization(tiny("bert")).encode(template, {"a": ""})
    assert len(item.ids) == 2


def test_a_prompt_must_leave_room(tiny):
    backbone = tiny("bert")
    limit = backbone.context_length
    assert Tokenization(backbone, limit - 8).budget == 8
    with pytest.raises(DataError, match=rf"`prompt.length` must leave .* but is {limit - 7}"):
        Tokenization(backbone, limit - 7)


@pytest.mark.parametrize("kind", KINDS)
def test_label_words_are_read_as_in_a_sentence(tiny, kind):
    backbone = tiny(kind)
    tokenization = Tokenization(backbone)
    ids = tokenization.words("good")
    whole = backbone.tokenizer("the soup was: good", add_special_tokens=False)["input_ids"]
    assert tuple(whole[-len(ids) :]) == ids
    assert backbone.tokenizer.decode(list(ids)).strip() == "good"
    with pytest.raises(DataError, match="at least one token, but are '  '"):
        tokenization.words("  ")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{a", "'{a' must have paired braces"),
        ("{a!r}", r"must name plain fields .* but has \{a!r\}"),
        ("{}", r"must name plain fields"),
    ],
)
def test_bad_templates(source, message):
    with pytest.raises(DataError, match=message):
        parse_template(source)


def test_a_row_without_the_field():
    template = parse_template("{premise} {sep} {hypothesis}")
    with pytest.raises(
        DataError, match=r"data.jsonl:2, field `hypothesis`: must be present, .* has 'premise'\."
    ):
        template.values({"premise": "rain"}, "data.jsonl:2")
