"""`datavern subject`: what the people whom the data is about may ask for, and the proof that it was done."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
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
    jsonable,
    require_file,
    require_new,
    shown,
    told,
    write_new,
)
from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Answer the people whom the data is about.",
)

Subject = Annotated[str, typer.Argument(help="Who: the id that the data map calls the subject.")]
Received = Annotated[
    dt.datetime | None,
    typer.Option("--received", formats=["%Y-%m-%d"], help="The day the request came; the deadline follows from it."),
]


@app.command()
def access(
    subject: Subject,
    *,
    received: Received = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the copy to this new file.")] = None,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Give a person a copy of all their data: GDPR Article 15."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        require_new(output)
        response, deadline = await _process("access", subject, received, config)
        data = response.data or {}
        answer = _answer(response, deadline)
        if output is not None:
            copy = {"subject": subject, **answer, "data": data}
            write_new(output, json.dumps(jsonable(copy), ensure_ascii=False, indent=2) + "\n")
            out.document({**answer, "output": str(output), "rows": {k: len(v) for k, v in data.items()}})
        else:
            out.document({**answer, "data": data})
        if output is None and not json_output:
            _tables(out, data)
        rows = sum(len(v) for v in data.values())
        out.say(f"{response.message}" if response.message else f"{rows} rows in {len(data)} stores")
        if deadline:
            out.say(f"The answer is due by {deadline}.")
        if output is not None:
            out.say(f"The copy is in {output}: {rows} {'row' if rows == 1 else 'rows'}, for the person alone.")
        return bool(response.success)

    if not command(out, work, actor=actor):
        raise typer.Exit(1)


@app.command()
def export(
    subject: Subject,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder for the files.")],
    form: Annotated[Literal["json", "csv"], typer.Option("--format", help="In which form.")] = "json",
    received: Received = None,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Give a person their data to take along, with its schema: GDPR Article 20."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        require_new(output)
        response, deadline = await _process("portability", subject, received, config, format=form)
        files = response.files or {}
        output.mkdir(mode=0o700)
        for name, content in files.items():
            write_new(output / name.replace("/", "_"), content.decode())
        out.document({**_answer(response, deadline), "output": str(output), "files": sorted(files)})
        out.say(response.message)
        out.say(f"{len(files)} files are in {output}, for the person alone.")
        return bool(response.success)

    if not command(out, work, actor=actor):
        raise typer.Exit(1)


@app.command()
def erase(
    subject: Subject,
    *,
    received: Received = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The certificate's file.", show_default="certificate-….json beside the configuration"
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Erase a person everywhere, and sign a certificate. GDPR Article 17. It cannot be undone."""
    out = Output(as_json=json_output, verbose=verbose)

    file = output or _free(config.absolute().parent)
    with told(out):
        from datavern.config import load
        from datavern.contracts.subjects import canonical_subject

        # What is wrong is told before anybody is asked.
        load(config)
        canonical_subject(subject)
        require_new(file)
        out.confirm(f"Erase everything about {subject}? It cannot be undone.", yes=yes)

    async def work() -> bool:
        response, deadline = await _process("erasure", subject, received, config)
        if response.certificate is not None:
            write_new(file, response.certificate.to_json())
            out.say(str(response.certificate))
            out.say()
        wrote = str(file) if response.certificate is not None else None
        out.document({**_answer(response, deadline), "output": wrote, "certificate": _body(response.certificate)})
        out.say(response.message)
        if wrote:
            out.say(f"The certificate is in {wrote}; `datavern subject verify` checks it, offline.")
            out.say(f"It is kept with the request, {response.request_id}.")
        return bool(response.success)

    if not command(out, work, actor=actor):
        raise typer.Exit(1)


@app.command()
def certificate(
    request: Annotated[str, typer.Argument(help="The request's id, as the erasure told it.")],
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this new file.")] = None,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show a certificate again. It is kept with the request."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        from datavern.manager import DatabaseManager

        require_new(output)
        async with DatabaseManager.from_config(config) as db:
            found = await db.subject_requests.certificate(request)
        if found is None:
            raise ConfigurationError("there is no certificate of that request: it is unknown, or not done yet")
        if output is not None:
            write_new(output, found.to_json())
        out.document(_body(found))
        out.say(str(found))

    command(out, work)


@app.command()
def shredded(
    subject: Subject,
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this new file.")] = None,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Sign that not even old backups bring an erased person's sealed data back. After `keys rotate`."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        from datavern.manager import DatabaseManager

        require_new(output)
        async with DatabaseManager.from_config(config) as db:
            statement = await db.subject_requests.shredded(subject)
        if output is not None:
            write_new(output, statement.to_json())
        out.document(_body(statement))
        out.say(str(statement))

    command(out, work)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="CERTIFICATE", help="The certificate's file.")],
    *,
    verifier: Annotated[Path, typer.Option(help="The organisation's public key.")] = Path("keys/verifier.txt"),
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Check a certificate, offline. It takes the public key alone: no configuration, no database."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        from datavern.privacy.certificate import Certificate

        found = Certificate.from_json(require_file(file, "certificate"))
        valid = found.verify(require_file(verifier, "verifier"))
        out.document({"valid": valid, "key": found.key, "certificate": found.body if valid else None})
        if valid:
            out.say(str(found))
            out.say()
            out.say(f"The signature is valid: {verifier} signed exactly this.", "green")
        else:
            out.say(f"NOT VALID: {verifier} did not sign this, or it was changed since.", "bold red")
        return valid

    if not command(out, work):
        raise typer.Exit(1)


async def _process(
    kind: Any, subject: str, received: dt.datetime | None, config: Path, **more: Any
) -> tuple[Any, str | None]:
    from datavern.manager import DatabaseManager
    from datavern.privacy.requests import SubjectRequest

    request = SubjectRequest(kind, subject=subject, **more)
    if received is not None:
        request = replace(request, received=received.date())
    async with DatabaseManager.from_config(config) as db:
        if not db.data_map:
            raise ConfigurationError(f"{config}: the data map names no dataset, so nothing about anybody can be found")
        response = await db.subject_requests.process(request)
    deadline = request.deadline if received else None
    return response, deadline.isoformat() if deadline else None


def _answer(response: Any, deadline: str | None) -> dict[str, Any]:
    return {
        "success": response.success,
        "message": response.message,
        "request": response.request_id,
        "completed_at": response.completed_at,
        "deadline": deadline,
    }


def _body(certificate: Any) -> Any:
    return None if certificate is None else json.loads(certificate.to_json())


def _tables(out: Output, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """One table for each row: a person's data reads downwards."""
    for store, rows in data.items():
        for number, row in enumerate(rows, 1):
            title = store if len(rows) == 1 else f"{store}, {number} of {len(rows)}"
            out.table(["field", "value"], [[k, shown(v)] for k, v in row.items()], title=title)


def _free(folder: Path) -> Path:
    """A name for a certificate that says nothing about whose it is."""
    import secrets

    day = dt.datetime.now(dt.UTC).strftime("%Y%m%d")
    return folder / f"certificate-{day}-{secrets.token_hex(4)}.json"
