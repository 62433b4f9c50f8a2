"""`softprompts fit`: from a table to a prompt, without a recipe; and `try`."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from pathlib import Path

import pytest
from cli_material import tree, write_rows

import softprompts as sp
from softprompts.cli.main import main
from softprompts.errors import DataError, RunFolderError, TuningError
from softprompts.lab.fit.card import NAMES, above, commands, spread_of, verdict
from softprompts.lab.fit.fitting import _check_size, _yardsticks
from softprompts.lab.fit.plan import (
    FEWEST_UPDATES,
    METHODS,
    MULTIPLES,
    Candidate,
    base_recipe,
    cost_of_yardsticks,
    fitting_methods,
    make_plan,
    read_budget,
    yardsticks,
)
from softprompts.lab.fit.table import Splits, read_table, split_rows
from softprompts.metrics.wilson import matched_interval, wilson_interval

pytestmark = pytest.mark.filterwarnings("always::softprompts.errors.SoftPromptsWarning")

NOUNS = ("soup", "film", "room", "train", "novel", "garden", "walk", "play", "song", "desk")
SIGNS = ("fine", "awful", "cold", "bright", "late", "loud", "sweet", "broken", "cheap", "old")


def table(num_rows: int, num_labels: int = 2) -> list[tuple[str, str]]:
    """Return distinct texts that their labels go with: each label has a word of its own."""
    draw, found = random.Random(0), {}
    while len(found) < num_rows:
        label = len(found) % num_labels
        words = [*draw.sample(NOUNS, 3), SIGNS[label % 10], SIGNS[-1 - label // 10]]
        draw.shuffle(words)
        found.setdefault(" ".join(words), f"kind {label}")
    return list(found.items())


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    """Write a table with column names of its own, and columns that say nothing."""
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["No.", "Customer wrote", "Mood", "Shop"])
        lines.writerows([n, text, label, "web"] for n, (text, label) in enumerate(rows))
    return path


def write_jsonl(path: Path, rows: list[tuple[str, str]]) -> Path:
    """Write a table with nested text and a whole number for the label."""
    lines = [{"review": {"body": text, "tags": []}, "stars": int(k[-1])} for text, k in rows]
    return write_rows(path, lines)


def write_parquet(path: Path, rows: list[tuple[str, str]]) -> Path:
    """Write a table with two columns to read and truth values for the label."""
    import pyarrow
    import pyarrow.parquet

    lines = [{"head": t[:9], "body": t, "is_it": k.endswith("1")} for t, k in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(lines), path)
    return path


@pytest.mark.parametrize(
    ("write", "name", "fields", "label", "labels"),
    [
        (write_csv, "a.csv", ("Customer_wrote",), "Mood", ("kind 0", "kind 1")),
        (write_jsonl, "a.jsonl", ("review_body",), "stars", ("0", "1")),
        (write_parquet, "a.parquet", ("head", "body"), "is_it", ("false", "true")),
    ],
)
def test_columns_are_found_in_tables_of_every_kind(tmp_path, write, name, fields, label, labels):
    found = read_table(str(write(tmp_path / name, table(40))))
    assert (found.fields, found.label, found.labels) == (fields, label, labels)
    texts = [row[fields[-1]] for row in found.rows]
    assert texts == [text for text, _ in table(40)]


def test_what_is_told_of_columns_overrides_what_is_found(tmp_path):
    path = write_csv(tmp_path / "a.csv", table(40))
    found = read_table(str(path), "Mood", ["No.", "Customer wrote"])
    assert (found.label, found.fields) == ("Mood", ("No", "Customer_wrote"))
    with pytest.raises(DataError, match=r"field `Shop`: must have 2 to 50 labels, but has 1 \(web"):
        read_table(str(path), "Shop")
    with pytest.raises(DataError, match=r"`--label` must be one of No, .*Shop, but is 'Moods'"):
        read_table(str(path), "Moods")
    with pytest.raises(DataError, match="`--text` must not name the label, but has 'Mood'"):
        read_table(str(path), "Mood", ["Mood"])


def test_a_column_that_gives_the_label_away_is_not_read(tmp_path):
    rows = [{"text": text, "topic code": f"x {k}", "label": k} for text, k in table(40)]
    found = read_table(str(write_rows(tmp_path / "a.jsonl", rows)))
    assert found.fields == ("text",)
    assert found.left_out["topic_code"].startswith("gives the label away")


def test_repeats_conflicts_few_rows_and_telltale_words_are_said(tmp_path):
    rows = [*table(30), ("A  Fine repeat here", "kind 0"), ("a fine repeat here", "kind 0")]
    rows += [("both ways it goes", "kind 0"), ("both ways it goes", "kind 1")]
    rows += [(f"it is rare {text}", "rare") for text, _ in table(4)]
    lines = [{"text": text, "label": label} for text, label in rows]
    splits = split_rows(read_table(str(write_rows(tmp_path / "a.jsonl", lines))))
    said = " | ".join(splits.remarks)
    assert "2 rows read as another one does" in said
    assert "1 inputs come with several labels" in said
    assert "few rows: rare has fewer than 8" in said
    assert "gives label rare away" in said
    read = [row["text"] for row in (*splits.train, *splits.held_back)]
    assert len(read) == len(set(read)) == 30 + 1 + 4
    assert not {row["text"] for row in splits.train} & {row["text"] for row in splits.held_back}
    for part in (splits.train, splits.held_back):
        assert {row["label"] for row in part} == {"kind 0", "kind 1", "rare"}


@pytest.mark.parametrize("num_labels", [2, 20])
def test_every_label_is_held_back_in_its_share(tmp_path, num_labels):
    path = write_csv(tmp_path / "a.csv", table(400, num_labels))
    splits = split_rows(read_table(str(path)))
    assert len(splits.held_back) == 80
    counts = [sum(r["Mood"] == f"kind {k}" for r in splits.held_back) for k in range(num_labels)]
    assert set(counts) == {80 // num_labels}


def test_a_budget_buys_rates_then_methods_then_updates():
    splits = Splits([{}] * 200, [{}] * 50, ())
    wide, middle, narrow = (make_plan(s, 20.0, splits) for s in (1200, 120, 60))
    assert (wide.methods, wide.multiples) == (METHODS, MULTIPLES)
    assert wide.updates > FEWEST_UPDATES
    assert wide.seconds == pytest.approx(1200, rel=0.02)
    assert (middle.methods, middle.multiples) == (METHODS, (1.0,))
    assert (narrow.methods, narrow.multiples) == (("stable",), (1.0,))
    less = make_plan(10, 20.0, splits)
    assert less.updates == FEWEST_UPDATES
    assert "more than the budget" in less.text(10)
    assert "more than" not in wide.text(1200)


def test_rates_are_multiples_of_each_methods_own():
    found = {method: [Candidate(method, one).rate for one in MULTIPLES] for method in METHODS}
    assert found["prompt-tuning"] == found["residual"] == [0.03, 0.1, 0.3]
    assert found["stable"] == [0.006, 0.02, 0.06]


def test_what_a_backbone_cannot_have_or_nobody_wants_is_not_tried(tiny):
    assert fitting_methods(tiny("llama"), False) == (METHODS, "")
    assert fitting_methods(tiny("llama"), True) == (METHODS[:2], "")
    methods, left_out = fitting_methods(tiny("deberta-v2"), False)
    assert methods == METHODS[:2]
    assert left_out.startswith("stable left out: ")


SHOWN_ABOVE = {"method": "zero-shot", "above": 0.2, "interval": [0.1, 0.3]}
NOT_SHOWN = {"method": "in-context", "shown": 8, "above": 0.02, "interval": [-0.1, 0.14]}
SHOWN_BELOW = {"method": "in-context", "shown": 8, "above": -0.2, "interval": [-0.3, -0.1]}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([SHOWN_ABOVE], "worth training: shown to be above all that needs no"),
        (
            [SHOWN_ABOVE, NOT_SHOWN],
            "not shown to be worth .* above the model shown up to 8 answered rows$",
        ),
        ([{**SHOWN_ABOVE, "interval": None}], "not shown to be worth .* the model untouched$"),
        (
            [SHOWN_ABOVE, SHOWN_BELOW],
            "not worth training: the model shown up to 8 answered rows shown",
        ),
    ],
)
def test_a_fit_says_whether_a_prompt_was_worth_training(found, said):
    assert re.match(said, verdict(found))


def test_how_far_prompts_are_above_what_needs_none():
    assert above(SHOWN_ABOVE) == "20.0 above it (+10.0 to +30.0)"
    assert above(SHOWN_BELOW) == "20.0 below it (−30.0 to −10.0)"


def test_prompts_are_held_beside_what_needs_none_row_by_row():
    cells = [
        {"variant": "stable", "answers": ["1101", "1001"]},
        {"variant": "zero-shot", "mean": 0.5, "std": 0.0, "answers": ["0101"]},
        {"variant": "in-context", "mean": None, "std": None},
    ]
    rows = [{"mood": label} for label in "aabb"]
    splits = Splits([*rows, {"mood": "b"}], rows, ())
    methods = {"zero-shot": {}, "in-context": {"prompt.num_demonstrations": 9}}
    found = _yardsticks({"cells": cells}, "stable", methods, splits, "mood")
    assert [one["above"] for one in found] == [0.125, None, 0.125]
    assert found[0]["interval"] == [*matched_interval([1, -0.5, 0, 0])]
    assert found[2]["interval"] == [*matched_interval([1, 0.5, -1, 0])]
    assert spread_of(found[1]) == "no score"
    assert verdict(found).endswith("shown up to 9 answered rows and the most frequent label")
    old = [{**cells[0], "answers": []}, *cells[1:]]
    found = _yardsticks({"cells": old}, "stable", methods, splits, "mood")
    assert [above(one) for one in found] == ["not known beside it"] * 3


def test_fewer_than_two_prompts_do_not_answer_together(tmp_path):
    assert _check_size(2, tmp_path) == 2
    with pytest.raises(TuningError, match=r"at least 2 of 5 runs must have a score .*, but 1 has"):
        _check_size(1, tmp_path)


def test_what_a_prompt_must_beat_follows_from_how_the_backbone_is_read(tmp_path, tiny):
    many = read_table(str(write_csv(tmp_path / "a.csv", table(120, 20))))
    found = {
        kind: yardsticks(base_recipe(many, tiny(kind), tmp_path), tiny(kind).family)
        for kind in ("llama", "t5", "bert")
    }
    assert found["llama"] == {"zero-shot": {}, "in-context": {"prompt.num_demonstrations": 20}}
    assert [list(found[kind]) for kind in ("t5", "bert")] == [["zero-shot"], ["head-only"]]
    assert [cost_of_yardsticks(one) for one in found.values()] == [11, 1, 5]


@pytest.mark.parametrize(("kind", "method"), [("bert", "head-only"), ("t5", "zero-shot")])
def test_other_families_are_fitted_beside_what_they_can_do_untouched(
    backbone_folder, tmp_path, capsys, kind, method
):
    path = write_csv(tmp_path / "a.csv", table(60))
    command = ["fit", str(path), "--backbone", str(backbone_folder(kind)), "--budget", "0.01s"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    about = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert about["yardsticks"][0]["method"] == method
    assert f"\n{NAMES[method]}: " in capsys.readouterr().out


def test_a_prompt_in_every_layer_is_exported_to_peft():
    about = {"fields": ["text"], "method": "stable"}
    assert any("--to peft" in line for line in commands("out", about))
    assert not any("vocabulary" in line or "vllm" in line for line in commands("out", about))


@pytest.mark.parametrize("text", ["", "10", "m", "-3m", "0s", "1d", "nan s"])
def test_a_budget_that_is_no_time_is_refused(text):
    with pytest.raises(DataError, match=rf"`--budget` must be a time .*but is {text!r}"):
        read_budget(text)


@pytest.fixture(scope="module")
def made(backbone_folder, tmp_path_factory):
    """The folder of a fit, and what was printed; nothing may change it."""
    place = tmp_path_factory.mktemp("fit")
    path = write_csv(place / "a.csv", table(120))
    command = ["fit", str(path), "--backbone", str(backbone_folder("llama")), "--budget", "10s"]
    command += ["--words"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stream := io.StringIO())
        assert main([*command, "--out", str(place / "out")]) == 0
    return command, place / "out", stream.getvalue()


def test_a_fit_says_what_to_expect_and_what_to_do_next(made, capsys, tmp_path):
    _, out, printed = made
    about = json.loads((out / "fit.json").read_text())
    score, num = about["expected"]["score"], about["expected"]["num_items"]
    assert (num, about["num_train"]) == (24, 96)
    assert tuple(about["expected"]["interval"]) == wilson_interval(score, num)
    methods = ["zero-shot", "in-context", "majority"]
    assert [one["method"] for one in about["yardsticks"]] == methods
    assert about["yardsticks"][0]["std"] == 0
    for one in about["yardsticks"]:
        assert one["above"] == pytest.approx(about["single"]["mean"] - one["mean"])
        assert one["interval"][0] < one["above"] < one["interval"][1]
        assert f"one prompt is {above(one)}\n" in printed
    assert verdict(about["yardsticks"]) in printed
    assert f"expect on new rows: {100 * score:.1f} % right" in printed
    assert f"softprompts predict {out}/ensemble" in printed
    ensemble, best = sp.load(out / "ensemble"), sp.load(out / "prompt")
    assert len(ensemble.members) == 5
    assert ensemble.score == score
    assert best.config.seed == about["best"]["seed"]
    held_out = [m.summary["held_out_score"] for m in ensemble.members]
    assert best.summary["held_out_score"] == max(held_out)
    lines = (out / "data" / "held-back.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    labels = ensemble.predict([{"Customer_wrote": row["Customer_wrote"]} for row in rows])
    right = sum(label == row["Mood"] for label, row in zip(labels, rows, strict=True))
    assert right / len(rows) == pytest.approx(score)
    source = write_rows(tmp_path / "new.jsonl", [{"Customer_wrote": "the soup was awful"}])
    answers = tmp_path / "answers.jsonl"
    command = ["predict", str(out / "ensemble"), "--input", str(source), "--output", str(answers)]
    assert main(command) == 0
    model = tmp_path / "model"
    assert main(["export", str(out / "prompt"), "--to", "vocabulary", "--out", str(model)]) == 0
    assert (model / "tokenizer.json").is_file()
    card = (out / "README.md").read_text()
    assert f"softprompts predict {out}/ensemble" in card
    assert main(["evaluate", str(out)]) == 2
    assert f"is that of a fit. Name {out / 'ensemble'}, or" in capsys.readouterr().err
    assert f"{100 * score:.1f} |" in card
    capsys.readouterr()


def test_where_there_is_time_for_one_method_it_is_stable(backbone_folder, tmp_path, capsys):
    path = write_csv(tmp_path / "a.csv", table(120))
    command = ["fit", str(path), "--backbone", str(backbone_folder("llama")), "--budget", "0.01s"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    about = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert (about["method"], about["rate"], about["tried"]) == ("stable", 0.02, [])
    assert "--to peft" in capsys.readouterr().out
    adapter = tmp_path / "adapter"
    prompt = str(tmp_path / "out" / "prompt")
    assert main(["export", prompt, "--to", "peft", "--out", str(adapter)]) == 0
    assert (adapter / "adapter_config.json").is_file()
    capsys.readouterr()


def test_the_same_command_goes_on_and_another_is_refused(made, capsys):
    command, out, printed = made
    before = tree(out)
    assert main([*command, "--out", str(out)]) == 0
    assert capsys.readouterr().out == printed
    after = tree(out)
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed <= {"study/report.html", "study/ensembles.json"}
    assert main([*command[:-2], "20s", "--words", "--out", str(out)]) == 2
    assert "of the same budget, but its budget is 10s, not 20s" in capsys.readouterr().err


@pytest.mark.slow
def test_a_fit_that_is_killed_between_its_parts_ends_as_one_that_is_not(
    made, backbone_folder, monkeypatch, tmp_path
):
    command, whole, _ = made
    from softprompts.lab.fit import fitting

    calls = []

    def stops(study, *rest):
        calls.append(study.name)
        if study.name == "fit" and calls.count("fit") == 1:
            raise KeyboardInterrupt
        return run(study, *rest)

    run = fitting.run_study
    out = tmp_path / "out"
    plan = json.loads((whole / "plan.json").read_text())
    monkeypatch.setattr(fitting, "run_study", stops)
    monkeypatch.setattr(fitting, "make_plan", lambda *_: fitting._kept_plan(plan))
    assert main([*command, "--out", str(out)]) == 130
    assert not (out / "fit.json").exists()
    assert main([*command, "--out", str(out)]) == 0
    one, other = (json.loads((place / "fit.json").read_text()) for place in (whole, out))
    assert one == other
    before, kept = tree(out / "prompt"), out / "prompt" / "result.json"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "seed": 99}))
    assert main([*command, "--out", str(out)]) == 0, "the prompt of a fit that had fewer seeds"
    assert tree(out / "prompt") == before


def test_try_answers_line_by_line(made, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the soup was awful\n\nthe film was fine\n"))
    assert main(["try", str(made[1])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] in ("kind 0", "kind 1") for line in lines] == [True, True]


WRONG = {
    "no-file.csv": (None, "no-file.csv: must be a file, but is missing"),
    "a.txt": ("a", "must end in one of .jsonl, .csv, .parquet, .json, but ends in '.txt'"),
    "broken.jsonl": ('{"text": "a b", "label": 1}\n{', "broken.jsonl:2: must be one JSON"),
    "cells.csv": ("text,label\na b,x\na b,x,y\n", "must have 2 cells, as the header has"),
    "semicolons.csv": ("text;label\na b;x\n", "cells must stand between commas, but the header is"),
    "not.parquet": ("text", "must be a parquet file, but cannot be read"),
    "empty.jsonl": ("", "must hold at least one row, but has none"),
    "one.jsonl": (
        "".join(f'{{"text": "a b {n}", "label": "x"}}\n' for n in range(9)),
        "field `label`: must have 2 to 50 labels, but has 1 (x",
    ),
    "blank.csv": ("text,label\na b,x\n ,y\n", "field `text`: must have a value, but has none"),
    "none.csv": ("text,n\na b,1\nb c,2\nd e,3\n", "`--label` must name the column"),
    "numbers.csv": ("n,label\n1,x\n2,y\n3,x\n", "`--text` must name a column to read"),
    "twice.jsonl": (
        '{"a b": "x y", "a.b": "z w", "label": "x"}\n',
        "must differ from 'a b' in letters or digits",
    ),
    "few.csv": ("text,label\na b,x\nc d,x\ne f,x\nb a,y\n", "label 'y' must have at least 3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_table_is_one_line_and_nothing_is_written(capsys, tmp_path, name):
    content, expected = WRONG[name]
    if content is not None:
        (tmp_path / name).write_text(content)
    out = tmp_path / "out"
    assert main(["fit", str(tmp_path / name), "--backbone", "minilm", "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in error if line.startswith("error: ")]
    assert len(errors) == 1
    assert expected in errors[0]
    assert not out.exists()


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    path = write_csv(tmp_path / "a.csv", table(40))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"must be a new or empty folder, but holds mine\.txt"):
        sp.fit(path, "minilm", out=tmp_path / "out")
