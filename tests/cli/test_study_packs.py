"""`softprompts study` in packs: killed, shared, interrupted, short of memory, still the same."""

from __future__ import annotations

import json
import random
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_material import asking, files_task, rows, write_rows

from softprompts.cli.main import main
from softprompts.lab.studies.planning import Pack
from softprompts.lab.studies.progress import StudyProgress
from softprompts.lab.studies.runner import run_study
from softprompts.locks import lock
from softprompts.training import joint, pack
from softprompts.training.progress import Silent

TIMES = {"seconds", "examples_per_second", "peak_bytes"}
KILLS = 10
SAID = pytest.mark.filterwarnings("default::softprompts.errors.SoftPromptsWarning")
"""The command prints such a warning in one line, which the test looks at."""

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Send a request to a process that forks a child per study; see `study_server.py`."""
    with asking("study_server.py") as request:
        yield lambda *studies, **end: request({"studies": studies, **end})


@pytest.fixture(scope="module")
def study(
    backbone_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Nine runs in two packs: some draw dropout, some diverge, some stop early."""
    data = tmp_path_factory.mktemp("data")
    write_rows(data / "train.jsonl", rows(0, 24))
    write_rows(data / "val.jsonl", rows(100, 110))
    residual = {"kind": "residual", "bottleneck": 4, "dropout": 0.3}
    training = {"batch_size": 4, "learning_rate": 0.1, "steps": 6, "num_evaluations": 3}
    wild = {"training.learning_rate": 1e30, "training.clip_norm": None}
    return {
        "name": "packed",
        "base": {
            "backbone": {"name": str(backbone_folder("bert"))},
            "task": files_task(data),
            "prompt": {"method": "prompt-tuning", "length": 4},
            "training": training,
        },
        "variants": {
            "plain": {"training.patience": 1},
            "residual": {"prompt.rows": residual, "training.steps": 8},
            "wild": wild,
        },
        "seeds": 3,
        "pack_size": 5,
    }


@pytest.fixture(scope="module")
def recipe(study: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "packed.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return str(path)


@pytest.fixture(scope="module")
def whole(recipe: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of the uninterrupted study, and what must be equal."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(["study", recipe, "--out", str(out), "--no-report"]) == 1  # a variant diverged
    return out, outcome(out)


def outcome(out: Path) -> dict[str, Any]:
    """Return what must be equal: prompts, metrics, results, and the summary, times aside."""
    found: dict[str, Any] = {"packs": json.loads((out / "packs.json").read_text())}
    for folder in sorted((out / "runs").iterdir()):
        result = json.loads((folder / "result.json").read_text())
        found[folder.name] = (
            (folder / "prompt.safetensors").read_bytes(),
            (folder / "metrics.jsonl").read_text(),
            {key: value for key, value in result.items() if key not in TIMES},
        )
    summary = json.loads((out / "summary.json").read_text())
    for line in summary["cells"]:
        del line["seconds"]
    return found | {"summary": summary}


def ended(text: str) -> list[str]:
    """Return the runs that a process says it has ended itself."""
    lines = re.findall(r"^\[\d+/\d+\] (.+): (?!ended in another)", text, re.MULTILINE)
    return [line.split(":")[0] for line in lines]


def test_the_study_is_packed_and_has_all_kinds_of_ends(whole):
    out, found = whole
    assert [len(one["runs"]) for one in found["packs"]["packs"]] == [4, 5]
    results = [value[2] for key, value in found.items() if key not in ("packs", "summary")]
    assert len(results) == 9
    assert sum(result["status"] == "diverged" for result in results) == 3
    assert len({result["steps"] for result in results}) > 2
    assert not list(out.rglob("checkpoint.safetensors"))


@pytest.mark.slow
def test_a_study_killed_at_random_moments_ends_as_if_undisturbed(ask, recipe, whole, tmp_path):
    draws = random.Random("kills of a study")
    kills = kept = sitting = 0
    while kills < KILLS:
        out = tmp_path / f"killed-{sitting}"
        sitting += 1
        arguments, is_over = [recipe, "--out", str(out), "--json"], False
        while not is_over:
            moment: dict[str, Any] = {"kill_at": [draws.randrange(1, 60), draws.random() < 0.5]}
            if draws.random() < 0.3:
                moment = {"kill_after": draws.uniform(0.05, 1.0)}
            (answer,) = ask(arguments, **moment)
            is_over = answer["exit_code"] == 1
            assert answer["exit_code"] in (1, -signal.SIGKILL), answer["errors"]
            kills += not is_over
            kept += not is_over and bool(list(out.rglob("checkpoint.safetensors")))
        assert outcome(out) == whole[1]
        assert not list(out.rglob("*.part"))
    assert kept >= KILLS // 4


@pytest.mark.slow
def test_ctrl_c_ends_with_one_line_and_everything_goes_on(ask, recipe, whole, tmp_path):
    arguments = [recipe, "--out", str(tmp_path / "out"), "--json"]
    (answer,) = ask(arguments, interrupt_at=20)
    assert answer["exit_code"] == 130
    lines = [line for line in answer["errors"].splitlines() if not line.startswith("[")]
    assert lines[-1] == "interrupted"
    assert answer["output"] == ""
    (answer,) = ask(arguments)
    assert answer["exit_code"] == 1
    assert outcome(tmp_path / "out") == whole[1]


@pytest.mark.slow
def test_two_processes_share_a_study(ask, recipe, whole, tmp_path):
    arguments = [recipe, "--out", str(tmp_path / "out"), "--json", "--no-report"]
    answers = ask(arguments, arguments)
    assert [answer["exit_code"] for answer in answers] == [1, 1], answers
    assert outcome(tmp_path / "out") == whole[1]
    names = [name for answer in answers for name in ended(answer["errors"])]
    assert len(names) == 9
    assert len(set(names)) == 9
    for answer in answers:  # the faster one may have trained them all
        assert json.loads(answer["output"])["num_finished"] == 9


def test_a_pack_that_another_process_has_is_left_to_it(recipe, whole, tmp_path):
    """The lock of the first pack is held; the second is trained, then the first when it is free."""
    out = tmp_path / "out"
    first = Pack(tuple(whole[1]["packs"]["packs"][0]["runs"]))
    (out / "packs" / first.name).mkdir(parents=True)
    (out / "study.json").write_text(json.dumps({"name": "packed"}))
    held = lock(out / "packs" / first.name / ".lock")
    waits = []

    class Watch(StudyProgress):
        def start(self, cells: Any, num_finished: int) -> None: ...
        def begin(self, cells: Any) -> Any:
            return Silent()

        def end(self, cell: Any, result: Any, error: str) -> None:
            waits.append(cell.identity)

        def find(self, cell: Any) -> None: ...
        def wait(self, num_runs: int) -> None:
            waits.append(num_runs)
            held.close()

    from softprompts.recipes.loading import load_recipe

    config = load_recipe(recipe)
    summary = run_study(config, out, Watch())
    assert summary["num_finished"] == 9
    assert waits.count(4) == 1
    assert waits.index(4) == 5
    assert set(waits[6:]) == set(first.runs)


def small(study: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return two seeds of one variant, in one pack."""
    return {**study, "variants": {"plain": {}}, "seeds": 2, "pack_size": "auto", **changes}


def run_small(capsys: Any, content: Any, tmp_path: Path, *more: str, code: int = 0) -> Any:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    out = tmp_path / "out"
    assert main(["study", str(path), "--out", str(out), "--json", "--no-report", *more]) == code
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err, out


def scores(summary: dict[str, Any]) -> list[float]:
    return [score for line in summary["cells"] for score in line["scores"]]


def test_auto_packs_the_seeds_of_a_cell_and_scores_as_alone(study, tmp_path, capsys):
    content = small(study, variants={"plain": {}, "short": {"prompt.length": 2}})
    packed, _, out = run_small(capsys, content, tmp_path)
    plan = json.loads((out / "packs.json").read_text())
    assert [len(one["runs"]) for one in plan["packs"]] == [2, 2]
    assert plan["pack_size"] == "auto"
    (tmp_path / "alone").mkdir()
    alone, _, _ = run_small(capsys, content, tmp_path / "alone", "--pack-size", "1")
    assert scores(alone) == pytest.approx(scores(packed))


def test_a_study_that_grew_keeps_its_packs(study, tmp_path, capsys):
    _, _, out = run_small(capsys, small(study), tmp_path)
    before = json.loads((out / "packs.json").read_text())["packs"]
    summary, _, _ = run_small(capsys, small(study, seeds=[0, 1, 7, 8]), tmp_path)
    after = json.loads((out / "packs.json").read_text())["packs"]
    assert after[0] == before[0]
    assert [len(one["runs"]) for one in after] == [2, 2]
    assert summary["cells"][0]["seeds"] == [0, 1, 7, 8]


@SAID
def test_runs_that_fail_together_are_trained_one_by_one(study, tmp_path, capsys, monkeypatch):
    real = pack.accumulate

    def accumulate(backbone: Any, shares: Any) -> Any:
        if len(shares) > 1:
            raise ValueError("two are\ntoo many")
        return real(backbone, shares)

    monkeypatch.setattr(pack, "accumulate", accumulate)
    summary, errors, out = run_small(capsys, small(study), tmp_path)
    said = "2 runs failed together and are trained one by one: ValueError: two are too many"
    assert f"warning: {said}" in errors.splitlines()
    assert summary["num_finished"] == 2
    assert json.loads((out / "packs.json").read_text())["packs"][0]["is_apart"] is True


def test_a_run_that_cannot_be_built_does_not_disturb_the_others(
    study, tmp_path, capsys, monkeypatch
):
    real = joint.set_up

    def set_up(config: Any, *args: Any) -> Any:
        if config.seed == 1:
            raise ValueError("seed 1 is ill")
        return real(config, *args)

    monkeypatch.setattr(joint, "set_up", set_up)
    summary, errors, out = run_small(capsys, small(study, seeds=3), tmp_path, code=1)
    (line,) = summary["cells"]
    assert (line["seeds"], line["num_failed"]) == ([0, 2], 1)
    assert line["errors"] == ["ValueError: seed 1 is ill"]
    (kept,) = (out / "errors").iterdir()
    assert json.loads(kept.read_text())["error"] == "ValueError: seed 1 is ill"
    assert "failed: ValueError: seed 1 is ill" in errors

    monkeypatch.setattr(joint, "set_up", real)
    summary, _, out = run_small(capsys, small(study, seeds=3), tmp_path)
    assert summary["cells"][0]["seeds"] == [0, 1, 2]
    assert summary["cells"][0]["errors"] == []
    assert list((out / "errors").iterdir()) == []


@SAID
def test_a_lack_of_memory_is_said_and_answered(study, tmp_path, capsys, monkeypatch):
    whole, _, _ = run_small(capsys, small(study), tmp_path)
    real = pack.accumulate

    def accumulate(backbone: Any, shares: Any) -> Any:
        found = real(backbone, shares)  # half of the work is done when memory runs out
        if sum(share.part.batch.size for share in shares) > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")
        return found

    monkeypatch.setattr(pack, "accumulate", accumulate)
    (tmp_path / "short").mkdir()
    summary, errors, out = run_small(capsys, small(study), tmp_path / "short")
    said = [line for line in errors.splitlines() if line.startswith("warning: memory does not")]
    assert 1 <= len(said) == len(set(said))
    assert scores(summary) == pytest.approx(scores(whole))
    for folder in (out / "runs").iterdir():
        bound = json.loads((folder / "result.json").read_text())["most_positions"]
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert bound == [line for line in lines if "most_positions" in line][-1]["most_positions"]


@pytest.mark.parametrize(
    ("value", "shown"), [("0", "0"), ("many", "'many'"), ("true", "true"), ("2.5", "2.5")]
)
def test_a_wrong_pack_size_is_refused(recipe, capsys, value, shown):
    assert main(["study", recipe, "--pack-size", value]) == 2
    error = capsys.readouterr().err
    assert f"`pack_size` must be auto, or a whole number of at least 1, but is {shown}." in error


def test_a_broken_plan_is_refused(study, tmp_path, capsys):
    path, out = tmp_path / "small.yaml", tmp_path / "out"
    out.mkdir()
    (out / "study.json").write_text(json.dumps({"name": "packed"}))
    (out / "packs.json").write_text('{"pack_size": 2, "packs": [7]}')
    path.write_text(yaml.safe_dump(small(study, seeds=3)))
    assert main(["study", str(path), "--out", str(out)]) == 2
    assert f"{out / 'packs.json'} must be a plan of packs" in capsys.readouterr().err
