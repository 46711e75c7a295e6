"""Transactions and causal sessions: PyMongo's own session, with an end that says what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pymongo
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from datavern.contracts.errors import CapabilityMissing, ConfigurationError, ConnectionFailed
from datavern.engines.mongodb.errors import DRIVER_ERRORS, scrubbed, translate

if TYPE_CHECKING:
    from types import TracebackType

    from pymongo.asynchronous.client_session import AsyncClientSession

    from datavern.engines.mongodb.provider import MongoDBProvider

__all__ = ["MongoDBTransaction", "Session", "Translated", "read_concern_for"]

_PATIENCE = 5.0  # seconds that undoing a transaction may take; the server undoes it by itself in a minute

_READ_CONCERNS = {"read committed": "majority", "repeatable read": "snapshot", "snapshot": "snapshot"}


def read_concern_for(isolation: str | None, provider: str) -> ReadConcern:
    """The read concern that gives what the isolation promises. MongoDB's transactions read from one snapshot.

    Raises:
        CapabilityMissing: serializable, which MongoDB does not have: two transactions may each read what the other
            changes.
        ConfigurationError: no such isolation.
    """
    if isolation is None:
        return ReadConcern("snapshot")
    if isolation == "serializable":
        raise CapabilityMissing(
            "serializable transactions", provider, "MongoDB's are snapshots: change a document that both must agree on"
        )
    if isolation not in _READ_CONCERNS:
        raise ConfigurationError(f"isolation: expected one of {', '.join(_READ_CONCERNS)}")
    return ReadConcern(_READ_CONCERNS[isolation])


class Session:
    """``async with provider.session() as session:`` PyMongo's session, in which a task sees its own writes."""

    __slots__ = ("_options", "_provider", "_session")

    def __init__(self, provider: MongoDBProvider, options: dict[str, Any]) -> None:
        self._provider = provider
        self._options = options
        self._session: AsyncClientSession | None = None

    async def __aenter__(self) -> AsyncClientSession:
        if self._session is not None:
            raise ConfigurationError("a session is entered once: make another")
        self._session = self._provider.client.start_session(**self._options)
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session = self._session
        if session is not None:
            with pymongo.timeout(_PATIENCE):
                await session.end_session()
        if isinstance(error, PyMongoError):
            _raise_translated(error, self._provider.name)


class MongoDBTransaction:
    """``async with provider.transaction() as session:`` commits at the end, undoes everything on an exception.

    What leaves the block is translated: PyMongo's errors become Datavern's, which say what may be run again and quote
    no value.
    """

    __slots__ = ("_isolation", "_provider", "_session", "written")

    def __init__(self, provider: MongoDBProvider, isolation: ReadConcern) -> None:
        self._provider = provider
        self._isolation = isolation
        self._session: AsyncClientSession | None = None
        self.written: list[Any] = []
        """What insert_document wrote under subjects' keys: looked at once more when the commit is done."""

    async def __aenter__(self) -> AsyncClientSession:
        if self._session is not None:
            raise ConfigurationError("a transaction is entered once: make another")
        provider = self._provider
        error: BaseException | None = None
        try:
            session = provider.client.start_session()
            concern = provider.client.write_concern
            options = concern.document if concern.acknowledged else {}
            await session.start_transaction(
                read_concern=self._isolation, write_concern=WriteConcern(**({"w": "majority"} | options))
            )
        except PyMongoError as caught:
            error = translate(caught, provider=provider.name)
        else:
            self._session = session
            provider.transactions_open[session] = self
            return session
        raise error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, provider = self._session, self._provider
        assert session is not None  # noqa: S101  (for the type checker: it was entered)
        failed: BaseException | None = None
        try:
            if error is None and session.in_transaction:
                try:
                    await session.commit_transaction()
                except PyMongoError as caught:
                    failed = translate(caught, provider=provider.name, wrote=True)
            elif error is not None and session.in_transaction:
                with pymongo.timeout(_PATIENCE):
                    await session.abort_transaction()
        finally:
            provider.transactions_open.pop(session, None)
            with pymongo.timeout(_PATIENCE):
                await session.end_session()
        if failed is not None:
            raise failed
        if error is None:
            for check in self.written:
                await check()
        elif isinstance(error, DRIVER_ERRORS):
            _raise_translated(error, provider.name)


class Translated:
    """``async with provider.translated():`` PyMongo's errors that leave the block come out as Datavern's."""

    __slots__ = ("_name", "_wrote")

    def __init__(self, name: str, *, wrote: bool) -> None:
        self._name = name
        self._wrote = wrote

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, DRIVER_ERRORS):
            _raise_translated(error, self._name, wrote=self._wrote)


def _raise_translated(error: BaseException, name: str, *, wrote: bool = True) -> None:
    ours = translate(error, provider=name, wrote=wrote)
    if ours is error:
        return
    try:
        raise ours
    finally:
        # Raised while the driver's error is being handled, it would carry that one, with its message, as its context.
        scrubbed(error, ours)


def not_connected(name: str) -> ConnectionFailed:
    """The error for a provider that is not open."""
    return ConnectionFailed(f"{name} is not open: use it inside `async with`", provider=name)
