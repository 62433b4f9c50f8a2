"""`softprompts study --tune`: choices on held-out rows, the same budget for each, any kill."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from cli_material import interrupted, rows, tree, write_rows

import softprompts as sp
from softprompts.cli.main import main
from softprompts.errors import RecipeError
from softprompts.reports.report import write_report
from softprompts.studies import sitting

RATE = "training.learning_rate"
VALUES = [0.001, 0.03, 0.3, 1.0]

pytestmark = pytest.mark.filterwarnings("always:tuning :softprompts.errors.SoftPromptsWarning")


@pytest.fixture
def study(run: dict[str, Any]) -> dict[str, Any]:
    """Two variants, four candidates: rungs of 2 and 6 updates."""
    del run["seed"]
    return {
        "name": "small",
        "base": run,
        "variants": {"plain": {}, "residual": {"prompt.method": "residual"}},
        "seeds": 2,
        "tune": {"field": RATE, "values": VALUES},
    }


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, int, int]]:
    """Method, rate, steps and seed of every run that is begun, alone or in a pack."""
    calls: list[tuple[str, float, int, int]] = []
    alone, packed = sitting.execute, sitting.execute_pack

    def note(config: Any) -> None:
        training = config.training
        about = (config.prompt.method, training.learning_rate, training.steps, config.seed)
        calls.append(about)

    def execute(config: Any, *args: Any, **options: Any) -> Any:
        note(config)
        return alone(config, *args, **options)

    def execute_pack(seats: Any, *args: Any, **options: Any) -> None:
        for seat in seats:
            if not (seat.folder / "result.json").exists():
                note(seat.config)
        packed(seats, *args, **options)

    monkeypatch.setattr(sitting, "execute", execute)
    monkeypatch.setattr(sitting, "execute_pack", execute_pack)
    return calls


def tuned(capsys: Any, path: str, out: Path, *more: str, code: int = 0) -> dict[str, Any]:
    assert main(["study", path, "--out", str(out), "--json", "--no-report", *more]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    found: dict[str, Any] = json.loads(captured.out)
    return found


def chosen(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "tuning" / "chosen.json").read_text())
    return found


def choices(out: Path) -> list[tuple[str, float]]:
    return [(one["variant"], one["value"]) for one in chosen(out)["choices"]]


def runs_of(folder: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return configuration and result of every run of a study."""
    return [
        (
            json.loads((run / "config.json").read_text())["config"],
            json.loads((run / "result.json").read_text()),
        )
        for run in sorted((folder / "runs").iterdir())
    ]


def test_each_variant_chooses_by_the_held_out_rows_of_every_rung(capsys, recipe, study, tmp_path):
    out = tmp_path / "out"
    found = tuned(capsys, recipe(study), out)
    assert found["tuning"] == chosen(out)
    assert [path.name for path in sorted((out / "tuning").iterdir())] == [
        "chosen.json",
        "rung-0",
        "rung-1",
    ]
    for one in chosen(out)["choices"]:
        method = {"plain": "prompt-tuning"}.get(one["variant"], one["variant"])
        alive = VALUES
        for number, (rung, size, steps) in enumerate(
            zip(one["rungs"], (4, 2), (2, 6), strict=True)
        ):
            scores: dict[float, list[float]] = {}
            for config, result in runs_of(out / "tuning" / f"rung-{number}"):
                if config["prompt"]["method"] == method:
                    rate = config["training"]["learning_rate"]
                    scores.setdefault(rate, []).append(result["held_out_score"])
                    assert (config["training"]["steps"], result["steps"]) == (steps, steps)
                    assert config["seed"] in (1000, 1001)
                    assert result["num_items"] == 1
            assert (rung["steps"], sorted(scores)) == (steps, sorted(alive))
            assert {t["value"]: t["score"] for t in rung["tried"]} == {
                rate: fmean(own) for rate, own in scores.items()
            }
            order = [t["value"] for t in rung["tried"]]
            means = [fmean(scores[rate]) for rate in order]
            assert (means, len(order)) == (sorted(means, reverse=True), size)
            alive = order[:2]
        assert one["value"] == alive[0]
        rates = {
            config["training"]["learning_rate"]
            for config, _ in runs_of(out)
            if config["prompt"]["method"] == method
        }
        assert rates == {one["value"]}


def test_every_variant_has_the_same_budget_whatever_becomes_of_it(
    capsys, recipe, study, tmp_path, executed
):
    study["base"]["training"]["clip_norm"] = None
    study["tune"]["values"] = [0.001, 0.3, 0.1, 1e30]
    study["variants"]["lame"] = {"training.readout_learning_rate": 1e-9, "prompt.length": 2}
    out = tmp_path / "out"
    tuned(capsys, recipe(study), out)
    budgets = [one["updates"] for one in chosen(out)["choices"]]
    assert budgets == [2 * (4 * 2 + 2 * 6)] * 3
    for one in chosen(out)["choices"]:
        last = one["rungs"][0]["tried"][-1]
        assert (last["value"], last["num_diverged"], last["score"]) == (1e30, 2, None)
        assert one["updates_done"] < one["updates"]
    by_variant = [
        sorted((rate, steps) for m, rate, steps, seed in executed if m == method and seed >= 1000)
        for method in ("residual",)
    ]
    assert [steps for _, steps in by_variant[0]] == [2, 2, 6, 6, 2, 2, 6, 6, 2, 2, 2, 2] or (
        sum(steps for _, steps in by_variant[0]) == budgets[0]
    )


def test_one_rung_is_the_whole_grid(capsys, recipe, study, tmp_path):
    """With fewer candidates than `keep`, tuning is an ordinary study over all of them."""
    study["tune"]["keep"] = 5
    tuned(capsys, recipe(study), tmp_path / "out")
    grid = {k: v for k, v in study.items() if k != "tune"}
    grid |= {"grid": {RATE: VALUES}, "seeds": [1000, 1001]}
    summary = tuned(capsys, recipe(grid, "grid.yaml"), tmp_path / "grid")
    for one in chosen(tmp_path / "out")["choices"]:
        (rung,) = one["rungs"]
        cells = [c for c in summary["cells"] if c["variant"] == one["variant"]]
        means = {c["point"][RATE]: c["held_out"]["mean"] for c in cells}
        assert {t["value"]: t["score"] for t in rung["tried"]} == means
        assert rung["steps"] == 6
        best = [value for value in VALUES if means[value] == max(means.values())]
        losses = {t["value"]: t["loss"] for t in rung["tried"]}
        assert one["value"] == min(best, key=lambda value: (losses[value], value))


def test_the_reported_rows_decide_nothing(capsys, recipe, study, tmp_path, data_dir):
    first = tuned(capsys, recipe(study), tmp_path / "first")
    wrong = [{**row, "label": {"good": "bad", "bad": "good"}[row["label"]]} for row in rows(0, 24)]
    write_rows(data_dir / "val.jsonl", wrong)
    second = tuned(capsys, recipe(study), tmp_path / "second")
    assert first["tuning"] == second["tuning"]
    scores = [[line["mean"] for line in one["cells"]] for one in (first, second)]
    assert scores[0] != scores[1]


def test_the_same_command_again_trains_nothing(capsys, recipe, study, tmp_path, executed, data_dir):
    out = tmp_path / "out"
    first = tuned(capsys, recipe(study), out)
    assert len(executed) == 2 * 2 * (4 + 2) + 4
    executed.clear()
    before = tree(out)
    shutil.rmtree(data_dir)  # not even rows are read
    assert tuned(capsys, recipe(study), out) == first
    assert executed == []
    assert tree(out) == before


def forget(folder: Path, num_runs: int | None = None) -> int:
    """Take the results of some runs of a study away, as if they had been killed."""
    gone = sorted((folder / "runs").iterdir())[:num_runs]
    for run in gone:
        (run / "result.json").unlink()
        (run / "prompt.safetensors").unlink()
    return len(gone)


@pytest.mark.parametrize(
    ("lost", "num_runs"),
    [("chosen", 0), ("last rung", 3), ("both rungs", 5), ("a rung", 8), ("study", 2)],
)
def test_what_was_lost_is_made_again_and_nothing_else(
    capsys, recipe, study, tmp_path, executed, lost, num_runs
):
    study["pack_size"] = 1
    path, out = recipe(study), tmp_path / "out"
    first = tuned(capsys, path, out)
    record = (out / "tuning" / "chosen.json").read_bytes()
    executed.clear()
    if lost == "study":
        forget(out, 2)
    else:
        (out / "tuning" / "chosen.json").unlink()
    if lost == "last rung":
        forget(out / "tuning" / "rung-1", 3)
    if lost == "both rungs":
        forget(out / "tuning" / "rung-0", 2)
        forget(out / "tuning" / "rung-1", 3)
    if lost == "a rung":
        shutil.rmtree(out / "tuning" / "rung-1")
    second = tuned(capsys, path, out)
    assert len(executed) == num_runs
    assert (out / "tuning" / "chosen.json").read_bytes() == record
    assert [c["scores"] for c in second["cells"]] == [c["scores"] for c in first["cells"]]


@pytest.mark.parametrize("stop", [1, 5, 23, 37, 83, 90])
def test_a_killed_tuning_goes_on(capsys, recipe, study, tmp_path, stop):
    """80 updates of tuning, 32 of them in the first rung, then 24 of the study."""
    path, whole, out = recipe(study), tmp_path / "whole", tmp_path / "out"
    first = tuned(capsys, path, whole)
    arguments = ["study", path, "--out", str(out), "--json", "--no-report"]
    assert interrupted(arguments, stop) == 130
    assert (out / "tuning" / "chosen.json").exists() == (stop > 80)
    capsys.readouterr()
    second = tuned(capsys, path, out)
    assert second["tuning"] == first["tuning"]
    assert [c["scores"] for c in second["cells"]] == [c["scores"] for c in first["cells"]]


def test_a_study_that_grows_tunes_what_is_new(capsys, recipe, study, tmp_path, executed):
    out = tmp_path / "out"
    tuned(capsys, recipe(study), out)
    before = chosen(out)["choices"]
    executed.clear()
    study["variants"]["bare"] = {"prompt.method": "head-only", "prompt.length": 0}
    study["seeds"] = 3
    tuned(capsys, recipe(study), out)
    assert {method for method, _, _, seed in executed if seed >= 1000} == {"head-only"}
    assert chosen(out)["choices"][:2] == before
    assert [seed for *_, seed in executed if seed < 1000] == [2, 2, 0, 1, 2]
    last = chosen(out)["choices"][2]
    assert (last["variant"], last["value"], last["updates"]) == (
        "bare",
        0.001,
        before[0]["updates"],
    )


def test_every_cell_of_the_grid_has_a_choice(capsys, recipe, study, tmp_path):
    study["grid"] = {"prompt.length": [2, 5]}
    study["tune"] |= {"seeds": [7], "values": [0.01, 1.0, 3.0]}
    out = tmp_path / "out"
    tuned(capsys, recipe(study), out)
    found = {
        (one["variant"], one["point"]["prompt.length"]): one["value"]
        for one in chosen(out)["choices"]
    }
    assert len(found) == 4
    rates = {
        (config["prompt"]["method"], config["prompt"]["length"]): config["training"]
        for config, _ in runs_of(out)
    }
    for (variant, length), value in found.items():
        method = {"plain": "prompt-tuning"}.get(variant, variant)
        assert rates[method, length]["learning_rate"] == value
    assert {config["seed"] for config, _ in runs_of(out / "tuning" / "rung-0")} == {7}


def test_what_is_printed_and_reported(capsys, recipe, study, tmp_path):
    del study["tune"]
    study["base"]["training"]["learning_rate"] = 0.1
    out = tmp_path / "out"
    assert main(["study", recipe(study), "--out", str(out), "--tune", RATE]) == 0
    printed, errors = capsys.readouterr()
    lines = printed.splitlines()
    assert lines[0] == f"tuned {RATE} among 0.01, 0.0333, 0.1, 0.3, 1.0, on held-out rows:"
    for line, one in zip(lines[1:3], chosen(out)["choices"], strict=True):
        shown = f"  {one['variant']}: {one['value']}, {100 * one['score']:.1f} on held-out rows"
        assert line.startswith(shown)
        is_edge = one["value"] in (0.01, 1.0)
        assert line.endswith("at the edge of the candidates") == is_edge
        assert (f"{one['value']} for {one['variant']}: at the edge" in errors) == is_edge
    assert lines[3] == "budget of tuning: 44 updates for each variant; 88 in all"
    assert "[1/20] plain, learning_rate 0.01, files, seed 1000: " in errors

    page = (out / "report.html").read_text()
    assert "Tuned values of training.learning_rate" in page
    table = (out / "tables" / "tuning.csv").read_text().splitlines()
    assert table[0].startswith("task,variant,point,value,score,last_rung,num_diverged,updates")
    assert [line.split(",")[1] for line in table[1:]] == ["plain", "residual"]
    assert write_report(out / "tuning" / "rung-0")["state"] == "finished"


def test_a_report_before_the_end_of_tuning_says_so(capsys, recipe, study, tmp_path):
    out = tmp_path / "out"
    path = recipe(study)
    assert interrupted(["study", path, "--out", str(out)], 5) == 130
    page = Path(write_report(out)["html"]).read_text()
    assert "training.learning_rate is not tuned yet" in page


def test_options_win_over_the_recipe(capsys, recipe, study, tmp_path):
    study["tune"]["seeds"] = [5]
    out = tmp_path / "out"
    field = "training.readout_learning_rate"
    tuned(capsys, recipe(study), out, "--tune", field, "--tune-values", "1e-3, 0.1")
    found = chosen(out)
    assert (found["field"], found["values"], found["seeds"]) == (field, [0.001, 0.1], [5])
    other = tmp_path / "other"
    tuned(capsys, recipe(study), other, "--tune-values", "0.2,0.1")
    assert (chosen(other)["field"], chosen(other)["values"]) == (RATE, [0.2, 0.1])


def test_components_are_candidates_too(capsys, recipe, study, tmp_path):
    values = ["adamw", {"kind": "adafactor", "weight_decay": 0.1}]
    study["tune"] = {"field": "training.optimizer", "values": values, "seeds": 1}
    out = tmp_path / "out"
    tuned(capsys, recipe(study), out)
    kinds = {config["training"]["optimizer"]["kind"] for config, _ in runs_of(out)}
    assert kinds == {v if isinstance(v, str) else v["kind"] for _, v in choices(out)}


def test_methods_that_train_nothing_are_left_out(capsys, recipe, study, tmp_path, backbone_folder):
    study["base"]["backbone"]["name"] = str(backbone_folder("gpt2"))
    study["variants"]["shown"] = {"prompt.method": "zero-shot", "prompt.length": 0}
    study["base"] |= {"readout": "text"}
    study["base"]["task"]["options"]["template"] = "{text}"
    del study["base"]["training"]["readout_learning_rate"]
    study["base"]["prompt"] = {"method": "prompt-tuning"}
    study["variants"]["shown"] = {"prompt.method": "zero-shot"}
    out = tmp_path / "out"
    assert main(["study", recipe(study), "--out", str(out), "--no-report"]) == 0
    assert "  not tuned, since nothing is trained: shown\n" in capsys.readouterr().out
    assert chosen(out)["untrained"] == ["shown"]
    assert [one["variant"] for one in chosen(out)["choices"]] == ["plain", "residual"]
    assert len(runs_of(out)) == 6


def test_a_failed_run_stops_tuning_and_is_tried_again(capsys, recipe, study, tmp_path, monkeypatch):
    study["pack_size"] = 1
    path, out, real = recipe(study), tmp_path / "out", sitting.execute

    def execute(config: Any, *args: Any, **options: Any) -> Any:
        if config.training.learning_rate == 0.03 and config.prompt.method == "residual":
            raise MemoryError("no room")
        return real(config, *args, **options)

    monkeypatch.setattr(sitting, "execute", execute)
    assert main(["study", path, "--out", str(out)]) == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert "must have every run before anything is chosen, but lacks 2 of 16" in line
    assert line.endswith(
        "residual, learning_rate 0.03, seed 1000: MemoryError: no room. The same "
        "command tries again."
    )
    assert not (out / "tuning" / "chosen.json").exists()
    assert not (out / "summary.json").exists()
    monkeypatch.setattr(sitting, "execute", real)
    tuned(capsys, path, out)


def test_the_last_state_is_tuned_on_rows_held_out_for_it(capsys, recipe, study, tmp_path):
    study["base"]["training"]["selection"] = "last"
    out = tmp_path / "out"
    assert main(["study", recipe(study), "--out", str(out), "--no-report"]) == 0
    assert "although `training.selection` is last" in capsys.readouterr().err
    for folder, selection in ((out, "last"), (out / "tuning" / "rung-1", "held-out")):
        assert {config["training"]["selection"] for config, _ in runs_of(folder)} == {selection}


def refused(capsys: Any, path: str, out: Path, text: str) -> None:
    before = tree(out) if out.exists() else None
    assert main(["study", path, "--out", str(out)]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert text in line
    assert (tree(out) if out.exists() else None) == before


def test_what_cannot_be_tuned_is_refused_before_anything_is_written(
    capsys, recipe, study, tmp_path
):
    out = tmp_path / "out"
    few = copy.deepcopy(study)
    few["base"]["task"]["shots"] = 1
    few["base"]["training"]["selection"] = "last"
    refused(capsys, recipe(few), out, "must leave one to hold out beside one of every class")
    uneven = copy.deepcopy(study)
    uneven["variants"]["plain"] = {"training.steps": 9}
    text = "the same number of updates, but they have 9 (plain with 0.001), 6 (residual with"
    refused(capsys, recipe(uneven), out, text)
    wide = copy.deepcopy(study)
    del wide["base"]["training"]["steps"]
    wide["tune"] = {"field": "training.batch_size", "values": [2, 20]}
    refused(capsys, recipe(wide), out, "Set `training.steps` in the base, or in the grid.")
    one = copy.deepcopy(study)
    one["tune"]["values"] = [0.1]
    refused(capsys, recipe(one), out, "at least 2 entries")
    (out / "tuning").mkdir(parents=True)
    (out / "thesis.txt").write_text("x")
    refused(capsys, recipe(study), out, "must be empty or the study's folder, but holds thesis.txt")


def test_epochs_are_counted_in_updates(capsys, recipe, study, tmp_path):
    del study["base"]["training"]["steps"]
    study["base"]["training"]["epochs"] = 2
    out = tmp_path / "out"
    tuned(capsys, recipe(study), out)
    (steps,) = {result["steps"] for _, result in runs_of(out)}
    assert [rung["steps"] for rung in chosen(out)["choices"][0]["rungs"]] == [-(-steps // 3), steps]


def test_from_python(recipe, study, tmp_path):
    del study["tune"]
    loaded = sp.load_recipe(recipe(study))
    tune = sp.TuneConfig(field=RATE, values=[0.01, 0.3, 3.0], seeds=1)
    summary = sp.run_study(loaded, tmp_path / "out", tune=tune)
    assert summary["num_finished"] == 4
    assert [value for _, value in choices(tmp_path / "out")] != []
    with pytest.raises(RecipeError, match="must be a field of a run, but is 'rate'"):
        sp.run_study(loaded, tmp_path / "no", tune=sp.TuneConfig(field="rate"))
    assert not (tmp_path / "no").exists()


def test_a_study_that_has_its_choices_is_not_tuned_again(capsys, recipe, study, tmp_path, executed):
    first = tuned(capsys, recipe(study), tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "study.json").read_text())
    executed.clear()
    second = tuned(capsys, recipe(kept, "again.yaml"), tmp_path / "again")
    assert all(seed < 1000 for *_, seed in executed)
    assert [c["scores"] for c in second["cells"]] == [c["scores"] for c in first["cells"]]
    assert "tuning" not in second
