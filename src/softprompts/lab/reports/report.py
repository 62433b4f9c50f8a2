"""The report of a study: one page that opens without a network, and its tables as files.

It is made from what lies in the study's folder, however much that is, and trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from softprompts.lab.reports.choices_page import choice_section
from softprompts.lab.reports.ensemble_section import ensemble_section
from softprompts.lab.reports.findings import findings, state_of
from softprompts.lab.reports.landscape_page import landscape_section
from softprompts.lab.reports.pages import Head, Section, page
from softprompts.lab.reports.recipe_section import recipe_section
from softprompts.lab.reports.robustness_section import robustness_section
from softprompts.lab.reports.run_sections import (
    cost_section,
    curve_section,
    example_section,
    run_section,
    tuning_section,
)
from softprompts.lab.reports.score_sections import comparison_section, score_section
from softprompts.lab.reports.study_record import StudyRecord, read_study
from softprompts.lab.reports.table_files import check_tables, write_tables
from softprompts.lab.reports.tabular import to_csv, to_latex
from softprompts.locks import lock
from softprompts.storage import make_folder, write_bytes


def write_report(study: Path, html: Path | None = None) -> dict[str, Any]:
    """Write the report of a study as it is now.

    Args:
        study: the study's folder.
        html: the page; `report.html` in the study's folder if absent.

    Returns:
        What JSON can hold: `study`, `folder`, `html`, `tables` (the files), `sections`, `state`,
        `num_runs`, `num_finished`, `compared`, `found`, `certainty`, and `scores`.

    Raises:
        SoftPromptsError: if the folder is no study's, or something cannot be read or written.
    """
    record = read_study(study)
    path = html or study / "report.html"
    sections, program = _sections_of(record)
    said, is_done = findings(record), record.num_finished == record.num_runs
    answers = (
        ("Compared", said.compared),
        ("Found", said.found or ("Nothing yet: no run has a score.",)),
        ("How sure", said.certainty),
    )
    lead = record.study.description or ""
    head = Head("softprompts study", record.name, state_of(record), is_done, lead, answers)
    drawn = page(f"{record.name}: report", head, sections, program)
    folder, files = tables_folder(study, html), {}
    for table in (table for section in sections for table in section.tables):
        files[f"{table.name}.csv"] = to_csv(table)
        files[f"{table.name}.tex"] = to_latex(table)
    check_tables(folder, files)
    make_folder(folder)
    with lock((study if html is None else folder) / ".lock", should_wait=True):
        write_tables(folder, files)
        write_bytes(path, drawn.encode())
    return {
        "study": record.name,
        "folder": str(study),
        "html": str(path),
        "tables": [str(folder / name) for name in files],
        "sections": [section.name for section in sections],
        "state": state_of(record),
        "num_runs": record.num_runs,
        "num_finished": record.num_finished,
        **{key: list(texts) for key, texts in asdict(said).items()},
        "scores": [_score(entry.line, entry.num_seeds) for entry in record.whole_entries],
    }


def tables_folder(study: Path, html: Path | None) -> Path:
    """Return where the tables of a report are written: beside the page.

    Args:
        study: the study's folder.
        html: the page, if it has a place of its own; then the folder has the page's name.
    """
    return study / "tables" if html is None else html.with_name(f"{html.stem}-tables")


def _sections_of(record: StudyRecord) -> tuple[tuple[Section, ...], str]:
    """Return the sections of a report; those that have nothing to show are left out."""
    landscapes, program = landscape_section(record)
    found = (
        score_section(record),
        comparison_section(record),
        ensemble_section(record),
        tuning_section(record),
        robustness_section(record),
        curve_section(record),
        choice_section(record),
        example_section(record),
        landscapes,
        cost_section(record),
        run_section(record),
        recipe_section(record),
    )
    return tuple(section for section in found if section is not None), program


def _score(line: Mapping[str, Any], num_seeds: int) -> dict[str, Any]:
    kept = ("variant", "task", "point", "seeds", "mean", "std", "interval", "majority")
    return {**{key: line[key] for key in kept}, "num_seeds": num_seeds}
