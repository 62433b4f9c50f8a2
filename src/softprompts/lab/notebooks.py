"""A study and landscapes as notebooks show them."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from softprompts.training.progress import progress_bar


@final
class Study(UserDict[str, Any]):
    """A study: the content of its `summary.json`."""

    def __init__(self, content: Mapping[str, Any], folder: Path) -> None:
        super().__init__(content)
        self.folder = folder

    def __repr__(self) -> str:
        done = f"{self['num_finished']} of {self['num_runs']} runs"
        return f"Study({self['name']!r}, {done}, {str(self.folder)!r})"

    def _repr_html_(self) -> str:
        """Return the first screen of its report."""
        from softprompts.lab.reports.pages import fragment
        from softprompts.lab.reports.report import answer
        from softprompts.lab.reports.study_record import read_study

        record = read_study(self.folder)
        return fragment(record.name, answer(record))


@final
class Landscape(UserDict[str, Any]):
    """The loss around trained runs, as `measure_landscapes` returns it."""

    def __repr__(self) -> str:
        from softprompts.lab.reports.landscapes import names_of, spaces_of

        return f"Landscape({'; '.join(names_of(self['runs']))}: {', '.join(spaces_of(self))})"

    def _repr_html_(self) -> str:
        """Return its planes and lines."""
        from softprompts.lab.reports.landscape_page import shown_parts
        from softprompts.lab.reports.landscapes import title_of
        from softprompts.lab.reports.pages import fragment

        return fragment(title_of(self), shown_parts(self, "", are_surfaces=False))

    def _repr_png_(self) -> bytes:
        """Return the same as a picture."""
        from softprompts.lab.reports.landscape_figures import draw_landscapes

        return draw_landscapes(self, "png")


def landscape(
    *runs: str | Path, num_examples: int = 32, split: str = "train", num_points: int = 5
) -> Landscape:
    """Look at the loss around finished runs, on the same axes.

    Args:
        runs: the runs' folders.
        num_examples: most rows that the loss is taken on.
        split: `train`, `held-out` or `validation`.
        num_points: points along each side of a plane, odd.

    Raises:
        SoftPromptsError: if a run cannot be read, or a value makes no sense.
    """
    from softprompts.lab.analysis.landscapes import measure_landscapes
    from softprompts.lab.analysis.planes import Grid
    from softprompts.lab.analysis.subjects import Sample

    bars: dict[str, Any] = {}

    def tell(text: str, done: int, total: int) -> None:
        if text not in bars:
            bars[text] = progress_bar("point", total, text=text)
        bars[text].update(done - bars[text].n)
        if done == total:
            bars[text].close()

    sample, grid = Sample(split, num_examples), Grid(num_points=num_points)
    return Landscape(measure_landscapes([Path(run) for run in runs], sample, grid, tell))
