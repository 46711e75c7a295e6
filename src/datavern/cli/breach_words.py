"""What `datavern breach` is given, and how it shows a breach."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datavern.cli.common import Output, require_file
from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.privacy.breach.affected import Affected
    from datavern.privacy.breach.breach import Assessment, Breach, Clock

__all__ = [
    "at_least", "clock_line", "given_of", "lines_of", "moment_of", "plain", "scope_of", "show_breach",
    "text_of",
]  # fmt: skip


# ---- what is given --------------------------------------------------------------------------------------------------


def given_of(**values: Any) -> dict[str, Any]:
    """What was given, without what was left out."""
    return {name: value for name, value in values.items() if value is not None and value != []}


def text_of(text: str | None) -> str | None:
    """A text, or what is in the file that it names: ``@what.txt``."""
    if text is None or not text.startswith("@"):
        return text
    return require_file(Path(text[1:]), "the text").strip()


def moment_of(text: str | None) -> dt.datetime | None:
    """A moment as people write it: Norway's time where there is no offset.

    Raises:
        ConfigurationError: it is none, or one that the clocks of Norway skip.
    """
    if text is None:
        return None
    if text.strip().lower() == "now":
        return dt.datetime.now(dt.UTC)
    problem = f"{text!r} is no moment: expected 2026-11-28T14:05, or with its offset, or now"
    try:
        found = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        found = None
    if found is None:
        raise ConfigurationError(problem)
    if found.tzinfo is not None:
        return found
    from zoneinfo import ZoneInfo

    # In the hour that comes twice, the first is meant: its clocks run out sooner.
    here = found.replace(tzinfo=ZoneInfo("Europe/Oslo"))
    if here.astimezone(dt.UTC).astimezone(here.tzinfo).replace(tzinfo=None) != found:
        raise ConfigurationError(f"{text!r}: the clocks of Norway skip this hour: say it with its offset")
    return here.astimezone(dt.UTC)


def lines_of(path: Path) -> list[str]:
    """The ids of a file, one on each line."""
    found = []
    for line in require_file(path, "the list").split("\n"):
        text = line.removesuffix("\r")
        if text.startswith('"') and text.endswith('"') and len(text) > 1:  # as `datavern breach people` writes it
            with suppress(ValueError):
                text = json.loads(text)
        if text:
            found.append(text)
    return found


def scope_of(
    *,
    where: list[str] | None,
    when: list[str] | None,
    since: str | None,
    until: str | None,
    subjects: Path | None,
    read_by: str | None,
) -> dict[str, Any]:
    """What is to be counted, as `Breaches.count` takes it; empty where nothing narrows it.

    Raises:
        ConfigurationError: an option that says nothing, or lacks another.
    """
    from datavern.privacy.breach.register import Reads

    scope: dict[str, Any] = {}
    if where:
        scope["where"] = _conditions(where)
    begin, end = moment_of(since), moment_of(until)
    if when:
        places = [_place(one, "--when") for one in when]
        scope["windows"] = {dataset: (column, begin, end) for dataset, column in places}
    if read_by is not None:
        if begin is None:
            raise ConfigurationError("--read-by needs --since: read from when on?")
        scope["reads"] = Reads(begin, end, None if read_by == "*" else read_by)
    elif (begin or end) and not when:
        raise ConfigurationError("--since and --until need --when DATASET.COLUMN, or --read-by")
    if subjects is not None:
        scope["subjects"] = lines_of(subjects)
    return scope


def _conditions(where: list[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, list[str]]] = {}
    for one in where:
        place, equals, value = one.partition("=")
        if not equals:
            raise ConfigurationError(f"--where {one}: expected DATASET.COLUMN=VALUE")
        dataset, column = _place(place, "--where")
        found.setdefault(dataset, {}).setdefault(column, []).append(value)
    return {d: {c: v if len(v) > 1 else v[0] for c, v in pairs.items()} for d, pairs in found.items()}


def _place(text: str, option: str) -> tuple[str, str]:
    dataset, dot, column = text.partition(".")
    if not dot or not dataset or not column:
        raise ConfigurationError(f"{option} {text}: expected DATASET.COLUMN")
    return dataset, column


# ---- what is shown --------------------------------------------------------------------------------------------------


def plain(breach: Breach) -> dict[str, Any]:
    """A breach for programs: times are in UTC."""
    clocks = [
        {
            "what": clock.what,
            "due": clock.due.astimezone(dt.UTC),
            "done_at": clock.done_at,
            "seconds_left": int(clock.left().total_seconds()),
            "overdue": clock.overdue() and breach.closed_at is None,
            "late": clock.late,
        }
        for clock in breach.clocks
    ]
    columns = {"id": breach.id, "version": breach.version, "changed_at": breach.changed_at, "by": breach.changed_by}
    return {**columns, **breach.plain(), "clocks": clocks}


_WHAT = {"authority": "Datatilsynet", "incident": "early warning"}


def clock_line(clock: Clock, *, closed: bool = False) -> str:
    """A clock in words."""
    from datavern.privacy.breach.breach import in_norway

    what = _WHAT[clock.what]
    if clock.done_at is not None:
        return f"{what}: told, {_span(clock.left())} {'late' if clock.late else 'early'}"
    if closed:
        return f"{what}: not told"
    left = clock.left()
    if left < dt.timedelta(0):
        return f"{what}: OVERDUE by {_span(left)}"
    return f"{what}: {_span(left)} left, until {in_norway(clock.due)}"


def _span(time: dt.timedelta) -> str:
    minutes = int(abs(time).total_seconds()) // 60
    days, rest = divmod(minutes, 24 * 60)
    hours, minutes = divmod(rest, 60)
    return f"{f'{days} d ' if days else ''}{hours} h {minutes:02d} min"


def at_least(affected: Mapping[str, Any]) -> str:
    """What stands before a count that is a lower bound."""
    return "at least " if affected["lower_bound"] else ""


def show_breach(out: Output, breach: Breach, affected: Affected | None, told: Assessment) -> None:
    """The clocks, whom it touched, and what is recommended."""
    for clock in breach.clocks:
        late = clock.overdue() and breach.closed_at is None
        out.say(clock_line(clock, closed=breach.closed_at is not None), "bold red" if late else None)
    numbers = breach.affected
    if affected is not None:
        rows: list[Sequence[Any]] = [[c.label, c.people, c.rows, c.problem or "counted"] for c in affected.datasets]
        out.table(["where", "people", "records", ""], rows, title="Whom it touched")
    if numbers is not None:
        people, records = numbers["people"], numbers["rows"]
        many = f"{people:,} {'person' if people == 1 else 'people'}"
        out.say(f"{at_least(numbers)}{many}, {records:,} record{'' if records == 1 else 's'} ({numbers['scope']}).")
    words = {
        "notify": "notify Datatilsynet", "record only": "Datatilsynet need not be notified",
        "inform": "tell the people", "not needed": "the people need not be told",
        "assess": "assess whether to tell the people",
    }  # fmt: skip
    out.say(f"Recommended, for you to decide: {words[told.authority]}; {words[told.people]}.", "bold")
    for reason in told.reasons:
        out.say(f"  - {reason}")
