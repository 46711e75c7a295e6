"""Ephemeral real servers and synthetic people, for the tests of Datavern and of those who use it."""

from __future__ import annotations

from datavern.testing.databases import EmptyDatabase, create_test_database

__all__ = ["EmptyDatabase", "create_test_database"]
