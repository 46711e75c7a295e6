"""Keys and values: what a caller of the provider uses most."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import hiredis

from datavern.contracts.errors import ConfigurationError
from datavern.engines.redis.errors import rejected
from datavern.engines.redis.pipeline import Pipeline
from datavern.engines.redis.retention import Lives, RetentionReport, Seconds, audit, written_keys
from datavern.engines.redis.steps import Key, Step, Steps, names_of_step
from datavern.engines.redis.values import from_clear, name_of, shown, to_clear
from datavern.engines.redis.wire import pack

if TYPE_CHECKING:
    from datavern.engines.redis.audited import Audited
    from datavern.engines.redis.router import Router
    from datavern.engines.redis.vault import Vault
    from datavern.engines.redis.watched import Watched

__all__ = ["Commands"]

_MULTI, _EXEC = pack((b"MULTI",)), pack((b"EXEC",))

# What would change the connection that all callers share, or hold it up.
_CHANGING = (
    "SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE MULTI EXEC DISCARD WATCH UNWATCH MONITOR "
    "SELECT AUTH HELLO RESET QUIT READONLY READWRITE ASKING SYNC PSYNC SHUTDOWN"
)
_WAITING = "WAIT WAITAOF BLPOP BRPOP BLMOVE BLMPOP BRPOPLPUSH BZPOPMIN BZPOPMAX BZMPOP"
_NOT_SHARED = frozenset([*_CHANGING.split(), *_WAITING.split()])


def _not_shared(command: str, words: tuple[Any, ...]) -> bool:
    texts = {w.upper() for w in words if isinstance(w, str)}
    return (
        command in _NOT_SHARED
        or (command in {"XREAD", "XREADGROUP"} and "BLOCK" in texts)
        or (command == "CLIENT" and bool(texts & {"REPLY", "TRACKING", "CACHING"}))
    )


class Commands:
    """Values by key.

    A value comes back as it went in: text, bytes, numbers, True and False, lists and dicts (and `Decimal`, dates,
    `UUID`). Every call raises `ProviderError` as the tree of errors tells: `ConnectionFailed` (nothing happened),
    `OutcomeUnknown` (it may have), `QueryRejected`, `PoolTimeout`, `NoHealthyConnection`.
    """

    name: str
    _router: Router
    _lives: Lives
    _steps: Steps
    _sealed: bool
    _kept: Vault | None
    _audited: Audited | None
    _watched: Watched | None

    async def _vault(self) -> Vault:
        raise NotImplementedError

    # ---- values -----------------------------------------------------------------------------------------------------
    # The two that are called most are written out; what they do is what `Steps` does.

    async def get(self, key: Key, *, subject: object = None) -> Any:
        """The key's value; None when there is none (or, sealed, none younger than the retention).

        Args:
            key: text or bytes.
            subject: whose value it has to be; None: whoever's. Only where values are sealed.

        Raises:
            DecryptionFailed: the value was not sealed under this key, or is another subject's.
            KeyErased: its subject was erased.
            QueryRejected: the key holds something else than a value.
            ProcessingRestricted, ConsentRequired: the data map names the key, and its person's data is restricted, or
                may not be read without consent.
        """
        name = key.encode() if type(key) is str and key.isascii() else name_of(key)
        watched = self._watched
        if watched is not None and watched.due():
            await watched.admit((name,), writing=False)
        raw = await self._router.call(pack((b"GET", name)), name, True)
        if raw is None:
            return None
        if not self._sealed:
            return from_clear(raw) if subject is None else await self._steps.opened("value", name, raw, subject)
        return await (self._kept or await self._vault()).open("value", name, raw, subject)

    async def set(
        self,
        key: Key,
        value: Any,
        *,
        ex: Seconds | None = None,
        nx: bool = False,
        xx: bool = False,
        subject: object = None,
    ) -> bool:
        """Set the key's value. False: `nx` or `xx` did not hold, and nothing was set.

        Args:
            key: text or bytes.
            value: anything but None.
            ex: how long it lives, in seconds or as a `timedelta`; without it as long as the retention, or for ever
                where there is none. A longer life than the retention is cut to it, with a warning (`RetentionCut`).
            nx: only if the key is not there.
            xx: only if it is.
            subject: whose value it is: sealed under that subject's key, and gone when the subject is erased.

        Raises:
            ConfigurationError: a value that cannot be stored; it is not in the message.
            KeyErased: an erasure of the subject runs.
        """
        if nx or xx or self._audited is not None:
            return await self._run(await self._steps.set(key, value, ex=ex, nx=nx, xx=xx, subject=subject))  # type: ignore[no-any-return]  # the step says so
        name = key.encode() if type(key) is str and key.isascii() else name_of(key)
        watched = self._watched
        if watched is not None and watched.due():
            await watched.admit((name,), writing=True)
        until = self._lives.default if ex is None else (b"PX", self._lives.milliseconds(ex))
        if self._sealed and value is not None:
            vault = self._kept or await self._vault()
            sealing = await vault.key_for(subject)
            raw = vault.seal("value", sealing, name, value)
            if subject is not None:
                await self._router.call(pack((b"SET", name, raw, *until)), name, False)
                await self._steps.settle(sealing, subject, name, b"UNLINK", name)
                return True
        elif subject is None:
            raw = to_clear(value)
        else:
            raw = await self._steps.stored("value", name, value, subject)
        return await self._router.call(pack((b"SET", name, raw, *until)), name, False) is not None

    async def get_many(self, keys: Iterable[Key]) -> list[Any]:
        """The values of several keys, in their order; None where there is none."""
        return list(await asyncio.gather(*[self.get(key) for key in keys]))

    async def set_many(self, values: Mapping[Any, Any], *, ex: Seconds | None = None, subject: object = None) -> None:
        """Set several keys, sent together. Not a transaction: each stands for itself."""
        await asyncio.gather(*[self.set(key, value, ex=ex, subject=subject) for key, value in values.items()])

    # ---- keys -------------------------------------------------------------------------------------------------------

    async def delete(self, *keys: Key) -> int:
        """Delete keys; how many were there."""
        return await self._counted(keys, self._steps.delete)

    async def exists(self, *keys: Key) -> int:
        """How many of the keys are there; one that is named twice counts twice."""
        return await self._counted(keys, self._steps.exists)

    async def expire(self, key: Key, ex: Seconds) -> bool:
        """Let the key live that long from now. False: it is not there. The retention bounds it as it does in `set`."""
        return await self._run(await self._steps.expire(key, ex))  # type: ignore[no-any-return]  # the step says so

    async def persist(self, key: Key) -> bool:
        """Take the key's expiry away. False: it has none, or is not there.

        Raises:
            ConfigurationError: the provider has a retention.
        """
        return await self._run(await self._steps.persist(key))  # type: ignore[no-any-return]  # the step says so

    async def ttl(self, key: Key) -> int:
        """Seconds that the key has left; -1: it has no expiry; -2: it is not there."""
        return await self._run(await self._steps.ttl(key))  # type: ignore[no-any-return]  # the step says so

    async def scan(self, match: str | bytes | None = None, *, count: int = 500) -> AsyncIterator[str | bytes]:
        """Every key that matches the glob pattern, on every node; each once.

        Keys that come or go meanwhile may be in it or not. It takes memory for the keys' names.
        """
        seen: set[bytes] = set()
        async for batch in self._router.scan(None if match is None else name_of(match), count):
            for key in batch:
                if key not in seen:
                    seen.add(key)
                    yield shown(key)

    async def audit_retention(self, *, fix: bool = False, limit: int = 100) -> RetentionReport:
        """Look for keys that do not end within the retention: set by others, or before there was one.

        Args:
            fix: give them the retention's expiry.
            limit: so many are named in the report.
        """
        if fix and self._lives.cap is None:
            raise ConfigurationError(
                f"{self.name}: fix=True gives keys the retention's expiry, and there is no retention"
            )
        return await audit(self._router, self._lives.cap, fix=fix, limit=limit)

    # ---- counters ---------------------------------------------------------------------------------------------------

    async def incr(self, key: Key, by: int = 1) -> int:
        """Count up; the new count. A counter is a number in the clear, whatever `encryption` says."""
        return await self._run(await self._steps.incr(key, by))  # type: ignore[no-any-return]  # INCRBY answers a number

    async def decr(self, key: Key, by: int = 1) -> int:
        """Count down; the new count."""
        return await self._run(await self._steps.incr(key, -by))  # type: ignore[no-any-return]  # INCRBY answers a number

    async def counter(self, key: Key) -> int:
        """What `incr` and `decr` have counted; 0 where they have not."""
        return await self._run(await self._steps.counter(key))  # type: ignore[no-any-return]  # the step says so

    # ---- the rest ---------------------------------------------------------------------------------------------------

    async def publish(self, channel: Key, value: Any, *, subject: object = None) -> int:
        """Send a message to whoever listens to the channel now; how many that are (in a cluster: on one node)."""
        return await self._run(await self._steps.publish(channel, value, subject=subject))  # type: ignore[no-any-return]  # PUBLISH answers a number

    def pipeline(self, *, transaction: bool = False) -> Pipeline:
        """Commands that are gathered and sent together: ``async with redis.pipeline() as p: p.set(…); p.get(…)``.

        Args:
            transaction: all or none of them, with nobody's commands in between (MULTI, EXEC); in a cluster, on keys of
                one slot.
        """
        return Pipeline(self, self._steps, transaction=transaction)

    async def execute(self, *command: str | bytes | float, key: Key | None = None, read: bool = False) -> Any:
        """Any other command, over the shared connection: the server's own reply, nothing sealed and nothing opened.

        Where there is a retention, the keys that the command writes (RENAME, COPY, RESTORE, HSET, PERSIST, …) are
        bounded by it in the same transaction: the server is asked which they are. A script's are those it declares.

        Args:
            command: its words: ``await redis.execute("HGETALL", "h")``.
            key: by which a cluster routes it; the first word after the command's own when None.
            read: it changes nothing, so that a lost answer is a `ConnectionFailed` that may be tried again. A command
                that does change something is refused then, where there is a retention.

        Raises:
            ConfigurationError: a command that waits, or changes the connection that others use too: `client` has it.
        """
        if not command or not isinstance(command[0], str):
            raise ConfigurationError(f"{self.name}: expected a command, such as execute('HGETALL', 'h')")
        if _not_shared(command[0].upper(), command[1:]):
            raise ConfigurationError(
                f"{self.name}: {command[0].upper()} waits, or changes the connection that all callers share: use "
                "redis.client for it"
            )
        for word in command:
            if not isinstance(word, str | bytes | int | float) or isinstance(word, bool):
                raise ConfigurationError(f"{self.name}: a command's words are text, bytes and numbers")
        words = tuple(name_of(w) if isinstance(w, str) else w for w in command)
        route = name_of(key) if key is not None else next((w for w in words[1:] if isinstance(w, bytes)), b"")
        if self._watched is not None and self._watched.due():
            names = [route] if read else await written_keys(self._router, words, route) or [route]
            await self._watched.admit(names, writing=not read)
        if self._audited is not None and not read:
            await self._audited.note(await written_keys(self._router, words, route))
        if self._lives.cap is not None:
            written = await written_keys(self._router, words, route)
            if written and read:
                raise ConfigurationError(f"{self.name}: {command[0].upper()} changes keys: leave read=True out")
            if written:
                parts = (words, *((b"PEXPIRE", name, self._lives.cap, b"LT") for name in written))
                return await self._send(Step(parts, route, False))
        return await self._router.call(pack(words), route, read)

    # ---- how --------------------------------------------------------------------------------------------------------

    async def _undo(self, key: bytes, *words: Any) -> None:
        """Send what takes a write back."""
        await self._router.call(pack(words), key, False)

    async def _run(self, step: Step) -> Any:
        """Send a step and wait for what its reply becomes."""
        if self._watched is not None and self._watched.due():
            await self._watched.admit(names_of_step(step) or (step.key,), writing=not step.read)
        if self._audited is not None:
            await self._audited.note(names_of_step(step))
        return await self._send(step)

    async def _send(self, step: Step) -> Any:
        parts = step.parts
        if len(parts) == 1:
            reply = await self._router.call(pack(parts[0]), step.key, step.read)
        else:
            replies = await self._transact(parts, step.key)
            for each in replies:  # what belongs together failed together: a count without its expiry is no success
                if isinstance(each, hiredis.ReplyError):
                    raise rejected(str(each), self.name, each)
            reply = replies[0]
        return reply if step.finish is None else await step.finish(reply)

    async def _transact(self, parts: Iterable[tuple[Any, ...]], key: bytes) -> list[Any]:
        """Several commands as one transaction, written together: nobody's commands come in between."""
        packed = [pack(part) for part in parts]
        return await self._router.call(b"".join((_MULTI, *packed, _EXEC)), key, False, len(packed) + 1)  # type: ignore[no-any-return]  # EXEC answers a list

    async def _counted(self, keys: tuple[Key, ...], make: Any) -> int:
        if not keys:
            return 0
        if not self._router.clustered or len(keys) == 1:
            return await self._run(await make(*keys))  # type: ignore[no-any-return]  # a number
        together: dict[int, list[Key]] = {}
        for key in keys:
            together.setdefault(self._router.slot(name_of(key)), []).append(key)
        return sum(await asyncio.gather(*[self._run(await make(*some)) for some in together.values()]))
