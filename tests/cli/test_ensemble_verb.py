"""`softprompts ensemble`, and its folders in `predict`, `evaluate` and `report`."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from cli_material import printed, refused, rows, tree, write_rows

import softprompts as sp
from softprompts.cli.main import main


@pytest.fixture
def content(run) -> dict[str, Any]:
    """A study with two variants of five seeds."""
    del run["seed"]
    run["training"]["steps"] = 12
    return {
        "name": "small",
        "base": run,
        "variants": {"plain": {}, "short": {"prompt.length": 2}},
        "seeds": 5,
    }


@pytest.fixture
def study(once, content) -> Path:
    """The folder of that study, finished."""
    found: Path = once("study", content, "study", "--no-report")[1]
    return found


def said(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


def runs_of(study: Path, variant_length: int) -> dict[int, Path]:
    """Return the run folders of a variant by seed."""
    found = {}
    for folder in (study / "runs").iterdir():
        config = json.loads((folder / "config.json").read_text())["config"]
        if config["prompt"]["length"] == variant_length:
            found[config["seed"]] = folder
    return found


def test_groups_of_seeds_are_scored_beside_their_members(capsys, study):
    before = tree(study)
    found = printed(capsys, "ensemble", study, "--variant", "plain", "--size", "2")
    (line,) = found["cells"]
    runs = runs_of(study, 4)
    results = {s: json.loads((path / "result.json").read_text()) for s, path in runs.items()}
    assert (found["study"], found["variant"], found["size"]) == ("small", "plain", 2)
    assert [group["seeds"] for group in line["groups"]] == [[0, 1], [2, 3]]
    assert line["left_out"] == [4]
    assert line["singles"]["scores"] == [results[seed]["score"] for seed in range(4)]
    best = [max(results[a]["score"], results[a + 1]["score"]) for a in (0, 2)]
    assert line["best"] == fmean(best)
    validation = sp.load_task(
        "files",
        data_dir=study.parent / "data",
        options={"train": "train.jsonl", "validation": "val.jsonl", "template": "{text}"},
    ).validation
    scores = []
    for pair in ((0, 1), (2, 3)):
        joint = sp.ensemble([sp.load(runs[seed]) for seed in pair])
        scores.append(joint.evaluate(validation).score)
    assert line["ensembles"]["scores"] == scores
    assert line["ensembles"]["mean"] == fmean(scores)
    assert line["ensembles"]["std"] == pytest.approx(stdev(scores))
    assert line["tokens"] == 2 * line["tokens_of_one"] > 8
    kept = json.loads((study / "ensembles.json").read_text())
    assert kept == {"ensembles": [{key: found[key] for key in ("variant", "size", "cells")}]}
    after = tree(study)
    assert {name for name in after if after[name] != before.get(name)} == {"ensembles.json"}
    assert printed(capsys, "ensemble", study, "--variant", "plain", "--size", "2") == found
    assert tree(study) == after


def test_the_table_says_what_it_costs_and_what_it_lacks(capsys, study):
    text = said(capsys, "ensemble", study, "--variant", "plain", "--size", "3")
    lines = text.splitlines()
    assert lines[0].split() == [
        *("task", "variant", "single", "best", "ensemble", "groups", "tokens", "of", "one")
    ]
    assert lines[2].startswith("files  plain")
    assert "± –" in lines[2]
    assert "plain on files: one group only, seeds 0, 1, 2: no spread can be told." in lines
    assert "plain on files: in no whole group: seeds 3, 4." in lines
    assert "cost: 3 times the tokens and prompt rows of a single member, in one forward" in text
    text = said(capsys, "ensemble", study, "--variant", "plain", "--size", "2")
    assert "one group only" not in text


def test_a_kept_ensemble_predicts_and_is_evaluated(capsys, study, tmp_path):
    ask = ("ensemble", study, "--variant", "plain", "--size", "5", "--out", tmp_path / "kept")
    found = printed(capsys, *ask)
    (group,) = found["cells"][0]["groups"]
    assert found["folders"] == [str(tmp_path / "kept")]
    files = {"config.json", "prompt.safetensors", "result.json"}
    wanted = {f"members/{number}/{name}" for number in range(1, 6) for name in files}
    before = tree(tmp_path / "kept")
    assert before.keys() == {*wanted, "ensemble.json", ".lock"}
    for number, (_, run) in enumerate(sorted(runs_of(study, 4).items())):
        place = tmp_path / "kept" / "members" / str(number + 1)
        assert all((place / name).read_bytes() == (run / name).read_bytes() for name in files)
    moved = (tmp_path / "kept").rename(tmp_path / "moved")

    evaluated = printed(capsys, "evaluate", moved)
    assert evaluated["score"] == group["score"] == sp.load(moved).score
    assert evaluated["members"] == group["members"]
    assert evaluated["tokens"] == group["tokens"]
    assert evaluated["is_same_data"] is True
    assert "identity" not in evaluated
    text = said(capsys, "evaluate", moved)
    assert "on 16 items of validation" in text
    assert "ensemble of 5: " in text

    new = write_rows(tmp_path / "new.jsonl", rows(200, 207, has_labels=False))
    output = tmp_path / "labels.jsonl"
    about = printed(capsys, "predict", moved, "--input", new, "--output", output)
    assert about["members"] == group["members"]
    assert about["num_rows"] == 7
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    joint = sp.load(moved)
    wanted = joint.predict_scores([row["text"] for row in rows(200, 207)])
    assert [line["scores"] for line in lines] == [one["scores"] for one in wanted]
    assert all(sum(line["scores"].values()) == pytest.approx(1) for line in lines)
    text = said(capsys, "predict", moved, "--input", new, "--output", output)
    assert "ensemble of 5: " in text
    assert tree(moved) == before


def test_rows_that_seeds_draw_are_refused(capsys, study, tmp_path):
    kept = tmp_path / "kept"
    ask = ["ensemble", str(study), "--variant", "plain", "--size", "5", "--out", str(kept)]
    assert main(ask) == 0
    for name in ("held-out", "train"):
        text = f"split '{name}' must be the same rows for all members of an ensemble, but members 1"
        refused(capsys, ["evaluate", str(kept), "--split", name], text)


def test_the_same_command_reads_what_is_there(capsys, study, tmp_path, monkeypatch):
    out = tmp_path / "kept"
    ask = ["ensemble", str(study), "--variant", "plain", "--size", "2", "--out", str(out)]
    found = printed(capsys, *ask)
    assert found["folders"] == [str(out / f"files-group-{number}") for number in (1, 2)]
    before = tree(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(sp.Ensemble, "evaluate", lambda *_: pytest.fail("evaluated again"))
        assert printed(capsys, *ask) == found
    assert tree(tmp_path) == before
    second = out / "files-group-2"
    (second / "ensemble.json").unlink()  # as after a kill
    (second / "members" / "2" / "result.json").unlink()
    (second / "members" / "2" / "prompt.safetensors").write_bytes(b"half")
    assert printed(capsys, *ask) == found
    assert tree(tmp_path) == before


def test_folders_of_others_are_left_alone(capsys, study, tmp_path):
    out = tmp_path / "kept"
    ask = ["ensemble", str(study), "--variant", "plain", "--size", "5", "--out"]
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    refused(capsys, [*ask, str(out)], "kept must be a new folder, or that of the same ensembles")
    assert tree(out).keys() == {"thesis.txt"}
    refused(capsys, [*ask, str(study)], "study must be a new folder, or that of the same")
    inside = study / "runs" / "kept"
    refused(capsys, [*ask, str(inside)], "`--out` must lie outside the study's runs, but is")
    assert main([*ask, str(tmp_path / "plain")]) == 0
    before = tree(tmp_path)
    other = ["ensemble", str(study), "--variant", "short", "--size", "5", "--out"]
    refused(capsys, [*other, str(tmp_path / "plain")], "must hold the members")
    fewer = ["ensemble", str(study), "--variant", "plain", "--size", "2", "--out"]
    refused(capsys, [*fewer, str(tmp_path / "plain")], "but holds ensemble.json")
    assert tree(tmp_path) == before
    group = tmp_path / "both" / "files-group-2"
    write_rows(group / "thesis.txt", ["mine"])
    refused(capsys, [*fewer, str(tmp_path / "both")], "group-2 must be a new or empty folder, but")
    assert not (tmp_path / "both" / "files-group-1").exists()
    prompt = tmp_path / "plain" / "members" / "3" / "prompt.safetensors"
    prompt.write_bytes(prompt.read_bytes()[:-4])
    refused(capsys, [*ask, str(tmp_path / "plain")], "3/prompt.safetensors must be")


def test_mistakes_are_said_in_one_line(capsys, study, tmp_path):
    ask = ["ensemble", str(study), "--variant"]
    refused(capsys, [*ask, "plane", "--size", "2"], "must be one of plain, short, but is 'plane'")
    refused(capsys, [*ask, "plain", "--size", "1"], "`--size` must be at least 2, but is 1")
    text = "`--size` must be at most the 5 runs of plain on files that have a score, but is 6"
    refused(capsys, [*ask, "plain", "--size", "6"], text)
    runs = runs_of(study, 4)
    shutil.rmtree(runs[1])
    refused(capsys, [*ask, "plain", "--size", "5"], "must be at most the 4 runs of plain on")
    found = printed(capsys, *ask, "plain", "--size", "2")
    assert [group["seeds"] for group in found["cells"][0]["groups"]] == [[0, 2], [3, 4]]
    assert found["cells"][0]["without_score"] == [1]
    assert "without a score: seeds 1." in said(capsys, *ask, "plain", "--size", "2")
    refused(capsys, ["ensemble", str(runs[0]), "--variant", "plain", "--size", "2"], "is a run's")
    (study / "ensembles.json").write_text('{"ensembles": [{"variant": "plain"}]}')
    refused(capsys, [*ask, "plain", "--size", "2"], "ensembles.json: `ensembles.0.size` must")
    refused(capsys, ["report", str(study)], "ensembles.json: `ensembles.0.size` must")


def test_other_verbs_say_what_an_ensemble_is(capsys, study, tmp_path):
    kept = tmp_path / "kept"
    ask = ["ensemble", str(study), "--variant", "plain", "--size", "5", "--out", str(kept)]
    assert main(ask) == 0
    refused(capsys, ["choices", str(kept)], "must be the folder of a run, but is that of an ens")
    new = write_rows(tmp_path / "new.jsonl", rows(0, 2))
    inside = ["predict", str(kept), "--input", str(new), "--output", str(kept / "out.jsonl")]
    refused(capsys, inside, "must lie outside the run's folder")


def test_rows_that_changed_are_noticed(capsys, study, data_dir):
    write_rows(data_dir / "val.jsonl", rows(100, 108))
    ask = ("ensemble", study, "--variant", "plain", "--size", "5")
    found = printed(capsys, *ask)
    assert found["cells"][0]["groups"][0]["is_same_data"] is False
    assert "rows are not those that the runs were reported on" in said(capsys, *ask)


def test_the_report_shows_them(capsys, study):
    sections = printed(capsys, "report", study)["sections"]
    assert "ensembles" not in sections
    for variant, size in (("plain", 2), ("short", 5), ("plain", 2)):
        found = printed(capsys, "ensemble", study, "--variant", variant, "--size", size)
    assert "ensembles" in printed(capsys, "report", study)["sections"]
    with (study / "tables" / "ensembles.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["variant"], line["size"]) for line in lines] == [("plain", "2"), ("short", "5")]
    assert lines[0]["seeds"] == "0, 1; 2, 3"
    assert float(lines[0]["mean"]) == found["cells"][0]["ensembles"]["mean"]
    assert lines[1]["std"] == ""
    assert "<h2>Ensembles</h2>" in (study / "report.html").read_text()


def test_every_task_and_grid_point_has_its_ensembles(capsys, recipe, content, tmp_path):
    content |= {"seeds": 2, "grid": {"prompt.length": [2, 3]}, "variants": {"plain": {}}}
    assert main(["study", recipe(content), "--out", str(tmp_path / "s"), "--no-report"]) == 0
    ask = ("ensemble", tmp_path / "s", "--variant", "plain", "--size", "2", "--out", tmp_path / "k")
    found = printed(capsys, *ask)
    assert [line["point"] for line in found["cells"]] == [{"prompt.length": n} for n in (2, 3)]
    names = [f"files-prompt.length-{n}-group-1" for n in (2, 3)]
    assert found["folders"] == [str(tmp_path / "k" / name) for name in names]
    assert isinstance(sp.load(found["folders"][1]), sp.Ensemble)
    refused(
        capsys,
        [*map(str, ask[:-4]), "--size", "3"],
        "2 runs of plain on files at prompt.length 2 that have a score, but is 3",
    )


def test_a_mixture_counts_each_task_the_same(capsys, recipe, content, data_dir, tmp_path):
    task = content["base"].pop("task")
    few = {**task, "num_items": 5}
    content["base"]["mixture"] = {"tasks": {"one": task, "two": few}}
    content |= {"seeds": 2, "variants": {"plain": {}}}
    assert main(["study", recipe(content), "--out", str(tmp_path / "s"), "--no-report"]) == 0
    kept = tmp_path / "kept"
    ask = ("ensemble", tmp_path / "s", "--variant", "plain", "--size", "2", "--out", kept)
    (line,) = printed(capsys, *ask)["cells"]
    each = [printed(capsys, "evaluate", kept, "--task", name)["score"] for name in ("one", "two")]
    assert line["ensembles"]["scores"] == [fmean(each)]
    assert line["groups"][0]["num_items"] == 21
    new = write_rows(tmp_path / "new.jsonl", rows(0, 2))
    ask = ["predict", str(kept), "--input", str(new), "--output", str(tmp_path / "o.jsonl")]
    refused(capsys, ask, "`--task` must be one of one, two, but was not given")
    assert main([*ask, "--task", "two"]) == 0
