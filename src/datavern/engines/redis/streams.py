"""Streams: logs of entries, with consumer groups. Fields are values, sealed like any other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from datavern.contracts.errors import ConfigurationError, NoHealthyConnection
from datavern.engines.redis.commands import Commands
from datavern.engines.redis.errors import Redirect
from datavern.engines.redis.steps import Key
from datavern.engines.redis.values import name_of, shown
from datavern.engines.redis.wire import pack

if TYPE_CHECKING:
    from datavern.engines.redis.line import Line

__all__ = ["StreamEntry", "Streams"]

_SPARE = 4
"""Connections kept for commands that wait, to each server."""
_REDIRECTS = 3


class StreamEntry(NamedTuple):
    """An entry of a stream.

    Attributes:
        id: the server's: the moment in milliseconds, a hyphen, a number.
        fields: name → value; empty when the entry was deleted since the group took it.
    """

    id: str
    fields: dict[str | bytes, Any]


class Streams(Commands):
    """Streams by key.

    With a retention an entry goes when it is that old, at the next `xadd`, and no read hands it out; the stream itself
    ends that long after its last entry.
    """

    settings: Any
    _spare: dict[Any, list[Line]]
    _open: bool

    async def xadd(
        self,
        key: Key,
        fields: Mapping[str, Any],
        *,
        id: str = "*",  # noqa: A002  (Redis calls it that)
        maxlen: int | None = None,
        subject: object = None,
    ) -> str:
        """Append an entry; its id.

        Args:
            key: the stream.
            fields: at least one.
            id: the server makes one; with a retention it always does.
            maxlen: about so many entries are kept.
            subject: whose the values are.
        """
        return await self._run(await self._steps.xadd(key, fields, id=id, maxlen=maxlen, subject=subject))  # type: ignore[no-any-return]  # the step says so

    async def xlen(self, key: Key) -> int:
        """How many entries the stream has, those among them that are older than the retention and not trimmed yet."""
        name = name_of(key)
        return await self._router.call(pack((b"XLEN", name)), name, True)  # type: ignore[no-any-return]  # a number

    async def xdel(self, key: Key, *ids: str) -> int:
        """Delete entries; how many were there."""
        name = name_of(key)
        if self._watched is not None and self._watched.due():
            await self._watched.admit((name,), writing=True)
        if self._audited is not None:
            await self._audited.note((name,))
        return await self._router.call(pack((b"XDEL", name, *ids)), name, False)  # type: ignore[no-any-return]  # a number

    async def xrange(
        self, key: Key, start: str = "-", end: str = "+", *, count: int | None = None
    ) -> list[StreamEntry]:
        """Entries between two ids, both included, oldest first."""
        name = name_of(key)
        if start == "-" and self._lives.cap is not None:
            start = str(int(time.time() * 1000) - self._lives.cap)
        if self._watched is not None and self._watched.due():
            await self._watched.admit((name,), writing=False)
        command: tuple[Any, ...] = (b"XRANGE", name, start, end)
        if count is not None:
            command += (b"COUNT", count)
        return await self._entries(name, await self._router.call(pack(command), name, True))

    async def xread(
        self, streams: Mapping[Key, str], *, count: int | None = None, wait: float | None = None
    ) -> dict[str | bytes, list[StreamEntry]]:
        """Entries after an id, of each stream that has some.

        Args:
            streams: stream → the last id that was seen: ``"0"`` for all, ``"$"`` for those that come from now on.
            count: so many of each stream.
            wait: seconds to wait for an entry where there is none; None: do not.
        """
        command: list[Any] = [b"XREAD"]
        return await self._read(command, streams, count, wait, read=True)

    async def xgroup_create(self, key: Key, group: str, *, id: str = "$", make: bool = True) -> None:  # noqa: A002  (Redis calls it that)
        """Make a consumer group that begins after `id`; with `make` the stream too, where there is none.

        Raises:
            QueryRejected: the group exists (code BUSYGROUP).
        """
        name = name_of(key)
        command: tuple[Any, ...] = (b"XGROUP", b"CREATE", name, group, id)
        await self._router.call(pack((*command, b"MKSTREAM") if make else command), name, False)

    async def xreadgroup(
        self,
        group: str,
        consumer: str,
        streams: Mapping[Key, str],
        *,
        count: int | None = None,
        wait: float | None = None,
    ) -> dict[str | bytes, list[StreamEntry]]:
        """Entries for one consumer of a group: each goes to one of them, which acknowledges it with `xack`.

        Args:
            group: its name.
            consumer: its name.
            streams: stream → ``">"`` for new entries, or an id for one's own that are not acknowledged yet.
            count: so many of each stream.
            wait: seconds to wait for an entry where there is none; None: do not.

        A call that was cancelled or lost may have taken entries: they wait as not acknowledged.
        """
        return await self._read([b"XREADGROUP", b"GROUP", group, consumer], streams, count, wait, read=False)

    async def xack(self, key: Key, group: str, *ids: str) -> int:
        """Acknowledge entries; how many were waiting for it."""
        name = name_of(key)
        return await self._router.call(pack((b"XACK", name, group, *ids)), name, False)  # type: ignore[no-any-return]  # a number

    async def _read(
        self, command: list[Any], streams: Mapping[Key, str], count: int | None, wait: float | None, *, read: bool
    ) -> dict[str | bytes, list[StreamEntry]]:
        names = [name_of(key) for key in streams]
        if not names:
            raise ConfigurationError(f"{self.name}: name at least one stream, and the id after which to read")
        if self._watched is not None and self._watched.due():
            await self._watched.admit(names, writing=False)
        if count is not None:
            command += [b"COUNT", count]
        if wait is not None:
            if not 0 < wait < 86_400:  # noqa: PLR2004  (a day)
                raise ConfigurationError(f"{self.name}: wait: expected seconds, more than 0 and less than a day")
            command += [b"BLOCK", max(1, int(wait * 1000))]
        packed = pack((*command, b"STREAMS", *names, *streams.values()))
        if wait is None:
            found = await self._router.call(packed, names[0], read)
        else:
            found = await self._patiently(packed, names[0], wait, read=read)
        entries = {shown(name): await self._entries(name, raw) for name, raw in (found or {}).items()}
        return {name: some for name, some in entries.items() if some}

    async def _patiently(self, packed: bytes, key: bytes, wait: float, *, read: bool) -> Any:
        """A command that waits, on a connection of its own: on the shared one it would hold up everybody."""
        for _ in range(_REDIRECTS):
            address, new = await self._router.dedicated(key)
            spare = self._spare.setdefault(address, [])
            line = spare.pop() if spare else new()
            answered = moved = False
            try:
                reply = await line.send(packed, read, timeout=wait + self.settings.timeout)
                answered = True
            except Redirect:
                moved = True
            finally:
                if answered and self._open and len(spare) < _SPARE:
                    spare.append(line)
                else:
                    line.abort()
            if not moved:
                return reply
            await self._router.refresh()
        raise NoHealthyConnection(f"{self.name}: the stream's slot keeps moving: try again", provider=self.name)

    async def _entries(self, name: bytes, raw: Any) -> list[StreamEntry]:
        cap = self._lives.cap
        oldest = 0 if cap is None else int(time.time() * 1000) - cap
        found = []
        for number, flat in raw or ():
            if cap is not None and int(number.partition(b"-")[0]) < oldest:
                continue
            pairs = zip(flat[::2], flat[1::2], strict=True) if flat else ()
            fields = {shown(f): await self._steps.opened("entry", name, value, part=f) for f, value in pairs}
            if cap is not None and self._sealed and None in fields.values():
                continue  # sealed longer ago than the retention, whatever its id says
            found.append(StreamEntry(number.decode(), fields))
        return found
