"""`datavern keys`: how the keys stand, and their rotation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from datavern.cli.common import (
    CONFIG,
    Actor,
    Config,
    Json,
    Output,
    Verbose,
    Yes,
    command,
    manager_of,
    require_file,
    told,
)
from datavern.cli.group import Group
from datavern.contracts.errors import ConfigurationError

app = typer.Typer(
    cls=Group,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Keys: how they stand, their rotation, and what people hold for a recovery.",
)


@app.command()
def status(*, config: Config = CONFIG, json_output: Json = False, verbose: Verbose = False) -> None:
    """Show the epochs, the last rotation, and until when one is due. Exit code 1 when one is overdue."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        from dataclasses import asdict

        async with manager_of(config) as db:
            found = await db.keys.status()
        out.document(asdict(found))
        rows = [
            ["epoch", found.epoch],
            ["keys the ring holds", ", ".join(f"epoch {number}" for number in found.epochs)],
            *(
                [f"wrapped under epoch {number}", f"{count} key{'s'[: count != 1]}"]
                for number, count in found.keys.items()
            ),
            ["last rotation", _ended(found.last)],
            ["rotation is due", _due(found)],
        ]
        if found.rotation is not None:
            rows.append(["not at its end", f"to epoch {found.rotation.epoch}, at {found.rotation.state}"])
        rows += [["a vault still keeps", f"the key of epoch {r.previous}"] for r in found.purging]
        rows += [
            ["recovery outstanding", f"{r.id}: {r.threshold} of {r.shares} shares, made {r.created_at[:10]}"]
            for r in found.recoveries
        ]
        out.table(["keys", ""], rows)
        return not found.overdue

    if not command(out, work):
        raise typer.Exit(1)


def _ended(rotation: Any) -> str:
    return "never" if rotation is None else f"{rotation.destroyed_at[:10]}, to epoch {rotation.epoch}"


def _due(found: Any) -> str:
    if found.due is None:
        return "no: nobody was erased since the last one"
    if found.overdue:
        return f"OVERDUE since {found.due}: `datavern keys rotate`"
    return f"by {found.due}, since somebody was erased"


@app.command()
def rotate(
    *,
    copy: Annotated[
        Path | None,
        typer.Option("--copy", metavar="FOLDER", help="Where the copy of the key store goes that is read back."),
    ] = None,
    patience: Annotated[float, typer.Option(help="Seconds to wait for replicas.")] = 60.0,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Wrap every key anew, make the lookups anew, and destroy the old epoch key. Beside the running service.

    What was cut off goes on from where it was when the command is run again.
    """
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        from dataclasses import asdict

        async with manager_of(config) as db:
            before = await db.keys.status()
            with out.progress("Keys wrapped anew", sum(before.keys.values())) as advance:

                def progress(what: str, number: int) -> None:
                    if what == "keys":
                        advance(number)

                done = await db.keys.rotate(copy=copy, patience=patience, progress=progress)
        out.document(asdict(done))
        indexed = sum(done.details.get("indexed", {}).values())
        out.say(f"Epoch {done.epoch}: {done.keys} keys wrapped anew, {indexed} rows indexed anew.")
        for label, number in done.details.get("unreadable", {}).items():
            out.say(f"{number} rows of {label} do not open, and no lookup leads to them any more.", "bold red")
        if done.state == "purge":
            out.say(f"The key of epoch {done.previous} is deleted; its vault keeps it for a while yet:")
            out.say(f"{done.details.get('destruction', '')}")
        else:
            out.say(f"The key of epoch {done.previous} is destroyed: {done.details.get('destruction', '')}.")

    command(out, work, actor=actor)


@app.command()
def verify(*, config: Config = CONFIG, json_output: Json = False, verbose: Verbose = False) -> None:
    """Unwrap every key of the key store, and look for lost erasures. Exit code 1 when something is wrong."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        async with manager_of(config) as db:
            number = sum((await db.keys.status()).keys.values())
            with out.progress("Keys", number) as advance:
                problems = await db.keys.verify(progress=advance)
        out.document({"ok": not problems, "keys": number, "problems": problems})
        for problem in problems:
            out.say(problem, "bold red")
        well, found = f"{number} keys, and every one of them unwraps.", f"Problems found: {len(problems)}."
        out.say(found if problems else well)
        return not problems

    if not command(out, work):
        raise typer.Exit(1)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The copy that a rotation made.")],
    *,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Put a copy of the key store back into a ledger that has none."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        from datavern.config_file import load
        from datavern.crypto import copies
        from datavern.crypto.keyring import Keyring

        general = load(config).general
        if general.keyring is None:
            raise ConfigurationError("datavern.keyring: a copy opens with the key ring alone: say where it is")
        databases = manager_of(config).databases
        ledger = databases[general.ledger or next(iter(databases))]
        async with Keyring.from_url(general.keyring) as ring, ledger:
            found = await copies.restore(file, ledger, ring)
        keys = found.rows.get("datavern_keys", 0)
        out.document({"epoch": found.epoch, "rows": found.rows, "made": found.created_at})
        out.say(
            f"The key store of {found.created_at[:10]} is in {ledger.name} again: {keys} keys, epoch {found.epoch}."
        )
        out.say("Keys that were made since then are not in it, and what was sealed under them does not open.")

    command(out, work)


@app.command("export-recovery")
def export_recovery(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder, for the file and the shares.")],
    *,
    threshold: Annotated[int, typer.Option(help="How many people it takes to open it.")] = 2,
    shares: Annotated[int, typer.Option(help="How many people get a share.")] = 3,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Seal a copy of the key ring for several people, none of whom can open it alone.

    Give each person a share's file, and keep none. While a recovery is outstanding, no erasure is called shredded whose
    keys it could bring back: `end-recovery` says that one was destroyed.
    """
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        if folder.exists():
            raise ConfigurationError(f"{folder} is there already: a recovery goes into a new folder")
        async with manager_of(config) as db:
            made = await db.keys.export_recovery(threshold=threshold, shares=shares)
        folder.mkdir(mode=0o700, parents=True)
        _write(folder / f"recovery-{made.id}.json", made.file)
        for number, share in enumerate(made.shares, 1):
            _write(folder / f"share-{number}.txt", share + "\n")
        out.document({"id": made.id, "folder": str(folder), "threshold": threshold, "shares": shares})
        out.say(f"The recovery {made.id} is in {folder}: {threshold} of {shares} shares open its file.")
        out.say("Give each person one of the shares, keep the file elsewhere, and remove the folder.")

    command(out, work, actor=actor)


@app.command("import-recovery")
def import_recovery(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recovery's file.")],
    shares: Annotated[list[Path], typer.Argument(metavar="SHARE...", help="Files with shares, as many as it takes.")],
    *,
    keyring: Annotated[
        str | None, typer.Option(help="Where the ring goes; from the configuration when left out.")
    ] = None,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make the key ring again from a recovery, where there is none. Rotate the keys afterwards."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        from datavern.config_file import load
        from datavern.crypto.keyring import Keyring
        from datavern.crypto.recovery import combine

        url = keyring or load(config).general.keyring
        if url is None:
            raise ConfigurationError("say where the key ring goes: --keyring file:keys")
        secrets = combine(require_file(file, "recovery"), [require_file(share, "share") for share in shares])
        ring = await Keyring.restore(url, secrets)
        epoch = ring.epoch
        await ring.close()
        out.document({"keyring": url, "epoch": epoch})
        out.say(f"The key ring is at {url} again, at epoch {epoch}.")
        out.say("People have seen the shares: rotate the keys, and make a new recovery.")

    command(out, work)


@app.command("end-recovery")
def end_recovery(
    recovery: Annotated[str, typer.Argument(metavar="ID", help="The recovery's name, as `status` shows it.")],
    *,
    yes: Yes = False,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write down that a recovery was destroyed: its file, or so many shares that too few are left."""
    out = Output(as_json=json_output, verbose=verbose)
    with told(out):
        out.confirm(f"Was every copy of the file of {recovery} destroyed, or enough of its shares?", yes=yes)

    async def work() -> None:
        async with manager_of(config) as db:
            await db.keys.end_recovery(recovery)
        out.document({"ended": recovery})
        out.say(f"The recovery {recovery} is written down as destroyed.")

    command(out, work, actor=actor)


def _write(path: Path, text: str) -> None:
    """A file for its owner alone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
