"""Positions, how far a replica is behind, and which of them is read from: without a server."""

from __future__ import annotations

from typing import Any

import pytest

from datavern import ConfigurationError, NoHealthyConnection
from datavern.connectors.routing import Positions, Token, lag_of, nearest, replicas
from datavern.connectors.topology import Member
from datavern.contracts.roles import Standing


def at(position: int, *, timeline: int = 1, began: int | None = None, **more: Any) -> Standing:
    return Standing(
        **{"writable": True, "system": "s", "timeline": timeline, "position": position, "began": began, **more}
    )


def replica(position: int, *, timeline: int = 1) -> Standing:
    return at(position, timeline=timeline, writable=False, replica=True)


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


def member(name: str, position: int, *, latency: float = 0.001, busy: int = 0) -> Member:
    made = Member(Named(name))  # type: ignore[arg-type]
    made.standing = replica(position)
    made.took(latency)
    made.busy = busy
    return made


def test_a_token_is_text_and_comes_back():
    token = Token("7713226100280299583", 2, 50331648)
    assert Token.parse(str(token)) == token
    for wrong in ("", "a", "a-b", "a-x-c", "7-1", "7-1-g", 7, None, b"7-1-1", "7-1-1" * 100, "å-1-1"):
        with pytest.raises(ConfigurationError, match="expected what group.position"):
            Token.parse(wrong)


def test_what_was_written_by_then_is_there_or_not():
    positions = Positions("main")
    token = Token("s", 1, 100)
    assert not positions.holds(replica(99), token)
    assert positions.holds(replica(100), token)
    assert not positions.holds(at(100, system="other"), token)
    assert not positions.holds(Standing(writable=True, told=False), token)
    assert not positions.holds(replica(500), Token("s", 2, 100))  # it does not know of that timeline yet


def test_a_promotion_that_left_nothing_behind_keeps_older_positions_good():
    positions = Positions("main")
    positions.sample(at(100), 1.0, 0)
    assert positions.sample(at(130, timeline=2, began=120), 2.0, 0) is None
    assert positions.holds(replica(120, timeline=2), Token("s", 1, 110))
    with pytest.raises(NoHealthyConnection, match="lost: timeline 1 ended before it") as caught:
        positions.check(Token("s", 1, 121))
    assert caught.value.retry == "never"


def test_what_a_promotion_left_behind_is_counted_from_both_sides():
    positions = Positions("main")
    positions.begun = positions.acknowledged = 10
    positions.sample(at(100), 1.0, 10)  # everybody has these ten
    positions.begun = positions.acknowledged = 15
    positions.sample(at(150), 2.0, 15)  # five by 150
    positions.begun = positions.acknowledged = 19
    lost = positions.sample(at(125, timeline=2, began=120), 3.0, 19)
    assert lost is not None
    assert (lost.old, lost.new, lost.began, lost.bytes) == (1, 2, 120, 30)
    # Those begun after 150 was known lie beyond it: four for certain. Those after 100 may.
    assert (lost.lost_at_least, lost.lost_at_most) == (4, 9)


def test_how_far_a_replica_is_behind_is_measured_at_what_the_primary_told():
    positions = Positions("main")
    for second, position in enumerate((100, 200, 200, 300)):
        positions.sample(at(position), float(second), 0)
    assert lag_of(member("a", 300), positions, now=3.5) == 0.5
    assert lag_of(member("a", 299), positions, now=3.5) == 1.5  # it has seen all that was written by second 2
    assert lag_of(member("a", 100), positions, now=3.5) == 3.5
    assert lag_of(member("a", 99), positions, now=3.5) is None
    assert lag_of(Member(Named("gone")), positions, now=3.5) is None  # type: ignore[arg-type]
    positions.sample(at(310, timeline=2, began=300), 4.0, 0)
    assert lag_of(member("a", 300), positions, now=4.5) is None  # still on the old timeline


def test_the_replica_that_answers_quickest_and_has_least_to_do_is_read_from():
    positions = Positions("main")
    quick, slow = member("quick", 100), member("slow", 100, latency=0.01)
    assert [m.name for m in replicas([slow, quick], positions, None)] == ["quick", "slow"]
    assert nearest([slow, quick], positions, None) is quick
    quick.busy = 20
    assert nearest([slow, quick], positions, None) is slow
    slow.missing = 1
    quick.standing = at(100, replica=False)  # it was promoted
    assert replicas([slow, quick], positions, None) == []
    assert nearest([slow, quick], positions, None) is None


async def test_a_tasks_own_writes_bound_what_is_near():
    positions = Positions("main")
    near = member("a", 100)
    assert nearest([near], positions, None) is near
    positions.acknowledged = 1
    positions.wrote()
    assert nearest([near], positions, None) is None  # nobody knows yet where that write is
    positions.learn(at(101), 1)
    assert nearest([near], positions, None) is None
    near.standing = replica(101)
    assert nearest([near], positions, None) is near


def test_many_samples_are_kept_within_bounds():
    positions = Positions("main")
    for n in range(5000):
        positions.sample(at(n), float(n), 0)
    assert len(positions._samples) <= 1024
    assert lag_of(member("a", 4999), positions, now=5000.0) == 1.0
