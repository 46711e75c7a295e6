"""A failover group's health: what its members and its monitor say, as one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from datavern.connectors.routing import Positions, lag_of
from datavern.contracts.values import Health

if TYPE_CHECKING:
    from datavern.connectors.topology import Member, Verdict

__all__ = ["group_health"]


def group_health(
    members: Sequence[Member],
    found: Sequence[Health],
    *,
    leader: Member | None,
    verdict: Verdict | None,
    positions: Positions,
) -> Health:
    """The members' health as one.

    Args:
        members: of the group.
        found: what each of their providers said just now.
        leader: the primary, where there is one.
        verdict: the monitor's; None while the group is closed.
        positions: of the primary.
    """
    shown = {m.name: _shown(m, h, m is leader, verdict, positions) for m, h in zip(members, found, strict=True)}
    by_member = dict(zip(members, found, strict=True))
    answering = next((h for h in found if h.status != "unhealthy"), found[0])
    serving = answering if leader is None else by_member[leader]
    problems = [f"{name}: {facts['problem']}" for name, facts in shown.items() if facts["problem"]]
    if verdict is not None and leader is None and serving.status != "unhealthy":
        problems.insert(0, f"no writes: {verdict.reason}")
    status = serving.status
    if status == "healthy" and problems:
        status = "degraded"
    role = serving.role if leader is not None or verdict is None else "secondary"
    facts = {"members": shown, "primary": None if leader is None else leader.name}
    return Health(status, role, serving.latency, serving.version, "; ".join(problems), serving.pool, facts)


def _shown(
    member: Member, health: Health, serves: bool, verdict: Verdict | None, positions: Positions
) -> dict[str, Any]:
    standing = member.standing
    fenced = {} if verdict is None else dict(verdict.fenced)
    problem = fenced.get(member) or (member.problem if member.foreign else "")
    if not problem and health.status != "healthy":
        problem = health.detail or health.status
    if not problem and standing is not None and standing.following is False:
        problem = "it is not connected to a primary"
    shown: dict[str, Any] = {
        "status": "degraded" if problem and health.status == "healthy" else health.status,
        "role": health.role if standing is None or not standing.told else standing.role,
        "serves": serves,
        "version": health.version,
        "pool": health.pool,
        "problem": problem,
    }
    if member.latencies:
        shown["latency"] = {f"p{share}": member.quantile(share / 100) for share in (50, 95, 99)}
    if standing is not None and standing.timeline is not None:
        shown |= {"timeline": standing.timeline, "position": standing.position}
        if not standing.writable:
            shown["lag"] = lag_of(member, positions)
    return shown
