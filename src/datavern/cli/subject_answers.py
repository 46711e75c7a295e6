"""What the commands about requests share: their options, and how an answer is shown and written."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from datavern.cli.common import DATE, Output, jsonable, shown, write_new
from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.privacy.datamap.information import Information
    from datavern.privacy.journal.values import Identity, SubjectRequest, SubjectResponse

__all__ = ["IdentityOption", "Language", "Received", "Subject", "answer", "answered", "body_of", "identity_of",
           "letter_of", "request_of", "tables", "wrote"]  # fmt: skip

Subject = Annotated[str, typer.Argument(help="Who: the id that the data map calls the subject.")]
Received = Annotated[
    dt.datetime | None,
    typer.Option(
        "--received",
        **DATE,
        help="The day the request came; the deadline follows from it.",
    ),
]
IdentityOption = Annotated[
    str | None,
    typer.Option("--identity", metavar="HOW", help="How it was made sure who asks: bankid, in-person, …"),
]
Language = Annotated[Literal["nb", "en"], typer.Option("--language", help="Norwegian (nb) or English (en).")]


def identity_of(how: str) -> Identity:
    """How it was made sure who asks, by whoever is acting, now."""
    from datavern.privacy.journal.values import Identity

    return Identity(how)


def request_of(
    kind: Any, subject: str, received: dt.datetime | None, identity: str | None, **more: Any
) -> SubjectRequest:
    """A request, as the command line gives it."""
    from datavern.privacy.journal.values import SubjectRequest

    request = SubjectRequest(kind, subject=subject, **more)
    if received is not None:
        request = replace(request, received=received.date())
    return request if identity is None else replace(request, identity=identity_of(identity))


def answer(response: SubjectResponse, *, deadline: bool) -> dict[str, Any]:
    """What a program is told of every answer."""
    due = response.deadline.isoformat() if deadline and response.deadline is not None else None
    return {
        "success": response.success,
        "message": response.message,
        "request": response.request_id,
        "completed_at": response.completed_at,
        "deadline": due,
        "identity": response.identity,
        "masked": response.masked,
        "recipients": response.recipients,
        "information": response.information,
        "rights": response.letters,
    }


def answered(out: Output, response: SubjectResponse, output: Path | None, letters: Sequence[str] = ()) -> None:
    """Show an answer of any kind. What was written to files, the answer or its `letters`, is not shown as well."""
    written = None if output is None else str(output)
    whole = {**answer(response, deadline=True), "output": written, "letters": list(letters)}
    if output is None:
        whole |= {"data": response.data, "certificate": body_of(response.certificate)}
    out.document(whole)
    if not (output or letters or response.data is None or out.as_json):
        tables(out, response.data)
    if output is None and response.certificate is not None:
        out.say(str(response.certificate))
        out.say()
    out.say(response.message)
    told(out, response, letter=bool(letters))
    if letters:
        out.say(f"For the person alone: {' and '.join(letters)}.")
    if output is not None and (response.data is not None or response.certificate is not None):
        out.say(f"It is in {output}.")


def told(out: Output, response: SubjectResponse, *, letter: bool = False) -> None:
    """Say what else is to be known of an answer; `letter`: the letter to the person is written, and says it."""
    if response.identity is not None:
        by = f", by {response.identity.verified_by}" if response.identity.verified_by else ""
        out.say(f"Identity: {response.identity.method}{by}.")
    for label, said in response.information.items():
        for line in _information(said):
            out.say(f"{label}: {line}")
    for label, said in response.information.items():
        if said.unsaid:
            out.say(f"{label}: the person is to be told more, and the data map lacks {', '.join(said.unsaid)} "
                    "(GDPR Art. 15).", "yellow")  # fmt: skip
    for one in response.masked:
        out.say(f"Left out: {one.dataset}.{one.field}, {one.times} times, by {one.of}: {one.why}.")
    for label, names in response.recipients.items():
        out.say(f"To be told of it (GDPR Art. 19), of {label}: {', '.join(names)}.")
    if response.letter is not None and not letter:
        out.say(f"Tell the person: {response.letters['en']}")
        out.say("The whole letter, in Norwegian or English: --html FILE or --pdf FILE.")


def _information(said: Information) -> Iterator[str]:
    from datavern.privacy.datamap.information import NOBODY, NOTHING, PERSON

    for purpose, basis in said.purposes.items():
        yield f"used for {purpose}; basis: {basis}." if purpose else f"basis: {basis}."
    if said.recipients:
        yield f"given to {'nobody' if said.recipients == (NOBODY,) else ', '.join(said.recipients)}."
    for one in said.transfers:
        to = f"{one.place}, {one.country}" if one.country else one.place
        yield f"can get outside of the EEA, to {to}: {one.safeguard or 'on grounds that nobody said'}."
    if said.kept is not None:
        yield f"kept for {said.kept}."
    for what, sources in said.sources.items():
        named = ", ".join("the person" if source == PERSON else source for source in sources)
        yield f"{f'{what} comes' if what else 'comes'} from {named}."
    if said.automated_decisions == NOTHING:
        yield "nothing is decided automatically."
    elif said.automated_decisions is not None:
        yield f"decided automatically: {said.automated_decisions.rstrip('.')}."


def wrote(response: SubjectResponse, output: Path) -> None:
    """Write an answer where it was asked for: a folder of files, a certificate, or a copy of the data."""
    if response.files is not None:
        output.mkdir(mode=0o700)
        for name, content in response.files.items():
            write_new(output / name.replace("/", "_"), content.decode())
    elif response.certificate is not None:
        write_new(output, response.certificate.to_json())
    elif response.data is not None:
        copy = {**answer(response, deadline=True), "data": response.data}
        write_new(output, json.dumps(jsonable(copy), ensure_ascii=False, indent=2) + "\n")


def letter_of(
    response: SubjectResponse, html: Path | None, pdf: Path | None, language: Literal["nb", "en"]
) -> list[str]:
    """Write the letter of an access answer, or the certificate of an erasure, as it was asked for; the files' names."""
    statement = response.letter or response.certificate
    if (html or pdf) and statement is None:
        raise ConfigurationError("--html and --pdf are for answers to access requests and for erasures: leave them out")
    if html is not None and statement is not None:
        write_new(html, statement.to_html(language))
    if pdf is not None and statement is not None:
        write_new(pdf, statement.to_pdf(language))
    return [str(file) for file in (html, pdf) if file is not None]


def body_of(certificate: Any) -> Any:
    """A certificate as JSON, or None."""
    return None if certificate is None else json.loads(certificate.to_json())


def tables(out: Output, data: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """One table for each row: a person's data reads downwards."""
    for store, rows in data.items():
        for number, row in enumerate(rows, 1):
            title = store if len(rows) == 1 else f"{store}, {number} of {len(rows)}"
            out.table(["field", "value"], [[k, shown(v)] for k, v in row.items()], title=title)
