"""`datavern check --residency`: everywhere that data can get, whether it may, and how that is known."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datavern.cli.common import Output, manager_of

if TYPE_CHECKING:
    from datavern.manager.manager import DatabaseManager
    from datavern.privacy.residency.residency import Verdict
    from datavern.privacy.residency.whereabouts import Heard

__all__ = ["show"]


async def show(out: Output, config: Path, *, live: bool) -> bool:
    """Print the whole picture; whether everything is allowed.

    Args:
        out: where to.
        config: the project's configuration.
        live: ask the servers, too.
    """
    from datavern.privacy.residency.whereabouts import heard, unknown_followers

    db = manager_of(config)
    residency = db.residency
    verdicts = residency.picture()
    try:
        found = await heard(db.databases) if live else []
    finally:
        await asyncio.gather(*(p.close() for p in db.databases.values()))
    strangers = list(unknown_followers(found, db.databases, residency.places))
    transfers = residency.transfers()
    refused = [v for v in verdicts if v.allowed is False]
    unknown = [v for v in verdicts if v.allowed is None]
    wrong = [one for one in found if one.problem]
    ok = not (refused or unknown or wrong or strangers)
    out.document(
        {
            "ok": ok,
            "places": [_plain(v) for v in verdicts],
            "servers": [{**asdict(one), "said": [_said(s) for s in one.said]} for one in found],
            "asked": live,
            "unknown_replicas": strangers,
            "transfers": [
                {"dataset": t.dataset, "place": t.place.name, "kind": t.place.kind, "region": t.place.region,
                 "country": t.country, "safeguard": t.safeguard} for t in transfers
            ],
        }
    )  # fmt: skip
    _tables(out, db, verdicts, found, live=live)
    for line in strangers:
        out.say(line, "bold red")
    for t in transfers:
        where = f"{t.place.kind} {t.place.name}{f' in {t.country}' if t.country else ''}"
        grounds = f"on the grounds of {t.safeguard}" if t.safeguard else "and nobody said on what grounds"
        out.say(f"{t.dataset} can get outside of the EEA, to the {where}, {grounds} (GDPR Arts. 44-49).")
    if ok:
        out.say("Everything is where it may be." if verdicts else "The data map names no dataset yet.", "green")
    else:
        out.say(_summary(len(refused), len(unknown), len(wrong) + len(strangers)), "bold red")
    return ok


def _summary(refused: int, unknown: int, live: int) -> str:
    parts = []
    if refused:
        parts.append(f"{refused} not allowed")
    if unknown:
        parts.append(f"{unknown} unknown: say where they are ([datavern] region, [datavern.places])")
    if live:
        parts.append(f"{live} to look at among the servers")
    return "; ".join(parts) + "."


def _tables(out: Output, db: DatabaseManager, verdicts: list[Verdict], found: list[Heard], *, live: bool) -> None:
    from rich.text import Text

    marks = {True: Text("yes", "green"), False: Text("no", "bold red"), None: Text("?", "bold yellow")}
    for dataset in dict.fromkeys(v.dataset for v in verdicts):
        mine = [v for v in verdicts if v.dataset == dataset]
        grade = f"{mine[0].classification.value}{', graded' if mine[0].graded else ''}"
        rows = []
        for v in mine:
            of = f", of {v.place.of}" if v.place.of and v.place.of != v.place.name else ""
            name = "" if v.place.name == v.place.kind else f" {v.place.name}"
            rows.append([f"{v.place.kind}{name}{of}", v.place.where, v.place.evidence, marks[v.allowed], v.why])
        out.table(["can be in", "which is", "known by", "may", "why"], rows, title=f"{dataset}: {grade}")
    if not live or not db.databases:
        return
    rows = []
    for one in found:
        agrees = Text(one.problem, "bold red") if one.problem else "agrees" if one.said else "says nothing"
        said = ", ".join(s.where for s in one.said) or None
        how = ", ".join(dict.fromkeys(s.source for s in one.said)) or None
        rows.append([one.member, one.settings, said, how, agrees])
    out.table(["server", "settings say", "server says", "how", ""], rows, title="By the servers' own word")


def _plain(v: Verdict) -> dict[str, Any]:
    return {
        "dataset": v.dataset,
        "classification": v.classification.value,
        "graded": v.graded,
        "place": v.place.name,
        "kind": v.place.kind,
        "of": v.place.of or None,
        "location": None if v.place.location is None else v.place.location.value,
        "region": v.place.region,
        "evidence": v.place.evidence,
        "allowed": v.allowed,
        "why": v.why,
    }


def _said(said: Any) -> dict[str, Any]:
    return {**asdict(said), "location": said.location.value}
