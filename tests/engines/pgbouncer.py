"""A PgBouncer of one's own before a server, where there is one: named by DATAVERN_TEST_PGBOUNCER, or on the PATH."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

__all__ = ["PgBouncer", "program"]


def program() -> str | None:
    """The program's path, if it is there."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which(os.environ.get("DATAVERN_TEST_PGBOUNCER", "pgbouncer"), path=path)


def version(path: str) -> tuple[int, int]:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = said.split()[1].split(".")[:2]
    return int(major), int(minor)


class PgBouncer:
    """``with PgBouncer(server.url) as bouncer: bouncer.port``.

    Args:
        url: of the server, with its user and password.
        mode: transaction or session.
        users: name → password of further users.
        sessions: how many it keeps to the server, for all clients.
        options: further lines of its configuration.
    """

    def __init__(
        self,
        url: str,
        *,
        mode: str = "transaction",
        users: dict[str, str] | None = None,
        sessions: int = 3,
        **options: Any,
    ) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._users = {parts.username or "postgres": parts.password or "", **(users or {})}
        self._options = {"pool_mode": mode, "default_pool_size": sessions, **options}
        self.port = 0

    def __enter__(self) -> Self:
        path = program()
        assert path is not None
        self._folder = Path(tempfile.mkdtemp(prefix="datavern-pgbouncer-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        lines = {
            "listen_addr": "127.0.0.1", "listen_port": self.port, "unix_socket_dir": "", "auth_type": "plain",
            "auth_file": self._folder / "users", "logfile": self._folder / "log", "max_client_conn": 200,
            "server_login_retry": 1, **self._options,
        }  # fmt: skip
        host, port = self._server
        config = [f"[databases]\n* = host={host} port={port}\n[pgbouncer]", *(f"{k} = {v}" for k, v in lines.items())]
        (self._folder / "ini").write_text("\n".join(config) + "\n")
        (self._folder / "users").write_text("".join(f'"{name}" "{word}"\n' for name, word in self._users.items()))
        command = [path, str(self._folder / "ini")]
        if os.getuid() == 0:  # which it refuses to be
            command[1:1] = ["-u", "nobody"]
            for name in (self._folder, *self._folder.iterdir()):
                shutil.chown(name, "nobody")
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                break
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = self._folder / "log"
                    raise RuntimeError(
                        f"PgBouncer does not come up: {log.read_text() if log.exists() else ''}"
                    ) from None
                time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
