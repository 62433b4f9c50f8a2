"""Metrics against scikit-learn, by hand on tiny cases, and under changes that must not matter."""

import math
import random
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from softprompts.errors import DataError, UnknownNameError
from softprompts.examples import Example, TaskFormat
from softprompts.metrics.record import normalize_answer, text_equal, text_f1
from softprompts.metrics.registry import METRICS, is_of_texts, scored
from softprompts.metrics.scoring import compute, majority, mean_score, score
from softprompts.metrics.wilson import matched_interval
from softprompts.metrics.writing import Written
from softprompts.tasks.base import Task
from softprompts.tasks.checking import check_task
from softprompts.tasks.formats import FORMATS

CB = FORMATS["superglue/cb"]
MULTIRC = FORMATS["superglue/multirc"]
RECORD = FORMATS["superglue/record"]

pairs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30)
binary = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=30
)


def labelled(golds: list[int]) -> list[Example]:
    return [Example({}, (gold,), source=f"f:{n}") for n, gold in enumerate(golds, start=1)]


def asked(triples: list[tuple[int, int, int]]) -> list[Example]:
    return [Example({}, (gold,), group=f"0/{group}") for _, gold, group in triples]


def chosen(choices: tuple[str, ...], *references: str) -> Example:
    answers = tuple(n for n, choice in enumerate(choices) if choice in references)
    return Example({}, answers, choices, references, source="f:1")


@given(pairs)
def test_classification_agrees_with_scikit_learn(rows: list[tuple[int, int]]) -> None:
    predictions, golds = [p for p, _ in rows], [g for _, g in rows]
    values = compute(["accuracy", "macro-f1"], predictions, labelled(golds), CB)
    assert values["accuracy"] == pytest.approx(accuracy_score(golds, predictions))
    expected = f1_score(golds, predictions, labels=[0, 1, 2], average="macro", zero_division=0)
    assert values["macro-f1"] == pytest.approx(expected)


@given(binary)
def test_answer_f1_agrees_with_scikit_learn(rows: list[tuple[int, int, int]]) -> None:
    predictions = [p for p, _, _ in rows]
    expected = f1_score([g for _, g, _ in rows], predictions, zero_division=0)
    value = compute(["multirc-f1a"], predictions, asked(rows), MULTIRC)["multirc-f1a"]
    assert value == pytest.approx(expected)


@given(binary, st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(
    rows: list[tuple[int, int, int]], shuffler: random.Random
) -> None:
    mixed = list(rows)
    shuffler.shuffle(mixed)
    names = ["accuracy", "macro-f1", "multirc-f1a", "multirc-em"]
    first, second = (
        compute(names, [p for p, _, _ in order], asked(order), MULTIRC) for order in (rows, mixed)
    )
    assert first == pytest.approx(second)
    assert all(0.0 <= value <= 1.0 for value in first.values())


@given(pairs)
def test_renamed_labels_do_not_matter(rows: list[tuple[int, int]]) -> None:
    turn = {0: 2, 1: 0, 2: 1}
    first = score(
        ["accuracy", "macro-f1"], [p for p, _ in rows], labelled([g for _, g in rows]), CB
    )
    turned = labelled([turn[g] for _, g in rows])
    second = score(["accuracy", "macro-f1"], [turn[p] for p, _ in rows], turned, CB)
    assert first == pytest.approx(second)


@given(binary)
def test_right_predictions_score_one(rows: list[tuple[int, int, int]]) -> None:
    golds = [gold for _, gold, _ in rows]
    values = compute(["accuracy", "multirc-em"], golds, asked(rows), MULTIRC)
    assert values == {"accuracy": 1.0, "multirc-em": 1.0}


def test_multirc_by_hand() -> None:
    # Question 0: both right. Question 1: one of three wrong. Question 2: one of one wrong.
    golds = [1, 0, 1, 1, 0, 0]
    groups = ["0/0", "0/0", "0/1", "0/1", "0/1", "1/0"]
    rows = [Example({}, (g,), group=group) for g, group in zip(golds, groups, strict=True)]
    values = compute(["multirc-f1a", "multirc-em"], [1, 0, 1, 0, 0, 1], rows, MULTIRC)
    assert values == pytest.approx({"multirc-f1a": 2 * 2 / (3 + 3), "multirc-em": 1 / 3})


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  U.S. Senate", "us senate"),
        ("a cat, an owl and the Thermos", "cat owl and thermos"),
        ("Théâtre\tNational", "théâtre national"),
        ("the", ""),
        ("O'Brien-Smith", "obriensmith"),
    ],
)
def test_normalization_by_hand(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@given(st.text(), st.text())
def test_text_metrics_are_symmetric_and_bounded(first: str, second: str) -> None:
    assert text_f1(first, second) == text_f1(second, first)
    assert text_equal(first, second) <= text_f1(first, second) <= 1.0
    assert normalize_answer(normalize_answer(first)) == normalize_answer(first)
    assert text_f1(first, first) == 1.0


def test_repeated_words_count_as_often_as_shared() -> None:
    assert text_f1("new york new york", "york york") == pytest.approx(2 * 2 / (4 + 2))


def test_record_takes_the_best_reference() -> None:
    rows = [
        chosen(("Bhutto", "Benazir Bhutto", "Pakistan"), "Benazir Bhutto", "Bhutto"),
        chosen(("Costa", "Diego Costa", "Zouma"), "Diego Costa"),
        chosen(("the Senate", "Obama"), "Senate"),
    ]
    values = compute(["record-f1", "record-em"], [0, 0, 0], rows, RECORD)
    assert values == pytest.approx({"record-f1": (1 + 2 / 3 + 1) / 3, "record-em": 2 / 3})
    assert compute(["record-em"], [2, 2, 1], rows, RECORD) == {"record-em": 0.0}


def test_any_of_several_right_columns_is_accurate() -> None:
    rows = [Example({}, (0, 2), ("a", "b", "a")), Example({}, (1,), ("a", "b", "c"))]
    assert compute(["accuracy"], [2, 0], rows, RECORD) == {"accuracy": 0.5}


def test_score_is_the_mean_and_numpy_columns_do() -> None:
    rows = labelled([0, 1, 1, 2])
    predictions = np.array([0, 1, 2, 2])
    values = compute(CB.metrics, predictions, rows, CB)
    assert values == pytest.approx({"accuracy": 3 / 4, "macro-f1": (1 + 2 / 3 + 2 / 3) / 3})
    assert score(CB.metrics, predictions, rows, CB) == pytest.approx(sum(values.values()) / 2)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30))
def test_majority_is_the_share_of_the_commonest_class(golds: list[int]) -> None:
    rows = labelled(golds)
    most = max(golds.count(label) for label in range(3)) / len(golds)
    assert majority(rows, CB, ["accuracy"]) == pytest.approx(most)
    best = max(score(CB.metrics, [label] * len(golds), rows, CB) for label in range(3))
    assert majority(rows, CB) == best


def test_majority_of_choices_tries_the_columns_that_all_rows_have() -> None:
    rows = [
        chosen(("x", "y", "z"), "z"),
        chosen(("x", "y"), "y"),
        chosen(("x", "y", "z"), "z"),
        chosen(("x", "y", "z"), "x"),
    ]
    assert majority(rows, RECORD, ["record-em"]) == 0.25


def test_majority_of_multirc_by_hand() -> None:
    rows = asked([(0, 1, 0), (0, 0, 0), (0, 1, 1)])
    # All right: f1 = 4/5, one question of two. All wrong: 0 and 0.
    assert majority(rows, MULTIRC) == pytest.approx((4 / 5 + 1 / 2) / 2)


@pytest.mark.parametrize(
    ("names", "predictions", "rows", "form", "said"),
    [
        (["accuracy"], [], [], CB, "at least one, but are 0"),
        (["accuracy"], [0], labelled([0, 1]), CB, "but are 1 for 2 rows"),
        (["accuracy"], [3], labelled([0]), CB, "f:1: .* from 0 to 2, but is 3"),
        (["accuracy"], [-1], labelled([0]), CB, "from 0 to 2, but is -1"),
        (["accuracy"], [0.5], labelled([0]), CB, "f:1: .* column number, but is 0.5"),
        (["accuracy"], [0], [Example({}, source="f:9")], CB, "f:9: .*answer, but has none"),
        ([], [0], labelled([0]), CB, r"but are \[\]"),
        (["macro-f1"], [0], [chosen(("a",), "a")], RECORD, "superglue/record has none"),
        (["macro-f1"], [0], [Example({}, (0, 1), source="f:2")], CB, r"f:2: .*has \[0, 1\]"),
        (["multirc-em"], [0], labelled([0]), CB, "superglue/cb has 3"),
        (["multirc-f1a"], [0], labelled([0]), CB, "superglue/cb has 3"),
        (["multirc-em"], [0], labelled([0]), MULTIRC, "f:1: .*with a group, but it is ''"),
        (["record-f1"], [0], labelled([0]), CB, "f:1: .*but has 0 and 0"),
        (["accuracy"], [0], [Example({}, (0,), source="f:3")], RECORD, "f:3: .*choices, but has 0"),
    ],
)
def test_what_does_not_fit_is_refused(
    names: list[str], predictions: list[int], rows: list[Example], form: TaskFormat, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        compute(names, predictions, rows, form)


def test_unknown_metric_names_near_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"is 'macro-f2'\. Did you mean 'macro-f1'"):
        compute(["macro-f2"], [0], labelled([0]), CB)


def test_majority_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="at least one, but are 0"):
        majority([], CB)
    with pytest.raises(DataError, match="choices, but has 0"):
        majority([Example({}, (0,))], RECORD)


def test_every_metric_loads_and_every_task_names_known_ones() -> None:
    for entry in METRICS:
        assert callable(entry.load())
        assert entry.summary
    of_columns = {name for name in METRICS.names() if not is_of_texts(name)}
    assert {name for form in FORMATS.values() for name in form.metrics} == of_columns


WRITING = TaskFormat("writing", 1, (), {"writing": "{text}"}, {}, ("rouge-l",))
TEXTS = ("the river rose again", "We left at noon.", "")
GOLDS = (("the river rose", "a river rose again"), ("we left at noon",), ("nothing",))


def texts_and_rows() -> tuple[list[Written], list[Example]]:
    written = [Written(text, -2.0 * n, n) for n, text in enumerate(TEXTS, start=1)]
    return written, [Example({}, (0,), (), golds) for golds in GOLDS]


def test_words_of_texts_are_compared_as_squad_does() -> None:
    found = compute(["exact-match", "token-f1"], *texts_and_rows(), WRITING)
    assert found["exact-match"] == pytest.approx(2 / 3)  # articles do not count
    assert found["token-f1"] == pytest.approx(2 / 3)
    found = compute(["token-f1"], [Written("the brown river")], texts_and_rows()[1][:1], WRITING)
    assert found["token-f1"] == pytest.approx(2 * 1 / (2 + 2))


def test_rouge_is_the_f1_of_what_is_shared() -> None:
    found = compute(["rouge-1", "rouge-2", "rouge-l"], *texts_and_rows(), WRITING)
    assert found["rouge-1"] == pytest.approx((2 * 3 / 7 + 1 + 0) / 3)
    # "the river rose again" and "the river rose" share two pairs of three and two.
    assert found["rouge-2"] == pytest.approx((2 * 2 / 5 + 1 + 0) / 3)
    assert found["rouge-l"] == pytest.approx((2 * 3 / 7 + 1 + 0) / 3)


def test_corpus_scores_are_whole_where_texts_are_references() -> None:
    golds = [
        Example({}, (0,), (), (text, "another one")) for text in ("we left at noon", "ab cd ef gh")
    ]
    same = [Written(row.references[0]) for row in golds]
    assert compute(["bleu", "chrf"], same, golds, WRITING) == pytest.approx({"bleu": 1, "chrf": 1})
    other = compute(["bleu", "chrf"], [Written("xyz"), Written("xyz")], golds, WRITING)
    assert max(other.values()) < 0.1
    assert max(compute(["bleu", "chrf"], same, golds, WRITING).values()) <= 1  # as files have it


def test_bleu_is_its_formula_on_one_text() -> None:
    """Five of six words are right, and four, three and two n-grams in a row; no length penalty."""
    row = Example({}, (0,), (), ("one two three four five six",))
    found = compute(["bleu"], [Written("one two three four five nine")], [row], WRITING)
    expected = (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25
    assert found["bleu"] == pytest.approx(expected)


def test_perplexity_is_told_beside_the_score() -> None:
    found = compute(["exact-match", "perplexity"], *texts_and_rows(), WRITING)
    assert found["perplexity"] == pytest.approx(math.exp(2.0))
    assert scored(found) == ("exact-match",)
    assert mean_score(found) == found["exact-match"]


def test_the_floor_of_writing_is_one_text_for_all_rows() -> None:
    rows = [Example({}, (0,), (), (text,)) for text in ("yes", "no", "yes", "maybe")]
    form = replace(WRITING, metrics=("exact-match", "perplexity"))
    assert majority(rows, form) == 0.5


def test_a_metric_of_columns_does_not_score_texts() -> None:
    with pytest.raises(DataError, match="'accuracy'"):
        compute(["accuracy"], *texts_and_rows(), WRITING)
    with pytest.raises(DataError, match="row to score must have a reference"):
        compute(["bleu"], [Written("a")], [Example({}, source="x:1")], WRITING)


def test_a_library_that_is_not_there_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    match = r"sacrebleu is missing: pip install 'softprompts\[writing\]'"
    with pytest.raises(DataError, match=match):
        compute(["bleu"], *texts_and_rows(), WRITING)
    task = Task(replace(WRITING, metrics=("chrf",)), (), (), ())
    with pytest.raises(DataError, match=match):  # before anything is trained
        check_task(task)


def test_matched_interval_is_walds_with_half_a_row_in_each_cell():
    better, worse, alike = 20, 5, 35
    count = better + worse + alike + 2
    gap = (better - worse) / count
    error = ((better + worse + 1) / count - gap**2) ** 0.5 / count**0.5
    found = matched_interval([1] * better + [-1] * worse + [0] * alike)
    assert found == pytest.approx((gap - 1.959964 * error, gap + 1.959964 * error))
    assert matched_interval([1])[1] == 1
    assert matched_interval([0.2] * 8)[0] < 0 < matched_interval([0.2] * 40)[0]


def test_matched_interval_holds_as_often_as_it_says():
    draws = np.random.default_rng(0).multinomial(24, [0.3, 0.1, 0.6], size=4000)
    found = [matched_interval([1] * a + [-1] * b + [0] * c) for a, b, c in draws]
    assert np.mean([low <= 0.2 <= high for low, high in found]) == pytest.approx(0.95, abs=0.02)
