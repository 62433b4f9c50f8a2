"""`softprompts study --tune`: choices on held-out rows, with the same budget for each."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from cli_material import rows, tree, write_rows
from tune_material import METHODS, RATE, VALUES, chosen, runs_of, scores, tuned, tuning_study

import softprompts as sp
from softprompts.cli.main import main
from softprompts.errors import RecipeError
from softprompts.lab.reports.report import write_report

pytestmark = pytest.mark.filterwarnings("always:tuning :softprompts.errors.SoftPromptsWarning")


@pytest.fixture
def study(backbone_folder, tmp_path) -> dict[str, Any]:
    return tuning_study(backbone_folder("bert"), tmp_path / "data")


@pytest.fixture(scope="module")
def made(backbone_folder, tmp_path_factory) -> tuple[Path, Path]:
    """The recipe and folder of a tuned study, with its report; nothing may change them."""
    place = tmp_path_factory.mktemp("tuned")
    content = tuning_study(backbone_folder("bert"), place / "data")
    (place / "recipe.yaml").write_text(json.dumps(content))
    assert main(["study", str(place / "recipe.yaml"), "--out", str(place / "out")]) == 0
    return place / "recipe.yaml", place / "out"


def test_each_variant_chooses_by_the_held_out_rows_of_every_rung(made):
    out = made[1]
    names = [path.name for path in sorted((out / "tuning").iterdir())]
    assert names == ["chosen.json", "rung-0", "rung-1"]
    for one in chosen(out)["choices"]:
        method, alive = METHODS[one["variant"]], VALUES
        for number, (rung, steps) in enumerate(zip(one["rungs"], (2, 6), strict=True)):
            found: dict[float, list[float]] = {}
            for config, result in runs_of(out / "tuning" / f"rung-{number}"):
                if config["prompt"]["method"] == method:
                    rate = config["training"]["learning_rate"]
                    found.setdefault(rate, []).append(result["held_out_score"])
                    assert (config["training"]["steps"], result["steps"]) == (steps, steps)
                    assert (result["seed"] in (1000, 1001), result["num_items"]) == (True, 1)
            means = {rate: fmean(own) for rate, own in found.items()}
            assert (rung["steps"], sorted(means)) == (steps, sorted(alive))
            assert {t["value"]: t["score"] for t in rung["tried"]} == means
            losses = {t["value"]: t["loss"] for t in rung["tried"]}
            assert len(set(means.values())) > 1
            alive = sorted(alive, key=lambda rate: (-means[rate], losses[rate]))[:2]
        assert one["value"] == alive[0]
        rates = {
            config["training"]["learning_rate"]
            for config, _ in runs_of(out)
            if config["prompt"]["method"] == method
        }
        assert rates == {one["value"]}
    assert {result["seed"] for _, result in runs_of(out)} == {0, 1}


@pytest.mark.slow
def test_every_variant_has_the_same_budget_whatever_becomes_of_it(capsys, recipe, study, tmp_path):
    study["base"]["training"]["clip_norm"] = None
    study["tune"]["values"] = [0.001, 0.3, 0.1, 1e30]
    study["variants"]["slow"] = {"training.readout_learning_rate": 1e-9, "prompt.length": 2}
    study["base"]["training"] |= {"steps": 9}
    study["seeds"] = study["tune"]["seeds"] = 1
    out = tmp_path / "out"
    tuned(capsys, recipe(study), out)
    budget = 4 * 3 + 2 * 9
    assert [one["updates"] for one in chosen(out)["choices"]] == [budget] * 3
    spent = 0
    for one in chosen(out)["choices"]:
        last = one["rungs"][0]["tried"][-1]
        assert (last["value"], last["num_diverged"], last["score"]) == (1e30, 1, None)
        assert one["value"] != 1e30
        spent += one["updates_done"]
        assert one["updates_done"] == budget - 3 + last["updates_done"] < budget
    done = [r["steps"] for number in (0, 1) for _, r in runs_of(out / "tuning" / f"rung-{number}")]
    assert sum(done) == spent


@pytest.mark.slow
def test_one_rung_is_the_whole_grid(capsys, recipe, study, tmp_path):
    """With fewer candidates than `keep`, tuning is an ordinary study over all of them."""
    study["tune"]["keep"] = 5
    study["seeds"] = 1
    del study["variants"]["residual"]
    tuned(capsys, recipe(study), tmp_path / "out")
    grid = {k: v for k, v in study.items() if k != "tune"}
    grid |= {"grid": {RATE: VALUES}, "seeds": [1000, 1001]}
    summary = tuned(capsys, recipe(grid, "grid.yaml"), tmp_path / "grid")
    for one in chosen(tmp_path / "out")["choices"]:
        (rung,) = one["rungs"]
        cells = [c for c in summary["cells"] if c["variant"] == one["variant"]]
        means = {c["point"][RATE]: c["held_out"]["mean"] for c in cells}
        assert {t["value"]: t["score"] for t in rung["tried"]} == means
        assert (rung["steps"], one["updates"]) == (6, 2 * 4 * 6)
        losses = {t["value"]: t["loss"] for t in rung["tried"]}
        assert one["value"] == min(VALUES, key=lambda v: (-means[v], losses[v], v))


def test_the_reported_rows_decide_nothing(capsys, recipe, study, tmp_path, made):
    other = {"good": "bad", "bad": "good"}
    wrong = [{**row, "label": other[row["label"]]} for row in rows(0, 24)]
    write_rows(tmp_path / "data" / "val.jsonl", wrong)
    del study["variants"]["residual"]
    found = tuned(capsys, recipe(study), tmp_path / "out")
    summary = json.loads((made[1] / "summary.json").read_text())
    assert found["tuning"]["choices"] == chosen(made[1])["choices"][:1]
    assert scores(found) != scores(summary)[:1]


@pytest.mark.slow
def test_every_cell_of_the_grid_has_a_choice(capsys, recipe, study, tmp_path):
    study["grid"] = {"prompt.length": [2, 5]}
    study["tune"] |= {"seeds": [7], "values": [0.01, 1.0, 3.0]}
    study["seeds"] = 1
    out = tmp_path / "out"
    tuned(capsys, recipe(study), out)
    found = {
        (METHODS[one["variant"]], one["point"]["prompt.length"]): one["value"]
        for one in chosen(out)["choices"]
    }
    assert len(found) == 4
    assert len(set(found.values())) > 1
    for config, _ in runs_of(out):
        place = config["prompt"]["method"], config["prompt"]["length"]
        assert config["training"]["learning_rate"] == found[place]
    assert {config["seed"] for config, _ in runs_of(out / "tuning" / "rung-0")} == {7}


def test_what_is_printed(capsys, recipe, study, tmp_path):
    del study["tune"], study["variants"]["residual"]
    study["base"]["training"]["learning_rate"] = 0.1
    study["variants"] |= {"bare": {"prompt.method": "head-only", "prompt.length": 0}}
    study["seeds"] = 1
    out = tmp_path / "out"
    assert main(["study", recipe(study), "--out", str(out), "--no-report", "--tune", RATE]) == 0
    printed, errors = capsys.readouterr()
    lines = printed.splitlines()
    assert lines[0] == f"tuned {RATE} among 0.01, 0.0333, 0.1, 0.3, 1.0, on held-out rows:"
    plain, _ = chosen(out)["choices"]
    shown = f"  plain: {plain['value']}, {100 * plain['score']:.1f} on held-out rows"
    is_edge = plain["value"] in (0.01, 1.0)
    assert lines[1] == shown + "; at the edge of the candidates" * is_edge
    assert (f"warning: tuning {RATE}: {plain['value']} for plain: at the edge" in errors) == is_edge
    assert lines[2].startswith("  bare: 0.01, ")
    assert lines[2].endswith(" on held-out rows; the field changes nothing here")
    assert f"warning: tuning {RATE}: 0.01 for bare: the field changes nothing here." in errors
    assert lines[3] == "budget of tuning: 44 updates for each variant; 88 in all"
    score = next(
        result["held_out_score"]
        for config, result in runs_of(out / "tuning" / "rung-0")
        if (config["training"]["learning_rate"], result["seed"]) == (0.01, 1000)
        and config["prompt"]["method"] == "prompt-tuning"
    )
    assert f"[1/20] plain, learning_rate 0.01, files, seed 1000: {100 * score:.1f} in" in errors


def test_what_is_reported(made):
    out = made[1]
    assert "Tuned values of training.learning_rate" in (out / "report.html").read_text()
    table = (out / "tables" / "tuning.csv").read_text().splitlines()
    assert table[0].startswith("task,variant,point,value,score,last_rung,num_diverged,updates,")
    for line, one in zip(table[1:], chosen(out)["choices"], strict=True):
        cells = line.split(",")
        assert (cells[1], cells[3]) == (one["variant"], str(one["value"]))
        assert float(cells[4]) == pytest.approx(one["score"])
    rung = write_report(out / "tuning" / "rung-0", out.parent / "rung.html")
    assert (rung["state"], rung["num_runs"]) == ("finished", 16)


def test_options_win_over_the_recipe(capsys, recipe, study, tmp_path):
    study["tune"]["seeds"] = [5]
    del study["variants"]["residual"]
    out = tmp_path / "out"
    field = "training.readout_learning_rate"
    tuned(capsys, recipe(study), out, "--tune", field, "--tune-values", "1e-3, 0.1")
    found = chosen(out)
    assert (found["field"], found["values"], found["seeds"]) == (field, [0.001, 0.1], [5])
    other = tmp_path / "other"
    tuned(capsys, recipe(study), other, "--tune-values", "0.2,0.1")
    assert (chosen(other)["field"], chosen(other)["values"]) == (RATE, [0.2, 0.1])


@pytest.mark.slow
def test_components_are_candidates_too(capsys, recipe, study, tmp_path):
    values = ["adamw", {"kind": "adafactor", "weight_decay": 0.1}]
    study["tune"] = {"field": "training.optimizer", "values": values, "seeds": 1}
    out = tmp_path / "out"
    tuned(capsys, recipe(study), out)
    kinds = {config["training"]["optimizer"]["kind"] for config, _ in runs_of(out)}
    found = [one["value"] for one in chosen(out)["choices"]]
    assert kinds == {value if isinstance(value, str) else value["kind"] for value in found}


def test_methods_that_train_nothing_are_left_out(capsys, recipe, study, tmp_path, backbone_folder):
    study["base"]["backbone"]["name"] = str(backbone_folder("gpt2"))
    study["base"] |= {"readout": "text", "prompt": {"method": "prompt-tuning"}}
    study["variants"] = {"plain": {}, "shown": {"prompt.method": "zero-shot"}}
    del study["base"]["training"]["readout_learning_rate"]
    study["seeds"] = study["tune"]["seeds"] = 1
    out = tmp_path / "out"
    assert main(["study", recipe(study), "--out", str(out), "--no-report"]) == 0
    assert "  not tuned, since nothing is trained: shown\n" in capsys.readouterr().out
    assert chosen(out)["untrained"] == ["shown"]
    assert [one["variant"] for one in chosen(out)["choices"]] == ["plain"]
    assert len(runs_of(out)) == 2


def test_the_last_state_after_some_epochs_is_tuned_on_rows_held_out_for_it(
    capsys, recipe, study, tmp_path
):
    del study["base"]["training"]["steps"], study["variants"]["residual"]
    study["base"]["training"] |= {"selection": "last", "epochs": 2}
    study["tune"]["seeds"] = 1
    out = tmp_path / "out"
    assert main(["study", recipe(study), "--out", str(out), "--no-report"]) == 0
    assert "although `training.selection` is last" in capsys.readouterr().err
    for folder, selection in ((out, "last"), (out / "tuning" / "rung-1", "held-out")):
        assert {config["training"]["selection"] for config, _ in runs_of(folder)} == {selection}
        assert {result["steps"] for _, result in runs_of(folder)} == {2 * 8}  # of 60 rows
    assert [rung["steps"] for rung in chosen(out)["choices"][0]["rungs"]] == [6, 16]


def refused(capsys: Any, path: str, out: Path, text: str) -> None:
    """Check that a study is refused in one line, and nothing is written."""
    before = tree(out) if out.exists() else None
    assert main(["study", path, "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
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
    out.mkdir()
    (out / "thesis.txt").write_text("x")
    refused(capsys, recipe(study), out, "must be empty or the study's folder, but holds thesis.txt")


@pytest.mark.filterwarnings("ignore:tuning ")
def test_from_python(recipe, study, tmp_path):
    del study["tune"], study["variants"]["residual"]
    loaded = sp.load_recipe(recipe(study))
    assert isinstance(loaded, sp.StudyConfig)
    tune = sp.TuneConfig(field=RATE, values=[0.01, 0.3, 3.0], seeds=1)
    summary = sp.run_study(loaded, tmp_path / "out", tune=tune)
    assert summary["num_finished"] == 2
    assert len(chosen(tmp_path / "out")["choices"]) == 1
    with pytest.raises(RecipeError, match="must be a field of a run, but is 'rate'"):
        sp.run_study(loaded, tmp_path / "no", tune=sp.TuneConfig(field="rate"))
    assert not (tmp_path / "no").exists()
