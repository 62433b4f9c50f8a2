"""A slice of `make fuzz`, and that its judge sees what it is there for."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mutations import STRANGE, damaged, places, torn
from write_reliability import page

import fuzz
from softprompts.errors import DataError


@pytest.mark.slow
def test_a_slice_of_the_whole(tmp_path):
    counts = {kind: count // 100 for kind, count in fuzz.COUNTS.items()}
    table, findings = fuzz.run(counts, 17, tmp_path.resolve())

    assert findings == []
    for kind, row in table.items():
        assert row["refused"] > row["cases"] // 20, f"hardly any {kind} were damaged"


def raising(error):
    def case(draw, folder):
        raise error

    return case


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (lambda draw, folder: None, "accepted"),
        (raising(DataError("`x` must be 1, but is 2.")), "refused"),
        (raising(KeyError("x")), "KeyError in test_fuzz.py"),
        (raising(SystemExit(0)), "SystemExit in test_fuzz.py"),
        (raising(MemoryError()), "out of memory"),
        (raising(fuzz.SlowError()), "over 60 s"),
        (lambda draw, folder: (folder / "in").write_text("x"), "accepted"),
        (lambda draw, folder: (folder.parent / "beside").write_text("x"), "writes /"),
        (lambda draw, folder: (folder / "link").symlink_to("/tmp"), "accepted"),
        (lambda draw, folder: os.system("true"), "os.system"),
    ],
)
def test_the_judge_sees_what_is_wrong(tmp_path, case, text):
    folder = tmp_path.resolve() / "case"
    folder.mkdir()

    assert fuzz.answer(case, random.Random(0), folder).startswith(text)


def test_damages_come_from_the_seed_and_change_something():
    value = {"a": [1, {"b": "c"}], "d": 0.5}
    found = [damaged(value, random.Random(seed)) for seed in range(50)]

    assert [repr(one) for one in found] == [
        repr(damaged(value, random.Random(seed))) for seed in range(50)
    ]
    assert sum(one != value for one in found) > 40
    assert len(places(value)) == 6
    assert sum(torn(b"abcdef" * 9, random.Random(seed)) != b"abcdef" * 9 for seed in range(50)) > 40
    assert len(STRANGE) > 30


def test_the_page_has_a_table_per_file_of_counts(tmp_path):
    fuzz.write(tmp_path / "fuzz.json", {"rows": {"cases": 5000, "accepted": 1, "else": 0}})
    fuzz.write(tmp_path / "fuzz.json", {"recipes": {"cases": 7, "accepted": 2, "else": 3}})
    kills = {"kills": 1000, "counts": {"train": {"equal": 9}}, "losses": ["one"]}
    (tmp_path / "crash.json").write_text(json.dumps(kills))

    found = page(tmp_path)
    assert "## Crash\n\nkills: 1,000\n\n| counts | equal |\n| --- | --- |\n| train | 9 |" in found
    assert "losses: 1\n- one" in found
    assert "| recipes and studies | 7 | 2 | 3 |\n| rows in jsonl, json, csv and" in found
