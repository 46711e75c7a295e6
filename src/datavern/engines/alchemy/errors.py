"""Datavern's errors as a DB-API's, since that is what SQLAlchemy, and code written against it, asks for."""

from __future__ import annotations

from typing import Any

from datavern.contracts.errors import (
    ConstraintViolated,
    ProviderError,
    QueryRejected,
)

__all__ = ["as_dbapi"]


def as_dbapi(dbapi: Any, error: BaseException) -> BaseException:
    """What the DB-API `dbapi` raises for an error of ours: the same words, which quote no value.

    Args:
        dbapi: has the classes IntegrityError, ProgrammingError and OperationalError.
        error: a `ProviderError` becomes one of them, with its code as ``sqlstate`` and ``pgcode`` and its `retry`;
            anything else is itself.
    """
    if not isinstance(error, ProviderError):
        return error
    kind = dbapi.OperationalError
    if isinstance(error, ConstraintViolated):
        kind = dbapi.IntegrityError
    elif isinstance(error, QueryRejected):
        kind = dbapi.ProgrammingError
    made: BaseException = kind(str(error))
    made.__cause__ = error
    for name, value in (
        ("sqlstate", error.code),
        ("pgcode", error.code),
        ("constraint_name", error.constraint),
        ("retry", error.retry),
    ):
        setattr(made, name, value)
    return made
