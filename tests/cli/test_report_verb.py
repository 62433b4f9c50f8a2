"""`softprompts report`: what it prints, where it writes, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_material import refused, tree

from softprompts.cli.main import main


@pytest.fixture
def study(once, run, capsys) -> Path:
    """The folder of a finished study that has no report yet."""
    del run["seed"]
    run["training"]["steps"] = 3
    content = {
        "name": "small",
        "base": run,
        "variants": {"plain": {}, "bare": {"prompt.method": "head-only", "prompt.length": 0}},
        "seeds": 2,
    }
    out: Path = once("study", content, "study", "--no-report")[1]
    assert not (out / "report.html").exists()
    assert "report:" not in capsys.readouterr().out
    return out


def test_a_report_stands_in_the_study(capsys, study):
    before = tree(study)
    assert main(["report", str(study), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    after = tree(study)
    new = {str(Path(path).relative_to(study)) for path in (found["html"], *found["tables"])}
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {*new, "tables/.report.json"}
    assert "report.html" in new
    summary = json.loads((study / "summary.json").read_text())
    assert (found["study"], found["num_finished"], found["state"]) == ("small", 4, "finished")
    assert found["advice"][0].startswith("take plain: ")
    assert "Take plain: " in Path(found["html"]).read_text()
    assert [line["mean"] for line in found["scores"]] == [line["mean"] for line in summary["cells"]]
    assert main(["report", str(study)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-2] == [*found["compared"], *found["found"], *found["certainty"]]
    assert lines[-2:] == [f"tables: {study / 'tables'}", f"report: {study / 'report.html'}"]


def test_what_a_killed_report_left_half_written_goes(study):
    before = tree(study)
    half = [study / "tables" / ".runs.csv.8046.part", study / "tables" / ".scores.tex.1.part"]
    half[0].parent.mkdir(exist_ok=True)
    for path in half:
        path.write_text("variant,ta")
    assert main(["report", str(study)]) == 0
    assert not [path for path in half if path.exists()]
    assert {name: found for name, found in tree(study).items() if name in before} == before


def test_a_report_may_stand_elsewhere(capsys, study, tmp_path):
    before = tree(study)
    place = tmp_path / "pages"
    place.mkdir()
    assert main(["report", str(study), "--html", str(place / "one.html")]) == 0
    assert tree(study) == before
    assert {path.name for path in place.iterdir()} == {"one.html", "one-tables"}
    assert (place / "one-tables" / "scores.csv").exists()


def test_what_cannot_be_written_is_said_in_one_line(capsys, study, tmp_path):
    ask = ["report", str(study), "--html"]
    other = tmp_path / "mine.html"
    other.write_text("mine")
    refused(capsys, [*ask, str(other)], "must be new or an earlier report, but is another file")
    assert other.read_text() == "mine"
    refused(capsys, [*ask, "page.pdf"], "`--html` must end in .html, but is 'page.pdf'")
    inside = study / "runs" / "page.html"
    refused(capsys, [*ask, str(inside)], "`--html` must lie outside the study's runs, but is")
    (tmp_path / "file").write_text("")
    refused(capsys, [*ask, str(tmp_path / "file" / "page.html")], "could not be")
    refused(capsys, ["report", str(tmp_path / "none")], "none could not be read: no such folder")
    run = next((study / "runs").iterdir())
    refused(capsys, ["report", str(run)], "must be a study's folder, but is a run's")


@pytest.mark.parametrize("place", ["study/tables", "page-tables"])
def test_tables_replace_no_file_of_somebody_else(capsys, study, tmp_path, place):
    folder = tmp_path / place
    folder.mkdir()
    mine = [folder / name for name in ("scores.csv", ".thesis.part", ".thesis.csv.1.part")]
    for path in mine:
        path.write_text("mine\n")
    before = tree(tmp_path)
    ask = ["report", str(study)]
    if place == "page-tables":
        ask += ["--html", str(tmp_path / "page.html")]
    text = "scores.csv must be new or a table of an earlier report, but is another file."
    refused(capsys, ask, text)
    assert tree(tmp_path) == before
    mine[0].rename(folder / "thesis.csv")
    for _ in range(2):  # the second replaces the tables of the first
        assert main(ask) == 0
    for path in (folder / "thesis.csv", *mine[1:]):
        assert path.read_text() == "mine\n"


def test_tables_are_replaced_that_other_columns_had(study):
    assert main(["report", str(study)]) == 0
    table = study / "tables" / "scores.csv"
    whole = table.read_text()
    table.write_text("variant,fewer\n")
    assert main(["report", str(study)]) == 0
    assert table.read_text() == whole
    (study / "tables" / ".report.json").unlink()  # as reports of earlier versions had none
    assert main(["report", str(study)]) == 0
    assert (study / "tables" / ".report.json").exists()


def test_a_table_that_has_no_rows_any_more_goes(study):
    """As that of lost runs, once all are there; a name that leads elsewhere is left alone."""
    assert main(["report", str(study)]) == 0
    tables, elsewhere = study / "tables", study / "summary.json"
    before, listed = tree(study), json.loads((tables / ".report.json").read_text())
    (tables / "lost-runs.csv").write_text("seed\n")
    names = [*listed["tables"], "lost-runs.csv", "../summary.json"]
    (tables / ".report.json").write_text(json.dumps({"tables": names}))
    assert main(["report", str(study)]) == 0
    assert elsewhere.exists()
    assert tree(study) == before


def test_a_page_is_no_pipe(capsys, study, tmp_path):
    pipe = tmp_path / "page.html"
    os.mkfifo(pipe)
    text = "must be a new or regular file, but is a device or pipe"
    refused(capsys, ["report", str(study), "--html", str(pipe)], text)


def test_a_broken_result_is_named(capsys, study):
    run = next((study / "runs").iterdir())
    (run / "result.json").write_text("{}")
    refused(capsys, ["report", str(study)], "result.json must have `identity`, but lacks it.")
    assert not (study / "report.html").exists()


def test_every_study_ends_with_its_report(capsys, study, recipe, run):
    path = str(study.parent / "study.yaml")
    assert main(["study", path, "--out", str(study)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-2:] == [f"folder: {study}", f"report: {study / 'report.html'}"]
    assert (study / "tables" / "scores.tex").exists()
    assert main(["study", path, "--out", str(study), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(study / "report.html")


@pytest.mark.filterwarnings("default::softprompts.errors.SoftPromptsWarning")
def test_a_report_that_cannot_be_written_does_not_undo_a_study(capsys, study):
    (study / "report.html").write_text("mine")
    assert main(["study", str(study.parent / "study.yaml"), "--out", str(study), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["report"] is None
    assert "warning: no report is written: " in captured.err
    assert "is another file" in captured.err
    assert (study / "report.html").read_text() == "mine"


def test_landscapes_of_a_study_are_kept_and_shown(capsys, study, tmp_path):
    runs = [str(study / "runs" / name) for name in sorted(os.listdir(study / "runs"))]
    look = ["--num-points", "3", "--num-examples", "2", "--spaces", "input"]
    picture = ["--out", str(tmp_path / "l.svg")]
    assert main(["landscape", runs[0], *look, *picture]) == 0
    assert len(list((study / "analysis" / "landscapes").iterdir())) == 1
    assert main(["report", str(study), "--json"]) == 0
    assert "landscapes" in json.loads(capsys.readouterr().out.partition("\n")[2])["sections"]
    assert "landscape-0-input-0" in (study / "report.html").read_text("utf-8")
