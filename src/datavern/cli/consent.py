"""`datavern consent`: who agreed to what, and since when not any more."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datavern.cli.common import (
    CONFIG,
    DATE,
    Actor,
    Config,
    Json,
    Output,
    Verbose,
    command,
    manager_of,
    require_file,
    shown,
)
from datavern.cli.group import Group

if TYPE_CHECKING:
    from datavern.privacy.consent.consent import Consent

app = typer.Typer(
    cls=Group,
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
    expires: Annotated[dt.datetime | None, typer.Option(**DATE, help="The last day that it holds.")] = None,
    text: Annotated[str | None, typer.Option(help="Which version of the text was agreed to.")] = None,
    language: Annotated[str | None, typer.Option(help="In which language it was read.")] = None,
    source: Annotated[str | None, typer.Option(help='How it was given: "web form", "paper".')] = None,
    proof: Annotated[str | None, typer.Option(help="What shows it later; sealed under the person's key.")] = None,
    explicit: Annotated[bool, typer.Option("--explicit", help="Given explicitly: GDPR Art. 9(2)(a).")] = False,
    born: Annotated[
        dt.datetime | None,
        typer.Option("--born", **DATE, help="The birth date; it is not kept."),
    ] = None,
    guardian: Annotated[str | None, typer.Option(help="Who gives it for a child: their id.")] = None,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Record that a person agrees to a purpose (GDPR Art. 7)."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        async with manager_of(config) as db:
            # The last day counts whole, by the clock on the wall here.
            end = None if expires is None else (expires + dt.timedelta(days=1)).astimezone()
            consent = await db.consents.grant(
                subject=subject,
                purpose=purpose,
                expires=end,
                version=text,
                language=language,
                source=source,
                proof=proof,
                explicit=explicit,
                birth_date=None if born is None else born.date(),
                guardian=guardian,
            )
        out.document(consent)
        out.say(f"{consent.id}: {subject} agreed to {purpose}.")
        known = sorted({p for dataset in db.data_map or () for p in dataset.purposes})
        if purpose not in known:
            out.say(
                f"No dataset of the data map is used for {purpose}, so no write asks for this consent. Its purposes: "
                f"{', '.join(known) or 'none'}.",
                "bold yellow",
            )

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
        async with manager_of(config) as db:
            withdrawn = await db.consents.withdraw(consent)
        out.document(withdrawn)
        out.say(f"{consent}: withdrawn at {shown(withdrawn.withdrawn_at)}.")

    command(out, work, actor=actor)


@app.command("list")
def list_(subject: Subject, *, config: Config = CONFIG, json_output: Json = False, verbose: Verbose = False) -> None:
    """List a person's consents, withdrawn ones too."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        async with manager_of(config) as db:
            consents = await db.consents.list(subject)
        out.document(consents)
        if not consents:
            out.say("No consent is recorded for this subject.")
            return
        out.table(
            ["consent", "purpose", "granted", "holds"],
            [[c.id, c.purpose, _day(c.granted_at), _holds(c)] for c in consents],
            whole={"consent", "purpose"},
        )

    command(out, work)


def _day(at: dt.datetime) -> str:
    """The day by the clock on the wall here: `show` has the moment."""
    return at.astimezone().date().isoformat()


def _holds(consent: Consent) -> str:
    """Whether it holds, and until or since when it does not."""
    if consent.withdrawn_at is not None:
        return f"{'until' if consent.holds() else 'withdrawn'} {_day(consent.withdrawn_at)}"
    if consent.expires_at is not None:
        # It ends with a day's last moment: that day is the last on which it holds.
        return f"{'until' if consent.holds() else 'ended'} {_day(consent.expires_at - dt.timedelta(microseconds=1))}"
    return "yes"


@app.command("show")
def show(
    consent: Annotated[str, typer.Argument(help="The consent's id.")],
    *,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show what proves a consent: the text, how it was given, its audit entry (GDPR Art. 7(1))."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        async with manager_of(config) as db:
            found = await db.consents.evidence(consent)
        out.document(found)
        c, text = found.consent, found.text
        rows: list[list[Any]] = [
            ["purpose", c.purpose],
            ["granted", c.granted_at],
            ["holds", c.holds()],
            ["ends" if c.holds() else "ended", c.withdrawn_at or c.expires_at],
            ["how", c.source],
            ["explicit", c.explicit],
            ["by a guardian", c.by_guardian],
            ["of age on", c.of_age_on],
            ["text", None if text is None else f"{text.version} ({text.language}), SHA-256 {text.hash}"],
            ["proof", found.proof],
            ["audit entry", found.entry],
        ]
        out.table(["", consent], [row for row in rows if row[1] not in (None, False) or row[0] == "holds"])
        if text is not None:
            out.say()
            out.say(text.content)

    command(out, work)


@app.command()
def text(
    purpose: Annotated[str, typer.Argument(help="What is agreed to: one of the purposes of the data map.")],
    version: Annotated[str, typer.Argument(help='Its name, such as "2026-02".')],
    file: Annotated[Path, typer.Argument(help="The text, as people read it.")],
    *,
    language: Annotated[str, typer.Option(help="Of the text.")] = "nb",
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Register the text that people agree to. What is registered does not change."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        content = require_file(file, "text")
        async with manager_of(config) as db:
            found = await db.consents.text(purpose, version, content, language=language)
        out.document(found)
        out.say(f"{purpose}, version {version} ({language}): SHA-256 {found.hash}.")

    command(out, work, actor=actor)


@app.command()
def texts(
    purpose: Annotated[str | None, typer.Argument(help="Of one purpose.")] = None,
    *,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the registered texts, the oldest version first."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        async with manager_of(config) as db:
            found = await db.consents.texts(purpose)
        out.document(found)
        if not found:
            out.say("No text is registered.")
            return
        rows = [[t.purpose, t.version, t.language, t.registered_at, t.hash[:16]] for t in found]
        out.table(["purpose", "version", "language", "registered", "SHA-256"], rows)

    command(out, work)


@app.command("coming-of-age")
def coming_of_age(
    *,
    by: Annotated[dt.datetime | None, typer.Option(**DATE, help="By that day; today without it.")] = None,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the standing consents of guardians whose child consents itself: it is to be told (GDPR Art. 8)."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        async with manager_of(config) as db:
            found = await db.consents.coming_of_age(None if by is None else by.date())
        out.document(found)
        if not found:
            out.say("No guardian's consent is of somebody who consents alone by now.")
            return
        out.table(
            ["consent", "purpose", "of age on"], [[c.id, c.purpose, c.of_age_on] for c in found], whole={"consent"}
        )

    command(out, work)
