import pytest

from softprompts.encoding.template import template_fields, template_pieces
from softprompts.examples import TaskFormat
from softprompts.tasks.formats import FORMATS
from softprompts.tasks.templates import format_problems, template_problems


def test_pieces_and_braces() -> None:
    assert template_pieces("a {{b}} {text}{mask}") == (
        ("text", "a {"),
        ("text", "b}"),
        ("text", " "),
        ("name", "text"),
        ("name", "mask"),
    )


def test_fields_are_distinct_and_without_places() -> None:
    template = "{b} {a} {sep} {b} {choice} {mask}"
    assert template_fields(template) == ("b", "a")


@pytest.mark.parametrize(
    "bad", ["{text", "text}", "{}", "{0}", "{a.b}", "{a[0]}", "{a:>3}", "{a!r}"]
)
def test_bad_syntax_is_refused_with_the_template(bad: str) -> None:
    with pytest.raises(ValueError, match="template .*" + bad.replace("[", r"\[").strip("{}")):
        template_pieces(bad)


@pytest.mark.parametrize(
    ("kind", "template", "has_choices", "place"),
    [
        ("linear", "{a} {mask}", False, "mask"),
        ("linear", "{a} {choice}", False, "choice"),
        ("linear", "{a}", True, "choice"),
        ("cloze", "{a}", False, "mask"),
        ("cloze", "{a} {mask} {mask}", False, "mask"),
        ("cloze", "{a} {mask} {choice}", True, "choice"),
        ("text", "{a} {mask}", False, "mask"),
        ("other", "{a} {sep} {sep} {b}", False, "sep"),
        ("linear", "{a} {sep}", False, "each side"),
        ("linear", "{sep} {a}", False, "each side"),
        ("text", "only words", False, "at least one field"),
        ("text", "{a", False, "paired braces"),
    ],
)
def test_rules_of_each_kind(kind: str, template: str, has_choices: bool, place: str) -> None:
    [problem] = template_problems(kind, template, has_choices)
    assert place in problem
    assert template in problem


@pytest.mark.parametrize("name", FORMATS)
def test_shipped_formats_are_well_formed(name: str) -> None:
    form = FORMATS[name]
    assert format_problems(form) == []
    assert form.name == name
    assert set(form.templates) == {"linear", "cloze", "text", "chat"}
    assert form.instruction.endswith(".")


def test_both_suites_share_their_formats() -> None:
    for name, form in FORMATS.items():
        if name.startswith("superglue/"):
            other = FORMATS[name.replace("superglue", "fewglue")]
            assert (form.templates, form.verbalizer, form.version, form.metrics, form.labels) == (
                other.templates,
                other.verbalizer,
                other.version,
                other.metrics,
                other.labels,
            )


@pytest.mark.parametrize(
    ("labels", "verbalizer", "said"),
    [
        (("a",), {"a": "x"}, "['a']"),
        (("a", "a"), {"a": "x"}, "['a', 'a']"),
        (("a", "b"), {"a": "x"}, "exactly the labels a, b"),
        (("a", "b"), {"a": "x", "b": "x"}, "['x', 'x']"),
        (("a", "b"), {"a": "x", "b": " "}, "['x', ' ']"),
        ((), {"a": "x"}, "{'a': 'x'}"),
    ],
)
def test_labels_and_words_must_fit(
    labels: tuple[str, ...], verbalizer: dict[str, str], said: str
) -> None:
    [problem] = format_problems(TaskFormat("t", 1, labels, {}, verbalizer, ("accuracy",)))
    assert said in problem


@pytest.mark.parametrize(
    ("short", "words"),
    [
        ("cb", {"entailment": "Yes", "neutral": "Maybe", "contradiction": "No"}),
        ("rte", {"entailment": "Yes", "not_entailment": "No"}),
        ("boolq", {"True": "Yes", "False": "No"}),
        ("multirc", {"True": "Yes", "False": "No"}),
        ("wic", {"True": "Yes", "False": "No"}),
        ("wsc", {"True": "Yes", "False": "No"}),
        ("copa", {}),
        ("record", {}),
    ],
)
def test_label_words(short: str, words: dict[str, str]) -> None:
    assert FORMATS[f"superglue/{short}"].verbalizer == words
