"""`datavern scan`: personal data that the data map does not name."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import typer

from datavern.cli.common import CONFIG, Config, Json, Output, Verbose, command, manager_of
from datavern.contracts.errors import ConfigurationError, DatavernError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def scan(
    *,
    database: Annotated[
        list[str] | None, typer.Option("--database", "-d", metavar="NAME", help="Look in this one alone; repeatable.")
    ] = None,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Rows of each store that are looked at.")] = 10_000,
    least: Annotated[float, typer.Option("--least", min=0.0, max=1.0, help="The confidence to tell of.")] = 0.5,
    fail: Annotated[bool, typer.Option("--fail", help="Exit code 1 when anything was found.")] = False,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Find personal data that the data map does not name, from samples. No value is printed.

    Exit code 1 when a store could not be looked at, and with --fail when anything was found.
    """
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        found = await _scan(config, database, sample, least)
        report = asdict(found)
        for finding in report["findings"]:
            finding["seems"]["kinds"] = dict(finding["seems"]["kinds"])
        out.document(report)
        _show(out, found)
        return not found.skipped and not (fail and found.findings)

    if not command(out, work):
        raise typer.Exit(1)


async def _scan(config: Any, names: list[str] | None, sample: int, least: float) -> Any:
    from datavern.privacy.scanning.scanner import Scan, Skipped, scan

    db = manager_of(config)
    databases = dict(db.databases)
    unknown = [name for name in names or () if name not in databases]
    if unknown:
        raise ConfigurationError(f"no database is named {unknown[0]}; there are: {', '.join(databases)}")
    if names:
        databases = {name: databases[name] for name in names}
    away: list[Skipped] = []
    for name, provider in list(databases.items()):
        try:
            await provider.connect()
        except DatavernError as error:
            away.append(Skipped(name, str(error)))
            del databases[name]
    try:
        found = await scan(databases, db.data_map, sample=sample, least=least)
    finally:
        await asyncio.gather(*(p.close() for p in db.databases.values()))
    return Scan(found.findings, found.stores, found.columns, found.values, (*away, *found.skipped))


def _show(out: Output, found: Any) -> None:
    if found.findings:
        out.table(
            ["place", "column", "seems to hold", "sure", "in"],
            [
                [
                    f"{f.database}.{f.store}",
                    f.column,
                    f.seems.kind + (", within texts" if f.seems.within else ""),
                    f"{f.seems.confidence:.0%}",
                    f"{f.seems.matches:,} of {f.seems.values:,}",
                ]
                for f in found.findings
            ],
        )
        out.say("What could stand in datavern.toml, once somebody has looked:")
        before = ""
        for finding in found.findings:
            head, _, field = finding.entry.partition("\n")
            if head != before:
                out.say(f"\n    {head}")
            out.say(f"    {field}")
            before = head
        out.say()
    for skipped in found.skipped:
        out.say(f"Not looked at: {skipped.place}: {skipped.reason.removeprefix(f'{skipped.place}: ')}", "bold red")
    stores, values = f"{found.stores:,} store{'s' * (found.stores != 1)}", f"{found.values:,} values"
    what = f"{len(found.findings):,} column{'s' * (len(found.findings) != 1)}" if found.findings else "nothing"
    out.say(
        f"Looked at {values} in {stores}: {what} that the data map does not name.",
        "bold yellow" if found.findings else "green",
    )
