"""What lies in the keys, a sample of it: for `datavern scan`."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from datavern.engines.leaves import leaves
from datavern.engines.redis.values import from_clear, shown
from datavern.engines.redis.wire import pack

if TYPE_CHECKING:
    from datavern.engines.redis.provider import RedisProvider

__all__ = ["RedisSamples", "family"]

_BATCH = 200
_MOST_KEYS = 100_000
"""Keys whose names are looked at: beyond, families that are rare may be missed."""
_ELEMENTS = 20
_SEPARATORS = re.compile(r"([:/|])")
_VARIES = re.compile(r"[0-9@]|^.{24,}$")


def family(key: str) -> str:
    """The keys that a key is like: what differs from key to key becomes ``*`` (``user:session:*``)."""
    parts = _SEPARATORS.split(key)
    return "".join("*" if _VARIES.search(part) else part for part in parts)


class RedisSamples:
    """`Samples` on Redis. A store is a family of keys, told by their names; found with SCAN, never with KEYS."""

    def __init__(self, provider: RedisProvider) -> None:
        self._provider = provider

    async def stores(self) -> list[str]:
        """The families; where many keys have a name that nobody else has, they are one: ``*``."""
        found = Counter([family(name) async for name in self._names(None)])
        return sorted({name if "*" in name or len(found) <= _BATCH else "*" for name in found})

    async def sample(self, store: str, size: int) -> dict[str, list[Any]]:
        """``key``: the names; ``value``: what the keys hold; ``value.email``: of a hash, or of JSON, by path."""
        glob = re.sub(rb"[?\[\]\\^-]", rb"\\\g<0>", store.encode())
        names = []
        async for name in self._names(glob):
            if store in {"*", family(name)}:
                names.append(name)
            if len(names) >= size:
                break
        found: dict[str, list[Any]] = {"key": list(names)} if names else {}
        for start in range(0, len(names), _BATCH):
            for value in await asyncio.gather(*map(self._value, names[start : start + _BATCH])):
                for path, leaf in leaves(value, "value"):
                    found.setdefault(path, []).append(leaf)
        return found

    async def _names(self, glob: bytes | None) -> Any:
        seen: set[bytes] = set()
        async for batch in self._provider._router.scan(glob, _BATCH):  # noqa: SLF001  (a part of it)
            for key in batch:
                name = shown(key)
                if key not in seen and isinstance(name, str):
                    seen.add(key)
                    yield name
            if len(seen) >= _MOST_KEYS:
                return

    async def _value(self, name: str) -> Any:
        """What a key holds, not opened where it is sealed; of a long list or set, some of it."""
        kind = await self._ask(name, b"TYPE")
        if kind == b"string":
            raw = await self._ask(name, b"GET")
            return None if raw is None else _read(raw)
        if kind == b"hash":
            flat = await self._ask(name, b"HGETALL")
            pairs = list(flat.items()) if isinstance(flat, dict) else list(zip(flat[::2], flat[1::2], strict=True))
            return {shown(field): _read(value) for field, value in pairs}
        command: tuple[Any, ...] | None = {
            b"list": (b"LRANGE", 0, _ELEMENTS - 1), b"set": (b"SRANDMEMBER", _ELEMENTS),
            b"zset": (b"ZRANGE", 0, _ELEMENTS - 1),
        }.get(kind)  # fmt: skip
        if command is None:
            return None
        return [_read(item) for item in await self._ask(name, *command)]

    async def _ask(self, name: str, command: bytes, *more: int) -> Any:
        key = name.encode()
        return await self._provider._router.call(pack((command, key, *more)), key, True)  # noqa: SLF001  (as above)


def _read(raw: bytes) -> Any:
    """A value in the clear; other programs' plain text too. What is sealed is no text, and stays bytes."""
    value = from_clear(raw)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return value
