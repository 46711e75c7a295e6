"""`datavern retention`: what is past its time ends, as the data map says."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from datavern.cli.common import CONFIG, Actor, Config, Json, Output, Verbose, command, manager_of, mapped_manager
from datavern.cli.group import Group

app = typer.Typer(
    cls=Group,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="End what is past its time.",
)


@app.callback()
def retention() -> None:
    """End what is past its time."""


@app.command()
def run(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would end.")] = False,
    dataset: Annotated[str | None, typer.Option(help="This dataset alone.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, max=10_000, help="Rows in a transaction.")] = 500,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Erase or anonymise the rows whose retention has ended. What was cut off goes on when it is run again.

    It asks nothing, so that a scheduler can run it, once a day; --dry-run shows what it would do. The exit code is 0
    when all that is past its time ended, or stays for a reason that is told.
    """
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> Any:
        async with mapped_manager(config, "so nothing ends by its age") as db:
            if dry_run:
                return await db.retention.run(dataset, dry_run=True, batch_size=batch_size)
            planned = await db.retention.run(dataset, dry_run=True)
            with out.progress("retention", planned.rows) as advance:
                return await db.retention.run(
                    dataset, batch_size=batch_size, progress=lambda _label, rows: advance(rows)
                )

    report = command(out, work, actor=actor)
    out.document({**vars_of(report), "ok": report.ok})
    _told(out, report)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def anonymity(
    dataset: Annotated[str, typer.Argument(help="A dataset whose rows are anonymised.")],
    *,
    field: Annotated[list[str] | None, typer.Option(metavar="FIELD", help="What is compared; repeatable.")] = None,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say how far anonymised rows hide in one another: the smallest group of them that says the same (k)."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> Any:
        async with manager_of(config) as db:
            return await db.retention.anonymity(dataset, field or None)

    found = command(out, work)
    out.document(found)
    if found.smallest is None:
        out.say(f"{found.dataset}: no row of it is anonymised yet.")
        return
    out.say(f"{found.dataset}: {found.rows} anonymised rows, in {found.groups} groups that say the same.")
    out.say(f"The smallest group has {found.smallest} (k); {found.alone} rows stand alone.")
    if found.alone:
        out.say(
            "Whoever knows a person's values of these fields knows which row that is: generalise further.", "yellow"
        )


def _told(out: Output, report: Any) -> None:
    """A report for people."""
    rows = "would end" if report.dry_run else "ended"
    columns = ("dataset", "what", "kept from", "oldest", rows, "held", "refused")
    acted = [one for one in report.datasets if one.action]
    if acted:
        out.table(columns, [_line(one) for one in acted], whole=("dataset",))
    for one in report.datasets:
        for note in one.notes:
            out.say(f"{one.dataset}: {note}.")
        if one.waiting:
            out.say(f"{one.dataset} waits: {one.waiting}", "bold red")
    for request in report.completed:
        out.say(f"The erasure {request.removesuffix('-completed')} is complete: its certificate is that of {request}.")
    for request, reasons in report.waiting.items():
        for label, reason in reasons.items():
            out.say(f"{request} waits for {label}: {reason}", "bold red")


def vars_of(report: Any) -> dict[str, Any]:
    """A report as JSON has it."""
    return {
        "dry_run": report.dry_run,
        "rows": report.rows,
        "datasets": report.datasets,
        "completed": report.completed,
        "waiting": report.waiting,
    }


def _line(one: Any) -> tuple[Any, ...]:
    return (one.dataset, one.action, one.before, one.oldest, one.rows, one.held, one.refused)
