"""A subject's keys, by the pattern that the data map gives them: ``user:session:{subject}``.

Nobody else's keys are ever reached. What stands for the subject is escaped in the glob that SCAN gets, and each key
that comes back is compared once more, byte by byte. A pattern that could not tell one person from another is refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from datavern.contracts.errors import CapabilityMissing, ConfigurationError, KeyErased
from datavern.contracts.stores import Column, Shape, Store
from datavern.contracts.subjects import canonical_subject
from datavern.engines.redis.audited import features
from datavern.engines.redis.patterns import KeyPattern
from datavern.engines.redis.values import name_of, shown
from datavern.engines.redis.wire import pack

if TYPE_CHECKING:
    from datavern.engines.redis.provider import RedisProvider

__all__ = ["KeyPattern", "RedisSubjects"]

_Values = Literal["all", "there", "names"]
"""Rows with their values; without, of keys that are there; or names alone, of keys that may be there."""

_COLUMNS = ("key", "subject", "value", "ttl")
_BATCH = 500
_WHOLE: Mapping[str, tuple[str | int, ...]] = {
    "hash": ("HGETALL",),
    "list": ("LRANGE", 0, -1),
    "set": ("SMEMBERS",),
    "zset": ("ZRANGE", 0, -1, "WITHSCORES"),
}


class RedisSubjects:
    """Keys as rows of four columns: ``key``, ``subject``, ``value`` (opened) and ``ttl``.

    A store is a key pattern; see `datavern.contracts.stores.Subjects`. There are no transactions, so
    `transaction` stays None, and several keys are changed one by one.
    """

    def __init__(self, provider: RedisProvider) -> None:
        self._provider = provider

    async def describe(self, store: str, *, transaction: Any = None) -> Store | None:
        """The pattern as a store: there are no schemas, so it is always there."""
        self._alone(transaction)
        KeyPattern.parse(store)
        columns = (
            Column("key", "key", nullable=False, primary_key=1, default=True),
            Column("subject", "text", nullable=False),
            Column("value", "value", nullable=False),
            Column("ttl", "seconds", default=True),
        )
        return Store(store, columns, unique=(frozenset({"key"}),), indexed=frozenset({"key", "subject"}))

    async def prepare(self, shape: Shape) -> list[str]:
        """Nothing is to be made; what the pattern cannot hold is refused."""
        KeyPattern.parse(shape.store)
        unknown = sorted({c.name for c in shape.columns} - set(_COLUMNS))
        if unknown:
            raise ConfigurationError(
                f"{self._provider.name}: {shape.store}: a store of keys has the columns {', '.join(_COLUMNS)}, and not "
                f"{unknown[0]}"
            )
        return []

    async def insert(self, store: str, rows: Sequence[Mapping[str, Any]], *, transaction: Any = None) -> None:
        """Set the key of each row's subject (``subject``, ``value``, perhaps ``ttl`` in seconds), sent together."""
        self._alone(transaction)
        pattern = KeyPattern.parse(store)
        pipe = self._provider.pipeline()
        for row in rows:
            self._known(row, {"subject", "value", "ttl", "key"})
            subject = canonical_subject(row["subject"])
            key = name_of(row["key"]) if "key" in row else pattern.key(subject) if pattern.exact else None
            if key is None or pattern.matcher(subject).fullmatch(key) is None:
                raise ConfigurationError(f"{store}: the row's key does not fit the pattern for its subject")
            pipe.set(key, row["value"], ex=row.get("ttl"), subject=subject if self._provider.sealing else None)
        with features():
            await pipe.execute()

    async def select(
        self,
        store: str,
        where: Mapping[str, Any],
        *,
        columns: Sequence[str] | None = None,
        order_by: Sequence[str] = (),
        limit: int | None = None,
        lock: bool = False,
        transaction: Any = None,
    ) -> list[dict[str, Any]]:
        """The keys that match, with their values."""
        self._alone(transaction)
        if lock:
            raise CapabilityMissing("locks", self._provider.name, "Redis has no locks on keys")
        self._known(dict.fromkeys((*(columns or ()), *order_by)), set(_COLUMNS))
        rows: list[dict[str, Any]] = []
        wanted = set(_COLUMNS if columns is None else (*columns, *order_by))
        async for row in self._rows(store, where, values="all" if wanted & {"value", "ttl"} else "there"):
            rows.append(row)
            if not order_by and limit is not None and len(rows) >= limit:
                break
        for column in reversed(order_by):
            rows.sort(key=lambda row: (str(type(row[column])), row[column]))
        return [row if columns is None else {c: row[c] for c in columns} for row in rows[:limit]]

    def stream(
        self, store: str, where: Mapping[str, Any], *, batch_size: int = 1000, transaction: Any = None
    ) -> _Stream:
        """The same in constant memory, as far as values go: names of keys are kept, so that none comes twice."""
        self._alone(transaction)
        return _Stream(self._rows(store, where, batch_size=batch_size))

    async def update(
        self, store: str, where: Mapping[str, Any], changes: Mapping[str, Any], *, transaction: Any = None
    ) -> int:
        """Give the keys that match another ``value``; they keep the time that they have left."""
        self._alone(transaction)
        self._known(changes, {"value"})
        self._bounded(where)
        count = 0
        provider = self._provider
        async for row in self._rows(store, where, values="names"):
            key = name_of(row["key"])
            left = await provider._router.call(pack((b"PTTL", key)), key, True)  # noqa: SLF001  (a part of it)
            if left == -2:  # noqa: PLR2004  (PTTL: it is gone)
                continue
            subject = row["subject"] if provider.sealing else None
            ex = None if left == -1 else left / 1000
            with features():
                count += await provider.set(key, changes["value"], ex=ex, xx=True, subject=subject)
        return count

    async def delete(self, store: str, where: Mapping[str, Any], *, transaction: Any = None) -> int:
        """Delete the keys that match; how many. Idempotent."""
        self._alone(transaction)
        self._bounded(where)
        count = 0
        batch: list[str | bytes] = []
        async for row in self._rows(store, where, values="names"):
            batch.append(row["key"])
            if len(batch) >= _BATCH:
                with features():
                    count += await self._provider.delete(*batch)
                batch.clear()
        with features():
            return count + await self._provider.delete(*batch)

    # ---- how --------------------------------------------------------------------------------------------------------

    async def _rows(
        self, store: str, where: Mapping[str, Any], *, values: _Values = "all", batch_size: int = _BATCH
    ) -> AsyncIterator[dict[str, Any]]:
        self._known(where, {"key", "subject"})
        pattern = KeyPattern.parse(store)
        keys: set[bytes] | None = None
        if "key" in where:
            keys = {name_of(key) for key in _any_of(where["key"])}
        if "subject" in where:
            asked = _any_of(where["subject"])  # text as it is: keys may know people by a number that is no id
            for value in dict.fromkeys(s if type(s) is str else canonical_subject(s) for s in asked):
                async for row in self._of_subject(pattern, value, keys, values=values):
                    yield row
            return
        _, expression = pattern.everybody()
        if keys is not None:
            found = [(key, m) for key in keys if (m := expression.fullmatch(key))]
            async for row in self._read([(k, _text(m[1])) for k, m in found], values=values):
                yield row
            return
        async for row in self._of_everybody(pattern, values=values, batch_size=batch_size):
            yield row

    async def _of_subject(
        self, pattern: KeyPattern, subject: str, keys: set[bytes] | None, *, values: _Values
    ) -> AsyncIterator[dict[str, Any]]:
        if pattern.exact:
            key = pattern.key(subject)
            if keys is None or key in keys:
                async for row in self._read([(key, subject)], values=values):
                    yield row
            return
        matcher = pattern.matcher(subject)
        async for batch in self._scan(pattern.glob(subject), _BATCH):
            mine = [(key, subject) for key in batch if matcher.fullmatch(key) and (keys is None or key in keys)]
            async for row in self._read(mine, values=values):
                yield row

    async def _of_everybody(
        self, pattern: KeyPattern, *, values: _Values, batch_size: int
    ) -> AsyncIterator[dict[str, Any]]:
        glob, expression = pattern.everybody()
        async for batch in self._scan(glob, batch_size):
            found = [(key, _text(m[1])) for key in batch if (m := expression.fullmatch(key))]
            async for row in self._read(found, values=values):
                yield row

    async def _scan(self, glob: bytes, count: int) -> AsyncIterator[list[bytes]]:
        seen: set[bytes] = set()
        async for batch in self._provider._router.scan(glob, count):  # noqa: SLF001  (a part of it)
            new = [key for key in dict.fromkeys(batch) if key not in seen]
            seen.update(new)
            yield new

    async def _read(self, keys: list[tuple[bytes, str]], *, values: _Values) -> AsyncIterator[dict[str, Any]]:
        """The rows of these keys; of those that are still there."""
        if not keys:
            return
        pipe = self._provider.pipeline()
        if values != "all":
            for key, _ in keys:
                pipe.exists(key)
            with features():
                there = await pipe.execute() if values == "there" else [1] * len(keys)
            for (key, subject), found in zip(keys, there, strict=True):
                if found:
                    yield {"key": shown(key), "subject": subject}
            return
        for key, _ in keys:
            pipe.get(key).ttl(key)
        with features():
            replies = await pipe.execute(raise_on_error=False)
        for (key, subject), reply, ttl in zip(keys, replies[::2], replies[1::2], strict=True):
            value = await self._other(key, reply) if isinstance(reply, BaseException) else reply
            if isinstance(ttl, BaseException):
                raise ttl
            if value is not None or isinstance(reply, KeyErased):
                yield {"key": shown(key), "subject": subject, "value": value, "ttl": None if ttl < 0 else ttl}

    async def _other(self, key: bytes, error: BaseException) -> Any:
        """What a key holds that is no value: a hash, a list, a set, a stream; None where nobody can open it again.

        Raises:
            ProviderError, DecryptionFailed: the error itself, where it says something else.
        """
        if isinstance(error, KeyErased):
            return None
        if getattr(error, "code", None) != "WRONGTYPE":
            raise error
        with features():
            return await self._whole(key, error)

    async def _whole(self, key: bytes, error: BaseException) -> Any:
        provider = self._provider
        kind = bytes(await provider.execute("TYPE", key, read=True)).decode()
        if kind == "stream":
            return [{"id": entry.id, **entry.fields} for entry in await provider.xrange(shown(key))]
        command = _WHOLE.get(kind)
        if command is None:
            raise error
        found = await provider.execute(command[0], key, *command[1:], read=True)
        return _pairs(found) if kind in {"hash", "zset"} else [shown(bytes(one)) for one in found]

    def _alone(self, transaction: Any) -> None:
        if transaction is not None:
            raise CapabilityMissing("transactions", self._provider.name, "Redis has none that could be rolled back")

    def _known(self, names: Mapping[str, Any], known: set[str]) -> None:
        unknown = sorted(set(names) - known)
        if unknown:
            raise ConfigurationError(
                f"{self._provider.name}: keys know no column {unknown[0]} here: expected {', '.join(sorted(known))}"
            )

    def _bounded(self, where: Mapping[str, Any]) -> None:
        if not where:
            raise ValueError("an empty where would reach every key: nobody means that")


class _Stream:
    """Rows, one by one."""

    def __init__(self, rows: AsyncIterator[dict[str, Any]]) -> None:
        self._rows: Any = rows

    async def __aenter__(self) -> AsyncIterator[dict[str, Any]]:
        return self._rows  # type: ignore[no-any-return]  # the iterator

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._rows.aclose()


def _pairs(found: Any) -> dict[str, Any]:
    """A hash, or a sorted set with its scores, however the protocol's version tells them."""
    if isinstance(found, Mapping):
        pairs = list(found.items())
    elif found and isinstance(found[0], list | tuple):
        pairs = [(one[0], one[1]) for one in found]
    else:
        pairs = list(zip(found[::2], found[1::2], strict=True))
    return {str(_plain(name)): _plain(value) for name, value in pairs}


def _plain(value: Any) -> Any:
    return shown(value) if isinstance(value, bytes) else value


def _any_of(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, tuple) else (value,)


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
