"""The programs that write docs/results: every number on a page is that of the runs.

Studies are folders as runs leave them, with scores drawn here; the numbers that a page must have
are computed from the scores in those folders, not by what the programs use.
"""

from __future__ import annotations

import importlib
import itertools
import json
import math
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import write_claims
from scipy import stats
from study_material import make_study, study_like

from softprompts.lab.analysis.statistics import skewed_interval
from softprompts.lab.reports.study_record import read_study
from softprompts.recipes.grid import Cell
from softprompts.storage import write_json

ROOT = Path(__file__).resolve().parents[4]
RESULTS = ROOT / "docs" / "results"
NAMES = ("write", "choices", "methods", "ptp", "stability", "statistics", "sweeps")
TASKS = ["bundled/sentiment", "bundled/entailment"]
NOISE = {"regularizers": [{"kind": "ptp", "perturbation": "gaussian-noise", "weight": 1.0}]}
VARIANTS = {
    "plain": {},
    "residual": {"prompt.method": "residual"},
    "noise": NOISE,
    "head-only": {"prompt.method": "head-only", "prompt.length": 0},
}

SWEPT = {name: VARIANTS[name] for name in ("plain", "residual")}

Row = list[str]
Scores = dict[tuple[Any, ...], list[float]]


@pytest.fixture(scope="module")
def writers() -> Iterator[dict[str, ModuleType]]:
    """The programs, by the end of their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RESULTS))
        names = {name: name if name == "write" else f"write_{name}" for name in NAMES}
        yield {name: importlib.import_module(module) for name, module in names.items()}
        for module in names.values():
            del sys.modules[module]


def outcome(cell: Cell) -> dict[str, Any]:
    """Draw the scores of a run, and what it chose, from its variant, task, point and seed."""
    rng = random.Random(f"{cell.variant} {cell.task} {cell.point} {cell.config.seed}")
    shift = {"residual": 0.1, "noise": -0.02}.get(cell.variant, 0.0)
    score, last, held_out = (0.5 + shift + 0.1 * rng.random() for _ in range(3))
    found = {"score": score, "last_score": last, "held_out_score": held_out, "num_items": 100}
    found |= {"majority": 0.4, "seconds": 10 * rng.random()}
    if cell.variant != "residual":
        return found
    counts = [rng.randrange(9) for _ in range(5)]
    low = rng.random()
    classes = {"a": [low, 1 - low], "b": [1 - low, low]}
    position = {"counts": counts, "entropy": rng.random()}
    pool = {"weights": [low / 2, 1 - low / 2], "by_class": classes}
    return {**found, "log": {"position": position, "pool": pool}}


def study_of(folder: Path, **changes: Any) -> Path:
    """Write a study's folder with its summary, and the recipe beside it."""
    content = study_like(**{"variants": VARIANTS, "seeds": 5, **changes})
    make_study(folder, content, outcome)
    write_json(folder / "summary.json", dict(read_study(folder).summary))
    (folder / "recipe.yaml").write_text(f"# {content['name']}\ndescription: What differs?\n")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of four variants on two tasks."""
    return study_of(tmp_path_factory.mktemp("plain") / "study", grid={"task.name": TASKS})


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of four learning rates and two initializers."""
    grid = {
        "training.learning_rate": [0.001, 0.01, 0.1, 1.0],
        "prompt.initializer": ["vocabulary", "normal"],
    }
    folder = tmp_path_factory.mktemp("swept") / "study"
    return study_of(folder, name="sweep-small", grid=grid, variants=SWEPT, seeds=3)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with all and with 16 training rows."""
    grid = {"task.shots_total": [None, 16]}
    return study_of(tmp_path_factory.mktemp("sampled") / "study", grid=grid)


def runs_of(study: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return configuration and result of every run, by seed."""
    found = [
        tuple(json.loads((folder / name).read_text()) for name in ("config.json", "result.json"))
        for folder in (study / "runs").iterdir()
    ]
    return sorted(((c["config"], r) for c, r in found), key=lambda one: one[0]["seed"])


def variant_of(config: dict[str, Any]) -> str:
    if config["regularizers"]:
        return "noise"
    method = config["prompt"]["method"]
    return "plain" if method == "prompt-tuning" else str(method)


def scores_of(
    study: Path, key: str = "score", point: Callable[[dict[str, Any]], Any] = lambda config: None
) -> Scores:
    """Return scores over seeds, by variant, task and whatever else tells runs apart."""
    found: Scores = {}
    for config, result in runs_of(study):
        where = (variant_of(config), config["task"]["name"], point(config))
        found.setdefault(where, []).append(result[key])
    assert len({len(scores) for scores in found.values()}) == 1
    return found


def rows_after(text: str, heading: str) -> list[Row]:
    """Return the cells of the first table after a heading, without its head."""
    lines = text[text.index(heading) + len(heading) :].splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("|"))
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines[start:]))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def spread_of(scores: Sequence[float]) -> str:
    return f"{percent(float(np.mean(scores)))} ± {percent(float(np.std(scores, ddof=1)))}"


def with_interval(scores: Sequence[float]) -> str:
    """Return a mean of differences with its 95 % interval by scipy."""
    return _with_ends(scores, *stats.ttest_1samp(scores, 0.0).confidence_interval(0.95))


def _with_ends(scores: Sequence[float], low: float, high: float) -> str:
    return f"{percent(float(np.mean(scores)))} [{percent(low)}, {percent(high)}]"


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the p of the paired test, by trying all signs."""
    seen = abs(sum(differences))
    signs = itertools.product((-1, 1), repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(one, differences, strict=True))) for one in signs]
    return sum(one >= seen - 1e-12 for one in sums) / len(sums)


def holm(ps: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Return the p of a family of tests after Holm's correction, step by step."""
    found, highest = {}, 0.0
    for place, name in enumerate(sorted(ps, key=lambda one: ps[one])):
        highest = max(highest, min(1.0, (len(ps) - place) * ps[name]))
        found[name] = highest
    return found


def check_comparisons(rows: list[Row], tasks: dict[str, dict[str, list[float]]], task: str) -> None:
    """Check a task's table of means, spreads, differences, and what is sure about them."""
    ps, spreads = {}, {}
    for name, own in tasks.items():
        for variant in set(VARIANTS) - {"plain"}:
            gap = np.subtract(own[variant], own["plain"]).tolist()
            ps[name, variant] = sign_flip_p(gap)
            found = stats.levene(own[variant], own["plain"], center="median")
            spreads[name, variant] = float(found.pvalue)
    ps, spreads = holm(ps), holm(spreads)
    scores, base = tasks[task], tasks[task]["plain"]
    assert [row[0] for row in rows] == list(VARIANTS)
    for name, mean, std, difference, p, ratio, p_spread in (row[:7] for row in rows):
        assert mean == _with_ends(scores[name], *skewed_interval(scores[name]))
        assert std == percent(float(np.std(scores[name], ddof=1)))
        if name == "plain":
            assert (difference, p, ratio, p_spread) == ("", "", "", "")
            continue
        assert difference == with_interval(np.subtract(scores[name], base).tolist())
        assert p == f"{ps[task, name]:.3f}"
        assert ratio.split(" ")[0] == f"{np.std(scores[name]) / np.std(base):.2f}"
        assert p_spread == f"{spreads[task, name]:.3f}"


def sharpness_of(study: Path, names: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Return what measuring the sharpness of a study's runs prints; another radius is no matter."""
    rows = []
    for config, result in runs_of(study):
        (worst,) = worst_of([result["score"]], config["seed"])
        radii = [{"radius": 0.03, "worst": 99.0}, {"radius": 0.1, "worst": worst}]
        about = {"variant": variant_of(config), "task": config["task"]["name"]}
        rows.append({**about, "point": names(config), "input": {"radii": radii}})
    return {"runs": rows}


def worst_of(scores: Sequence[float], first: int = 0) -> list[float]:
    """Return a sharpness for the score of each seed; it goes up and down with it."""
    return [2.0 + math.sin(40 * score) + 0.1 * seed for seed, score in enumerate(scores, first)]


def test_a_page_of_scores_has_those_of_both_states(writers, plain, tmp_path):
    page = tmp_path / "page.md"
    arguments = [str(plain), str(plain / "recipe.yaml"), str(page), "A title", "A remark."]
    writers["write"].main(arguments)
    text = page.read_text("utf-8")

    for heading, key in (("# A title", "score"), ("## Last state", "last_score")):
        scores = scores_of(plain, key)
        rows = rows_after(text, heading)
        assert [(row[1], row[0]) for row in rows] == [(v, t) for t in TASKS for v in VARIANTS]
        for task, variant, score, low, high, majority, items, seeds, *_ in rows:
            own = scores[variant, task, None]
            assert score == spread_of(own)
            assert (low, high) == (percent(min(own)), percent(max(own)))
            assert (majority, items, seeds) == ("40.0", "100", "5")
    minutes = sum(result["seconds"] for _, result in runs_of(plain)) / 60
    assert f"40 of 40 runs, {minutes:.0f} minutes of run time" in text
    assert "backbone in float32. softprompts 0.1.0, torch 2.13, transformers 5.23." in text
    assert "- A remark.\n" in text
    assert text.endswith(f"```yaml\n{(plain / 'recipe.yaml').read_text().rstrip()}\n```\n")


def test_a_page_of_choices_has_what_runs_chose(writers, plain, tmp_path):
    writers["choices"].main([str(tmp_path / "page.md"), str(plain)])
    text = (tmp_path / "page.md").read_text("utf-8")
    chosen: dict[str, list[dict[str, Any]]] = {}
    for config, result in runs_of(plain):
        if result["choices"]:
            chosen.setdefault(config["task"]["name"], []).append(result["choices"])

    def shown(values: Sequence[float], digits: int) -> str:
        return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=0):.{digits}f}"

    positions = rows_after(text, "## Position")
    assert [row[:2] for row in positions] == [[task, "residual"] for task in sorted(TASKS)]
    for task, _, mean, kinds, commonest, entropy in positions:
        counts = [np.array(one["position"]["counts"]) for one in chosen[task]]
        assert mean == shown([one @ np.arange(5) / one.sum() for one in counts], 1)
        assert kinds == shown([np.count_nonzero(one) for one in counts], 1)
        assert commonest == shown([one.max() / one.sum() for one in counts], 2)
        assert entropy == shown([o["position"]["entropy"] / math.log(5) for o in chosen[task]], 2)
    for task, _, largest, apart in rows_after(text, "## Pool"):
        assert largest == shown([max(one["pool"]["weights"]) for one in chosen[task]], 2)
        gaps = [np.subtract(*one["pool"]["by_class"].values()) for one in chosen[task]]
        assert apart == shown([float(np.abs(gap).sum()) / 2 for gap in gaps], 2)


def test_pages_of_methods_have_their_own_scores(writers, plain, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "docs" / "methods", tmp_path / "methods")
    monkeypatch.setattr(writers["methods"], "PAGES", tmp_path / "methods")
    before = (tmp_path / "methods" / "residual.md").read_text("utf-8")
    summary = json.loads((plain / "summary.json").read_text())
    summary["cells"] = [cell for cell in summary["cells"] if cell["variant"] != "noise"]
    (tmp_path / "study").mkdir()
    write_json(tmp_path / "study" / "summary.json", summary)
    writers["methods"].main([f"small.md={tmp_path / 'study'}"])

    scores = scores_of(plain)
    for name, variant in (("prompt-tuning", "plain"), ("residual", "residual")):
        text = (tmp_path / "methods" / f"{name}.md").read_text("utf-8")
        link = "[small](../results/small.md)"
        assert rows_after(text, "<!-- results:begin -->") == [
            [
                task,
                spread_of(scores[variant, task, None]),
                spread_of(scores["head-only", task, None]),
                "40.0",
                "100",
                link,
            ]
            for task in TASKS
        ]
    after = (tmp_path / "methods" / "residual.md").read_text("utf-8")
    marks = ("<!-- results:begin -->", "<!-- results:end -->")
    assert after.partition(marks[0])[0] == before.partition(marks[0])[0]
    assert after.partition(marks[1])[2] == before.partition(marks[1])[2]


def test_a_page_on_perturbations_compares_within_each_number_of_rows(writers, sampled, tmp_path):
    def shots(config: dict[str, Any]) -> dict[str, Any]:
        return {"task.shots_total": config["task"]["shots_total"]}

    measured = tmp_path / "sharpness.json"
    measured.write_text(json.dumps(sharpness_of(sampled, shots)))
    page, recipe = tmp_path / "page.md", sampled / "recipe.yaml"
    writers["ptp"].main([str(recipe), str(page), f"{sampled}={measured}", "--", "A remark."])
    text = page.read_text("utf-8")

    assert text.startswith("# What differs?\n")
    assert "40 finished runs (0 without a score)" in text
    assert "- A remark.\n" in text
    every = scores_of(sampled, point=lambda config: config["task"]["shots_total"])
    for count, name in ((None, "all training rows"), (16, "16 training rows")):
        heading = f"bundled/sentiment, {name}"
        scores = {v: every[v, "bundled/sentiment", count] for v in VARIANTS}
        rows = rows_after(text, f"## {heading}\n")
        check_comparisons(rows, {heading: scores}, heading)
        for row in rows:
            worst = worst_of(scores[row[0]])
            low, high = skewed_interval(worst)
            assert row[7] == f"{np.mean(worst):.2f} [{low:.2f}, {high:.2f}]"
        pairs = [(np.mean(worst_of(own)), np.std(own)) for own in scores.values()]
        found = stats.spearmanr(*zip(*pairs, strict=True))
        assert f"- {heading}: over 4 variants, " in text
        said = text[text.index(f"- {heading}: over 4 variants, ") :].partition("\n")[0]
        assert said.endswith(f"rank correlation of {found.statistic:+.2f} (p {found.pvalue:.3f}).")
    bases = {count: every["plain", "bundled/sentiment", count] for count in (None, 16)}
    lower = sum(
        np.std(own) < np.std(bases[count]) for (v, _, count), own in every.items() if v != "plain"
    )
    assert f"- Of 6 comparisons with plain, {lower} have a smaller standard deviation" in text


def test_every_point_of_a_grid_has_a_table_of_its_own(writers):
    """Whatever was swept: cells of two points in one table would be compared with one baseline."""
    axes = {
        "training.learning_rate": [0.01, 0.3],
        "task.shots_total": [None, 16],
        "task.sample_seed": [None, 0],
        "readout.pool": ["mean", "cls"],
        "prompt.rows.bottleneck": [25, 50],
    }
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    names = {writers["ptp"].setting({"task.name": "a", **point}) for point in points}
    assert len(names) == len(points) == 32
    known = "16 training rows, one sample of rows for all"
    assert f"{known}, learning rate 0.3, first state, bottleneck 25" in names


def test_a_spread_of_nothing_is_a_smaller_one(writers):
    said = {"p_adjusted": 1.0, "conclusion_on_spread": "It never moves.", "conclusion": "No."}
    comparison = {**said, "std_ratio": 0.0, "p_spread_adjusted": 0.0}
    unknown = {**said, "std_ratio": None, "p_spread_adjusted": None}
    lines = writers["ptp"].shown([comparison, unknown], "plain")
    assert "1 have a smaller standard deviation; 1 differ in spread and 0 in the mean" in lines[0]
    assert lines[1:] == ["- It never moves."]


def test_a_page_on_stability_has_every_task_and_the_average(writers, plain, tmp_path):
    measured = tmp_path / "sharpness.json"
    measured.write_text(json.dumps(sharpness_of(plain, lambda config: {})))
    page, recipe = tmp_path / "page.md", plain / "recipe.yaml"
    writers["stability"].main([str(recipe), str(page), f"{plain}={measured}", "--", "A remark."])
    text = page.read_text("utf-8")

    every = scores_of(plain)
    tasks = {task: {name: every[name, task, None] for name in VARIANTS} for task in TASKS}
    for task, scores in tasks.items():
        rows = rows_after(text, f"## {task}\n")
        check_comparisons(rows, tasks, task)
        assert [row[7].split(" ")[0] for row in rows] == [
            f"{np.mean(worst_of(own)):.2f}" for own in scores.values()
        ]
        pairs = [(np.mean(worst_of(own)), np.std(own)) for own in scores.values()]
        rank = stats.spearmanr(*zip(*pairs, strict=True)).statistic
        assert f"- {task}: over 4 variants, sharpness and standard deviation have" in text
        said = text[text.index(f"- {task}: over 4 variants, ") :].partition("\n")[0]
        assert f"a rank correlation of {rank:+.2f} (" in said
    for row in rows_after(text, "## Average over tasks\n"):
        means = np.mean([every[row[0], task, None] for task in TASKS], axis=0)
        base = np.mean([every["plain", task, None] for task in TASKS], axis=0)
        assert row[1].split(" ")[0] == percent(float(means.mean()))
        assert row[2] == percent(float(means.std(ddof=1)))
        gap = "" if row[0] == "plain" else percent(float((means - base).mean()))
        assert row[3].split(" ")[0] == gap


def test_a_page_of_sweeps_chooses_on_held_out_rows_and_reports_others(writers, swept, tmp_path):
    page = tmp_path / "page.md"
    writers["sweeps"].main([str(page), str(swept), "--", "A remark."])
    text = page.read_text("utf-8")

    def point(config: dict[str, Any]) -> tuple[float, str]:
        kind = config["prompt"]["initializer"]["kind"]
        return config["training"]["learning_rate"], kind

    reported, held_out = (scores_of(swept, key, point) for key in ("score", "held_out_score"))
    rates, task = (0.001, 0.01, 0.1, 1.0), "bundled/sentiment"
    lines = {
        f"{variant} prompt.initializer={kind}": (variant, kind)
        for variant in SWEPT
        for kind in ("vocabulary", "normal")
    }
    wide = rows_after(text, "`training.learning_rate`, scores on reported rows")
    chosen = rows_after(text, "Chosen on held-out rows:")
    assert {row[1] for row in wide} == {row[1] for row in chosen} == set(lines)
    for row in wide:
        variant, kind = lines[row[1]]
        means = [np.mean(reported[variant, task, (rate, kind)]) for rate in rates]
        assert row[2:] == [percent(float(mean)) for mean in means]
    for row in chosen:
        variant, kind = lines[row[1]]
        held = [held_out[variant, task, (rate, kind)] for rate in rates]
        best = int(np.argmax([np.mean(one) for one in held]))
        there = (float(np.mean(reported[variant, task, (rates[n], kind)])) for n in (best, 2))
        assert (row[2], row[6]) == (f"{rates[best]:.4g}", "0.1")
        assert (row[5], row[7]) == tuple(percent(one) for one in there)
        gaps = [a - b for a, b in zip(held[best], held[2], strict=True)]
        assert row[8] == ("0" if best == 2 else with_interval(gaps))
    names = rows_after(text, "`prompt.initializer`, scores on reported rows")
    assert len(names) == 8
    for row in names:
        variant, _, rate = row[1].partition(" training.learning_rate=")
        means = [
            np.mean(reported[variant, task, (float(rate), k)]) for k in ("vocabulary", "normal")
        ]
        assert row[2:] == [percent(float(mean)) for mean in means]
    assert "- A remark.\n" in text
    assert "![sweep-small](figures/sweep-small.svg)" in text
    assert (tmp_path / "figures" / "sweep-small.svg").read_bytes().startswith(b"<?xml")


def test_the_committed_simulation_makes_the_committed_page(writers):
    found = json.loads((RESULTS / "statistics.json").read_text("utf-8"))
    text = (ROOT / "docs" / "statistics.md").read_text("utf-8")
    assert writers["statistics"].refreshed(text, found) == text
    found["covered"]["mean, t"]["normal, 5"]["share"] = 0.1234
    assert "| mean, t | 12.3 |" in writers["statistics"].refreshed(text, found)


def test_a_simulation_counts_hits_widths_and_what_could_not_be_made(writers):
    tally = writers["statistics"].Tally()
    for is_hit, width in ((True, 1.0), (False, 3.0), (True, 8.0), (False, math.nan)):
        tally.add("here", "mean", is_hit, width)
    assert tally.figures() == {
        "mean": {"here": {"share": 0.66667, "width": 3.0, "undefined": 0.25}}
    }
    assert writers["statistics"].error_of(0.2, 100) == "4.0"


@pytest.mark.parametrize(
    ("page", "recipe"),
    [(name, name) for name in ("fewglue", "precision", "presets", "presets-fewglue")]
    + [
        (name, name)
        for name in ("presets-rte", "ptp", "ptp-conditions", "ptp-readout", "stability")
    ]
    + [("multitask", "multitask-superglue")],
)
def test_a_committed_page_has_the_recipe_that_is_shipped(page, recipe):
    text = (RESULTS / f"{page}.md").read_text("utf-8")
    shipped = ROOT / "src" / "softprompts" / "recipes" / "shipped" / f"{recipe}.yaml"
    assert f"\n```yaml\n{shipped.read_text('utf-8').rstrip()}\n```\n" in text


def claim_cells(**means):
    """Return cells of two tasks and six seeds whose scores lie around means."""
    noise = (-0.02, -0.01, 0.0, 0.01, 0.02, 0.0)
    own = {"majority": 0.5, "num_items": 2000, "seconds": 1.0, "updates": 2, "metric": "accuracy"}
    return [
        {
            **own,
            "variant": name.replace("_", "-"),
            "task": task,
            "point": {},
            "missing": [],
            "seeds": list(range(6)),
            "scores": [mean + spread * one for one in noise],
        }
        for name, (mean, spread) in means.items()
        for task in ("one", "two")
    ]


def test_a_claim_is_confirmed_refuted_or_not_decided():
    claims = {(c.variant, c.baseline, c.kind): c for c in write_claims.claims()}
    cells = claim_cells(
        plain=(0.6, 1.0), residual=(0.7, 0.1), residual_100=(0.7, 0.2), adap_pos=(0.5, 1.0)
    )
    cells += claim_cells(adap_len=(0.6, 1.0))
    for key, verdict in {
        ("residual", "plain", "mean"): "confirmed",
        ("residual", "plain", "spread"): "confirmed",
        ("residual", "residual-100", "equal"): "confirmed",
        ("adap-pos", "plain", "mean"): "refuted",
        ("adap-len", "plain", "mean"): "not decided",
        ("smop", "plain", "mean"): "not run",
    }.items():
        claim = claims.get(key) or write_claims.Claim("", "", key[2], key[0], key[1])
        row = write_claims._row(claim, cells)
        assert verdict in row.rsplit("|", 2)[1], row
    assert "+10.0 [" in write_claims._row(claims["residual", "plain", "mean"], cells)


def test_two_runs_of_one_recipe_are_read_together_seed_by_seed():
    first = claim_cells(plain=(0.6, 0.0), residual=(0.7, 1.0))
    second = claim_cells(plain=(0.6, 0.0), residual=(0.66, -1.0))
    lines = list(write_claims._together([first, second]))
    (line,) = [one for one in lines if one.startswith("| residual | better")]
    assert line.endswith("| residual | plain | +10.0 | +6.0 | +8.0 [+8.0, +8.0] |")  # noise cancels
    assert not [one for one in lines if "adap-pos" in one or "steadier" in one]
    second[-1]["seeds"], second[-1]["scores"] = [0, 9], [0.66, 0.7]
    assert not [one for one in write_claims._together([first, second]) if "better" in one]
