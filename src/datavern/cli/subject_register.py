"""`datavern subject receive|list|process|identify|doubt|extend|reject|rectify`: requests, from the day they come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from datavern.cli.common import (
    CONFIG,
    Actor,
    Config,
    Json,
    Output,
    Verbose,
    command,
    manager_of,
    mapped_manager,
    require_file,
    require_new,
)
from datavern.cli.subject_answers import (
    IdentityOption,
    Language,
    Received,
    Subject,
    answered,
    identity_of,
    letter_of,
    request_of,
    wrote,
)
from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.privacy.journal.values import OpenRequest

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

KINDS = Literal["access", "rectification", "erasure", "restriction", "portability", "objection"]
Request = Annotated[str, typer.Argument(metavar="REQUEST", help="The request's id.")]
Reason = Annotated[str, typer.Option("--reason", help="For the person, in a sentence.")]


@app.command()
def receive(
    kind: Annotated[KINDS, typer.Argument(help="What is asked for.")],
    subject: Subject,
    *,
    received: Received = None,
    identity: IdentityOption = None,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a request down on the day it comes. `process` answers it; `list` shows until when."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        request = request_of(kind, subject, received, identity)
        async with manager_of(config) as db:
            found = await db.subject_requests.receive(request)
        out.document(found)
        out.say(f"Received: request {found.id}, to be answered by {found.deadline.isoformat()}.")
        if found.overdue:
            out.say("That day has passed: answer as soon as you can.", "bold red")

    command(out, work, actor=actor)


@app.command("list")
def list_(
    *,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the open requests, the most urgent first. Exit code 1 when one is overdue."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        async with manager_of(config) as db:
            found = await db.subject_requests.open()
        out.document(found)
        if not found:
            out.say("No request is open.")
            return True
        out.table(
            ["due", "request", "of whom", "waits for"],
            [[_due(r), r.id, _whose(r), "; ".join(r.waits_for)] for r in found],
            whole={"due", "request"},
        )
        late = sum(r.overdue for r in found)
        if late:
            out.say(f"{late} overdue: the law's deadline has passed.", "bold red")
        return not late

    if not command(out, work):
        raise typer.Exit(1)


@app.command()
def process(
    request: Request,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new file for the copy or certificate; a folder of files.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="The letter, or the certificate, as a page in this new file.")
    ] = None,
    pdf: Annotated[Path | None, typer.Option("--pdf", help="The same as PDF in this new file (datavern[pdf]).")] = None,
    language: Language = "nb",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before an erasure.")] = False,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Do what a received request asks for, or go on with one that waits."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        require_new(output, html, pdf)
        async with mapped_manager(config) as db:
            entry = next((r for r in await db.subject_requests.open() if r.id == request), None)
            if (html or pdf) and entry is not None and entry.kind not in ("access", "erasure"):
                raise ConfigurationError(f"--html and --pdf are for access and erasure, and this is {entry.kind}")
            if entry is not None and entry.kind == "erasure" and not yes:
                raise ConfigurationError("nothing was changed: an erasure cannot be undone, and this needs --yes")
            response = await db.subject_requests.process(request)
        if output is not None:
            wrote(response, output)
        answered(out, response, output, letter_of(response, html, pdf, language))
        return bool(response.success)

    if not command(out, work, actor=actor):
        raise typer.Exit(1)


@app.command()
def rectify(
    subject: Subject,
    *,
    put: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="DATASET.FIELD=VALUE", help="A right value, as text; repeatable."),
    ] = None,
    changes: Annotated[Path | None, typer.Option("--changes", help="A JSON file: dataset, field, right value.")] = None,
    received: Received = None,
    identity: IdentityOption = None,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Put right what is wrong about a person: GDPR Article 16."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        if not put and changes is None:
            raise ConfigurationError("say what is right: --set DATASET.FIELD=VALUE, or --changes with a file")
        request = request_of("rectification", subject, received, identity, changes=_changes(put or (), changes))
        async with mapped_manager(config) as db:
            response = await db.subject_requests.process(request)
        answered(out, response, None)
        return bool(response.success)

    if not command(out, work, actor=actor):
        raise typer.Exit(1)


@app.command()
def identify(
    request: Request,
    *,
    identity: Annotated[str, typer.Option("--identity", metavar="HOW", help="How: bankid, in-person, …")],
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Record how it was made sure that a request is the person's own. No number, and no copy, of a document."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        how = identity_of(identity)
        async with manager_of(config) as db:
            found = await db.subject_requests.identify(request, how)
        out.document(found)
        out.say(f"Recorded: {how.method}. To be answered by {found.deadline.isoformat()}.")

    command(out, work, actor=actor)


@app.command()
def doubt(
    request: Request,
    *,
    reason: Reason,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Record doubts about who asks: nothing is done until `identify`. GDPR Article 12(6)."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        async with manager_of(config) as db:
            found = await db.subject_requests.doubt(request, reason=reason)
        out.document(found)
        out.say(f"Recorded. The deadline stays: {found.deadline.isoformat()}.")

    command(out, work, actor=actor)


@app.command()
def extend(
    request: Request,
    *,
    reason: Reason,
    language: Language = "nb",
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Take two further months, once, and print what to write to the person. GDPR Article 12(3)."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        async with manager_of(config) as db:
            found = await db.subject_requests.extend(request, reason=reason)
        out.document(found)
        out.say(f"Due by {found.deadline.isoformat()} now. Tell the person by {found.tell_by.isoformat()}:")
        out.say()
        out.say(found.letters[language], indent=2)

    command(out, work, actor=actor)


@app.command()
def reject(
    request: Request,
    *,
    reason: Reason,
    ground: Annotated[
        Literal["unfounded", "excessive", "unidentified", "exempt"], typer.Option(help="Why the law allows it.")
    ] = "unfounded",
    language: Language = "nb",
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Refuse a request, and print what to write to the person: why, and where to complain. GDPR Article 12(4)."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        async with manager_of(config) as db:
            response = await db.subject_requests.reject(request, reason, ground=ground)
        out.document({"request": response.request_id, "success": False, "letters": response.letters})
        out.say("Refused. Write to the person:")
        out.say()
        out.say(response.letters[language], indent=2)

    command(out, work, actor=actor)


def _due(request: OpenRequest) -> str:
    more = "OVERDUE" if request.overdue else "extended" if request.extended else ""
    return f"{request.deadline.isoformat()} {more}".rstrip()


def _whose(request: OpenRequest) -> str:
    known = f" ({request.identity.method})" if request.identity is not None else ""
    return f"{request.kind}: {request.subject}{known}"


def _changes(put: Any, file: Path | None) -> dict[str, dict[str, Any]]:
    """The right values, as the command line gives them."""
    found: dict[str, dict[str, Any]] = {}
    if file is not None:
        problem = ""
        try:
            found = json.loads(require_file(file, "changes"))
        except ValueError:
            problem = "it is not JSON"
        if not problem and not (isinstance(found, dict) and all(isinstance(one, dict) for one in found.values())):
            problem = 'expected {"dataset": {"field": value}}'
        if problem:
            raise ConfigurationError(f"changes {file}: {problem}")
    for one in put:
        name, equals, value = one.partition("=")
        dataset, dot, field = name.partition(".")
        if not (equals and dot and dataset and field):
            raise ConfigurationError("--set: expected DATASET.FIELD=VALUE, such as users.name='Kari Nordmann'")
        found.setdefault(dataset, {})[field] = value
    return found
