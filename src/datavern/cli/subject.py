"""`datavern subject`: what the people whom the data is about may ask for, and the proof that it was done."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from datavern.cli import subject_find, subject_register, subject_standing
from datavern.cli.common import (
    CONFIG,
    Actor,
    Config,
    Json,
    Output,
    Verbose,
    Yes,
    command,
    jsonable,
    manager_of,
    mapped_manager,
    require_file,
    require_new,
    told,
    write_new,
)
from datavern.cli.group import Group
from datavern.cli.subject_answers import (
    IdentityOption,
    Language,
    Received,
    Subject,
    answer,
    body_of,
    letter_of,
    request_of,
    tables,
)
from datavern.cli.subject_answers import told as told_of
from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.privacy.certificate.certificate import Certificate
    from datavern.privacy.journal.values import SubjectRequest, SubjectResponse

app = typer.Typer(
    cls=Group,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Answer the people whom the data is about.",
)

app.add_typer(subject_find.app)
app.add_typer(subject_register.app)
app.add_typer(subject_standing.app)

Page = Annotated[Path | None, typer.Option("--html", help="Write it as a page to this new file.")]
Pdf = Annotated[Path | None, typer.Option("--pdf", help="Write it as PDF to this new file (datavern[pdf]).")]
LetterPage = Annotated[Path | None, typer.Option("--html", help="Write the letter as a page to this new file.")]
LetterPdf = Annotated[
    Path | None, typer.Option("--pdf", help="Write the letter as PDF to this new file (datavern[pdf]).")
]
SignedFile = Annotated[Path | None, typer.Option("--output", "-o", help="Write the signed JSON to this new file.")]


@app.command()
def access(
    subject: Subject,
    *,
    received: Received = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the copy to this new file.")] = None,
    html: LetterPage = None,
    pdf: LetterPdf = None,
    language: Language = "nb",
    identity: IdentityOption = None,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Give a person a copy of all their data, and what they are to be told with it: GDPR Article 15."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        require_new(output, html, pdf)
        response = await _process(request_of("access", subject, received, identity), config)
        data = response.data or {}
        said = answer(response, deadline=received is not None)
        letters = letter_of(response, html, pdf, language)
        if output is not None:
            copy = {"subject": subject, **said, "data": data}
            write_new(output, json.dumps(jsonable(copy), ensure_ascii=False, indent=2) + "\n")
            counts = {k: len(v) for k, v in data.items()}
            out.document({**said, "output": str(output), "letters": letters, "rows": counts})
        else:
            out.document({**said, "letters": letters, "data": data})
        if not (output or letters or json_output):
            tables(out, data)
        rows = sum(len(v) for v in data.values())
        out.say(f"{response.message}" if response.message else f"{rows} rows in {len(data)} stores")
        told_of(out, response, letter=bool(letters))
        if received is not None and response.deadline is not None:
            out.say(f"The answer is due by {response.deadline.isoformat()}.")
        if output is not None:
            out.say(f"The copy is in {output}: {rows} {'row' if rows == 1 else 'rows'}, for the person alone.")
        if letters:
            out.say(f"The letter, with the copy in it, is in {' and '.join(letters)}, for the person alone.")
            if (abridged := getattr(response.letter, "abridged", 0)) and output is None:
                values = "1 value is" if abridged == 1 else f"{abridged} values are"
                out.say(f"{values} too long for it: give the person the copy too (--output FILE).", "yellow")
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
    identity: IdentityOption = None,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Give a person their data to take along, with its schema: GDPR Article 20."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        require_new(output)
        response = await _process(request_of("portability", subject, received, identity, format=form), config)
        files = response.files or {}
        output.mkdir(mode=0o700)
        for name, content in files.items():
            write_new(output / name.replace("/", "_"), content.decode())
        out.document({**answer(response, deadline=received is not None), "output": str(output), "files": sorted(files)})
        out.say(response.message)
        told_of(out, response)
        out.say(f"{len(files)} files are in {output}, for the person alone.")
        return bool(response.success)

    if not command(out, work, actor=actor):
        raise typer.Exit(1)


@app.command()
def erase(
    subject: Annotated[str | None, typer.Argument(help="Who: the id that the data map calls the subject.")] = None,
    *,
    received: Received = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Many people: a file with their ids, one a line.")
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option("--batch", help="A name for the file's people: run again, it goes on and does nobody twice.",
                     show_default="what the file says"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The certificate's file; of many people, the folder of their certificates.",
            show_default="certificate-….json beside the configuration",
        ),
    ] = None,
    yes: Yes = False,
    identity: IdentityOption = None,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Erase a person everywhere, and sign a certificate. GDPR Article 17. It cannot be undone."""
    out = Output(as_json=json_output, verbose=verbose)
    with told(out):
        if (subject is None) == (file is None) or (batch is not None and file is None):
            raise ConfigurationError("say whom: SUBJECT, or --file (and --batch) for many people")
    if file is not None:
        from datavern.cli.subject_batch import erase_file

        given: Any = {"received": received, "identity": identity, "yes": yes, "config": config, "actor": actor}
        if not erase_file(out, file, batch=batch, output=output, **given):
            raise typer.Exit(1)
        return
    _erase_one(out, str(subject), output, received=received, identity=identity, yes=yes, config=config, actor=actor)


def _erase_one(
    out: Output,
    subject: str,
    output: Path | None,
    *,
    received: dt.datetime | None,
    identity: str | None,
    yes: bool,
    config: Path,
    actor: str | None,
) -> None:
    file = output or _free(config.absolute().parent)
    with told(out):
        from datavern.config_file import load
        from datavern.contracts.subjects import canonical_subject

        # What is wrong is told before anybody is asked.
        load(config)
        canonical_subject(subject)
        require_new(file)
        out.confirm(f"Erase everything about {subject}? It cannot be undone.", yes=yes)

    async def work() -> bool:
        response = await _process(request_of("erasure", subject, received, identity), config)
        if response.certificate is not None:
            write_new(file, response.certificate.to_json())
            out.say(str(response.certificate))
            out.say()
        wrote = str(file) if response.certificate is not None else None
        out.document(
            {
                **answer(response, deadline=received is not None),
                "output": wrote,
                "certificate": body_of(response.certificate),
            }
        )
        out.say(response.message)
        told_of(out, response)
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
    html: Page = None,
    pdf: Pdf = None,
    output: SignedFile = None,
    within: Annotated[
        Path | None, typer.Option("--within", help="A checkpoint that was kept: prove its entries in that one.")
    ] = None,
    language: Language = "nb",
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Show a certificate again, with the proofs of its audit entries once the log is sealed; or write it."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        require_new(html, pdf, output)
        kept = None if within is None else require_file(within, "checkpoint")
        async with manager_of(config) as db:
            found = await db.subject_requests.certificate(request, within=kept)
        if found is None:
            raise ConfigurationError("there is no certificate of that request: it is unknown, or not done yet")
        _write(out, found, html=html, pdf=pdf, output=output, language=language)

    command(out, work)


@app.command()
def shredded(
    subject: Subject,
    *,
    html: Page = None,
    pdf: Pdf = None,
    output: SignedFile = None,
    language: Language = "nb",
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Sign that not even old backups bring an erased person's sealed data back. After `keys rotate`."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        require_new(html, pdf, output)
        async with manager_of(config) as db:
            statement = await db.subject_requests.shredded(subject)
        _write(out, statement, html=html, pdf=pdf, output=output, language=language)

    command(out, work)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="CERTIFICATE", help="The certificate's file: JSON, or its page.")],
    *,
    verifier: Annotated[Path, typer.Option(help="The organisation's public key.")] = Path("keys/verifier.txt"),
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="A checkpoint of the audit log that you have kept.")
    ] = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Check a certificate, offline, with its proofs. It takes the public key alone: no configuration, no database."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        from datavern.audit.offline import NotValid, verify_certificate
        from datavern.crypto.signing import Verifier
        from datavern.privacy.certificate.certificate import Certificate
        from datavern.privacy.certificate.html import embedded

        text = require_file(file, "certificate")
        found = Certificate.from_json(embedded(text))
        keys = require_file(verifier, "verifier")
        for line in filter(str.strip, keys.splitlines() or [""]):
            Verifier.parse(line)
        kept = None if checkpoint is None else require_file(checkpoint, "checkpoint")
        reason, checked, unchecked = "", list[str](), list[str]()
        try:
            checked, unchecked = verify_certificate(text, keys, kept)
        except NotValid as error:
            reason = str(error)
        out.document(
            {
                "valid": not reason,
                "reason": reason or None,
                "key": found.key,
                "checked": checked,
                "unchecked": unchecked,
                "certificate": None if reason else found.body,
            }
        )
        if reason:
            out.say(f"NOT VALID: {reason}", "bold red")
            return False
        out.say(str(found))
        out.say()
        out.say(f"The signature is valid: {verifier} signed exactly this.", "green")
        for line in checked[1:]:
            out.say(f"Checked: {line}", "green")
        for line in unchecked:
            out.say(f"Not checked: {line}")
        return True

    if not command(out, work):
        raise typer.Exit(1)


def _write(
    out: Output, found: Certificate, *, html: Path | None, pdf: Path | None, output: Path | None, language: Any
) -> None:
    """Write a statement in the forms that were asked for, and show it."""
    if output is not None:
        write_new(output, found.to_json())
    if html is not None:
        write_new(html, found.to_html(language))
    if pdf is not None:
        write_new(pdf, found.to_pdf(language))
    out.document(body_of(found))
    written = [str(file) for file in (output, html, pdf) if file is not None]
    out.say(str(found))
    if written:
        out.say()
        out.say(f"Written: {', '.join(written)}.")


async def _process(request: SubjectRequest, config: Path) -> SubjectResponse:
    async with mapped_manager(config) as db:
        return await db.subject_requests.process(request)


def _free(folder: Path) -> Path:
    """A name for a certificate that says nothing about whose it is."""
    import secrets

    day = dt.datetime.now(dt.UTC).strftime("%Y%m%d")
    return folder / f"certificate-{day}-{secrets.token_hex(4)}.json"
