"""`datavern health`: how every database is, asked just now, or again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datavern.cli.common import CONFIG, Config, Json, Output, Verbose, clean, command, manager_of, probe
from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider
    from datavern.contracts.values import Health, PoolStats

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_EVENTS = 8
"""What happened last, as many of it as are shown under the live table."""

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Ask again and again, until Ctrl-C.")]
Interval = Annotated[
    float, typer.Option("--interval", metavar="SECONDS", help="With --watch: how long from one question to the next.")
]
Count = Annotated[
    int | None,
    typer.Option("--count", metavar="N", help="With --watch: how often to ask.", show_default="until Ctrl-C"),
]


@app.command()
def health(
    *,
    watch: Watch = False,
    interval: Interval = 1.0,
    count: Count = None,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Ask every database how it is. Exit code 1 when one is not healthy (with --watch: the last time it was asked)."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        if not interval > 0 or (count is not None and count < 1):
            raise ConfigurationError("--interval takes seconds, more than 0, and --count takes 1 or more")
        databases = manager_of(config).databases
        watching = _Watching(out, databases)
        try:
            if watch:
                return await watching.run(interval, count)
            return watching.show(await watching.ask())
        finally:
            await asyncio.gather(*(p.close() for p in databases.values()))

    if not command(out, work):
        raise typer.Exit(1)


class _Watching:
    """Asks and shows.

    Args:
        out: where to.
        databases: what.
    """

    def __init__(self, out: Output, databases: Mapping[str, Provider]) -> None:
        self._out = out
        self._databases = databases
        self._happened: list[str] = []
        for provider in databases.values():
            observe = getattr(provider, "observe", None) if hasattr(provider, "members") else None
            if observe is not None:  # a failover group tells what happens to it
                observe(self._note)

    def _note(self, event: Any) -> None:
        from datavern.contracts.values import now

        self._happened.append(clean(f"{now():%H:%M:%S} {event.group}: {event.detail}"))
        del self._happened[:-_EVENTS]

    async def ask(self) -> dict[str, Health]:
        """Every database, all at once."""
        found = await asyncio.gather(*(probe(p) for p in self._databases.values()))
        return dict(zip(self._databases, found, strict=True))

    def show(self, report: Mapping[str, Health]) -> bool:
        """Print it once; whether all is well."""
        healthy = all(h.status == "healthy" for h in report.values())
        self._out.document({"healthy": healthy, "databases": report})
        columns = ["database", "status", "role", "answered in", "version", "detail"]
        self._out.table(
            columns, [[name, h.status, h.role, _time(h.latency), h.version, h.detail] for name, h in report.items()]
        )
        return healthy

    async def run(self, interval: float, count: int | None) -> bool:
        """Show it again and again; whether all was well the last time."""
        healthy, asked = False, 0
        with self._live() as live:
            while True:
                try:
                    report = await self.ask()
                    healthy = all(h.status == "healthy" for h in report.values())
                    self._out.document({"healthy": healthy, "databases": report}, lines=True)
                    if live is not None:
                        live.update(self._table(report), refresh=True)
                    elif not self._out.as_json:
                        self._out.show(self._table(report))
                    asked += 1
                    if asked == count:
                        return healthy
                    await asyncio.sleep(interval)
                except asyncio.CancelledError:  # Ctrl-C is how one stops watching
                    task = asyncio.current_task()
                    if task is not None:
                        task.uncancel()
                    return healthy

    def _live(self) -> AbstractContextManager[Any]:
        """What draws over itself, on a terminal; None elsewhere, where each table follows the one before."""
        console = self._out.console
        if self._out.as_json or not console.is_terminal:
            return nullcontext()
        from rich.live import Live

        return Live(console=console, auto_refresh=False, vertical_overflow="visible")

    def _table(self, report: Mapping[str, Health]) -> Any:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("database", "status", "role", "answers in", "behind", "timeline", "connections", "detail"):
            table.add_column(column, overflow="fold", no_wrap=column in {"database", "status", "behind"})
        for name, health in report.items():
            for row in _rows(name, health):
                table.add_row(*(Text(clean("" if cell is None else cell)) for cell in row))
        return Group(table, *(Text(line) for line in self._happened)) if self._happened else table


def _rows(name: str, health: Health) -> Iterator[tuple[str | None, ...]]:
    """A database, and under it the members of a failover group."""
    yield (name, health.status, health.role, _time(health.latency), None, None, _pool(health.pool), health.detail)
    members = health.facts.get("members", {})
    for member, facts in members.items() if isinstance(members, Mapping) else ():
        if not isinstance(facts, Mapping) or "serves" not in facts:
            continue
        latency = facts.get("latency", {})
        timeline = facts.get("timeline")
        yield (
            f"  {member}",
            str(facts["status"]),
            str(facts["role"]) + (", serves" if facts["serves"] else ""),
            f"{_time(latency.get('p50'))}, p99 {_time(latency.get('p99'))}" if latency else None,
            None if facts.get("lag") is None else f"{facts['lag']:.1f} s at most",
            None if timeline is None else str(timeline),
            _pool(facts.get("pool")),
            str(facts["problem"]),
        )


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds * 1000:.1f} ms"


def _pool(pool: PoolStats | None) -> str | None:
    if pool is None:
        return None
    waiting = f", {pool.waiting} wait" if pool.waiting else ""
    return f"{pool.in_use} of {pool.size} in use{waiting}"
