"""`softprompts study`: every run once, whatever happens, and what they say together."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from cli_material import rows, tree, write_rows

from softprompts.cli.main import main
from softprompts.cli.progress import _varied
from softprompts.errors import BackboneError
from softprompts.lab.studies import worker_loop
from softprompts.lab.studies.summary import _answers
from softprompts.recipes.grid import Cell

LINE = {"variant", "task", "scores", "mean", "std", "min", "max", "interval", "median"}


@pytest.fixture
def study(run: dict[str, Any]) -> dict[str, Any]:
    """Two variants, two seeds."""
    del run["seed"]
    return {
        "name": "small",
        "base": run,
        "variants": {"plain": {}, "bare": {"prompt.method": "head-only", "prompt.length": 0}},
        "seeds": 2,
        "pack_size": 1,
    }


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Method and seed of every run that is executed."""
    calls: list[tuple[str, int]] = []
    real = worker_loop.execute

    def execute(config: Any, *args: Any, **options: Any) -> Any:
        calls.append((config.prompt.method, config.seed))
        return real(config, *args, **options)

    monkeypatch.setattr(worker_loop, "execute", execute)
    return calls


def run_study(
    capsys: Any, path: str, out: Path, code: int = 0, more: tuple[str, ...] = ("--no-report",)
) -> dict[str, Any]:
    assert main(["study", path, "--out", str(out), "--json", *more]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    found: dict[str, Any] = json.loads(captured.out)
    return found


@pytest.fixture
def made(capsys, once, study, executed) -> tuple[str, Path]:
    """The recipe and the folder of the finished study, which may be changed."""
    found: tuple[str, Path] = once("study", study, "out", "--no-report")
    capsys.readouterr()
    executed.clear()
    return found


def test_a_study_that_was_stopped_before_it_said_whose_folder_it_is_starts_anew(
    capsys, recipe, study, tmp_path, monkeypatch
):
    def stops(*_):
        raise KeyboardInterrupt

    path, out = recipe(study), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("softprompts.lab.studies.store.write_json", stops)
        assert main(["study", path, "--out", str(out), "--no-report"]) == 130
    assert out.exists()
    run_study(capsys, path, out)


def test_the_summary_is_that_of_the_runs(capsys, recipe, study, tmp_path):
    out = tmp_path / "out"
    printed = run_study(capsys, recipe(study), out, more=())
    summary = json.loads((out / "summary.json").read_text())
    folders = sorted((out / "runs").iterdir())
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    configs = [json.loads((folder / "config.json").read_text())["config"] for folder in folders]

    assert printed == {**summary, "folder": str(out), "report": str(out / "report.html")}
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "runs",
        "packs.json",
        "report.html",
        "study.json",
        "summary.json",
        "tables",
    }
    assert [r["identity"] for r in results] == [folder.name for folder in folders]
    assert (summary["name"], summary["num_runs"], summary["num_finished"]) == ("small", 4, 4)
    assert [line["variant"] for line in summary["cells"]] == ["plain", "bare"]
    for line, method in zip(summary["cells"], ("prompt-tuning", "head-only"), strict=True):
        own = {
            config["seed"]: result["score"]
            for config, result in zip(configs, results, strict=True)
            if config["prompt"]["method"] == method
        }
        assert line.keys() >= LINE
        assert (line["task"], line["seeds"]) == ("files", [0, 1])
        assert line["scores"] == [own[0], own[1]]
        assert line["mean"] == pytest.approx(statistics.fmean(own.values()))
        assert line["std"] == pytest.approx(statistics.stdev(own.values()))
        assert [a.count("1") / len(a) for a in line["answers"]] == line["scores"]
        assert (line["min"], line["max"]) == (min(own.values()), max(own.values()))
        assert line["interval"][0] <= line["mean"] <= line["interval"][1]
        assert (line["num_diverged"], line["num_failed"], line["num_missing"]) == (0, 0, 0)


def test_answers_are_told_where_all_runs_of_a_line_have_them():
    assert _answers([{"answers": "01"}, {"answers": "11"}]) == {"answers": ["01", "11"]}
    assert _answers([{"answers": "01"}, {}]) == _answers([]) == {}


def test_variants_are_compared_with_the_baseline(capsys, recipe, study, tmp_path):
    out = tmp_path / "out"
    study["baseline"] = "bare"
    summary = run_study(capsys, recipe(study), out)
    plain, bare = (line["scores"] for line in summary["cells"])
    (found,) = summary["comparisons"]

    assert summary["baseline"] == found["baseline"] == "bare"
    assert (found["variant"], found["tasks"], found["point"]) == ("plain", ["files"], {})
    assert found["difference"] == pytest.approx(
        statistics.fmean(x - y for x, y in zip(plain, bare, strict=True))
    )
    assert (found["num_seeds"], found["p"] >= found["smallest_p"] == 0.5) == ({"files": 2}, True)
    assert summary["averages"] == []
    assert main(["study", recipe(study), "--out", str(out), "--no-report"]) == 0
    printed = capsys.readouterr().out.splitlines()
    (said,) = (line for line in printed if line.startswith("plain: "))
    assert f"{100 * found['difference']:+.1f} against bare" in said
    assert said.endswith("not shown: 6 seeds could")
    (taken,) = (line for line in printed if line.startswith("take "))
    leader = max(summary["cells"], key=lambda line: line["mean"])
    run = next(
        path.parent
        for path in (out / "runs").glob("*/result.json")
        if f"predict {path.parent} " in "\n".join(printed)
    )
    kept = (run / "config.json").read_text()
    assert taken.startswith(f"take {leader['variant']}: {100 * leader['mean']:.1f} ± ")
    assert {"plain": "prompt-tuning", "bare": "head-only"}[leader["variant"]] in kept


def test_another_baseline_runs_nothing_again(capsys, recipe, study, made, executed):
    out = made[1]
    first = json.loads((out / "summary.json").read_text())
    study["baseline"] = "bare"
    second = run_study(capsys, recipe(study), out)

    assert executed == []
    assert (first["baseline"], second["baseline"]) == ("plain", "bare")
    assert second["cells"] == first["cells"]
    assert second["comparisons"][0]["difference"] == -first["comparisons"][0]["difference"]


def test_the_same_command_again_trains_nothing(capsys, recipe, study, tmp_path, executed):
    path, out = recipe(study), tmp_path / "out"
    first = run_study(capsys, path, out, more=())
    before = tree(out)
    assert executed == [
        ("prompt-tuning", 0),
        ("prompt-tuning", 1),
        ("head-only", 0),
        ("head-only", 1),
    ]
    executed.clear()

    assert run_study(capsys, path, out, more=()) == first
    assert executed == []
    assert tree(out) == before


def test_new_seeds_and_variants_run_alone(capsys, recipe, study, made, executed):
    out = made[1]
    runs = tree(out / "runs")
    study["seeds"] = [0, 1, 7]
    study["variants"]["residual"] = {"prompt.method": "residual"}
    summary = run_study(capsys, recipe(study), out)

    assert executed == [
        ("prompt-tuning", 7),
        ("head-only", 7),
        ("residual", 0),
        ("residual", 1),
        ("residual", 7),
    ]
    assert summary["num_finished"] == 9
    assert [line["seeds"] for line in summary["cells"]] == [[0, 1, 7]] * 3
    assert tree(out / "runs").items() >= runs.items()


def test_the_table_in_words(capsys, recipe, study, tmp_path):
    out = tmp_path / "out"
    path = recipe(study)
    capsys.readouterr()
    assert main(["study", path, "--out", str(out)]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()

    assert lines[0].split()[:4] == ["task", "variant", "score", "min"]
    assert [line.split()[:2] for line in lines[2:4]] == [["files", "plain"], ["files", "bare"]]
    assert lines[-2:] == [f"folder: {out}", f"report: {out / 'report.html'}"]
    assert [line.split(":")[0] for line in captured.err.splitlines()] == [
        "2 seeds and 1 comparison can show no difference",
        "[1/4] plain, files, seed 0",
        "[2/4] plain, files, seed 1",
        "[3/4] bare, files, seed 0",
        "[4/4] bare, files, seed 1",
    ]


def test_tasks_of_ones_own_are_called_and_averaged_by_their_names(capsys, recipe, study, tmp_path):
    own = study["base"].pop("task")
    study["grid"] = {"task": {"first": own, "second": {**own, "shots": 4}}}
    path, out = recipe(study), tmp_path / "out"

    assert main(["study", path, "--out", str(out)]) == 0
    said = capsys.readouterr()
    summary = json.loads((out / "summary.json").read_text())

    assert [cell["task"] for cell in summary["cells"]] == ["first", "second"] * 2
    assert [one["tasks"] for one in summary["comparisons"] if one["tasks"][1:]] == [
        ["first", "second"]
    ]
    table = [line.split()[:2] for line in said.out.splitlines() if "±" in line]
    assert [*map(tuple, table)][:4] == [
        *(("first", "plain"), ("first", "bare"), ("second", "plain"), ("second", "bare"))
    ]
    assert "plain, first, seed 0" in said.err
    assert "train.jsonl" not in said.out + said.err
    assert "On second plain has the highest mean" in (out / "report.html").read_text()


def test_progress_names_the_point_of_the_grid(capsys, recipe, study, tmp_path):
    study["variants"] = {"plain": {}}
    study["grid"] = {"prompt.length": [2, 3], "readout": ["linear"]}
    assert main(["study", recipe(study), "--out", str(tmp_path / "out"), "--no-report"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "[1/4] plain, files, length 2, readout linear, seed 0",
        "[2/4] plain, files, length 2, readout linear, seed 1",
        "[3/4] plain, files, length 3, readout linear, seed 0",
        "[4/4] plain, files, length 3, readout linear, seed 1",
    ]


def test_progress_tells_fields_of_one_last_name_apart():
    point = {"a.rate": 0.1, "b.rate": None, "task.name": "x", "prompt.rows": {"kind": "plain"}}
    cells = [Cell("v", {**point, "a.rate": rate}, "x", None, "id") for rate in (0.1, 0.2)]
    assert _varied(cells) == {
        "a.rate": ["0.1", "0.2"],
        "b.rate": ["null", "null"],
        "rows": ['{"kind": "plain"}'] * 2,
    }


def test_a_run_that_diverges_does_not_stop_the_others(capsys, recipe, study, tmp_path):
    wild = {"training.learning_rate": 1e30, "training.clip_norm": None}
    study["variants"] = {"wild": wild, "plain": {}}
    summary = run_study(capsys, recipe(study), tmp_path / "out", 1)
    first, second = summary["cells"]

    assert (first["num_diverged"], first["scores"], first["mean"]) == (2, [], None)
    assert first["missing"] == [{"seed": seed, "reason": "diverged"} for seed in (0, 1)]
    assert second["missing"] == []
    (found,) = summary["comparisons"]
    assert found["difference"] is None
    assert "wild on files: diverged seeds 0, 1" in found["conclusion"]
    assert (second["num_diverged"], len(second["scores"])) == (0, 2)
    assert summary["num_finished"] == 4
    assert main(["study", recipe(study), "--out", str(tmp_path / "out")]) == 1
    assert "wild on files: 2 diverged." in capsys.readouterr().out


def test_a_variant_of_which_some_runs_diverged_is_no_failure(capsys, recipe, study, tmp_path):
    study["base"]["training"]["clip_norm"] = None
    study["variants"], study["grid"] = {"plain": {}}, {"training.learning_rate": [1e30, 0.3]}
    summary = run_study(capsys, recipe(study), tmp_path / "out")  # its exit code is 0
    assert [line["num_diverged"] for line in summary["cells"]] == [2, 0]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (BackboneError("the backbone must work, but is tired."), "but is tired."),
        (MemoryError("no room\nfor 9 tensors"), "MemoryError: no room for 9 tensors"),
    ],
)
def test_a_run_that_fails_is_kept_and_tried_again(
    capsys, recipe, study, tmp_path, monkeypatch, executed, error, text
):
    counting = worker_loop.execute

    def execute(config: Any, *args: Any, **options: Any) -> Any:
        if (config.prompt.method, config.seed) == ("prompt-tuning", 1):
            raise error
        return counting(config, *args, **options)

    path, out = recipe(study), tmp_path / "out"
    monkeypatch.setattr(worker_loop, "execute", execute)
    summary = run_study(capsys, path, out, code=1)
    failed, other = summary["cells"]

    assert (failed["num_failed"], failed["num_missing"], failed["seeds"]) == (1, 0, [0])
    assert [text in found for found in failed["errors"]] == [True]
    assert failed["missing"] == [{"seed": 1, "reason": "failed"}]
    assert (other["num_failed"], other["seeds"]) == (0, [0, 1])
    assert json.loads((out / "summary.json").read_text())["cells"] == summary["cells"]

    monkeypatch.setattr(worker_loop, "execute", counting)
    executed.clear()
    summary = run_study(capsys, path, out)
    assert executed == [("prompt-tuning", 1)]
    assert (summary["num_finished"], summary["cells"][0]["errors"]) == (4, [])


def test_data_that_breaks_after_the_check_fails_only_its_runs(
    capsys, recipe, study, tmp_path, monkeypatch, data_dir
):
    """Rows drawn per seed are read once more for each seed, so the second seed meets the damage."""
    study["base"]["task"]["shots"] = 8
    counting = worker_loop.execute

    def execute(*args: Any, **options: Any) -> Any:
        write_rows(data_dir / "val.jsonl", ["broken"])
        return counting(*args, **options)

    monkeypatch.setattr(worker_loop, "execute", execute)
    summary = run_study(capsys, recipe(study), tmp_path / "out", code=1)

    for line in summary["cells"]:
        assert (line["seeds"], line["num_failed"]) == ([0], 1)
        assert f"{data_dir / 'val.jsonl'}:1" in line["errors"][0]


def test_changed_rows_do_not_mix_with_finished_runs(capsys, recipe, study, made, data_dir):
    out = made[1]
    write_rows(data_dir / "val.jsonl", rows(100, 120))
    study["seeds"] = 3
    before = tree(out)

    assert main(["study", recipe(study), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "must belong to a run on data" in error
    assert tree(out) == before


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            {"study.json": '{"name": "large"}'},
            "must belong to study 'small', but belongs to 'large'",
        ),
        ({"study.json": "[]"}, "study.json must be a JSON object, but is a list"),
        ({"study.json": "{}"}, "study.json must have `name`"),
        ({"study.json": "{"}, "study.json must be JSON"),
        ({"thesis.txt": "x"}, "must be empty or the study's folder, but holds thesis.txt"),
    ],
)
def test_another_folder_is_refused_and_left_alone(capsys, recipe, study, tmp_path, content, text):
    out = tmp_path / "out"
    out.mkdir()
    for name, words in content.items():
        (out / name).write_text(words)
    before = tree(out)

    assert main(["study", recipe(study), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert text in error
    assert tree(out) == before


def test_what_workers_left_of_a_folder_that_was_removed_is_gone_on_with(recipe, study, tmp_path):
    path, out = recipe(study), tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    (out / "errors").mkdir()

    assert main(["study", path, "--out", str(out), "--no-report"]) == 0
    assert (out / "study.json").exists()


def test_a_broken_result_is_refused(capsys, made):
    path, out = made
    broken = next((out / "runs").iterdir()) / "result.json"
    for text, reason in (("{", "must be JSON"), ('{"identity": 1}', "must have `status`")):
        broken.write_text(text)
        assert main(["study", path, "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {broken} {reason}")
        assert len(error.splitlines()) == 1


def test_a_run_recipe_is_refused(capsys, recipe, run, tmp_path):
    assert main(["study", recipe(run), "--out", str(tmp_path / "out")]) == 2
    assert "must have `base`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../esc", "a/b", "a\\b", "..", ".", "/esc", "a\0b"])
def test_a_name_that_is_no_file_name_needs_a_folder(
    capsys, recipe, study, tmp_path, monkeypatch, name
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = recipe({**study, "name": name})
    before = sorted(tmp_path.rglob("*"))
    assert main(["study", path]) == 2
    text = f"`name` must be a plain file name where --out is left out, but is {name!r}"
    assert text in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_sweep_has_curves(capsys, recipe, study, tmp_path):
    study["grid"] = {"training.learning_rate": [0.001, 0.1, 0.01]}
    study["variants"] = {"plain": {}}
    out = tmp_path / "out"
    summary = run_study(capsys, recipe(study), out)
    reported, held_out = summary["robustness"]["curves"]
    by_rate = {c["point"]["training.learning_rate"]: c for c in summary["cells"]}

    assert summary["robustness"]["levels"] == []
    for curve, cells in (
        (reported, by_rate),
        (held_out, {rate: cell["held_out"] for rate, cell in by_rate.items()}),
    ):
        assert curve["values"] == [0.001, 0.01, 0.1]
        assert curve["means"] == [cells[rate]["mean"] for rate in curve["values"]]
        assert (curve["default_value"], curve["counts"]) == (0.1, [2, 2, 2])
        assert curve["score_at_default"] == cells[0.1]["mean"]
    results = [json.loads(path.read_text()) for path in out.glob("runs/*/result.json")]
    found = sorted(score for cell in by_rate.values() for score in cell["held_out"]["scores"])
    assert found == sorted(result["held_out_score"] for result in results)

    assert main(["study", recipe(study), "--out", str(out), "--no-report"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("training.learning_rate" in text and "decades" in text for text in lines) == 2


def test_names_that_are_swept_are_compared_as_resolved(capsys, recipe, study, tmp_path):
    study["grid"] = {"prompt.initializer": [{"kind": "vocabulary"}, "uniform"]}
    study["variants"] = {"plain": {}}
    summary = run_study(capsys, recipe(study), tmp_path / "out")
    found = summary["robustness"]["levels"][0]

    assert (found["names"], found["default_name"]) == (["vocabulary", "uniform"], "vocabulary")
    assert found["score_at_default"] == summary["cells"][0]["mean"]


def test_seeds_are_added_until_the_leader_is_shown_to_lead(capsys, recipe, study, tmp_path):
    study["base"]["training"]["steps"] = 2
    command = ["study", recipe({**study, "pack_size": "auto"}), "--out", str(tmp_path / "out")]
    assert main([*command, "--json", "--seeds", "auto", "--max-seeds", "7"]) == 0
    told = capsys.readouterr()
    assert "seeds are added until the leader is shown to lead, with looks after 6, 7" in told.err
    found = json.loads(told.out)
    looks, kept = found["looks"], json.loads((tmp_path / "out" / "study.json").read_text())
    assert looks["after"] == kept["more_seeds"]["looks"]
    assert looks["state"] in ("shown", "hopeless", "most")
    assert {len(line["seeds"]) for line in found["cells"]} == {looks["after"][-1]}
    assert looks == json.loads((tmp_path / "out" / "summary.json").read_text())["looks"]
    assert main([*command, "--seeds", "auto", "--max-seeds", "7"]) == 0
    told = capsys.readouterr()
    assert looks["said"] in told.out
    assert "p of means is corrected for" in told.out
    assert "Seeds were added as long as" in (tmp_path / "out" / "report.html").read_text()
    assert main([*command, "--seeds", "auto"]) == 2
    assert "`more_seeds.most` must be 7" in capsys.readouterr().err
    assert main([*command, "--seeds", "2", "--json"]) == 0
    assert "looks" not in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds", "auto", "--max-seeds", "3"], "`more_seeds.most` must be at least 6, but is 3"),
        (["--seeds", "auto", "--budget", "soon"], "must be a time such as 90s.*but is 'soon'"),
        (["--seeds", "some"], "`seeds` must be a whole number.*but is 'some'"),
        (["--seeds", "8", "--budget", "3m"], "`--seeds` must be auto where --budget.*but is 8"),
        (["--max-seeds", "9"], "`--seeds` must be auto where --max-seeds.*but is left out"),
    ],
)
def test_wrong_sizes_are_one_line_and_nothing_is_written(capsys, tmp_path, options, said):
    assert main(["study", "quickstart", "--out", str(tmp_path / "out"), *options]) == 2
    told = capsys.readouterr()
    assert re.search(said, told.err)
    assert told.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_finished_runs_of_another_form_of_a_study_are_told(capsys, recipe, study, tmp_path):
    out = tmp_path / "out"
    assert main(["study", recipe(study), "--out", str(out), "--no-report"]) == 0
    assert "not of this recipe" not in capsys.readouterr().err
    changed = {**study, "base": {**study["base"], "training": {**study["base"]["training"]}}}
    changed["base"]["training"]["steps"] = 3
    assert main(["study", recipe(changed), "--out", str(out), "--no-report"]) == 0
    assert "has 4 finished runs that are not of this recipe as it is now" in capsys.readouterr().err
    assert main(["study", recipe(study), "--out", str(out), "--no-report", "--set", "seeds=1"]) == 0
    assert "has 6 finished runs that are not of" in capsys.readouterr().err
