"""`datavern health`: how every database is, asked just now."""

from __future__ import annotations

import asyncio

import typer

from datavern.cli.common import CONFIG, Config, Json, Output, Verbose, command, probe

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def health(*, config: Config = CONFIG, json_output: Json = False, verbose: Verbose = False) -> None:
    """Ask every database how it is. Exit code 1 when one is not healthy."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        from datavern.manager import DatabaseManager

        databases = DatabaseManager.from_config(config).databases
        try:
            found = await asyncio.gather(*(probe(p) for p in databases.values()))
        finally:
            await asyncio.gather(*(p.close() for p in databases.values()))
        report = dict(zip(databases, found, strict=True))
        healthy = all(h.status == "healthy" for h in report.values())
        out.document({"healthy": healthy, "databases": report})
        out.table(
            ["database", "status", "role", "answered in", "version", "detail"],
            [
                [
                    name,
                    h.status,
                    h.role,
                    None if h.latency is None else f"{h.latency * 1000:.1f} ms",
                    h.version,
                    h.detail,
                ]
                for name, h in report.items()
            ],
        )
        return healthy

    if not command(out, work):
        raise typer.Exit(1)
