"""What the faults of several files need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("lanes")

from kills import Killers  # noqa: E402  (what comes after is told in full when it does not hold)


@pytest.fixture(scope="session")
def killers() -> Iterator[Killers]:
    """Processes that fork those that are killed."""
    found = Killers()
    yield found
    found.close()
