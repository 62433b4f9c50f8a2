"""What a study found, in a few sentences: what was compared, what came out, how sure that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from softprompts.lab.analysis.comparisons import difference_range
from softprompts.lab.analysis.statistics import looks_skewed
from softprompts.lab.analysis.study_statistics import point_words
from softprompts.lab.reports.learning import still_learning
from softprompts.lab.reports.study_record import Entry, StudyRecord, point_label
from softprompts.lab.reports.tabular import spelled
from softprompts.recipes.study_size import RATE

_MOST_NAMED = 6


Comparison = Mapping[str, Any]
"""A comparison with the baseline, as `summary.json` has it."""


def findings(record: StudyRecord) -> dict[str, list[str]]:
    """Return what a study found, in sentences.

    Returns:
        `compared`: what was compared, and how far the study is; `found`: what may be concluded;
        `certainty`: how sure that is, and what it leaves open.
    """
    main = main_comparisons(record.summary)
    found = [*_on_means(record, main), *_on_spread(record, main), *_best(record)]
    certainty = _certainty(record, main) if found else []
    return {"compared": _compared(record), "found": found, "certainty": certainty}


def main_comparisons(summary: Mapping[str, Any]) -> list[Comparison]:
    """Return the comparisons that are spoken of: over all tasks where there are several."""
    # a mean over tasks of which one is left says what that task alone does: the later counts
    return list({(*_key(one), *one["tasks"]): one for one in _spoken_of(summary)}.values())


def conclusions(summary: Mapping[str, Any]) -> list[str]:
    """Return what may be concluded of each variant against the baseline.

    Two texts per variant and grid point, on means and on spread over seeds; none comes twice. Of
    several tasks only their mean is spoken of; the single tasks are in `summary.json`.
    """
    texts = []
    for one in _spoken_of(summary):
        place = f"{point_words(one['point'])}, ".removeprefix(", ")
        texts += [f"{place}{one[key]}" for key in ("conclusion", "conclusion_on_spread")]
    return list(dict.fromkeys(texts))


def _spoken_of(summary: Mapping[str, Any]) -> list[Comparison]:
    """Return the comparisons over all tasks, and those of one task where there is no other."""
    found = summary["comparisons"]
    joint = {_key(one) for one in found if len(one["tasks"]) > 1}
    return [one for one in found if len(one["tasks"]) > 1 or _key(one) not in joint]


def state_of(record: StudyRecord) -> str:
    """Return how far a study is, in a word or two."""
    if record.num_finished == record.num_runs:
        return "finished"
    return f"unfinished: {record.num_finished} of {record.num_runs} runs"


def _compared(record: StudyRecord) -> list[str]:
    variants = list(record.study.variants)
    others = len(variants) - 1
    what = f"One variant, {variants[0]}"
    if others:
        are_named = others <= 3 and variants[0] == record.baseline
        named = ", ".join(variants[1:]) if are_named else _counted(others, "variant")
        what = f"{named} against {record.baseline}"
    tasks = record.tasks
    where = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks ({_listed(tasks)})"
    points = {point_label(entry.line["point"]) for entry in record.whole_entries}
    grid = f", at {len(points)} settings of {_listed(record.fields)}" if len(points) > 1 else ""
    said = [f"{what}, on {where}{grid}; {_counted(len(record.study.seeds), 'seed')} each."]
    left = record.num_runs - record.num_finished
    some = f"of {record.num_runs} runs"
    if left == record.num_runs:
        said.append(f"None {some} is finished.")
    elif left:
        said.append(f"{left} {some} are not finished: what follows is of the others.")
    return said


def _best(record: StudyRecord) -> list[str]:
    """Say which mean is the highest on each task, without claiming anything."""
    said = []
    for task in record.tasks:
        known = [e for e in record.whole_entries if e.task == task and e.line["mean"] is not None]
        if not known or len(record.tasks) > 4:
            continue
        best = max(known, key=lambda entry: float(entry.line["mean"]))
        line, size = best.line, f"{100 * best.line['mean']:.1f}"
        score = size if line["std"] is None else f"{size} ± {100 * line['std']:.1f}"
        level = [e for e in known if round(e.line["mean"], 3) == round(line["mean"], 3)]
        text = f"{_named(best)} has the highest mean seen, {score}"
        if len(level) > 1:
            text = f"{_listed(list(map(_named, level)))} have the highest mean seen, {size}"
        if len(known) == 1:
            text = f"{_named(best)} scores {score}"
        majority = f"the majority class scores {100 * line['majority']:.1f}"
        said.append(f"On {task} {text}; {majority} ({line['metric']}, {line['num_items']} items).")
        if line["mean"] <= line["majority"]:
            said.append("No mean is above the majority class.")
    return said


def _on_means(record: StudyRecord, main: Sequence[Comparison]) -> list[str]:
    tested = [one for one in main if one["p_adjusted"] is not None]
    if not tested:
        return []
    shown = [one for one in tested if one["p_adjusted"] <= RATE]
    if not shown:
        return [
            f"No difference in means is shown: of {_counted(len(tested), 'comparison')} with "
            f"{record.baseline}, none is significant after correction. Not shown is not equal.",
            *_by_intervals(record, [one for one in tested if not one["is_conclusive"]]),
        ]
    higher = [one for one in shown if one["difference"] > 0]
    lower = [one for one in shown if one["difference"] < 0]
    sides = {"Shown to score higher": higher, "Shown to score lower": lower}
    said = _claims(record, sides, _size)
    if rest := len(tested) - len(shown):
        said.append(f"For the other {rest} of {len(tested)} comparisons nothing is shown.")
    return said


def _by_intervals(record: StudyRecord, untested: Sequence[Comparison]) -> list[str]:
    """Say what intervals over seeds and items tell where too few seeds can be tested."""
    lead = "By Student's intervals over seeds and items, which take scores to be near normal,"
    known = [one for one in untested if one["interval_with_items"]]
    higher = [one for one in known if one["interval_with_items"][0] > 0]
    lower = [one for one in known if one["interval_with_items"][1] < 0]
    return _claims(record, {f"{lead} higher": higher, f"{lead} lower": lower}, _with_items)


def _on_spread(record: StudyRecord, main: Sequence[Comparison]) -> list[str]:
    known = [one for one in main if one["std_ratio"] is not None]  # not beside equal scores
    tested = [one for one in known if one["p_spread_adjusted"] is not None]
    if not tested:
        return []
    shown = [one for one in tested if one["p_spread_adjusted"] <= RATE]
    if not shown:
        return [f"No difference in spread over seeds is shown, in {_counted(len(tested), 'test')}."]
    less = [one for one in shown if one["std_ratio"] < 1]
    more = [one for one in shown if one["std_ratio"] >= 1]
    sides = {"Shown to spread less over seeds": less, "Shown to spread more over seeds": more}
    return _claims(record, sides, lambda one: f"{one['std_ratio']:.2f} times")


def _certainty(record: StudyRecord, main: Sequence[Comparison]) -> list[str]:
    said = []
    if max((entry.num_scored for entry in record.entries), default=0) < 2:
        return ["Each score is of one seed: no spread can be told, and nothing be concluded."]
    blind = sum(not one["is_conclusive"] for one in main if one["p"] is not None)
    if blind:
        said.append(
            f"{blind} of {_counted(len(main), 'comparison')} could not have shown anything: too "
            "few seeds."
        )
    if looks := record.summary.get("looks"):
        said.append(f"Seeds were added as long as they could tell more: {looks['note']}.")
    seen = [one["detectable"] for one in main if one["detectable"]]
    if seen:
        size = f"{100 * median(seen):.1f} points"
        more = "half of the comparisons" if len(seen) > 1 else "this comparison"
        said.append(f"A true difference under {size} would often go unseen in {more}.")
    lost = Counter[str]()
    for entry in record.whole_entries:
        lost += Counter(gap["reason"] for gap in entry.line["missing"])
    gone = [f"{count} {reason}" for reason, count in lost.items() if reason != "unfinished"]
    if gone:
        said.append(f"Runs without a score are in no mean: {', '.join(gone)}.")
    skewed = [e for e in record.whole_entries if looks_skewed(e.line["scores"])]
    if skewed:
        names = [f"{_named(e)} on {e.task}" for e in skewed]
        who = _listed(names) if len(names) <= _MOST_NAMED else f"{len(names)} variants"
        said.append(
            f"The scores of {who} look skewed: a few seeds lie far from the others. Their interval "
            "allows for that, but not for rare seeds that were not seen; look at every seed."
        )
    learning = still_learning([cell for _, cell in record.runs], record.path)
    said += [f"{text[:1].upper()}{text[1:]}." for text in learning]
    said.append(
        "Intervals are of the mean over seeds, on these items; other items and other tasks are "
        "another matter."
    )
    return said


def _claims(
    record: StudyRecord,
    sides: Mapping[str, Sequence[Comparison]],
    size: Callable[[Comparison], str],
) -> list[str]:
    """Return a sentence for each side that has comparisons."""
    than = f"than {record.baseline}"
    return [f"{text} {than}{_at_places(some, size)}." for text, some in sides.items() if some]


def _at_places(found: Sequence[Comparison], size: Callable[[Comparison], str]) -> str:
    """Return who is meant: ` on task at point: a (size), b (size)`, or in how many places."""
    if len(found) > _MOST_NAMED:
        counts = Counter(one["variant"] for one in found)
        names = [f"{name} in {_counted(count, 'comparison')}" for name, count in counts.items()]
        return f": {_listed(names)}"
    places: dict[str, list[str]] = {}
    for one in found:
        places.setdefault(_where(one), []).append(f"{one['variant']} ({size(one)})")
    return ";".join(f"{where}: {_listed(names)}" for where, names in places.items())


def _size(one: Comparison) -> str:
    """Return by how much a variant differs, and how sure that is."""
    size = f"{spelled('points', one['difference'])} points"
    if one["interval"] is not None:
        size += f", 95 % {difference_range(one['interval'])}"
    wide = one["interval_with_items"]
    is_wide = wide is not None and (wide[0] > 0 or wide[1] < 0)
    return size if is_wide else f"{size}, on these items only"


def _with_items(one: Comparison) -> str:
    """Return by how much a variant differs, and how sure that is for other items, too."""
    return _size({**one, "interval": one["interval_with_items"]})


def _where(one: Comparison) -> str:
    tasks = one["tasks"]
    where = f" on {tasks[0]}" if len(tasks) == 1 else f" over {len(tasks)} tasks"
    point = point_label(one["point"])
    return f"{where} at {point}" if point else where


def _named(entry: Entry) -> str:
    point = point_label(entry.line["point"])
    return f"{entry.variant} at {point}" if point else entry.variant


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_MOST_NAMED])
    more = len(names) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more else [])])


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _key(one: Comparison) -> tuple[str, str]:
    return repr(one["point"]), str(one["variant"])
