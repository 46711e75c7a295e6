"""Which member is the primary: decided from what the members said of themselves, without any I/O.

The rules, each with a test in ``tests/unit/connectors/test_topology.py``:

- A member may be written to when it says itself that it takes writes, when nobody of a newer timeline is known (a
  promotion begins a new timeline, so an old primary that comes back shows by its older one), and when nobody else of
  its timeline says the same.
- After a doubt (a connection broke, a write was refused, another primary appeared) what was said before counts for
  nothing: everybody who was there is asked again, and has answered or failed to, before anybody is written to. Only a
  newer timeline need not wait for the older ones.
- One slow answer changes nothing; two in a row, or a connection that cannot be made, do.
- Members of another system (not a copy of this database) take part in nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datavern.connectors.retry import Breaker
from datavern.contracts.roles import Standing

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider

__all__ = ["Member", "Topology", "Verdict"]

PATIENCE = 2
"""Answers that may be missing in a row, where the connection itself holds, before a member counts as gone."""


class Member:
    """A provider of the group, and what is known of it. Times are of `time.monotonic`.

    Attributes:
        standing: its last answer; None while it does not answer.
        last: its last answer, whether or not it still answers.
        sent: when the question of that answer was sent.
        failed: when the last question was sent that got no answer.
        missing: answers that were missed in a row.
        problem: why it did not answer, or why it takes no part; empty when all is well.
        foreign: it holds another database than the rest.
        shut: the application closed it.
        opened: its pool was opened once.
        latencies: seconds of its last answers.
        latency: the median of them; endless while there is none.
        busy: reads that are on it at this moment.
        breaker: leaves it alone as a replica while it answers the monitor, and fails those who read.
    """

    __slots__ = (
        "breaker", "busy", "failed", "foreign", "last", "latencies", "latency", "missing", "name", "opened", "problem",
        "provider", "sent", "shut", "standing",
    )  # fmt: skip

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.name = provider.name
        self.standing: Standing | None = None
        self.last: Standing | None = None
        self.sent = float("-inf")
        self.failed = float("-inf")
        self.missing = 0
        self.problem = ""
        self.foreign = False
        self.shut = False
        self.opened = False
        self.latencies: deque[float] = deque(maxlen=128)
        self.latency = float("inf")
        self.busy = 0
        self.breaker = Breaker(failures=3)

    def took(self, seconds: float) -> None:
        """An answer took so long."""
        self.latencies.append(seconds)
        self.latency = self.quantile(0.5)

    def quantile(self, share: float) -> float:
        """Seconds in which that share of its last answers came."""
        if not self.latencies:
            return float("inf")
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from what is known.

    Attributes:
        leader: who may be written to, or None.
        reason: why nobody may; empty where somebody may.
        asking: members are still being asked: the verdict may change within moments.
        fenced: members that take writes by their own word and get none, each with the reason.
        rivals: members that say the same of themselves, none of which is written to.
    """

    leader: Member | None
    reason: str = ""
    asking: bool = False
    fenced: tuple[tuple[Member, str], ...] = ()
    rivals: tuple[Member, ...] = ()


class Topology:
    """The members, and who of them is the primary.

    Args:
        name: the group's, for messages.
        members: the labelled primary first.
    """

    def __init__(self, name: str, members: Sequence[Member]) -> None:
        self.name = name
        self.members = tuple(members)
        self.system: str | None = None
        self.timeline: int | None = None
        self.doubted = float("-inf")
        self.settled: Member | None = None
        """Who was the primary last."""
        self.elected: tuple[Member | None, float] | None = None
        """Whom a cluster manager (Patroni) named, and when it was asked; None where there is none, or it is silent."""
        self._asked_again = False

    # ---- what is heard ----------------------------------------------------------------------------------------------

    def heard(self, member: Member, standing: Standing, sent: float) -> None:
        """A member answered a question that was sent at `sent`."""
        member.last = member.standing = standing
        member.sent = sent
        member.missing = 0
        member.problem = ""
        member.shut = False
        self._know_system(member, standing)
        if not member.foreign and standing.timeline is not None:
            self.timeline = max(self.timeline or 0, standing.timeline)

    def missed(self, member: Member, problem: str, sent: float, *, gone: bool, shut: bool = False) -> None:
        """A member did not answer a question that was sent at `sent`.

        Args:
            gone: there is no connection to it, and none could be made: no patience is due.
            shut: the application closed it.
        """
        member.failed = sent
        member.missing += 1
        member.problem = problem
        member.shut = shut
        if gone or shut or member.missing >= PATIENCE:
            member.standing = None

    def doubt(self, now: float) -> None:
        """What was said until now counts for nothing any more."""
        self.doubted = now

    def _know_system(self, member: Member, standing: Standing) -> None:
        if standing.system is None:
            return
        labelled = member is self.members[0]
        if (self.system is None and (labelled or standing.writable)) or (labelled and self.settled is None):
            self.system = standing.system
        for other in self.members:  # who answered before, too
            self._compare_system(other)

    def _compare_system(self, member: Member) -> None:
        system = None if member.last is None else member.last.system
        member.foreign = system is not None and self.system is not None and system != self.system
        if member.foreign:
            member.problem = f"holds another database (system identifier {system}, and the group's is {self.system})"

    # ---- what follows -----------------------------------------------------------------------------------------------

    def verdict(self, now: float) -> Verdict:
        """Who may be written to. May raise a doubt by itself, where two say that they may."""
        found = self._found()
        if len(found.rivals) > 1 and not self._asked_again:
            # One of them may have stepped down since it answered: ask everybody before saying so.
            self._asked_again = True
            self.doubt(now)
            found = self._found()
        if found.leader is not None:
            self._asked_again = False
            self.settled = found.leader
        return found

    def _found(self) -> Verdict:
        present = [m for m in self.members if m.standing is not None and not m.foreign and m.sent >= self.doubted]
        waited_for = [m for m in self.members if self._awaited(m)]
        writable = [m for m in present if m.standing is not None and m.standing.writable]
        if any(m.standing is not None and not m.standing.told for m in present):
            writable = [m for m in writable if m is self.members[0]]  # the engine knows no roles: the label decides
        fenced = tuple((m, self._older(m)) for m in writable if self._older(m))
        newest = [m for m in writable if not self._older(m)]
        if self.elected is not None:
            named, asked = self.elected
            if asked < self.doubted:
                return Verdict(None, "the cluster manager is being asked for the primary", asking=True, fenced=fenced)
            passed_over = [m for m in newest if m is not named]
            fenced += tuple((m, "the cluster manager names another, or nobody, as the primary") for m in passed_over)
            newest = [m for m in newest if m is named]
        if len(newest) > 1:
            names = " and ".join(m.name for m in newest)
            return Verdict(
                None, f"{names} both say that they are the primary: nothing is written until one of them is stopped",
                asking=bool(waited_for), fenced=fenced, rivals=tuple(newest),
            )  # fmt: skip
        if newest and not any(self._could_outrank(m, newest[0]) for m in waited_for):
            return Verdict(newest[0], fenced=fenced)
        if newest or waited_for:
            return Verdict(None, "the members are being asked which of them is the primary", asking=True, fenced=fenced)
        return Verdict(None, self._absence(), fenced=fenced)

    def _awaited(self, member: Member) -> bool:
        """Whether a member that was there has neither answered nor failed to since the last doubt."""
        if member.foreign:
            return False
        if member.standing is None:  # it is gone, or was never asked
            return member.opened and member.last is None and member.failed < self.doubted
        return max(member.sent, member.failed) < self.doubted

    @staticmethod
    def _could_outrank(member: Member, candidate: Member) -> bool:
        if member is candidate:
            return False
        last, best = member.last, candidate.standing
        if last is None or best is None or last.timeline is None or best.timeline is None:
            return True
        # An old primary stays on its timeline, however late it answers; a standby may have been promoted meanwhile.
        return not (last.writable and last.timeline < best.timeline)

    def _older(self, member: Member) -> str:
        """Why a member that takes writes by its own word is not to get any; empty where it is."""
        standing = member.standing
        if standing is None or standing.timeline is None or self.timeline is None:
            return ""
        if standing.timeline >= self.timeline:
            return ""
        return (
            f"it takes writes on timeline {standing.timeline}, and the database went on to timeline {self.timeline}: "
            "it is an old primary, to be made a copy of the new one"
        )

    def _absence(self) -> str:
        last = self.settled or self.members[0]
        if last.foreign:
            return f"the primary {last.name} {last.problem}, and a secondary takes no writes"
        if last.standing is not None and last.sent >= self.doubted:
            what = "is fenced off" if last.standing.writable else "says that it takes no writes"
            return f"{last.name} {what}, and nobody else is the primary"
        return f"the primary {last.name} cannot be reached, and a secondary takes no writes"
