"""The two forms of SuperGLUE rows, original jsonl and hub tables, give the same examples."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from softprompts.errors import DataError
from softprompts.examples import Example
from softprompts.tasks.base import Task
from softprompts.tasks.formats import FOLDERS, FORMATS
from softprompts.tasks.loading import load_task
from softprompts.tasks.rows import Row
from softprompts.tasks.superglue_rows import CONVERTERS, mark_spans

Write = Callable[[str, Sequence[Any]], Path]

PASSAGE = "Ann met Bob in Rome.\n@highlight\nAnn likes Rome\n@highlight\nBob left!"
SPANS = [(0, 2), (8, 10), (15, 18), (32, 34), (42, 45)]
WSC = {"span1_index": 0, "span1_text": "ann", "span2_index": 4, "span2_text": "she"}
WIC = {"word": "run", "sentence1": "A run.", "sentence2": "They run."}

# Per task: original rows, the same rows on the hub, and the hub's label names (None: a plain int).
FORMS: dict[str, tuple[list[Any], list[Any], list[str] | None]] = {
    "boolq": (
        [
            {"question": "is it", "passage": "It is.", "label": True, "idx": 0},
            {"question": "is it", "passage": "It is not.", "label": False, "idx": 1},
        ],
        [
            {"question": "is it", "passage": "It is.", "idx": 0, "label": 1},
            {"question": "is it", "passage": "It is not.", "idx": 1, "label": 0},
        ],
        ["False", "True"],
    ),
    "cb": (
        [
            {"premise": "p", "hypothesis": "h", "label": name, "idx": 0}
            for name in ("neutral", "contradiction", "entailment")
        ],
        [{"premise": "p", "hypothesis": "h", "idx": 0, "label": label} for label in (2, 1, 0)],
        None,
    ),
    "copa": (
        [
            {"premise": "It fell.", "choice1": "I slipped.", "choice2": "I sang.", **more}
            for more in ({"question": "cause", "label": 0}, {"question": "effect", "label": 1})
        ],
        [
            {"premise": "It fell.", "choice1": "I slipped.", "choice2": "I sang.", **more}
            for more in ({"question": "cause", "label": 0}, {"question": "effect", "label": 1})
        ],
        ["choice1", "choice2"],
    ),
    "multirc": (
        [
            {
                "idx": 4,
                "passage": {
                    "text": "<b>Sent 1: </b>Cats purr.<br><b>Sent 2: </b>Dogs bark.",
                    "questions": [
                        {
                            "question": "Who purrs?",
                            "idx": 7,
                            "answers": [{"text": "cats", "label": 1}, {"text": "dogs", "label": 0}],
                        },
                        {
                            "question": "Who barks?",
                            "idx": 8,
                            "answers": [{"text": "dogs", "label": 1}],
                        },
                    ],
                },
            }
        ],
        [
            {
                "paragraph": "<b>Sent 1: </b>Cats purr.<br><b>Sent 2: </b>Dogs bark.",
                "question": question,
                "answer": answer,
                "idx": {"paragraph": 4, "question": number, "answer": 0},
                "label": label,
            }
            for question, answer, number, label in (
                ("Who purrs?", "cats", 7, 1),
                ("Who purrs?", "dogs", 7, 0),
                ("Who barks?", "dogs", 8, 1),
            )
        ],
        ["False", "True"],
    ),
    "record": (
        [
            {
                "idx": 1,
                "passage": {
                    "text": PASSAGE,
                    "entities": [{"start": start, "end": end} for start, end in SPANS],
                },
                "qas": [
                    {
                        "query": "He said @placeholder was fun.",
                        "idx": 5,
                        "answers": [
                            {"start": 15, "end": 18, "text": "Rome"},
                            {"start": 42, "end": 45, "text": "Rome"},
                        ],
                    },
                    {
                        "query": "@placeholder left",
                        "idx": 6,
                        "answers": [{"text": "Bob"}, {"text": "Ann"}],
                    },
                ],
            }
        ],
        [
            {
                "passage": PASSAGE,
                "query": query,
                "entities": ["Ann", "Bob", "Rome"],
                "answers": answers,
                "idx": {"passage": 1, "query": number},
            }
            for query, answers, number in (
                ("He said @placeholder was fun.", ["Rome"], 5),
                ("@placeholder left", ["Bob", "Ann"], 6),
            )
        ],
        None,
    ),
    "rte": (
        [
            {"premise": "p", "hypothesis": "h", "label": name}
            for name in ("not_entailment", "entailment")
        ],
        [{"premise": "p", "hypothesis": "h", "label": label} for label in (1, 0)],
        ["entailment", "not_entailment"],
    ),
    "wic": (
        [{**WIC, "label": True, "start1": 2}, {**WIC, "label": False, "start1": 2}],
        [{**WIC, "start1": 2, "label": 1}, {**WIC, "start1": 2, "label": 0}],
        ["False", "True"],
    ),
    "wsc": (
        [
            {"text": "Ann fell, because then she, too, slipped.", "target": WSC, "label": label}
            for label in (True, False)
        ],
        [
            {"text": "Ann fell, because then she, too, slipped.", **WSC, "label": label}
            for label in (1, 0)
        ],
        None,
    ),
}
GROUP = {"multirc": ["4/7", "4/7", "4/8"], "record": ["1/5", "1/6"]}


def without_source(rows: Sequence[Example]) -> list[Any]:
    return [(dict(r.fields), r.answers, r.choices, r.references, r.group) for r in rows]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out like a hub set: a card with configurations, and parquet files."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "hub"
    configs = []
    for short, (_, rows, names) in FORMS.items():
        config = "wsc.fixed" if short == "wsc" else short
        table = datasets.Dataset.from_list(rows)
        if names is not None:
            table = table.cast_column("label", datasets.ClassLabel(names=names))
        (folder / config).mkdir(parents=True)
        lines = []
        for split in ("train", "validation"):
            table.to_parquet(str(folder / config / f"{split}-00000-of-00001.parquet"))
            lines.append(f"  - split: {split}\n    path: {config}/{split}-*")
        configs.append(f"- config_name: {config}\n  data_files:\n" + "\n".join(lines))
    card = "---\nconfigs:\n" + "\n".join(configs) + "\n---\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def load_original(short: str, folder: Path, write: Write) -> Task:
    for split in ("train", "val"):
        write(f"{FOLDERS[short]}/{split}.jsonl", FORMS[short][0])
    return load_task(f"superglue/{short}", data_dir=folder)


@pytest.mark.parametrize("short", FORMS)
def test_hub_and_original_agree(short: str, hub: Path, tmp_path: Path, write: Write) -> None:
    original = load_original(short, tmp_path, write)
    task = load_task(f"superglue/{short}", options={"repository": str(hub)})
    assert without_source(task.train) == without_source(original.train)
    assert task.digest() == original.digest()
    assert (task.validation_name, task.held_out) == ("val", ())
    config = "wsc.fixed" if short == "wsc" else short
    assert task.train[0].source == f"{hub}/{config}[train]:1"
    assert [row.group for row in task.train] == GROUP.get(short, [""] * len(task.train))


def test_an_unreachable_set_asks_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"nowhere/cb\[train\] must load.*pass `data_dir`"
    ) as caught:
        load_task("superglue/cb", options={"repository": str(tmp_path / "nowhere")})
    assert "\n" not in str(caught.value)


def test_a_missing_configuration_is_named(hub: Path) -> None:
    (hub / "README.md").unlink()
    with pytest.raises(DataError, match=r"hub/cb\[train\] must load"):
        load_task("superglue/cb", options={"repository": str(hub)})


def convert(short: str, values: Mapping[str, Any], **row: Any) -> list[Example]:
    return list(CONVERTERS[short](Row(values, "f", 1, **row), FORMATS[f"superglue/{short}"]))


def test_copa_fields() -> None:
    cause, effect = (convert("copa", row)[0] for row in FORMS["copa"][0])
    assert cause.fields == {
        "premise": "It fell.",
        "premise_clause": "It fell",
        "question": "cause",
        "connective": "because",
    }
    assert effect.fields["connective"] == "so"
    assert (effect.choices, effect.answers) == (("I slipped.", "I sang."), (1,))


def test_multirc_drops_sentence_markup() -> None:
    [first, *_] = convert("multirc", FORMS["multirc"][0][0])
    assert first.fields["passage"] == "Cats purr. Dogs bark."


def test_record_fields_and_all_right_columns() -> None:
    first, second = convert("record", FORMS["record"][0][0])
    assert first.fields == {
        "passage": "Ann met Bob in Rome. Ann likes Rome. Bob left!",
        "query_before": "He said ",
        "query_after": " was fun.",
    }
    assert first.choices == ("Ann", "Bob", "Rome")
    assert (first.answers, first.references) == ((2,), ("Rome",))
    assert (second.answers, second.references) == ((0, 1), ("Bob", "Ann"))


@pytest.mark.parametrize("short", FORMS)
def test_rows_without_labels_are_read_when_allowed(short: str) -> None:
    rows = [
        {key: value for key, value in row.items() if key not in ("label", "answers")}
        for row in FORMS[short][1]
    ]
    if short == "record":
        rows = [{**row, "answers": []} for row in rows]
    for row in rows:
        [example] = convert(short, row, needs_label=False)
        assert (example.answers, example.references) == ((), ())
        with pytest.raises(DataError, match=r"f:1, field `(label|answers)`"):
            convert(short, row)


def change(short: str, **values: Any) -> dict[str, Any]:
    return {**FORMS[short][1][0], **values}


@pytest.mark.parametrize(
    ("short", "row", "said"),
    [
        ("copa", change("copa", question="why"), "`question`: must be cause or effect.*'why'"),
        ("copa", change("copa", label=2), "`label`: must be 0 or 1, but is 2"),
        ("copa", change("copa", label=True), "`label`: must be 0 or 1, but is True"),
        ("boolq", change("boolq", label=2), "`label`: must be one of False, True, but is 2"),
        ("boolq", change("boolq", label="yes"), "one of False, True, but is 'yes'"),
        ("boolq", change("boolq", label=1.0), "one of False, True, but is 1.0"),
        ("multirc", change("multirc", idx=3), "`idx`: must be an object, but is 3"),
        ("multirc", change("multirc", idx={"paragraph": 1}), "`idx.question`: must be present"),
        ("multirc", {"idx": 1, "passage": "x"}, "`passage`: must be an object, but is 'x'"),
        (
            "multirc",
            {"idx": 1, "passage": {"text": "x", "questions": [{"idx": 1, "answers": [{}]}]}},
            r"`passage\.questions\[0\]\.question`: must be present",
        ),
        (
            "multirc",
            {"idx": True, "passage": {"text": "x", "questions": [{"idx": 1}]}},
            "`idx`: must be a whole number ≥ 0, but is True",
        ),
        ("record", change("record", query="none"), "@placeholder once, but has it 0 times"),
        ("record", change("record", entities=[]), "`entities`: .* at least one"),
        ("record", change("record", entities=["Ann", 5]), r"`entities\[1\]`: .*but is 5"),
        ("record", change("record", entities="Ann"), "`entities`: must be a list, but is 'Ann'"),
        ("record", change("record", answers=["Eve"]), r"`answers`: .*but are \['Eve'\]"),
        (
            "record",
            {
                "idx": 1,
                "passage": {"text": "Ann", "entities": [{"start": 0, "end": 3}]},
                "qas": [],
            },
            r"`passage\.entities\[0\]\.end`: .*last character 2, but is 3",
        ),
        ("wsc", change("wsc", span1_text="Eve"), "`span1_index`: .*'Eve' stands .* but is 0"),
        ("wsc", change("wsc", span1_text="..."), r"`span1_index`: .*'\.\.\.' stands"),
        ("wsc", change("wsc", span2_index=99), "`span2_index`: .*but is 99"),
        ("wsc", change("wsc", span2_text="Ann", span2_index=0), "apart from or inside 'Ann'"),
        ("wsc", change("wsc", span1_text="she, too", span2_text="too, slipped"), "'she, too'"),
    ],
)
def test_bad_rows(short: str, row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        convert(short, row)


def marked(text: str, span1: tuple[str, int], span2: tuple[str, int]) -> str:
    values = {"span1_text": span1[0], "span1_index": span1[1]}
    values |= {"span2_text": span2[0], "span2_index": span2[1]}
    return mark_spans(Row(values, "f", 1), text)


@pytest.mark.parametrize(
    ("text", "span1", "span2", "expected"),
    [
        ("The cat, it ran.", ("The cat", 0), ("it", 2), "*The cat*, #it# ran."),
        ("It ran, the cat.", ("The cat", 2), ("it", 0), "#It# ran, *the cat*."),
        ('"Good for him," he said', ("He", 3), ("him", 2), '"Good for #him#," *he* said'),
        ("it is it or it", ("it", 2), ("it", 4), "it is *it* or #it#"),
        ("Ann saw their cat", ("their cat", 2), ("their", 2), "Ann saw *#their# cat*"),
        ("Ann saw all their cats", ("all their", 2), ("their", 3), "Ann saw *all #their#* cats"),
        ("Bob use it now", ("Bob", 0), ("it", 1), "*Bob* use #it# now"),
        ("Britain and it (it) won", ("Britain", 0), ("it", 3), "*Britain* and it (#it#) won"),
    ],
)
def test_marks(text: str, span1: tuple[str, int], span2: tuple[str, int], expected: str) -> None:
    assert marked(text, span1, span2) == expected


def test_a_question_number_used_twice_is_refused(tmp_path: Path, write: Write) -> None:
    row = FORMS["multirc"][0][0]
    other = {**row, "passage": {**row["passage"], "text": "Other."}}
    write("MultiRC/train.jsonl", [row, other])
    write("MultiRC/val.jsonl", [row])
    with pytest.raises(DataError, match=r"train\.jsonl:2: .*used once, but 4/7 .*train\.jsonl:1"):
        load_task("superglue/multirc", data_dir=tmp_path)


def test_record_of_fewglue_reports_dev32(tmp_path: Path, write: Write) -> None:
    for split in ("train", "dev32"):
        write(f"ReCoRD/{split}.jsonl", FORMS["record"][0])
    task = load_task("fewglue/record", data_dir=tmp_path)
    assert (task.validation_name, task.held_out, len(task.validation)) == ("dev32", (), 2)
