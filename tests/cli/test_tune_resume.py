"""Tuning stops and goes on: what is there is not made again, and the choices are the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_material import interrupted, tree
from tune_material import chosen, scores, tuned, tuning_study

from softprompts.cli.main import main
from softprompts.lab.reports.report import write_report
from softprompts.lab.studies import worker_loop

Begun = list[tuple[str, float, int, int]]

pytestmark = pytest.mark.filterwarnings("always:tuning :softprompts.errors.SoftPromptsWarning")


@pytest.fixture(scope="module")
def made(backbone_folder, tmp_path_factory) -> tuple[dict[str, Any], Path]:
    """A study and the folder that it was run in; nothing may change them."""
    place = tmp_path_factory.mktemp("tuned")
    study = {**tuning_study(backbone_folder("bert"), place / "data"), "pack_size": 1}
    (place / "recipe.yaml").write_text(json.dumps(study))
    arguments = ["study", str(place / "recipe.yaml"), "--out", str(place / "out"), "--no-report"]
    assert main(arguments) == 0
    return study, place / "out"


@pytest.fixture
def copied(made, recipe, tmp_path) -> tuple[str, Path]:
    """The recipe and a copy of the folder."""
    shutil.copytree(made[1], tmp_path / "out")
    return recipe(made[0]), tmp_path / "out"


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begun:
    """Method, rate, updates and seed of every run that is begun; none is in a pack."""
    calls: Begun = []
    real = worker_loop.execute

    def execute(config: Any, *args: Any, **options: Any) -> Any:
        training = config.training
        about = (config.prompt.method, training.learning_rate, training.steps, config.seed)
        calls.append(about)
        return real(config, *args, **options)

    monkeypatch.setattr(worker_loop, "execute", execute)
    return calls


def summary_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def forget(folder: Path, num_runs: int) -> None:
    """Take the results of some runs of a study away, as if they had been killed before the end."""
    for run in sorted((folder / "runs").iterdir())[:num_runs]:
        (run / "result.json").unlink()
        (run / "prompt.safetensors").unlink()


def test_the_same_command_again_trains_and_reads_nothing(
    capsys, recipe, made, copied, tmp_path, begun
):
    out = copied[1]
    before = tree(out)
    study = json.loads(json.dumps(made[0]))
    study["base"]["task"]["data_dir"] = str(tmp_path / "nowhere")
    assert scores(tuned(capsys, recipe(study), out)) == scores(summary_of(made[1]))
    assert begun == []
    assert {k for k, v in tree(out).items() if before.get(k) != v} == {"study.json"}
    tuned(capsys, recipe(made[0]), out)
    assert tree(out) == before


@pytest.mark.parametrize(
    ("lost", "num_runs"),
    [("choices", 0), ("some of both rungs", 5), ("a rung", 8), ("some of the study", 2)],
)
def test_what_was_lost_is_made_again_and_nothing_else(capsys, made, copied, begun, lost, num_runs):
    path, out = copied
    if lost == "some of the study":
        forget(out, 2)
    else:
        (out / "tuning" / "chosen.json").unlink()
    if lost == "some of both rungs":
        forget(out / "tuning" / "rung-0", 2)
        forget(out / "tuning" / "rung-1", 3)
    if lost == "a rung":
        shutil.rmtree(out / "tuning" / "rung-1")
    found = tuned(capsys, path, out)
    assert len(begun) == num_runs
    assert chosen(out) == chosen(made[1])
    assert scores(found) == scores(summary_of(made[1]))


def stopped(capsys: Any, path: str, out: Path, stop: int) -> dict[str, Any]:
    """Interrupt a study at an update, look at its folder, and go on to the end."""
    assert interrupted(["study", path, "--out", str(out), "--no-report"], stop) == 130
    assert (out / "tuning" / "rung-1" / "study.json").exists() == (stop > 32)
    assert (out / "tuning" / "chosen.json").exists() == (stop > 80)
    page = Path(write_report(out)["html"]).read_text()
    assert ("training.learning_rate is not tuned yet" in page) == (stop <= 80)
    return tuned(capsys, path, out)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [5, 41])
def test_a_killed_tuning_goes_on(capsys, recipe, made, tmp_path, stop):
    """32 updates of the first rung, 48 of the second, then 24 of the study."""
    found = stopped(capsys, recipe(made[0]), tmp_path / "out", stop)
    assert found["tuning"] == chosen(made[1])
    assert scores(found) == scores(summary_of(made[1]))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [5, 41, 83])
def test_a_killed_tuning_in_packs_goes_on(capsys, recipe, made, tmp_path, stop):
    path = recipe({**made[0], "pack_size": 8})
    found = stopped(capsys, path, tmp_path / "out", stop)
    whole = tuned(capsys, path, tmp_path / "whole")
    assert found["tuning"] == whole["tuning"]
    assert scores(found) == scores(whole)


def test_a_study_that_grows_tunes_what_is_new(capsys, recipe, made, copied, begun):
    study, out = json.loads(json.dumps(made[0])), copied[1]
    study["variants"]["bare"] = {"prompt.method": "head-only", "prompt.length": 0}
    study["seeds"] = 3
    tuned(capsys, recipe(study), out)
    assert {method for method, *_, seed in begun if seed >= 1000} == {"head-only"}
    first = chosen(made[1])["choices"]
    *before, last = chosen(out)["choices"]
    assert before == first
    assert [seed for *_, seed in begun if seed < 1000] == [2, 2, 0, 1, 2]
    assert (last["variant"], last["value"]) == ("bare", 0.001)
    assert last["updates"] == first[0]["updates"]


def test_other_candidates_are_tuned_anew(capsys, recipe, made, copied, begun):
    out = copied[1]
    tuned(capsys, copied[0], out, "--tune-values", "0.001,0.03,0.3,2.0")
    assert {rate for _, rate, steps, _ in begun if steps == 2} == {2.0}
    assert chosen(out)["values"] == [0.001, 0.03, 0.3, 2.0]


def test_a_failed_run_stops_tuning_and_is_tried_again(capsys, recipe, made, tmp_path, monkeypatch):
    path, out, real = recipe(made[0]), tmp_path / "out", worker_loop.execute

    def execute(config: Any, *args: Any, **options: Any) -> Any:
        if config.training.learning_rate == 0.03 and config.prompt.method == "residual":
            raise MemoryError("no room")
        return real(config, *args, **options)

    monkeypatch.setattr(worker_loop, "execute", execute)
    assert main(["study", path, "--out", str(out)]) == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert "must have every run before anything is chosen, but lacks 2 of 16: resid" in line
    assert line.endswith(
        "residual, learning_rate 0.03, seed 1000: MemoryError: no room. The same command tries "
        "again."
    )
    assert not (out / "tuning" / "chosen.json").exists()
    assert not (out / "summary.json").exists()
    monkeypatch.setattr(worker_loop, "execute", real)
    assert tuned(capsys, path, out)["tuning"] == chosen(made[1])


def test_a_study_that_has_its_choices_is_not_tuned_again(capsys, recipe, made, tmp_path, begun):
    kept = json.loads((made[1] / "study.json").read_text())
    found = tuned(capsys, recipe(kept), tmp_path / "again")
    assert all(seed < 1000 for *_, seed in begun)
    assert scores(found) == scores(summary_of(made[1]))
    assert "tuning" not in found
