"""What the loading tests do to folders, and how they look at a refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from softprompts.backbones.loading import load_backbone
from softprompts.errors import BackboneError

Copy = Callable[[str], Path]


def edit_json(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; `None` removes a field."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a folder's weights."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def drop(prefix: str) -> Callable[[dict[str, torch.Tensor]], None]:
    """Return an edit that drops the tensors whose names start with `prefix`."""

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        names = [name for name in tensors if name.startswith(prefix)]
        assert names, prefix
        for name in names:
            del tensors[name]

    return edit


def assert_refused(text: str, name: Any, **options: Any) -> BackboneError:
    """Check that loading fails with one line that has `text`."""
    with pytest.raises(BackboneError, match=re.escape(text)) as caught:
        load_backbone(str(name), **options)
    assert "\n" not in str(caught.value)
    return caught.value
