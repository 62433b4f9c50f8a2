"""A study's section on choices: selectors over seeds, pools by seed and class, mixtures by task."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from statistics import fmean, stdev

import pytest
import torch
from study_material import make_study, study_like

from softprompts.lab.reports.choices import read_last_choices
from softprompts.lab.reports.report import write_report
from softprompts.prompts.choices import ChoiceLog

CLASS = "<b>good</b>"
VARIANTS = {"mixed": {"prompt.method": "adap-ins-vec-pos"}}
TASKS = {"mood": {"name": "bundled/sentiment"}, "logic": {"name": "bundled/entailment"}}


def choices_of(seed: int, shift: float = 0.0) -> dict[str, object]:
    """Return what a run says it chose; other numbers for every seed."""
    low = 0.1 + 0.05 * seed + shift
    return {
        "position": {"counts": [seed, 4 - seed, 0, 0, 6], "entropy": 0.5},
        "pool": {
            "weights": [low, 1 - low],
            "stds": [0.01 * (seed + 1), 0.02],
            "by_class": {CLASS: [low / 2, 1 - low / 2], "bad": [1.0, 0.0]},
            "stds_by_class": {CLASS: [0.03, 0.04], "bad": [0.0, 0.0]},
        },
    }


def table_of(found: dict[str, object], name: str) -> list[dict[str, str]]:
    (path,) = [one for one in found["tables"] if one.endswith(f"/{name}.csv")]  # type: ignore[attr-defined]
    return list(csv.DictReader(io.StringIO(Path(path).read_text("utf-8"))))


def report_of(folder: Path, **changes: object) -> dict[str, object]:
    content = study_like(variants=VARIANTS, seeds=3, **changes)
    return write_report(make_study(folder, content, lambda c: {"log": choices_of(c.config.seed)}))


def test_selectors_are_means_over_seeds_with_their_spread(tmp_path):
    rows = table_of(report_of(tmp_path / "study"), "choices")

    assert [(row["selector"], row["value"]) for row in rows] == [
        ("position", str(value)) for value in range(5)
    ]
    for value, row in enumerate(rows):
        shares = [choices_of(seed)["position"]["counts"][value] / 10 for seed in range(3)]  # type: ignore[index]
        assert float(row["mean"]) == pytest.approx(fmean(shares))
        assert float(row["std"]) == pytest.approx(stdev(shares))
        assert (row["num_runs"], row["variant"]) == ("3", "mixed")


def test_pools_stand_by_seed_and_class_with_their_spread_over_inputs(tmp_path):
    found = report_of(tmp_path / "study")
    rows = table_of(found, "mixtures")
    wanted = [
        (str(seed), name, "no" if place == 0 else "yes", str(number + 1), weights[number], std)
        for seed in range(3)
        for pool in [choices_of(seed)["pool"]]
        for place, (name, weights, stds) in enumerate(
            [
                ("all inputs", pool["weights"], pool["stds"]),  # type: ignore[index]
                *((k, pool["by_class"][k], pool["stds_by_class"][k]) for k in (CLASS, "bad")),  # type: ignore[index]
            ]
        )
        for number, std in enumerate(stds)
    ]
    keys = ("seed", "inputs", "is_class", "set")
    assert [tuple(row[key] for key in keys) for row in rows] == [one[:4] for one in wanted]
    assert [float(row["mean"]) for row in rows] == [one[4] for one in wanted]
    assert [float(row["std"]) for row in rows] == [one[5] for one in wanted]
    page = Path(str(found["html"])).read_text("utf-8")
    assert CLASS not in page
    assert '<td class="text">&lt;b&gt;good&lt;/b&gt;</td>' in page
    assert ">seed 2, &lt;b&gt;good&lt;/b&gt;</text>" in page
    assert ">20.0 ± 3.0</td>" in page  # seed 2, all inputs, set 1
    assert "1: 15 % ± 2 over inputs (10, 15, 20)" in page


def test_each_task_of_a_mixture_stands_by_itself(tmp_path):
    base = {"mixture": {"tasks": TASKS}, "prompt": {"method": "adap-ins-vec-pos", "length": 4}}
    content = study_like(
        base={**study_like()["base"], **base, "task": None}, variants={"both": {}}, seeds=2
    )
    del content["base"]["task"]

    def outcome(cell):
        own = {"metric": "accuracy", "score": 0.5, "last_score": 0.5, "majority": 0.5}
        own |= {"num_items": 10, "split": "validation", "num_cut": {}}
        shifts = {"logic": 0.3, "mood": 0.0}
        return {
            "metric": "mean over tasks",
            "tasks": {
                name: {**own, "choices": choices_of(cell.config.seed, shift)}
                for name, shift in shifts.items()
            },
        }

    found = write_report(make_study(tmp_path / "study", content, outcome))
    rows = [one for one in table_of(found, "mixtures") if one["inputs"] == "all inputs"]
    whole = found["scores"][0]["task"]
    assert [
        (one["task"], one["seed"], float(one["mean"])) for one in rows if one["set"] == "1"
    ] == [
        (f"{name} (within {whole})", str(seed), 0.1 + 0.05 * seed + shift)
        for name, shift in (("logic", 0.3), ("mood", 0.0))
        for seed in range(2)
    ]
    page = Path(found["html"]).read_text("utf-8")
    titles = re.findall(r">(both, \w+: [^<]*)</text>", page)
    assert titles == [
        f"both, {name}: {what}"
        for name in ("logic", "mood")
        for what in ("rows in front", "weight of each set")
    ]


def test_a_mixture_without_a_result_shows_its_last_evaluation(tmp_path):
    config = {"mixture": {"tasks": {}}, "prompt": {"length": 4}}
    (tmp_path / "config.json").write_text(json.dumps({"identity": "a", "config": config}))
    lines = [{"step": 1, "tasks": {"mood": choices_of(0)}}]
    lines += [
        {"step": step, "split": "held_out", "tasks": {"mood": choices_of(seed), "logic": {}}}
        for step, seed in ((2, 1), (4, 2))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = read_last_choices(tmp_path)
    assert list(found) == ["mood"]
    assert found["mood"].first_step == 4
    assert found["mood"].pool is not None
    assert found["mood"].pool.weights == tuple(choices_of(2)["pool"]["weights"])  # type: ignore[index]

    end = {"identity": "a", "selected_step": 2, "tasks": {"mood": {"choices": None}}}
    (tmp_path / "result.json").write_text(json.dumps(end))
    assert read_last_choices(tmp_path)["mood"].first_step == 2
    assert read_last_choices(tmp_path / "none") == {}


def test_broken_records_are_told_and_the_rest_is_shown(tmp_path):
    study = tmp_path / "study"
    report_of(study)
    broken = sorted((study / "runs").iterdir())[1]
    result = json.loads((broken / "result.json").read_text())
    result["choices"]["pool"]["stds"] = [0.5]
    (broken / "result.json").write_text(json.dumps(result))
    found = write_report(study)
    page = Path(found["html"]).read_text("utf-8")

    assert "`pool.stds` must be 2 numbers, one per set, but is" in page
    assert {row["num_runs"] for row in table_of(found, "choices")} == {"2"}


def test_a_pool_is_logged_with_its_spread_over_inputs():
    draws = torch.Generator().manual_seed(1)
    weights = torch.rand(9, 3, generator=draws).softmax(dim=1)
    answers = torch.tensor([0, 1, 1, 0, 0, 1, 1, 0, -1])
    found = ChoiceLog(mixtures=[weights[:4], weights[4:]], answers=[answers[:4], answers[4:]])
    pool = found.summary(["no", "yes", "never"])["pool"]

    def by_hand(chosen):
        columns = list(zip(*chosen.tolist(), strict=True))
        means = [fmean(column) for column in columns]
        squares = [[(one - m) ** 2 for one in c] for c, m in zip(columns, means, strict=True)]
        return means, [fmean(line) ** 0.5 for line in squares]

    for place, (means, stds) in {
        None: (pool["weights"], pool["stds"]),
        0: (pool["by_class"]["no"], pool["stds_by_class"]["no"]),
        1: (pool["by_class"]["yes"], pool["stds_by_class"]["yes"]),
    }.items():
        wanted = by_hand(weights if place is None else weights[answers == place])
        assert means == pytest.approx(wanted[0], abs=1e-6)
        assert stds == pytest.approx(wanted[1], abs=1e-6)
    assert list(pool["stds_by_class"]) == ["no", "yes"]
