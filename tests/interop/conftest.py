"""A hub for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hub_server import Elsewhere, elsewhere


@pytest.fixture(scope="session")
def hub_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """A hub and a process that knows no other, started once; tests name their repositories."""
    with elsewhere(tmp_path_factory.mktemp("hub")) as found:
        yield found
