"""Who may be written to: every rule, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from datavern.connectors.topology import Member, Topology
from datavern.contracts.roles import Standing


class Named:
    """As much of a provider as a topology looks at."""

    def __init__(self, name: str) -> None:
        self.name = name


class Stage:
    """Three members, and a clock that turns by hand."""

    def __init__(self, *names: str) -> None:
        self.now = 100.0
        self.members = {name: Member(Named(name)) for name in names}  # type: ignore[arg-type]
        for member in self.members.values():
            member.opened = True
        self.topology = Topology("main", list(self.members.values()))
        self.doubt()  # as a group does when it opens

    def says(self, name: str, *, sent: float | None = None, **standing: Any) -> None:
        self.now += 0.01
        given = {"writable": False, "system": "s", "timeline": 1, **standing}
        self.topology.heard(self.members[name], Standing(**given), self.now if sent is None else sent)

    def silent(self, name: str, *, gone: bool = True) -> None:
        self.now += 0.01
        self.topology.missed(self.members[name], "no answer", self.now, gone=gone)

    def doubt(self) -> None:
        self.now += 0.01
        self.topology.doubt(self.now)

    @property
    def leader(self) -> str | None:
        found = self.topology.verdict(self.now).leader
        return None if found is None else found.name

    @property
    def verdict(self) -> Any:
        return self.topology.verdict(self.now)


@pytest.fixture
def stage() -> Stage:
    """Oslo is the primary, and Bergen and Tromsø follow it."""
    stage = Stage("oslo", "bergen", "tromsø")
    stage.says("oslo", writable=True)
    stage.says("bergen")
    stage.says("tromsø")
    assert stage.leader == "oslo"
    return stage


def test_nobody_is_written_to_before_everybody_was_asked():
    stage = Stage("oslo", "bergen")
    assert stage.verdict.asking
    stage.says("oslo", writable=True)
    assert (stage.leader, stage.verdict.asking) == (None, True)
    stage.silent("bergen")
    assert (stage.leader, stage.verdict.asking) == ("oslo", False)


def test_the_servers_word_counts_and_not_the_label():
    stage = Stage("oslo", "bergen")
    stage.says("oslo")
    stage.says("bergen", writable=True)
    assert stage.leader == "bergen"


def test_one_slow_answer_changes_nothing(stage: Stage):
    stage.silent("oslo", gone=False)
    assert stage.leader == "oslo"
    stage.silent("oslo", gone=False)
    assert stage.leader is None
    assert "oslo cannot be reached, and a secondary takes no writes" in stage.verdict.reason
    stage.says("oslo", writable=True)
    assert stage.leader == "oslo"


def test_after_a_doubt_what_was_said_before_counts_for_nothing(stage: Stage):
    before = stage.now
    stage.doubt()
    stage.says("oslo", writable=True, sent=before)  # asked before, answered after
    assert (stage.leader, stage.verdict.asking) == (None, True)
    stage.says("oslo", writable=True)
    assert stage.leader is None  # Bergen may have been promoted meanwhile
    stage.says("bergen")
    stage.silent("tromsø", gone=False)  # it was asked, and that is enough
    assert stage.leader == "oslo"


def test_whoever_was_away_before_a_doubt_is_not_waited_for(stage: Stage):
    stage.silent("tromsø")
    stage.doubt()
    stage.says("oslo", writable=True)
    stage.says("bergen")
    assert stage.leader == "oslo"


def test_a_promotion_is_followed_and_the_old_primary_is_not_waited_for(stage: Stage):
    stage.doubt()
    stage.says("tromsø")
    stage.says("bergen", writable=True, timeline=2)
    assert stage.leader == "bergen"  # Oslo froze: however late it answers, it is on timeline 1


def test_another_standby_is_waited_for_it_may_have_been_promoted_too(stage: Stage):
    stage.doubt()
    stage.says("bergen", writable=True, timeline=2)
    assert stage.leader is None
    stage.says("tromsø", writable=True, timeline=2)
    stage.says("oslo", writable=True)
    assert stage.leader is None


def test_an_old_primary_that_comes_back_is_fenced_off(stage: Stage):
    stage.silent("oslo")
    stage.says("bergen", writable=True, timeline=2)
    assert stage.leader == "bergen"
    stage.says("oslo", writable=True, timeline=1)
    assert stage.leader == "bergen"
    ((fenced, why),) = stage.verdict.fenced
    assert fenced.name == "oslo"
    assert "timeline 1, and the database went on to timeline 2" in why
    stage.silent("bergen")
    assert stage.leader is None  # not even when it is the only one that is left
    assert "oslo" in {m.name for m, _ in stage.verdict.fenced}


def test_a_standby_knows_of_a_newer_timeline_too(stage: Stage):
    stage.silent("oslo")
    stage.says("tromsø", timeline=2)  # it follows a primary that this process never saw
    stage.says("oslo", writable=True, timeline=1)
    assert stage.leader is None


def test_two_that_say_the_same_are_asked_again_and_then_refused(stage: Stage):
    stage.says("bergen", writable=True)
    assert (stage.leader, stage.verdict.asking) == (None, True)
    stage.says("tromsø")
    stage.says("oslo", writable=True)
    stage.says("bergen", writable=True)
    assert stage.leader is None
    assert stage.verdict.reason.startswith("oslo and bergen both say that they are the primary")
    assert [m.name for m in stage.verdict.rivals] == ["oslo", "bergen"]
    stage.says("oslo")  # it stepped down
    assert stage.leader == "bergen"


def test_a_switchover_on_one_timeline_is_no_conflict(stage: Stage):
    """Read-only and writable by a setting: whoever steps down last answered before."""
    stage.says("bergen", writable=True)  # Oslo's answer is older
    stage.verdict  # noqa: B018  (raises the doubt)
    stage.says("oslo")
    stage.says("bergen", writable=True)
    stage.says("tromsø")
    assert stage.leader == "bergen"


def test_another_database_takes_no_part():
    stage = Stage("oslo", "bergen", "tromsø")
    stage.says("bergen", system="other", writable=True)
    stage.says("oslo", writable=True)
    stage.says("tromsø")
    assert stage.leader == "oslo"  # as long as nobody was the primary, the label says whose database it is
    assert stage.members["bergen"].foreign
    stage.silent("oslo")
    stage.says("oslo", writable=True, system="other")  # another database in its place
    assert stage.leader is None
    stage = Stage("oslo", "bergen")
    stage.says("oslo", writable=True)
    stage.says("bergen", writable=True, system="other", timeline=7)
    assert stage.leader == "oslo"
    assert "holds another database (system identifier other" in stage.members["bergen"].problem


def test_where_the_engine_knows_no_roles_the_label_decides():
    stage = Stage("a.db", "b.db")
    for name in ("a.db", "b.db"):
        stage.says(name, writable=True, told=False, system=None, timeline=None)
    assert stage.leader == "a.db"
    stage.silent("a.db")
    assert stage.leader is None
    assert not stage.verdict.rivals


def test_the_cluster_manager_names_the_primary(stage: Stage):
    bergen = stage.members["bergen"]
    stage.topology.elected = (bergen, stage.now)
    assert stage.leader is None  # Bergen itself does not say so yet
    stage.says("bergen", writable=True, timeline=2)
    assert stage.leader == "bergen"
    stage.topology.elected = (None, stage.now)
    assert stage.leader is None
    stage.topology.elected = None  # it is silent: by roles
    assert stage.leader == "bergen"
    stage.topology.elected = (bergen, stage.now)
    stage.doubt()
    stage.says("bergen", writable=True, timeline=2)
    stage.says("tromsø", timeline=2)
    assert (stage.leader, stage.verdict.asking) == (None, True)  # it is asked again, too
    stage.topology.elected = (bergen, stage.now)
    assert stage.leader == "bergen"


def test_latencies_are_told_as_quantiles():
    member = Member(Named("oslo"))  # type: ignore[arg-type]
    assert member.latency == float("inf")
    for n in range(1, 101):
        member.took(n / 1000)
    assert member.latency == pytest.approx(0.051)
    assert member.quantile(0.99) == pytest.approx(0.1)
