"""The real SuperGLUE and FewGLUE files: counts, labels, and first rows as a person reads them."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from softprompts.examples import Example
from softprompts.metrics.scoring import majority
from softprompts.tasks.base import Task
from softprompts.tasks.formats import FORMATS
from softprompts.tasks.loading import load_task

FEWGLUE = [name for name in FORMATS if name.startswith("fewglue/")]


class _Turn:
    def __format__(self, role: str) -> str:
        return f"[{role}] "


def fill(template: str, fields: Mapping[str, str], choice: str) -> str:
    places = {"mask": "[MASK]", "sep": "[SEP]", "choice": choice, "role": _Turn()}
    return template.format_map({**fields, **places})


def load(name: str, folder: Path) -> Task:
    return load_task(name, data_dir=folder, allow_missing_labels=name == "fewglue/wsc")


def label_counts(rows: tuple[Example, ...]) -> dict[int, int]:
    return dict(Counter(row.answers[0] for row in rows))


@pytest.mark.parametrize(
    ("name", "num_train", "num_held_out", "num_validation"),
    [
        ("superglue/cb", 250, 0, 56),
        ("superglue/copa", 400, 0, 100),
        ("superglue/rte", 2490, 0, 277),
        ("fewglue/boolq", 32, 32, 3270),
        ("fewglue/cb", 32, 32, 56),
        ("fewglue/copa", 32, 32, 100),
        ("fewglue/multirc", 154, 167, 4848),
        ("fewglue/record", 32, 0, 32),
        ("fewglue/rte", 32, 32, 277),
        ("fewglue/wic", 32, 32, 638),
        ("fewglue/wsc", 32, 32, 104),
    ],
)
def test_counts(
    name: str, num_train: int, num_held_out: int, num_validation: int, real_data: Path
) -> None:
    task = load(name, real_data)
    sizes = (len(task.train), len(task.held_out), len(task.validation))
    assert sizes == (num_train, num_held_out, num_validation)
    assert task.validation_name == ("dev32" if name == "fewglue/record" else "val")
    assert task.skipped_rows == {}
    assert all(row.answers for row in task.train + task.held_out + task.validation)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("fewglue/boolq", {0: 1237, 1: 2033}),
        ("superglue/cb", {0: 23, 1: 28, 2: 5}),
        ("superglue/copa", {0: 55, 1: 45}),
        ("fewglue/multirc", {0: 2773, 1: 2075}),
        ("superglue/rte", {0: 146, 1: 131}),
        ("fewglue/wic", {0: 319, 1: 319}),
        ("fewglue/wsc", {0: 66, 1: 38}),
    ],
)
def test_label_counts_of_validation(name: str, counts: dict[int, int], real_data: Path) -> None:
    assert label_counts(load(name, real_data).validation) == counts


def test_multirc_groups_are_the_953_questions_of_83_passages(real_data: Path) -> None:
    task = load("fewglue/multirc", real_data)
    groups = {row.group for row in task.validation}
    assert len(groups) == 953
    assert len({group.split("/")[0] for group in groups}) == 83
    assert len({(row.fields["passage"], row.fields["question"]) for row in task.validation}) <= 953


@pytest.mark.parametrize("name", FEWGLUE)
def test_train_and_dev32_are_disjoint(name: str, real_data: Path) -> None:
    task = load(name, real_data)
    held = task.held_out or task.validation
    train = {tuple(row.fields.values()) for row in task.train}
    assert not train & {tuple(row.fields.values()) for row in held}


def test_fewglue_wsc_is_all_true_and_needs_leave(real_data: Path) -> None:
    with pytest.raises(ValueError, match=r"fewglue/wsc must have every label.*with False\."):
        load_task("fewglue/wsc", data_dir=real_data)
    assert label_counts(load("fewglue/wsc", real_data).train) == {1: 32}


def test_wsc_marks_every_row(real_data: Path) -> None:
    task = load("fewglue/wsc", real_data)
    for row in task.train + task.held_out + task.validation:
        marked = row.fields["marked"]
        assert marked.replace("*", "").replace("#", "") == row.fields["text"]
        noun, pronoun = marked.split("*")[1], marked.split("#")[1]
        assert noun.replace("#", "").lower() == row.fields["span1_text"].lower()
        assert pronoun.lower() == row.fields["span2_text"].lower()
    assert "some day they might want to use #it# ," in task.validation[42].fields["marked"].lower()
    assert "*#their# mothers*" in task.validation[95].fields["marked"]
    assert '"Good for #him#,"' in task.train[3].fields["marked"]


def test_record_choices_hold_the_gold_answers(real_data: Path) -> None:
    task = load("fewglue/record", real_data)
    for row in task.train + task.validation:
        assert len(set(row.choices)) == len(row.choices) >= 2
        assert {row.choices[column] for column in row.answers} == set(row.references)
        assert "@" not in "".join(row.fields[f] for f in ("query_before", "query_after"))
        assert "@highlight" not in row.fields["passage"]
        assert "\n" not in row.fields["passage"]
    first = task.train[0]
    assert first.choices[:3] == ("Hamish Mackay", "Diego Costa", "Kurt Zouma")
    assert first.references == ("Olimpija Ljubljana",)
    assert "in Slovenia. Didier Drogba joined" in first.fields["passage"]


def test_first_rows_read_well(real_data: Path) -> None:
    texts = {}
    for name in ("superglue/copa", "fewglue/record", "fewglue/wic", "fewglue/wsc"):
        task = load(name, real_data)
        row = task.validation[0]
        choice = row.choices[0] if row.choices else ""
        for kind, template in task.format.templates.items():
            texts[name, kind] = fill(template, row.fields, choice)
    assert texts["superglue/copa", "linear"] == (
        "The man turned on the faucet. [SEP] so The toilet filled with water."
    )
    assert texts["superglue/copa", "text"] == "The man turned on the faucet so"
    assert texts["fewglue/record", "cloze"].endswith(
        "[SEP] They will sew our lips, but we will chant, 'Long live [MASK].'"
    )
    assert texts["fewglue/wic", "linear"].startswith("class: An emerging professional class. [SEP]")
    assert texts["fewglue/wsc", "text"].endswith('Question: Does "him" refer to anyone?\nAnswer:')


@pytest.mark.parametrize("name", FEWGLUE)
def test_every_row_fills_every_template(name: str, real_data: Path) -> None:
    task = load(name, real_data)
    for row in task.train + task.held_out + task.validation:
        for template in task.format.templates.values():
            assert fill(template, row.fields, "x").strip()


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("fewglue/boolq", 2033 / 3270),
        ("superglue/cb", (28 / 56 + 2 * 28 / (56 + 28) / 3) / 2),
        ("superglue/copa", 0.55),
        ("superglue/rte", 146 / 277),
        ("fewglue/wic", 0.5),
        ("fewglue/wsc", 66 / 104),
    ],
)
def test_majority_rates(name: str, rate: float, real_data: Path) -> None:
    task = load(name, real_data)
    assert majority(task.validation, task.format) == pytest.approx(rate)


def test_digest_sees_rows_and_not_places(real_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "CB"
    copy.mkdir()
    for split in ("train", "val"):
        text = (real_data / "superglue" / "CB" / f"{split}.jsonl").read_text(encoding="utf-8")
        (copy / f"{split}.jsonl").write_text(text, encoding="utf-8")
    original = load("superglue/cb", real_data)
    assert load("superglue/cb", tmp_path).digest() == original.digest()
    (copy / "val.jsonl").write_text("\n".join(text.splitlines()[1:]), encoding="utf-8")
    assert load("superglue/cb", tmp_path).digest() != original.digest()
