"""The clocks of a breach: 72 hours and 24, through weekends, Easter and the nights when Norway's clocks change."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from datavern.cli.breach_words import clock_line, lines_of, moment_of
from datavern.contracts.errors import ConfigurationError
from datavern.privacy.breach.breach import Breach, Clock, Exposed, assess, in_norway

OSLO = ZoneInfo("Europe/Oslo")
UTC = dt.UTC


def breach(aware, **more):
    kinds = more.pop("kinds", ("confidentiality",))
    return Breach("2026-001", 1, kinds, aware, "what", aware, **more)


@pytest.mark.parametrize(
    ("aware", "due"),
    [
        ("2026-11-28T14:05+01:00", "2026-12-01T14:05+01:00"),  # a Saturday: weekends count
        ("2026-04-01T16:00+02:00", "2026-04-04T16:00+02:00"),  # before Easter: it ends on the Saturday
        ("2026-12-24T12:00+01:00", "2026-12-27T12:00+01:00"),
        ("2026-03-28T12:00+01:00", "2026-03-31T13:00+02:00"),  # 72 hours, an hour later by the clock on the wall
        ("2026-10-24T12:00+02:00", "2026-10-27T11:00+01:00"),  # and an hour sooner
    ],
)
def test_seventy_two_hours_are_seventy_two_hours(aware, due):
    moment = dt.datetime.fromisoformat(aware).astimezone(OSLO)
    (clock,) = breach(moment).clocks
    assert clock.due == dt.datetime.fromisoformat(due)
    assert clock.due - moment.astimezone(UTC) == dt.timedelta(hours=72)
    assert in_norway(clock.due)[:16] == due[:16].replace("T", " ")


def test_the_last_moment_is_in_time():
    aware = dt.datetime(2026, 11, 1, tzinfo=UTC)
    due = aware + dt.timedelta(hours=72)
    found = breach(aware)
    assert not found.overdue(due)
    assert found.overdue(due + dt.timedelta(microseconds=1))
    assert found.clocks[0].left(due - dt.timedelta(hours=2)) == dt.timedelta(hours=2)
    told = breach(aware, sent=(due, due + dt.timedelta(days=9)))  # a later phase is not late
    assert not told.clocks[0].late
    late = breach(aware, sent=(due + dt.timedelta(seconds=1),))
    assert late.clocks[0].late
    assert not late.overdue(due + dt.timedelta(days=1))
    assert not breach(aware, closed_at=due).overdue(due + dt.timedelta(days=1))


def test_an_essential_service_has_twenty_four_hours():
    aware = dt.datetime(2026, 10, 24, 12, tzinfo=OSLO)
    incident, authority = breach(aware, essential=True).clocks
    assert in_norway(incident.due) == "2026-10-25 11:00 CET"
    assert incident.due < authority.due


def test_what_is_left_in_words():
    due = dt.datetime.now(UTC) + dt.timedelta(hours=49, minutes=5, seconds=30)
    assert clock_line(Clock("authority", due, None)).startswith("Datatilsynet: 2 d 1 h 05 min left, until ")
    past = dt.datetime.now(UTC) - dt.timedelta(hours=3, seconds=5)
    assert clock_line(Clock("incident", past, None)) == "early warning: OVERDUE by 3 h 00 min"
    assert clock_line(Clock("incident", past, past - dt.timedelta(hours=1))) == "early warning: told, 1 h 00 min early"
    assert clock_line(Clock("authority", past, past + dt.timedelta(hours=1))) == "Datatilsynet: told, 1 h 00 min late"
    assert clock_line(Clock("authority", past, None), closed=True) == "Datatilsynet: not told"


# ---- moments as people write them -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-28T14:05", "2026-11-28T13:05+00:00"),
        ("2026-07-01 14:05", "2026-07-01T12:05+00:00"),
        ("2026-11-28T14:05+05:00", "2026-11-28T09:05+00:00"),
        ("2026-11-28T14:05Z", "2026-11-28T14:05+00:00"),
        ("2026-10-25T02:30", "2026-10-25T00:30+00:00"),  # it comes twice: the first, whose clocks run out sooner
        ("2026-11-28", "2026-11-27T23:00+00:00"),
    ],
)
def test_a_moment_is_norways_where_nothing_else_is_said(text, moment):
    assert moment_of(text) == dt.datetime.fromisoformat(moment)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "28.11.2026", "'; DROP"])
def test_what_is_no_moment(text):
    with pytest.raises(ConfigurationError, match="is no moment"):
        moment_of(text)


def test_an_hour_that_norway_skips():
    with pytest.raises(ConfigurationError, match="skip this hour"):
        moment_of("2026-03-29T02:30")
    assert moment_of("2026-03-29T02:30+01:00") == dt.datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    assert moment_of(None) is None
    assert moment_of("now") is not None


def test_a_list_of_people(tmp_path):
    file = tmp_path / "people.txt"
    file.write_text('anne\r\n\n"a\\nb"\n"\nbjørn', encoding="utf-8")
    assert lines_of(file) == ["anne", "a\nb", '"', "bjørn"]


# ---- what it keeps, and what it seems to ask for --------------------------------------------------------------------


def test_a_breach_is_read_as_it_was_written():
    aware = dt.datetime(2026, 11, 28, 13, 5, tzinfo=UTC)
    whole = breach(
        aware,
        essential=True,
        sent=(aware,),
        datasets=("a", "b"),
        affected={"people": 3},
        measures="æøå",
        closed_at=aware,
    )
    columns = {"id": "2026-001", "version": 1, "changed_at": "", "changed_by": None}
    assert Breach.of(columns, whole.plain()) == whole
    assert Breach.of(columns, {**whole.plain(), "of_a_later_version": 1}) == whole


SEALED = Exposed("main.users", sealed=("name",))
NUMBERS = Exposed("main.users", sealed=("name", "number"), numbers=("number",))
HEALTH = Exposed("main.journal", sealed=("name",), readable=("diagnosis",), special=("diagnosis",))
SOME = {"people": 3, "rows": 3, "lower_bound": False}
NONE = {"people": 0, "rows": 0, "lower_bound": False}
UNKNOWN = {"people": 0, "rows": 0, "lower_bound": True}


@pytest.mark.parametrize(
    ("exposed", "settings", "authority", "people"),
    [
        ([SEALED], {}, "record only", "not needed"),
        ([NUMBERS], {}, "record only", "not needed"),
        ([SEALED], {"keys_exposed": True}, "notify", "assess"),
        ([NUMBERS], {"keys_exposed": True}, "notify", "inform"),
        ([NUMBERS], {"exposure": "plain"}, "notify", "inform"),
        ([HEALTH], {}, "notify", "inform"),
        ([SEALED], {"kinds": ("confidentiality", "availability")}, "notify", "assess"),
        ([NUMBERS], {"kinds": ("integrity",)}, "notify", "assess"),
        ([HEALTH], {"affected": NONE}, "record only", "not needed"),
        ([HEALTH], {"affected": UNKNOWN}, "notify", "inform"),
        ([SEALED, HEALTH], {}, "notify", "inform"),
        ([], {}, "notify", "assess"),
        ([Exposed("cache.sessions", whole=True)], {}, "record only", "not needed"),
        ([Exposed("cache.sessions")], {}, "notify", "assess"),
    ],
)
def test_what_it_seems_to_ask_for(exposed, settings, authority, people):
    found = assess(breach(dt.datetime(2026, 11, 1, tzinfo=UTC), **{"affected": SOME, **settings}), exposed)
    assert (found.authority, found.people) == (authority, people), found.reasons
    assert found.reasons
