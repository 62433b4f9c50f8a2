"""The benchmark against peft: it runs, it is fair, and its page says what it found."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
SECTIONS = ("training", "inference", "scaling", "memory", "startup")

# peft asks for a name that transformers has renamed; nothing of ours is concerned.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def load_writer() -> Any:
    spec = importlib.util.spec_from_file_location(
        "write_throughput", ROOT / "docs" / "results" / "write_throughput.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


writer = load_writer()


def run(program: str, *arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCHMARKS / program), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]


def measured(folder: Path, *sections: str) -> dict[str, Any]:
    """Measure sections for real, on tiny models."""
    file = folder / "throughput.json"
    arguments = ("--quick", "--threads", "1", "--out", str(file), "--sections", *sections)
    run("throughput.py", *arguments)
    found: dict[str, Any] = json.loads(file.read_text())
    assert tuple(found) == sections
    for section in found.values():
        assert section["about"]["threads"] == 1
        assert section["about"]["is_quick"]
        assert section["cases"]
    return found


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what is measured once for all processes of a session."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with FileLock(folder / "throughput.lock"):
        file = folder / "throughput.json"
        if not file.exists():
            return measured(folder, *SECTIONS[:3])
        found: dict[str, Any] = json.loads(file.read_text())
        return found


@pytest.mark.slow
def test_speed_is_measured(quick):
    assert list(quick["inference"]["cases"]) == ["tiny-bert bundled", "tiny-llama bundled"]
    assert len(quick["scaling"]["cases"]) == 5
    assert len(quick["training"]["cases"]) == 4
    peers = {"peft, default", "peft, best"}
    for section, others in (("training", {"bare loop", *peers}), ("inference", peers)):
        for case in quick[section]["cases"].values():
            assert set(case["contestants"]) == {"softprompts", *others}
            assert set(case["ratios"]) == others
            for one in case["contestants"].values():
                assert 0 < one["limit_share"] < 1.5
                assert 0 < one["median_share"] < 1.5
            assert all(0 < r["least"] <= r["median"] <= r["most"] for r in case["ratios"].values())


@pytest.mark.slow
def test_memory_and_startup_are_measured(tmp_path):
    found = measured(tmp_path, *SECTIONS[3:])
    for name in ("tiny-bert bundled", "tiny-llama bundled"):
        memory = found["memory"]["cases"][name]["contestants"]
        assert set(memory) == {"softprompts", "peft, default"}
        for one in memory.values():
            assert 0 < one["added_bytes"] == one["peak_bytes"] - one["loaded_bytes"]
    startup = found["startup"]["cases"]["minilm bundled"]["cold"]
    parts = set(startup) - {"whole", "tokenization"}
    assert 0 < startup["tokenization"] < startup["to the first update"]
    assert startup["whole"] == pytest.approx(sum(startup[part] for part in parts), abs=0.05)
    text = writer.page(found, None)
    assert "\n## Memory\n" in text
    assert "\n## Startup\n" in text


@pytest.mark.slow
def test_one_case_is_made_anew_and_the_others_are_kept(quick, speed, monkeypatch):
    import throughput
    from transformers import logging

    file, level = speed.scratch / "throughput.json", logging.get_verbosity()
    file.write_text(json.dumps(quick))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    command = ["--quick", "--sections", "training", "--rounds", "1", "--out", str(file), "--cases"]
    try:
        throughput.main([*command, "tiny-gpt2 bundled"])
        found = json.loads(file.read_text())
        with pytest.raises(SystemExit, match="no section has the case 'tiny-gpt3'"):
            throughput.main([*command, "tiny-gpt3"])
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
    assert {**found, "training": None} == {**quick, "training": None}
    old, new = quick["training"]["cases"], found["training"]["cases"]
    assert list(new) == list(old)
    assert new["tiny-bert bundled"] == old["tiny-bert bundled"]
    assert new["tiny-gpt2 bundled"]["rounds"] == 1
    assert old["tiny-gpt2 bundled"]["rounds"] == 2


@pytest.mark.slow
def test_a_page_is_made_of_every_section(quick):
    text = writer.page(quick, None)
    for section in SECTIONS[:3]:
        assert f"\n## {section.capitalize()}\n" in text
    assert set(writer.pictures(quick)) == {"throughput-training.svg", "throughput-scaling.svg"}


@pytest.mark.slow
def test_packs_on_an_accelerator_run_tiny(tmp_path):
    file = tmp_path / "gpu.json"
    run("gpu.py", "--tiny", "--out", str(file))
    found = json.loads(file.read_text())
    points = [(point["runs"], point["is_compiled"]) for point in found["points"]]
    assert points == [(1, False), (2, False), (1, True), (2, True)]
    for point in found["points"]:
        total = point["runs"] * point["updates_per_second_and_run"]
        assert point["updates_per_second"] == pytest.approx(total, rel=0.01)
    assert "\n## Packs on an accelerator\n" in writer.page({}, found)


def test_the_page_is_made_of_the_results():
    """Make it again with `python docs/results/write_throughput.py`."""
    found, gpu = writer.read()
    assert writer.PAGE.read_text("utf-8") == writer.page(found, gpu)
    for name, picture in writer.pictures(found).items():
        assert (writer.FIGURES / name).read_bytes() == picture, name


def test_what_is_missed_busy_or_skipped_is_said():
    figures = {"examples_per_second": 9.0, "median_milliseconds": 1.0}
    figures |= {"limit_share": 0.5, "median_share": 0.54}
    ratio = {"whole": 3.2, "median": 3.4, "least": 3.0, "most": 4.0}
    case = {
        "batch_size": 16,
        "rows": 10,
        "contestants": {"softprompts": figures, "peft, best": figures},
        "ratios": {"peft, best": ratio},
    }
    about = {
        "processor": "p",
        "cores": 2,
        "threads": 2,
        "dtype": "bfloat16",
        "versions": {"torch": "2"},
        "load_average": 1.1,
        "matrix_gflops": {"bfloat16": {"1": 400.0}},
    }
    cases = {"minilm cb": case, "minilm rte": {"skipped": "no files of rte in --data-dir"}}
    text = writer.page({"training": {"about": about, "cases": cases}}, None)
    ours, theirs = "9.0 | 1 | 50 % (54) |", "9.0 | 1 | 50 % (54) | 3.20 (3.40, 3.00–4.00) |"
    assert f"| minilm cb | peft, best | {theirs} 3.5 | no |" in text
    assert f"| minilm cb | softprompts | {ours}  | 55 % | no |" in text
    assert "**The machine was busy** (load 1.1 on 2 cores" in text
    assert "Skipped: minilm rte, no files of rte in --data-dir." in text
    calm = writer.page(
        {"training": {"about": {**about, "load_average": 0.9}, "cases": cases}}, None
    )
    assert "busy" not in calm.split("## Training")[1]


@pytest.fixture
def speed(monkeypatch, tmp_path):
    """The benchmark's parts, and where they work."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from speed.case import Workplace

    return Workplace(None, tmp_path)


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-t5", "tiny-gpt2", "tiny-llama"])
def test_all_read_the_same_tokens_and_learn(speed, model):
    from speed.case import Case, Ready
    from speed.peers import SETUPS, Host, TokenCount, build_trainer
    from speed.race import Race

    ready = Ready(Case(model, "bundled", num_examples=20, batch_size=8, length=3), speed)
    bare, peer = ready.bare(), ready.peer("peft, default")
    mine = ready.ours.members[0].model.prompt.pool.rows.weight
    theirs, by_hand = peer.prompt_encoder["default"].embedding.weight, bare._rows
    before = [rows.detach().clone() for rows in (mine, theirs, by_hand)]
    race = Race([ready.ours, bare], num_rounds=3, num_warm=0)
    trainer = build_trainer(
        peer,
        ready.records(),
        ready.backbone.tokenizer,
        SETUPS["peft, default"],
        batch_size=8,
        folder=speed.scratch / "trainer",
        callbacks=[Host(race.turn)],
    )
    race.begin(TokenCount(peer))
    trainer.train()
    real = sum(len(row.inputs[0].ids) for row in ready.encoded) + 3 * 20
    for name, lap in {"peft": race.host, **race.laps}.items():
        assert len(lap.tokens) == len(lap.seconds) == 3, name
        assert sum(lap.tokens) == real, name  # three updates of 8, 8 and 4 are all rows
    assert ready.tokens_per_example * 20 == pytest.approx(real)
    for old, rows in zip(before, (mine, theirs, by_hand), strict=True):
        assert not torch.equal(old, rows.detach())


def test_a_race_leaves_warm_up_out_and_takes_turns(speed):
    from speed.contestants import Contestant
    from speed.race import Race

    order = []

    class Guest(Contestant):
        def __init__(self, name):
            self.name = name

        def step(self):
            order.append(self.name)
            return len(order)

    class Count:
        def take(self):
            order.append("host")
            return 7

    race = Race([Guest("a"), Guest("b")], num_rounds=2, num_warm=1)
    race.begin(Count())
    assert [race.turn() for _ in range(3)] == [True, True, False]
    assert order == ["host", "a", "b"] * 3
    assert race.host.tokens == [7, 7]
    assert race.laps["a"].tokens == [5, 8]


def test_a_stint_is_several_updates_of_each(speed):
    from speed.contestants import Contestant
    from speed.race import Race, longest_stint

    order = []

    class Guest(Contestant):
        name = "guest"

        def step(self):
            order.append("guest")
            return len(order)

    class Count:
        def take(self):
            order.append("host")
            return 7

    race = Race([Guest()], num_rounds=4, num_warm=2, stint=3)
    race.begin(Count())
    assert [race.turn() for _ in range(6)] == [True] * 5 + [False]
    assert order == ["host"] * 3 + ["guest"] * 3 + ["host"] * 3 + ["guest"] * 3
    assert race.host.tokens == [7] * 4
    assert race.laps["guest"].tokens == [6, 10, 11, 12]  # the first two are warm-up
    assert [longest_stint(n) for n in (38, 16, 8, 5)] == [4, 3, 2, 1]
    with pytest.raises(ValueError, match=r"`stint` must divide 4 \+ 2 rounds, but is 4"):
        Race([Guest()], num_rounds=4, stint=4)


def test_ratios_are_of_tokens_per_second_in_blocks(speed):
    from speed.race import Lap, ratios

    fast = Lap([1.0, 1.0, 1.0, 1.0], [30, 10, 10, 10])
    slow = Lap([2.0, 2.0, 4.0, 1.0], [10, 10, 10, 10])
    blocks = {"median": 3.25, "least": 2.5, "most": 4.0}
    assert ratios(fast, slow, 2) == {"whole": 3.375, **blocks}
    assert fast.rate == 15.0


def test_layer_parameters_leave_embeddings_and_heads_out(speed):
    from speed.shapes import layer_parameters

    bert = 2 * (4 * (32 * 32 + 32) + 2 * 32 * 64 + 64 + 32 + 4 * 32)
    assert layer_parameters(speed.backbone("tiny-bert", "bundled")) == bert
    encoder = 2 * (4 * 32 * 32 + 2 * 32 * 64 + 2 * 32) + 32 * 4  # and the table of distances
    crossed = 2 * 2 * 32 * 32
    assert layer_parameters(speed.backbone("tiny-t5", "bundled")) == encoder + crossed


def test_long_rows_are_all_as_long(speed):
    from speed.case import Case, Ready

    case = Case("tiny-bert", speed.long_rows("bundled", 40), max_tokens=40)
    ready = Ready(case, speed)
    assert {len(row.inputs[0].ids) for row in ready.encoded} == {40}


def test_rows_that_are_absent_are_named(speed, tmp_path):
    from speed.case import Workplace

    assert speed.lacks("cb") == "no files of cb in --data-dir"
    assert Workplace(str(tmp_path), tmp_path).lacks("rte") == "no files of rte in --data-dir"
    assert speed.lacks("bundled") is None
