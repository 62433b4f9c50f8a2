"""The verbs on runs of several tasks, and on runs that start from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_material import files_task, printed, refused, rows, write_rows

from softprompts.cli.main import main


@pytest.fixture
def mixture(run: dict[str, Any], data_dir: Path, tmp_path: Path) -> dict[str, Any]:
    """A run of two tasks of `files` that share a pool."""
    write_rows(tmp_path / "more" / "train.jsonl", rows(30, 42))
    write_rows(tmp_path / "more" / "val.jsonl", rows(200, 210))
    tasks = {"first": files_task(data_dir), "second": files_task(tmp_path / "more")}
    del run["task"]
    run["mixture"] = {"tasks": tasks, "sampling": {"kind": "temperature", "temperature": 3.0}}
    run["prompt"] = {"length": 3, "pool": {"kind": "task", "size": 2}}
    return run


def test_a_mixture_is_trained_evaluated_and_predicts(capsys, mixture, recipe, tmp_path):
    path, out = recipe(mixture), tmp_path / "out"
    assert printed(capsys, "validate", path)["runs"] == 1
    result = printed(capsys, "train", path, "--out", str(out))
    assert set(result["tasks"]) == {"first", "second"}
    assert result["metric"] == "mean over tasks"
    for name, count in (("first", 16), ("second", 10)):
        found = printed(capsys, "evaluate", str(out), "--task", name)
        assert found["task"] == name
        assert found["num_items"] == count
        assert found["is_same_data"] is True
        assert found["score"] == result["tasks"][name]["score"]
    rows_in = write_rows(tmp_path / "new.jsonl", rows(300, 305, has_labels=False))
    target = tmp_path / "labels.jsonl"
    arguments = ["predict", str(out), "--input", str(rows_in), "--output", str(target)]
    assert printed(capsys, *arguments, "--task", "second")["num_rows"] == 5
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert {line["label"] for line in lines} <= {"good", "bad"}
    assert len(lines) == 5
    text = "`--task` must be one of first, second, but was not given"
    refused(capsys, ["evaluate", str(out)], text)
    refused(capsys, arguments, text)
    refused(capsys, [*arguments, "--task", "third"], "one of first, second, but is 'third'")
    refused(capsys, ["choices", str(out)], "must be a run of one task, but is of a mix")


def test_other_rows_of_one_task_are_noticed(capsys, once, mixture, recipe, data_dir):
    _, out = once("train", mixture, "out")
    capsys.readouterr()
    arguments = ["evaluate", str(out), "--task", "second", "--data-dir", str(data_dir)]
    assert printed(capsys, *arguments)["is_same_data"] is False
    write_rows(data_dir / "train.jsonl", rows(0, 20))
    refused(
        capsys,
        ["train", recipe(mixture), "--out", str(out), "--resume"],
        "must belong to a run on data",
    )


def test_a_folder_that_lost_a_task_is_refused(capsys, once, mixture):
    _, out = once("train", mixture, "out")
    about = json.loads((out / "config.json").read_text())
    del about["task_format"]["first"]
    (out / "config.json").write_text(json.dumps(about))
    text = 'must have a `task_format` of each of first, second, but has ["second"].'
    refused(capsys, ["evaluate", str(out), "--task", "second"], text)


def test_scores_of_each_task_are_printed(capsys, mixture, recipe, tmp_path):
    assert main(["train", recipe(mixture), "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "(mean over tasks) on 26 items of validation; majority 50.0" in text
    assert "  first " in text
    assert "(accuracy) on 10 items of validation; majority 50.0" in text


def test_a_task_is_not_named_where_there_is_one(capsys, run, recipe, tmp_path):
    out = tmp_path / "out"
    printed(capsys, "train", recipe(run), "--out", str(out))
    assert "task" not in printed(capsys, "evaluate", str(out))
    refused(
        capsys,
        ["evaluate", str(out), "--task", "files"],
        "`--task` must be left out for a run of one task, but is 'files'",
    )


def test_every_problem_of_a_mixture_is_said_at_once(capsys, mixture, recipe):
    mixture["task"] = {"name": "bundled/sentiment"}
    mixture["mixture"]["sampling"] = {"kind": "temperature", "temperature": 0.5}
    mixture["mixture"]["tasks"]["second"]["shot"] = 3
    mixture["mixture"]["tasks"]["a b"] = {"name": "bundled/sentiment"}
    refused(
        capsys,
        ["validate", recipe(mixture)],
        "`mixture.tasks.second.shot` is an unknown key; did you mean `mixture.tasks.second.shots`",
        "`mixture.tasks.a b` must be text that matches",
        "`mixture.sampling.temperature` must be at least 1, but is 0.5",
    )
    del mixture["mixture"]["tasks"]["a b"], mixture["mixture"]["tasks"]["second"]["shot"]
    mixture["mixture"]["sampling"] = "size"
    mixture["mixture"]["tasks"]["second"] |= {"shots": 1, "shots_total": 2}
    refused(
        capsys,
        ["validate", recipe(mixture)],
        "`task` must be left out when `mixture` is given, but is 'bundled/sentiment'",
        "`mixture.tasks.second.shots_total` must be left out when `mixture.tasks.second.shots`",
    )
    del mixture["task"], mixture["mixture"]["tasks"]["second"]["shots_total"]
    assert printed(capsys, "validate", recipe(mixture))["runs"] == 1


def test_a_new_task_starts_from_the_trained_pool(capsys, once, mixture, recipe, data_dir, tmp_path):
    (_, out), new = once("train", mixture, "out"), tmp_path / "new"
    capsys.readouterr()
    run = {**mixture, "task": files_task(data_dir)}
    del run["mixture"]
    run["prompt"] = {**run["prompt"], "from_run": {"folder": str(out), "is_frozen": True}}
    path = recipe(run, "new.yaml")
    result = printed(capsys, "train", path, "--out", str(new))
    assert result["trainable_parameters"] < 100
    assert result["status"] == "finished"
    kept = json.loads((new / "config.json").read_text())["config"]["prompt"]["from_run"]
    assert kept["folder"] == str(out)
    assert len(kept["digest"]) == 16
    again = printed(capsys, "train", path, "--out", str(new), "--resume")
    assert again["identity"] == result["identity"]
    wrong = recipe({**run, "prompt": {**run["prompt"], "length": 4}}, "wrong.yaml")
    refused(
        capsys,
        ["train", wrong, "--out", str(tmp_path / "none")],
        f"`prompt.length` 4, but that of {out} is 3",
    )
    assert not (tmp_path / "none").exists()
    run["prompt"]["from_run"] = "nowhere"
    refused(
        capsys,
        ["validate", recipe(run, "gone.yaml")],
        "`prompt.from_run` must be the folder of a finished run, but 'nowhere' has no config.json",
    )


def test_a_study_of_mixtures_sums_up_each_task(capsys, mixture, recipe, tmp_path):
    study = {
        "name": "mixed",
        "base": {k: v for k, v in mixture.items() if k != "seed"},
        "variants": {
            "temperature": {},
            "uniform": {"mixture.sampling": "uniform"},
            "few": {"mixture.tasks.second.shots": 2},
            "text": {"prompt": {"method": "stable", "length": "text"}},
        },
        "seeds": 2,
    }
    path, out = recipe(study, "study.yaml"), tmp_path / "study"
    summary = printed(capsys, "study", path, "--out", str(out), "--no-report")
    assert summary["num_finished"] == 8
    assert [line["task"] for line in summary["cells"]] == ["first + second"] * 4
    for line in summary["cells"]:
        means = [own["mean"] for own in line["tasks"].values()]
        assert line["mean"] == pytest.approx(sum(means) / 2)
        assert line["tasks"]["second"]["num_items"] == 10
        assert line["tasks"]["first"]["metric"] == "accuracy"
    assert main(["study", path, "--out", str(out)]) == 0
    table = capsys.readouterr().out
    assert table.count("· first") == table.count("· second") == 4
