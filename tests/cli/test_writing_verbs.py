"""Prompts that write, from the command line; and what a user gets wrong with them."""

from __future__ import annotations

import json

import pytest
from cli_material import changed, refused, tree, write_rows

from softprompts.cli.main import main

TEXTS = ("the soup was cold", "rain all day", "good bread", "nobody came", "<b>late</b>", "we ate")
ROWS = [{"text": text, "after": [f"so {text}", "so what"]} for text in TEXTS]
NO_READOUT_RATE = {"steps": 4, "batch_size": 4, "learning_rate": 0.3, "num_evaluations": 1}


@pytest.fixture
def run(run, backbone_folder, data_dir):
    """A small run that writes."""
    write_rows(data_dir / "train.jsonl", ROWS)
    write_rows(data_dir / "val.jsonl", ROWS)
    options = {"train": "train.jsonl", "validation": "val.jsonl", "template": "{text}:"}
    options |= {"target_field": "after", "metrics": ["chrf", "perplexity"]}
    return {
        "backbone": {"name": str(backbone_folder("gpt2"))},
        "task": {"name": "files", "data_dir": str(data_dir), "options": options},
        "readout": {"kind": "writing", "max_new_tokens": 12},
        "prompt": {"method": "prompt-tuning", "length": 4},
        "training": NO_READOUT_RATE,
    }


def printed(capsys, *arguments):
    capsys.readouterr()
    assert main(list(map(str, arguments))) == 0
    return capsys.readouterr().out


def test_texts_from_train_to_predict(capsys, recipe, run, tmp_path):
    out, new, texts = tmp_path / "out", tmp_path / "new.jsonl", tmp_path / "texts.jsonl"
    told = printed(capsys, "train", recipe(run), "--out", out)
    assert "(chrf) on 6 items of validation; majority " in told
    result = json.loads((out / "result.json").read_text())
    assert result["metrics"]["perplexity"] > 1
    assert [one["place"] for one in result["written"]] == ["best"] * 2 + ["median"] * 2 + [
        "worst"
    ] * 2
    found = json.loads(printed(capsys, "evaluate", out, "--json"))
    assert found["metrics"] == result["metrics"]
    assert found["score"] == result["score"] == result["metrics"]["chrf"]
    told = printed(capsys, "evaluate", out)
    perplexity = result["metrics"]["perplexity"]
    assert f"(chrf {100 * result['score']:.1f}, perplexity {perplexity:.1f}) on 6 items" in told
    write_rows(new, [{"text": text} for text in TEXTS])
    printed(capsys, "predict", out, "--input", new, "--output", texts)
    lines = [json.loads(line) for line in texts.read_text().splitlines()]
    assert lines[1] == {"source": f"{new}:2", "text": lines[1]["text"]}
    kept = {one["input"]: one["text"] for one in result["written"]}
    assert {row["text"]: line["text"] for row, line in zip(ROWS, lines, strict=True)} == kept


def test_a_study_of_texts_and_its_report(capsys, recipe, run, tmp_path):
    study = {"base": run, "seeds": 2}
    study |= {"variants": {"plain": {}, "none": {"prompt": {"method": "zero-shot"}}}}
    printed(capsys, "study", recipe(study), "--out", tmp_path / "study")
    about = json.loads(printed(capsys, "report", tmp_path / "study", "--json"))
    assert "written" in about["sections"]
    page = (tmp_path / "study" / "report.html").read_text()
    assert "&lt;b&gt;late&lt;/b&gt;" in page
    assert "<b>late</b>" not in page
    table = (tmp_path / "study" / "tables" / "written.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * 6
    kept = tmp_path / "kept"
    told = printed(
        capsys, "ensemble", tmp_path / "study", "--variant", "plain", "--size", 2, "--out", kept
    )
    assert f"folder: {kept}" in told


RECIPES = {
    "a readout of labels": ({"readout": "linear"}, "`readout` must be writing for files, whose "),
    "labels for a text": (
        {"task.options": {"train": "a", "validation": "b", "template": "{text}"}},
        "`readout` must be another for files, whose rows bring labels or choices, but is 'writing'",
    ),
    "shots of no class": (
        {"task.shots": 2},
        "`task.shots` must be left out for files, whose rows have no class, but is 2",
    ),
    "no new tokens": (
        {"readout.max_new_tokens": 0},
        "`readout.max_new_tokens` must be at least 1, but is 0",
    ),
    "more tokens than the context": (
        {"readout.max_new_tokens": 90},
        "`max_new_tokens` must leave at least 8 of the 60 positions",
    ),
    "beams that are drawn": (
        {"readout.num_beams": 2, "readout.temperature": 0.5},
        "`readout.num_beams` must be 1 where `readout.temperature` is given, ",
    ),
    "nothing to draw": (
        {"readout.top_p": 0.5},
        "`readout.top_p` must be left out where `readout.temperature` is null, ",
    ),
    "labels to compare": (
        {"regularizers": [{"kind": "ptp", "perturbation": "gaussian-noise", "consistency": "kl"}]},
        "`regularizers.0.consistency` must be ce with readout writing, since a text has no labels",
    ),
    "nothing to train": (
        {"prompt": {"method": "head-only"}},
        "`readout` must have trainable parameters when `prompt.length` is 0",
    ),
    "an unknown template": (
        {"task.options.template": None, "task.options.templates": {"text": "{text}"}},
        "readout must be one of writing, chat, but is 'text'",
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_wrong_recipe(capsys, recipe, run, tmp_path, name):
    changes, text = RECIPES[name]
    path = recipe(changed(run, changes))
    before = tree(tmp_path)
    refused(capsys, ["train", path, "--out", str(tmp_path / "out")], text)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"text": "x"}, "train.jsonl:2, field `after`: must be present, but the row has 'text'"),
        ({"text": "x", "after": " "}, "train.jsonl:2, field `after`: must be text to write, but "),
        ({"text": "x", "after": []}, "train.jsonl:2, field `after`: must be text to write, but "),
        (
            {"text": "x", "after": "rain all day " * 30},
            "train.jsonl:2, field `target`: must be a text of at most 51 tokens, which fit",
        ),
    ],
)
def test_a_wrong_target(capsys, recipe, run, tmp_path, data_dir, row, text):
    write_rows(data_dir / "train.jsonl", [ROWS[0], row, *ROWS])
    path = recipe(run)
    before = tree(tmp_path)
    refused(capsys, ["train", path, "--out", str(tmp_path / "out")], text)
    assert tree(tmp_path) == before


def test_an_encoder_does_not_write(capsys, recipe, run, tmp_path, backbone_folder):
    run["backbone"] = {"name": str(backbone_folder("bert"))}
    text = "it is no language model that writes from left to right. Use 'linear' or 'cloze'"
    refused(capsys, ["train", recipe(run), "--out", str(tmp_path / "out")], text)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["zero-shot", "instruction", "in-context"])
def test_what_trains_nothing_writes_too(capsys, recipe, run, tmp_path, method):
    more = {"num_demonstrations": 1} if method == "in-context" else {}
    run["prompt"] = {"method": method, **more}
    run["task"]["instruction"] = "Go on."
    told = printed(capsys, "train", recipe(run), "--out", tmp_path / "out")
    assert "selected step 0 of 0" in told
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert len(result["written"]) == 6
    assert result.get("num_demonstrations", {"files": 1}) == {"files": 1}


def test_two_tasks_of_writing_share_a_prompt_that_is_regularized(capsys, recipe, run, tmp_path):
    task = run.pop("task")
    run["mixture"] = {"tasks": {"one": task, "two": {**task, "template": "{text} hence"}}}
    noise = {"kind": "ptp", "perturbation": "gaussian-noise"}
    run["regularizers"] = [noise, {"kind": "ptp", "perturbation": "word-substitution"}, "row-norm"]
    run["training"]["average"] = "exponential"
    told = printed(capsys, "train", recipe(run), "--out", tmp_path / "out")
    assert "  two " in told
    found = json.loads(printed(capsys, "evaluate", tmp_path / "out", "--task", "two", "--json"))
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found["metrics"] == result["tasks"]["two"]["metrics"]
    printed(capsys, "landscape", tmp_path / "out", "--out", tmp_path / "l.html", "--task", "one")
