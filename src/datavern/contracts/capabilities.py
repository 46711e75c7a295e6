"""What an engine can do: a frozen record of optional protocols.

A feature asks for the capability (`needs`), never for the engine, and never keeps one across operations: after a
failover it would speak to the old primary.

Every coroutine here may be cancelled. A cancelled call never swallows the cancellation, never leaks a connection and
never hands one on that still holds an unread answer. None is idempotent unless it says so, and none retries by itself
unless it says so: what may be retried is told by the error's ``retry``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, overload

from datavern.contracts.errors import CapabilityMissing
from datavern.contracts.sessions import Isolation, Session, Transaction, Transactions
from datavern.contracts.values import Health, Location, Row

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.engine import Dialect

    from datavern.contracts.ages import Ages
    from datavern.contracts.fused import Guarded
    from datavern.contracts.people import People
    from datavern.contracts.records import Records
    from datavern.contracts.roles import Roles
    from datavern.contracts.stores import Subjects
    from datavern.contracts.whereabouts import Whereabouts

__all__ = [
    "Capabilities",
    "Isolation",
    "Ledger",
    "PointRead",
    "PointReads",
    "Provider",
    "Replicas",
    "Samples",
    "Services",
    "Session",
    "Transaction",
    "Transactions",
    "needs",
]


class Samples(Protocol):
    """What lies in the stores, for whoever looks for personal data that nobody spoke of. Nothing is changed."""

    async def stores(self) -> list[str]:
        """Every table (collection, family of keys) with the application's data.

        Neither the engine's own nor Datavern's, and none twice: a partitioned table stands without its partitions.
        """
        ...

    async def sample(self, store: str, size: int) -> dict[str, list[Any]]:
        """Values of some rows, from all over the store, by column (of documents: by path).

        Values are as the driver gives them, without NULLs; long texts are cut, bytes left out. What is sealed is not
        opened. The same row may come twice; an empty store gives its columns, or nothing where it has none.

        Args:
            store: one of `stores`.
            size: how many rows, about.

        Raises:
            ProviderError: the store may not be read.
        """
        ...


class Ledger(Protocol):
    """What an engine must offer to hold Datavern's own tables, the audit log among them.

    Datavern's own tables use text, bytes and 64-bit integers only, and hold time as RFC 3339 text in UTC: the same on
    every engine.

    Attributes:
        dialect: SQLAlchemy's dialect with the driver's placeholders (``$1``, ``?``, ``@P1``), for `Statement`.
        stamp_type: SQL type of the commit-order stamp of an audit entry.
        stamp_default: SQL expression that stamps an entry as it is inserted; empty where the engine does it by itself.
        settled: SQL predicate over the column ``stamp``: true for entries that no open transaction can precede.
            Entries ordered by ``(era, stamp, id)`` and settled never get a neighbour before them.

    An engine that keeps a stamp as eight bytes, the highest first, and not as a number, says ``stamp_bytes = True``.
    One that can change at any time which number a column takes where an insert gives none says ``sets_defaults = True``
    and has ``await default_of(session, table, column)`` and ``await set_default(transaction, table, column, number,
    patience=seconds)``; the latter waits for whoever writes to the table, so long at most, and keeps writers out until
    its transaction ends. One whose tables are heaps, so that a primary key is an index that every insert pays for, says
    ``rows_are_heaped = True``. One that seeks in an index by several columns only when each is compared by itself says
    ``seeks_in_parts = True``.
    """

    @property
    def dialect(self) -> Dialect:
        """The dialect that statements compile for."""
        ...

    stamp_type: str
    stamp_default: str
    settled: str

    async def create_tables(self, metadata: sa.MetaData) -> list[str]:
        """Make the tables and indexes that are missing; what was run. Idempotent; safe in several processes at once."""
        ...

    async def lock(self, name: str, *, transaction: Transaction) -> bool:
        """Take the named lock until the transaction ends; False at once when another session holds it."""
        ...

    async def identity(self) -> str:
        """What tells this server's commit order from another's: it changes when the data is restored elsewhere."""
        ...


class PointRead(Protocol):
    """Reads one row by its key: ``row = await read(key)``. Made by `PointReads.coalesced`; needs no closing.

    Idempotent; a cancelled call leaves all others alone.
    """

    @property
    def keys(self) -> int:
        """Keys that were asked for so far."""
        ...

    @property
    def statements(self) -> int:
        """Statements that were sent for them: with `keys`, how much was gained."""
        ...

    async def __call__(self, key: Any, /) -> Row | None:
        """The row with that key, or None when there is none, or the key is None.

        It is what ``query_one("SELECT … WHERE key = …", [key])`` gives, errors included: a key that the engine cannot
        take is refused to its own caller, whatever others ask for at the same time. A row that was committed before
        the call began is seen. Where several rows have the key it is one of them, of the engine's choice, as it is
        there.

        Raises:
            ProviderError: see `Session`.
        """
        ...


class PointReads(Protocol):
    """Rows of a table by key, read by many tasks at once."""

    def coalesced(
        self, table: str, *, key: str, columns: Sequence[str] | None = None, batch_size: int = 100
    ) -> PointRead:
        """A read of single rows by key, in as few statements as the engine's nature makes worth while.

        Made once and called often: reads that are made together gather in what this returns. It reads outside of any
        transaction, and does not see what an open transaction of the same task has changed.

        Args:
            table: a table or view, ``schema.table`` or ``table``: a name, quoted by the engine.
            key: the column that is compared with the key; an indexed one, or it is slow in any case.
            columns: which to read, the key among them; all of them when None.
            batch_size: keys in one statement, at the most.

        Raises:
            ConfigurationError: a name is empty, or the key is not among the columns. No I/O happens here.
        """
        ...


class Replicas(Protocol):
    """How far the servers that hold the same data have come. Idempotent."""

    async def position(self) -> str | None:
        """How far this server has written, in the engine's own words; None where it is itself a replica."""
        ...

    async def behind(self, position: str) -> list[str]:
        """What has not replayed that position, one line each: this server, or those that it knows to follow it."""
        ...


class Services(Protocol):
    """What a manager gives its providers, so that an engine can offer calls that belong to the features above it."""

    @property
    def keys(self) -> Any:
        """The key store (`datavern.crypto.keystore.KeyStore`), open: for engines that seal values themselves."""
        ...

    async def note(self, provider: Provider, store: str, action: str, *, subject: object = None) -> None:
        """Write an audit entry of a change that is about to be made there, into the ledger's log."""
        ...

    async def close(self) -> None:
        """Drop the keys: a manager does it, or a provider that got these services for itself alone. Idempotent."""
        ...

    def mapped(self, provider: Provider) -> frozenset[str]:
        """The tables of that provider that hold personal data, as the data map names them."""
        ...

    async def store_personal_data(self, provider: Provider, data: Mapping[str, Any], consent: Any) -> Any:
        """Seal `data` and keep it in the provider's built-in ``personal_data`` table, with consent and audit."""
        ...


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do; None where it cannot, and `reasons` says why.

    `columns` changes what a column is while its table is used: `datavern.engines.columns`.
    """

    session: Session | None = None
    transactions: Transactions | None = None
    subjects: Subjects | None = None
    ledger: Ledger | None = None
    point_reads: PointReads | None = None
    guarded: Guarded | None = None
    roles: Roles | None = None
    samples: Samples | None = None
    replicas: Replicas | None = None
    records: Records | None = None
    people: People | None = None
    whereabouts: Whereabouts | None = None
    columns: Any = None
    ages: Ages | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)


class Provider(Protocol):
    """A database. The constructor does no I/O; ``async with`` opens and closes it.

    Attributes:
        name: unique within a manager.
        engine: "postgresql", "sqlite", …
        location: where its data is.
        region: the region identifier behind the location (``azure:norwayeast``), or None.
        compliance: the rule sets it was asked to follow.
        face: who callers know it as: itself, or the failover group that it is a member of. A transaction's `provider`
            is the face, so that a feature recognises its own database whichever member the transaction runs on.
    """

    name: str
    engine: str
    location: Location
    region: str | None
    compliance: frozenset[str]
    face: Provider

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    @property
    def encrypted(self) -> bool:
        """Whether the connection is encrypted and verified, or cannot leave this machine."""
        ...

    async def connect(self) -> None:
        """Open it. Idempotent. Raises `ConnectionFailed` or `ConfigurationError`."""
        ...

    async def close(self) -> None:
        """Close it and let go of everything. Idempotent; never hangs on a frozen socket."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def health(self) -> Health:
        """Ask the server how it is. Never raises for a server that does not answer: that is a `Health` too."""
        ...

    def attach(self, services: Services) -> None:
        """Called by the manager that the provider belongs to."""
        ...


@overload
def needs(provider: Provider, capability: Literal["session"]) -> Session: ...
@overload
def needs(provider: Provider, capability: Literal["transactions"]) -> Transactions: ...
@overload
def needs(provider: Provider, capability: Literal["subjects"]) -> Subjects: ...
@overload
def needs(provider: Provider, capability: Literal["ledger"]) -> Ledger: ...
@overload
def needs(provider: Provider, capability: Literal["point_reads"]) -> PointReads: ...
@overload
def needs(provider: Provider, capability: Literal["samples"]) -> Samples: ...
@overload
def needs(provider: Provider, capability: str) -> Any: ...
def needs(provider: Provider, capability: str) -> Any:
    """The provider's capability of that name, to be used now and not kept.

    Raises:
        CapabilityMissing: the engine lacks it; the message says why.
    """
    capabilities = provider.capabilities
    found = getattr(capabilities, capability, None)
    if found is None:
        reason = capabilities.reasons.get(capability, f"the engine {provider.engine} does not offer it")
        raise CapabilityMissing(capability, provider.name, reason)
    return found
