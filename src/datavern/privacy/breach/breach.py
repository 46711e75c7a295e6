"""A personal data breach: what happened, its clocks, and what it seems to ask for (GDPR Arts. 33 and 34)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import now
from datavern.privacy.values.deadlines import breach_deadline, incident_deadline

__all__ = ["Assessment", "Breach", "Clock", "Exposed", "Kind", "assess", "in_norway"]

Kind = Literal["confidentiality", "integrity", "availability"]
Exposure = Literal["stored", "plain"]

_MOMENTS = frozenset(
    {
        "aware_at",
        "happened_at",
        "happened_until",
        "people_notified_at",
        "incident_notified_at",
        "opened_at",
        "closed_at",
    }
)
_LISTS = frozenset({"kinds", "datasets", "databases"})


def in_norway(moment: dt.datetime) -> str:
    """A moment as a clock in Norway shows it: ``2026-11-28 14:05 CET``."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415  (reads the system's tables of time zones)

    return moment.astimezone(ZoneInfo("Europe/Oslo")).strftime("%Y-%m-%d %H:%M %Z")


@dataclass(frozen=True, slots=True)
class Clock:
    """A time within which somebody must be told.

    Attributes:
        what: "authority" (Datatilsynet, Art. 33(1)) or "incident" (digitalsikkerhetsloven).
        due: the last moment.
        done_at: when it was done, or None.
    """

    what: Literal["authority", "incident"]
    due: dt.datetime
    done_at: dt.datetime | None

    def left(self, at: dt.datetime | None = None) -> dt.timedelta:
        """How much time there is, or was when it was done; negative: it is too late, or was."""
        return self.due - (self.done_at or at or now())

    def overdue(self, at: dt.datetime | None = None) -> bool:
        """Whether it is too late, and not done."""
        return self.done_at is None and self.left(at) < dt.timedelta(0)

    @property
    def late(self) -> bool:
        """Whether it was done, and too late."""
        return self.done_at is not None and self.done_at > self.due


@dataclass(frozen=True, slots=True)
class Breach:
    """One breach, as its last entry in the register has it.

    Attributes:
        id: ``2026-001``.
        version: how many entries there are.
        kinds: what was violated: confidentiality, integrity, availability.
        aware_at: when the organisation became aware: the clocks run from here.
        description: what happened. It may hold personal data, and is sealed.
        opened_at: when it was entered.
        happened_at: when it happened, or began; None: not known yet.
        happened_until: when it ended.
        datasets: names in the data map.
        databases: names of the databases.
        exposure: "stored": as it lies in the database, sealed fields sealed; "plain": as the application shows it.
        keys_exposed: whether the keys of sealed data were exposed with it.
        consequences: the likely consequences (Art. 33(3)(c)).
        measures: taken or proposed (Art. 33(3)(d)).
        contact: the data protection officer, or another contact point (Art. 33(3)(b)).
        note: the last entry's remark.
        affected: the last count, as `datavern.privacy.breach.affected.Affected` in plain values; None: not counted.
        scope: what was counted, in plain values.
        sent: when Datatilsynet was notified: once for each phase (Art. 33(4)), the first of them counts.
        people_notified_at: when the people were told (Art. 34).
        incident_notified_at: when the incident was reported under digitalsikkerhetsloven.
        delay_reason: why it was later than 72 hours (Art. 33(1)).
        decision: what was decided, and why (Art. 33(5)).
        essential: whether digitalsikkerhetsloven's 24 hours hold.
        closed_at: when it was closed, or None.
        changed_at: when the last entry was made, RFC 3339.
        changed_by: who made it.
    """

    id: str
    version: int
    kinds: tuple[str, ...]
    aware_at: dt.datetime
    description: str
    opened_at: dt.datetime
    happened_at: dt.datetime | None = None
    happened_until: dt.datetime | None = None
    datasets: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    exposure: Exposure = "stored"
    keys_exposed: bool = False
    consequences: str = ""
    measures: str = ""
    contact: str = ""
    note: str = ""
    affected: Mapping[str, Any] | None = None
    scope: Mapping[str, Any] | None = None
    sent: tuple[dt.datetime, ...] = ()
    people_notified_at: dt.datetime | None = None
    incident_notified_at: dt.datetime | None = None
    delay_reason: str = ""
    decision: str = ""
    essential: bool = False
    closed_at: dt.datetime | None = None
    changed_at: str = ""
    changed_by: str | None = None

    @property
    def clocks(self) -> tuple[Clock, ...]:
        """72 hours to notify Datatilsynet, and 24 for an essential service. Weekends and holidays count."""
        found = [Clock("authority", breach_deadline(self.aware_at), self.sent[0] if self.sent else None)]
        if self.essential:
            found.insert(0, Clock("incident", incident_deadline(self.aware_at), self.incident_notified_at))
        return tuple(found)

    def overdue(self, at: dt.datetime | None = None) -> bool:
        """Whether a clock ran out on an open breach, and nobody was told or decided otherwise."""
        return self.closed_at is None and any(clock.overdue(at) for clock in self.clocks)

    def plain(self) -> dict[str, Any]:
        """Everything but what the register's own columns say, in values that JSON has."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name not in _COLUMNS}

    @classmethod
    def of(cls, columns: Mapping[str, Any], body: Mapping[str, Any]) -> Breach:
        """The breach of an entry. What a later version wrote, and this one does not know, is passed over."""
        known = {f.name for f in fields(cls)}
        values = {name: _read(name, value) for name, value in body.items() if name in known}
        return cls(**{**values, **columns})


_COLUMNS = frozenset({"id", "version", "changed_at", "changed_by"})


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _read(name: str, value: Any) -> Any:
    if name in _MOMENTS and value is not None:
        return dt.datetime.fromisoformat(value)
    if name == "sent":
        return tuple(map(dt.datetime.fromisoformat, value))
    return tuple(value) if name in _LISTS else value


def checked_changes(values: Mapping[str, Any], *, at: dt.datetime) -> dict[str, Any]:
    """What may be said of a breach, checked and in its own types.

    Raises:
        ConfigurationError: a moment without a time zone or in the future, no such kind, text that is none.
    """
    found = dict(values)
    for name in ("aware_at", "happened_at", "happened_until", "people_notified_at", "incident_notified_at"):
        if found.get(name) is not None:
            found[name] = _moment(name, found[name], at)
    if "sent" in found:
        found["sent"] = tuple(_moment("sent", one, at) for one in found["sent"])
    for name in _LISTS & found.keys():
        given = found[name]
        if not isinstance(given, str | Sequence | frozenset | set):
            raise ConfigurationError(f"{name}: expected names")
        found[name] = (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))
    _check_words(found)
    return found


def _check_words(found: Mapping[str, Any]) -> None:
    for kind in found.get("kinds", ()):
        if kind not in get_args(Kind):
            raise ConfigurationError(f"kinds: expected one or more of {', '.join(get_args(Kind))}")
    if "kinds" in found and not found["kinds"]:
        raise ConfigurationError(f"kinds: say what was violated: {', '.join(get_args(Kind))}")
    if not isinstance(found.get("keys_exposed", False), bool):
        raise ConfigurationError("keys_exposed: expected true or false")
    if found.get("exposure", "stored") not in get_args(Exposure):
        raise ConfigurationError("exposure: expected stored (as it lies in the database) or plain (as it is shown)")
    for name in ("description", "consequences", "measures", "contact", "note", "delay_reason", "decision"):
        if not isinstance(found.get(name, ""), str):
            raise ConfigurationError(f"{name}: expected text")
    if "description" in found and not found["description"].strip():
        raise ConfigurationError("description: say what happened, as far as it is known")


def check_order(breach: Breach) -> None:
    """Refuse moments that cannot follow one another."""
    began, ended = breach.happened_at, breach.happened_until
    if began is not None and ended is not None and ended < began:
        raise ConfigurationError("happened_until: lies before happened_at")
    if began is not None and breach.aware_at < began:
        raise ConfigurationError("aware_at: lies before happened_at: nobody knows of it before it happens")
    if any(told < breach.aware_at for told in (*breach.sent, breach.people_notified_at or breach.aware_at)):
        raise ConfigurationError("nobody is told before you are aware: aware_at lies after it")


def _moment(name: str, moment: Any, at: dt.datetime) -> dt.datetime:
    if not isinstance(moment, dt.datetime) or moment.tzinfo is None:
        raise ConfigurationError(f"{name}: expected a moment with its time zone")
    if moment > at + dt.timedelta(minutes=5):  # clocks differ
        raise ConfigurationError(f"{name}: lies in the future")
    return moment.astimezone(dt.UTC)


# ---- what it seems to ask for ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exposed:
    """What of a dataset is there to be read.

    Attributes:
        label: ``database.dataset``.
        sealed: names of the fields that are sealed where it lies.
        readable: names of those that are not.
        whole: whether each record is sealed as a whole.
        special: names of the fields with special categories of data, or data about crimes (Arts. 9 and 10).
        categories: of data, as the data map has them, the special ones marked; fields of none by their names.
        about: what kinds of people it is about.
        numbers: names of the fields with a fødselsnummer.
    """

    label: str
    sealed: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    whole: bool = False
    special: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()

    @property
    def unreadable(self) -> bool:
        """Whether nothing that the data map names can be read without keys."""
        return self.whole or (bool(self.sealed) and not self.readable)


@dataclass(frozen=True, slots=True)
class Assessment:
    """A recommendation, and no decision: that is the controller's.

    Attributes:
        authority: "notify" Datatilsynet, or "record only".
        people: "inform" them, "not needed", or "assess": it cannot be told from here.
        reasons: why, one sentence each.
    """

    authority: Literal["notify", "record only"]
    people: Literal["inform", "not needed", "assess"]
    reasons: tuple[str, ...]


def assess(breach: Breach, exposed: Sequence[Exposed]) -> Assessment:
    """What a breach seems to ask for (GDPR Arts. 33(1), 34(1) and 34(3)(a))."""
    reasons: list[str] = []
    counted = breach.affected
    if counted is not None and not counted["people"] and not counted["rows"] and not counted["lower_bound"]:
        reasons.append("Nobody's data was touched, as far as was counted: a risk to people is unlikely (Art. 33(1)).")
        return Assessment("record only", "not needed", tuple(reasons))
    if counted is None:
        reasons.append("How many people it touched was not counted yet.")
    elif counted["lower_bound"]:
        reasons.append("Not everything could be counted: more people may be touched.")
    secret = breach.exposure == "stored" and not breach.keys_exposed
    unreadable = bool(exposed) and all(one.unreadable for one in exposed) and secret
    lasting = [kind for kind in breach.kinds if kind != "confidentiality"]
    reasons += _of_sealing(breach, exposed, unreadable=unreadable)
    if unreadable and not lasting:
        reasons.append("A risk to people is unlikely as long as that holds (Art. 33(1)): write down why (Art. 33(5)).")
        return Assessment("record only", "not needed", tuple(reasons))
    for kind in lasting:
        reasons.append(f"Sealing does not help against the loss of {kind}.")
    reasons.append("A risk to people cannot be ruled out: notify Datatilsynet within 72 hours (Art. 33(1)).")
    readable = set() if unreadable else {f"{o.label}.{name}" for o in exposed for name in _high(o, secret=secret)}
    if readable:
        reasons.append(
            f"Special categories, data about crimes or identity numbers could be read ({', '.join(sorted(readable))}): "
            "a high risk is likely, so tell the people without undue delay (Art. 34(1))."
        )
        return Assessment("notify", "inform", tuple(reasons))
    reasons.append("Whether the risk is high, so that the people must be told (Art. 34(1)), is for you to assess.")
    return Assessment("notify", "assess", tuple(reasons))


def _of_sealing(breach: Breach, exposed: Sequence[Exposed], *, unreadable: bool) -> list[str]:
    if "confidentiality" not in breach.kinds:
        return []
    if not exposed:
        return ["No dataset is named: what could be read is not known."]
    if breach.keys_exposed:
        return ["The keys were exposed too: sealed fields count as readable. Rotate them: `datavern keys rotate`."]
    if breach.exposure == "plain":
        return ["It was seen as the application shows it: that fields are sealed in the database does not help."]
    if unreadable:
        return ["Everything that the data map names is sealed, and the keys were not exposed (Art. 34(3)(a))."]
    found = []
    for one in exposed:
        if one.readable:
            found.append(f"{one.label} holds readable fields: {', '.join(one.readable)}.")
        elif not one.unreadable:
            found.append(f"{one.label} has no sealed field: what is in it can be read.")
    return found


def _high(one: Exposed, *, secret: bool) -> tuple[str, ...]:
    """The fields that make a high risk likely, of those that could be read."""
    sensitive = (*one.special, *one.numbers)
    hidden = set(sensitive) if secret and one.unreadable else set(one.sealed) if secret else set()
    return tuple(name for name in sensitive if name not in hidden)
