"""One thing to measure: a model, a task's rows and sizes, made ready for every contestant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import softprompts as sp
from softprompts.backbones.backbone import Backbone
from softprompts.encoding.inputs import EncodedExample
from softprompts.errors import DataError
from softprompts.training.member import Member

from .bare import Bare
from .contestants import Ours, build_member, encoded_of
from .material import Rows, as_records, load_rows, long_rows
from .peers import SETUPS, Host, TokenCount, build_peer, build_trainer
from .race import Lap, Race, longest_stint
from .shapes import find_model, is_bundled, layer_parameters, readout_of


@dataclass(frozen=True)
class Workplace:
    """Where files are.

    Attributes:
        data_dir: folder with the real task files, or `None`.
        scratch: an empty folder for models and what trainers write.
    """

    data_dir: str | None
    scratch: Path
    loaded: dict[str, Any] = field(default_factory=dict)

    def rows(self, name: str) -> Rows:
        """Return a task's rows, loaded once."""
        if name not in self.loaded:
            self.loaded[name] = load_rows(name, self.data_dir)
        found: Rows = self.loaded[name]
        return found

    def lacks(self, name: str) -> str | None:
        """Return why a task's rows cannot be had, or `None` where they can; nothing is fetched."""
        reason = f"no files of {name} in --data-dir"
        if self.data_dir is None and name != "bundled":
            return reason
        try:
            self.rows(name)
        except DataError:
            return reason
        return None

    def long_rows(self, name: str, num_words: int) -> str:
        """Make rows of so many words a field out of a task's, and return their name."""
        key = f"{name}-{num_words}"
        self.loaded[key] = long_rows(self.rows(name), num_words)
        return key

    def folder(self, model: str, rows: str) -> Path:
        """Return a model's folder, built once; its tokenizer is trained on the rows."""
        return find_model(model, self.rows(rows).texts, self.scratch / f"{model}-{rows}")

    def backbone(self, model: str, rows: str) -> Backbone:
        """Return a model as we load it, once."""
        key = f"{model}/{rows}"
        if key not in self.loaded:
            name = model if is_bundled(model) else str(self.folder(model, rows))
            self.loaded[key] = sp.load_backbone(name, dtype="auto")
        found: Backbone = self.loaded[key]
        return found


@dataclass(frozen=True)
class Scope:
    """What of a section is measured, and how long.

    Attributes:
        is_quick: tiny models and few rounds, to see that all works.
        max_rounds: most rounds of a race.
        names: cases to measure, or all.
    """

    is_quick: bool = False
    max_rounds: int | None = None
    names: tuple[str, ...] = ()

    def rounds(self, wanted: int) -> int:
        """Return the number of rounds to race."""
        return wanted if self.max_rounds is None else min(wanted, self.max_rounds)

    def has(self, name: str) -> bool:
        """Return whether a case is measured."""
        return not self.names or name in self.names


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        model: a bundled model, or a name of `SHAPES`.
        rows: a name of `TASKS`.
        length: rows of the prompt.
        batch_size: examples per update.
        max_tokens: cap on the tokens of an input.
        num_examples: the first rows that are taken, or all.
    """

    model: str
    rows: str
    length: int = 10
    batch_size: int = 16
    max_tokens: int | None = None
    num_examples: int | None = None

    @property
    def name(self) -> str:
        """Model and rows."""
        return f"{self.model} {self.rows}"

    def member(self, place: Workplace, seed: int = 0) -> Member:
        """Return a run of ours."""
        rows = place.rows(self.rows)
        return build_member(
            place.backbone(self.model, self.rows),
            (rows.task.format, rows.examples[: self.num_examples]),
            readout=readout_of(self.model),
            length=self.length,
            batch_size=self.batch_size,
            max_tokens=self.max_tokens,
            seed=seed,
        )


class Ready:
    """A case with its contestants.

    Args:
        case: the case.
        place: where files are.
    """

    def __init__(self, case: Case, place: Workplace) -> None:
        self.case, self.place = case, place
        self.backbone = place.backbone(case.model, case.rows)
        self.ours = Ours(self.backbone, [case.member(place)])
        self.encoded: Sequence[EncodedExample] = encoded_of(self.ours.members[0])
        self.folder = place.folder(case.model, case.rows)
        self.num_labels = len(place.rows(case.rows).task.format.labels)
        self.parameters = layer_parameters(self.backbone)
        lengths = [len(row.inputs[0].ids) + case.length for row in self.encoded]
        self.tokens_per_example = sum(lengths) / len(lengths)

    def bare(self) -> Bare:
        """Return the loop by hand."""
        sizes = {"length": self.case.length, "batch_size": self.case.batch_size}
        return Bare(self.folder, self.encoded, self.num_labels, **sizes)

    def records(self) -> list[dict[str, Any]]:
        """Return the rows as peft's trainer reads them."""
        return as_records(self.encoded, is_decoder=self.backbone.family == "decoder")

    def peer(self, setup: str) -> Any:
        """Return peft's model in a setup."""
        labels = None if self.encoded[0].inputs[0].targets else self.num_labels
        return build_peer(self.folder, SETUPS[setup].dtype, labels, self.case.length)

    def race(self, setup: str, guests: Sequence[Any], num_rounds: int) -> dict[str, Lap]:
        """Race peft under its trainer against others; its lap goes by the setup's name."""
        peer = self.peer(setup)
        race = Race(guests, num_rounds, stint=longest_stint(num_rounds))
        trainer = build_trainer(
            peer,
            self.records(),
            self.backbone.tokenizer,
            SETUPS[setup],
            batch_size=self.case.batch_size,
            folder=self.place.scratch / "trainer",
            callbacks=[Host(race.turn)],
        )
        race.begin(TokenCount(peer))
        trainer.train()
        return {setup: race.host, **race.laps}

    def shares(self, lap: Lap, limit: Lap, operations: int = 4) -> dict[str, float]:
        """Return the share of the limit over all rounds, and that of the median round.

        Args:
            lap: a contestant's.
            limit: that of products of matrices, which took turns with it.
            operations: per layer parameter and real token; 4 forward and backward, 2 forward.
        """
        work = operations * self.parameters
        return {
            "limit_share": round(work * lap.rate / limit.rate, 4),
            "median_share": round(work * lap.median_rate / limit.median_rate, 4),
        }

    def figures(self, lap: Lap) -> dict[str, float]:
        """Return what is written down of a lap.

        Examples per second come from tokens per second: updates read more or fewer tokens by
        chance, and that is not a contestant's doing.
        """
        return {
            "examples_per_second": round(lap.rate / self.tokens_per_example, 2),
            "tokens_per_second": round(lap.rate, 1),
            "median_milliseconds": lap.median_milliseconds,
        }


def measure_cases(
    place: Workplace,
    scope: Scope,
    cases: Mapping[Case, int],
    measure_case: Callable[[Ready, int], dict[str, Any]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield figures by case; why it is skipped, where its rows cannot be had.

    Args:
        place: where files are.
        scope: what is measured.
        cases: rounds by case.
        measure_case: returns one case's figures.
    """
    for case, num_rounds in cases.items():
        if not scope.has(case.name):
            continue
        reason = place.lacks(case.rows)
        rounds = scope.rounds(num_rounds)
        found = {"skipped": reason} if reason else measure_case(Ready(case, place), rounds)
        yield case.name, found
