"""Three small English tasks that come with the library: no download, no licence question.

Every sentence is ours. See docs/tasks/bundled.md for how the rows were made.
"""

from softprompts.tasks.bundled.formats import FORMATS
from softprompts.tasks.bundled.loading import load_bundled

__all__ = ["FORMATS", "load_bundled"]
