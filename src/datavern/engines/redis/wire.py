"""One connection: commands out, replies in, each reply to the command that is oldest.

What is written together goes out in a single write. Nothing here waits, retries or connects: `Line` does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import hiredis

from datavern.contracts.errors import ProviderError
from datavern.engines.redis.errors import RETIRING, code_of, rejected, unanswered

__all__ = ["Entry", "Owner", "Wire", "pack"]

pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
"""A command as the protocol writes it: ``pack((b"GET", key))``."""

Entry = tuple["asyncio.Future[Any]", bytes, bool, float, int]
"""A command: where its reply goes; its bytes; whether it only reads; when it has waited long enough (the loop's time);
how many replies come before the one that counts."""

_NOTHING: Final = object()
_ReplyError = hiredis.ReplyError
_Push = hiredis.PushNotification


class Owner(Protocol):
    """Who looks after a connection."""

    name: str

    def lost(self, wire: Wire) -> None:
        """The connection broke, and what it had not answered has failed."""
        ...

    def resumed(self, wire: Wire) -> None:
        """The socket takes more again."""
        ...

    def outdated(self, wire: Wire) -> None:
        """The server is not what it was when the connection was made."""
        ...

    def pushed(self, wire: Wire, message: list[Any]) -> None:
        """The server says something that nobody asked for."""
        ...

    def refused(self, wire: Wire, error: ProviderError) -> None:
        """The server refuses something that has no reply of its own (SUBSCRIBE)."""
        ...


class Wire(asyncio.Protocol):
    """A connection to one server.

    Args:
        owner: see `Owner`.

    Attributes:
        flying: what was written and is not answered yet, oldest first. None: a reply that counts for nothing.
        paused: the socket takes no more for now.
        heard: something came since this was last set to False.
        hello: what the server said of itself at the handshake.
    """

    __slots__ = ("_aborted", "_feed", "_gets", "broken", "flying", "heard", "hello", "owner", "paused", "transport")

    def __init__(self, owner: Owner) -> None:
        reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._gets, self._feed = reader.gets, reader.feed
        self._aborted: Any = None
        self.owner = owner
        self.flying: deque[Entry | None] = deque()
        self.transport: Any = None
        self.paused = self.heard = self.broken = False
        self.hello: dict[Any, Any] = {}

    # ---- the loop calls these ---------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """The socket is there."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Replies, whole or in part."""
        self.heard = True
        gets, flying = self._gets, self.flying
        try:
            self._feed(data)
            while (reply := gets()) is not _NOTHING:
                kind = type(reply)
                if kind is _ReplyError or kind is _Push:
                    self._special(reply, kind)
                    continue
                entry = flying.popleft()
                if entry is not None:
                    future = entry[0]
                    if not future.done():  # a cancelled caller's reply is read, and goes nowhere
                        future.set_result(reply)
        except (hiredis.HiredisError, IndexError, ValueError):
            # Not the protocol, or a reply that nobody asked for: nothing that follows can be trusted.
            self.abort()

    def _special(self, reply: Any, kind: type) -> None:
        if kind is _Push:
            self.owner.pushed(self, reply)
            return
        text = str(reply)
        code = code_of(text)
        if not self.flying:
            self.owner.refused(self, rejected(text, self.owner.name, reply))
            return
        entry = self.flying.popleft()
        if entry is None:
            if self._aborted is None:  # why a transaction is refused: EXECABORT itself does not say
                self._aborted = reply
        elif not entry[0].done():
            if code == "EXECABORT" and self._aborted is not None:
                reply, self._aborted = self._aborted, None
            entry[0].set_exception(rejected(str(reply), self.owner.name, reply))
        if code in RETIRING:
            self.owner.outdated(self)

    def pause_writing(self) -> None:
        """The socket takes no more."""
        self.paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self.paused = False
        self.owner.resumed(self)

    def eof_received(self) -> None:
        """The server closes: so do we."""

    def connection_lost(self, _: Exception | None) -> None:
        """The connection is gone. Whether what was written arrived, nobody can say."""
        self.broken = True
        self._fail("the connection broke")
        self.owner.lost(self)

    # ---- its owner calls these --------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether it may be written to."""
        return not self.broken and not self.transport.is_closing()

    def ask(self, *commands: tuple[Any, ...]) -> list[asyncio.Future[Any]]:
        """Write some commands at once, past any queue: for the handshake. The caller sees to the deadline."""
        loop = asyncio.get_running_loop()
        entries: list[Entry] = [(loop.create_future(), pack(command), True, 0.0, 0) for command in commands]
        self.flying.extend(entries)
        self.transport.write(b"".join(entry[1] for entry in entries))
        return [entry[0] for entry in entries]

    def expire(self, now: float) -> bool:
        """Fail what has waited until its deadline. True: there was something, so the connection does not answer."""
        late = False
        for i, entry in enumerate(self.flying):
            if entry is None:
                continue
            if entry[3] > now:
                break
            late = True
            self.flying[i] = None  # its reply, should it come, counts for nothing
            if not entry[0].done():
                entry[0].set_exception(unanswered(self.owner.name, "no answer came in time (timeout)", read=entry[2]))
        return late

    def deadline(self) -> float | None:
        """When the oldest command has waited long enough; None when nothing waits."""
        return next((entry[3] for entry in self.flying if entry is not None), None)

    @property
    def idle(self) -> bool:
        """Whether nobody waits for an answer of it any more."""
        return all(entry is None or entry[0].done() for entry in self.flying)

    def abort(self) -> None:
        """Break the connection now, without a goodbye."""
        if self.transport is not None:
            self.transport.abort()

    def _fail(self, why: str) -> None:
        for entry in self.flying:
            if entry is not None and not entry[0].done():
                entry[0].set_exception(unanswered(self.owner.name, why, read=entry[2]))
        self.flying.clear()
