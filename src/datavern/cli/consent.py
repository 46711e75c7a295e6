"""`datavern consent`: who agreed to what, and since when not any more."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from datavern.cli.common import CONFIG, Actor, Config, Json, Output, Verbose, command

app = typer.Typer(
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
            consent = await db.consents.grant(subject=subject, purpose=purpose)
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
            withdrawn: Any = await db.consents.withdraw(consent)
        out.document(withdrawn)
        out.say(f"{consent}: withdrawn.")

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
        out.table(
            ["consent", "purpose", "granted", "withdrawn"],
            [[c.id, c.purpose, c.granted_at, c.withdrawn_at] for c in consents],
        )
        if not consents:
            out.say("No consent is recorded for this subject.")

    command(out, work)
