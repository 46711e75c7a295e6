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

_COLUMNS = ("database", "status", "role", "answers in", "behind", "timeline", "in use")
"""Of the live table."""

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
        self._told: set[int] = set()  # of which columns anything was ever told: none goes again once it was there
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
        self._out.table(
            ["database", "status", "role", "answered in", "version"],
            [[name, h.status, h.role, _time(h.latency), h.version] for name, h in report.items()],
        )
        for line in _problems(report):
            self._out.say(line)
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

        rows = [row for name, health in report.items() for row in _rows(name, health)]
        self._told |= {number for row in rows for number, cell in enumerate(row) if cell is not None}
        columns = [number for number in range(len(_COLUMNS)) if number in self._told]  # what nobody has is left out
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
        for number in columns:
            table.add_column(_COLUMNS[number], overflow="fold", no_wrap=_COLUMNS[number] not in {"role", "answers in"})
        for row in rows:
            table.add_row(*(Text(clean(row[number] or "")) for number in columns))
        return Group(table, *(Text(line) for line in (*_problems(report), *self._happened)))


def _rows(name: str, health: Health) -> Iterator[tuple[str | None, ...]]:
    """A database, and under it the members of a failover group."""
    yield (name, health.status, health.role, _time(health.latency), None, None, _pool(health.pool))
    for member, facts in _members(health):
        latency = facts.get("latency", {})
        timeline = facts.get("timeline")
        yield (
            f"  {member}",
            str(facts["status"]),
            str(facts["role"]) + (", serves" if facts["serves"] else ""),
            f"{_time(latency.get('p50'))}, p99 {_time(latency.get('p99'))}" if latency else None,
            None if facts.get("lag") is None else f"≤ {facts['lag']:.1f} s",
            None if timeline is None else str(timeline),
            _pool(facts.get("pool")),
        )


def _members(health: Health) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The members of a failover group."""
    members = health.facts.get("members", {})
    for member, facts in members.items() if isinstance(members, Mapping) else ():
        if isinstance(facts, Mapping) and "serves" in facts:
            yield member, facts


def _problems(report: Mapping[str, Health]) -> Iterator[str]:
    """What is wrong, of which database, or of which member of it: a line each, the width of the terminal."""
    for name, health in report.items():
        told = [(f"{name}, {member}", str(facts["problem"])) for member, facts in _members(health) if facts["problem"]]
        said = any(problem in health.detail for _, problem in told)
        for which, what in [*([] if said or not health.detail else [(name, health.detail)]), *told]:
            yield clean(what if what.startswith(f"{which}: ") else f"{which}: {what}")


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds * 1000:.1f} ms"


def _pool(pool: PoolStats | None) -> str | None:
    if pool is None:
        return None
    waiting = f", {pool.waiting} wait" if pool.waiting else ""
    return f"{pool.in_use} of {pool.size}{waiting}"
