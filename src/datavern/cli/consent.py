"""`datavern consent`: who agreed to what, and since when not any more."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer

from datavern.cli.common import CONFIG, Actor, Config, Json, Output, Verbose, command, shown

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Record, withdraw and list consents.",
)
Subject = Annotated[str, typer.Argument(help="Who: the id that the data map calls the subject.")]


@app.command()
def grant(
    subject: Subject,
    purpose: Annotated[str, typer.Argument(help="What for: one of the purposes of the data map.")],
    *,
    expires: Annotated[
        dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The last day that it holds.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Which version of the text was agreed to.")] = None,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Record that a person agrees to a purpose (GDPR Art. 7)."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        from datavern.manager import DatabaseManager

        async with DatabaseManager.from_config(config) as db:
            # The last day counts whole, by the clock on the wall here.
            end = None if expires is None else (expires + dt.timedelta(days=1)).astimezone()
            consent = await db.consents.grant(subject=subject, purpose=purpose, expires=end, version=text)
        out.document(consent)
        out.say(f"{consent.id}: {subject} agreed to {purpose}.")

    command(out, work, actor=actor)


@app.command()
def withdraw(
    consent: Annotated[str, typer.Argument(help="The consent's id; `datavern consent list SUBJECT` shows it.")],
    *,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Withdraw a consent: from here on, nothing new is written that needs it (GDPR Art. 7(3))."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        from datavern.manager import DatabaseManager

        async with DatabaseManager.from_config(config) as db:
            withdrawn = await db.consents.withdraw(consent)
        out.document(withdrawn)
        out.say(f"{consent}: withdrawn at {shown(withdrawn.withdrawn_at)}.")

    command(out, work, actor=actor)


@app.command("list")
def list_(subject: Subject, *, config: Config = CONFIG, json_output: Json = False, verbose: Verbose = False) -> None:
    """List a person's consents, withdrawn ones too."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        from datavern.manager import DatabaseManager

        async with DatabaseManager.from_config(config) as db:
            consents = await db.consents.list(subject)
        out.document(consents)
        if not consents:
            out.say("No consent is recorded for this subject.")
            return
        out.table(
            ["consent", "purpose", "holds", "granted", "ended"],
            [[c.id, c.purpose, c.holds(), c.granted_at, c.withdrawn_at or c.expires_at] for c in consents],
            whole={"consent"},
        )

    command(out, work)
