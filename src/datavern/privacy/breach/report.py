"""What Datatilsynet is to be told of a breach: GDPR Art. 33(3)(a) to (d), in phases (Art. 33(4))."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from datavern.contracts.values import now
from datavern.privacy.breach.breach import Assessment, Breach, Exposed, in_norway

__all__ = ["BreachReport", "report"]

_TO_FOLLOW = "Not known yet: to follow (Art. 33(4))."


@dataclass(frozen=True, slots=True)
class BreachReport:
    """A notification's content.

    Attributes:
        data: as plain JSON values; times are in UTC.
    """

    data: Mapping[str, Any]

    def to_json(self) -> str:
        """For programs."""
        return json.dumps(self.data, ensure_ascii=False, indent=2) + "\n"

    def to_markdown(self) -> str:
        """For people; times are Norway's."""
        return "\n".join(_markdown(self.data)) + "\n"

    @property
    def missing(self) -> tuple[str, ...]:
        """What Art. 33(3) asks for, and is not known yet."""
        return tuple(self.data["missing"])


def report(
    breach: Breach,
    exposed: Sequence[Exposed],
    assessment: Assessment,
    purposes: Mapping[str, Sequence[str]],
    *,
    organisation: str,
) -> BreachReport:
    """The report, as far as things are known."""
    clock = next(c for c in breach.clocks if c.what == "authority")
    late = clock.late or clock.overdue()
    affected = breach.affected
    missing = [
        name
        for name, lacks in (
            ("when it happened", breach.happened_at is None),
            ("how many people and records (Art. 33(3)(a))", affected is None or affected["lower_bound"]),
            ("the contact point (Art. 33(3)(b))", not breach.contact),
            ("the likely consequences (Art. 33(3)(c))", not breach.consequences),
            ("the measures (Art. 33(3)(d))", not breach.measures),
            ("the reasons for the delay (Art. 33(1))", late and not breach.delay_reason),
        )
        if lacks
    ]
    return BreachReport(
        {
            "breach": breach.id,
            "version": breach.version,
            "controller": organisation,
            "phase": len(breach.sent) + 1,
            "earlier_phases": [_iso(one) for one in breach.sent],
            "made_at": _iso(now()),
            "aware_at": _iso(breach.aware_at),
            "due": _iso(clock.due),
            "late": late,
            "delay_reason": breach.delay_reason or None,
            "happened_at": _iso(breach.happened_at),
            "happened_until": _iso(breach.happened_until),
            "nature": {
                "kinds": list(breach.kinds),
                "description": breach.description,
                "databases": list(breach.databases),
                "exposure": breach.exposure,
                "keys_exposed": breach.keys_exposed,
                "people": None if affected is None else affected["people"],
                "records": None if affected is None else affected["rows"],
                "lower_bound": None if affected is None else affected["lower_bound"],
                "counted": None if affected is None else affected["scope"],
                "datasets": [] if affected is None else affected["datasets"],
                "categories": [
                    {**asdict(one), "purposes": list(purposes.get(one.label, ())), "unreadable": one.unreadable}
                    for one in exposed
                ],
            },
            "contact": breach.contact or None,
            "consequences": breach.consequences or None,
            "measures": breach.measures or None,
            "people_notified_at": _iso(breach.people_notified_at),
            "decision": breach.decision or None,
            "recommendation": asdict(assessment),
            "missing": missing,
        }
    )


def _iso(moment: Any) -> str | None:
    import datetime as dt  # noqa: PLC0415  (for this alone)

    if moment is None:
        return None
    return str(moment.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"))


def _clock(text: str | None) -> str:
    import datetime as dt  # noqa: PLC0415  (for this alone)

    return "not known yet" if text is None else in_norway(dt.datetime.fromisoformat(text))


def _plain(text: str | None) -> str:
    """A text of somebody's, in which nothing is a heading, a link or a mark-up of its own."""
    if not text:
        return _TO_FOLLOW
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(f"> {line.replace('<', '&lt;')}" if line.strip() else ">" for line in lines)


def _markdown(data: Mapping[str, Any]) -> Iterator[str]:
    yield f"# Personal data breach {data['breach']}: notification under GDPR Art. 33"
    yield ""
    yield f"Controller: {data['controller'] or 'not said'}. Phase {data['phase']}, made {_clock(data['made_at'])}."
    if data["earlier_phases"]:
        yield f"Notified before: {', '.join(map(_clock, data['earlier_phases']))} (Art. 33(4))."
    yield ""
    yield f"- Became aware: {_clock(data['aware_at'])}"
    yield f"- To be notified by: {_clock(data['due'])}"
    until = f" until {_clock(data['happened_until'])}" if data["happened_until"] else ""
    yield f"- Happened: {_clock(data['happened_at'])}{until}"
    if data["late"]:
        yield from _part("Reasons for the delay (Art. 33(1))", data["delay_reason"])
    nature = data["nature"]
    yield from _part("(a) Nature of the breach", nature["description"], f"Violated: {', '.join(nature['kinds'])}.")
    yield ""
    yield from _numbers(nature)
    yield from _part("(b) Contact point", data["contact"])
    yield from _part("(c) Likely consequences", data["consequences"])
    yield from _part("(d) Measures taken or proposed", data["measures"])
    told = f"Told: {_clock(data['people_notified_at'])}." if data["people_notified_at"] else "Not told yet."
    yield from ("", "## Communication to the people (Art. 34)", "", told)
    if data["decision"]:
        yield from _part("Decided", data["decision"])
    if data["missing"]:
        yield from ("", "## To follow", "", *(f"- {one}" for one in data["missing"]))


def _part(title: str, text: str | None, before: str = "") -> Iterator[str]:
    yield from ("", f"## {title}", "", *([before, ""] if before else []), _plain(text))


def _numbers(nature: Mapping[str, Any]) -> Iterator[str]:
    if nature["people"] is None:
        yield f"People and records: {_TO_FOLLOW}"
    else:
        least = "At least " if nature["lower_bound"] else ""
        people, records = _many(nature["people"], "person", "people"), _many(nature["records"], "record", "records")
        yield f"{least}{people}, {records} (counted: {nature['counted']})."
    if not nature["categories"]:
        return
    counts = {one["label"]: one for one in reversed(nature["datasets"])}  # what was read in bulk follows its dataset
    yield ""
    yield "| where | people | records | categories of data | could be read |"
    yield "|---|---|---|---|---|"
    for one in nature["categories"]:
        count = counts.get(one["label"], {})
        kinds = ", ".join(one["categories"]) or "–"
        kinds = f"{', '.join(one['about'])}: {kinds}" if one["about"] else kinds
        secret = nature["exposure"] == "stored" and not nature["keys_exposed"]
        read = "no: sealed" if one["unreadable"] and secret else "in part" if one["sealed"] and secret else "yes"
        cells = [one["label"], count.get("people", "?"), count.get("rows", "?"), kinds, read]
        yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"
    for problem in (c for c in nature["datasets"] if c["problem"]):
        yield ""
        yield f"Not counted, or not whole: {_cell(problem['label'])}: {_cell(problem['problem'])}"


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").replace("<", "&lt;").split())


def _many(number: int, one: str, more: str) -> str:
    return f"{number:,} {one if number == 1 else more}"
