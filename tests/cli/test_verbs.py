"""`softprompts train`, `evaluate` and `predict`, and the same things from Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_material import files_task, printed, refused, rows, tree, write_rows

import softprompts as sp
from softprompts.cli.main import main
from softprompts.cli.predict import _places
from softprompts.errors import DataError
from softprompts.examples import Example

RESULT = {
    "metric",
    "score",
    "last_score",
    "majority",
    "num_items",
    "seconds",
    "examples_per_second",
    "peak_bytes",
    "trainable_parameters",
    "seed",
    "identity",
    "status",
}
CHOICES = [
    {"start": f"The {a} fell.", "one": f"It broke {i}.", "two": f"It sang {i}.", "answer": i % 2}
    for i, a in enumerate(("cup", "vase", "plate", "glass") * 5)
]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def diverging(run: dict[str, Any]) -> dict[str, Any]:
    """A run whose loss is no number after its first update."""
    run["training"] |= {"learning_rate": 1e30, "clip_norm": None}
    return run


def test_a_run_folder_holds_what_the_contract_says(capsys, recipe, run, tmp_path):
    out = tmp_path / "out"
    told = printed(capsys, "train", recipe(run), "--out", str(out))
    result = json.loads((out / "result.json").read_text())
    config = json.loads((out / "config.json").read_text())

    assert set(tree(out)) == {
        ".lock",
        "config.json",
        "metrics.jsonl",
        "prompt.safetensors",
        "result.json",
        "state/checkpoint.safetensors",
    }
    assert result.keys() >= RESULT
    assert told == {**result, "folder": str(out)}
    assert (result["status"], result["seed"], result["num_items"]) == ("finished", 3, 16)
    assert result["trainable_parameters"] == 4 * 32 + 2 * 32 + 2
    assert result["score"] == result["metrics"]["accuracy"]
    assert 0 <= result["score"] <= 1
    assert result["majority"] == 0.5
    assert result["peak_bytes"] > 1e6
    assert 0 < result["seconds"] < 100
    assert result["examples_per_second"] > 0
    assert config["identity"] == result["identity"]
    assert config["config"]["task"]["options"]["train"] == "train.jsonl"

    lines = lines_of(out / "metrics.jsonl")
    updates = [line for line in lines if "split" not in line]
    evaluations = [line for line in lines if "split" in line]
    assert [line["step"] for line in updates] == [1, 2, 3, 4, 5, 6]
    assert all(
        line.keys() == {"step", "loss", "learning_rate", "gradient_norm"} for line in updates
    )
    assert [line["step"] for line in evaluations] == [2, 4, 6]
    assert {line["split"] for line in evaluations} == {"held_out"}
    best = max(evaluations, key=lambda line: (line["score"], -line["loss"]))
    assert (result["selected_step"], result["held_out_score"]) == (best["step"], best["score"])


def test_training_teaches_something(capsys, recipe, run, tmp_path):
    run["training"] |= {"steps": 60, "num_evaluations": 6}
    result = printed(capsys, "train", recipe(run), "--out", str(tmp_path / "out"))

    assert result["score"] > 0.8 > result["majority"]


def test_train_says_in_words_what_it_did(capsys, recipe, run, tmp_path):
    run["task"]["max_tokens"] = 8
    run["task"]["skip_bad_rows"] = True
    write_rows(tmp_path / "data" / "val.jsonl", [*rows(100, 116), "no JSON"])
    assert main(["train", recipe(run), "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out

    assert text.startswith("score ")
    assert "(accuracy) on 16 items of validation; majority 50.0; last " in text
    assert "selected step " in text
    assert "194 trainable numbers" in text
    assert "inputs cut to fit: " in text
    assert f"bad rows skipped: 1 in {tmp_path / 'data' / 'val.jsonl'}" in text
    assert text.splitlines()[-1] == f"folder: {tmp_path / 'out'}"


@pytest.mark.parametrize("task", ["files", "bundled/sentiment", "superglue/cb", "fewglue/copa"])
def test_evaluate_reproduces_the_score_and_predict_agrees(
    capsys, recipe, run, tmp_path, task, request
):
    if task == "bundled/sentiment":
        run["task"] = {"name": task, "shots": 8}
    elif task != "files":
        run["task"] = {"name": task, "data_dir": str(request.getfixturevalue("real_data"))}
        if task == "superglue/cb":
            run["task"] |= {"shots": 4}
    out = tmp_path / "out"
    result = printed(capsys, "train", recipe(run), "--out", str(out))
    before = tree(out)
    found = printed(capsys, "evaluate", str(out))
    named = printed(capsys, "evaluate", str(out), "--split", result["split"])
    trained = printed(capsys, "evaluate", str(out), "--split", "train")

    assert found["score"] == result["score"]
    assert found["metrics"] == result["metrics"]
    assert found["is_same_data"] is True
    assert (found["num_items"], found["majority"]) == (result["num_items"], result["majority"])
    assert {**named, "split": "validation"} == found
    assert 0 < trained["num_items"] != found["num_items"]
    assert tree(out) == before


def test_predict_on_rows_without_labels(capsys, finished, tmp_path):
    out, output = finished[1], tmp_path / "predictions.jsonl"
    write_rows(tmp_path / "new.jsonl", rows(100, 116, has_labels=False))
    arguments = ["predict", str(out), "--input", str(tmp_path / "new.jsonl")]
    told = printed(capsys, *arguments, "--output", str(output))
    predictions = lines_of(output)
    score = printed(capsys, "evaluate", str(out))["score"]

    assert told == {
        "output": str(output),
        "num_rows": 16,
        "num_skipped": 0,
        "num_cut": 0,
    }
    assert all(line["scores"].keys() == {"bad", "good"} for line in predictions)
    assert all(line["label"] == max(line["scores"], key=line["scores"].get) for line in predictions)
    assert predictions[2]["source"] == f"{tmp_path / 'new.jsonl'}:3"
    truth = [row["label"] for row in rows(100, 116)]
    hits = [line["label"] == label for line, label in zip(predictions, truth, strict=True)]
    assert sum(hits) / len(hits) == score


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_evaluate_scores_labelled_rows_of_a_file(capsys, finished, tmp_path, ending):
    out, source = finished[1], tmp_path / f"new.{ending}"
    own = rows(100, 116)
    write_rows(source, own)
    if ending == "csv":
        lines = [",".join(json.dumps(row[key]) for key in ("text", "label")) for row in own]
        source.write_text("\n".join(["text,label", *lines]))
    kept = printed(capsys, "evaluate", str(out))
    found = printed(capsys, "evaluate", str(out), "--input", str(source))
    assert found == {**kept, "split": str(source), "is_same_data": None}
    assert main(["evaluate", str(out), "--input", str(source)]) == 0
    assert capsys.readouterr().out.endswith(f" on 16 items of {source}; majority 50.0\n")


def test_evaluate_on_a_file_wants_labels_and_nothing_else(capsys, finished, tmp_path):
    source = write_rows(tmp_path / "new.jsonl", [*rows(0, 2), {"text": "fine"}])
    ask = ["evaluate", str(finished[1]), "--input", str(source)]
    refused(capsys, ask, f"{source}:3: must have its label to be scored, but has none")
    for option, value in (("--split", "train"), ("--data-dir", str(tmp_path))):
        refused(capsys, [*ask, option, value], f"`{option}` must be left out with --input")


@pytest.mark.parametrize(
    ("example", "text"),
    [
        ({"text": "fine"}, "example 2: must be an Example with its answers, but is {"),
        (Example({"text": "fine"}, answers=("good",)), "`answers`: must be places of bad, good, "),
        (Example({"text": "fine"}, answers=(2,)), "from 0 to 1, but has 2"),
    ],
)
def test_python_refuses_answers_that_are_no_places(finished, example, text):
    with pytest.raises(DataError, match=re.escape(text)):
        sp.load(finished[1]).evaluate([Example({"text": "fine"}, answers=(1,)), example])


def test_predict_on_a_bundled_task(capsys, recipe, run, tmp_path):
    run["task"] = {"name": "bundled/sentiment", "shots": 8}
    printed(capsys, "train", recipe(run), "--out", str(tmp_path / "out"))
    write_rows(tmp_path / "new.jsonl", [{"text": "A lovely soup."}, {"text": "Never again."}])
    arguments = ["--input", str(tmp_path / "new.jsonl"), "--output", str(tmp_path / "g.jsonl")]

    assert printed(capsys, "predict", str(tmp_path / "out"), *arguments)["num_rows"] == 2
    assert {line["label"] for line in lines_of(tmp_path / "g.jsonl")} <= {"negative", "positive"}


def test_predict_on_real_rows_without_labels(capsys, recipe, run, tmp_path, real_data):
    run["task"] = {"name": "fewglue/cb", "data_dir": str(real_data)}
    printed(capsys, "train", recipe(run), "--out", str(tmp_path / "out"))
    given = lines_of(real_data / "fewglue" / "CB" / "val.jsonl")[:5]
    bare = [{key: value for key, value in row.items() if key != "label"} for row in given]
    write_rows(tmp_path / "new.jsonl", bare)
    arguments = ["--input", str(tmp_path / "new.jsonl"), "--output", str(tmp_path / "g.jsonl")]

    assert printed(capsys, "predict", str(tmp_path / "out"), *arguments)["num_rows"] == 5
    labels = {"entailment", "contradiction", "neutral"}
    assert {line["label"] for line in lines_of(tmp_path / "g.jsonl")} <= labels


def test_a_task_whose_rows_bring_their_choices(capsys, recipe, run, tmp_path):
    write_rows(tmp_path / "data" / "train.jsonl", CHOICES[:12])
    write_rows(tmp_path / "data" / "val.jsonl", CHOICES[12:])
    options = {"template": "{start}", "choices_fields": ["one", "two"], "label_field": "answer"}
    run["task"] = files_task(tmp_path / "data", **options)
    out = tmp_path / "out"
    result = printed(capsys, "train", recipe(run), "--out", str(out))
    bare = [{key: row[key] for key in ("start", "one", "two")} for row in CHOICES[12:]]
    write_rows(tmp_path / "new.jsonl", bare)
    arguments = ["--input", str(tmp_path / "new.jsonl"), "--output", str(tmp_path / "g.jsonl")]
    printed(capsys, "predict", str(out), *arguments)

    assert printed(capsys, "evaluate", str(out))["score"] == result["score"]
    for line, row in zip(lines_of(tmp_path / "g.jsonl"), bare, strict=True):
        assert line["scores"].keys() == {row["one"], row["two"]}
        assert line["label"] in line["scores"]
    inputs = [{"start": r["start"], "choices": [r["one"], r["two"]]} for r in bare]
    predicted = [line["label"] for line in lines_of(tmp_path / "g.jsonl")]
    assert sp.load(out).predict(inputs) == predicted

    write_rows(tmp_path / "new.jsonl", [bare[0], {**bare[1], "two": bare[1]["one"]}, bare[2]])
    assert main(["predict", str(out), *arguments]) == 2
    assert "new.jsonl:2, field `choices`: must be different texts" in capsys.readouterr().err
    found = printed(capsys, "predict", str(out), *arguments, "--skip-bad-rows")
    assert (found["num_rows"], found["num_skipped"]) == (2, 1)
    assert [line["label"] for line in lines_of(tmp_path / "g.jsonl")] == predicted[0:3:2]
    write_rows(tmp_path / "new.jsonl", [{**bare[1], "two": bare[1]["one"]}])
    assert main(["predict", str(out), *arguments, "--skip-bad-rows"]) == 2
    assert "field `choices`: must be different texts" in capsys.readouterr().err


def test_predictions_name_the_answers_of_a_line():
    sources = [("a:1", "0/0"), ("a:1", "0/0"), ("a:1", "0/1"), ("a:2", "1/0"), ("a:3", "")]
    examples = [Example({}, source=source, group=group) for source, group in sources]
    assert list(_places(examples)) == [
        {"source": "a:1", "group": "0/0", "item": 0},
        {"source": "a:1", "group": "0/0", "item": 1},
        {"source": "a:1", "group": "0/1", "item": 0},
        {"source": "a:2", "group": "1/0", "item": 0},
        {"source": "a:3"},
    ]


@pytest.mark.slow
def test_predictions_on_multirc_can_be_mapped_back(capsys, recipe, run, tmp_path, real_data):
    options = {"shots_total": 8, "max_tokens": 48}
    run["task"] = {"name": "fewglue/multirc", "data_dir": str(real_data), **options}
    run["training"] |= {"steps": 2, "selection": "last"}
    printed(capsys, "train", recipe(run), "--out", str(tmp_path / "out"))
    given = lines_of(real_data / "fewglue" / "MultiRC" / "val.jsonl")[:2]
    write_rows(tmp_path / "new.jsonl", given)
    arguments = ["--input", str(tmp_path / "new.jsonl"), "--output", str(tmp_path / "g.jsonl")]
    printed(capsys, "predict", str(tmp_path / "out"), *arguments)
    assert [(line["group"], line["item"]) for line in lines_of(tmp_path / "g.jsonl")] == [
        (f"{row['idx']}/{question['idx']}", item)
        for row in given
        for question in row["passage"]["questions"]
        for item in range(len(question["answers"]))
    ]


def test_predict_counts_bad_rows_only_when_asked(capsys, finished, tmp_path):
    out, output = finished[1], tmp_path / "g.jsonl"
    write_rows(tmp_path / "new.jsonl", [{"text": "fine"}, {"txt": "no"}])
    arguments = ["predict", str(out), "--input", str(tmp_path / "new.jsonl"), "--output"]

    assert main([*arguments, str(output)]) == 2
    assert f"{tmp_path / 'new.jsonl'}:2, field `text`" in capsys.readouterr().err
    assert not output.exists()
    found = printed(capsys, *arguments, str(output), "--skip-bad-rows")
    assert (found["num_rows"], found["num_skipped"]) == (1, 1)


def test_evaluate_and_predict_say_that_inputs_are_cut(capsys, recipe, run, tmp_path):
    out, output = tmp_path / "out", str(tmp_path / "g.jsonl")
    run["task"]["max_tokens"] = 8
    result = printed(capsys, "train", recipe(run), "--out", str(out))
    assert printed(capsys, "evaluate", str(out))["num_cut"] == result["num_cut"]["validation"] > 0
    write_rows(tmp_path / "new.jsonl", [{"text": "fine " * 20}, {"text": "fine"}])
    ask = ["predict", str(out), "--input", str(tmp_path / "new.jsonl"), "--output", output]
    assert printed(capsys, *ask)["num_cut"] == 1
    for arguments, count in ((ask, 1), (["evaluate", str(out)], result["num_cut"]["validation"])):
        assert main(arguments) == 0
        assert f"inputs cut to fit: {count}" in capsys.readouterr().out.splitlines()


def test_evaluate_says_that_rows_have_changed(capsys, finished, tmp_path, data_dir):
    out = finished[1]
    moved = shutil.copytree(data_dir, tmp_path / "moved")
    write_rows(data_dir / "val.jsonl", rows(100, 104))

    assert printed(capsys, "evaluate", str(out))["is_same_data"] is False
    assert printed(capsys, "evaluate", str(out), "--data-dir", str(moved))["is_same_data"] is True
    assert main(["evaluate", str(out)]) == 0
    assert "rows are not those that the run was trained" in capsys.readouterr().out


def test_a_finished_run_is_left_as_it_is(capsys, recipe, run, tmp_path):
    path, out = recipe(run), tmp_path / "out"
    first = printed(capsys, "train", path, "--out", str(out))
    before = tree(out)

    assert main(["train", path, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error == f"error: {out} holds a run already; pass --resume to go on with it.\n"
    assert tree(out) == before
    assert printed(capsys, "train", path, "--out", str(out), "--resume") == first
    assert tree(out) == before


def test_resume_begins_a_new_run_where_there_is_none(capsys, recipe, run, tmp_path):
    out = tmp_path / "out"
    result = printed(capsys, "train", recipe(run), "--out", str(out), "--resume")

    assert (result["status"], result["steps"]) == ("finished", 6)


def test_a_run_that_diverges_says_where(capsys, recipe, diverging, tmp_path):
    path, out = recipe(diverging), tmp_path / "out"

    assert main(["train", path, "--out", str(out), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    at = result["divergence"]
    assert (result["status"], result["score"]) == ("diverged", None)
    assert at["step"] == result["steps"] < 6
    assert at["learning_rate"] == 1e30
    assert "nan" in at["loss"] + at["gradient_norm"] or "inf" in at["loss"] + at["gradient_norm"]
    last = lines_of(out / "metrics.jsonl")[-1]
    assert last["step"] == at["step"]
    assert None in (last["loss"], last["gradient_norm"])

    assert main(["train", path, "--out", str(out), "--resume"]) == 1
    text = capsys.readouterr().out.splitlines()[0]
    assert text == (
        f"diverged at step {at['step']}: loss {at['loss']}, learning rate 1e+30, gradient norm "
        f"{at['gradient_norm']}"
    )


def test_a_run_that_diverged_still_speaks_json(capsys, recipe, diverging, tmp_path):
    diverging["training"]["num_evaluations"] = 6
    out = tmp_path / "out"
    assert main(["train", recipe(diverging), "--out", str(out)]) == 1
    capsys.readouterr()
    write_rows(tmp_path / "new.jsonl", rows(100, 103))
    arguments = ["--input", str(tmp_path / "new.jsonl"), "--output", str(tmp_path / "g.jsonl")]

    assert printed(capsys, "evaluate", str(out))["loss"] is None
    assert printed(capsys, "predict", str(out), *arguments)["num_rows"] == 3
    assert lines_of(tmp_path / "g.jsonl")[0]["scores"] == {"bad": None, "good": None}
    assert "NaN" not in (tmp_path / "g.jsonl").read_text()
    assert sp.load(out).score is None


def test_python_trains_saves_and_loads_the_same_prompt(tiny, data_dir, tmp_path, run):
    section = files_task(data_dir)
    task = sp.load_task("files", data_dir=data_dir, options=section["options"])
    training = sp.TrainingConfig(**run["training"])
    prompt = sp.PromptConfig(method="residual", length=4)
    result = sp.train(tiny("bert"), task, prompt=prompt, training=training, seed=1)
    texts = [row["text"] for row in rows(100, 116)]
    result.save(tmp_path / "saved")
    loaded = sp.load(tmp_path / "saved")

    assert result.predict(texts) == [
        max(line["scores"], key=line["scores"].get) for line in result.predict_scores(texts)
    ]
    assert loaded.predict_scores(texts) == result.predict_scores(texts)
    assert loaded.summary == result.summary
    assert loaded.evaluate(task.validation) == result.evaluate(task.validation)
    assert loaded.evaluate(task.validation).score == result.score
    with pytest.raises(
        sp.RunFolderError, match=r"saved must be a new or empty .* holds config\.json"
    ):
        result.save(tmp_path / "saved")


def test_python_resumes_an_interrupted_run(tiny, data_dir, tmp_path, run):
    from softprompts.training.progress import Progress

    class Interrupt(Progress):
        def update(self, step: int, total_steps: int) -> None:
            if step == 4:
                raise KeyboardInterrupt

    section = files_task(data_dir)
    task = sp.load_task("files", data_dir=data_dir, options=section["options"])
    parts: dict[str, Any] = {"training": sp.TrainingConfig(**run["training"]), "seed": 1}
    with pytest.raises(KeyboardInterrupt):
        sp.train(tiny("bert"), task, **parts, out=tmp_path / "out", progress=Interrupt())
    assert not (tmp_path / "out" / "result.json").exists()
    whole = sp.train(tiny("bert"), task, **parts)
    resumed = sp.train(tiny("bert"), task, **parts, out=tmp_path / "out")
    again = sp.train(tiny("bert"), task, **parts, out=str(tmp_path / "out"))
    texts = [row["text"] for row in rows(100, 116)]

    assert [line["step"] for line in lines_of(tmp_path / "out" / "metrics.jsonl")] == [
        1,
        2,
        2,
        3,
        4,
        4,
        5,
        6,
        6,
    ]
    assert resumed.predict_scores(texts) == whole.predict_scores(texts)
    assert again.predict_scores(texts) == whole.predict_scores(texts)
    assert (again.summary, again.score) == (resumed.summary, whole.score)


def test_python_refuses_inputs_that_lack_a_field(capsys, recipe, run, tmp_path):
    printed(capsys, "train", recipe(run), "--out", str(tmp_path / "out"))
    result = sp.load(tmp_path / "out")

    with pytest.raises(sp.DataError, match="input 2, field `text`: must be text, but is nan"):
        result.predict([{"text": "fine"}, {"text": float("nan")}])
    with pytest.raises(sp.DataError, match="`text`"):
        result.predict([{"txt": "fine"}])


def test_the_installed_command_makes_what_others_read(capsys, recipe, run, tmp_path):
    script = str(Path(sys.executable).with_name("softprompts"))
    done = subprocess.run(
        [script, "train", recipe(run), "--out", "out", "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    known = r"^(estimated memory: .* are free|warning: \d+ of \d+ validation rows .*)\n"
    by_time = r"|^(getting ready|\[0/1\] .*)\n"
    assert re.sub(known + by_time, "", done.stderr, flags=re.MULTILINE) == ""
    assert json.loads(done.stdout)["status"] == "finished"
    new = write_rows(tmp_path / "new.jsonl", rows(100, 103, has_labels=False))
    places = ["--input", str(new), "--output", str(tmp_path / "g.jsonl")]
    assert printed(capsys, "predict", str(tmp_path / "out"), *places)["num_rows"] == 3
