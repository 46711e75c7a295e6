"""`datavern hold`: rows that must stay, until somebody lets them go or a day has passed."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

import typer

from datavern.cli.common import CONFIG, DATE, Actor, Config, Json, Output, Verbose, command, manager_of, shown
from datavern.cli.group import Group
from datavern.contracts.errors import ConfigurationError

app = typer.Typer(
    cls=Group,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Place, release and list legal holds.",
)
Subject = Annotated[str | None, typer.Option(help="Whose rows: the id that the data map calls the subject.")]
Dataset = Annotated[str | None, typer.Option(help="In this dataset alone.")]


@app.command()
def place(
    *,
    reason: Annotated[str, typer.Option(help="Why, as certificates tell it: tvistesak 26-1432.")],
    subject: Subject = None,
    dataset: Dataset = None,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="VALUE", help="The primary key of one row of --dataset; once for each of its columns."),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help="Rows of --dataset that match now.")
    ] = None,
    until: Annotated[dt.datetime | None, typer.Option(**DATE, help="Its last day.")] = None,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Keep rows from every erasure, every retention run and every delete: of a person, or single ones."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        async with manager_of(config) as db:
            hold = await db.holds.place(
                dataset,
                subject=subject,
                key=None if not key else key[0] if len(key) == 1 else tuple(key),
                where=_fields(where),
                reason=reason,
                until=None if until is None else until.date(),
            )
        out.document(hold)
        end = f"until {hold.until}" if hold.until else "until it is released"
        out.say(f"{hold.id}: {hold.rows} {'row' if hold.rows == 1 else 'rows'} held, {end}.")
        for note in hold.notes:
            out.say(note)

    command(out, work, actor=actor)


@app.command()
def release(
    hold: Annotated[str, typer.Argument(help="The hold's id; `datavern hold list` shows it.")],
    *,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Let the rows of a hold go. Erasures that had to leave them complete themselves now."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        from datavern.privacy.journal.values import SubjectResponse

        async with manager_of(config) as db:
            found = await db.holds.release(hold)
        completed = [one for one in found if isinstance(one, SubjectResponse)]
        waiting = {one.request_id: one.waiting for one in found if not isinstance(one, SubjectResponse)}
        out.document({"hold": hold, "completed": [one.request_id for one in completed], "waiting": waiting})
        out.say(f"{hold}: released.")
        for request, reasons in waiting.items():
            out.say(f"{request} waits for {', '.join(reasons)}: {'; '.join(reasons.values())}", "yellow")
        for one in completed:
            out.say(f"{one.message} `datavern subject certificate {one.request_id}` shows the certificate.")

    command(out, work, actor=actor)


@app.command("list")
def list_(
    *,
    subject: Subject = None,
    dataset: Dataset = None,
    every: Annotated[bool, typer.Option("--all", help="Those that ended, too.")] = False,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the holds that stand: whose rows, where, why, and until when."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        async with manager_of(config) as db:
            holds = await db.holds.list(subject=subject, dataset=dataset, all=every)
        out.document(holds)
        if not holds:
            out.say("No hold stands." if not every else "There are no holds.")
            return
        for h in holds:
            whose = h.subject or "several people, or nobody"
            end = f"until {h.until}" if h.until else "until it is released"
            rows = f"{h.rows} {'row' if h.rows == 1 else 'rows'}"
            out.say(f"{h.id}: {h.dataset or 'everything'} of {whose}, {rows} when it was placed, {end}")
            out.say(f"  {h.reason} (placed by {h.placed_by or 'nobody named'}, {_moment(h.placed_at)})")
            if h.released_at:
                out.say(f"  released by {h.released_by or 'nobody named'}, {_moment(h.released_at)}")

    command(out, work)


def _moment(at: Any) -> str:
    return shown(dt.datetime.fromisoformat(str(at)))


def _fields(where: list[str] | None) -> dict[str, str] | None:
    if not where:
        return None
    pairs = [one.partition("=") for one in where]
    if any(not name or not mark for name, mark, _ in pairs):
        raise ConfigurationError("--where: expected FIELD=VALUE, such as --where email=kari@example.no")
    return {name: value for name, _, value in pairs}
