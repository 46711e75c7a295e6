"""The monitor of a failover group: it asks every member, each on a connection of its own, and tells who is the primary.

One task for each member, each with its own deadline, so that a member that froze holds up nobody else's answer. The
questions come with jitter; while a change is on they come every 25 to 100 ms. Nothing here reads the clock on the
wall. Should a task of the monitor end by a fault, what was known last stays, and the task is begun again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from datavern.connectors.topology import Member, Topology, Verdict
from datavern.contracts.errors import ConfigurationError, ConnectionFailed, DatavernError
from datavern.contracts.roles import Standing, Watch

if TYPE_CHECKING:
    from datavern.connectors.patroni import Patroni
    from datavern.contracts.capabilities import Provider

__all__ = ["Event", "Monitor", "watch_of"]

log = logging.getLogger("datavern.failover")

INTERVAL = 1.0
"""Seconds between two questions to a member, while nothing happens."""
QUICK = (0.025, 0.1)
"""Seconds between two questions while a change is on: the first, and the longest."""
LONG_CHANGE = 120.0
"""Seconds of a change after which the questions slow down again: nobody is about to be promoted."""
DEADLINE = 1.0
"""Seconds that an answer may take while nothing happens."""
QUICK_DEADLINE = 0.25
"""The same while a change is on, for a member that has not been slow before; it doubles with every miss."""
LONGEST_DEADLINE = 5.0

Kind = Literal[
    "primary", "no primary", "lost", "back", "fenced", "rivals", "foreign", "divergence", "cluster manager", "fault"
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a group, for whoever observes it.

    Attributes:
        kind: "primary" (writes go to `member` from here on), "no primary", "lost" and "back" (a member stopped and
            began to answer), "fenced" (a member takes writes by its own word and gets none), "rivals" (two say that
            they are the primary), "foreign" (a member holds another database), "divergence" (a promotion lost writes),
            "cluster manager" (Patroni says what does not fit the group), "fault" (of Datavern's own).
        group: the group's name.
        member: the member's, or None.
        detail: what there is to say, without values.
        facts: the same for programs.
    """

    kind: Kind
    group: str
    member: str | None
    detail: str
    facts: dict[str, Any] = field(default_factory=dict)


def watch_of(provider: Provider, lost: Callable[[], None]) -> Watch:
    """Somebody who asks that provider's server: the engine's own, or its health where it has no roles."""
    roles = provider.capabilities.roles
    return _ByHealth(provider) if roles is None else roles.watch(lost)


class _ByHealth:
    """For engines without roles of their own: there the label decides, if the server does not say otherwise."""

    shut = False

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def ask(self) -> Standing:
        health = await self._provider.health()
        if health.status == "unhealthy":
            raise ConnectionFailed(f"{self._provider.name}: {health.detail}", provider=self._provider.name)
        return Standing(writable=health.role == "primary", told=False, version=health.version)

    def close(self) -> None:
        pass


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Monitor:
    """Asks, decides and tells.

    Args:
        topology: what is known; the monitor alone changes it.
        interval: seconds between two questions while nothing happens.
        changed: called with each new verdict, from the loop.
        tell: called with each event.
        heard: called with each answer: the member, what it said, when the question was sent and the mark of then.
        mark: called before each question.
        patroni: the cluster manager, where there is one to ask.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        interval: float,
        changed: Callable[[Verdict], None],
        tell: Callable[[Event], None],
        heard: Callable[[Member, Standing, float, int], None],
        mark: Callable[[], int],
        patroni: Patroni | None = None,
    ) -> None:
        self.topology = topology
        self.verdict = Verdict(None, "nobody was asked yet", asking=True)
        self._interval = interval
        self._changed = changed
        self._tell = tell
        self._heard = heard
        self._mark = mark
        self._patroni = patroni
        self._tasks: dict[Member | None, asyncio.Task[None]] = {}
        self._watches: dict[Member, Watch] = {}
        self._wakes: dict[Member | None, asyncio.Event] = {}
        self._limits: dict[Member, asyncio.Timeout] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._since = monotonic()
        self._running = False
        self.epoch = 0
        self._said: set[tuple[str, str | None, str]] = set()

    # ---- beginning and ending ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to ask."""
        self._running = True
        self._since = monotonic()
        for member in self.topology.members:
            self._watches[member] = watch_of(member.provider, lambda member=member: self._lost(member))  # type: ignore[misc]  # bound now
            self._wakes[member] = asyncio.Event()
            self._begin(member)
        if self._patroni is not None:
            self._wakes[None] = asyncio.Event()
            self._begin(None)

    async def stop(self) -> None:
        """End, and let go of every connection. Idempotent."""
        self._running = False
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()
        self._wake_waiters()

    def _begin(self, member: Member | None) -> None:
        work = self._follow(member) if member is not None else self._follow_patroni()
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[member] = task
        task.add_done_callback(lambda done: self._ended(member, done))

    def _ended(self, member: Member | None, task: asyncio.Task[None]) -> None:
        """A task that ended by a fault of ours is begun again; until then what was known last stays."""
        if not self._running or self._tasks.get(member) is not task:
            return
        what = "was cancelled" if task.cancelled() else f"ended by a {type(task.exception()).__name__}"
        name = None if member is None else member.name
        self._say("fault", name, f"the monitor {what}, and is begun again; what it knew last stays")

        def begin() -> None:
            if self._running and self._tasks.get(member) is task:
                self._begin(member)

        asyncio.get_running_loop().call_later(self._interval, begin)

    # ---- doubt and waiting ------------------------------------------------------------------------------------------

    def doubt(self, epoch: int | None = None) -> None:
        """Something went wrong with the primary: ask everybody, and write to nobody before they answered.

        Args:
            epoch: how many verdicts there had been when what went wrong was begun: what was begun under an earlier one
                belongs to what is known already.
        """
        if not self._running or self.verdict.leader is None or epoch not in {None, self.epoch}:
            return
        now = self._since = monotonic()
        self.topology.doubt(now)
        quick = asyncio.get_running_loop().time() + QUICK_DEADLINE
        for member, limit in self._limits.items():  # a question that is on its way was asked too early
            when = limit.when()
            if member.standing is not None and when is not None and when > quick:
                limit.reschedule(quick)
        for wake in self._wakes.values():
            wake.set()
        self._decide()

    def ask(self) -> None:
        """Ask everybody soon, without a doubt."""
        for wake in self._wakes.values():
            wake.set()

    async def news(self, deadline: float) -> bool:
        """Wait until something changed; False when the deadline (`time.monotonic`) came first."""
        left = deadline - monotonic()
        if left <= 0:
            return False
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later(left, _settle, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return True

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            _settle(waiter)

    def _lost(self, member: Member) -> None:
        """The connection to a member that the monitor has broke: the server may be gone, or another by now."""
        if not self._running:
            return
        if member is self.verdict.leader:
            self.doubt()
        else:
            member.sent = float("-inf")  # what it said may not hold any more
            self._wakes[member].set()

    # ---- asking -----------------------------------------------------------------------------------------------------

    async def _follow(self, member: Member) -> None:
        watch, wake = self._watches[member], self._wakes[member]
        while True:
            wake.clear()
            sent, mark = monotonic(), self._mark()
            try:
                async with asyncio.timeout(self._deadline(member)) as limit:
                    self._limits[member] = limit
                    if not member.opened:
                        await member.provider.connect()
                        member.opened = True
                        sent, mark = monotonic(), self._mark()
                    standing = await watch.ask()
            except TimeoutError:
                self._missed(member, "it did not answer in time", sent, gone=False)
            except DatavernError as error:
                self._missed(member, str(error), sent, gone=True, shut=member.opened and watch.shut)
            else:
                self._answered(member, standing, sent, mark)
            finally:
                self._limits.pop(member, None)
            self._decide()
            await self._pause(wake, told=member.standing is None or member.standing.told)

    def _deadline(self, member: Member) -> float:
        if not member.opened:
            return LONGEST_DEADLINE * 4  # its own settings say how long connecting may take
        first = DEADLINE if self.verdict.leader is not None else QUICK_DEADLINE
        return float(min(LONGEST_DEADLINE, first * 2**member.missing))

    async def _pause(self, wake: asyncio.Event, *, told: bool) -> None:
        leader = self.verdict.leader
        if leader is not None and not told:
            await wake.wait()  # a file does not change its role: it is asked when something went wrong
            return
        changing = 0.0 if leader is not None else monotonic() - self._since
        if leader is None and changing < LONG_CHANGE:
            shortest, longest = QUICK
            pause = min(longest, max(shortest, changing / 20)) * random.uniform(0.75, 1.0)  # noqa: S311  (spreads load)
        else:
            pause = self._interval * random.uniform(0.9, 1.1)  # noqa: S311  (spreads load)
        if wake.is_set():
            return
        try:
            async with asyncio.timeout(pause):
                await wake.wait()
        except TimeoutError:
            pass

    def _answered(self, member: Member, standing: Standing, sent: float, mark: int) -> None:
        was = member.standing
        known = member.last is not None
        member.took(monotonic() - sent)
        self.topology.heard(member, standing, sent)
        self._heard(member, standing, sent, mark)
        if member.foreign:
            self._say("foreign", member.name, f"{member.name} {member.problem}: it is left out", once=True)
        elif was is None and known:
            self._say("back", member.name, f"{member.name} answers again, as {standing.role}")

    def _missed(self, member: Member, problem: str, sent: float, *, gone: bool, shut: bool = False) -> None:
        was = member.standing
        self.topology.missed(member, problem, sent, gone=gone, shut=shut)
        if was is not None and member.standing is None:
            self._say("lost", member.name, f"{member.name} does not answer: {problem}")

    async def _follow_patroni(self) -> None:
        patroni, wake = self._patroni, self._wakes[None]
        assert patroni is not None  # noqa: S101  (for the type checker: the task is begun only where it is there)
        while True:
            wake.clear()
            sent = monotonic()
            try:
                named = await patroni.leader(self.topology.members, within=DEADLINE)
            except (ConnectionFailed, ConfigurationError) as error:
                self.topology.elected = None  # by roles, then
                self._say("cluster manager", None, str(error), once=True)
            else:
                self.topology.elected = (named, sent)
                self._said = {said for said in self._said if said[0] != "cluster manager"}
            self._decide()
            await self._pause(wake, told=True)

    # ---- deciding ---------------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        before, doubted = self.verdict, self.topology.doubted
        verdict = self.topology.verdict(monotonic())
        if self.topology.doubted != doubted:  # two say that they are the primary: everybody is asked again
            self.ask()
        self.verdict = verdict
        if verdict.leader is None and before.leader is not None:
            self._since = monotonic()
        self._tell_of(before, verdict)
        if verdict.leader is not before.leader:
            self.epoch += 1
            self._changed(verdict)
        self._wake_waiters()

    def _tell_of(self, before: Verdict, verdict: Verdict) -> None:
        for member, why in verdict.fenced:
            self._say("fenced", member.name, f"{member.name} is not written to: {why}", once=True)
        fenced = {member.name for member, _ in verdict.fenced}
        self._said = {said for said in self._said if said[0] != "fenced" or said[1] in fenced}
        if verdict.rivals and not verdict.asking:
            self._say("rivals", None, verdict.reason, once=True)
        elif not verdict.rivals:
            self._said = {said for said in self._said if said[0] != "rivals"}
        if verdict.leader is not None and verdict.leader is not before.leader:
            standing = verdict.leader.standing
            timeline = None if standing is None else standing.timeline
            on = "" if timeline is None else f", on timeline {timeline}"
            self._say("primary", verdict.leader.name, f"{verdict.leader.name} is the primary{on}", timeline=timeline)
            self._said = {said for said in self._said if said[0] != "no primary"}
        elif verdict.leader is None and not verdict.asking:
            self._say("no primary", None, verdict.reason, once=True)

    def _say(self, kind: Kind, member: str | None, detail: str, *, once: bool = False, **facts: Any) -> None:
        if once:
            key = (kind, member, detail)
            if key in self._said:
                return
            self._said.add(key)
        self._tell(Event(kind, self.topology.name, member, detail, facts))
