"""Encoded rows come back from disk as they were, are never stale, and are safe to lose."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from backbones import KINDS
from contracts.conftest import FORMAT, TEXTS, covering
from softprompts import storage
from softprompts.component import Component
from softprompts.encoding.inputs import EncodedExample, EncodedInput, Target
from softprompts.encoding.template import Role
from softprompts.encoding.tokenization import Tokenization
from softprompts.errors import BackboneError, DataError
from softprompts.examples import Example
from softprompts.fast import disk_cache, encoding_cache
from softprompts.fast.encoding_cache import (
    LEAST_ROWS,
    from_bytes,
    open_encoding_cache,
    row_key,
    to_bytes,
)
from softprompts.readouts.base import Setting
from softprompts.readouts.registry import READOUTS
from softprompts.training.resources import Resources
from unprivileged import unprivileged

CHOICES = ("it rained", "the road was closed for the day", "nobody came")
TASKS = {
    "pairs": FORMAT,
    "marks": replace(
        FORMAT,
        templates={
            "linear": "{prompt} {text} {prompt} {sep} {aspect} {prompt}",
            "cloze": "{prompt} {text} The {aspect} {prompt} was {mask}.",
            "text": "{text} {prompt} the {aspect} was",
        },
    ),
    "choices": replace(
        FORMAT,
        labels=(),
        verbalizer={},
        templates={
            "linear": "{text} because {sep} {choice}",
            "cloze": "{text} because {mask}.",
            "text": "{text} because",
        },
    ),
}


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """Let each test warn as a new process would."""
    monkeypatch.setattr(disk_cache, "_WARNED", set())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Turn the disk cache on, in a folder of the test's own."""
    monkeypatch.setenv("SOFTPROMPTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "readings"


def build(backbone, kind, format=FORMAT, length=0, max_tokens=None, **options):
    tokenization = Tokenization(backbone, length, max_tokens)
    setting = Setting(backbone, format, tokenization, torch.Generator().manual_seed(0))
    return READOUTS.load(kind)(setting, **options)


def rows(format=FORMAT, count=8):
    return [
        Example(
            {"text": f"{TEXTS[i % len(TEXTS)]} {'[SEP] ' * (i % 3)}{i}", "aspect": "é price"},
            answers=((), (0,), (0, 1))[i % 3],
            choices=() if format.labels else CHOICES[: 2 + i % 2],
            source=f"row {i}",
        )
        for i in range(count)
    ]


def refuse(example):
    raise AssertionError(f"encoded again: {example}")


def found(readout, kind, examples, monkeypatch):
    """Return what a new process finds, where nothing may be encoded."""
    cache = open_encoding_cache(Component(kind=kind), readout)
    monkeypatch.setattr(type(readout), "encode", lambda self, example: refuse(example))
    try:
        return cache.encode(readout, examples)
    finally:
        monkeypatch.undo()


def keep(readout, kind, examples):
    return open_encoding_cache(Component(kind=kind), readout).encode(readout, examples)


def count_encoded(readout, kind, examples, config=None):
    """Return how many rows a new process has to encode."""
    calls = []
    cache = open_encoding_cache(config or Component(kind=kind), readout)

    class Counting:
        def encode(self, example):
            calls.append(example)
            return readout.encode(example)

    cache.encode(Counting(), examples)
    return len(calls)


def files(root, ending=".safetensors"):
    return sorted(path for path in root.rglob("*") if path.name.endswith(ending))


# --- the same rows ---


@pytest.mark.parametrize(
    ("name", "kind", "max_tokens"), covering(list(product(TASKS, KINDS, (None, 44))))
)
def test_found_rows_are_the_encoded_rows(tiny, tmp_path, name, kind, max_tokens):
    backbone, tried, is_cut = tiny(kind), 0, False
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTPROMPTS_CACHE", str(tmp_path))
        for readout_kind in ("linear", "cloze", "text"):
            try:
                readout = build(backbone, readout_kind, TASKS[name], max_tokens=max_tokens)
            except BackboneError:
                continue
            examples = rows(TASKS[name])
            cold = [readout.encode(example) for example in examples]
            assert keep(readout, readout_kind, examples) == cold
            with pytest.MonkeyPatch.context() as inner:
                warm = found(readout, readout_kind, examples, inner)
            assert repr(warm) == repr(cold)  # types too, such as that of roles
            is_cut |= any(example.is_cut for example in warm)
            tried += 1
    assert tried == 2  # linear, and the one that reads the language head
    assert is_cut or not max_tokens


def test_any_order_and_part_of_kept_rows_is_found(tiny, folder, monkeypatch):
    readout, examples = build(tiny("bert"), "linear"), rows(count=20)
    cold = keep(readout, "linear", examples)
    again = found(readout, "linear", [*examples[:4:-2], *examples[3:5], examples[3]], monkeypatch)
    assert again == [*cold[:4:-2], *cold[3:5], cold[3]]


def test_a_row_twice_is_encoded_and_kept_once(tiny, folder):
    readout, examples = build(tiny("bert"), "linear"), rows(count=2)
    assert len(keep(readout, "linear", [*examples, examples[0]])) == 3
    cache = open_encoding_cache(Component(kind="linear"), readout)
    cache.encode(readout, examples[:1])
    assert len(cache.cache._values) == 2


def test_what_would_not_come_back_equal_is_not_kept():
    item = EncodedInput((1, 2), (0, 0), (1, 3), 0, 2, targets=(Target(1, (7, 8)), Target(0, ())))
    row = EncodedExample((replace(item, fields=("a", "é")),), 2, (1,), True)
    assert from_bytes(to_bytes(row)) == row
    for bad in ({"ids": (1, {2})}, {"roles": (1, 99)}, {"marks": ((1,),)}):
        assert to_bytes(EncodedExample((replace(item, **bad),), 2, (1,), True)) is None


def test_bad_rows_fail_as_without_a_cache(tiny, folder):
    readout = build(tiny("bert"), "linear", max_tokens=16)
    bad = Example({"text": "a"}, source="file:7")
    for _ in range(2):
        with pytest.raises(DataError, match=r"file:7.*`aspect`: must be present"):
            keep(readout, "linear", [*rows(), bad])


# --- never stale ---


def test_what_an_encoding_depends_on_is_part_of_its_key(tiny, folder, monkeypatch):
    bert = tiny("bert")
    examples = rows(count=5)
    keep(build(bert, "linear"), "linear", examples)
    assert count_encoded(build(bert, "linear"), "linear", examples) == 0
    template = {**FORMAT.templates, "linear": "{aspect} {sep} {text}"}
    words = {**FORMAT.verbalizer, "bad": "cold"}
    others = [
        build(tiny("roberta"), "linear"),
        build(bert, "cloze"),
        build(bert, "linear", length=4),
        build(bert, "linear", max_tokens=20),
        build(bert, "linear", replace(FORMAT, templates=template)),
        build(bert, "linear", replace(FORMAT, verbalizer=words)),
    ]
    for other in others:
        kind = "cloze" if type(other) is READOUTS.load("cloze") else "linear"
        assert count_encoded(other, kind, examples) == 5
    pooled = Component(kind="linear", pool="cls")
    assert count_encoded(build(bert, "linear", pool="cls"), "linear", examples, pooled) == 5
    monkeypatch.setattr(encoding_cache, "version", lambda name: "0.0")
    assert count_encoded(build(bert, "linear"), "linear", examples) == 5
    monkeypatch.setattr(encoding_cache, "_code_digest", lambda readout: "changed")
    assert count_encoded(build(bert, "linear"), "linear", examples) == 5


def test_a_tokenizer_with_a_token_more_has_rows_of_its_own(tiny, backbone_folder, folder):
    from softprompts.backbones.loading import load_backbone

    keep(build(tiny("bert"), "linear"), "linear", rows())
    other = load_backbone(str(backbone_folder("bert")))
    other.tokenizer.add_tokens(["waiter"])
    assert count_encoded(build(other, "linear"), "linear", rows()) == len(rows())


def test_a_row_is_found_by_all_of_it_but_its_place():
    row = Example({"a": "x", "b": "y"}, (1,), ("p", "q"), ("r",), "g", "file:1")
    assert row_key(replace(row, source="file:2")) == row_key(row)
    others = [
        {"fields": {"a": "x", "b": "z"}},
        {"fields": {"a": "xb", "b": "y"}},
        {"answers": (0,)},
        {"choices": ("p",)},
        {"references": ()},
        {"group": ""},
    ]
    keys = {row_key(replace(row, **other)) for other in others} | {row_key(row)}
    assert len(keys) == 7


def test_what_cannot_be_told_is_not_kept(tiny, folder, monkeypatch):
    class Drawing:
        def __getattr__(self, name):
            return getattr(tiny("bert").tokenizer, name)

        class backend_tokenizer:  # noqa: N801
            class model:  # noqa: N801
                dropout = 0.1

    config, readout = Component(kind="linear"), build(tiny("bert"), "linear")
    assert open_encoding_cache(config, readout) is not None
    assert open_encoding_cache(Component(kind="cloze"), readout) is None  # not the registered one
    readout.tokenization.tokenizer = Drawing()
    assert open_encoding_cache(config, readout) is None
    readout = build(tiny("bert"), "linear")
    del readout.tokenization
    assert open_encoding_cache(config, readout) is None
    readout = build(tiny("bert"), "linear")
    monkeypatch.setattr(encoding_cache, "_code_digest", lambda readout: None)
    assert open_encoding_cache(config, readout) is None
    assert not folder.exists()


# --- safe to lose ---


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "foreign", "keys"])
def test_a_broken_file_is_set_aside_and_its_rows_encoded(tiny, folder, caplog, harm):
    readout = build(tiny("bert"), "linear")
    cold = keep(readout, "linear", rows())
    [path] = files(folder)
    raw = bytearray(path.read_bytes())
    if harm == "flip":
        raw[-20] ^= 1
    if harm == "foreign":
        storage.write_tensors(path, {"a": torch.zeros(2)}, {"b": 1})
    elif harm == "keys":
        tensors, about = storage.read_tensors(path)
        tensors["ends"][-1] += 1
        storage.write_tensors(path, tensors, about)
    else:
        path.write_bytes({"cut": raw[:-9], "flip": raw, "empty": b""}[harm])
    with caplog.at_level(logging.WARNING):
        assert keep(readout, "linear", rows()) == cold
    [line] = [record.getMessage() for record in caplog.records]
    assert str(path) in line
    assert "made again" in line
    assert len(files(folder, ".broken")) == 1
    assert count_encoded(readout, "linear", rows()) == 0


def test_a_folder_that_cannot_be_written_is_one_line(tiny, folder, caplog):
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    readout = build(tiny("bert"), "linear")
    with unprivileged():
        assert len(keep(readout, "linear", rows())) == len(rows())
    folder.chmod(0o700)
    assert len(caplog.records) == 1


def test_a_full_disk_is_one_line_and_leaves_nothing(tiny, folder, caplog, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    readout = build(tiny("bert"), "linear")
    monkeypatch.setattr(storage.os, "fsync", full)
    cold = keep(readout, "linear", rows())
    assert cold == [readout.encode(row) for row in rows()]
    [line] = [record.getMessage() for record in caplog.records]
    assert "No space left on device" in line
    assert "Encoded rows of this process are not kept." in line
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_many_files_become_one_and_lose_nothing(tiny, folder):
    readout, examples = build(tiny("bert"), "linear"), rows(count=40)
    cache = open_encoding_cache(Component(kind="linear"), readout)
    for example in examples:
        cache.encode(readout, [example])
    assert len(files(folder)) < 10
    assert count_encoded(readout, "linear", examples) == 0
    cold = [readout.encode(example) for example in examples]
    assert keep(readout, "linear", examples) == cold
    assert cache.encode(readout, examples) == cold


def test_the_oldest_files_go_over_the_bound(tiny, folder, monkeypatch):
    first, second = build(tiny("bert"), "linear"), build(tiny("bert"), "cloze")
    keep(first, "linear", rows())
    [path] = files(folder)
    os.utime(path, (1, 1))
    keep(second, "cloze", rows())
    [other] = set(files(folder)) - {path}
    bound = path.stat().st_size + other.stat().st_size - 1
    other.unlink()
    monkeypatch.setenv("SOFTPROMPTS_CACHE_BYTES", str(bound))
    keep(second, "cloze", rows())
    assert path not in files(folder)
    assert count_encoded(second, "cloze", rows()) == 0


def test_a_wrong_bound_is_one_line(tiny, folder, caplog, monkeypatch):
    monkeypatch.setenv("SOFTPROMPTS_CACHE_BYTES", "2 GiB")
    assert open_encoding_cache(Component(kind="linear"), build(tiny("bert"), "linear")) is None
    [line] = [record.getMessage() for record in caplog.records]
    assert "'2 GiB'" in line


def test_several_may_fill_a_folder_at_once(tiny, folder, caplog):
    readout, examples = build(tiny("bert"), "linear"), rows(count=40)
    cold = {row_key(example): readout.encode(example) for example in examples}

    class Known:
        def encode(self, example):
            return cold[row_key(example)]

    def fill(first):  # each call opens the folder anew, as a process does
        cache = open_encoding_cache(Component(kind="linear"), readout)
        for start in range(first, 80, 2):
            part = [examples[start % 40], examples[(start + 7) % 40]]
            assert cache.encode(Known(), part) == [cold[row_key(row)] for row in part]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, range(4)))
    assert not caplog.records
    assert count_encoded(readout, "linear", examples) == 0
    assert list(cold.values()) == keep(readout, "linear", examples)


# --- who asks ---


class Asked:
    """A run's configuration, as far as encoding looks at it."""

    backbone = "any"
    tasks = {"one": "any"}  # noqa: RUF012
    readout = Component(kind="linear")
    prompt = SimpleNamespace(length=0, depth="input", position="fixed", context=None)


def test_many_rows_are_looked_for_on_disk_and_few_are_not(tiny, folder, monkeypatch):
    readout, many = build(tiny("bert"), "linear"), rows(count=LEAST_ROWS)
    Resources().encode(Asked, "one", readout, many[:-1])
    assert not folder.exists()
    cold = Resources().encode(Asked, "one", readout, many)
    assert len(files(folder)) == 1
    monkeypatch.setattr(type(readout), "encode", lambda self, example: refuse(example))
    warm = Resources().encode(Asked, "one", readout, many)
    assert repr(warm) == repr(cold)
    assert type(warm[0].inputs[0].roles[0]) is Role


def test_off_keeps_nothing(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTPROMPTS_CACHE", "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    readout = build(tiny("bert"), "linear")
    assert len(Resources().encode(Asked, "one", readout, rows(count=LEAST_ROWS))) == LEAST_ROWS
    assert not list(tmp_path.iterdir())
