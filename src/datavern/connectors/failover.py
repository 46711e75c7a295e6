"""A primary and its secondaries, spoken to as one provider: the thin form.

What it does: a statement goes to the primary. When the primary cannot be reached, `query*` and `stream` run READ ONLY
on a secondary, and everything that writes is refused (`NoHealthyConnection`) until the primary is back. What it never
does: write to a secondary, or promote one. Following promotions, replicas that read and lag are not in it yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, TypeVar

from datavern.contracts.capabilities import Capabilities, Isolation, Provider, needs
from datavern.contracts.errors import ConfigurationError, ConnectionFailed, DatavernError, NoHealthyConnection
from datavern.contracts.values import Health, Location, Parameters, Row

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Services, Session
    from datavern.contracts.fused import Entry

__all__ = ["FailoverGroup"]

T = TypeVar("T")
_WIDTH = {Location.NORWAY: 0, Location.EU: 1, Location.GLOBAL: 2}

RECHECK = 1.0
"""Seconds after which a primary that could not be reached is tried again."""


class FailoverGroup:
    """A provider over providers.

    Args:
        name: the group's, unique within a manager.
        primary: takes every write.
        secondaries: hold the same data, kept so by the engine's own replication; tried in this order.

    Attributes:
        location: the widest of the members': data may be on any of them.

    Raises:
        ConfigurationError: no secondary, a member twice, or members of different engines.
    """

    def __init__(self, name: str, *, primary: Provider, secondaries: Sequence[Provider]) -> None:
        members = (primary, *secondaries)
        if len(members) < 2:  # noqa: PLR2004  (a primary and somebody to stand in)
            raise ConfigurationError(f"{name}: a failover group needs at least one secondary")
        if len({id(member) for member in members}) < len(members):
            raise ConfigurationError(f"{name}: a provider is in the failover group twice")
        if len({member.engine for member in members}) > 1:
            engines = ", ".join(sorted({member.engine for member in members}))
            raise ConfigurationError(f"{name}: the members of a failover group have one engine, not {engines}")
        self.name = name
        self.primary = primary
        self.secondaries = tuple(secondaries)
        self.engine = primary.engine
        self.region = primary.region
        self.location = max((member.location for member in members), key=_WIDTH.__getitem__)
        self.compliance: frozenset[str] = frozenset().union(*(member.compliance for member in members))
        self.face: Provider = self
        self._active = primary
        self._recheck = 0.0
        for member in members:
            member.face = self

    # ---- what it is -------------------------------------------------------------------------------------------------

    @property
    def members(self) -> tuple[Provider, ...]:
        """The primary, then the secondaries."""
        return (self.primary, *self.secondaries)

    @property
    def active_provider(self) -> Provider:
        """The member that the last statement went to."""
        return self._active

    @property
    def provider(self) -> Provider:
        """The group: it is a session of its own."""
        return self

    @property
    def encrypted(self) -> bool:
        """Whether every member's connection is encrypted and verified, or cannot leave this machine."""
        return all(member.encrypted for member in self.members)

    @property
    def capabilities(self) -> Capabilities:
        """The primary's. Personal data and Datavern's own tables are read and written there alone."""
        own = self.primary.capabilities
        return Capabilities(
            session=None if own.session is None else self,
            transactions=None if own.transactions is None else self,
            subjects=own.subjects,
            ledger=own.ledger,
            guarded=own.guarded,
            reasons=own.reasons,
        )

    def __getattr__(self, name: str) -> Any:
        """An engine's own calls go to the primary."""
        if name.startswith("_") or "primary" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.primary, name)

    # ---- opening and closing ----------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open every member that can be reached; one is enough.

        Raises:
            ConnectionFailed: none can be; the primary's reason.
            ConfigurationError: a member's settings are wrong.
        """
        results = await asyncio.gather(*(member.connect() for member in self.members), return_exceptions=True)
        failures = [r for r in results if isinstance(r, BaseException)]
        fatal = next((f for f in failures if not isinstance(f, ConnectionFailed)), None)
        if fatal is not None or len(failures) == len(results):
            await self.close()
            raise fatal or failures[0]
        if isinstance(results[0], BaseException):
            self._stand_in()

    async def close(self) -> None:
        """Close every member."""
        results = await asyncio.gather(*(member.close() for member in self.members), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def attach(self, services: Services) -> None:
        """Called by the manager that the group belongs to."""
        for member in self.members:
            member.attach(services)

    async def health(self) -> Health:
        """The members' health as one: "degraded" while a member is not healthy, "unhealthy" when none is."""
        found = await asyncio.gather(*(member.health() for member in self.members))
        states = {m.name: h.status for m, h in zip(self.members, found, strict=True)}
        serving = next((h for h in found if h.status != "unhealthy"), found[0])
        status = "healthy" if set(states.values()) == {"healthy"} else serving.status
        if status == "healthy" and set(states.values()) != {"healthy"}:
            status = "degraded"
        problems = "; ".join(
            f"{m.name}: {h.detail or h.status}"
            for m, h in zip(self.members, found, strict=True)
            if h.status != "healthy"
        )
        role = serving.role if serving is found[0] else "secondary"
        return Health(status, role, serving.latency, serving.version, problems, serving.pool, {"members": states})

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def query(self, sql: str, parameters: Parameters = ()) -> Sequence[Row]:
        """All rows; READ ONLY on a secondary while the primary cannot be reached."""
        if await self._primary_serves():
            try:
                return await needs(self.primary, "session").query(sql, parameters)
            except ConnectionFailed as error:
                self._gone(error)
        return await self._read(lambda tx: tx.query(sql, parameters))

    async def query_one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """The first row, or None; as `query`."""
        if await self._primary_serves():
            try:
                return await needs(self.primary, "session").query_one(sql, parameters)
            except ConnectionFailed as error:
                self._gone(error)
        return await self._read(lambda tx: tx.query_one(sql, parameters))

    async def query_value(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first column of the first row, or None; as `query`."""
        row: Any = await self.query_one(sql, parameters)
        return None if row is None else row[0]

    def stream(self, sql: str, parameters: Parameters = (), *, batch_size: int = 1000) -> _Stream:
        """Rows in constant memory; as `query`. A stream that has begun ends with the member that it began on."""
        return _Stream(self, sql, parameters, batch_size)

    async def _read(self, work: Callable[[Session], Awaitable[T]]) -> T:
        failure: DatavernError | None = None
        for member in self.secondaries:
            try:
                async with needs(member, "transactions").transaction(read_only=True) as tx:
                    result = await work(tx)
            except ConnectionFailed as error:
                failure = error
            else:
                self._active = member
                return result
        raise NoHealthyConnection(
            f"{self.name}: neither the primary nor a secondary can be reached", provider=self.name
        ) from failure

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def execute(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        audit: Entry | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """Run a statement on the primary; how many rows it changed. See `datavern.contracts.capabilities.Session`."""
        session = needs(await self._writable(), "session")
        return await session.execute(sql, parameters, audit=audit, idempotency_key=idempotency_key)

    async def execute_many(self, sql: str, parameters: Sequence[Parameters]) -> int:
        """Run a statement on the primary once for each set of parameters, all or none; how many sets were run."""
        return await needs(await self._writable(), "session").execute_many(sql, parameters)

    def transaction(self, *, isolation: Isolation | None = None, read_only: bool = False, **more: Any) -> _Transaction:
        """Begin a transaction on the primary; a read-only one on a secondary while the primary cannot be reached."""
        return _Transaction(self, {"isolation": isolation, "read_only": read_only, **more})

    async def run_in_transaction(self, work: Callable[[Any], Awaitable[T]], **settings: Any) -> T:
        """Run ``work(tx)`` on the primary, again from the start while an error says that it may be."""
        return await needs(await self._writable(), "transactions").run_in_transaction(work, **settings)

    async def _writable(self) -> Provider:
        if not await self._primary_serves():
            raise NoHealthyConnection(
                f"{self.name}: the primary {self.primary.name} cannot be reached, and a secondary takes no writes",
                provider=self.name,
            )
        return self.primary

    # ---- who serves -------------------------------------------------------------------------------------------------

    async def _primary_serves(self) -> bool:
        """Whether the primary is to be tried: it served last time, or it is time to look, and it is there again."""
        if self._active is self.primary:
            return True
        if monotonic() < self._recheck:
            return False
        self._recheck = monotonic() + RECHECK  # one caller looks, the others do not wait for it
        try:
            await self.primary.connect()
        except DatavernError:
            return False
        health = await self.primary.health()
        if health.status == "unhealthy" or health.role != "primary":
            return False
        self._active = self.primary
        return True

    def _gone(self, failure: ConnectionFailed) -> None:
        """The primary could not take a read.

        Raises the failure again where it is the configuration's and not the server's (a wrong password).
        """
        if failure.retry != "safe":
            raise failure
        self._stand_in()

    def _stand_in(self) -> None:
        self._active = self.secondaries[0]
        self._recheck = monotonic() + RECHECK


class _Transaction:
    """A transaction on whichever member may take it."""

    __slots__ = ("_group", "_inner", "_settings")

    def __init__(self, group: FailoverGroup, settings: dict[str, Any]) -> None:
        self._group = group
        self._settings = settings
        self._inner: AbstractAsyncContextManager[Any]

    async def __aenter__(self) -> Any:
        group = self._group
        if not self._settings["read_only"]:
            primary = await group._writable()  # noqa: SLF001  (a part of the group)
            self._inner = needs(primary, "transactions").transaction(**self._settings)
            return await self._inner.__aenter__()
        members = group.members if await group._primary_serves() else group.secondaries  # noqa: SLF001
        failure: ConnectionFailed | None = None
        for member in members:
            self._inner = needs(member, "transactions").transaction(**self._settings)
            try:
                tx = await self._inner.__aenter__()
            except ConnectionFailed as error:
                failure = error
                continue
            group._active = member  # noqa: SLF001
            return tx
        raise NoHealthyConnection(
            f"{group.name}: neither the primary nor a secondary can be reached", provider=group.name
        ) from failure

    async def __aexit__(self, *exc: object) -> Any:
        return await self._inner.__aexit__(*exc)  # type: ignore[arg-type]  # what the block was left with


class _Stream:
    """A stream on whichever member serves when it begins."""

    __slots__ = ("_arguments", "_group", "_inner", "_transaction")

    def __init__(self, group: FailoverGroup, sql: str, parameters: Parameters, batch_size: int) -> None:
        self._group = group
        self._arguments = (sql, parameters, batch_size)
        self._inner: AbstractAsyncContextManager[AsyncIterator[Row]]
        self._transaction: _Transaction | None = None

    async def __aenter__(self) -> AsyncIterator[Row]:
        group = self._group
        sql, parameters, size = self._arguments
        if await group._primary_serves():  # noqa: SLF001  (a part of the group)
            self._inner = needs(group.primary, "session").stream(sql, parameters, batch_size=size)
            try:
                return await self._inner.__aenter__()
            except ConnectionFailed as error:
                group._gone(error)  # noqa: SLF001
        self._transaction = _Transaction(group, {"isolation": None, "read_only": True})
        tx = await self._transaction.__aenter__()
        self._inner = tx.stream(sql, parameters, batch_size=size)
        try:
            return await self._inner.__aenter__()
        except BaseException as error:
            await self._transaction.__aexit__(type(error), error, error.__traceback__)
            raise

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self._inner.__aexit__(*exc)  # type: ignore[arg-type]  # what the block was left with
        finally:
            if self._transaction is not None:
                await self._transaction.__aexit__(*exc)
