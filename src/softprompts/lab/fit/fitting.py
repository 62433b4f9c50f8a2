"""From a table of examples to a prompt: search, train, answer together, and say what to expect."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any, final

from softprompts.backbones.loading import load_backbone
from softprompts.errors import RunFolderError, SoftPromptsWarning, TuningError
from softprompts.lab.ensembles import Ensemble, load
from softprompts.lab.fit.card import MOST, card
from softprompts.lab.fit.plan import (
    NUM_SEEDS,
    SEARCH_SEED,
    Candidate,
    Plan,
    base_recipe,
    cost_of_yardsticks,
    final_study,
    fitting_methods,
    make_plan,
    num_kept,
    read_budget,
    search_study,
    yardsticks,
)
from softprompts.lab.fit.table import Splits, Table, read_table, split_rows
from softprompts.lab.reports.report import write_report
from softprompts.lab.studies.ensembles import ensemble_study
from softprompts.lab.studies.progress import OnHeldOut, StudyBar, StudyProgress
from softprompts.lab.studies.runner import run_study
from softprompts.locks import lock
from softprompts.metrics.wilson import matched_interval, wilson_interval
from softprompts.recipes.study import parse_study
from softprompts.results import Result
from softprompts.results import load as load_run
from softprompts.storage import entries, is_there, make_folder, read_record, write_bytes, write_json

FILE = "fit.json"
_PLAN = "plan.json"


@final
@dataclass(frozen=True)
class Fit:
    """What `fit` made of a table: its folder, and the content of `fit.json`."""

    folder: Path
    summary: Mapping[str, Any]

    @property
    def ensemble(self) -> Ensemble:
        """The prompts that answer together."""
        found = load(self.folder / "ensemble")
        assert isinstance(found, Ensemble)
        return found

    @property
    def best(self) -> Result:
        """The member that did best on rows held out of its training."""
        found = load(self.folder / "prompt")
        assert isinstance(found, Result)
        return found

    def __repr__(self) -> str:
        found = self.summary["expected"]
        low, high = (100 * end for end in found["interval"])
        return (
            f"Fit({str(self.folder)!r}, {self.summary['method']}, "
            f"{100 * found['score']:.1f} [{low:.1f}, {high:.1f}] on {found['num_items']} rows)"
        )


def fit(
    source: str | Path,
    backbone: str = "smollm2",
    *,
    label: str | None = None,
    text: str | Sequence[str] = (),
    budget: str = "10m",
    out: str | Path = "my-prompt",
    skip_bad_rows: bool = False,
    words: bool = False,
    progress: StudyProgress | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Fit:
    """Make a prompt from a table of examples, without a recipe.

    A fifth of the rows, and 500 at most, is held back. Methods and learning rates are tried on the
    others by successive halving, on rows held out of them; what wins is trained with five seeds.
    The five answer together, and are scored once on the rows that were held back. The same call
    goes on where one was stopped.

    Args:
        source: a `.jsonl`, `.csv` or `.parquet` file, or a hub set whose split `train` is read.
        backbone: a registered name, a folder, a GGUF file or a hub id.
        label: the column with the label; found when `None`.
        text: the columns to read, or the one; found when empty.
        budget: about how long it may take, such as `90s`, `10m` or `2h`.
        out: the folder of all that is made.
        skip_bad_rows: leave out rows that lack a value or cannot be read, and count them.
        words: try only prompts that can become words of a model, as other programs run them.
        progress: told of every run and update.
        tell: told in words what is done.

    Raises:
        DataError: if table, columns or budget are wrong; nothing is written.
        RunFolderError: if the folder holds something else, or a fit of other rows or wishes.
        SoftPromptsError: if the backbone cannot be used.
        TuningError: if no candidate could be trained.
    """
    seconds = read_budget(budget)
    columns = (text,) if isinstance(text, str) else text
    table = read_table(str(source), label, columns, skip_bad_rows=skip_bad_rows)
    splits = split_rows(table)
    folder, progress = Path(out), progress or StudyBar()
    wishes = {"rows": _digest(table, splits), "backbone": str(backbone), "budget": budget}
    wishes["words"] = "words" if words else "any"
    _check_folder(folder, wishes)
    loaded = load_backbone(str(backbone), dtype="auto")
    base = base_recipe(table, loaded, folder.resolve() / "data")
    methods, left_out = fitting_methods(loaded, words)
    beside = yardsticks(base, loaded.family)
    make_folder(folder / "data")
    with lock(folder / ".lock"):
        for remark in (*splits.remarks, *filter(None, [left_out])):
            warnings.warn(f"{remark}.", SoftPromptsWarning, stacklevel=2)
        _write_rows(folder / "data", splits)
        if is_there(folder / _PLAN):
            plan = _kept_plan(read_record(folder / _PLAN, [one.name for one in fields(Plan)]))
        else:
            tell("a run of four updates, to time this machine: its score means nothing")
            speed = _speed(folder / "timing", base, progress)
            plan = make_plan(seconds, speed, splits, methods, cost_of_yardsticks(beside))
            write_json(folder / _PLAN, {**wishes, **asdict(plan)})
        tell(plan.text(seconds))
        winner, tried = _search(folder, base, plan, progress)
        chosen = "is best on held-out rows" if tried else "is taken, as no search fits the budget"
        tell(f"{winner.name} {chosen}; it is trained with {NUM_SEEDS} seeds.")
        study = final_study(base, plan, winner, beside)
        summary = run_study(parse_study(study, "fit"), folder / "study", progress)
        size = _check_size(len(_cell(summary, winner.name)["seeds"]), folder)
        team = ensemble_study(folder / "study", winner.name, size, folder / "ensemble")["cells"][0]
        about = _about(table, splits, plan, summary, team, winner)
        about |= {**wishes, "tried": tried, "best": _keep_best(folder)}
        rows = (splits, table.label)
        about["yardsticks"] = _yardsticks(summary, winner.name, beside, *rows)
        write_report(folder / "study")
        write_bytes(folder / "README.md", card(about, str(out)).encode())
        write_json(folder / FILE, about)
    return Fit(folder, about)


def _digest(table: Table, splits: Splits) -> str:
    """Return 16 hexadecimal digits over all that is read of the rows."""
    rows = [[list(row.items()) for row in part] for part in (splits.train, splits.held_back)]
    return hashlib.sha256(json.dumps([table.label, rows]).encode()).hexdigest()[:16]


def _check_folder(folder: Path, wishes: Mapping[str, str]) -> None:
    if not is_there(folder) or not entries(folder):
        return
    if not is_there(folder / _PLAN):
        if entries(folder) in (["data"], ["data", "timing"]):
            return  # stopped before there was a plan
        first = entries(folder)[0]
        raise RunFolderError(f"{folder} must be a new or empty folder, but holds {first}.")
    kept = read_record(folder / _PLAN, ["methods", *wishes])
    for name, value in wishes.items():
        if kept[name] != value:
            raise RunFolderError(
                f"{folder} must be a new folder, or one of the same {name}, but its {name} "
                f"{'are' if name == 'rows' else 'is'} {kept[name]}, not {value}."
            )


def _write_rows(folder: Path, splits: Splits) -> None:
    for name, rows in (("train", splits.train), ("held-back", splits.held_back)):
        lines = "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)
        write_bytes(folder / f"{name}.jsonl", lines.encode())


def _speed(folder: Path, base: Mapping[str, Any], progress: StudyProgress) -> float:
    """Return how many examples per second this machine trains on, by a few updates."""
    training = {"steps": 4, "num_evaluations": 1, "selection": "last"}
    study = search_study("timing", base, {"timing": {}}, 1, **training)
    run_study(parse_study(study, "timing"), folder, progress)
    (name,) = entries(folder / "runs")
    result = read_record(folder / "runs" / name / "result.json", ["examples_per_second"])
    return float(result["examples_per_second"])


def _kept_plan(kept: Mapping[str, Any]) -> Plan:
    numbers = (tuple(kept["multiples"]), kept["updates"], kept["seconds"])
    return Plan(tuple(kept["methods"]), *numbers)


def _search(
    folder: Path, base: Mapping[str, Any], plan: Plan, progress: StudyProgress
) -> tuple[Candidate, list[dict[str, Any]]]:
    """Return the candidate that did best on held-out rows, and what was tried."""
    going = [Candidate(method, one) for method in plan.methods for one in plan.multiples]
    tried = []
    rungs = [plan.updates // 2, plan.updates] if len(plan.multiples) > 1 else [plan.updates]
    for number, updates in enumerate(rungs if len(going) > 1 else []):
        variants = {one.name: one.changes for one in going}
        study = search_study("rung", base, variants, [SEARCH_SEED], steps=updates)
        out = folder / "search" / f"rung-{number}"
        summary = run_study(parse_study(study, "rung"), out, OnHeldOut(progress))
        scores = {one: _cell(summary, one.name)["held_out"]["mean"] for one in going}
        tried += [
            {"method": one.method, "rate": one.rate, "updates": updates, "held_out_score": score}
            for one, score in scores.items()
        ]
        going = [one for one in going if scores[one] is not None]
        going.sort(key=lambda one: -scores[one])  # stable: the simplest first where equal
        if updates < plan.updates:
            keep = num_kept(len(plan.multiples))
            going = [c for m in plan.methods for c in [o for o in going if o.method == m][:keep]]
    if not going:
        raise TuningError(f"no candidate could be trained; {folder / 'search'} says why.")
    return going[0], tried


def _check_size(size: int, folder: Path) -> int:
    if size < 2:
        raise TuningError(
            f"at least 2 of {NUM_SEEDS} runs must have a score to answer together, but {size} "
            f"has; {folder / 'study'} says why."
        )
    return size


def _cell(summary: Mapping[str, Any], variant: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(c for c in summary["cells"] if c["variant"] == variant)
    return found


def _keep_best(folder: Path) -> dict[str, Any]:
    """Keep the member that did best on rows held out of its training; return what it scored."""
    runs = folder / "ensemble" / "members"
    found = {name: read_record(runs / name / "result.json", ["score"]) for name in entries(runs)}
    name = max(found, key=lambda one: found[one].get("held_out_score") or 0.0)
    best, kept = found[name], folder / "prompt"
    file = kept / "result.json"
    # a fit that was stopped had fewer seeds to choose from
    if not is_there(file) or read_record(file, ["seed"])["seed"] != best["seed"]:
        shutil.rmtree(kept, ignore_errors=True)
        load_run(runs / name).save(kept)
    interval = wilson_interval(best["score"], best["num_items"])
    return {"seed": best["seed"], "score": best["score"], "interval": list(interval)}


def _about(
    table: Table,
    splits: Splits,
    plan: Plan,
    summary: Mapping[str, Any],
    team: Mapping[str, Any],
    winner: Candidate,
) -> dict[str, Any]:
    cell, score = _cell(summary, winner.name), team["ensembles"]["mean"]
    interval = wilson_interval(score, cell["num_items"])
    return {
        "source": table.name,
        "fields": list(table.fields),
        "label": table.label,
        "labels": list(table.labels),
        "num_train": len(splits.train),
        "num_held_back": len(splits.held_back),
        "remarks": list(splits.remarks),
        "method": winner.method,
        "rate": winner.rate,
        "plan": asdict(plan),
        "expected": {"score": score, "interval": list(interval), "num_items": cell["num_items"]},
        "single": {"mean": cell["mean"], "std": cell["std"], "scores": cell["scores"]},
        "metric": cell["metric"],
    }


def _yardsticks(
    summary: Mapping[str, Any],
    winner: str,
    methods: Mapping[str, Mapping[str, Any]],
    splits: Splits,
    label: str,
) -> list[dict[str, Any]]:
    """Return what needs no prompt, by method, and how far one prompt is above it, row by row.

    Means over seeds, so that neither side gains by answering together. A gap is `None` where runs
    have no score, or come from a version that did not keep which rows they answered rightly.
    """
    prompts, found = _shares(_cell(summary, winner)), []
    for method, options in methods.items():
        cell = _cell(summary, method)
        scores = {"method": method, "mean": cell["mean"], "std": cell["std"]}
        if (shown := options.get("prompt.num_demonstrations")) is not None:
            scores["shown"] = shown
        found.append({**scores, **_gap(prompts, _shares(cell))})
    ((most, _),) = Counter(row[label] for row in splits.train).most_common(1)
    hits = [float(row[label] == most) for row in splits.held_back]
    return [*found, {"method": MOST, "mean": fmean(hits), "std": None, **_gap(prompts, hits)}]


def _shares(cell: Mapping[str, Any]) -> list[float]:
    """Return the share of seeds that answered each row rightly, if it is known."""
    return [fmean(map(int, own)) for own in zip(*cell.get("answers", ()), strict=True)]


def _gap(own: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    if not own or not other:
        return {"above": None, "interval": None}
    gaps = [one - two for one, two in zip(own, other, strict=True)]
    return {"above": fmean(gaps), "interval": list(matched_interval(gaps))}
