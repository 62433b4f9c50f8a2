"""Every error of the library, in one tree.

```
SoftPromptsError
├── RecipeError          (ValueError)      a recipe breaks the schema; carries every problem found
├── UnknownNameError     (LookupError)     a name is in no registry; carries near names
├── RegistryError        (TypeError)       a name is taken, or a component does not load or fit
├── DataError            (ValueError)      a task file or row is wrong; carries file, line and field
├── BackboneError        (ValueError)      a backbone cannot do what is asked; carries the reason
├── PromptError          (ValueError)      a prompt does not fit its backbone
├── RunFolderError       (FileExistsError) a folder belongs to another run
│   └── FolderInUseError (FileExistsError) another process is using a folder
├── ExecutorError        (RuntimeError)    a study cannot be run where it is asked to
├── TuningError          (RuntimeError)    a run of a tuning failed, so that nothing is chosen
├── TrackingError        (ValueError)      a tracker cannot be used
├── ExtraError           (ImportError)     libraries of an extra are not installed
├── MemoryShortageError  (MemoryError)     memory does not hold what is asked
└── StorageError         (OSError)         a file could not be written or read
```

`SoftPromptsWarning` says what the user should know of work that goes on.

Each error is the user's to mend, so the command line prints one line and exits with 2; but a
`TuningError` tells of runs that failed and exits with 1, as a study does. Anything else is a
failure of the library and exits with 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class SoftPromptsError(Exception):
    """Base of every error that softprompts raises on purpose."""


class RecipeError(SoftPromptsError, ValueError):
    """A recipe breaks the schema.

    Attributes:
        problems: one sentence per problem, in recipe order.
    """

    def __init__(self, problems: Sequence[str], source: str = "recipe") -> None:
        self.problems = tuple(problems)
        self.source = source
        super().__init__(f"{source}: " + "; ".join(self.problems))


class UnknownNameError(SoftPromptsError, LookupError):
    """A name is in no registry."""


class RegistryError(SoftPromptsError, TypeError):
    """A component is registered twice, does not load, or has the wrong base class."""


class DataError(SoftPromptsError, ValueError):
    """A task file or one of its rows is wrong.

    Attributes:
        file: the file, when there is one.
        line: its line, counted from 1, when there is one.
        field: the field of the row, when there is one.
    """

    def __init__(
        self,
        reason: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        self.file, self.line, self.field = file, line, field
        place = "" if file is None else str(file)
        if line is not None:
            place += f":{line}"
        if field is not None:
            place += f"{', ' if place else ''}field `{field}`"
        super().__init__(f"{place}: {reason}" if place else reason)


class BackboneError(SoftPromptsError, ValueError):
    """A backbone cannot be loaded, or cannot do what is asked of it."""


class PromptError(SoftPromptsError, ValueError):
    """A prompt does not fit its backbone."""


class RunFolderError(SoftPromptsError, FileExistsError):
    """A folder belongs to another run, or another process is using it."""


class FolderInUseError(RunFolderError):
    """Another process is using a folder."""


class ExecutorError(SoftPromptsError, RuntimeError):
    """A study cannot be run where it is asked to."""


class TuningError(SoftPromptsError, RuntimeError):
    """A run of a tuning failed, so that nothing can be chosen yet."""


class TrackingError(SoftPromptsError, ValueError):
    """A tracker cannot be used."""


class ExtraError(SoftPromptsError, ImportError):
    """Libraries of an extra are not installed."""


class MemoryShortageError(SoftPromptsError, MemoryError):
    """Memory does not hold what is asked, however it is cut."""


class SoftPromptsWarning(UserWarning):
    """What the user should know, although the work goes on."""


class StorageError(SoftPromptsError, OSError):
    """A file could not be written or read."""
