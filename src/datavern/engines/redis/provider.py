"""Redis and Valkey: alone, with Sentinels, or as a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datavern.config import TLS, Secret
from datavern.contracts.capabilities import Capabilities
from datavern.contracts.errors import ConfigurationError, ConnectionFailed, DatavernError, PrivacyError
from datavern.contracts.services import Alone
from datavern.contracts.values import Health, Location, PoolStats
from datavern.engines.ground import Ground
from datavern.engines.redis.audited import Audited
from datavern.engines.redis.cluster import Cluster
from datavern.engines.redis.errors import unsent
from datavern.engines.redis.health import probe
from datavern.engines.redis.line import Line
from datavern.engines.redis.people import RedisPeople
from datavern.engines.redis.pubsub import Hub, Subscription, names_of
from datavern.engines.redis.records import RedisRecords
from datavern.engines.redis.retention import Lives, Seconds
from datavern.engines.redis.router import Router, Single
from datavern.engines.redis.samples import RedisSamples
from datavern.engines.redis.settings import RedisSettings, Sentinel, normalised, parse_url
from datavern.engines.redis.steps import Steps
from datavern.engines.redis.streams import Streams
from datavern.engines.redis.subjects import RedisSubjects
from datavern.engines.redis.watched import Watched

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Services
    from datavern.engines.redis.vault import Vault

__all__ = ["RedisProvider"]

_HEALTH_DEADLINE = 5.0
_REASONS = {
    "session": "Redis speaks no SQL: use get, set and the others",
    "transactions": "Redis has none that could be rolled back; pipeline(transaction=True) is its own kind",
    "ledger": "Datavern's own tables need a relational database",
    "point_reads": "a read of one key is all that Redis does: get, or many in a pipeline",
    "guarded": "Redis has no transaction that an entry and a row could share",
}


class RedisProvider(Streams, Ground):
    """A Redis or Valkey: see `datavern.contracts.capabilities.Provider`; its calls are `Commands` and `Streams`.

    Args:
        name: unique within a manager. Sealed values are bound to it: under another name they do not open.
        host: name or address of the server.
        port: its TCP port.
        location: where the data is; follows from `region` when that is given.
        encryption: seal every value (and message, and field of a stream), bound to its key and to its subject.
        retention: how long a key may live at most: ``"30d"``, ``"12h"``, seconds, or a `timedelta`.
        cluster: nodes of a Redis Cluster to begin with, as host and port.
        sentinel: Sentinels that say where the primary is.
        tls: full verification when None; no TLS where every host is this machine.
        username: an ACL user.
        password: the text, `env()`, or a callable, sync or async, that is asked anew for each connection (a token).
        database: its number.
        region: a region identifier (``azure:norwayeast``).
        compliance: "gdpr", "nsm": the rule sets to enforce.
        timeout: seconds that a command may take.
        connect_timeout: seconds that making one connection may take.
        max_pending: commands that may wait for their answer at once; one more gets `PoolTimeout`.
        keepalive: seconds after which an idle connection is asked for a sign of life.
        client_name: what the server's own list of clients calls these connections.
        keyring: URL of a key ring, for use without a manager.

    Raises:
        ConfigurationError: a setting is wrong or contradicts another. No I/O happens here.
    """

    engine = "redis"
    kind = RedisSettings
    settings: RedisSettings
    _parse_url = staticmethod(parse_url)

    def __init__(
        self,
        *,
        name: str = "redis",
        host: str = "127.0.0.1",
        port: int = 6379,
        location: Location | str | None = None,
        encryption: bool = False,
        retention: str | Seconds | None = None,
        cluster: Sequence[tuple[str, int] | str] | None = None,
        sentinel: Sentinel | Mapping[str, Any] | None = None,
        tls: TLS | None = None,
        username: str | None = None,
        password: str | Secret | Callable[[], Any] | None = None,
        database: int = 0,
        region: str | None = None,
        compliance: Iterable[str] = (),
        timeout: float = 5.0,
        connect_timeout: float = 5.0,
        max_pending: int = 10_000,
        keepalive: float = 15.0,
        client_name: str = "datavern",
        keyring: str | None = None,
    ) -> None:
        values: dict[str, Any] = {
            "name": name, "host": host, "port": port, "location": location, "encryption": encryption,
            "retention": retention, "cluster": cluster, "sentinel": sentinel, "tls": tls, "username": username,
            "password": password, "database": database, "region": region, "compliance": compliance,
            "timeout": timeout, "connect_timeout": connect_timeout, "max_pending": max_pending,
            "keepalive": keepalive, "client_name": client_name, "keyring": keyring,
        }  # fmt: skip
        self._set_up(values, path=name if isinstance(name, str) else "name")

    def _set_up(self, values: dict[str, Any], *, path: str) -> None:
        problem = ""
        try:
            values = normalised(values)
        except ConfigurationError as error:
            problem = f"{path}.{error}"
        if problem:
            raise ConfigurationError(problem)
        self._begin_with(values, path=path)
        settings = self.settings
        self._sealed = settings.encryption
        self._lives = Lives(settings.name, settings.retention)
        self._steps = Steps(self._vault if settings.encryption else None, self._lives, settings.name, self._undo)
        self._alone = Alone(self, settings.keyring)
        self._kept: Vault | None = None
        self._audited: Audited | None = None
        self._watched: Watched | None = None
        self._connecting = asyncio.Lock()
        self._router: Router = _NotOpen(settings.name)
        self._hub: Hub | None = None
        self._clients: tuple[Any, ...] = ()
        self._spare: dict[Any, list[Line]] = {}
        self._open = False
        subjects = RedisSubjects(self)
        self._capabilities = Capabilities(
            subjects=subjects,
            people=RedisPeople(subjects),
            records=RedisRecords(self),
            samples=RedisSamples(self),
            reasons=_REASONS,
        )

    # ---- what it is -------------------------------------------------------------------------------------------------

    @property
    def sealing(self) -> bool:
        """Whether values are sealed."""
        return self._sealed

    @property
    def dataset(self) -> str:
        """What its values are called in the key store."""
        return f"datavern.redis.{self.name}"

    @property
    def client(self) -> Any:
        """redis-py's own client (`redis.asyncio.Redis`, or `RedisCluster`), for everything else.

        It is signed in as the provider is, and closed with it. What goes through it is neither sealed nor bounded by
        the retention, and its errors are redis-py's own, which quote values.
        """
        if not self._open:
            raise unsent(self.name, "the provider is not open")
        if self._audited is not None:
            raise PrivacyError(
                f"{self.name}: the data map names keys here, and compliance nsm refuses writes without an audit entry "
                "(NSM 3.2.4): use the provider's own calls, or execute"
            )
        if not self._clients:
            from datavern.engines.redis.client import make  # noqa: PLC0415  (loads redis-py)

            self._clients = make(self.settings)
        return self._clients[0]

    def stats(self) -> PoolStats:
        """The connections that carry commands, at this moment."""
        lines = list(self._router.lines)
        size = sum(1 for line in lines if line.wire is not None)
        busy = sum(1 for line in lines if line.busy)
        gone = sum(line.gone for line in lines)
        return PoolStats(
            size=size,
            idle=size - busy,
            in_use=busy,
            waiting=sum(line.waiting for line in lines),
            connecting=sum(1 for line in lines if line.connecting),
            generation=gone,
            acquired=sum(line.sent for line in lines),
            created=sum(line.made for line in lines),
            discarded=gone,
            timeouts=sum(line.expired + line.full for line in lines),
        )

    # ---- opening and closing ----------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect. Idempotent.

        Raises:
            ConnectionFailed: says what to do about it.
            ConfigurationError: a certificate file or the password's source is not there.
        """
        async with self._connecting:
            if self._open:
                return
            settings = self.settings
            router: Router = Cluster(settings) if settings.cluster else Single(settings)
            try:
                await router.open()
            except BaseException:
                await router.close()
                raise
            self._router = router
            self._hub = Hub(
                router.anywhere, name=self.name, timeout=settings.connect_timeout, keepalive=settings.keepalive
            )
            self._open = True

    async def close(self) -> None:
        """Close every connection; subscriptions end. Idempotent; never waits for a server that does not answer."""
        self._open = False
        router, self._router = self._router, _NotOpen(self.name)
        hub, self._hub = self._hub, None
        clients, self._clients = self._clients, ()
        spare, self._spare = self._spare, {}
        self._kept = None
        if hub is not None:
            hub.close()
        for lines in spare.values():
            for line in lines:
                line.abort()
        try:
            await router.close()
        finally:
            for client in clients:
                await client.aclose()
            await self._alone.close()

    def attach(self, services: Services) -> None:
        """Called by the manager that the provider belongs to."""
        self._alone.attach(services)
        self._kept = None
        self._audited = Audited.of(self, services)
        self._watched = Watched.of(self, services)

    async def _vault(self) -> Vault:
        if self._kept is None:
            from datavern.engines.redis.vault import Vault  # noqa: PLC0415  (loads cryptography)

            found = await self._alone.ready("encryption=True")
            self._kept = Vault(found.keys, self.dataset, self._lives.cap)
        return self._kept

    # ---- health -----------------------------------------------------------------------------------------------------

    async def health(self) -> Health:
        """Ask the server (each primary of a cluster) for its role; the connections' state is in the answer."""
        if not self._open:
            return Health("unhealthy", detail="not open")
        try:
            async with asyncio.timeout(_HEALTH_DEADLINE):
                return await probe(self._router, pool=self.stats, encrypted=self.encrypted)
        except DatavernError as error:
            return Health("unhealthy", detail=str(error), pool=self.stats())
        except TimeoutError:
            return Health("unhealthy", detail=f"no answer within {_HEALTH_DEADLINE:g} s", pool=self.stats())

    # ---- channels ---------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        *channels: str | bytes,
        patterns: Iterable[str | bytes] = (),
        gaps: bool = False,
        most: int = 10_000,
    ) -> Subscription:
        """Listen: ``async with redis.subscribe("news") as messages: async for message in messages: …``.

        The iteration goes on when the connection breaks and is made anew. The first `Message` after that has
        ``missed=True``: what was published meanwhile is lost.

        Args:
            channels: their names.
            patterns: glob patterns of channels (``"notifications:*"``).
            gaps: also hand out a `Gap` as soon as the server is heard again, before any message.
            most: messages that may wait to be taken; beyond, the oldest go, and the next has ``missed=True``.

        Raises:
            ConnectionFailed: on entering: the server cannot be reached.
        """
        if self._hub is None:
            raise unsent(self.name, "the provider is not open")
        return Subscription(self._hub, names_of(channels, patterns, self.name), self._message, gaps=gaps, most=most)

    async def _message(self, channel: bytes, raw: bytes) -> Any:
        return await self._steps.opened("message", channel, raw)


class _NotOpen:
    """Where commands go while the provider is not open: nowhere."""

    clustered = False

    def __init__(self, name: str) -> None:
        self._name = name
        self.lines: tuple[Line, ...] = ()

    def __getattr__(self, _: str) -> Any:
        return self._refuse

    def _refuse(self, *_: Any, **__: Any) -> Awaitable[Any]:
        raise ConnectionFailed(f"{self._name}: the provider is not open: async with provider", provider=self._name)

    async def close(self) -> None:
        """There is nothing to close."""
