"""`task.template`: a run read by the user's own template, from training to prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_material import changed, printed, refused, rows, write_rows

import softprompts as sp
from softprompts.cli.main import main
from softprompts.errors import DataError
from softprompts.results import load

MARKED = {"prompt.position": {"kind": "marked", "counts": [1, 3]}}
NLI = "{prompt} {hypothesis} because {prompt} {premise}"


@pytest.fixture
def nli(run: dict[str, Any]) -> dict[str, Any]:
    """A run on a bundled task, read by a template with marks."""
    task = {"name": "bundled/entailment", "shots": 4, "max_tokens": 40, "template": NLI}
    return changed({**run, "task": task}, MARKED)


def predict(capsys: pytest.CaptureFixture[str], out: Path, source: Path) -> list[Any]:
    target = source.with_name("out.jsonl")
    printed(capsys, "predict", str(out), "--input", str(source), "--output", str(target))
    return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]


def test_train_evaluate_and_predict_use_the_runs_template(capsys, recipe, nli, tmp_path):
    out = tmp_path / "out"
    result = printed(capsys, "train", recipe(nli), "--out", str(out))
    about = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert about["config"]["task"]["template"] == NLI
    assert about["task_format"]["templates"]["linear"] == NLI

    again = printed(capsys, "evaluate", str(out))
    assert (again["score"], again["is_same_data"]) == (result["score"], True)

    pairs = [{"premise": f"a {x} cat", "hypothesis": f"{x} it is"} for x in ("black", "small")]
    found = predict(capsys, out, write_rows(tmp_path / "in.jsonl", pairs))
    loaded = load(out)
    ids = loaded.model.readout.encode(sp.Example(pairs[0])).inputs[0]
    words = loaded.backbone.tokenizer.decode(ids.ids).split()
    assert words[1:5] == ["black", "it", "is", "because"]
    assert len(ids.marks) == 2
    expected = loaded.predict_scores(pairs)
    assert [line["scores"] for line in found] == [line["scores"] for line in expected]


def test_an_unmarked_template_changes_what_is_read(capsys, recipe, run, tmp_path):
    plain = printed(capsys, "train", recipe(run), "--out", str(tmp_path / "plain"))
    own = changed(run, {"task.template": "it is said that {text}"})
    other = printed(capsys, "train", recipe(own), "--out", str(tmp_path / "own"))
    assert plain["identity"] != other["identity"]
    texts = ["the soup was warm"]
    scores = [load(tmp_path / name).predict_scores(texts)[0]["scores"] for name in ("plain", "own")]
    assert scores[0] != scores[1]


def test_a_template_may_name_another_column_of_a_file(capsys, recipe, run, data_dir, tmp_path):
    for name, first, last in (("train", 0, 24), ("val", 100, 116)):
        content = [{**row, "note": f"note {i}"} for i, row in enumerate(rows(first, last))]
        write_rows(data_dir / f"{name}.jsonl", content)
    own = changed(run, {"task.template": "{prompt} {note}: {prompt} {text}", **MARKED})
    printed(capsys, "train", recipe(own), "--out", str(tmp_path / "out"))
    source = write_rows(tmp_path / "in.jsonl", [{"text": "warm", "note": "a"}])
    assert predict(capsys, tmp_path / "out", source)[0]["label"] in ("good", "bad")
    bare = write_rows(tmp_path / "bare.jsonl", [{"text": "warm"}])
    output = ["--output", str(tmp_path / "x.jsonl")]
    arguments = ["predict", str(tmp_path / "out"), "--input", str(bare), *output]
    refused(capsys, arguments, "bare.jsonl:1, field `note`")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"task.template": "{prompt} {premiss} {prompt}"},
            "field `premiss`: template field must be one of premise, hypothesis, but is 'premiss'.",
        ),
        ({"task.template": "{premise} {mask}"}, "must have {mask} 0 times, but has it 1 times."),
        ({"prompt.position": "fixed"}, "must have `{prompt}` 0 times unless position is marked"),
        (
            {"prompt.position": {"kind": "marked", "counts": [2, 1, 1]}},
            "must have a number for each of the 2 `{prompt}` of template",
        ),
    ],
)
def test_what_is_wrong_is_said_before_the_folder_is_touched(
    capsys, recipe, nli, tmp_path, changes, text
):
    wrong = {**changed(nli, changes)}
    if "mask" in str(changes):
        wrong["prompt"]["position"] = "fixed"
    refused(capsys, ["train", recipe(wrong), "--out", str(tmp_path / "out")], text)
    assert not (tmp_path / "out").exists()


def test_a_study_may_compare_templates(capsys, recipe, nli, tmp_path):
    study = {
        "name": "templates",
        "base": {**nli, "task": {**nli["task"], "template": None}, "prompt": {"length": 4}},
        "variants": {
            "plain": {},
            "own": {"task.template": NLI, **MARKED},
            "even": {"task.template": NLI, "prompt.position": "marked"},
        },
        "seeds": [0],
    }
    del study["base"]["seed"]
    path = recipe(study, "study.yaml")
    assert main(["study", path, "--out", str(tmp_path / "study"), "--no-report"]) == 0
    folders = sorted((tmp_path / "study").rglob("config.json"))
    found = [json.loads(folder.read_text(encoding="utf-8")) for folder in folders]
    assert len({about["identity"] for about in found}) == 3
    read = sorted(about["task_format"]["templates"]["linear"] for about in found)
    assert read == sorted([NLI, NLI, "{premise} {sep} {hypothesis}"])
    wrong = {**study, "variants": {"own": {"task.template": "{premis}"}}}
    refused(
        capsys,
        ["study", recipe(wrong, "wrong.yaml"), "--out", str(tmp_path / "wrong")],
        "field `premis`: template field must be one of",
    )
    assert not (tmp_path / "wrong").exists()


def test_a_loaded_task_may_have_a_template_from_python(backbone_folder, tmp_path):
    task = sp.load_task("bundled/entailment", shots=4, template=NLI)
    assert task.origin["template"] == NLI
    backbone = sp.load_backbone(str(backbone_folder("bert")))
    training = sp.TrainingConfig(steps=2, num_evaluations=1)
    prompt = sp.PromptConfig(length=4, position="marked")
    result = sp.train(
        backbone, task, prompt=prompt, training=training, max_tokens=40, out=tmp_path / "out"
    )
    assert result.config.task.template == NLI
    rows_ = [{"premise": "a black cat", "hypothesis": "a cat"}]
    loaded = sp.load(tmp_path / "out", backbone)
    assert loaded.predict_scores(rows_) == result.predict_scores(rows_)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{premise", r"template '{premise' must have paired braces"),
        ("{premise} {x}", r"field `x`: template field must be one of premise, hypothesis, but is"),
    ],
)
def test_a_template_that_does_not_fit_a_loaded_task(template, message):
    with pytest.raises(DataError, match=message):
        sp.load_task("bundled/entailment", template=template)
