"""Each command as it is sent, and what its reply becomes: for a call of its own and for a pipeline alike."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from datavern.contracts.errors import ConfigurationError, KeyErased
from datavern.engines.redis.retention import Lives, Seconds
from datavern.engines.redis.values import check, from_clear, name_of, to_clear

if TYPE_CHECKING:
    from datavern.crypto.sealed import DataKey
    from datavern.engines.redis.vault import Role, Vault

__all__ = ["Key", "Step", "Steps", "names_of_step"]

Key = str | bytes
"""A key: text (in UTF-8) or bytes."""


class Step(NamedTuple):
    """A command, or a few that belong together.

    Attributes:
        parts: the commands; the first one's reply counts. Several are run as one transaction.
        key: where they go.
        read: they change nothing.
        finish: what the reply becomes; None: itself.
    """

    parts: tuple[tuple[Any, ...], ...]
    key: bytes
    read: bool
    finish: Callable[[Any], Awaitable[Any]] | None = None


def names_of_step(step: Step) -> tuple[bytes, ...]:
    """The keys that a step changes."""
    command = step.parts[0]
    if step.read or command[0] == b"PUBLISH":
        return ()
    return tuple(command[1:]) if command[0] == b"UNLINK" else (step.key,)


async def _true(reply: Any) -> bool:
    return bool(reply)


class Steps:
    """Makes steps.

    Args:
        vault: fetches what seals values; None: values are stored in the clear.
        lives: bounds their lives.
        name: the provider's, for messages.
        undo: sends a command that takes a write back: the key by which it is routed, then its words.
    """

    __slots__ = ("_lives", "_name", "_undo", "_vault")

    def __init__(
        self,
        vault: Callable[[], Awaitable[Vault]] | None,
        lives: Lives,
        name: str,
        undo: Callable[..., Awaitable[None]],
    ) -> None:
        self._vault, self._lives, self._name, self._undo = vault, lives, name, undo

    # ---- values -----------------------------------------------------------------------------------------------------

    async def stored(self, role: Role, name: bytes, value: Any, subject: object, part: bytes = b"") -> bytes:
        """A value as the server holds it."""
        return (await self.kept(role, name, value, subject, part))[0]

    async def kept(
        self, role: Role, name: bytes, value: Any, subject: object, part: bytes = b""
    ) -> tuple[bytes, DataKey | None]:
        """A value as the server holds it, and the key that it is sealed under."""
        if self._vault is None:
            self._nobodys(subject)
            return to_clear(value), None
        check(value)
        vault = await self._vault()
        key = await vault.key_for(subject)
        return vault.seal(role, key, name, value, part), key

    async def settle(self, key: DataKey | None, subject: object, name: bytes, *undo: Any) -> None:
        """After a write that was acknowledged: take it back where its subject is being erased.

        Args:
            key: what it was sealed under.
            subject: whose it is; None: nobody's, which no erasure ends.
            name: the key or stream.
            undo: the words of the command that takes it back.

        Raises:
            KeyErased: it was taken back.
        """
        if key is None or subject is None or self._vault is None:
            return
        if not await (await self._vault()).covers(key, subject):
            await self._undo(name, *undo)
            raise KeyErased(f"{self._name}: an erasure of the subject runs: nothing about it is taken meanwhile")

    async def opened(self, role: Role, name: bytes, raw: Any, subject: object = None, part: bytes = b"") -> Any:
        """A value again."""
        if raw is None:
            return None
        if self._vault is None:
            self._nobodys(subject)
            return from_clear(raw)
        return await (await self._vault()).open(role, name, raw, subject, part)

    def _nobodys(self, subject: object) -> None:
        if subject is not None:
            raise ConfigurationError(
                f"{self._name}: subject= seals under the subject's key: make the provider with encryption=True"
            )

    async def get(self, key: Key, *, subject: object = None) -> Step:
        """GET."""
        name = name_of(key)

        async def finish(reply: Any) -> Any:
            return await self.opened("value", name, reply, subject)

        return Step(((b"GET", name),), name, True, finish)

    async def set(
        self, key: Key, value: Any, *, ex: Seconds | None = None, nx: bool = False, xx: bool = False,
        subject: object = None,
    ) -> Step:  # fmt: skip
        """SET, with an expiry where there is one."""
        name = name_of(key)
        life = self._lives.milliseconds(ex)
        raw, sealing = await self.kept("value", name, value, subject)
        command: tuple[Any, ...] = (b"SET", name, raw)
        if nx and xx:
            raise ConfigurationError(f"{self._name}: nx and xx exclude each other")
        if life is not None:
            command += (b"PX", life)
        if nx or xx:
            command += (b"NX" if nx else b"XX",)

        async def finish(reply: Any) -> bool:
            if reply is not None:
                await self.settle(sealing, subject, name, b"UNLINK", name)
            return reply is not None

        return Step((command,), name, False, finish)

    # ---- keys -------------------------------------------------------------------------------------------------------

    async def delete(self, *keys: Key) -> Step:
        """UNLINK: as DEL, and the memory is freed in the background."""
        names = [name_of(key) for key in keys]
        return Step(((b"UNLINK", *names),), names[0], False)

    async def exists(self, *keys: Key) -> Step:
        """EXISTS."""
        names = [name_of(key) for key in keys]
        return Step(((b"EXISTS", *names),), names[0], True)

    async def expire(self, key: Key, ex: Seconds) -> Step:
        """PEXPIRE."""
        name = name_of(key)
        return Step(((b"PEXPIRE", name, self._lives.milliseconds(ex)),), name, False, _true)

    async def persist(self, key: Key) -> Step:
        """PERSIST: only where no retention bounds a key's life."""
        if self._lives.cap is not None:
            raise ConfigurationError(f"{self._name}: retention bounds every key's life: persist would lift it")
        name = name_of(key)
        return Step(((b"PERSIST", name),), name, False, _true)

    async def ttl(self, key: Key) -> Step:
        """TTL."""
        name = name_of(key)
        return Step(((b"TTL", name),), name, True)

    # ---- counters ---------------------------------------------------------------------------------------------------

    async def incr(self, key: Key, by: int = 1) -> Step:
        """INCRBY; a new counter gets its expiry with its first count, and keeps it."""
        if type(by) is not int:
            raise ConfigurationError(f"{self._name}: a counter counts by whole numbers, not {type(by).__name__}")
        name = name_of(key)
        parts: tuple[tuple[Any, ...], ...] = ((b"INCRBY", name, by),)
        if self._lives.cap is not None:
            parts += ((b"PEXPIRE", name, self._lives.cap, b"NX"),)
        return Step(parts, name, False)

    async def counter(self, key: Key) -> Step:
        """GET, of a counter."""
        name = name_of(key)

        async def finish(reply: Any) -> int:
            if reply is None:
                return 0
            if not reply.lstrip(b"-").isdigit():
                raise ConfigurationError(
                    f"{self._name}: counter reads what incr and decr count, and this key holds a value"
                )
            return int(reply)

        return Step(((b"GET", name),), name, True, finish)

    # ---- channels and streams ---------------------------------------------------------------------------------------

    async def publish(self, channel: Key, value: Any, *, subject: object = None) -> Step:
        """PUBLISH."""
        name = name_of(channel)
        return Step(((b"PUBLISH", name, await self.stored("message", name, value, subject)),), name, False)

    async def xadd(
        self, key: Key, fields: Mapping[str, Any], *, id: str = "*", maxlen: int | None = None,  # noqa: A002  (Redis calls it that)
        subject: object = None,
    ) -> Step:  # fmt: skip
        """XADD; where a retention holds, entries beyond it go, and the stream ends with its last one."""
        name, cap = name_of(key), self._lives.cap
        if not fields:
            raise ConfigurationError(f"{self._name}: an entry of a stream has at least one field")
        command: list[Any] = [b"XADD", name]
        if maxlen is not None:
            command += [b"MAXLEN", b"~", maxlen]
        command.append(id)
        sealing: DataKey | None = None
        for field, value in fields.items():
            part = name_of(field)
            raw, sealing = await self.kept("entry", name, value, subject, part)
            command += [part, raw]
        parts: tuple[tuple[Any, ...], ...] = (tuple(command),)
        if cap is not None:
            if id != "*":
                raise ConfigurationError(
                    f"{self._name}: retention counts from an entry's id, so the server gives it: id='*'"
                )
            parts += (
                (b"XTRIM", name, b"MINID", int(time.time() * 1000) - cap),
                (b"PEXPIRE", name, cap),
            )

        async def finish(reply: Any) -> str:
            await self.settle(sealing, subject, name, b"XDEL", name, bytes(reply))
            return bytes(reply).decode()

        return Step(parts, name, False, finish)
