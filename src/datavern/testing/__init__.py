"""Ephemeral real servers, synthetic people and the contract of providers, for the tests of whoever uses Datavern.

Loads what is asked for when it is asked for: the pytest plugin is imported by every run of pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datavern.testing.databases import EmptyDatabase, create_test_database

__all__ = ["EmptyDatabase", "create_test_database"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module("datavern.testing.databases"), name)
    return found


def __dir__() -> list[str]:
    return __all__
