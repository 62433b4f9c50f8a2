"""The bundled tasks."""

import itertools
import random
import re
import string
import subprocess
import sys
from collections import Counter, defaultdict
from importlib import resources
from pathlib import Path

import pytest

from bundled_grammar.expansion import Deck, expand, with_article
from bundled_grammar.grammar import parse_grammar
from bundled_grammar.write_rows import load_grammar, row_files
from softprompts.errors import DataError, UnknownNameError
from softprompts.tasks.bundled import FORMATS, load_bundled
from softprompts.tasks.registry import TASKS

NAMES = ("bundled/sentiment", "bundled/entailment", "bundled/question-type")
WRITERS = ("bundled/record", "bundled/polite")
SPLITS = ("train", "validation")
FUNCTION_WORDS = set(
    re.findall(
        r"\w+",
        """
    a an the and or but nor so yet if as at by for from in into of off on onto out over past
    through to up down under with without within along across before after around back until
    till near beside behind between about against among than that this these those there here
    then now again once twice i me my mine we us our you your he him his she her it its they
    them their one ones each every any some all both no none not never nobody everyone somebody
    everybody anybody everything nothing who whom whose which what when where why how is are was
    were be been being am do does did done has have had having will would can could shall should
    may might must cannot just too very more most less much many half only even still also same
    such own other another else let get got go went like two three
    """,
    )
)
# A new version of a task changes its rows; then raise `version` in formats.py, write
# the rows with tests/bundled_grammar/write_rows.py and set these.
DIGESTS = {
    "bundled/sentiment": "426001686cf11b0f",
    "bundled/entailment": "6740c724f315aaae",
    "bundled/question-type": "d1497bbd314fe8b1",
    "bundled/record": "faf2551a50990b18",
    "bundled/polite": "7ab11ccdd588b3f6",
}
SMALL = """
rows: {train: 4, validation: 2}
words: {train: {name: [Ida, Bo, Kim]}, validation: {name: [Per]}}
tables:
  food:
    train:
      shared: {end: "{it} {was} gone"}
      records: [{the: the stew, good: [hot, mild]}, {the: the eggs, pronoun: they, good: soft}]
    validation: {records: [{the: the ham, good: pink, end: so be it}]}
families:
  - tables: [food]
    frames: {"yes": ["{the} {was} {good}; {end}."], "no": ["{the} {was} not {good}; {end}."]}
"""


def rows_of(name, split):
    return getattr(load_bundled(name), split)


def texts_of(name, split):
    return [tuple(row.fields.values()) for row in rows_of(name, split)]


def stems(word):
    """Every form that `word` may be an ending of: a rough, generous stemmer."""
    found = {word}
    for ending in ("s", "es", "ed", "d", "ing", "er", "ers", "ly", "est", "y"):
        base = word.removesuffix(ending)
        if base != word and len(base) >= 3:
            found |= {base, base + "e", base + "y"}
            if base[-1] == base[-2]:
                found.add(base[:-1])
            if base.endswith("i"):
                found.add(base[:-1] + "y")
    return found


def filler_words(grammar, split):
    columns = [grammar.words.get(split, {})]
    for table in grammar.tables.values():
        if split in table:
            columns += [table[split].shared, *table[split].records]
    fillers = [
        filler
        for one in columns
        for name, several in one.items()
        if name != "pronoun"
        for filler in several
    ]
    plain = re.sub(r"\{[^}]*\}|'s", " ", " ".join(fillers).lower())
    return set(re.findall(r"[^\W\d_]+", plain)) - FUNCTION_WORDS


def shared_words(grammar):
    seen = defaultdict(set)
    for word in filler_words(grammar, "train"):
        for stem in stems(word):
            seen[stem].add(word)
    return {
        (word, other)
        for word in filler_words(grammar, "validation")
        for stem in stems(word)
        for other in seen[stem]
    }


def share_right(pairs_train, pairs_validation):
    """Accuracy of the rule that says, for each cue, its most frequent train label."""
    counts = defaultdict(Counter)
    for cue, label in pairs_train:
        counts[cue][label] += 1
    best = {cue: count.most_common(1)[0][0] for cue, count in counts.items()}
    right = sum(best.get(cue) == label for cue, label in pairs_validation)
    return right / len(pairs_validation)


def cued(name, split, cue):
    return [(cue(row), row.answers[0]) for row in rows_of(name, split)]


@pytest.mark.parametrize("name", NAMES)
def test_format_fits_its_rows(name):
    task = load_bundled(name)
    form = task.format
    fields = set(task.train[0].fields)
    assert form is FORMATS[name]
    assert form.name == name
    assert (form.version, form.metrics) == (TASKS.entry(name).version, ("accuracy",))
    assert set(form.verbalizer) == set(form.labels)
    assert len(set(form.verbalizer.values())) == len(form.labels)
    assert all(word.isalpha() and word.islower() for word in form.verbalizer.values())
    assert set(form.templates) == {"linear", "cloze", "text", "chat"}
    assert form.instruction.endswith(".")
    for kind, template in form.templates.items():
        places = {place for _, place, _, _ in string.Formatter().parse(template) if place}
        assert fields <= places <= fields | ({"role"} if kind == "chat" else {"mask", "sep"})
        assert ("mask" in places) == (kind == "cloze")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("bundled/sentiment", ("text",)),
        ("bundled/entailment", ("premise", "hypothesis")),
        ("bundled/question-type", ("text",)),
    ],
)
def test_rows_have_their_fields_and_source(name, fields):
    for split in SPLITS:
        for number, row in enumerate(rows_of(name, split), start=1):
            assert tuple(row.fields) == fields
            assert row.source == f"{name} {split}:{number}"
            assert (row.choices, row.references, row.group) == ((), (), "")


@pytest.mark.parametrize("name", NAMES)
def test_splits_have_their_size_and_equal_classes(name):
    task = load_bundled(name)
    assert (len(task.train), task.held_out, len(task.validation)) == (480, (), 360)
    assert task.validation_name == "validation"
    for rows in (task.train, task.validation):
        counts = Counter(row.answers for row in rows)
        expected = len(rows) // len(task.format.labels)
        assert counts == {(label,): expected for label in range(len(task.format.labels))}


@pytest.mark.parametrize("name", WRITERS)
def test_texts_to_write_say_what_their_rows_say(name):
    task = load_bundled(name)
    assert (len(task.train), len(task.validation)) == (480, 360)
    assert not task.format.labels
    assert task.format.is_writing
    targets = [row.references[0] for row in (*task.train, *task.validation)]
    assert len(set(targets)) == len(targets)
    for row in (*task.train, *task.validation):
        (text,) = row.fields.values()
        assert row.answers == (0,)
        assert len(set(row.references)) == 2
        if name == "bundled/record":
            fillers = [part.partition(": ")[2] for part in text.split(" | ")]
            for reference in row.references:
                said = reference.lower()
                assert all(filler.lower() in said for filler in fillers), reference


@pytest.mark.parametrize("name", [*NAMES, *WRITERS])
def test_no_text_comes_twice(name):
    texts = [text for split in SPLITS for text in texts_of(name, split)]
    assert len(set(texts)) == len(texts) == 840


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_mixed_along_the_rows(name):
    labels = [row.answers[0] for row in rows_of(name, "train")]
    same = sum(one == two for one, two in itertools.pairwise(labels)) / len(labels)
    assert abs(same - 1 / len(set(labels))) < 0.1


@pytest.mark.parametrize("name", [*NAMES, *WRITERS])
def test_rows_are_the_same_everywhere(name):
    assert load_bundled(name).digest() == DIGESTS[name]


def test_rows_are_what_the_grammars_give():
    folder = resources.files("softprompts.tasks.bundled")
    for file, text in row_files():
        assert (folder / file).read_bytes() == text.encode(), file


def test_loading_leaves_the_global_generator_alone():
    random.seed(5)
    before = random.getstate()
    for name in NAMES:
        load_bundled(name)
    assert random.getstate() == before


def test_loading_does_not_import_torch():
    code = (
        "import sys; from softprompts.tasks.bundled import FORMATS, load_bundled; "
        "print(sum(len(load_bundled(n).train) for n in FORMATS), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2400", "False"]


@pytest.mark.parametrize("name", NAMES)
def test_sentences_are_well_formed(name):
    for split in SPLITS:
        for text in (text for texts in texts_of(name, split) for text in texts):
            assert text[0].isupper(), text
            assert text[-1] in ".?!", text
            assert not re.search(r"[{}]|  |\s[,.;:?!]|[.?!] [a-z]", text), text
            assert not re.search(r"\b(\w+) \1\b", text, re.IGNORECASE), text
            assert not re.search(r"\ba (?!used)[aeiou]|\ban [^aeiou]", text.lower()), text


@pytest.mark.parametrize("name", [*NAMES, *WRITERS])
def test_fillers_of_the_splits_share_no_content_word(name):
    grammar = load_grammar(name)
    assert tuple(FORMATS) == (*NAMES, *WRITERS)
    assert len(filler_words(grammar, "train")) > (200 if name in NAMES else 80)
    assert len(filler_words(grammar, "validation")) > (200 if name in NAMES else 80)
    assert shared_words(grammar) == set()


def test_a_shared_content_word_would_be_seen():
    grammar = parse_grammar(SMALL.replace("the ham", "the stews"), ("yes", "no"))
    assert shared_words(grammar) == {("stews", "stew")}
    assert shared_words(parse_grammar(SMALL, ("yes", "no"))) == set()


@pytest.mark.parametrize("name", NAMES)
def test_validation_has_frames_of_its_own(name):
    families = load_grammar(name).families
    assert any(family.splits == ("validation",) for family in families)


def test_each_hypothesis_has_every_label_equally_often():
    for split in SPLITS:
        counts = defaultdict(Counter)
        for row in rows_of("bundled/entailment", split):
            counts[row.fields["hypothesis"]][row.answers[0]] += 1
        assert len(counts) > 60
        for hypothesis, count in counts.items():
            assert len(count) == 3, hypothesis
            assert len(set(count.values())) == 1, hypothesis


def test_word_overlap_does_not_give_the_entailment_label():
    def overlap(row):
        premise, hypothesis = (set(re.findall(r"\w+", t.lower())) for t in row.fields.values())
        return round(10 * len(premise & hypothesis) / len(hypothesis))

    pairs = [cued("bundled/entailment", split, overlap) for split in SPLITS]
    assert share_right(*pairs) < 0.45


def test_first_word_does_not_give_the_question_type():
    def first(row):
        return row.fields["text"].split()[0]

    pairs = [cued("bundled/question-type", split, first) for split in SPLITS]
    assert share_right(*pairs) < 0.45
    types = defaultdict(set)
    for word, label in pairs[1]:
        types[word].add(label)
    assert all(len(types[word]) >= 3 for word in ("What", "Which", "When", "How", "Tell"))


def test_sentiment_has_good_words_in_bad_verdicts():
    good = {
        word
        for table in load_grammar("bundled/sentiment").tables.values()
        for record in table["validation"].records
        for word in record["good"]
    }
    found = Counter(
        row.answers[0]
        for row in rows_of("bundled/sentiment", "validation")
        if any(re.search(rf"\b{word}\b", row.fields["text"]) for word in good)
    )
    assert found[1] > found[0] > 15


@pytest.mark.parametrize("name", NAMES)
def test_the_rows_in_the_docs_are_real(name):
    page = Path(__file__).parents[3] / "docs" / "tasks" / "bundled.md"
    section = page.read_text(encoding="utf-8").split(f"## `{name}`")[1].split("\n## ")[0]
    shown = [line.strip("| ").split(" | ") for line in re.findall(r"(?m)^\| [a-z].*", section)]
    real = {
        (label, " / ".join(row.fields.values()))
        for split in SPLITS
        for row in rows_of(name, split)
        for label in (FORMATS[name].labels[row.answers[0]],)
    }
    assert len(shown) == 10
    assert {(label, text) for label, text in shown} <= real


def test_unknown_task_is_named_with_near_names():
    with pytest.raises(UnknownNameError, match=r"'bundled/sentimant'.*'bundled/sentiment'"):
        load_bundled("bundled/sentimant")


@pytest.mark.parametrize(
    ("noun", "phrase"),
    [
        ("oven", "an oven"),
        ("pan", "a pan"),
        ("hour", "an hour"),
        ("honest man", "an honest man"),
        ("university", "a university"),
        ("used car", "a used car"),
        ("umbrella", "an umbrella"),
        ("one-off", "a one-off"),
        ("European", "a European"),
        ("house", "a house"),
        ("onion", "an onion"),
    ],
)
def test_article_goes_by_the_first_sound(noun, phrase):
    assert with_article(noun) == phrase


def test_deck_goes_round_evenly():
    deck = Deck("abc", random.Random(3))
    drawn = [deck.draw() for _ in range(9)]
    assert Counter(drawn) == {"a": 3, "b": 3, "c": 3}
    assert all(set(drawn[start : start + 3]) == set("abc") for start in (0, 3, 6))


def test_expansion_agrees_and_nests():
    rows = expand(parse_grammar(SMALL, ("yes", "no")), "train")
    assert len(rows) == 4
    assert ("The eggs were soft; they were gone.", "", "yes") in rows
    assert ("The eggs were not soft; they were gone.", "", "no") in rows
    stew = {text for text, _, _ in rows if "stew" in text}
    assert all(re.fullmatch(r"The stew was (not )?(hot|mild); it was gone\.", t) for t in stew)
    assert [len(stew), len({text.replace("not ", "") for text in stew})] == [2, 1]


def test_record_replaces_shared_column():
    rows = expand(parse_grammar(SMALL, ("yes", "no")), "validation")
    assert sorted(rows) == [
        ("The ham was not pink; so be it.", "", "no"),
        ("The ham was pink; so be it.", "", "yes"),
    ]


def test_expansion_depends_on_the_seed_only():
    grammar = load_grammar("bundled/sentiment")
    assert expand(grammar, "train", seed=1) == expand(grammar, "train", seed=1)
    assert expand(grammar, "train", seed=1) != expand(grammar, "train", seed=2)


def test_second_choice_is_another_one():
    text = SMALL.replace("{the} {was} {good}; {end}", "{name} met {name.2} over {a good} dish")
    grammar = parse_grammar(text, ("yes", "no"))
    seen = [text for text, _, label in expand(grammar, "train") if label == "yes"]
    for one in seen:
        first, second = re.fullmatch(r"(\w+) met (\w+) over a \w+ dish\.", one).groups()
        assert first != second


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("rows: {", "rows: {{", r"grammar: must be YAML, but"),
        ("rows:", "lines:", r"field `rows`: Field required"),
        ("train: 4", "train: 5", r"field `rows\.train`: must be .* multiple of 2, but is 5"),
        ("train: 4", "train: 0", r"field `rows\.train`: must be a positive .* but is 0"),
        ("train: 4", "test: 4", r"field `rows\.test.*but is 'test'"),
        ("pronoun: they", "pronoun: 3", r"records\.1\.pronoun`: .*but is 3"),
        ("good: soft", "good: []", r"records\.1\.good`: .*but is \[\]"),
        ('"no": [', '"maybe": [', r"labels yes, no, but has yes, maybe"),
        ("tables: [food]", "tables: [drink]", r"families\.0\.tables`: .* but is 'drink'"),
        ("  - tables: [food]", "  - size: 3\n    tables: [food]", r"families\.0\.size`: .* is 3"),
    ],
)
def test_a_wrong_grammar_is_refused(old, new, match):
    assert old in SMALL
    with pytest.raises(DataError, match=match):
        parse_grammar(SMALL.replace(old, new, 1), ("yes", "no"))


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("{good};", "{god};", r"place must name a column, but is '\{god\}'"),
        ("{good};", "{name.4};", r"'\{name\.4\}' must have 4 fillers, but has \["),
        ("{good};", "{Good};", r"places must be filled, but is .*\{Good\}"),
        ("pronoun: they", "pronoun: we", r"food\.train\.pronoun`: must be one of .* is 'we'"),
        ("train: 4", "train: 40", r"rows\.train`: must give 40 different rows, but gave 6"),
        ("- tables", "- splits: [validation]\n    tables", r"field `train`: must have a family"),
        ("train: 4, ", "", r"must be one of validation, but is 'train'"),
    ],
)
def test_a_grammar_that_cannot_be_expanded_is_refused(old, new, match):
    assert old in SMALL
    grammar = parse_grammar(SMALL.replace(old, new, 1), ("yes", "no"))
    with pytest.raises(DataError, match=match):
        expand(grammar, "train")
