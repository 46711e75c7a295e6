"""`datavern demo`: what Datavern is for, done before your eyes on a thousand people who do not exist."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datavern.cli.common import Json, Output, Verbose, command
from datavern.cli.init import Engine
from datavern.contracts.errors import ConfigurationError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def demo(
    *,
    folder: Annotated[
        Path | None, typer.Option(help="The new project's folder.", show_default="demo, or demo-2, … when it is there")
    ] = None,
    people: Annotated[int, typer.Option(min=2, max=100_000, help="How many people.")] = 1000,
    database: Annotated[Engine, typer.Option(help="SQLite, or a PostgreSQL server for the time of the demo.")] = (
        Engine.SQLITE
    ),
    everywhere: Annotated[
        bool, typer.Option("--all", help="PostgreSQL, MongoDB, Redis and SQLite at once: real servers, for the demo.")
    ] = False,
    serve: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Run the PostgreSQL server of an earlier demo again, until Ctrl-C."),
    ] = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Show what Datavern does: seal, find, answer, erase, prove. Leaves a project folder to go on with."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        if serve is not None:
            from datavern.cli.demo_server import serve_again

            await serve_again(serve, out)
            return True
        if everywhere and database is not Engine.SQLITE:
            raise ConfigurationError("--all runs every store, PostgreSQL among them: leave --database out")
        place = folder or _free()
        if place.exists():
            raise ConfigurationError(f"{place} is there already, and is not overwritten: choose another --folder")
        if place.name != "demo" and folder is None:
            out.say(f"demo/ is there already, and stays as it is: this is {place}/.")
            out.say()
        if everywhere:
            from datavern.cli import story_everywhere

            return await story_everywhere.tell(out, place, people)
        from datavern.cli.story import tell

        return await tell(out, place, database.value, people)

    if not command(out, work):
        raise typer.Exit(1)


def _free() -> Path:
    """The first of demo, demo-2, demo-3, … that is not there: an earlier demo stays as it is."""
    number = 1
    while (place := Path("demo" if number == 1 else f"demo-{number}")).exists():
        number += 1
    return place
