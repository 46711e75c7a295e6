"""`datavern subject erase --file`: many people, each with a certificate; run again, it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datavern.cli.common import Output, command, mapped_manager, require_file, told, write_new
from datavern.cli.subject_answers import identity_of
from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    import datetime as dt

__all__ = ["People", "erase_file", "people_of"]


@dataclass(frozen=True, slots=True)
class People:
    """Whom a file names.

    Attributes:
        lines: canonical id → the line where it stands first.
        repeated: how many lines name somebody again.
        batch: what this very file is called: the digest of what it says.
    """

    lines: dict[str, int]
    repeated: int
    batch: str


def people_of(file: Path) -> People:
    """The people whom a file names, one a line; empty lines count for nothing.

    Raises:
        ConfigurationError: it cannot be read, names nobody, or a line can name nobody: it says which.
    """
    from datavern.contracts.subjects import canonical_subject

    text = require_file(file, "file").removeprefix("\ufeff")
    lines: dict[str, int] = {}
    repeated = 0
    for number, line in enumerate(text.splitlines(), 1):
        problem = ""
        try:
            who = canonical_subject(line.strip()) if line.strip() else None
        except ConfigurationError as error:
            problem = str(error)
        if problem:
            raise ConfigurationError(f"{file}, line {number}: {problem}. Nobody was erased")
        if who is not None:
            repeated += who in lines
            lines.setdefault(who, number)
    if not lines:
        raise ConfigurationError(f"{file} names nobody: expected the people's ids, one a line. Nobody was erased")
    return People(lines, repeated, sha256("\n".join(lines).encode()).hexdigest())


def erase_file(
    out: Output,
    file: Path,
    *,
    batch: str | None,
    output: Path | None,
    received: dt.datetime | None,
    identity: str | None,
    yes: bool,
    config: Path,
    actor: str | None,
) -> bool:
    """Erase the people whom a file names; whether all of them are erased.

    Args:
        out: where it is told.
        file: the ids, one a line.
        batch: a name for all of it; what the file says, when None.
        output: the folder of the certificates; beside the file, when None.
        received: the day of the requests.
        identity: how it was made sure who asks.
        yes: do not ask.
        config: the project's configuration.
        actor: who acts.
    """
    folder = output or file.with_name(f"{file.stem}-certificates")
    with told(out):
        from datavern.config_file import load

        load(config)
        people = people_of(file)
        if folder.exists() and not folder.is_dir():
            raise ConfigurationError(f"{folder} is no folder: the certificates need one")
        number = len(people.lines)
        out.confirm(f"Erase everything about {_count(number)}? It cannot be undone.", yes=yes)

    async def work() -> dict[str, Any]:
        waiting: list[dict[str, Any]] = []
        async with mapped_manager(config) as db:
            folder.mkdir(mode=0o700, exist_ok=True)
            answers = db.subject_requests.erase_many(
                people.lines,
                received=None if received is None else received.date(),
                identity=None if identity is None else identity_of(identity),
                batch=batch or people.batch,
            )
            with out.progress("People", number) as advance:
                async for subject, answer in answers:
                    certificate = getattr(answer, "certificate", None)
                    if certificate is None:
                        line = people.lines[subject]
                        waits = dict(getattr(answer, "waiting", {}))
                        waiting.append({"line": line, "request": answer.request_id, "waiting": waits})
                    else:
                        path = folder / f"{answer.request_id}.json"
                        if not path.exists():  # written when this was run before
                            write_new(path, certificate.to_json())
                    advance(1)
        erased = number - len(waiting)
        return {
            "success": not waiting,
            "people": number,
            "erased": erased,
            "repeated": people.repeated,
            "waiting": waiting,
            "output": str(folder),
        }

    done = command(out, work, actor=actor)
    out.document(done)
    out.say(f"{_count(done['erased'])} erased; the certificates are in {folder}, for their eyes alone.")
    if people.repeated:
        out.say(f"{people.repeated} of the lines named somebody again.")
    for one in done["waiting"]:
        stores = ", ".join(f"{label}: {reason}" for label, reason in one["waiting"].items())
        out.say(f"Line {one['line']} waits (request {one['request']}): {stores}", "yellow")
    if done["waiting"]:
        out.say("What waits goes on whenever a manager opens; run this again to have its certificate written.")
    return bool(done["success"])


def _count(number: int) -> str:
    return "1 person" if number == 1 else f"{number:,} people"
