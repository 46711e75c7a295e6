"""TLS for python-tds, verified as every other connection here is.

TDS 7 wraps the handshake in packets of its own ("PRELOGIN"), and goes on with bare TLS. python-tds does that with
pyOpenSSL, and looks for the host's name with calls that pyOpenSSL no longer has. So it is given a socket that does it
for it: the driver believes that it speaks to a server without TLS, while this socket asks the server for encryption,
takes no other answer, and verifies certificate and name with the standard library before anything else is sent.

Source: MS-TDS 2.2.6.5 (PRELOGIN) and 3.2.5.2.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from typing import Any, Final

from datavern.config import TLS
from datavern.engines.tls import client_context

__all__ = ["NoEncryption", "TDSSocket", "tls_context"]

_HEADER: Final = struct.Struct(">BBHHBB")
_PRELOGIN: Final = 0x12
_ENCRYPTION: Final = 0x01
_TERMINATOR: Final = 0xFF
_ON: Final = 0x01
_REQUIRED: Final = 0x03
_NOT_SUPPORTED: Final = 0x02
_LARGEST: Final = 4096
_RESET: Final = 0x08
_CHUNK: Final = 65536


class NoEncryption(Exception):
    """The server does not speak TLS."""


def tls_context(tls: TLS, path: str) -> ssl.SSLContext:
    """What the handshake is made with.

    Raises:
        ConfigurationError: a file that cannot be read, or does not hold what it should.
    """
    context = client_context(tls, path, ssl.SSLContext)
    # TLS 1.3 goes on talking after its handshake, where TDS 7 expects packets of its own: 1.2 it is.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


class TDSSocket:
    """A socket to one server, for `pytds`. Reads on one thread; `interrupt` may write from another.

    Args:
        connected: the TCP connection.
        context: see `tls_context`.
        server_name: the name that the server's certificate must hold.
    """

    def __init__(self, connected: socket.socket, context: ssl.SSLContext, server_name: str) -> None:
        self._socket = connected
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._lock = threading.Lock()  # of the TLS state, and of what is written: records go out in their order
        self._secured = False
        self._resetting = False
        self._waiting = bytearray()  # the server's answer to PRELOGIN, until it has been read

    # ---- what pytds calls -------------------------------------------------------------------------------------------

    def sendall(self, data: Any, flags: int = 0) -> None:  # noqa: ARG002  (a socket has them)
        """Send all of it."""
        if not self._secured:
            self._negotiate(bytes(data))
            return
        packet = bytearray(data)
        if self._resetting:  # in the head of a request's first packet
            self._resetting = False
            packet[1] |= _RESET
        with self._lock:
            self._tls.write(bytes(packet))
            self._socket.sendall(self._outgoing.read())

    def recv(self, size: int, flags: int = 0) -> bytes:  # noqa: ARG002  (a socket has them)
        """Some bytes; none at the end."""
        if self._waiting:
            found = bytes(self._waiting[:size])
            del self._waiting[:size]
            return found
        while True:
            with self._lock:
                try:
                    return self._tls.read(size)
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLEOFError:
                    return b""
            data = self._socket.recv(_CHUNK)
            with self._lock:
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:  # noqa: ARG002  (a socket has them)
        """The same, into a buffer; how many."""
        data = self.recv(size or len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def settimeout(self, seconds: float | None) -> None:
        """Of every wait of the socket."""
        self._socket.settimeout(seconds)

    def gettimeout(self) -> float | None:
        """Of every wait of the socket."""
        return self._socket.gettimeout()

    def close(self) -> None:
        """Let go."""
        self._socket.close()

    def shutdown(self, how: int = socket.SHUT_RDWR) -> None:
        """From any thread: whoever waits for the server hears that it is gone."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(how)

    def reset_session(self) -> None:
        """Ask the server to make the session as new before it does the next request (MS-TDS 2.2.3.1.2)."""
        self._resetting = True

    # ---- the handshake ----------------------------------------------------------------------------------------------

    def _negotiate(self, prelogin: bytes) -> None:
        """Ask for encryption in the driver's place, and shake hands."""
        self._socket.sendall(_with_encryption(prelogin, _ON))
        answer = self._packet()
        if _encryption(answer) not in {_ON, _REQUIRED}:
            raise NoEncryption
        self._shake_hands()
        self._secured = True
        self._waiting += _with_encryption(answer, _NOT_SUPPORTED)

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._send_wrapped()
                self._incoming.write(self._packet()[_HEADER.size :])
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._send_wrapped()  # the alert that says why
                raise
            else:
                self._send_wrapped()
                return

    def _send_wrapped(self) -> None:
        while data := self._outgoing.read(_LARGEST - _HEADER.size):
            last = not self._outgoing.pending
            head = _HEADER.pack(_PRELOGIN, 1 if last else 0, _HEADER.size + len(data), 0, 0, 0)
            self._socket.sendall(head + data)

    def _packet(self) -> bytes:
        head = self._exactly(_HEADER.size)
        length = _HEADER.unpack(head)[2]
        if length < _HEADER.size:
            raise ConnectionError("not a packet of TDS")
        return head + self._exactly(length - _HEADER.size)

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            data = self._socket.recv(size - len(found))
            if not data:
                raise ConnectionError("the server closed the connection")
            found += data
        return bytes(found)


def _place_of_encryption(packet: bytes) -> int | None:
    """Where in a PRELOGIN packet the byte stands that says what is encrypted."""
    at = _HEADER.size
    while at + 5 <= len(packet) and packet[at] != _TERMINATOR:
        option, offset, length = struct.unpack_from(">BHH", packet, at)
        if option == _ENCRYPTION and length and _HEADER.size + offset < len(packet):
            return int(_HEADER.size + offset)
        at += 5
    return None


def _encryption(packet: bytes) -> int | None:
    place = _place_of_encryption(packet)
    return None if place is None else packet[place]


def _with_encryption(packet: bytes, wanted: int) -> bytes:
    place = _place_of_encryption(packet)
    if place is None:
        raise ConnectionError("not a PRELOGIN packet of TDS")
    return packet[:place] + bytes([wanted]) + packet[place + 1 :]
