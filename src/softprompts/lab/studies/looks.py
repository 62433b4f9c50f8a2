"""Seeds that are added to a study, look by look, until its leader is shown to lead."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scipy import stats

from softprompts.errors import RunFolderError
from softprompts.lab.analysis.leading import Lines, closest, name_of, ranked
from softprompts.lab.analysis.permutations import Looks
from softprompts.recipes.grid import Cell, expand
from softprompts.recipes.seeds import grown
from softprompts.recipes.study import StudyConfig, parse_kept_study
from softprompts.recipes.study_size import RATE, next_look
from softprompts.storage import is_there, read_record

SHOWN, OPEN = "shown", "open"

LEAST_HOPE = 0.05
"""Where the chance is less that the leader is yet shown to lead, no seeds are added."""


def looks_of(study: StudyConfig) -> Looks | None:
    """Return when a study was looked at while seeds were added; `None` where none are."""
    more = study.more_seeds
    if more is None or not more.looks:
        return None
    return Looks(study.seeds, tuple(more.looks), more.most)


def look_at(study: StudyConfig, lines: Lines) -> dict[str, Any] | None:
    """Return what is seen of the leader after the study's last look, and whether to go on.

    Returns:
        `after`, the numbers of seeds at the looks, and `most`; `leader`, `other` that it is hardest
        to tell from, and `p`, corrected for looking; `state`: `shown`, `open` where seeds are to be
        added, else why not: `most`, `hopeless`, `budget`, or `alone` where nothing can be compared;
        `said`, all this in words, and `note`, what is corrected. `None` where no seeds are added.
    """
    looks, more, order = looks_of(study), study.more_seeds, ranked(lines)
    if looks is None or more is None:
        return None
    found = closest(order, looks)
    after, left = looks.after[-1], looks.most - looks.after[-1]
    times = f"{len(looks.after)} look{'s' * (len(looks.after) > 1)}"
    note = f"p of means is corrected for {times}; intervals, and p of spreads, are not"
    seen = {"after": list(looks.after), "most": looks.most, "note": note}
    if found is None or found.p is None:
        said = "no two variants with all their scores"
        return {**seen, "leader": None, "other": None, "p": None, "state": "alone", "said": said}
    p = f"(p = {found.p:.2g}, corrected for {times})"
    state, tail = OPEN, f": up to {left} more could tell, by the same command"
    if found.p <= RATE:
        state, tail = SHOWN, ""
    elif not left:
        state, tail = "most", ", the most it may have"
    elif hope(found.z, after / looks.most) < LEAST_HOPE:
        state, tail = "hopeless", f": {looks.most} would hardly tell"
    elif more.budget_seconds is not None:
        num_added = next_look(after, looks.most, after, 1) - after
        spent = sum(line["seconds"] for line in lines)
        if spent * (1 + num_added / after) > more.budget_seconds:
            state, tail = "budget", f": {num_added} more do not fit the budget"
    whom = f"shown to beat {found.whom}" if state == SHOWN else f"not shown to beat {found.other}"
    said = f"{whom} {p} after {after} seeds{tail}"
    names = {"leader": name_of(order[0][0]), "other": found.other}
    return {**seen, **names, "p": found.p, "state": state, "said": said}


def hope(z: float, share: float) -> float:
    """Return the chance that the leader is shown to lead after the last seed.

    On the share of all seeds that was seen, `z` is its difference from another by its error.

    Reference:
        Lan and Wittes 1988, The B-value: a tool for monitoring data.
    """
    last = float(stats.norm.isf(RATE / 2))
    return float(stats.norm.cdf((z / math.sqrt(share) - last) / math.sqrt(1 - share)))


def run_looks(
    study: StudyConfig, out: Path, run: Callable[[StudyConfig], dict[str, Any]]
) -> dict[str, Any]:
    """Run a study with more and more seeds, as long as `look_at` sees a reason to.

    What is seen is made of results and looks alone, and `study.json` keeps the looks. So a study
    that was interrupted goes on with those that it had, to the decision it would have come to.

    Returns:
        What `run` returned last, the content of `summary.json`.

    Raises:
        SoftPromptsError: what `run` raises, or if the folder was begun with another `most`.
    """
    num_tasks = len({cell.task for cell in all_runs(study)})
    study = _begun(study, out)
    looks = looks_of(study)
    if looks is None or looks.after[-1] < len(study.seeds):
        study = _at_next_look(study, num_tasks)
    while True:
        summary = run(study)
        if summary["num_finished"] < summary["num_runs"] or summary["looks"]["state"] != OPEN:
            return summary
        study = _at_next_look(study, num_tasks)


def all_runs(study: StudyConfig) -> tuple[Cell, ...]:
    """Return the runs of a study with all the seeds that it may get."""
    most = 0 if study.more_seeds is None else study.more_seeds.most
    return expand(study.model_copy(update={"seeds": grown(study.seeds, most)}))


def _at_next_look(study: StudyConfig, num_tasks: int) -> StudyConfig:
    more = study.more_seeds
    assert more is not None
    looks = more.looks or []
    count = next_look(looks[-1] if looks else 0, more.most, len(study.seeds), num_tasks)
    more = more.model_copy(update={"looks": [*looks, count]})
    return study.model_copy(update={"seeds": grown(study.seeds, count), "more_seeds": more})


def _begun(study: StudyConfig, out: Path) -> StudyConfig:
    """Return a study with the seeds and looks of its folder, if that looked at the same runs."""
    path = out / "study.json"
    if not is_there(path):
        return study
    kept = parse_kept_study(read_record(path, ["name", "base"]), str(path))
    if looks_of(kept) is None or kept.more_seeds is None or study.more_seeds is None:
        return study
    seeds = (*kept.seeds, *(seed for seed in study.seeds if seed not in kept.seeds))
    more = study.more_seeds.model_copy(update={"looks": kept.more_seeds.looks})
    mine = study.model_copy(update={"seeds": seeds, "more_seeds": more})
    if not {one.identity for one in expand(kept)} <= {one.identity for one in expand(mine)}:
        return study
    if kept.more_seeds.most != more.most:
        raise RunFolderError(
            f"`more_seeds.most` must be {kept.more_seeds.most}, as {out} has been looked at, but "
            f"is {more.most}. Choose another folder."
        )
    return mine
