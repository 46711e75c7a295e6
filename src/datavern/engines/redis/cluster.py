"""To which node of a cluster a command goes: by slot, following the cluster as it moves.

Source: the Redis Cluster specification (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).
"""

from __future__ import annotations

import asyncio
from binascii import crc_hqx
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any, Final

from datavern.contracts.errors import ConnectionFailed, NoHealthyConnection, OutcomeUnknown, ProviderError
from datavern.engines.redis.connecting import Connector, shown_address
from datavern.engines.redis.errors import Redirect
from datavern.engines.redis.line import Line
from datavern.engines.redis.router import scanned
from datavern.engines.redis.settings import Address, RedisSettings
from datavern.engines.redis.wire import Owner, Wire, pack

__all__ = ["SLOTS", "Cluster", "key_slot"]

SLOTS: Final = 16_384
_REDIRECTS = 8
_LEARN_DEADLINE = 1.0
"""Seconds that one node gets to say how the cluster looks before the next is asked."""
_SCANS = 3
_ASKING = pack((b"ASKING",))


def key_slot(key: bytes) -> int:
    """The slot of a key: CRC-16 of the part between the first ``{`` and the next ``}``, or of all of it."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


class Cluster:
    """The nodes of a cluster. Writes and reads go to primaries."""

    clustered = True

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._connector = Connector(settings)
        self._lines: dict[Address, Line] = {}
        self._slots: list[Address | None] = [None] * SLOTS
        self._learning: asyncio.Task[None] | None = None
        self._closed = False
        self.refreshes = 0

    @property
    def lines(self) -> Iterable[Line]:
        """One for each node that was spoken to."""
        return self._lines.values()

    def _new(self, address: Address, most: int) -> Line:
        settings = self._settings
        return Line(
            partial(self._connector.to, address=address),
            name=settings.name,
            timeout=settings.timeout,
            most=most,
            keepalive=settings.keepalive,
        )

    def _line(self, address: Address) -> Line:
        line = self._lines.get(address)
        if line is None:
            line = self._lines[address] = self._new(address, self._settings.max_pending)
        return line

    async def open(self) -> None:
        """Learn how the cluster looks."""
        await self._learn()

    async def close(self) -> None:
        """Let go of every node."""
        self._closed = True
        if self._learning is not None:
            self._learning.cancel()
        await asyncio.gather(*(line.close() for line in self._lines.values()))

    # ---- how the cluster looks --------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Learn anew how the cluster looks; one asks for all who want to know.

        Raises:
            ProviderError: no node says.
        """
        task = self._refresh_soon()
        await asyncio.wait([task])  # a cancelled caller leaves it to the others
        if task.cancelled():
            raise NoHealthyConnection(f"{self._settings.name}: the provider was closed", provider=self._settings.name)
        task.result()

    def _refresh_soon(self) -> asyncio.Task[None]:
        if self._learning is None or self._learning.done():
            self._learning = asyncio.get_running_loop().create_task(self._learn())
            self._learning.add_done_callback(_look_away)
        return self._learning

    async def _learn(self) -> None:
        known = dict.fromkeys([a for a in self._slots if a is not None])
        last: ProviderError | None = None
        for address in dict.fromkeys([*known, *self._settings.seeds]):
            try:
                answer = await self._line(address).send(pack((b"CLUSTER", b"SLOTS")), True, timeout=_LEARN_DEADLINE)
            except ProviderError as error:
                last = error
                if error.retry == "never":
                    break
                continue
            self._take(answer, address)
            self.refreshes += 1
            return
        name = self._settings.name
        message = f"{name}: no node of the cluster says how it looks"
        if last is not None:
            message += f"; the last one: {str(last).removeprefix(f'{name}: ')}"
            raise ConnectionFailed(message, provider=name, code=last.code, retry=last.retry) from last.__cause__
        raise ConnectionFailed(message, provider=name)

    def _take(self, answer: list[Any], asked: Address) -> None:
        slots: list[Address | None] = [None] * SLOTS
        for first, last, primary, *_ in answer:
            host = (primary[0] or b"").decode()
            address = (asked[0] if host in {"", "?"} else host, primary[1])
            slots[first : last + 1] = [address] * (last + 1 - first)
        self._slots = slots
        present = set(slots)
        for address in [a for a in self._lines if a not in present]:
            if not self._lines[address].busy and not self._lines[address].waiting:
                self._lines.pop(address).abort()

    async def primaries(self) -> dict[Address, int]:
        """The nodes that hold slots, and how many each.

        Raises:
            NoHealthyConnection: there are slots that nobody holds, so nobody can say what is in them.
        """
        await self.refresh()
        found: dict[Address, int] = {}
        for address in self._slots:
            if address is None:
                raise NoHealthyConnection(
                    f"{self._settings.name}: slots of the cluster are served by nobody (CLUSTERDOWN)",
                    provider=self._settings.name, code="CLUSTERDOWN",
                )  # fmt: skip
            found[address] = found.get(address, 0) + 1
        return found

    # ---- commands ---------------------------------------------------------------------------------------------------

    async def call(self, packed: bytes, key: bytes, read: bool, skip: int = 0) -> Any:
        """Send a command to the node that has the key's slot, wherever that is by now.

        Raises:
            ConnectionFailed: the node does not answer, and the cluster has put no other in its place (yet).
            NoHealthyConnection: nobody serves the slot.
            OutcomeUnknown: sent, and no answer came.
        """
        slot = key_slot(key)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.timeout
        address, asking, refreshed = self._slots[slot], False, False
        failure: ProviderError = self._unserved(slot)
        for _ in range(_REDIRECTS):
            if address is not None:
                reply, error = await self._attempt(address, _ASKING * asking + packed, read, skip + asking)
                if error is None:
                    return reply
                if isinstance(error, Redirect):
                    failure, asking = self._astray(slot), error.asking
                    address = (error.host or address[0], error.port)
                    if not asking:
                        self._slots[slot] = address
                        self._refresh_soon()
                    continue
                failure = self._down(address, slot, error)
            if refreshed or loop.time() >= until:
                self._refresh_soon()
                break
            before, refreshed = address, True
            if not await self._learnt() or self._slots[slot] in {None, before}:
                break
            address, asking = self._slots[slot], False
        raise failure from failure.__cause__

    async def _attempt(
        self, address: Address, packed: bytes, read: bool, skip: int
    ) -> tuple[Any, ProviderError | None]:
        """The reply of a node, or the error after which another may be asked."""
        try:
            return await self._line(address).send(packed, read, skip), None
        except OutcomeUnknown:
            self._refresh_soon()
            raise
        except (ConnectionFailed, NoHealthyConnection) as error:
            if error.retry == "never" and not isinstance(error, Redirect):
                raise
            return None, error

    async def _learnt(self) -> bool:
        try:
            await self.refresh()
        except ProviderError:
            return False
        return True

    async def ask(self, address: Address, *command: bytes) -> Any:
        """Ask one node something."""
        return await self._line(address).send(pack(command), True)

    def _unserved(self, slot: int) -> ProviderError:
        name = self._settings.name
        return NoHealthyConnection(
            f"{name}: no node of the cluster serves the key's slot, {slot} (CLUSTERDOWN)",
            provider=name,
            code="CLUSTERDOWN",
        )

    def _astray(self, slot: int) -> ProviderError:
        name = self._settings.name
        return NoHealthyConnection(
            f"{name}: the nodes of the cluster point at each other: none of them serves the key's slot, {slot} (MOVED)",
            provider=name,
            code="MOVED",
        )

    def _down(self, address: Address, slot: int, error: ProviderError) -> ProviderError:
        name = self._settings.name
        failure = type(error)(
            f"{name}: the node {shown_address(address)} of the cluster, which serves the key's slot, {slot}: "
            f"{str(error).removeprefix(f'{name}: ')}",
            provider=name,
            code=error.code,
            retry=error.retry,
        )
        failure.__cause__ = error.__cause__
        return failure

    def slot(self, key: bytes) -> int:
        """Keys of one slot may be named together."""
        return key_slot(key)

    async def dedicated(self, key: bytes) -> tuple[Any, Callable[[], Line]]:
        """A new line to the node that has the key."""
        address = self._slots[key_slot(key)]
        if address is None:
            await self.refresh()
            address = self._slots[key_slot(key)]
        if address is None:
            raise self._unserved(key_slot(key))
        return address, partial(self._new, address, 1)

    async def anywhere(self, owner: Owner) -> Wire:
        """A new connection to any primary that answers."""
        last: ConnectionFailed | None = None
        for address in dict.fromkeys([*(a for a in self._slots if a is not None), *self._settings.seeds]):
            try:
                return await self._connector.to(owner, address)
            except ConnectionFailed as error:
                last = error
        raise last or self._unserved(0)

    async def scan(self, match: bytes | None, count: int) -> AsyncIterator[list[bytes]]:
        """Every key that matches, on every primary.

        A slot that moves meanwhile may carry keys past the scan: where slots have changed hands, it begins again.
        """
        for _ in range(_SCANS):
            before = await self.primaries()
            held = self._slots
            for address in before:
                async for keys in scanned(self._line(address), match, count):
                    yield keys
            await self.primaries()
            if self._slots == held and not await self._moving(before):
                return
        raise NoHealthyConnection(
            f"{self._settings.name}: slots of the cluster keep moving, so that no scan sees every key: try again when "
            "the resharding is done",
            provider=self._settings.name,
        )

    async def _moving(self, addresses: Iterable[Address]) -> bool:
        """Whether a slot is being moved just now: its node says so in its own line of CLUSTER NODES."""
        for address in addresses:
            answer = await self.ask(address, b"CLUSTER", b"NODES")
            raw = answer.decode(errors="replace")
            if any("[" in line for line in raw.splitlines() if "myself" in line):
                return True
        return False


def _look_away(task: asyncio.Task[None]) -> None:
    """Whoever needs to know asks the task; nobody need."""
    if not task.cancelled():
        task.exception()
