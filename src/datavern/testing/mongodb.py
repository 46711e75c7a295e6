"""A server that speaks MongoDB's wire protocol, for as long as it is needed.

It is the one of the `SecantusDB` wheel: MongoDB 8's commands over WiredTiger, one node, seen by drivers as a replica
set of one, with transactions, change streams, TLS, SCRAM, and failures that can be ordered (``configureFailPoint``). It
has no second member and no shards. The wheel is under the GPL: it runs as a process of its own, for tests and the demo,
and nothing of Datavern imports it.

A watchdog is the server's parent: when the program that asked for the server goes away, however it goes, the server is
killed and reaped, and its folder is removed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from datavern.contracts.errors import ConfigurationError
from datavern.testing.proxy import Certificates
from datavern.testing.watchdogs import finish

__all__ = ["ENVIRONMENT", "MongoDBServer", "available"]

ENVIRONMENT = "DATAVERN_TEST_MONGODB"
"""Names a server to use instead of an ephemeral one: a URI of a user who may create databases."""

_START_DEADLINE = 30.0

# The server's parent. It says the server's process id on its standard output. One letter on its standard input says how
# the server ends: "k" kills it and keeps the folder, "t" asks it to end and keeps the folder; anything else, or the end
# of the input, kills it and removes the folder. Arguments: folder, command…
_WATCHDOG = """
import os, select, shutil, signal, subprocess, sys
folder, command = sys.argv[1], sys.argv[2:]
with open(os.path.join(folder, "server.log"), "ab") as log:
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
os.write(1, b"%d\\n" % server.pid)
order = b""
while server.poll() is None:
    ready, _, _ = select.select([0], [], [], 0.2)
    if ready:
        order = os.read(0, 1)
        break
os.close(1)
if not order and server.poll() is not None:
    order = os.read(0, 1)
if order == b"t":
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        pass
server.kill()
server.wait()
if order not in (b"k", b"t"):
    shutil.rmtree(folder, ignore_errors=True)
"""


def available() -> bool:
    """Whether the wheel is installed."""
    return importlib.util.find_spec("secantus") is not None


class MongoDBServer:
    """A server of one's own, or one that somebody else runs. Synchronous: it belongs to no event loop.

        with MongoDBServer() as server:
            server.uri("app")

    Args:
        given: URI of a server that is there already; it is neither started nor stopped. None: start one.
        tls: speak TLS only, with a certificate from an authority made for the purpose (`ca_file`).
        names: what the certificate is for.
        client_certificates: with `tls`: turn away clients that show no certificate of that authority.
        auth: ask for a user and password (`username`, `password`).
        durable: flush each commit to the disk, so that `halt(immediate=True)` loses nothing that was acknowledged.
        replica_set: show itself as the primary of the replica set ``secantus``; otherwise as a server alone.

    Attributes:
        port: where it listens, on ``127.0.0.1``.
        username: of the user that `auth` makes; may do everything.
        password: the user's.

    Raises:
        ConfigurationError: on `start`: the wheel is not installed, or the server does not come up (with its log's end).
    """

    replica_set_name = "secantus"

    def __init__(
        self,
        given: str | None = None,
        *,
        tls: bool = False,
        names: Iterable[str] = ("localhost", "127.0.0.1"),
        client_certificates: bool = False,
        auth: bool = False,
        durable: bool = False,
        replica_set: bool = True,
    ) -> None:
        self._given = None if given is None else urlsplit(given)
        self._tls = tls
        self._names = tuple(names)
        self._client_certificates = client_certificates
        self._auth = auth
        self._durable = durable
        self._replica_set = replica_set
        self._folder: Path | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._finalizer: Any = None
        self.certificates: Certificates | None = None
        self.pid = 0
        self.port = 0 if self._given is None else (self._given.port or 27017)
        self.username = "datavern"
        self.password = secrets.token_urlsafe(12)

    def uri(self, database: str = "", **options: object) -> str:
        """Its URI, with the user where there is one, and ``tls=true`` where it speaks TLS.

        Args:
            database: the database in the path.
            options: more of the URI's options, by their names.
        """
        if self._given is not None:
            more = {**dict(parse_qsl(self._given.query)), **options}
            return urlunsplit(self._given._replace(path="/" + quote(database), query=_query(more)))
        who = f"{self.username}:{quote(self.password)}@" if self._auth else ""
        known: dict[str, object] = {"authSource": "admin"} if self._auth else {}
        if self._tls:
            known |= {"tls": "true", "tlsCAFile": self.ca_file}
        query = _query({**known, **options})
        return f"mongodb://{who}127.0.0.1:{self.port}/{quote(database)}" + (f"?{query}" if query else "")

    @property
    def ca_file(self) -> str:
        """PEM file of the authority behind its certificate. Only with ``tls=True``."""
        if self.certificates is None:
            raise ConfigurationError("the server was made without tls=True, or is not started")
        return self.certificates.ca_file

    @property
    def folder(self) -> Path | None:
        """Where its data is; None when it is not started, or somebody else's."""
        return self._folder

    @property
    def log(self) -> str:
        """What the server wrote to its log."""
        return "" if self._folder is None else (self._folder / "server.log").read_text(errors="replace")

    # ---- starting and stopping --------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it. Idempotent. A server that was stopped with `halt` comes back with its data, on its port."""
        if self._watchdog is not None or self._given is not None:
            return self
        if not available():
            raise ConfigurationError("no MongoDB server to run: pip install SecantusDB")
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="datavern-mongodb-"))
            (self._folder / "secantusd.toml").touch()  # so that no other configuration file is looked for
            if self._tls:
                self.certificates = Certificates.make(self._folder / "tls", self._names)
            if self._auth:
                self._add_user()
        self._launch(auth=self._auth)
        return self

    def halt(self, *, immediate: bool = False) -> None:
        """Stop the server and keep its data: `start` brings it back. `immediate` kills it, as a crash would."""
        self._end(b"k" if immediate else b"t")
        folder = self._folder
        if folder is not None:
            self._finalizer = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def stop(self) -> None:
        """Kill it and remove its folder. Idempotent."""
        self._end(b"")
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _launch(self, *, auth: bool) -> None:
        for _ in range(5):  # somebody else may take a free port before the server does
            self.port = self.port or _free_port()
            if self._comes_up(auth=auth):
                return
            end = self.log[-1500:]
            self._end(b"k")
            self.port = 0
        self.stop()
        raise ConfigurationError(f"the MongoDB server did not start; the end of its log:\n{end}")

    def _comes_up(self, *, auth: bool) -> bool:
        folder = self._folder
        assert folder is not None  # noqa: S101  (for the type checker: start made it)
        command = [sys.executable, "-m", "secantus", "--config", "secantusd.toml", "--port", str(self.port)]
        command += ["--storage-path", "data", "--cache-size", "256M", "--enable-test-commands"]
        command += ["--auth"] if auth else []
        command += ["--sync-on-commit"] if self._durable else []
        command += [] if self._replica_set else ["--standalone"]
        if self.certificates is not None:
            made = self.certificates
            command += ["--tls-cert-file", made.cert_file, "--tls-key-file", made.key_file]
            command += ["--tls-ca-file", made.ca_file] if self._client_certificates else []
            command += ["--tls-require-client-cert"] if self._client_certificates else []
        # A session of its own: Ctrl-C in the terminal is for the program, which then lets the server go.
        watchdog = subprocess.Popen(  # noqa: S603  (this Python, running the wheel's module)
            [sys.executable, "-I", "-S", "-c", _WATCHDOG, str(folder), *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        assert watchdog.stdout is not None  # noqa: S101  (for the type checker: it was made with pipes)
        self._watchdog = watchdog
        self._finalizer = weakref.finalize(self, _finish, watchdog, folder)
        self.pid = int(watchdog.stdout.readline() or b"0")
        deadline = time.monotonic() + _START_DEADLINE
        while time.monotonic() < deadline and watchdog.poll() is None and self.pid:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
                return True
            time.sleep(0.01)
        return False

    def _end(self, order: bytes) -> None:
        watchdog, self._watchdog = self._watchdog, None
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
        if watchdog is not None:
            finish(watchdog, order)
        self.pid = 0

    def _add_user(self) -> None:
        """The server makes no exception for its own machine: the first user is added before it asks for one."""
        from pymongo import MongoClient  # noqa: PLC0415  (the tests of other engines run without the driver)

        tls: Any = {} if self.certificates is None else {"tls": True, "tlsCAFile": self.ca_file}
        self._launch(auth=False)
        with MongoClient[Any]("127.0.0.1", self.port, directConnection=True, **tls) as client:
            client.admin.command("createUser", self.username, pwd=self.password, roles=["root"])
        self._end(b"t")


def _finish(watchdog: subprocess.Popen[bytes], folder: Path) -> None:
    finish(watchdog, b"")
    shutil.rmtree(folder, ignore_errors=True)


def _query(options: Mapping[str, object]) -> str:
    return "&".join(f"{name}={quote(str(value), safe=':,')}" for name, value in options.items())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
