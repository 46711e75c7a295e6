"""What the faults of several files need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kills import Killers


@pytest.fixture(scope="session")
def killers() -> Iterator[Killers]:
    """Processes that fork those that are killed."""
    found = Killers()
    yield found
    found.close()
