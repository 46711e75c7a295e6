"""Where a read goes: positions in a database's history, how far replicas are behind, and which of them is to read.

Positions are compared within a timeline: a promotion begins a new one, at a position which the new primary tells. What
the old one wrote beyond it is gone, and no replica is taken to have it.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError, NoHealthyConnection

if TYPE_CHECKING:
    from datavern.connectors.topology import Member
    from datavern.contracts.roles import Standing

__all__ = ["Divergence", "Positions", "Token", "lag_of", "nearest", "replicas"]

_SAMPLES = 1024


@dataclass(frozen=True, slots=True)
class Token:
    """A place in a database's history, as text that one request can hand to the next.

    Attributes:
        system: which database: see `datavern.contracts.roles.Standing`.
        timeline: of the primary that told it.
        position: everything up to here.
    """

    system: str
    timeline: int
    position: int

    def __str__(self) -> str:
        return f"{self.system}-{self.timeline:x}-{self.position:x}"

    @classmethod
    def parse(cls, text: Any) -> Token:
        """The token that ``str(token)`` gave.

        Raises:
            ConfigurationError: it is none.
        """
        parts = text.rsplit("-", 2) if isinstance(text, str) and text.isascii() and len(text) <= 200 else []  # noqa: PLR2004  (longer than any)
        try:
            return cls(parts[0], int(parts[1], 16), int(parts[2], 16))
        except (IndexError, ValueError):
            pass
        raise ConfigurationError("after: expected what group.position() gave, as it gave it")


@dataclass(frozen=True, slots=True)
class Divergence:
    """A promotion that left writes behind.

    Attributes:
        old: the timeline that ended.
        new: the one that began.
        began: the position at which it began: what the old primary wrote beyond it is not in the database any more.
        lost_at_least: writes that this group had acknowledged and that are certainly among it.
        lost_at_most: writes that this group had acknowledged and that may be among it.
        bytes: how far beyond the old primary is known to have come.
    """

    old: int
    new: int
    began: int
    lost_at_least: int
    lost_at_most: int
    bytes: int


@dataclass(slots=True)
class _Sample:
    position: int
    sent: float
    acknowledged: int
    begun: int


class Positions:
    """What the group knows of its database's history.

    Attributes:
        begun: writes that were sent, through this group.
        acknowledged: writes that were confirmed.
        ends: timeline → the position at which it ended, where that is known.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.begun = 0
        self.acknowledged = 0
        self.ends: dict[int, int] = {}
        self._timeline: int | None = None
        self._samples: list[_Sample] = []  # by position, which is by time
        self._own: ContextVar[int] = ContextVar(f"datavern_writes_{name}", default=0)
        self._known: tuple[int, Token] | None = None

    # ---- of the primary ---------------------------------------------------------------------------------------------

    def sample(self, standing: Standing, sent: float, acknowledged: int) -> Divergence | None:
        """The primary told its position.

        Args:
            standing: its answer.
            sent: when the question was sent.
            acknowledged: how many writes had been, then.

        Returns:
            What was lost, where a new timeline began before the old one's end.
        """
        if standing.timeline is None or standing.position is None:
            return None
        lost = None
        if self._timeline is not None and standing.timeline > self._timeline:
            if standing.began is not None:
                for ended in range(self._timeline, standing.timeline):
                    self.ends[ended] = min(standing.began, self.ends.get(ended, standing.began))
                lost = self._diverged(standing)
            self._samples.clear()
        self._timeline = standing.timeline
        if self._samples and self._samples[-1].position == standing.position:
            self._samples[-1].sent = sent
            self._samples[-1].acknowledged = acknowledged
        elif not self._samples or self._samples[-1].position < standing.position:
            self._samples.append(_Sample(standing.position, sent, acknowledged, self.begun))
            if len(self._samples) > _SAMPLES:
                del self._samples[: _SAMPLES // 2]
        return lost

    def _diverged(self, standing: Standing) -> Divergence | None:
        began = standing.began
        assert began is not None  # noqa: S101  (for the type checker: the caller looked)
        assert standing.timeline is not None  # noqa: S101  (the same)
        assert self._timeline is not None  # noqa: S101  (the same)
        held = [s for s in self._samples if s.position <= began]
        beyond = [s for s in self._samples if s.position > began]
        if not beyond:
            return None
        # A write that was begun after the old primary was known to be beyond that point lies beyond it, too.
        return Divergence(
            old=self._timeline,
            new=standing.timeline,
            began=began,
            lost_at_least=max(0, self.acknowledged - beyond[0].begun),
            lost_at_most=self.acknowledged - (held[-1].acknowledged if held else 0),
            bytes=beyond[-1].position - began,
        )

    def seen_until(self, standing: Standing) -> float | None:
        """When (`time.monotonic`) a replica with that standing saw everything that had been written; None: unknown."""
        if standing.position is None or standing.timeline != self._timeline:
            return None
        at = bisect_right(self._samples, standing.position, key=lambda s: s.position)
        return self._samples[at - 1].sent if at else None

    # ---- a task's own writes ----------------------------------------------------------------------------------------

    def wrote(self) -> None:
        """This task's write was acknowledged."""
        self._own.set(self.acknowledged)

    @property
    def own(self) -> int:
        """The number of this task's last write; 0 where it made none."""
        return self._own.get()

    def known(self, write: int) -> Token | None:
        """A position by which that write is in the history, where one is known already."""
        known = self._known
        return known[1] if known is not None and known[0] >= write else None

    def learn(self, standing: Standing, write: int) -> Token | None:
        """The primary told its position when the write of that number had been acknowledged."""
        if standing.system is None or standing.timeline is None or standing.position is None:
            return None
        token = Token(standing.system, standing.timeline, standing.position)
        if self._known is None or self._known[0] <= write:
            self._known = (write, token)
        return token

    # ---- comparing --------------------------------------------------------------------------------------------------

    def holds(self, standing: Standing, token: Token) -> bool:
        """Whether what stands at that position can be read there.

        Raises:
            NoHealthyConnection: nobody has it, nor ever will: a promotion left it behind.
        """
        self.check(token)
        if standing.system != token.system or standing.timeline is None or standing.position is None:
            return False
        return standing.timeline >= token.timeline and standing.position >= token.position

    def check(self, token: Token) -> None:
        """Whether what stands there is still in the history.

        Raises:
            NoHealthyConnection: a promotion left it behind.
        """
        for timeline, end in self.ends.items():
            if token.timeline <= timeline and token.position > end:
                raise NoHealthyConnection(
                    f"{self._name}: what was written by that position is lost: timeline {timeline} ended before it, "
                    "and the primary of today never received it",
                    provider=self._name,
                    retry="never",
                )


def lag_of(member: Member, positions: Positions, now: float | None = None) -> float | None:
    """Seconds by which a replica is behind, at the most; None where that cannot be told.

    Measured against positions that the primary told, by this process's own steady clock: no server's clock is asked,
    and a replica that lost its primary does not look as if it had caught up.
    """
    if member.standing is None:
        return None
    until = positions.seen_until(member.standing)
    return None if until is None else max(0.0, (monotonic() if now is None else now) - until)


def replicas(members: Iterable[Member], positions: Positions, max_lag: float | None) -> list[Member]:
    """Those that may be read from, best first: quick answers and few reads at this moment.

    Args:
        members: all of the group.
        positions: of the primary.
        max_lag: seconds that a replica may be behind; None: however many.
    """
    able = [member for member in members if _able(member, positions, max_lag)]
    if len(able) > 1:
        random.shuffle(able)  # spreads load where all are alike
        able.sort(key=_burden)
    return able


def nearest(members: Iterable[Member], positions: Positions, max_lag: float | None) -> Member | None:
    """The first of `replicas`, if it certainly shows this task's own writes; None where that is to be found out."""
    best, least = None, float("inf")
    for member in members:
        if _able(member, positions, max_lag) and (burden := member.latency * (1 + member.busy)) < least:
            best, least = member, burden
    if best is None or best.breaker.failures:
        return None
    if own := positions.own:
        token = positions.known(own)
        if token is None or best.standing is None or not positions.holds(best.standing, token):
            return None
    return best


def _burden(member: Member) -> float:
    return member.latency * (1 + member.busy)


def _able(member: Member, positions: Positions, max_lag: float | None) -> bool:
    standing = member.standing
    if standing is None or not standing.replica or member.foreign or member.missing:
        return False
    if max_lag is None:
        return True
    lag = lag_of(member, positions)
    return lag is not None and lag <= max_lag
