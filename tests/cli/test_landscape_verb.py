"""`softprompts landscape`, on runs and on studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_material import refused, tree

from softprompts.cli.main import main


def measured(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """Run the verb with --json and return its rows."""
    capsys.readouterr()
    given = ["landscape", *arguments, "--sharpness-only", "--quick", "--json"]
    assert main(given) == code
    return json.loads(capsys.readouterr().out)["runs"]


@pytest.fixture
def study(capsys, once, run) -> Path:
    """The folder of a study of two variants and two seeds."""
    base = {key: value for key, value in run.items() if key != "seed"}
    variants = {"plain": {}, "head": {"prompt.method": "head-only", "prompt.length": None}}
    content = {"name": "small", "base": base, "variants": variants, "seeds": 2}
    found: Path = once("study", content, "study", "--no-report")[1]
    capsys.readouterr()
    return found


def test_a_run_is_measured_twice_alike_and_left_as_it_is(capsys, finished):
    _, out = finished
    before = tree(out)
    first, second = measured(capsys, str(out), str(out))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert tree(out) == before
    config = json.loads((out / "config.json").read_text())
    assert first["identity"] == config["identity"]
    assert (first["method"], first["seed"], first["num_examples"]) == ("prompt-tuning", 3, 16)
    assert first["left_out"] == {}
    for name, radii in (("input", [0.03, 0.1]), ("prompt", [0.1])):
        assert [line["radius"] for line in first[name]["radii"]] == radii
    worst = [line["worst"] for line in first["input"]["radii"]]
    assert 0 < worst[0] < worst[1]
    assert first["input"]["radii"][1]["noise"] < worst[1]
    assert first["prompt"]["radii"][0]["worst"] > 0
    assert first["curvature"]["top"] >= first["curvature"]["bottom"]
    assert first["curvature"]["num_examples"] == 6


def test_the_loss_is_that_of_evaluate(capsys, finished):
    _, out = finished
    capsys.readouterr()
    assert main(["evaluate", str(out), "--split", "train", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)["loss"]
    for measures in ("input", "prompt"):
        options = ("--num-examples", "99", "--measures", measures)
        (found,) = measured(capsys, str(out), *options)
        assert found["loss"] == pytest.approx(known, rel=1e-5)
        assert [name for name in ("input", "prompt", "curvature") if found[name]] == [measures]


def test_a_study_is_not_drawn_or_loaded_as_a_run(capsys, study, tmp_path):
    text = f"{study} must be the folder of a run"
    refused(capsys, ["landscape", str(study)], f"{text} to be drawn, but is that of a study. Name")
    refused(capsys, ["evaluate", str(study)], f"{text}, but is that of a study. Name one of the")
    for verb in ("landscape", "evaluate"):
        text = f"{tmp_path / 'none'} could not be read: no such folder"
        refused(capsys, [verb, str(tmp_path / "none")], text)


def test_a_study_is_measured_once(capsys, study):
    rows = measured(capsys, str(study))
    names = [(row["variant"], row["seed"]) for row in rows]
    assert names == [("plain", 0), ("plain", 1), ("head", 0), ("head", 1)]
    assert [sorted(row["left_out"]) for row in rows] == [[], [], *[["curvature", "prompt"]] * 2]
    assert all("has no prompt rows" in text for text in rows[2]["left_out"].values())
    kept = sorted((study / "analysis" / "sharpness").iterdir())
    assert [path.stem for path in kept] == sorted(row["identity"] for row in rows)
    times = [path.stat().st_mtime_ns for path in kept]
    assert measured(capsys, str(study)) == rows
    assert [path.stat().st_mtime_ns for path in kept] == times
    others = measured(capsys, str(study), "--num-examples", "4")
    assert {row["num_examples"] for row in others} == {4}
    assert measured(capsys, str(study)) == rows
    assert main(["landscape", str(study), "--sharpness-only", "--quick"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[2].split()[:3] == ["plain", rows[0]["task"], "0"]
    assert captured.err.count("seed 1: ") == 2


def test_a_run_that_cannot_be_measured_is_a_row_with_its_reason(capsys, study):
    runs = sorted((study / "runs").iterdir())
    (runs[0] / "result.json").unlink()
    result = json.loads((runs[1] / "result.json").read_text())
    (runs[1] / "result.json").write_text(json.dumps({**result, "status": "diverged"}))
    rows = {row["identity"]: row for row in measured(capsys, str(study), code=1)}
    assert "has no result.json" in rows[runs[0].name]["error"]
    assert "`status`: must be `finished`, but is 'diverged'" in rows[runs[1].name]["error"]
    assert sum("error" in row for row in rows.values()) == 2
    assert main(["landscape", str(study), "--sharpness-only", "--quick"]) == 1
    assert "diverged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--split", "test"], "`split` must be one of train, held-out, validation, but is 'test'"),
        (["--num-examples", "0"], "`num_examples` must be at least 1, but is 0"),
        (["--dtype", "int8"], "`dtype` must be one of float32, bfloat16, float16, but is 'int8'"),
        (
            ["--measures", "hill"],
            "`measures` must be some of input, prompt, curvature, but is hill",
        ),
        (["--task", "other"], "field `task`: must be one of files, but is 'other'"),
    ],
)
def test_wrong_options_are_refused(capsys, finished, options, text):
    _, out = finished
    refused(capsys, ["landscape", str(out), "--sharpness-only", *options], text)


def test_rows_that_changed_are_refused(capsys, finished, data_dir):
    _, out = finished
    path = data_dir / "train.jsonl"
    path.write_text(path.read_text().replace("superb", "poor"))
    text = "rows of files must be those of the run, with digest"
    refused(capsys, ["landscape", str(out), "--sharpness-only"], text)


def test_landscapes_of_several_runs_are_drawn_together(capsys, study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {
        run: json.loads((run / "config.json").read_text()) for run in (study / "runs").iterdir()
    }
    runs = sorted(
        config,
        key=lambda run: (
            str(config[run]["config"]["prompt"]["method"]),
            config[run]["config"]["seed"],
        ),
    )
    given = ["landscape", *map(str, runs[2:]), str(runs[0]), "--quick", "--num-points", "3"]
    before = tree(study)
    capsys.readouterr()
    assert main([*given, "--out", "all.svg", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (tmp_path / "all.svg").read_bytes().startswith(b"<?xml")
    assert found["figure"] == "all.svg"
    names = [(run["method"], run["seed"], sorted(run["spaces"])) for run in found["runs"]]
    both = ["input", "prompt"]
    assert names == [
        ("prompt-tuning", 0, both),
        ("prompt-tuning", 1, both),
        ("head-only", 0, ["input"]),
    ]
    assert "must have prompt rows" in found["runs"][2]["left_out"]["prompt"]
    for run in found["runs"]:
        for plane in run["spaces"].values():
            assert plane["losses"][1][1] == plane["loss"]
            assert plane["slope"] > 0
    assert found["seed_planes"] == []
    (path,) = found["paths"]
    assert (path["first"], path["second"], len(path["losses"])) == (0, 1, 9)
    assert path["losses"][0] == pytest.approx(found["runs"][0]["spaces"]["input"]["loss"], rel=1e-5)
    assert main(given) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("landscape.html: loss around prompt-tuning, seed 0, prompt-tun")
    page = (tmp_path / "landscape.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert str(study) not in page
    after = tree(study)
    (kept,) = after.keys() - before.keys()
    assert kept.startswith("analysis/landscapes/")
    assert {name: after[name] for name in before} == before
    assert main([*given, "--spaces", "prompt", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["figure"] is None
    assert again["runs"][0]["spaces"] == {"prompt": found["runs"][0]["spaces"]["prompt"]}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--out", "a.pdf"], "`--out` must end in .svg, .png, .html, but is 'a.pdf'"),
        (["--measures", "input"], "`--measures` must be left out without --sharpness-only, but is"),
        (["--num-points", "4"], "`num_points` must be odd, at least 3 and at most 1001, but is 4"),
        (["--spaces", "prompt,sky"], "`spaces` must be some of input, prompt, but is prompt, sky"),
        (["--spaces", "input,input"], "`spaces` must name each space once, but is input, input"),
        (["--num-points", "99999999999"], "at most 1001, but is 99999999999"),
        (["--directions", "up"], "`directions` must be one of gradient, random, but is 'up'"),
        (["--sharpness-only", "--out", "a.html"], "`--out` must be left out with --sharpness-only"),
        (["--sharpness-only", "--num-points", "3"], "`--num-points` must be left out with --sharp"),
        (["--sharpness-only", "--fine"], "`--fine` must be left out with --sharpness-only"),
    ],
)
def test_options_of_a_picture_are_checked_first(capsys, tmp_path, monkeypatch, options, text):
    monkeypatch.chdir(tmp_path)
    refused(capsys, ["landscape", "nowhere", *options], text)
    assert not list(tmp_path.iterdir())


def test_a_picture_stays_out_of_runs_and_spares_other_files(capsys, finished, tmp_path):
    _, out = finished
    inside = out / "a.html"
    refused(capsys, ["landscape", str(out), "--out", str(inside)], "`--out` must lie outside the")
    assert not inside.exists()
    (tmp_path / "own.html").write_text("mine")
    given = ["landscape", str(out), "--out", str(tmp_path / "own.html")]
    refused(capsys, given, "own.html must be new or an earlier picture")
    assert (tmp_path / "own.html").read_text() == "mine"
    refused(capsys, ["landscape", *[str(out)] * 13], "runs must be at most 12 to be drawn")
    again = f"runs must each be given once, but '{out}/.' is given again"
    refused(capsys, ["landscape", str(out), f"{out}/."], again.replace("/.", ""))


def test_three_seeds_span_a_plane(capsys, recipe, run, tmp_path):
    base = {key: value for key, value in run.items() if key != "seed"}
    content = {"name": "three", "base": base, "seeds": 3}
    out = tmp_path / "three"
    made = ["study", recipe(content, "three.yaml"), "--out", str(out), "--no-report"]
    assert main(made) == 0
    folders = sorted((out / "runs").iterdir())
    given = ["landscape", *map(str, folders), "--quick", "--num-points", "3", "--json"]
    given += ["--split", "validation"]  # the same rows for every seed
    capsys.readouterr()
    assert main([*given, "--spaces", "prompt", "--out", str(tmp_path / "three.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    (plane,) = found["seed_planes"]
    own = [one["spaces"]["prompt"]["loss"] for one in found["runs"]]
    assert plane["runs"] == [0, 1, 2]
    assert plane["mark_losses"] == pytest.approx(own, rel=1e-4)
    assert main([*given, "--spaces", "input"]) == 0
    assert json.loads(capsys.readouterr().out)["seed_planes"] == []
