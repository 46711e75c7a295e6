"""`datavern audit`: seal the log, verify it, and prove an entry of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from datavern.cli.common import (
    CONFIG,
    Config,
    Json,
    Output,
    Verbose,
    command,
    require_file,
    require_new,
    shown,
    write_new,
)
from datavern.contracts.errors import LogTampered

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Seal the audit log, verify it, and prove an entry of it.",
)
NewFile = Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this new file.")]
Verifier = Annotated[Path, typer.Option(help="The organisation's public key.")]
VERIFIER = Path("keys/verifier.txt")


@app.command()
def seal(
    *, output: NewFile = None, config: Config = CONFIG, json_output: Json = False, verbose: Verbose = False
) -> None:
    """Put the log under a signed checkpoint. Keep a copy where nobody who can change the log can change it."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        from datavern.manager import DatabaseManager

        require_new(output)
        async with DatabaseManager.from_config(config) as db:
            checkpoint = await db.audit.seal()
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
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Find what was changed since the log was sealed. Exit code 1 when something was."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        from datavern.audit.checkpoint import Checkpoint
        from datavern.manager import DatabaseManager

        kept = None if since is None else Checkpoint.read(require_file(since, "checkpoint"))
        async with DatabaseManager.from_config(config) as db:
            report = await db.audit.verify(since=kept)
        out.document(
            {
                "ok": report.ok,
                "entries": report.entries,
                "unsealed": report.unsealed,
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
        if report.ok:
            out.say(f"{report.entries:,} entries, each as it was when it was sealed.", "green")
        else:
            out.say("The log is NOT what was sealed.", "bold red")
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
    output: NewFile = None,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Prove that an entry is in the log. `verify-proof` checks the proof offline."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        import json
        import sys

        from datavern.manager import DatabaseManager

        require_new(output)
        async with DatabaseManager.from_config(config) as db:
            proof = await db.audit.prove(entry)
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
        from datavern.audit.entry import COLUMNS
        from datavern.manager import DatabaseManager

        names = ", ".join(COLUMNS)
        async with DatabaseManager.from_config(config) as db:
            found = {
                name: await db[name].query(f"SELECT {names} FROM datavern_audit ORDER BY seq DESC LIMIT {last}")  # noqa: S608  (our own columns, and a number)
                for name in db
            }
        out.document({log: [dict(row) for row in rows] for log, rows in found.items()})
        for log, rows in found.items():
            out.table(
                ["entry", "at", "what, by whom"],
                [[r["entry_id"], r["at"][:19], _done(r)] for r in reversed(rows)],
                whole={"entry", "at"},
                title=log if len(found) > 1 else None,
            )

    command(out, work)


def _done(row: Any) -> str:
    where = f" {row['dataset']}" if row["dataset"] else ""
    by = f", {row['actor']}" if row["actor"] else ""
    return f"{row['action']}{where}{by}"
