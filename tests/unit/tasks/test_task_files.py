import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softprompts import storage
from softprompts.errors import DataError, RecipeError
from softprompts.tasks.base import Task
from softprompts.tasks.loading import load_examples, load_task
from softprompts.tasks.templates import format_problems

Write = Callable[[str, Sequence[Any]], Path]

ROWS = [
    {"text": "Nice.", "label": "pos", "stars": 5},
    {"text": "Awful.", "label": "neg", "stars": 1},
    {"text": "So so.", "label": "pos", "stars": 3.5},
]
BASE: dict[str, Any] = {"train": "a.jsonl", "validation": "a.jsonl", "template": "{text}"}


def load(folder: Path | None, **options: Any) -> Task:
    return load_task("files", data_dir=folder, options={**BASE, **options})


@pytest.fixture
def folder(tmp_path: Path, write: Write) -> Path:
    write("a.jsonl", ROWS)
    return tmp_path


def test_one_template_serves_every_readout(folder: Path) -> None:
    task = load(folder)
    form = task.format
    assert (form.name, form.labels, form.metrics) == ("files", ("neg", "pos"), ("accuracy",))
    assert form.templates == {"linear": "{text}", "cloze": "{text} {mask}", "text": "{text}"}
    assert form.verbalizer == {"neg": "neg", "pos": "pos"}
    assert format_problems(form) == []
    assert [row.answers for row in task.train] == [(1,), (0,), (1,)]
    assert task.train[0].fields == {"text": "Nice."}
    assert (task.held_out, task.validation_name) == ((), "validation")


def test_every_option(folder: Path, write: Write) -> None:
    write("sub/b.jsonl", [{"t": "x", "y": 2, "g": 7}, {"t": "z", "y": 10, "g": "q"}])
    task = load_task(
        "files",
        data_dir=folder,
        options={
            "train": "sub/b.jsonl",
            "validation": "sub/b.jsonl",
            "held_out": "sub/b.jsonl",
            "label_field": "y",
            "labels": ["10", "2"],
            "group_field": "g",
            "templates": {"linear": "{t}", "cloze": "{t} {mask}"},
            "verbalizer": {"10": "ten", "2": "two"},
            "metrics": ["accuracy", "macro-f1", "multirc-em"],
        },
    )
    assert [row.answers for row in task.held_out] == [(1,), (0,)]
    assert [row.group for row in task.validation] == ["7", "q"]
    assert task.format.verbalizer == {"10": "ten", "2": "two"}
    assert task.format.templates == {"linear": "{t}", "cloze": "{t} {mask}"}


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([10, 9, 2], ("2", "9", "10")),
        (["b", "a"], ("a", "b")),
        ([True, False], ("False", "True")),
        (["10", "9", "x"], ("10", "9", "x")),
    ],
)
def test_labels_are_found_and_sorted(
    values: list[Any], labels: tuple[str, ...], tmp_path: Path, write: Write
) -> None:
    write("a.jsonl", [{"text": "x", "label": value} for value in values])
    assert load(tmp_path).format.labels == labels


def test_a_label_that_train_lacks_needs_leave(folder: Path) -> None:
    with pytest.raises(DataError, match="files must have every label, but have none with mid"):
        load(folder, labels=["pos", "neg", "mid"])


def test_validation_label_unknown(folder: Path, write: Write) -> None:
    write("b.jsonl", [{"text": "x", "label": "odd"}])
    with pytest.raises(DataError, match=r"b\.jsonl:1, field `label`: .*neg, pos, but is 'odd'"):
        load(folder, validation="b.jsonl")


def test_csv_with_quotes_and_lines(folder: Path) -> None:
    text = '\ufefftext,label\r\n"a, ""b""\r\nc",pos\r\nplain,neg\r\n\r\n'
    (folder / "c.csv").write_bytes(text.encode())
    task = load(folder, train="c.csv", validation="c.csv")
    assert [row.fields["text"] for row in task.train] == ['a, "b"\r\nc', "plain"]
    assert [row.source.rpartition(":")[2] for row in task.train] == ["2", "4"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("text,label\na,pos\nb,neg,x\n", r"c\.csv:3: must have 2 cells.*but has 3"),
        ("text,label\na,pos\n\nb,neg\n", r"c\.csv:3: must have 2 cells.*but has 0"),
        ("text,label,text\na,pos,b\n", r"c\.csv:1: .*distinct, but 'text' comes twice"),
        ("text,,label\na,b,pos\n", r"c\.csv:1: column names must not be blank"),
        ('text,label\n"a"b,pos\n', r"c\.csv:2: must be CSV"),
        ('text,label\na,pos\n"open,neg\n', r"c\.csv:\d: must be CSV"),
        ("text,label\na,\nb,neg\n", r"c\.csv:2, field `label`: must be a label, but is ''"),
        ("text,label\n", r"c\.csv: must hold at least one row"),
        ("", r"c\.csv: must hold at least one row"),
        ("words,label\na,pos\nb,neg\n", r"c\.csv:2, field `text`: .*the row has 'words', 'label'"),
    ],
)
def test_bad_csv(text: str, said: str, folder: Path) -> None:
    (folder / "c.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        load(folder, train="c.csv")


def test_csv_that_is_not_utf8(folder: Path) -> None:
    (folder / "c.csv").write_bytes(b"text,label\na,pos\n\xe9,neg\n")
    with pytest.raises(DataError, match=r"c\.csv:3: must be UTF-8, but has byte 0xe9"):
        load(folder, train="c.csv")


def test_skipped_rows_are_counted_per_file(folder: Path) -> None:
    (folder / "c.csv").write_text("text,label\na,pos\nb\nc,neg\nd,\n", encoding="utf-8")
    task = load_task(
        "files", data_dir=folder, skip_bad_rows=True, options={**BASE, "train": "c.csv"}
    )
    assert len(task.train) == 2
    assert task.skipped_rows == {str(folder / "c.csv"): 2}


def test_a_small_parquet_file_of_very_many_rows_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indices = pa.array([0], pa.int32()).take(pa.array([0] * 5_000_001))
    text = pa.DictionaryArray.from_arrays(indices, ["the same"])
    pq.write_table(pa.table({"text": text, "label": text}), folder / "many.parquet")
    assert (folder / "many.parquet").stat().st_size < 400_000
    with pytest.raises(DataError, match=r"must hold at most 5000000 rows, but has 5000001"):
        load(folder, train="many.parquet")
    pq.write_table(pa.table({"text": ["x" * 500] * 50}), folder / "long.parquet")
    monkeypatch.setattr(storage, "MOST_BYTES", 20_000)
    with pytest.raises(DataError, match=r"must hold at most 20000 bytes, but holds more"):
        load(folder, train="long.parquet")


def test_parquet(folder: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = {"text": ["a", "b"], "label": [1, 0], "stars": [0.5, float("nan")]}
    parquet.write_table(arrow.table(rows), folder / "d.parquet")
    task = load(folder, train="d.parquet", validation="d.parquet")
    assert (task.format.labels, task.train[1].answers) == (("0", "1"), (0,))
    with pytest.raises(DataError, match=r"d\.parquet:2, field `stars`: .*finite.*nan"):
        load(folder, train="d.parquet", validation="d.parquet", template="{text} {stars}")
    (folder / "e.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"e\.parquet: must be a parquet file"):
        load(folder, train="e.parquet")


def test_other_kinds_and_folders_are_refused(folder: Path, write: Write) -> None:
    write("a.txt", ["x"])
    with pytest.raises(DataError, match=r"a\.txt: must end in .*, but ends in '\.txt'"):
        load(folder, train="a.txt")
    (folder / "sub.jsonl").mkdir()
    with pytest.raises(DataError, match=r"sub\.jsonl: must be a file, but is a folder"):
        load(folder, train="sub.jsonl")


@pytest.mark.parametrize("value", [None, True, ["x"], {"a": 1}])
def test_fields_must_be_text_or_numbers(value: Any, folder: Path, write: Write) -> None:
    write("b.jsonl", [ROWS[0], {**ROWS[1], "text": value}])
    with pytest.raises(DataError, match=r"b\.jsonl:2, field `text`: must be text or a number"):
        load(folder, train="b.jsonl")


def test_labels_must_be_names_or_whole_numbers(folder: Path, write: Write) -> None:
    write("b.jsonl", [ROWS[0], {**ROWS[1], "label": 0.5}])
    with pytest.raises(DataError, match=r"b\.jsonl:2, field `label`: .* but is 0\.5"):
        load(folder, train="b.jsonl")


def test_one_label_is_too_few(folder: Path, write: Write) -> None:
    write("b.jsonl", [ROWS[0]])
    with pytest.raises(DataError, match=r"field `label`: .*at least two, but are \['pos'\]"):
        load(folder, train="b.jsonl")


CHOICE_ROWS = [
    {"q": "2+2", "a": "four", "b": "five", "label": 0},
    {"q": "3+3", "a": "five", "b": 6, "label": "b"},
]


def test_choices(tmp_path: Path, write: Write) -> None:
    write("a.jsonl", CHOICE_ROWS)
    task = load(
        tmp_path, template="{q} =", choices_fields=["a", "b"], metrics=["accuracy", "record-em"]
    )
    assert task.format.has_choices
    assert task.format.templates == {
        "linear": "{q} = {sep} {choice}",
        "cloze": "{q} = {mask}",
        "text": "{q} =",
    }
    assert format_problems(task.format) == []
    assert [(row.choices, row.answers, row.references) for row in task.train] == [
        (("four", "five"), (0,), ("four",)),
        (("five", "6"), (1,), ("6",)),
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": 2}, "field `label`: must be one of 0, 1, a, b, but is '2'"),
        ({"a": " "}, "field `a`: must be a choice to score, but is ' '"),
    ],
)
def test_bad_choice_rows(change: dict[str, Any], said: str, tmp_path: Path, write: Write) -> None:
    write("a.jsonl", [CHOICE_ROWS[0], {**CHOICE_ROWS[1], **change}])
    with pytest.raises(DataError, match=said):
        load(tmp_path, template="{q}", choices_fields=["a", "b"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"template": None}, "one of `template` and `templates` must be given, but neither is"),
        ({"templates": {"linear": "{text}"}}, "must be given, but both are"),
        ({"template": "{text"}, r"template '\{text' must have paired braces"),
        ({"template": "{text} {mask}"}, r"must not have \{mask\}"),
        ({"template": "text"}, "'text' must name at least one field"),
        ({"template": None, "templates": {"linaer": "{text}"}}, "'linaer'. Did you mean 'linear'"),
        ({"template": None, "templates": {"cloze": "{text}"}}, r"'\{text\}' must have \{mask\} 1"),
        ({"metrics": ["acuracy"]}, "'acuracy'. Did you mean 'accuracy'"),
        ({"metrics": ["accuracy", "accuracy"]}, "distinct, but 'accuracy' comes twice"),
        ({"metrics": ["multirc-em"]}, "'multirc-em' must come with `group_field`"),
        ({"metrics": ["record-f1"]}, "'record-f1' must come with `choices_fields`"),
        ({"choices_fields": ["a"]}, r"at least two and distinct, but are \['a'\]"),
        ({"choices_fields": ["a", "b"], "labels": ["x", "y"]}, r"`labels` must be left out"),
        ({"choices_fields": ["a", "b"], "verbalizer": {"x": "y"}}, "`verbalizer` must be left out"),
        ({"choices_fields": ["a", "b"], "metrics": ["macro-f1"]}, "'macro-f1' must be used with"),
        ({"labels": ["x", "x"]}, r"distinct and not empty, but are \['x', 'x'\]"),
        ({"labels": ["x", "y"], "verbalizer": {"x": "1"}}, "exactly the labels x, y, but has x"),
        ({"verbalizer": {"pos": "a", "neg": "a"}}, r"distinct and not empty, but are \{'pos'"),
        ({"verbalizer": {"pos": "good"}}, "exactly the labels neg, pos, but has pos"),
        ({"hub_config": "c"}, "`hub_config` must come with `hub_dataset`, but is 'c'"),
        ({"hub_dataset": "x/y"}, "`data_dir` must be left out when `hub_dataset`"),
        ({"labels": "pos"}, "`labels` must fit its type and range, but is 'pos'"),
        ({"metrics": []}, r"`metrics` must fit its type and range, but is \[\]"),
        ({"train": ""}, "`train` must fit its type and range, but is ''"),
        ({"trian": "x"}, "'trian'. Did you mean 'train'"),
    ],
)
def test_options_that_contradict_each_other(
    options: dict[str, Any], said: str, folder: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        load(folder, **options)


def test_metrics_that_need_two_labels(folder: Path, write: Write) -> None:
    write("a.jsonl", [*ROWS, {"text": "x", "label": "mid"}])
    with pytest.raises(RecipeError, match="'multirc-f1a' must have two labels, but there are 3"):
        load(folder, metrics=["multirc-f1a"])


def test_required_options() -> None:
    with pytest.raises(RecipeError, match=r"`train` must be given, .*; `validation` must be given"):
        load_task("files", options={"template": "{text}"})


def test_every_problem_is_said_at_once(folder: Path) -> None:
    with pytest.raises(RecipeError, match="'nope'") as caught:
        load(folder, metrics=["nope"], labels=["x", "x"], hub_config="c")
    assert len(caught.value.problems) == 3


def test_hub_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    hub = tmp_path / "hub"
    hub.mkdir()
    table = datasets.Dataset.from_list([{"text": "a", "y": 1}, {"text": "b", "y": 0}])
    table = table.cast_column("y", datasets.ClassLabel(names=["no", "yes"]))
    table.to_parquet(str(hub / "train.parquet"))
    table.to_parquet(str(hub / "test.parquet"))
    task = load(None, train="train", validation="test", hub_dataset=str(hub), label_field="y")
    assert (task.format.labels, task.train[0].answers) == (("no", "yes"), (1,))
    assert task.validation[0].source == f"{hub}[test]:1"


def test_more_rows_of_the_same_kind(folder: Path, write: Write) -> None:
    task = load(folder)
    path = write("new.jsonl", [{"text": "x"}, {"text": "y", "label": "neg"}])
    rows, num_skipped = load_examples(task, path, options=BASE)
    assert ([row.answers for row in rows], num_skipped) == ([(), (0,)], 0)


def test_options_survive_json(folder: Path) -> None:
    options = json.loads(json.dumps(BASE))
    assert load_task("files", data_dir=folder, options=options).digest() == load(folder).digest()


def test_parquet_values_that_python_cannot_hold(folder: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    buffers = [None, arrow.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0"), arrow.py_buffer(b"a\xff\xfe")]
    texts = arrow.Array.from_buffers(arrow.string(), 2, buffers)
    times = arrow.array([0, 2**60], arrow.timestamp("ms"))
    for name, columns in {
        "text": {"text": texts, "label": ["pos", "neg"]},
        "at": {"text": ["a", "b"], "label": ["pos", "neg"], "at": times},
    }.items():
        parquet.write_table(arrow.table(columns), folder / "f.parquet")
        said = rf"f\.parquet, field `{name}`: must have values that can be read, but has not: "
        with pytest.raises(DataError, match=said):
            load(folder, train="f.parquet", validation="f.parquet")


def test_rows_that_were_all_skipped_are_counted(folder: Path, write: Write) -> None:
    write(
        "b.jsonl", [{"text": "a"}, {"text": "b", "label": ["pos"]}, {"text": "c", "label": "pos"}]
    )
    options = {**BASE, "train": "b.jsonl"}
    said = (
        r"b\.jsonl, field `label`: .*are \['pos'\]\. .* 2 of 3 rows were skipped, first .*:1, field"
    )
    with pytest.raises(DataError, match=said):
        load_task("files", data_dir=folder, skip_bad_rows=True, options=options)


def test_names_of_fields_show_their_spaces(folder: Path) -> None:
    (folder / "c.csv").write_text(" text, label\na,pos\nb,neg\n")
    with pytest.raises(DataError, match=r"the row has ' text', ' label'\."):
        load(folder, train="c.csv", validation="c.csv")


SQUAD = [
    {
        "id": "1",
        "title": "Mills",
        "context": "The old mill was built in 1720 and burnt down twice.",
        "question": "When was the mill built?",
        "answers": {"text": ["1720", "in 1720"], "answer_start": [26, 23]},
    },
    {
        "id": "2",
        "title": "Mills",
        "context": "The old mill was built in 1720 and burnt down twice.",
        "question": "How often did it burn down?",
        "answers": {"text": ["twice"], "answer_start": [45]},
    },
]
ASKED = "{context} {question}"


def writing(folder: Path, file: str, template: str, target: str) -> Task:
    options = {"train": file, "validation": file, "template": template, "target_field": target}
    return load_task("files", data_dir=folder, options={**options, "metrics": ["token-f1"]})


def nested(rows: Sequence[Any]) -> dict[str, Any]:
    """Return rows of SQuAD's tables as its own files have them."""
    texts = [[{"text": t, "answer_start": 0} for t in row["answers"]["text"]] for row in rows]
    qas = [
        {"id": row["id"], "question": row["question"], "answers": answers}
        for row, answers in zip(rows, texts, strict=True)
    ]
    paragraph = {"context": rows[0]["context"], "qas": qas}
    return {"version": "1.1", "data": [{"title": "Mills", "paragraphs": [paragraph]}]}


def test_rows_in_the_shape_of_squad(tmp_path: Path, write: Write) -> None:
    write("a.jsonl", SQUAD)
    (tmp_path / "a.json").write_text(json.dumps(nested(SQUAD)))
    pq.write_table(pa.Table.from_pylist(SQUAD), tmp_path / "a.parquet")
    for file in ("a.jsonl", "a.json", "a.parquet"):
        task = writing(tmp_path, file, ASKED, "answers.text")
        form = task.format
        assert (form.labels, form.verbalizer, form.has_choices) == ((), {}, False)
        assert form.templates == {"writing": ASKED, "chat": ASKED}
        assert format_problems(form) == []
        assert [row.references for row in task.train] == [("1720", "in 1720"), ("twice",)]
        assert [row.answers for row in task.train] == [(0,), (0,)]
        assert task.train[0].fields["question"] == "When was the mill built?"


def test_rows_in_the_shapes_of_e2e_and_samsum(tmp_path: Path) -> None:
    (tmp_path / "e2e.csv").write_text(
        'mr,ref\n"name[The Vaults], food[soup]",The Vaults serves soup.\n'
        '"name[Alimentum], area[river]","Alimentum, by the river."\n'
    )
    task = writing(tmp_path, "e2e.csv", "{mr}", "ref")
    assert task.train[1].fields == {"mr": "name[Alimentum], area[river]"}
    assert task.train[1].references == ("Alimentum, by the river.",)
    talks = [
        {"id": "7", "dialogue": "Ann: Are you in?\r\nBo: At six.", "summary": "Bo is in at six."},
        {"id": "8", "dialogue": "Cy: Lost my key :(", "summary": "Cy has lost a key."},
    ]
    (tmp_path / "samsum.json").write_text(json.dumps(talks))
    task = writing(tmp_path, "samsum.json", "{dialogue}\nSummary:", "summary")
    assert task.train[0].fields == {"dialogue": talks[0]["dialogue"]}
    assert [row.references for row in task.train] == [(t["summary"],) for t in talks]


def test_texts_to_write_are_numbers_too_and_may_be_absent_where_nothing_is_scored(
    tmp_path: Path, write: Write
) -> None:
    write("a.jsonl", [{"q": "two and two", "a": 4}, {"q": "one", "a": ["1", "one"]}])
    task = writing(tmp_path, "a.jsonl", "{q}", "a")
    assert [row.references for row in task.train] == [("4",), ("1", "one")]
    path = write("new.jsonl", [{"q": "six"}, {"q": "nine", "a": "9"}, {"q": "ten", "a": []}])
    rows, _ = load_examples(task, path, options=task.origin["options"])
    assert [row.references for row in rows] == [(), ("9",), ()]
    assert [row.answers for row in rows] == [(), (0,), ()]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", "must be a label, but is ''"),
        ("  ", "must be text to write, but is '  '"),
        ([], r"must be text to write, but is \[\]"),
        (["a", " "], r"must be text to write, but is \['a', ' '\]"),
        ([3], r"a\[0\]`: must be text, but is 3"),
        (True, "must be text or a number, but is True"),
        ({"b": 1}, "must be text or a number, but is {'b': 1}"),
    ],
)
def test_a_text_to_write_must_be_one(tmp_path: Path, write: Write, value: Any, text: str) -> None:
    write("a.jsonl", [{"q": "x", "a": "y"}, {"q": "x", "a": value}])
    with pytest.raises(DataError, match=rf"a.jsonl:2, field `a(\[0\])?`: .*{text[-20:]}"):
        writing(tmp_path, "a.jsonl", "{q}", "a")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("7", "must be a list of JSON objects, but is 7"),
        ('{"rows": []}', "must be a list of JSON objects, but is {'rows': "),
        ('[{"q": "x", "a": "y"}, 7]', "must be one JSON object, but is 7"),
        ("[", "must be one JSON object, but breaks at column 2"),
        (
            '{"data": [{"paragraphs": 7}]}',
            r"field `data\[0\].paragraphs`: must be a list, but is 7",
        ),
        ("", "must hold at least one row"),
    ],
)
def test_a_wrong_json_file_is_refused(tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=text):
        writing(tmp_path, "a.json", "{q}", "a")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"label_field": "label"}, None),
        ({"label_field": "stars"}, "`label_field` must be left out when `target_field` is given, "),
        ({"labels": ["a", "b"]}, "`labels` must be left out when `target_field` is given, but is"),
        ({"verbalizer": {"a": "b"}}, "`verbalizer` must be left out when `target_field` is given"),
        ({"choices_fields": ["x", "y"]}, "`choices_fields` must be left out when `target_field`"),
        ({"messages_field": "text"}, "`messages_field` must be left out when `target_field` is"),
        ({"metrics": ["accuracy"]}, "`metrics` must be among exact-match, .* one is 'accuracy'"),
        ({"metrics": ["perplexity"]}, r"must have one that is a share, .* are \['perplexity'\]"),
        ({"template": None, "templates": {"text": "{text}"}}, "must be one of writing, chat, but "),
    ],
)
def test_what_does_not_go_with_texts_to_write(
    folder: Path, options: dict[str, Any], text: str | None
) -> None:
    given = {"target_field": "label", "metrics": ["bleu"], **options}
    if text is None:
        assert load(folder, **given).format.is_writing
        return
    with pytest.raises(RecipeError, match=text):
        load(folder, **given)


def test_a_metric_of_texts_does_not_score_labels(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"`metrics` must be among accuracy, .* one is 'bleu'"):
        load(folder, metrics=["bleu"])
