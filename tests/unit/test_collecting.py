import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from softprompts.collecting import uncollected
from softprompts.tasks.loading import load_task

OLDEST = 2


class Node:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """Generations that were collected from here on."""
    seen: list[int] = []

    def note(phase: str, about: dict[str, int]) -> None:
        if phase == "start":
            seen.append(about["generation"])

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)


def test_nothing_is_collected_within_and_what_was_made_is_old(collections: list[int]) -> None:
    collections.clear()
    with uncollected():
        made = [[] for _ in range(5000)]
        assert not gc.isenabled()
    assert collections == []
    assert gc.isenabled()
    assert not gc.get_freeze_count()
    assert any(one is made for one in gc.get_objects(generation=OLDEST))
    made += [[] for _ in range(5000)]
    assert collections


@pytest.mark.parametrize("when", ["before", "within"])
def test_a_cycle_is_found_by_the_next_full_collection(when: str) -> None:
    nodes = [Node()] if when == "before" else []
    with uncollected():
        nodes += [] if when == "before" else [Node()]
        gone = weakref.ref(nodes.pop())
    assert gone() is not None
    gc.collect()
    assert gone() is None


def test_an_error_leaves_the_collector_on() -> None:
    with pytest.raises(KeyError), uncollected():
        raise KeyError
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_the_caller_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        count = gc.get_freeze_count()
        with uncollected():
            pass
        assert gc.get_freeze_count() > count / 2 > 0  # some are gone by themselves
    finally:
        gc.unfreeze()


def test_loading_rows_collects_nothing(tmp_path: Path, collections: list[int]) -> None:
    rows = [{"text": f"Row {n}.", "label": str(n % 2)} for n in range(3000)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    options = {"train": "rows.jsonl", "validation": "rows.jsonl", "template": "{text}"}
    collections.clear()
    task = load_task("files", data_dir=tmp_path, options=options)
    assert len(task.train) == len(rows)
    assert collections == []
