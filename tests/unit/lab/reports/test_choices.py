"""What a run chose, read from records: windows, evaluations, the end, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from choices_material import IDENTITY, read_lines, write_lines, write_run

from softprompts.errors import RunFolderError, StorageError
from softprompts.lab.reports.choices import MOST_WINDOWS, read_choices


@pytest.mark.parametrize(
    ("updates", "windows", "last"),
    [(1, 1, 1), (5, 5, 1), (60, 60, 1), (61, 31, 1), (119, 60, 1), (120, 60, 2), (5000, 60, 44)],
)
def test_windows_are_equal_but_the_last_and_cover_every_update(tmp_path, updates, windows, last):
    found = read_choices(write_run(tmp_path / "run", updates=updates)).windows
    sizes = [window.last_step - window.first_step + 1 for window in found]

    assert len(found) == windows <= MOST_WINDOWS
    assert len({*sizes[:-1]}) <= 1
    assert sizes[-1] == last
    assert found[0].first_step == 1
    assert found[-1].last_step == updates
    assert all(a.last_step + 1 == b.first_step for a, b in itertools.pairwise(found))


def test_a_window_adds_counts_and_averages_the_rest(tmp_path):
    folder = write_run(tmp_path / "run", updates=130)
    updates = [line for line in read_lines(folder) if "split" not in line]
    window = read_choices(folder).windows[2]
    inside = updates[6:9]

    assert (window.first_step, window.last_step) == (7, 9)
    assert window.temperature == pytest.approx(fmean(u["temperature"] for u in inside))
    for name in ("position", "length"):
        columns = zip(*(u[name]["counts"] for u in inside), strict=True)
        assert window.selected[name].counts == tuple(map(sum, columns))
        assert window.selected[name].entropy == pytest.approx(
            fmean(u[name]["entropy"] for u in inside)
        )
        assert sum(window.selected[name].shares) == pytest.approx(1)
    assert window.selected["position"].counts != window.selected["length"].counts
    means = [fmean(column) for column in zip(*(u["pool"]["weights"] for u in inside), strict=True)]
    assert window.pool is not None
    assert window.pool.weights == pytest.approx(means)


def test_evaluations_and_the_reported_split_are_as_written(tmp_path):
    folder = write_run(tmp_path / "run", updates=10)
    evaluations = [line for line in read_lines(folder) if "split" in line]
    result = json.loads((folder / "result.json").read_text())
    found = read_choices(folder)

    assert (found.status, found.num_updates, found.selected_step) == ("finished", 10, 2)
    assert found.about == {
        "identity": IDENTITY,
        "method": "adap-ins-vec-pos",
        "task": "superglue/cb",
        "seed": 3,
        "length": 4,
    }
    assert found.parts == ("position", "length", "pool")
    assert [one.first_step for one in found.held_out] == [2, 4, 6, 8, 10]
    for one, line in zip(found.held_out, evaluations, strict=True):
        assert one.selected["length"].counts == tuple(line["length"]["counts"])
        assert one.pool is not None
        assert {k: list(v) for k, v in one.pool.by_class.items()} == line["pool"]["by_class"]
    assert found.held_out_selected is found.held_out[0]
    assert found.reported is not None
    assert found.reported.selected["position"].entropy == result["choices"]["position"]["entropy"]
    assert found.split == "validation"


@pytest.mark.parametrize("parts", [("position",), ("length",), ("pool",), ("position", "pool")])
def test_only_what_is_chosen_is_there(tmp_path, parts):
    found = read_choices(write_run(tmp_path / "run", parts=parts))

    assert found.parts == parts
    assert found.windows[0].temperature is None or parts != ("pool",)
    for window in found.as_json()["windows"]:
        assert window.keys() & {"position", "length", "pool"} == {*parts}


def test_a_run_without_an_end_is_read_as_far_as_it_is(tmp_path):
    found = read_choices(write_run(tmp_path / "run", updates=7, result={}))

    assert (found.status, found.num_updates, found.reported) == ("unfinished", 7, None)
    assert (found.selected_step, found.split) == (None, None)
    assert found.held_out_selected is found.held_out[-1]


def test_a_line_that_is_half_written_is_left_out_and_said(tmp_path):
    folder = write_run(tmp_path / "run", updates=4, result={})
    whole = read_choices(folder)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "posi')
    found = read_choices(folder)

    assert (whole.is_cut, found.is_cut) == (False, True)
    assert found.windows == whole.windows


def test_a_run_that_diverged_has_gaps_and_no_report(tmp_path):
    folder = write_run(
        tmp_path / "run",
        updates=3,
        result={"status": "diverged", "choices": None, "selected_step": 0},
    )
    lines = read_lines(folder)
    last = max(place for place, line in enumerate(lines) if "split" not in line)
    lines[last]["position"]["entropy"] = math.nan
    lines[last]["pool"]["weights"][1] = math.inf
    write_lines(folder, lines)
    found = read_choices(folder)

    assert (found.status, found.reported, found.held_out_selected) == ("diverged", None, None)
    assert found.windows[-1].selected["position"].entropy is None
    assert found.windows[-1].pool is not None
    assert [weight is None for weight in found.windows[-1].pool.weights] == [False, True, False]
    assert found.windows[0].selected["position"].entropy is not None
    json.dumps(found.as_json(), allow_nan=False)


def test_json_has_every_number(tmp_path):
    found = read_choices(write_run(tmp_path / "run", updates=4))
    data = json.loads(json.dumps(found.as_json(), allow_nan=False))

    assert data["num_updates"] == len(data["windows"]) == len(data["held_out"]) == 4
    for one, line in zip(found.windows, data["windows"], strict=True):
        assert (line["first_step"], line["last_step"]) == (one.first_step, one.last_step)
        assert line["temperature"] == one.temperature
        assert tuple(line["length"]["counts"]) == one.selected["length"].counts
    assert found.reported is not None
    assert found.reported.pool is not None
    reported = data["reported"]["pool"]["by_class"]
    assert {k: tuple(v) for k, v in reported.items()} == found.reported.pool.by_class


def test_a_method_that_selects_nothing_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", parts=())
    text = "nothing is selected by 'adap-ins-vec-pos'"
    with pytest.raises(RunFolderError, match=text):
        read_choices(folder)


def test_a_run_without_updates_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", result={})
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(StorageError, match="run must hold a run with logged updates, but has none"):
        read_choices(folder)


def test_a_study_is_refused_with_one_of_its_runs(tmp_path):
    write_run(tmp_path / "runs" / "beef")
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"is a study's; choose .*beef"):
        read_choices(tmp_path)


def edit_line(number: int, **fields: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        lines = read_lines(folder)
        lines[number - 1] |= fields
        write_lines(folder, lines)

    return edit


def edit_file(name: str, **fields: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text()) | fields
        (folder / name).write_text(json.dumps(content))

    return edit


def break_line(folder: Path) -> None:
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text.replace('{"step": 2', "{step", 1))


COUNTS = [1, 2, 3, 4, 5]
DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (lambda f: (f / "config.json").unlink(), "config.json could not be read"),
    "config not whole": (edit_file("config.json", config={}), "a whole `config`, .*'prompt'"),
    "length no number": (
        edit_file(
            "config.json",
            config={"prompt": {"method": "x", "length": None}, "task": {"name": "y"}, "seed": 0},
        ),
        "`config.prompt.length` must be a whole number, but is null",
    ),
    "result of another run": (edit_file("result.json", identity="beef"), "but is of beef"),
    "result without a step": (
        edit_file("result.json", selected_step="two"),
        "`selected_step` must be a whole number, but is 'two'",
    ),
    "result with odd choices": (
        edit_file("result.json", choices=[1]),
        r"`choices` must be an object, but is \[1\]",
    ),
    "a line that is no JSON": (break_line, "metrics.jsonl:2 must be JSON, but is not"),
    "not UTF-8": (
        lambda f: (f / "metrics.jsonl").write_bytes(b"\xff\n"),
        "metrics.jsonl must be UTF-8",
    ),
    "a line that is a list": (
        lambda f: (f / "metrics.jsonl").write_text("[7]\n"),
        r"metrics.jsonl:1: the line must be a JSON object, but is \[7\]",
    ),
    "a step that is missing": (
        edit_line(1, step=None),
        "jsonl:1: `step` must be a whole number, but is null",
    ),
    "a step that is left out": (edit_line(2, step=9), "jsonl:2: `step` must be 2, but is 9"),
    "counts of another length": (
        edit_line(2, position={"counts": [1, 2], "entropy": 0.1}),
        r"jsonl:2: `position.counts` must be 5 counts, .*\[1, 2\]",
    ),
    "counts below zero": (
        edit_line(2, length={"counts": [-1, 2, 3, 4, 5], "entropy": 0.1}),
        "jsonl:2: `length.counts.0` must be at least 0, but is -1",
    ),
    "a count of forty digits": (
        edit_line(2, position={"counts": [10**39, 2, 3, 4, 5], "entropy": 0.1}),
        "jsonl:2: `position.counts",
    ),
    "counts that are no object": (
        edit_line(2, position=4),
        "`position` must be a mapping, but is 4",
    ),
    "entropy as text": (
        edit_line(2, position={"counts": COUNTS, "entropy": "low"}),
        "jsonl:2: `position.entropy` must be a number, but is 'low'",
    ),
    "temperature as truth": (
        edit_line(2, temperature=True),
        "jsonl:2: `temperature` must be a number, but is true",
    ),
    "no weights": (
        edit_line(2, pool={"weights": []}),
        r"jsonl:2: `pool.weights` must be a collection of at least 1 entry, but is \[\]",
    ),
    "pool no object": (edit_line(2, pool="x"), "`pool` must be a mapping, but is 'x'"),
    "classes no object": (
        edit_line(2, pool={"weights": [1.0], "by_class": 3}),
        "`pool.by_class` must be a mapping, but is 3",
    ),
    "a class with other weights": (
        edit_line(2, pool={"weights": [1.0], "by_class": {"good": [0.5, 0.5]}}),
        r"`pool.by_class` must be 1 weights per label, but is \[0.5, 0.5\]",
    ),
    "an unknown split": (edit_line(2, split="tset"), "`split` must be held_out, but is 'tset'"),
    "a part that comes later": (
        lambda f: drop_part(f, "pool"),
        "jsonl:2: what is chosen must be position length, .*pool",
    ),
    "a report of other parts": (
        edit_file("result.json", choices={"position": {"counts": COUNTS, "entropy": 0.1}}),
        r"result.json: what is chosen must be position length pool, but is \[.position.\]",
    ),
    "a pool that grows": (
        edit_line(2, pool={"weights": [0.25] * 4}),
        "jsonl:2: `pool.weights` must be 3 numbers, as before, but is 4",
    ),
}


def drop_part(folder: Path, name: str) -> None:
    """Remove a part from the first record."""
    lines = read_lines(folder)
    del lines[0][name]
    write_lines(folder, lines)


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_records_are_refused_with_their_place(tmp_path, name):
    folder = write_run(tmp_path / "run", updates=20)
    read_choices(folder)
    damage, text = DAMAGES[name]
    damage(folder)

    with pytest.raises(StorageError, match=text):
        read_choices(folder)
