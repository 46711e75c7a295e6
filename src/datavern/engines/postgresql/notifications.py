"""LISTEN and NOTIFY: messages between whoever is connected to one database.

The server keeps no message for somebody who is not listening: what is sent while a connection is broken is gone. So
`Listening` connects again by itself, and then says that messages may have been missed, as an item of its own: it comes
when the connection is there again, and not with the next message, which may never come.

Source: PostgreSQL 18 documentation, LISTEN and NOTIFY.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from datavern.connectors.retry import backoff
from datavern.connectors.tending import CLOSE_DEADLINE
from datavern.contracts.errors import ConfigurationError, ConnectionFailed, DatavernError, ProviderError, QueryRejected
from datavern.engines.postgresql.connection import PostgreSQLConnector
from datavern.engines.postgresql.errors import fault
from datavern.engines.postgresql.statements import Effect

if TYPE_CHECKING:
    import asyncpg

    from datavern.contracts.capabilities import Session
    from datavern.engines.postgresql.provider import PostgreSQLProvider

__all__ = ["NOTIFY", "Listening", "Notification", "notify"]

log = logging.getLogger("datavern.notifications")

NOTIFY = "SELECT pg_catalog.pg_notify($1, $2)"
"""Leaves nothing behind in its session, and is not to be sent twice: it counts as a write."""

LONGEST_CHANNEL = 63
"""Bytes of a name (NAMEDATALEN - 1). LISTEN would cut a longer one, and then hear nothing."""
LONGEST_PAYLOAD = 7999
"""Bytes: "it must be … shorter than 8000 bytes"."""
CHECK = 15.0
"""Seconds of silence after which the connection is asked if it is there."""
CHECK_DEADLINE = 5.0
"""Seconds in which it must answer, and in which LISTEN must."""


class Notification:
    """What came on a channel, or the news that something may not have come.

    Attributes:
        channel: where it was sent; "" where `missed` is not None.
        missed: None for a message. Otherwise why messages before this moment may have been missed, on any channel that
            is listened to: look at what they would have told. Nothing is missed from here on.
        pid: of the server process of the session that sent it; 0 where `missed` is not None.
    """

    __slots__ = ("_payload", "channel", "missed", "pid")

    def __init__(self, channel: str, payload: str | None, pid: int, missed: str | None = None) -> None:
        self.channel = channel
        self.pid = pid
        self.missed = missed
        self._payload = payload

    @property
    def payload(self) -> str:
        """The text that was sent; "" when there was none.

        Raises:
            ConnectionFailed: this is no message: see `missed`.
        """
        if self._payload is None:
            raise ConnectionFailed(
                f"messages may have been missed ({self.missed}): look at `missed` before `payload`", retry="never"
            )
        return self._payload

    def __repr__(self) -> str:
        """Without the payload, which may be anybody's data."""
        if self.missed is not None:
            return f"<Notification missed={self.missed!r}>"
        return f"<Notification channel={self.channel!r} pid={self.pid}>"


async def notify(session: Session, name: str, channel: str, payload: str) -> None:
    """Send a message. See `PostgreSQLProvider.notify`."""
    _check_channel(channel)
    if not isinstance(payload, str):
        raise ConfigurationError(f"notify: a payload is a str, not {type(payload).__name__}: make a text of it first")
    size = len(_encoded(payload, "payload"))
    if size > LONGEST_PAYLOAD:
        raise QueryRejected(
            f"{name}: notify: the payload has {size} bytes, and PostgreSQL takes {LONGEST_PAYLOAD} at most: keep it in "
            "a table and send its key",
            provider=name,
        )
    await session.query_value(NOTIFY, [channel, payload])


class Listening:
    """Messages of some channels, on a connection of its own: ``async with provider.listen("x") as notifications``.

    Whoever iterates gets the messages in the order in which their transactions committed. Idempotent exit; safe to
    cancel anywhere.
    """

    __slots__ = (
        "_broken",
        "_channels",
        "_connection",
        "_connector",
        "_early",
        "_ended",
        "_entered",
        "_hole",
        "_keeper",
        "_most",
        "_news",
        "_provider",
        "_waiting",
    )

    def __init__(self, provider: PostgreSQLProvider, channels: Sequence[str], *, most: int) -> None:
        if not channels:
            raise ConfigurationError("listen: expected the name of a channel")
        for channel in channels:
            _check_channel(channel)
        if not isinstance(most, int) or most < 1:
            raise ConfigurationError("listen: most: expected a number of messages, at least 1")
        self._provider = provider
        self._channels = list(dict.fromkeys(channels))
        self._most = most
        self._connector = PostgreSQLConnector(provider.settings)
        self._connection: asyncpg.Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._waiting: deque[Notification] = deque()
        self._early: list[Notification] | None = None
        self._hole: str | None = None
        self._ended: str | None = None
        self._entered = False
        self._broken = asyncio.Event()
        self._news = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether messages come in at this moment, as far as is known."""
        return self._keeper is not None and not self._broken.is_set()

    # ---- begin and end ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        provider = self._provider
        if self._entered:
            raise ConfigurationError("listen: entered once")
        if provider._pool.closed:  # noqa: SLF001  (a part of the engine)
            raise ConnectionFailed(f"{provider.name} is not open: use it inside `async with`", provider=provider.name)
        self._entered = True
        await self._connect(missed=None)
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        self._keeper.add_done_callback(self._fell)
        provider._listening.add(self)  # noqa: SLF001  (a part of the engine)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.end("")

    async def end(self, reason: str) -> None:
        """Stop listening. Whoever iterates gets `reason` as an error, or the end of the loop where it is empty."""
        if self._ended is None:
            self._ended = reason
        self._provider._listening.discard(self)  # noqa: SLF001  (a part of the engine)
        self._news.set()
        keeper, self._keeper = self._keeper, None
        connection, self._connection = self._connection, None
        try:
            if keeper is not None:
                keeper.cancel()
                await asyncio.wait([keeper])
            if connection is not None and not connection.is_closed():
                async with asyncio.timeout(CLOSE_DEADLINE):
                    await connection.close()
        except Exception:  # noqa: BLE001, S110  (it is gone either way)
            pass
        finally:
            for left in (connection, self._connection):  # the second: made as the keeper was cancelled
                if left is not None:
                    self._connector.abort(left)

    def follow(self, provider: PostgreSQLProvider) -> None:
        """Go on with another server: as if the connection had broken, and been made there."""
        self._provider._listening.discard(self)  # noqa: SLF001  (a part of the engine)
        self._provider = provider
        self._connector = PostgreSQLConnector(provider.settings)
        if self._ended is None and self._entered:
            provider._listening.add(self)  # noqa: SLF001  (a part of the engine)
            self._broken.set()

    # ---- messages ---------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notification:
        while True:
            if self._ended is not None or not self._entered:
                break
            if self._hole is not None:
                why, self._hole = self._hole, None
                return Notification("", None, 0, why)
            if self._waiting:
                return self._waiting.popleft()
            self._news.clear()
            await self._news.wait()
        if self._ended:
            raise ConnectionFailed(f"{self._provider.name}: {self._ended}", provider=self._provider.name)
        if not self._entered:
            raise ConfigurationError("listen: use it in `async with`")
        raise StopAsyncIteration

    def _came(self, _: Any, pid: int, channel: str, payload: object) -> None:
        note = Notification(channel, str(payload), pid)
        if self._early is not None:
            self._early.append(note)
        else:
            self._put(note)

    def _put(self, note: Notification) -> None:
        if len(self._waiting) >= self._most:
            self._waiting.popleft()
            self._hole = f"more than {self._most} waited to be taken, and the oldest were dropped"
        self._waiting.append(note)
        self._news.set()

    # ---- the connection ---------------------------------------------------------------------------------------------

    async def _connect(self, missed: str | None) -> None:
        """Connect and listen to every channel. What `missed` says is told before anything that comes."""
        broken = asyncio.Event()  # of this connection: an older one may still report its end
        connection = await self._connector.connect(broken.set)
        if self._connector.pooled:
            self._connector.abort(connection)
            raise ConfigurationError(
                f"{self._provider.name}: listen: messages come to a session, and a pooler in transaction mode gives "
                "none to keep: listen with a provider that has the server's own address"
            )
        early: list[Notification] = []
        self._early = early
        try:
            async with asyncio.timeout(CHECK_DEADLINE):
                for channel in self._channels:
                    await connection.add_listener(channel, self._came)
        except TimeoutError:
            self._connector.abort(connection)
            failure: DatavernError = ConnectionFailed(
                f"{self._provider.name}: the server did not answer to LISTEN", provider=self._provider.name
            )
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            self._connector.abort(connection)
            failure = _listening_failed(error, self._provider.name)
        except BaseException:
            self._connector.abort(connection)
            raise
        else:
            self._broken, self._connection, self._early = broken, connection, None
            if missed is not None:
                self._put(Notification("", None, 0, missed))
            for note in early:
                self._put(note)
            return
        raise failure

    async def _keep(self) -> None:
        """Look after the connection, and make a new one where it is gone."""
        while True:
            while not self._broken.is_set() and await self._answers():
                try:
                    async with asyncio.timeout(CHECK):
                        await self._broken.wait()
                except TimeoutError:
                    continue
            self._broken.set()
            connection, self._connection = self._connection, None
            if connection is not None:
                self._connector.abort(connection)
            log.warning("%s: a listening connection broke; messages may be missed until it is back",
                        self._provider.name)  # fmt: skip
            await self._come_back()

    async def _come_back(self) -> None:
        attempt = 0
        said = ""
        while True:
            attempt += 1
            await asyncio.sleep(backoff(attempt, base=0.2, longest=10.0))
            try:
                await self._connect(missed="the connection broke")
            except DatavernError as error:
                if str(error) != said:  # a server may be away for long
                    said = str(error)
                    log.warning("%s: cannot listen again yet: %s", self._provider.name, said)
            else:
                return

    async def _answers(self) -> bool:
        """Ask, so that a connection that froze is noticed."""
        connection = self._connection
        if connection is None:
            return False
        try:
            async with asyncio.timeout(CHECK_DEADLINE):
                await self._connector.probe(connection)
        except Exception:  # noqa: BLE001  (whatever it is, it does not answer)
            return False
        return True

    def _fell(self, keeper: asyncio.Task[None]) -> None:
        """A fault of ours ends the loop of whoever iterates, and not in silence."""
        if self._ended is not None:
            return
        error = asyncio.CancelledError() if keeper.cancelled() else keeper.exception()
        log.error("%s: listening ended by a fault: %s", self._provider.name, type(error).__name__)
        self._ended = f"listening ended by a fault ({type(error).__name__})"
        self._news.set()


def _listening_failed(error: Exception, name: str) -> DatavernError:
    raised = fault(error, name=name, stage="statement", effect=Effect.READS).error
    if isinstance(raised, ProviderError) and raised.code in {"25006", "0A000"}:
        raised.args = (f"{name}: the server is a standby, and those take no LISTEN: listen on the primary",)
    return raised


def _check_channel(channel: str) -> None:
    if not isinstance(channel, str) or not channel:
        raise ConfigurationError("a channel's name is a text, and not an empty one")
    size = len(_encoded(channel, "name of a channel"))
    if size > LONGEST_CHANNEL:
        raise ConfigurationError(
            f"a channel's name has {size} bytes, and PostgreSQL's names have {LONGEST_CHANNEL} at most"
        )


def _encoded(text: str, what: str) -> bytes:
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise ConfigurationError(f"the {what} holds a NUL character or half a surrogate pair, which no text here can")
    return encoded
