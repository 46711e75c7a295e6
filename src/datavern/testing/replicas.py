"""Streaming replicas of a `PostgreSQLServer`, and what happens to servers: promoted, demoted, killed, frozen.

``with PostgreSQLServer() as server, PostgreSQLReplica(server) as replica: kill(server); promote(replica)``. All of it
is synchronous, as the server is, but for `demote`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from datavern.contracts.errors import ConfigurationError
from datavern.testing.postgresql import PostgreSQLServer

__all__ = ["STANDBY", "PostgreSQLReplica", "demote", "follow", "freeze", "kill", "processes", "promote", "thaw"]

STANDBY = "standby"
"""What a replica is called by the server that it follows (``synchronous_standby_names``)."""


class PostgreSQLReplica(PostgreSQLServer):
    """A physical copy of another server, made with pg_basebackup, that follows it.

    Args:
        of: the server that is copied; started, and one of `PostgreSQLServer`'s own.
        settings: server settings, beside those that the copy brings.

    Raises:
        ConfigurationError: on `start`: the copy could not be made, or the server does not come up.
    """

    def __init__(self, of: PostgreSQLServer, *, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(settings=settings)
        self._of = of
        self._password = of.password or ""

    def _initialise(self, folder: Path, binaries: Path) -> None:
        try:
            self._install = self._reachable(binaries, folder)
            _copy(self._of, self)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            self._folder = None
            raise


def _copy(of: PostgreSQLServer, to: PostgreSQLServer) -> None:
    """Copy the data of a server that runs into the folder of one that does not, so that it follows the first."""
    if of.pid is None:
        raise ConfigurationError("the server to copy is not started, or is somebody else's")
    line = f"postgresql://postgres:{quote(of.password or '', safe='')}@127.0.0.1:{of.port}/?application_name={STANDBY}"
    data = to.data
    _run(to, "pg_basebackup", "-D", str(data), "-d", line, "-R", "-X", "stream", "-c", "fast", "--no-sync")
    (data / "server.log").unlink(missing_ok=True)


def _run(server: PostgreSQLServer, tool: str, *arguments: str) -> None:
    done = server.run(tool, *arguments)
    if done.returncode != 0:
        said = done.stderr.replace(quote(server.password or "-", safe=""), "***")
        raise ConfigurationError(f"{tool} failed:\n{said[-1500:]}")


def promote(server: PostgreSQLServer, *, wait: bool = True) -> None:
    """Let a replica take writes, on a timeline of its own. Returns when it does; at once without `wait`."""
    _run(server, "pg_ctl", "promote", "-D", str(server.data), "-w" if wait else "-W", "-t", "30")


def follow(server: PostgreSQLServer, of: PostgreSQLServer) -> None:
    """Make a server a copy of another, whatever it was: it is stopped, made anew, and started on its port."""
    if server.pid is not None:
        server.halt(immediate=True)
    shutil.rmtree(server.data, ignore_errors=True)
    _copy(of, server)
    server.start()


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
