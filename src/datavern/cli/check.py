"""`datavern check`: whether the project holds together, part by part.

It makes Datavern's own tables where all else is well and they are missing, as opening the project does; nothing else.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datavern.cli.common import CONFIG, Config, Json, Output, Verbose, command, manager_of, probe
from datavern.cli.findings import Finding
from datavern.contracts.errors import DatavernError

if TYPE_CHECKING:
    from datavern.manager.manager import DatabaseManager

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def check(
    *,
    residency: Annotated[
        bool, typer.Option("--residency", help="Everywhere that data can get, whether it may, and how that is known.")
    ] = False,
    record: Annotated[
        bool, typer.Option("--record", help="The record of processing activities (GDPR Art. 30), as Markdown.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="With --residency: do not ask the servers.")] = False,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Check configuration, keys, databases, residency and data map. Exit code 1 when something is wrong."""
    out = Output(as_json=json_output, verbose=verbose)
    if record:
        from datavern.cli.check_record import show as show_record

        command(out, lambda: show_record(out, config))
        return
    if residency:
        from datavern.cli.residency import show

        if not command(out, lambda: show(out, config, live=not offline)):
            raise typer.Exit(1)
        return

    async def work() -> bool:
        from rich.text import Text

        findings = await examine(config)
        ok = all(f.ok for f in findings)
        out.document({"ok": ok, "findings": [asdict(f) for f in findings]})
        marks = {"ok": Text("ok", "green"), "note": Text("note", "yellow"), "wrong": Text("wrong", "bold red")}
        rows = [[f.part, marks["wrong" if not f.ok else "note" if f.note else "ok"], f.detail] for f in findings]
        out.table(["part", "", "detail"], rows)
        wrong = sum(not f.ok for f in findings)
        verb = "is" if wrong == 1 else "are"
        out.say(
            "Everything holds." if ok else f"{wrong} of {len(findings)} {verb} wrong.", "green" if ok else "bold red"
        )
        return ok

    if not command(out, work):
        raise typer.Exit(1)


async def examine(config: Any) -> list[Finding]:
    """Look at every part; one that is wrong keeps no other from being looked at."""
    from datavern.cli.check_basis import bases
    from datavern.cli.check_record import record_findings
    from datavern.cli.check_schema import examine_dataset, examine_unmapped
    from datavern.config_file import load
    from datavern.privacy.datamap.datamap import DataMap

    settings = load(config)
    db = manager_of(config)
    keyring = settings.general.keyring
    findings = [Finding("configuration", ok=True, detail=str(config))]
    findings += await _keys(keyring)
    findings += [Finding("compliance", ok=False, detail=problem) for problem in db.compliance_problems()]
    findings += _special(db)
    findings += bases(db)
    findings += record_findings(db, settings.general)
    findings += _residency(db)
    databases = db.databases
    try:
        found = dict(zip(databases, await asyncio.gather(*map(probe, databases.values())), strict=True))
        for name, health in found.items():
            healthy = health.status == "healthy"
            detail = f"{databases[name].engine} {health.version}, {health.role}" if healthy else health.detail
            findings.append(Finding(f"databases.{name}", healthy, detail))
        data_map = db.data_map or DataMap()
        for dataset in data_map:
            if found[dataset.database].status != "unhealthy":
                findings += await examine_dataset(dataset, data_map, databases)
        for name, health in found.items():
            if health.status != "unhealthy" and data_map.of_database(name):
                findings += await examine_unmapped(name, data_map, databases[name])
    finally:
        await asyncio.gather(*(p.close() for p in databases.values()))
    if not db.data_map:
        findings.append(Finding("datasets", ok=True, detail="none yet: the data map says which personal data you keep"))
    if all(f.ok for f in findings) and keyring is not None:
        findings += await _together(manager_of(config))
    return findings


async def _keys(keyring: str | None) -> list[Finding]:
    from datavern.crypto.keyring import Keyring

    if keyring is None:
        return [Finding("datavern.keyring", ok=True, detail="none: nothing can be sealed, consented to or audited")]
    try:
        ring = Keyring.from_url(keyring)
        await ring.open()
        detail = f"{keyring}, epoch {ring.epoch}"
        await ring.close()
    except DatavernError as error:
        return [Finding("datavern.keyring", ok=False, detail=str(error))]
    return [Finding("datavern.keyring", ok=True, detail=detail)]


def _special(db: DatabaseManager) -> list[Finding]:
    """Special categories of data, and data about crimes, that nothing lets be used (GDPR Arts. 9 and 10)."""
    from datavern.privacy.datamap.categories import without_exemption

    return [
        Finding(f"datasets.{dataset.name}", ok=False, detail=problem)
        for dataset in db.data_map or ()
        if "gdpr" in db.databases[dataset.database].compliance
        for problem in without_exemption(dataset)
    ]


def _residency(db: DatabaseManager) -> list[Finding]:
    if db.data_map is None:
        return []
    residency = db.residency
    problems = residency.refused()
    findings = [Finding("residency", ok=False, detail=problem) for problem in problems]
    for transfer in residency.transfers():
        asked = "gdpr" in db.databases[db.data_map[transfer.dataset].database].compliance
        if asked and transfer.safeguard is None:
            detail = (
                f"the data can get outside of the EEA, to {transfer.place.name}: compliance gdpr asks on what grounds "
                "(transfer: GDPR Arts. 44-49)"
            )
            findings.append(Finding(f"datasets.{transfer.dataset}.transfer", ok=False, detail=detail))
    if problems:
        return findings
    places = ", ".join(f"{name} in {provider.location}" for name, provider in db.databases.items())
    unknown = sum(verdict.allowed is None for verdict in residency.picture())
    if unknown:
        detail = f"nobody said where {unknown} of the places are: `datavern check --residency`"
        findings.append(Finding("residency", ok=True, detail=detail))
    return [Finding("residency", ok=True, detail=places), *findings]


async def _together(db: DatabaseManager) -> list[Finding]:
    """The keys and the key store in the ledger must be each other's: only opening both tells."""
    from datavern.cli.check_basis import texts

    try:
        async with db:
            found = await db.keys.status()
            missing = await texts(db)
    except DatavernError as error:
        return [Finding("key store", ok=False, detail=str(error))]
    return [Finding("key store", ok=True, detail="belongs to this key ring"), _rotation(found), *missing]


def _rotation(found: Any) -> Finding:
    """Whether the keys were rotated in time after an erasure."""
    part = "key rotation"
    if found.overdue:
        detail = f"somebody was erased, and a rotation was due by {found.due}: `datavern keys rotate`"
        return Finding(part, ok=False, detail=detail)
    if found.rotation is not None:
        detail = f"to epoch {found.rotation.epoch} is not at its end ({found.rotation.state}): `datavern keys rotate`"
        return Finding(part, ok=True, detail=detail)
    if found.due is not None:
        return Finding(part, ok=True, detail=f"due by {found.due}, since somebody was erased: `datavern keys rotate`")
    return Finding(part, ok=True, detail="none is due")
