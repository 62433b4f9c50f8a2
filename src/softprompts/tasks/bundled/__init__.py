"""Three small English tasks that come with the library: no download, no licence question.

Every sentence is ours. A task is a hand-written grammar (`*.yaml`), expanded the same way on every
machine. Train and validation fill the frames with different words.
"""

from softprompts.tasks.bundled.formats import FORMATS
from softprompts.tasks.bundled.loading import load_bundled

__all__ = ["FORMATS", "load_bundled"]
