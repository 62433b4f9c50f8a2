"""`tuning/chosen.json` of a study's folder: what was tuned, tried and chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from softprompts.problems import show
from softprompts.recipes.overrides import place
from softprompts.recipes.tuning import Choice, TuneConfig, is_number
from softprompts.storage import is_there, read_record, write_json
from softprompts.training.stored import Count, Fraction, Stored, check_stored, required


class Trial(Stored):
    """What one candidate did in a rung, over all seeds.

    Attributes:
        score: mean score on held-out rows over the seeds that did not diverge.
        loss: mean loss on held-out rows where each seed scored best; `None` where it is not known.
    """

    value: Any
    score: Fraction | None
    loss: float | None
    num_diverged: Count
    updates_done: Count


class Rung(Stored):
    """A rung of one variant at one point: updates of a run, and candidates, the best first."""

    steps: Count
    tried: Annotated[list[Trial], Field(min_length=1)]


class Chosen(Stored):
    """What was chosen for one variant at one point.

    Attributes:
        score: its mean score on held-out rows in the last rung.
        updates: what it was given, over all rungs and seeds: the same for every variant.
        updates_done: updates that were done; fewer where runs diverged or stopped early.
    """

    variant: str
    point: dict[str, Any]
    task: str
    value: Any
    score: Fraction | None
    updates: Count
    updates_done: Count
    rungs: Annotated[list[Rung], Field(min_length=1)]

    @property
    def name(self) -> str:
        """What to call it."""
        return place(self.variant, self.point)

    @property
    def is_idle(self) -> bool:
        """Whether all candidates did the same, to the last bit: the field does nothing here."""
        first = self.rungs[0].tried
        return all((one.score, one.loss) == (first[0].score, first[0].loss) for one in first)

    @property
    def is_at_edge(self) -> bool:
        """Whether it is the smallest or the largest candidate, so that others may be better."""
        values = [one.value for one in self.rungs[0].tried]
        if self.is_idle or not all(map(is_number, values)):
            return False
        return self.value in (min(values), max(values))

    @property
    def remark(self) -> str:
        """What a reader must know of it, or ""."""
        if self.score is None:
            return "every candidate diverged"
        if self.is_idle:
            return "the field changes nothing here"
        return "at the edge of the candidates" if self.is_at_edge else ""


class TuningRecord(Stored):
    """What a study's tuning found; variants that train nothing are not tuned."""

    field: str
    values: list[Any]
    seeds: list[int]
    keep: Count
    fingerprint: str
    choices: list[Chosen]
    untrained: list[str]

    @property
    def chosen(self) -> list[Choice]:
        """The choices as a recipe holds them."""
        return [Choice(variant=c.variant, point=c.point, value=c.value) for c in self.choices]

    def lines(self) -> list[str]:
        """Return what was chosen, in lines of text."""
        shown = ", ".join(map(show, self.values))
        texts = [f"tuned {self.field} among {shown}, on held-out rows:"]
        for one in self.choices:
            score = "no score" if one.score is None else f"{100 * one.score:.1f} on held-out rows"
            remark = f"; {one.remark}" if one.remark else ""
            texts.append(f"  {one.name}: {show(one.value)}, {score}{remark}")
        if self.untrained:
            texts.append(f"  not tuned, since nothing is trained: {', '.join(self.untrained)}")
        total = sum(one.updates for one in self.choices)
        each = " or ".join(dict.fromkeys(str(one.updates) for one in self.choices))
        where = "each variant" + " at each point of the grid" * any(c.point for c in self.choices)
        return [*texts, f"budget of tuning: {each} updates for {where}; {total} in all"]


def record_path(study: Path) -> Path:
    """Return where a study's folder keeps what tuning chose."""
    return study / "tuning" / "chosen.json"


def read_tuning(study: Path, tune: TuneConfig | None) -> TuningRecord | None:
    """Read what was tried, where a study's choices are from it; `None` where there is no such.

    Raises:
        StorageError: if the file is broken.
        RunFolderError: if a value in it is wrong.
    """
    if tune is None or tune.chosen is None:
        return None
    record = read_record_of(study)
    is_same = record is not None and (record.field, record.chosen) == (tune.field, tune.chosen)
    return record if is_same else None


def read_record_of(study: Path) -> TuningRecord | None:
    """Read what the last tuning that ended in a study's folder found; `None` where none has.

    Raises:
        StorageError: if the file is broken.
        RunFolderError: if a value in it is wrong.
    """
    path = record_path(study)
    if not is_there(path):
        return None
    content = read_record(path, required(TuningRecord))
    check_stored(path, content, TuningRecord)
    return TuningRecord.model_validate(content)


def write_tuning(study: Path, record: TuningRecord) -> None:
    """Write what tuning chose, in one step; see `read_tuning`."""
    write_json(record_path(study), record.model_dump(mode="json"))
