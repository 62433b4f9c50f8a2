import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompts.errors import DataError, RecipeError, UnknownNameError
from softprompts.tasks.base import Task
from softprompts.tasks.formats import FORMATS
from softprompts.tasks.loading import load_examples, load_task
from softprompts.tasks.registry import TASKS, task_format
from softprompts.tasks.rows import Row

Write = Callable[[str, Sequence[Any]], Path]
CB_ROWS = [
    {"premise": "It rained.", "hypothesis": "It was wet.", "label": "entailment"},
    {"premise": "It rained.", "hypothesis": "It was dry.", "label": "contradiction"},
    {"premise": "It rained.", "hypothesis": "It was May.", "label": "neutral"},
]


def load_cb(folder: Path, **more: Any) -> Task:
    return load_task("superglue/cb", data_dir=folder, **more)


def test_rows_become_examples(cb_folder: Path) -> None:
    task = load_cb(cb_folder)
    assert task.format is FORMATS["superglue/cb"]
    assert [row.answers for row in task.train] == [(0,), (1,), (2,)]
    assert task.train[1].fields == {"premise": "It rained.", "hypothesis": "It was dry."}
    assert task.train[1].source == f"{cb_folder / 'CB' / 'train.jsonl'}:2"
    assert (task.held_out, task.validation_name) == ((), "val")


def test_suite_folder_comes_first(cb_folder: Path, write: Write) -> None:
    for split in ("train", "val"):
        write(f"superglue/CB/{split}.jsonl", CB_ROWS * 2)
    assert len(load_cb(cb_folder).train) == 6
    assert len(load_task("fewglue/cb", data_dir=str(cb_folder)).train) == 3


def test_bom_crlf_and_blank_lines_at_the_end(cb_folder: Path) -> None:
    text = "\r\n".join(json.dumps(row) for row in CB_ROWS) + "\r\n\r\n \n"
    (cb_folder / "CB" / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(load_cb(cb_folder).train) == 3


def test_unusual_line_separators_inside_a_text_are_text(cb_folder: Path) -> None:
    rows = [{**row, "premise": "a\u2028b\x85c"} for row in CB_ROWS]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (cb_folder / "CB" / "train.jsonl").write_text(lines, encoding="utf-8")
    assert load_cb(cb_folder).train[2].fields["premise"] == "a\u2028b\x85c"


GOOD = json.dumps(CB_ROWS[0])
BAD_LINES = [
    ("{", r"CB/train.jsonl:2: must be one JSON object, but breaks at column 2"),
    ("[1, 2]", r":2: must be one JSON object, but is \[1, 2\]"),
    ("", r":2: must be one JSON object, but is a blank line"),
    ('{"premise": "a", "premise": "b"}', r":2: .*distinct, but `premise` comes twice"),
    ('{"premise": NaN}', r":2: .*finite, but one is NaN"),
    ("[" * 100000, r":2: must be one JSON object, but cannot be read"),
    ('{"premise": "a"}', r":2, field `hypothesis`: must be present, but the row has 'premise'\."),
    ('{"premise": 7, "hypothesis": "b"}', r":2, field `premise`: must be text, but is 7\."),
    (
        '{"premise": "a", "hypothesis": "\\ud800"}',
        r":2, field `hypothesis`: must be valid Unicode, but has half a pair at 0\.",
    ),
    (
        '{"premise": "a", "hypothesis": "b", "label": "maybe"}',
        r":2, field `label`: must be one of entailment, contradiction, neutral, but is 'maybe'\.",
    ),
    (
        '{"premise": "a", "hypothesis": "b", "label": true}',
        r":2, field `label`: must be one of entailment, .* but is True\.",
    ),
    (
        '{"premise": "a", "hypothesis": "b", "label": -1}',
        r":2, field `label`: must be a label, but is -1\.",
    ),
    (
        '{"premise": "a", "hypothesis": "b"}',
        r":2, field `label`: must be present, but the row has 'premise', 'hypothesis'\.",
    ),
]


@pytest.mark.parametrize(("line", "said"), BAD_LINES)
def test_a_bad_row_is_refused_or_counted(
    line: str, said: str, cb_folder: Path, write: Write
) -> None:
    rows = [GOOD, line, *map(json.dumps, CB_ROWS[1:])]
    path = write("CB/train.jsonl", rows)
    with pytest.raises(DataError, match=said) as caught:
        load_cb(cb_folder)
    assert "\n" not in str(caught.value)
    assert (str(caught.value.file), caught.value.line) == (str(path), 2)
    task = load_cb(cb_folder, skip_bad_rows=True)
    assert (len(task.train), dict(task.skipped_rows)) == (3, {str(path): 1})


def test_bad_bytes_are_named(cb_folder: Path) -> None:
    path = cb_folder / "CB" / "train.jsonl"
    path.write_bytes(path.read_bytes() + b'{"premise": "\xff"}\n')
    with pytest.raises(DataError, match=r":4: must be UTF-8, but has byte 0xff at 13\."):
        load_cb(cb_folder)


def test_missing_folder_names_both_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither .*superglue/CB nor .*/CB is a folder") as caught:
        load_cb(tmp_path)
    assert str(tmp_path / "superglue" / "CB") in str(caught.value)


@pytest.mark.parametrize("name", ["train", "dev32", "val"])
def test_missing_file_is_named(name: str, cb_folder: Path) -> None:
    (cb_folder / "CB" / f"{name}.jsonl").unlink()
    with pytest.raises(DataError, match=rf"CB/{name}\.jsonl: must be a file, but is missing"):
        load_task("fewglue/cb", data_dir=cb_folder)


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_empty_file_is_refused(text: str, cb_folder: Path) -> None:
    (cb_folder / "CB" / "val.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"val\.jsonl: must hold at least one row, but it is empty"):
        load_cb(cb_folder)


def test_a_file_of_bad_rows_only_is_refused_even_when_skipping(
    cb_folder: Path, write: Write
) -> None:
    write("CB/val.jsonl", ["{", "["])
    with pytest.raises(DataError, match=r"all 2 rows are bad, first .*val\.jsonl:1: .*column 2"):
        load_cb(cb_folder, skip_bad_rows=True)


def test_a_label_without_training_row_is_refused(cb_folder: Path, write: Write) -> None:
    write("CB/train.jsonl", CB_ROWS[:2])
    with pytest.raises(DataError, match=r"superglue/cb must have every label, .*with neutral\."):
        load_cb(cb_folder)
    assert len(load_cb(cb_folder, allow_missing_labels=True).train) == 2


def test_unknown_task_names_near_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"is 'superglue/bc'\. Did you mean 'superglue/cb'"):
        load_task("superglue/bc")


def test_options_are_checked_all_at_once() -> None:
    with pytest.raises(RecipeError, match=r"options of task 'superglue/cb'") as caught:
        load_task("superglue/cb", options={"repositry": "x", "revision": 3})
    first, second = sorted(caught.value.problems)
    assert "`revision` must fit its type and range, but is 3" in first
    assert "'repositry'. Did you mean 'repository'" in second


def test_fewglue_has_no_hub_source() -> None:
    with pytest.raises(DataError, match=r"`data_dir` must be .*holds CB, but is None for fewglue"):
        load_task("fewglue/cb")


def test_repository_and_folder_exclude_each_other(cb_folder: Path) -> None:
    with pytest.raises(DataError, match=r"option `revision` must be left out.*but is 'main'"):
        load_cb(cb_folder, options={"revision": "main"})


def test_shots_reach_the_sample(cb_folder: Path, write: Write) -> None:
    write("CB/train.jsonl", CB_ROWS * 4)
    assert len(load_cb(cb_folder, shots=2).train) == 6
    assert len(load_cb(cb_folder, shots_total=5).train) == 5
    with pytest.raises(DataError, match="is 9 and 'entailment' has 4"):
        load_cb(cb_folder, shots=9)


def test_more_rows_without_labels(cb_folder: Path, write: Write) -> None:
    task = load_cb(cb_folder)
    path = write("more.jsonl", [{"premise": "a", "hypothesis": "b"}, CB_ROWS[1], "{"])
    with pytest.raises(DataError, match=r"more\.jsonl:3: .*column 2"):
        load_examples(task, path)
    rows, num_skipped = load_examples(task, path, skip_bad_rows=True)
    assert ([row.answers for row in rows], num_skipped) == ([(), (1,)], 1)
    with pytest.raises(DataError, match=r"`options` must be left out .*'a': 1"):
        load_examples(task, path, options={"a": 1})


def test_every_entry_loads_and_agrees_with_its_format() -> None:
    assert (
        len([name for name in TASKS.names() if name.startswith(("superglue/", "fewglue/"))]) == 16
    )
    for entry in TASKS:
        assert callable(entry.load())
        assert entry.summary
        form = task_format(entry.name)
        if form is not None:
            assert (form.version, form.name) == (entry.version, entry.name)
    found = task_format("superglue/rte")
    assert found is not None
    assert found.labels == ("entailment", "not_entailment")
    assert task_format("files") is None


def test_format_of_an_unknown_task() -> None:
    with pytest.raises(UnknownNameError, match="is 'nope'"):
        task_format("nope")


def test_bundled_tasks_bring_their_own_rows(tmp_path: Path, write: Write) -> None:
    with pytest.raises(DataError, match="`data_dir` must be left out for bundled/sentiment"):
        load_task("bundled/sentiment", data_dir=tmp_path)
    task = load_task("bundled/sentiment", shots=4)
    assert (len(task.train), task.format.name) == (8, "bundled/sentiment")
    path = write("own.jsonl", [{"text": "Fine."}, {"text": "Fine.", "label": "positive"}])
    rows, _ = load_examples(task, path)
    assert [row.answers for row in rows] == [(), (task.format.labels.index("positive"),)]


def test_tasks_and_metrics_do_not_import_torch() -> None:
    code = (
        "import sys, softprompts.tasks.loading, softprompts.tasks.registry, "
        "softprompts.metrics.scoring; "
        "print([m for m in ('torch', 'datasets', 'pyarrow', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(value=JSON)
def test_any_value_is_text_or_a_data_error(value: Any) -> None:
    row = Row({"x": value}, "f", 1)
    accessors = (row.text, row.texts, row.word, row.integer, row.child, row.children)
    for access in accessors:
        message = ""
        try:
            access("x")
        except DataError as error:
            message = str(error)
        assert not message or message.startswith("f:1, field `x")
