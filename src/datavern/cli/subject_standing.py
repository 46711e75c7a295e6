"""`datavern subject restrict|object|lift|standing`: what stands against the use of a person's data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import typer

from datavern.cli.common import CONFIG, DATE, Actor, Config, Json, Output, Verbose, command, manager_of, mapped_manager
from datavern.cli.subject_answers import IdentityOption, Received, Subject, answered, request_of

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def restrict(
    subject: Subject,
    *,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="NAME", help="In which, repeatable; in all of them without it."),
    ] = None,
    ground: Annotated[
        Literal["accuracy", "unlawful", "legal_claims", "objection"] | None, typer.Option(help="Art. 18(1)(a) to (d).")
    ] = None,
    received: Received = None,
    identity: IdentityOption = None,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Restrict the use of a person's data: GDPR Article 18."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        request = request_of("restriction", subject, received, identity, datasets=dataset, ground=ground)
        async with mapped_manager(config) as db:
            response = await db.subject_requests.process(request)
        answered(out, response, None)
        out.say(f"It stands until it is lifted: `datavern subject lift {response.request_id}`.")
        return bool(response.success)

    if not command(out, work, actor=actor):
        raise typer.Exit(1)


@app.command("object")
def object_(
    subject: Subject,
    *,
    purpose: Annotated[
        list[str] | None,
        typer.Option("--purpose", metavar="NAME", help="To which, repeatable; to all of them without it."),
    ] = None,
    override: Annotated[
        str | None, typer.Option(help="Compelling legitimate grounds for going on: Art. 21(1).")
    ] = None,
    received: Received = None,
    identity: IdentityOption = None,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Record that a person objects to the use of their data: GDPR Article 21."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        request = request_of("objection", subject, received, identity, purposes=purpose, override=override)
        async with mapped_manager(config) as db:
            response = await db.subject_requests.process(request)
        answered(out, response, None)
        return bool(response.success)

    if not command(out, work, actor=actor):
        raise typer.Exit(1)


@app.command()
def lift(
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="The request that it follows from.")],
    *,
    informed: Annotated[
        dt.datetime | None,
        typer.Option(**DATE, help="Of a restriction: when the person was told. Art. 18(3)."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Of an objection: the grounds that override it.")] = "",
    by_person: Annotated[bool, typer.Option("--by-person", help="The person takes it back.")] = False,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Lift a restriction, or end an objection."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        told = None if informed is None else informed.date()
        async with manager_of(config) as db:
            response = await db.subject_requests.lift(request, informed=told, reason=reason, by_person=by_person)
        answered(out, response, None)
        return bool(response.success)

    if not command(out, work, actor=actor):
        raise typer.Exit(1)


@app.command()
def standing(
    subject: Subject,
    *,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show the restrictions and objections that stand for a person."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        async with manager_of(config) as db:
            marks = await db.subject_requests.standing(subject)
        out.document(marks)
        if not marks:
            out.say("Nothing stands against the use of this person's data.")
            return
        rows = [
            [m.kind, m.since[:10], "; ".join(_reach(m.reach)) or "every dataset", m.ground, m.request] for m in marks
        ]
        out.table(["what", "since", "where", "ground", "request"], rows, whole={"what", "request", "since"})

    command(out, work)


def _reach(reach: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{label} ({', '.join(purposes)})" if purposes else label for label, purposes in reach.items()]
