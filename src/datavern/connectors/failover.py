"""A primary and its replicas, spoken to as one provider.

Who the primary is, the servers say (`connectors/health.py` asks, `connectors/topology.py` decides), and not the label:
the group follows the promotion that Patroni, an operator or the engine's own cluster made. It never promotes, and it
writes to nobody who is not provably the primary. While there is none, writes wait for one within their deadline, and
`query*` and `stream` run READ ONLY on a secondary. What provably was not done is run again on the new primary; what may
have been done is `OutcomeUnknown`, and run again only under an idempotency key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import fields
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from datavern.connectors.following import Following, FollowingRead, Messages, engine_call
from datavern.connectors.group_health import group_health
from datavern.connectors.health import INTERVAL, Event, Monitor
from datavern.connectors.retry import Budget
from datavern.connectors.routing import Positions
from datavern.connectors.topology import Member, Topology, Verdict
from datavern.connectors.writing import Writing
from datavern.contracts.capabilities import Capabilities, Provider, needs
from datavern.contracts.errors import ConfigurationError, ConnectionFailed
from datavern.contracts.values import Health, Location

if TYPE_CHECKING:
    from datavern.connectors.patroni import Patroni
    from datavern.contracts.capabilities import Services
    from datavern.contracts.roles import Standing

__all__ = ["FailoverGroup"]

log = logging.getLogger("datavern.failover")
_WIDTH = {Location.NORWAY: 0, Location.EU: 1, Location.GLOBAL: 2}

_OWN = frozenset({"session", "transactions", "point_reads"})  # capabilities that the group has itself

WAIT = 30.0
"""Seconds that a call waits for a primary, where its caller sets no earlier end (``asyncio.timeout``)."""
SETTLING = 2.0
"""Seconds that opening waits for members that answer late, once one is there."""


class FailoverGroup(Writing):
    """A provider over providers.

    Args:
        name: the group's, unique within a manager.
        primary: the primary as far as you know; where the engine has roles, the servers' word counts.
        secondaries: hold the same data, kept so by the engine's own replication; tried in this order.
        replicas_read: let reads with ``read_only=True`` go to replicas.
        max_lag: seconds that a replica may be behind to be read from; None: however many.
        patroni: URLs of Patroni's REST APIs, or a `datavern.connectors.patroni.Patroni`: then only the leader that it
            names is written to; while none of them answers, the members' own word counts.
        wait: seconds that a call waits for a primary, where its caller sets no earlier end with ``asyncio.timeout``.
        interval: seconds between two questions to a member while nothing happens.

    Attributes:
        location: the widest of the members': data may be on any of them.

    Raises:
        ConfigurationError: no secondary, a member twice, members of different engines, a number that is none.
    """

    def __init__(
        self,
        name: str,
        *,
        primary: Provider,
        secondaries: Sequence[Provider],
        replicas_read: bool = False,
        max_lag: float | None = None,
        patroni: Patroni | Sequence[str] | None = None,
        wait: float | None = None,
        interval: float = INTERVAL,
    ) -> None:
        members = (primary, *secondaries)
        _check(name, members, max_lag=max_lag, wait=wait, interval=interval)
        if not isinstance(replicas_read, bool):
            raise ConfigurationError(f"{name}: replicas_read: expected true or false")
        self.name = name
        self.primary = primary
        self.secondaries = tuple(secondaries)
        self.engine = primary.engine
        self.region = primary.region
        self.location = max((member.location for member in members), key=_WIDTH.__getitem__)
        self.compliance: frozenset[str] = frozenset().union(*(member.compliance for member in members))
        self.face: Provider = self
        self.replicas_read = replicas_read
        self.max_lag = max_lag
        self.wait = WAIT if wait is None else wait
        self._interval = interval if max_lag is None else min(interval, max(0.02, max_lag / 3))
        self._patroni = _patroni(patroni)
        self._positions = Positions(name)
        self._budget = Budget()
        self._observers: list[Callable[[Event], None]] = []
        self.followers: list[Messages] = []
        self.epoch = 0
        self._monitor: Monitor | None = None
        self._know_nothing()
        for member in members:
            member.face = self

    def _know_nothing(self) -> None:
        self._known = [Member(member) for member in self.members]
        self._topology = Topology(self.name, self._known)
        self._session: Any = self.primary.capabilities.session  # of the primary; None while there is none
        self._leader = self._known[0]
        self._led: Member | None = None
        self._active: Provider = self.primary

    # ---- what it is -------------------------------------------------------------------------------------------------

    @property
    def members(self) -> tuple[Provider, ...]:
        """The labelled primary, then the secondaries."""
        return (self.primary, *self.secondaries)

    @property
    def active_provider(self) -> Provider:
        """The member that serves: the primary of this moment, or without one the secondary that was read from last."""
        return self._leader.provider if self._session is not None else self._active

    @property
    def leading(self) -> Provider:
        """The primary of the moment, or the last one."""
        return self._leader.provider

    @property
    def serving(self) -> bool:
        """Whether there is a primary at this moment."""
        return self._session is not None

    @property
    def provider(self) -> Provider:
        """The group: it is a session of its own."""
        return self

    @property
    def encrypted(self) -> bool:
        """Whether every member's connection is encrypted and verified, or cannot leave this machine."""
        return all(member.encrypted for member in self.members)

    @property
    def capabilities(self) -> Capabilities:
        """The engine's. What is read and written through them goes to the primary of that moment."""
        own = self.primary.capabilities
        given: dict[str, Any] = {"reasons": own.reasons}
        for name in (f.name for f in fields(own) if f.name not in {"reasons", "roles"}):
            if getattr(own, name) is not None:
                given[name] = self if name in _OWN else Following(self, name)
        return Capabilities(**given)

    def __getattr__(self, name: str) -> Any:
        """An engine's own calls go to the primary of the moment; one that is sent while there is none waits for it."""
        if name.startswith("_") or "primary" not in self.__dict__:
            raise AttributeError(name)
        return engine_call(self, lambda provider: provider, name)

    # ---- opening and closing ----------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open every member that can be reached, and find out who is the primary; one member is enough. Idempotent.

        Raises:
            ConnectionFailed: none can be reached; the labelled primary's reason.
            ConfigurationError: a member's settings are wrong, or the members hold different databases.
        """
        if self._monitor is not None:
            return
        self._know_nothing()
        try:
            await self._open_members()
            self._monitor = monitor = Monitor(
                self._topology,
                interval=self._interval,
                changed=self._changed,
                tell=self._tell,
                heard=self._heard,
                mark=lambda: self._positions.acknowledged,
                patroni=self._patroni,
            )
            self._session = None
            self._topology.doubt(monotonic())
            monitor.start()
            deadline = monotonic() + SETTLING
            while self._settling() and await monitor.news(deadline):
                pass
            self._refuse_strangers()
        except BaseException:
            await self.close()
            raise

    async def _open_members(self) -> None:
        tasks = {m: asyncio.ensure_future(m.provider.connect()) for m in self._known}
        try:
            waiting = set(tasks.values())
            limit: float | None = None
            while waiting:
                done, waiting = await asyncio.wait(waiting, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                if any(not task.cancelled() and task.exception() is None for task in done):
                    limit = SETTLING  # one is there: the monitor goes on with those that take longer
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.wait(tasks.values())
        failures: dict[Member, BaseException] = {}
        for member, task in tasks.items():
            error = ConnectionFailed(f"{member.name} does not answer") if task.cancelled() else task.exception()
            if error is None:
                member.opened = True
            else:
                failures[member] = error
        fatal = next((f for f in failures.values() if not isinstance(f, ConnectionFailed)), None)
        if fatal is not None:
            raise fatal
        if len(failures) == len(self._known):
            raise failures[self._known[0]]

    def _refuse_strangers(self) -> None:
        foreign = [f"{m.name} {m.problem}" for m in self._known if m.foreign]
        if foreign:
            raise ConfigurationError(
                f"{self.name}: the members of a failover group are copies of one database, and {'; '.join(foreign)}"
            )

    def _settling(self) -> bool:
        monitor = self._monitor
        assert monitor is not None  # noqa: S101  (for the type checker: connect made it)
        unheard = [m for m in self._known if m.opened and m.last is None and not m.missing]
        return monitor.verdict.asking or bool(unheard)

    async def close(self) -> None:
        """Close every member. Idempotent."""
        monitor, self._monitor = self._monitor, None
        self._leader = self._known[0]
        self._session = self.primary.capabilities.session
        if monitor is not None:
            await monitor.stop()
        results = await asyncio.gather(*(member.close() for member in self.members), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def attach(self, services: Services) -> None:
        """Called by the manager that the group belongs to."""
        for member in self.members:
            member.attach(services)

    # ---- how it is --------------------------------------------------------------------------------------------------

    def observe(self, observer: Callable[[Event], None]) -> Callable[[], None]:
        """Have `observer` called, from the loop, with each `datavern.connectors.health.Event`; what stops it again.

        An observer that raises is logged, and disturbs nothing.
        """
        self._observers.append(observer)

        def stop() -> None:
            if observer in self._observers:
                self._observers.remove(observer)

        return stop

    async def health(self) -> Health:
        """The members' health as one: "degraded" while a member is not well, "unhealthy" when none serves.

        `facts["members"]` holds for each member: status, role and version, whether it `serves` as the primary, timeline
        and position, seconds of `lag` (at the most), percentiles of its latency, its pool, and its `problem`.
        """
        found = await asyncio.gather(*(member.health() for member in self.members))
        monitor = self._monitor
        return group_health(
            self._known,
            found,
            leader=self._leader if self.serving and monitor is not None else None,
            verdict=None if monitor is None else monitor.verdict,
            positions=self._positions,
        )

    def _tell(self, event: Event) -> None:
        level = logging.INFO if event.kind in {"primary", "back"} else logging.WARNING
        log.log(level, "%s: %s", event.group, event.detail)
        for observer in list(self._observers):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001  (an observer's fault is not the group's)
                log.error("%s: an observer raised %s", event.group, type(error).__name__)  # noqa: TRY400  (no values)

    def _heard(self, member: Member, standing: Standing, sent: float, mark: int) -> None:
        """The monitor got an answer: where it is the primary's, it tells how far the history goes."""
        if not standing.writable and (roles := member.provider.capabilities.roles) is not None:
            roles.mend()  # an old primary that follows the new one
        if not standing.writable or member.foreign or standing.timeline != self._topology.timeline:
            return
        lost = self._positions.sample(standing, sent, mark)
        if lost is None:
            return
        counted = str(lost.lost_at_least)
        if lost.lost_at_most > lost.lost_at_least:
            counted += f" to {lost.lost_at_most}"
        detail = (
            f"the promotion of {member.name} left writes behind: timeline {lost.new} began {lost.bytes} bytes before "
            f"the end of timeline {lost.old}. Of this process's acknowledged writes {counted} are lost"
        )
        facts = {name: getattr(lost, name) for name in lost.__slots__}
        self._tell(Event("divergence", self.name, member.name, detail, facts))

    def _changed(self, verdict: Verdict) -> None:
        """The monitor tells who is the primary."""
        leader = verdict.leader
        self.epoch = 0 if self._monitor is None else self._monitor.epoch
        if leader is None:
            self._session = None
            if self._led is not None and (doubted := self._led.provider.capabilities.roles) is not None:
                doubted.hold()  # what comes back at its address may be an old primary
            return
        before, self._led = self._led, leader
        self._leader = leader
        self._session = leader.provider.capabilities.session
        if (mended := leader.provider.capabilities.roles) is not None:
            mended.mend()
        if before is not None and before is not leader:
            if (roles := before.provider.capabilities.roles) is not None:
                roles.sever()  # what still runs there may not be acknowledged any more
            for follower in list(self.followers):
                follower.follow(leader.provider)

    # ---- what engines offer beside ----------------------------------------------------------------------------------

    def coalesced(
        self, table: str, *, key: str, columns: Sequence[str] | None = None, batch_size: int = 100
    ) -> FollowingRead:
        """Hot reads by key from the primary of the moment: see `datavern.contracts.capabilities.PointReads`."""

        def make(provider: Provider) -> Any:
            reads = needs(provider, "point_reads")
            return reads.coalesced(table, key=key, columns=columns, batch_size=batch_size)

        return FollowingRead(self, make)

    def listen(self, *channels: str, **settings: Any) -> Messages:
        """Messages, from the primary of the moment: see the engine's own.

        After a failover it goes on with the new primary, and says with an item whose `missed` is set that messages may
        have been missed.
        """
        return Messages(self, lambda provider: provider.listen(*channels, **settings))  # type: ignore[attr-defined]  # the engine's


def _check(
    name: str, members: Sequence[Provider], *, max_lag: float | None, wait: float | None, interval: float
) -> None:
    if len(members) < 2:  # noqa: PLR2004  (a primary and somebody to stand in)
        raise ConfigurationError(f"{name}: a failover group needs at least one secondary")
    for member in members:
        if not hasattr(member, "capabilities") or not hasattr(member, "engine"):
            raise ConfigurationError(f"{name}: a failover group is made of providers, not {type(member).__name__}")
    if members[0].capabilities.session is None:
        raise ConfigurationError(
            f"{name}: the engine {members[0].engine} follows its primary by itself: name the servers of the whole set "
            "in one provider, and leave the failover group out"
        )
    if len({id(member) for member in members}) < len(members):
        raise ConfigurationError(f"{name}: a provider is in the failover group twice")
    if len({member.engine for member in members}) > 1:
        engines = ", ".join(sorted({member.engine for member in members}))
        raise ConfigurationError(f"{name}: the members of a failover group have one engine, not {engines}")
    for what, value in (("max_lag", max_lag), ("wait", wait)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
            raise ConfigurationError(f"{name}: {what}: expected seconds, 0 or more")
    if isinstance(interval, bool) or not isinstance(interval, int | float) or not interval > 0:
        raise ConfigurationError(f"{name}: interval: expected seconds, more than 0")


def _patroni(given: Patroni | Sequence[str] | None) -> Patroni | None:
    if given is None:
        return None
    from datavern.connectors.patroni import Patroni  # noqa: PLC0415  (few groups have one)

    return given if isinstance(given, Patroni) else Patroni(given)
