"""A TCP proxy that cuts, resets, freezes, delays and refuses, and speaks TLS as PostgreSQL does.

For tests of what networks do: at random, and at the very moment that matters (`TCPProxy.strike`).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

__all__ = ["Certificates", "TCPProxy"]

_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""PostgreSQL protocol, "SSLRequest": length 8, code 80877103."""


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority made for the purpose, and a server's certificate from it.

    Attributes:
        ca_file: certificate of the authority.
        cert_file: certificate of the server.
        key_file: its key.
    """

    ca_file: str
    cert_file: str
    key_file: str

    @classmethod
    def make(cls, folder: Path, names: Iterable[str]) -> Certificates:
        """New ones in `folder`, for those host names and addresses, valid for a day."""
        from cryptography import x509  # noqa: PLC0415  (only with TLS)
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
        from cryptography.x509.oid import NameOID  # noqa: PLC0415

        def name(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
            return key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )

        now = dt.datetime.now(dt.UTC)
        start, end = now - dt.timedelta(hours=1), now + dt.timedelta(days=1)
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        authority, server = name("Datavern test authority"), name("Datavern test server")
        ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
        unused = "content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only"
        usage: dict[str, Any] = dict.fromkeys(unused.split(), False)
        ca = (
            x509.CertificateBuilder(authority, authority, ca_key.public_key(), x509.random_serial_number(), start, end)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), critical=True
            )
            .add_extension(ca_id, critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        cert = (
            x509.CertificateBuilder(authority, server, key.public_key(), x509.random_serial_number(), start, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([_general_name(x509, n) for n in names]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = cls(str(folder / "ca.pem"), str(folder / "server.pem"), str(folder / "server.key"))
        Path(made.ca_file).write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        Path(made.cert_file).write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        Path(made.key_file).write_bytes(key_pem(key))
        Path(made.key_file).chmod(0o600)
        return made


def _general_name(x509: Any, text: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert_file, certificates.key_file)
    return context


Moment = Literal["before", "after", "midway"]


class _Struck(Exception):
    """The connection's last moment has come."""


class _Link:
    """A connection through the proxy."""

    def __init__(self, *, flowing: bool) -> None:
        self.flowing = asyncio.Event()
        if flowing:
            self.flowing.set()
        self.moment: Moment | None = None
        """It was struck, and ends with the server's next answer."""
        self.sockets: list[socket.socket] = []


class TCPProxy:
    """Listens on a port of this machine and passes everything on, until it is told not to.

    Synchronous, with a thread and a loop of its own, so that freezing it does not freeze the test.

    Args:
        host: where to pass it on to.
        port: the port there.
        certificates: speak TLS to the client with them.
        greeting: the client first asks for TLS as PostgreSQL's do (SSLRequest); False: TLS from the first byte.

    Attributes:
        port: where it listens.
        accepted: connections that came so far.
        struck: of them, those that `strike` ended.
        held: pieces that came and are not passed on, at this moment, because it is frozen.
    """

    def __init__(
        self, host: str, port: int, *, certificates: Certificates | None = None, greeting: bool = True
    ) -> None:
        self._target = (host, port)
        self._certificates = certificates
        self._greeting = greeting
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], _Link] = {}
        self._flowing = True  # for those who come
        self._refusing = False
        self._delay = 0.0
        self._strikes: list[tuple[bytes, Moment]] = []
        self.port = 0
        self.accepted = 0
        self.struck = 0
        self.held = 0

    def start(self) -> Self:
        """Listen. Idempotent."""
        if self._thread is not None:
            return self
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop, ready), name="datavern-proxy", daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def stop(self) -> None:
        """Cut everything and stop listening. Idempotent."""
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def freeze(self, *, newcomers: bool = True) -> None:
        """Pass nothing on any more, in either direction; connections stay open.

        Args:
            newcomers: new connections are taken and starved, too; False: only those that are open now are frozen, as
                where a firewall has forgotten them.
        """
        self._call(lambda: self._freeze(newcomers=newcomers))

    def thaw(self) -> None:
        """Pass on again, what was held back first."""
        self._call(self._thaw)

    def delay(self, seconds: float) -> None:
        """Hold back each piece for so long, in either direction, from here on. 0: not any more."""
        self._delay = seconds

    def cut(self) -> None:
        """Break every connection that is open now, as a network does: without a goodbye."""
        self._call(self._cut)

    def reset(self) -> None:
        """Break every connection that is open now with a reset (RST), as a server's machine does that has restarted."""
        self._call(lambda: self._cut(reset=True))

    def strike(self, mark: bytes, moment: Moment) -> None:
        """Break the next connection whose client sends these bytes, once, at that moment.

        Args:
            mark: part of a statement or of a value, as it goes over the wire, in one piece.
            moment: "before": the server never gets it; "after": the server has answered, and the client never gets
                that; "midway": the client gets a part of the answer.
        """
        self._strikes.append((mark, moment))

    def refuse(self, *, refusing: bool = True) -> None:
        """Break new connections as they come (or stop doing so)."""
        self._refusing = refusing

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _call(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._loop is not None:  # a stopped proxy has nothing to freeze
            asyncio.run_coroutine_threadsafe(work(), self._loop).result()

    def _run(self, loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        context = None
        if self._certificates is not None and not self._greeting:
            context = _context(self._certificates)
            loop.set_exception_handler(lambda *_: None)  # a client that does not like the certificate is no news here
        self._server = loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=context))
        self.port = self._server.sockets[0].getsockname()[1]
        ready.set()
        loop.run_forever()
        loop.run_until_complete(self._end(self._server))

    async def _freeze(self, *, newcomers: bool) -> None:
        self._flowing = not newcomers
        for link in self._links.values():
            link.flowing.clear()

    async def _thaw(self) -> None:
        self._flowing = True
        for link in self._links.values():
            link.flowing.set()

    async def _cut(self, *, reset: bool = False) -> None:
        tasks = list(self._links)
        if reset:
            for link in self._links.values():
                _reset_on_close(link)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self, server: asyncio.Server) -> None:
        """Let go of every connection, those too that were accepted a moment ago and have not been looked at yet."""
        self._refusing = True
        for _ in range(100):
            await self._cut()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if not others:
                break
            await asyncio.wait(others, timeout=0.1)
        server.close()  # not earlier: asyncio forgets what it has accepted for a server that is closed
        await asyncio.sleep(0)  # what was aborted is closed in the loop's next turn

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refusing:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (for the type checker: a coroutine runs in a task)
        link = self._links[task] = _Link(flowing=self._flowing)
        link.sockets.append(writer.get_extra_info("socket"))
        onward: asyncio.StreamWriter | None = None
        try:
            back, onward = await asyncio.open_connection(*self._target)
            link.sockets.append(onward.get_extra_info("socket"))
            if self._certificates is not None and self._greeting:
                await self._start_tls(reader, writer, onward)
            await asyncio.gather(self._ask(reader, onward, link), self._answer(back, writer, link))
        except _Struck:
            self.struck += 1
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # either end is gone, or the test cut it: that is what this proxy is for
        finally:
            self._links.pop(task, None)
            writer.transport.abort()
            if onward is not None:
                onward.transport.abort()

    async def _start_tls(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, onward: asyncio.StreamWriter
    ) -> None:
        assert self._certificates is not None  # noqa: S101  (for the type checker: the caller looked)
        first = await reader.readexactly(len(_SSL_REQUEST))
        if first != _SSL_REQUEST:  # a client that does not ask for TLS
            onward.write(first)
            return
        writer.write(b"S")
        await writer.start_tls(_context(self._certificates))

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
        """From the client to the server."""
        while data := await self._next(reader, link):
            for strike in self._strikes:
                if strike[0] in data:
                    self._strikes.remove(strike)
                    link.moment = strike[1]
                    break
            if link.moment == "before":
                raise _Struck
            writer.write(data)
            await writer.drain()
        await _end(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
        """From the server to the client."""
        while data := await self._next(reader, link):
            if link.moment == "midway":
                writer.write(data[: max(1, len(data) // 2)])
                await writer.drain()
                await asyncio.sleep(0.01)  # what is in the socket goes out before it is closed
            if link.moment is not None:
                raise _Struck
            writer.write(data)
            await writer.drain()
        await _end(writer)

    async def _next(self, reader: asyncio.StreamReader, link: _Link) -> bytes:
        data = await reader.read(65536)
        if self._delay:
            await asyncio.sleep(self._delay)
        if not link.flowing.is_set():
            self.held += 1
            try:
                await link.flowing.wait()
            finally:
                self.held -= 1
        return data


async def _end(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()


def _reset_on_close(link: _Link) -> None:
    for end in link.sockets:
        with contextlib.suppress(OSError):  # closed already
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
