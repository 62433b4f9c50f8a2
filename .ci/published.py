"""What a package says of the project where its files are not beside it.

With `SOFTPROMPTS_HOME=https://…/blob/main` in the environment of the build, links of the README
lead there, and the project has its addresses; without it, links become plain text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)")


class Published(MetadataHookInterface):
    """Sets the README and the addresses of the project."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Change the metadata in place."""
        home = os.environ.get("SOFTPROMPTS_HOME", "").rstrip("/")
        text = Path(self.root, "README.md").read_text("utf-8")
        text = LINK.sub(rf"[\1]({home}/\2)" if home else r"\1", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        if home:
            pages = {"Documentation": "docs/index.md", "Changes": "CHANGELOG.md"}
            metadata["urls"] = {name: f"{home}/{page}" for name, page in pages.items()}
