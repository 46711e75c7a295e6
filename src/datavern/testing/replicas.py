"""Streaming replicas of a `PostgreSQLServer`, and what happens to servers: promoted, demoted, killed, frozen.

``with PostgreSQLServer() as server, PostgreSQLReplica(server) as replica: replica.promote()``. Synchronous, as the
server is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from datavern.contracts.errors import ConfigurationError
from datavern.testing.postgresql import PostgreSQLServer

__all__ = ["PostgreSQLReplica", "demote", "freeze", "kill", "processes", "thaw"]


class PostgreSQLReplica(PostgreSQLServer):
    """A physical copy of another server, made with pg_basebackup, that follows it.

    Args:
        of: the server that is copied; started, and one of `PostgreSQLServer`'s own.
        name: what the other calls it (``synchronous_standby_names``).
        port: another way to the server that is copied than its own port (a proxy).
        settings: server settings, beside those that the copy brings.

    Raises:
        ConfigurationError: on `start`: the copy could not be made, or the server does not come up.
    """

    def __init__(
        self, of: PostgreSQLServer, *, name: str = "replica", port: int = 0, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(settings=settings)
        self._of = of
        self._name = name
        self._through = port
        self._password = of.password or ""

    def _initialise(self, folder: Path, binaries: Path) -> None:
        of = self._of
        if of._folder is None:  # noqa: SLF001  (the same family)
            raise ConfigurationError("PostgreSQLReplica: the server to copy is not started, or is somebody else's")
        try:
            self._install = self._reachable(binaries, folder)
            self._copy(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            self._folder = None
            raise

    def _copy(self, folder: Path) -> None:
        assert self._install is not None  # noqa: S101  (for the type checker: the callers set it)
        command = [
            str(self._install / "pg_basebackup"), "-D", str(folder / "data"), "-d", self._line(self._of), "-R",
            "-X", "stream", "-c", "fast", "--no-sync",
        ]  # fmt: skip
        self._ran(command, folder)
        for left in ("server.log", "postmaster.pid"):
            (folder / "data" / left).unlink(missing_ok=True)

    def _line(self, of: PostgreSQLServer) -> str:
        """How to connect to the other server."""
        who = f"postgres:{quote(of.password or '', safe='')}"
        return f"postgresql://{who}@127.0.0.1:{self._through or of.port}/?application_name={self._name}"

    def _ran(self, command: list[str], folder: Path) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, **self._who)  # noqa: S603  (our own binaries)
        if done.returncode != 0:
            tool = Path(command[0]).name
            said = done.stderr.replace(quote(self._password, safe=""), "***")
            raise ConfigurationError(f"{tool} failed:\n{said[-1500:]}")

    # ---- what happens to it -----------------------------------------------------------------------------------------

    def promote(self, *, wait: bool = True) -> None:
        """Let it take writes, on a timeline of its own. Returns when it does, or at once without `wait`."""
        assert self._install is not None  # noqa: S101  (for the type checker: _make set it)
        folder = self._folder_made()
        flag = "-w" if wait else "-W"
        self._ran([str(self._install / "pg_ctl"), "promote", "-D", str(folder / "data"), flag, "-t", "30"], folder)

    def follow(self, of: PostgreSQLServer) -> None:
        """Make it a copy of `of` again, from wherever it went: it stops, is made anew, and starts on its port."""
        self._of = of
        if self._watchdog is not None:
            self.halt(immediate=True)
        folder = self._folder_made()
        shutil.rmtree(folder / "data", ignore_errors=True)
        self._copy(folder)
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self


def processes(server: PostgreSQLServer) -> list[int]:
    """The server's processes, the first of them before those that it made."""
    first = server.pid
    if first is None:
        raise ConfigurationError("the server does not run, or is somebody else's")
    return [first, *_children(first)]


def kill(server: PostgreSQLServer) -> None:
    """SIGKILL to every process of it, at once, as when the machine goes. `server.start()` brings it back."""
    pids = processes(server)
    with _stopped(pids):  # so that none does anything, or makes another, while the rest are killed
        for pid in [*pids, *_children(pids[0])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    server.gone()


def freeze(server: PostgreSQLServer) -> None:
    """SIGSTOP to every process of it: sockets stay open, and nothing answers. `thaw` lets it go on."""
    for pid in processes(server):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)


def thaw(server: PostgreSQLServer) -> None:
    """Let a server that was frozen go on."""
    for pid in reversed(processes(server)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def demote(server: PostgreSQLServer, *, back: bool = False) -> None:
    """Let it take no writes any more, sessions that are open included, and keep their sockets; `back`: take them."""
    import asyncpg  # noqa: PLC0415  (only where it is needed)

    connection: Any = await asyncpg.connect(server.url)
    try:
        value = "off" if back else "on"
        await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


@contextlib.contextmanager
def _stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    yield


def _children(first: int) -> list[int]:
    """Processes whose parent that is: a server's are all of its first one's making."""
    if os.path.isdir("/proc/self"):  # noqa: PTH112  (Linux)
        found = []
        for entry in os.listdir("/proc"):  # noqa: PTH208  (names are what is needed)
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    stat = Path("/proc", entry, "stat").read_text(errors="replace")
                    if int(stat.rpartition(")")[2].split()[1]) == first:
                        found.append(int(entry))
        return found
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False)  # noqa: S607  (wherever it is)
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return [int(pair[0]) for pair in pairs if len(pair) == 2 and int(pair[1]) == first]  # noqa: PLR2004  (both numbers)
