"""Making a connection: where the server is, TLS, and signing in."""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from datavern.contracts.errors import ConnectionFailed, ProviderError
from datavern.engines.redis.errors import connecting
from datavern.engines.redis.settings import Address, RedisSettings
from datavern.engines.redis.wire import Owner, Wire
from datavern.engines.tls import client_context

__all__ = ["Connector", "shown_address"]

_SENTINEL_DEADLINE = 1.0
"""Seconds that one Sentinel gets before the next is asked."""


class Connector:
    """Makes connections as the settings say.

    Args:
        settings: the provider's.

    Raises:
        ConfigurationError: a certificate file cannot be read.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        tls = settings.effective_tls
        self._tls = None if tls.verify == "off" else client_context(tls, f"{settings.name}.tls", ssl.SSLContext)
        self._password: Any = None

    async def to_server(self, owner: Owner) -> Wire:
        """To the one server; where Sentinels watch, to the primary that they name.

        Raises:
            ConnectionFailed: says what to do about it.
        """
        settings = self._settings
        if settings.sentinel is None:
            return await self.to(owner, (settings.host, settings.port))
        address = await self._ask_sentinels()
        wire = await self.to(owner, address)
        # A Sentinel may be behind: the server itself has the last word (https://redis.io/docs, Sentinel clients).
        if wire.hello.get(b"role") != b"master":
            wire.abort()
            raise ConnectionFailed(
                f"{settings.name}: the Sentinels name {shown_address(address)} as the primary of "
                f"{settings.sentinel.service}, and it is none (yet)",
                provider=settings.name,
            )
        return wire

    async def to(self, owner: Owner, address: Address) -> Wire:
        """To that address, signed in.

        Raises:
            ConnectionFailed: says what to do about it.
        """
        settings = self._settings
        password = None
        if settings.password is not None:
            password = settings.password.reveal()
            if inspect.isawaitable(password):
                password = await password
        hello: tuple[Any, ...] = (b"HELLO", b"3")
        if password is not None:
            hello += (b"AUTH", settings.username or "default", password)
        commands = [(*hello, b"SETNAME", settings.client_name)]
        if settings.database:
            commands.append((b"SELECT", settings.database))
        return await self._open(owner, address, commands, settings.connect_timeout)

    async def _open(self, owner: Owner, address: Address, commands: Sequence[tuple[Any, ...]], deadline: float) -> Wire:
        name, wire, failure = self._settings.name, None, None
        try:
            async with asyncio.timeout(deadline):
                wire = await self._dial(owner, address)
                answers = wire.ask(*commands)
                wire.hello = (await asyncio.gather(*answers))[0]
        except (OSError, ProviderError, ssl.SSLError) as error:  # TimeoutError is an OSError
            failure = connecting(error, provider=name, where=shown_address(address), tls=self._tls is not None)
        except BaseException:
            if wire is not None:
                wire.abort()
            raise
        if failure is not None:
            if wire is not None:
                wire.abort()
            raise failure
        assert wire is not None  # noqa: S101  (for the type checker: without a failure there is one)
        return wire

    async def _dial(self, owner: Owner, address: Address) -> Wire:
        host, port = address
        tls = self._settings.effective_tls
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(
            lambda: Wire(owner),
            host,
            port,
            ssl=self._tls,
            server_hostname=(tls.server_name or host) if self._tls is not None else None,
        )
        plain = wire.transport.get_extra_info("socket")
        if plain is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return wire

    async def _ask_sentinels(self) -> Address:
        """Where the primary is: the first Sentinel that knows it."""
        sentinel, name = self._settings.sentinel, self._settings.name
        assert sentinel is not None  # noqa: S101  (for the type checker: the caller looked)
        hello: tuple[Any, ...] = (b"HELLO", b"3")
        if sentinel.password is not None:
            hello += (b"AUTH", sentinel.username or "default", sentinel.password.reveal())
        ask = (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", sentinel.service)
        last = "none of them knows the service"
        for node in sentinel.nodes:
            try:
                wire = await self._open(_Asking(name), node, [hello], _SENTINEL_DEADLINE)
            except ConnectionFailed as error:
                last = str(error)
                continue
            try:
                async with asyncio.timeout(_SENTINEL_DEADLINE):
                    found = await wire.ask(ask)[0]
            except (ProviderError, TimeoutError) as error:
                last = str(error) or f"{shown_address(node)} did not answer in time"
                continue
            finally:
                wire.abort()
            if found:
                return found[0].decode(), int(found[1])
        raise ConnectionFailed(
            f"{name}: no Sentinel names a primary of {sentinel.service}: {last.removeprefix(f'{name}: ')}",
            provider=name,
        )


class _Asking:
    """Who owns a connection that is closed again at once."""

    def __init__(self, name: str) -> None:
        self.name = name

    def lost(self, wire: Wire) -> None:
        """As it should."""

    def resumed(self, wire: Wire) -> None:
        """Nothing waits."""

    def outdated(self, wire: Wire) -> None:
        """It is closed in a moment."""

    def pushed(self, wire: Wire, message: list[Any]) -> None:
        """Nobody listens."""

    def refused(self, wire: Wire, error: ProviderError) -> None:
        """Nothing of the kind is asked."""


def shown_address(address: Address) -> str:
    """Host and port in one text."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
