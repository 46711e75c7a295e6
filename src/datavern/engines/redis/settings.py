"""Settings of the Redis engine, and what a ``redis://`` URL means."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from datavern.config import STRICT, TLS, ProviderSettings, Secret
from datavern.contracts.errors import ConfigurationError
from datavern.engines.hosts import is_this_machine
from datavern.engines.urls import split_url

__all__ = ["Address", "RedisSettings", "Sentinel", "life", "normalised", "parse_url"]

Address = tuple[str, int]

_LIFE = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)min)?(?:(\d+)s)?")
_UNITS = (7 * 86_400, 86_400, 3600, 60, 1)
_LONGEST = 100 * 365 * 86_400
_PORTS = 65_536


@dataclass(frozen=True, slots=True)
class Sentinel:
    """Sentinels to ask where the primary is.

    Attributes:
        service: the name that they know it by.
        nodes: host and port of each.
        username: of the Sentinels' own users, where they have them.
        password: the Sentinels' own, which need not be the server's.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    service: str
    nodes: tuple[Address, ...]
    username: str | None = None
    password: Secret | None = None

    def __post_init__(self) -> None:
        if not self.service:
            raise ConfigurationError("sentinel.service is empty: expected the name that the Sentinels know")
        _check_nodes("sentinel.nodes", self.nodes)
        if not self.nodes:
            raise ConfigurationError("sentinel.nodes is empty: expected at least one host and port")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings(ProviderSettings):
    """What a Redis provider is made from. Times are in seconds.

    Attributes:
        host: name or address of the server.
        port: its TCP port.
        database: its number; a cluster has only 0.
        username: an ACL user; the server's default user when None.
        password: a `Secret`; what it was made from is asked anew for each connection.
        tls: None means full verification, and no TLS where every host is this machine.
        cluster: nodes of a Redis Cluster to begin with; the others are learnt from them.
        sentinel: Sentinels that say where the primary is.
        encryption: seal every value.
        retention: seconds that no key outlives; None: no bound.
        timeout: how long a command may take, waiting for a connection included.
        connect_timeout: how long making one connection may take, TLS and sign-in included.
        max_pending: commands that may wait for their answer at once, on each node.
        keepalive: an idle connection is asked for a sign of life that often.
        client_name: what the server's own list of clients calls these connections.
        keyring: URL of a key ring, for a provider that is used without a manager.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    host: str = "127.0.0.1"
    port: int = 6379
    database: int = 0
    username: str | None = None
    password: Secret | None = None
    tls: TLS | None = None
    cluster: tuple[Address, ...] = ()
    sentinel: Sentinel | None = None
    encryption: bool = False
    retention: float | None = None
    timeout: float = 5.0
    connect_timeout: float = 5.0
    max_pending: int = 10_000
    keepalive: float = 15.0
    client_name: str = "datavern"
    keyring: str | None = None

    def __post_init__(self) -> None:
        if not self.host:
            raise ConfigurationError("host is empty: expected a host name or an address")
        _check_nodes("port", ((self.host, self.port),))
        _check_nodes("cluster", self.cluster)
        if self.database < 0:
            raise ConfigurationError(f"database is {self.database}: expected a number, 0 or more")
        if self.cluster and self.sentinel is not None:
            raise ConfigurationError("cluster and sentinel: a cluster fails over by itself: give one of them")
        if self.cluster and self.database:
            raise ConfigurationError(f"database is {self.database}: a cluster has only database 0")
        if self.username is not None and self.password is None:
            raise ConfigurationError("username is given without password")
        for name in ("timeout", "connect_timeout", "keepalive"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}: expected seconds, more than 0")
        if not self.max_pending >= 1:
            raise ConfigurationError(f"max_pending is {self.max_pending}: expected at least 1")
        if re.search(r"[\s\0]", self.client_name):
            raise ConfigurationError("client_name holds a space: the server takes none")

    @property
    def seeds(self) -> tuple[Address, ...]:
        """Where to begin: the server, the cluster's nodes, or the Sentinels."""
        if self.sentinel is not None:
            return self.sentinel.nodes
        return self.cluster or ((self.host, self.port),)

    @property
    def local(self) -> bool:
        """Whether no connection leaves this machine, as far as the settings can tell."""
        return all(is_this_machine(host) for host, _ in self.seeds)

    @property
    def effective_tls(self) -> TLS:
        """What is done about encryption, defaults filled in."""
        return self.tls or TLS(verify="off" if self.local else "full")


def _check_nodes(where: str, nodes: tuple[Address, ...]) -> None:
    for host, port in nodes:
        if not host or "\0" in host:
            raise ConfigurationError(f"{where}: a host is empty, or holds a NUL character")
        if not 0 < port < _PORTS:
            raise ConfigurationError(f"{where}: {port} is no port: expected 1 to 65535")


def life(value: Any) -> float:
    """How long a key may live, in seconds: a number of them, a `timedelta`, or ``"30d"``, ``"12h"``, ``"1d12h"``.

    Units are w, d, h, min and s, from long to short. Months and years have no fixed length.

    Raises:
        ConfigurationError: none of these, or nothing, or longer than a hundred years.
    """
    seconds: float = -1.0
    if isinstance(value, dt.timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (found := _LIFE.fullmatch(value.strip().lower())):
        seconds = float(sum(int(part or 0) * unit for part, unit in zip(found.groups(), _UNITS, strict=True)))
    if not 0 < seconds <= _LONGEST:
        raise ConfigurationError(
            "retention: expected how long a key may live, such as 30d, 12h, 90min or a number of seconds; months and "
            "years have no fixed length: write them in days"
        )
    return seconds


def normalised(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as code or TOML gave them, in the types that are checked: ``"host:port"`` becomes a pair.

    Raises:
        ConfigurationError: a node or a retention that cannot be read.
    """
    found = dict(values)
    if found.get("retention") is not None:
        found["retention"] = life(found["retention"])
    if found.get("cluster") is not None:
        found["cluster"] = _nodes("cluster", found["cluster"])
    else:
        found.pop("cluster", None)
    sentinel = found.get("sentinel")
    if isinstance(sentinel, Mapping):
        sentinel = dict(sentinel)
        if "nodes" in sentinel:
            sentinel["nodes"] = _nodes("sentinel.nodes", sentinel["nodes"])
        if sentinel.get("password") is not None and not isinstance(sentinel["password"], Secret):
            sentinel["password"] = Secret(sentinel["password"])
        found["sentinel"] = sentinel
    return found


def _nodes(where: str, nodes: Any) -> tuple[Address, ...]:
    if isinstance(nodes, str | bytes | Mapping):
        raise ConfigurationError(f'{where}: expected a list of nodes: ["10.0.0.1:7000", …]')
    found: list[Address] = []
    for node in nodes:
        pair = node.rpartition(":")[::2] if isinstance(node, str) else tuple(node)
        if len(pair) != 2 or not isinstance(pair[0], str) or not str(pair[1]).isdecimal():  # noqa: PLR2004  (host and port)
            raise ConfigurationError(f'{where}: expected each node as "host:port", or as host and port')
        found.append((pair[0].strip("[]"), int(pair[1])))
    return tuple(found)


def parse_url(url: str) -> dict[str, Any]:
    """The settings that a ``redis://user:password@host:port/0`` URL holds; ``rediss://`` speaks TLS, fully verified.

    Raises:
        ConfigurationError: what is wrong with it. The URL itself, which may hold a password, is not in the message.
    """
    form = "redis://user:password@host:port/0, or rediss:// with TLS"
    parts, found = split_url(url, {"redis", "rediss", "valkey", "valkeys"}, expected=form)
    path = parts.path.strip("/")
    if not (path or "0").isdecimal():
        raise ConfigurationError(f"url: expected {form}")
    if parts.query:
        raise ConfigurationError("url: parameters after ? are not understood: give them as settings beside it")
    if path:
        found["database"] = int(path)
    if parts.scheme in {"rediss", "valkeys"}:
        found["tls"] = TLS()
    return found
