"""`datavern keys`: how the keys stand, and their rotation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from datavern.cli.common import CONFIG, Actor, Config, Json, Output, Verbose, command

app = typer.Typer(
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

        from datavern.manager import DatabaseManager

        async with DatabaseManager.from_config(config) as db:
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

        from datavern.manager import DatabaseManager

        async with DatabaseManager.from_config(config) as db:
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
    """Unwrap every key of the key store. Exit code 1 when one does not."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        from datavern.manager import DatabaseManager

        async with DatabaseManager.from_config(config) as db:
            number = sum((await db.keys.status()).keys.values())
            with out.progress("Keys", number) as advance:
                problems = await db.keys.verify(progress=advance)
        out.document({"ok": not problems, "keys": number, "problems": problems})
        for problem in problems:
            out.say(problem, "bold red")
        out.say(f"{number} keys, and every one of them unwraps." if not problems else f"{len(problems)} do not unwrap.")
        return not problems

    if not command(out, work):
        raise typer.Exit(1)
