"""The report of a study: one page that opens without a network, and its tables as files.

It is made from what lies in the study's folder, however much that is, and trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from softprompts.errors import RunFolderError, StorageError
from softprompts.lab.reports.advice import advice
from softprompts.lab.reports.choices_page import choice_section
from softprompts.lab.reports.ensemble_section import ensemble_section
from softprompts.lab.reports.findings import findings, state_of
from softprompts.lab.reports.landscape_page import landscape_section
from softprompts.lab.reports.pages import Head, Part, Section, page
from softprompts.lab.reports.recipe_section import recipe_section
from softprompts.lab.reports.robustness_section import robustness_section
from softprompts.lab.reports.run_sections import (
    cost_section,
    curve_section,
    example_section,
    run_section,
    tuning_section,
    written_section,
)
from softprompts.lab.reports.score_sections import comparison_section, score_picture, score_section
from softprompts.lab.reports.study_record import StudyRecord, read_study
from softprompts.lab.reports.tabular import to_csv, to_latex
from softprompts.locks import lock
from softprompts.storage import (
    is_file,
    is_there,
    make_folder,
    open_file,
    read_record,
    remove_parts,
    reporting,
    write_bytes,
    write_json,
)

_SECTIONS: Final[tuple[Callable[[StudyRecord], Section | None], ...]] = (
    score_section,
    comparison_section,
    ensemble_section,
    tuning_section,
    robustness_section,
    curve_section,
    choice_section,
    example_section,
    written_section,
    landscape_section,
    cost_section,
    run_section,
    recipe_section,
)
"""The sections in their order; those that have nothing to show are `None`."""

_SCORED = ("variant", "task", "point", "seeds", "mean", "std", "interval", "majority")
_ROWS = """\
A line of rows.jsonl is a row as in the task's own files; its label may be left out. The run is
that of the first task and seed; `softprompts ensemble` lets all seeds answer."""


def write_report(study: Path, html: Path | None = None) -> dict[str, Any]:
    """Write the report of a study as it is now.

    Args:
        study: the study's folder.
        html: the page; `report.html` in the study's folder if absent.

    Returns:
        What JSON can hold: `study`, `folder`, `html`, `tables` (the files), `sections`, `state`,
        `num_runs`, `num_finished`, `advice`, `compared`, `found`, `certainty`, and `scores`.

    Raises:
        SoftPromptsError: if the folder is no study's, or something cannot be read or written.
    """
    record = read_study(study)
    path = html or study / "report.html"
    sections = [one for section_of in _SECTIONS if (one := section_of(record)) is not None]
    said = findings(record)
    answers = (
        ("Compared", said["compared"]),
        ("Found", said["found"] or ["Nothing yet: no run has a score."]),
        ("How sure", said["certainty"]),
    )
    lead, state = record.study.description or "", state_of(record)
    head = Head("softprompts study", record.name, state, lead, answer(record), answers)
    drawn = page(f"{record.name}: report", head, sections)
    folder, files = tables_folder(study, html), {}
    for part in (part for section in sections for part in section.parts):
        if part.kind in ("table", "folded-table") and part.content.rows:
            files[f"{part.content.name}.csv"] = to_csv(part.content)
            files[f"{part.content.name}.tex"] = to_latex(part.content)
    _check_tables(folder, files)
    make_folder(folder, is_inner=html is None)
    with lock((study if html is None else folder) / ".lock", should_wait=True):
        _write_tables(folder, files)
        write_bytes(path, drawn.encode())
    return {
        "study": record.name,
        "folder": str(study),
        "html": str(path),
        "tables": [str(folder / name) for name in files],
        "sections": [section.name for section in sections],
        "state": state,
        "num_runs": record.num_runs,
        "num_finished": record.num_finished,
        "advice": _advised(record),
        **said,
        "scores": [
            {**{key: entry.line[key] for key in _SCORED}, "num_seeds": len(entry.cells)}
            for entry in record.whole_entries
        ],
    }


def answer(record: StudyRecord) -> list[Part]:
    """Return what to take and how sure that is, every seed, and the commands that use it."""
    picture, advised = score_picture(record), _advised(record)
    if not advised:
        return picture
    what, _, sure = advised[0].partition("; ")
    parts = [Part("advice", f"{what[:1].upper()}{what[1:]}.")]
    parts += [Part("text", f"{sure[:1].upper()}{sure[1:]}.")] * bool(sure)
    uses = (Part("commands", advised[1:]), Part("note", _ROWS)) if advised[1:] else ()
    return [*parts, *picture, *uses]


def _advised(record: StudyRecord) -> list[str]:
    return advice(record.summary, [cell for _, cell in record.runs], record.path)


def tables_folder(study: Path, html: Path | None) -> Path:
    """Return where the tables of a report go: to the study, or beside a page of another place."""
    return study / "tables" if html is None else html.with_name(f"{html.stem}-tables")


LIST: Final = ".report.json"
"""The list's name, in the folder of the tables."""


def _check_tables(folder: Path, tables: Mapping[str, str]) -> None:
    """Check that tables may be written to a folder: they replace nothing but earlier tables."""
    listed = _listed(folder)
    for name, text in tables.items():
        path = folder / name
        if name not in listed and is_there(path) and not _begins(path, text):
            raise RunFolderError(
                f"{path} must be new or a table of an earlier report, but is another file. "
                "Move it, or write the page elsewhere."
            )


def _write_tables(folder: Path, tables: Mapping[str, str]) -> None:
    """Write tables to a locked folder that `_check_tables` has nothing against; others go."""
    names = sorted({*_listed(folder), *tables})
    remove_parts(folder, [LIST, *names])
    write_json(folder / LIST, {"tables": names})
    for name, text in tables.items():
        write_bytes(folder / name, text.encode())
    gone = [name for name in names if name not in tables and name == Path(name).name]
    for name in gone:  # such as the runs that had failed, once all are there
        (folder / name).unlink(missing_ok=True)
    if gone:
        write_json(folder / LIST, {"tables": sorted(tables)})


def _listed(folder: Path) -> list[str]:
    """Return the names of the tables that reports wrote in a folder."""
    if not is_there(folder / LIST):
        return []
    names = read_record(folder / LIST, ["tables"])["tables"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise StorageError(f"{folder / LIST} must list the names of `tables`, but does not.")
    return names


def _begins(path: Path, text: str) -> bool:
    """Return whether a file has a table's first line: reports once kept no list."""
    if not is_file(path):
        return False
    first = text.partition("\n")[0].encode() + b"\n"
    with reporting(path, "read"), open_file(path) as file:
        return file.read(len(first)) == first
