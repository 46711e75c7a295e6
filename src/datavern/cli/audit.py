"""`datavern audit`: seal the log, verify it, prove an entry of it, export it, and end what is old."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datavern.cli.common import (
    CONFIG,
    DATE,
    Config,
    Json,
    NewFile,
    Output,
    Verbose,
    Yes,
    command,
    manager_of,
    new_file,
    require_file,
    require_new,
    shown,
    told,
    write_new,
)
from datavern.cli.group import Group
from datavern.contracts.errors import ConfigurationError, LogTampered

if TYPE_CHECKING:
    from datavern.audit.checkpoint import Checkpoint

app = typer.Typer(
    cls=Group,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Seal the audit log, verify it, prove an entry of it, export it, and end what is old.",
)
Verifier = Annotated[Path, typer.Option(help="The organisation's public key.")]
VERIFIER = Path("keys/verifier.txt")


@app.command()
def seal(
    *,
    output: NewFile = None,
    every: Annotated[float | None, typer.Option(min=0.1, help="Go on, so many seconds apart, until stopped.")] = None,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Put the log under a signed checkpoint. Keep a copy where nobody who can change the log can change it."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        require_new(output)
        async with manager_of(config) as db:
            checkpoint = await db.audit.seal()
            if every is not None:
                out.say(f"Sealed at {checkpoint.at}, and from here on every {every:g} s or so.")
                await db.audit.keep_sealed(every)
        if output is not None:
            write_new(output, checkpoint.text)
        logs = [checkpoint, *checkpoint.others]
        out.document(
            {
                "logs": [{"origin": c.origin, "size": c.size, "root": c.root, "at": c.at} for c in logs],
                "checkpoint": checkpoint.text,
                "output": str(output) if output else None,
            }
        )
        out.table(["log", "entries", "sealed at"], [[c.origin, c.size, c.at] for c in logs])
        if output is None:
            out.say(checkpoint.text.rstrip("\n"))
        else:
            out.say(f"The checkpoint is in {output}: keep it where nobody who can change the log can change it.")

    command(out, work)


@app.command()
def verify(
    *,
    since: Annotated[Path | None, typer.Option(help="A checkpoint kept elsewhere: finds a log set back.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Look at N entries of each log, drawn at random.")
    ] = None,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Find what was changed since the log was sealed. Exit code 1 when something was."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        kept = None if since is None else _kept(since)
        async with manager_of(config) as db:
            report = await db.audit.verify(since=kept, sample=sample)
        out.document(
            {
                "ok": report.ok,
                "entries": report.entries,
                "unsealed": report.unsealed,
                "truncated": report.truncated,
                "sampled": report.sampled,
                "rollback_checked": report.rollback_checked,
                "problems": report.problems,
            }
        )
        if report.problems:
            out.table(
                ["position", "entry", "what does not fit"],
                [
                    [p.position, p.entry_id, p.reason if p.count == 1 else f"{p.count} of them: {p.reason}"]
                    for p in report.problems
                ],
                whole={"entry"},
            )
        if report.ok and report.sampled is not None:
            out.say(f"{report.entries:,} entries, drawn at random, each as it was when it was sealed.", "green")
        elif report.ok:
            out.say(f"{report.entries:,} entries, each as it was when it was sealed.", "green")
        else:
            out.say("The log is NOT what was sealed.", "bold red")
        if report.truncated:
            out.say(f"{report.truncated:,} older entries were removed when their retention ended, by a signed record.")
        if report.unsealed:
            out.say(f"{report.unsealed:,} newer entries are not sealed yet: nothing is claimed of them.")
        if not report.rollback_checked:
            out.say("Whether the whole log was set back was not looked at: give a kept checkpoint with --since.")
        return bool(report.ok)

    if not command(out, work):
        raise typer.Exit(1)


@app.command()
def prove(
    entry: Annotated[str, typer.Argument(help="The entry's id.")],
    *,
    within: Annotated[
        Path | None, typer.Option(help="In which checkpoint: the copy that whoever is to be convinced has kept.")
    ] = None,
    output: NewFile = None,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Prove that an entry is in the log. `verify-proof`, or `datavern-verify`, checks the proof offline."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        import json
        import sys

        require_new(output)
        kept = None if within is None else require_file(within, "checkpoint")
        async with manager_of(config) as db:
            proof = await db.audit.prove(entry, within=kept)
        text = proof.to_json()
        if output is not None:
            write_new(output, text)
            out.document({"position": proof.position, "output": str(output)})
            out.say(f"Entry {proof.position} is in the sealed log; the proof is in {output}.")
        elif json_output:
            out.document(json.loads(text))
        else:
            sys.stdout.write(text)

    command(out, work)


@app.command("verify-proof")
def verify_proof(
    proof: Annotated[Path, typer.Argument(help="The proof's file.")],
    *,
    verifier: Verifier = VERIFIER,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Check a proof, offline. It takes the public key alone: no configuration, no database."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        from datavern.audit.proof import Proof

        found = Proof.from_json(require_file(proof, "proof"))
        key = require_file(verifier, "verifier")
        reason = ""
        try:
            checkpoint = found.verify(key)
        except LogTampered as error:
            reason = str(error)
        out.document({"valid": not reason, "reason": reason or None, "entry": None if reason else found.entry})
        if reason:
            out.say(f"NOT VALID: {reason}", "bold red")
            return False
        out.table(["field", "value"], [[k, shown(v)] for k, v in found.entry.items()])
        out.say(f"Entry {found.position} was in {checkpoint.origin} when it was sealed, {checkpoint.at}.", "green")
        return True

    if not command(out, work):
        raise typer.Exit(1)


@app.command()
def export(
    *,
    log: Annotated[str | None, typer.Option(help="Of which database; of all of them without it.")] = None,
    output: NewFile = None,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write the sealed entries as JSON lines, with what proves them. `datavern-verify` verifies the file offline."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        import sys

        require_new(output)
        async with manager_of(config) as db:
            lines = db.audit.export(log)
            if output is None:
                async for line in lines:
                    sys.stdout.write(_line(line, ascii_only="utf" not in (sys.stdout.encoding or "").lower()))
                return
            count = 0
            with new_file(output) as file:
                async for line in lines:
                    file.write(_line(line))
                    count += "entry_id" in line
            left = (await db.audit.verify(sample=1)).unsealed  # of every log: the quick way to count them
        out.document({"entries": count, "unsealed": left, "output": str(output)})
        which = "entry is" if count == 1 else "entries are"
        out.say(f"{count:,} {which} in {output}; datavern-verify verifies it with the public key alone.")
        if left:
            out.say(f"Newer ones are not sealed yet, and not in it: {left:,} (`datavern audit seal`).")

    command(out, work)


@app.command()
def truncate(
    *,
    before: Annotated[dt.datetime, typer.Option(**DATE, help="What was sealed before it goes (UTC).")],
    yes: Yes = False,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Remove entries whose retention has ended, whole sealed ranges at a time; what remains proves itself as before."""
    out = Output(as_json=json_output, verbose=verbose)
    with told(out):
        from datavern.config_file import load

        load(config)  # what is wrong is told before anybody is asked
        out.confirm(f"Remove every audit entry that was sealed before {before:%Y-%m-%d}, for good?", yes=yes)

    async def work() -> None:
        async with manager_of(config) as db:
            records = await db.audit.truncate(before.replace(tzinfo=dt.UTC))
        out.document({name: {"removed": r.size, "at": r.at, "record": r.note} for name, r in records.items()})
        if not records:
            out.say(f"Nothing was sealed before {before:%Y-%m-%d}: nothing was removed.")
            return
        out.table(["log", "removed so far", "last at"], [[name, r.size, r.at] for name, r in records.items()])

    command(out, work)


def _kept(file: Path) -> Checkpoint:
    """The checkpoint in a file. Raises `ConfigurationError` when it is the wrong file: that says nothing of the log."""
    from datavern.audit.checkpoint import Checkpoint

    text = require_file(file, "checkpoint")
    with suppress(LogTampered):
        return Checkpoint.read(text)
    raise ConfigurationError(f"checkpoint {file}: not a checkpoint: expected what `datavern audit seal --output` wrote")


def _line(line: dict[str, Any], *, ascii_only: bool = False) -> str:
    import json

    return json.dumps(line, ensure_ascii=ascii_only, separators=(",", ":")) + "\n"


@app.command("list")
def list_(
    *,
    last: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the newest entries, sealed or not."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        from datavern.audit.tables import log_of
        from datavern.contracts.capabilities import needs

        def newest(provider: Any) -> tuple[str, list[Any]]:
            ledger = needs(provider, "ledger")
            return log_of(ledger).newest.bind(ledger.dialect, most=last)

        async with manager_of(config) as db:
            found = {
                name: await db[name].query(*newest(db[name])) for name in db if db[name].capabilities.ledger is not None
            }
        out.document({log: [dict(row) for row in rows] for log, rows in found.items()})
        for log, rows in found.items():
            out.table(
                ["entry", "at (UTC)", "what, by whom"],
                [[r["entry_id"], r["at"][:19].replace("T", " "), _done(r)] for r in reversed(rows)],
                whole={"entry"},
                title=log if len(found) > 1 else None,
            )

    command(out, work)


def _done(row: Any) -> str:
    where = f" {row['dataset']}" if row["dataset"] else ""
    by = f", {row['actor']}" if row["actor"] else ""
    return f"{row['action']}{where}{by}"
