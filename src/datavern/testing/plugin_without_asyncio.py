"""The fixtures that need pytest-asyncio, where it is not: they say so, and what to do without it."""

from __future__ import annotations

import pytest

__all__ = ["datavern_manager", "datavern_provider"]


@pytest.fixture
def datavern_provider() -> None:
    """Says what is missing."""
    _missing("datavern_provider", "async with datavern_database.provider() as provider")


@pytest.fixture
def datavern_manager() -> None:
    """Says what is missing."""
    _missing("datavern_manager", "DatabaseManager({'main': datavern_database.provider()}, keyring=datavern_keyring)")


def _missing(fixture: str, instead: str) -> None:
    pytest.fail(f"{fixture} needs pytest-asyncio, which is not loaded. Without it: {instead}", pytrace=False)
