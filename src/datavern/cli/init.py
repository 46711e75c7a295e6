"""`datavern init`: a project to begin with."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from datavern.cli.common import Json, Output, Verbose, command
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Location

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Engine(StrEnum):
    """The engines that a project can begin with."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where; made when it is not there.")] = Path(),
    *,
    database: Annotated[Engine, typer.Option(help="A new SQLite file, or a PostgreSQL server that is there.")] = (
        Engine.SQLITE
    ),
    url: Annotated[str | None, typer.Option(help="postgresql://user@host:port/database")] = None,
    location: Annotated[
        Location | None, typer.Option(help="Where that server is.", show_default="norway for SQLite")
    ] = None,
    region: Annotated[str | None, typer.Option(help="Its cloud region instead, such as azure:norwayeast.")] = None,
    organisation: Annotated[str, typer.Option(help="Who is responsible for the data.")] = "",
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make a project: datavern.toml, keys and a database. Nothing is ever overwritten."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        from datavern.cli.project import PASSWORD, Project, make, postgresql

        password = None
        if database is Engine.SQLITE:
            if url or region:
                raise ConfigurationError("--url and --region belong to --database postgresql")
            settings = {"path": "main.db", "location": (location or Location.NORWAY).value}
        else:
            if not url:
                raise ConfigurationError("--database postgresql needs --url postgresql://user@host:port/database")
            if (location is None) == (region is None):
                raise ConfigurationError("say where the server is: --location norway, or --region azure:norwayeast")
            place = {"location": location.value} if location else {"region": str(region)}
            settings, password = postgresql(url, **place)
        project = Project(folder, organisation, database.value, settings, password=password)
        await make(project)
        out.document(
            {"config": str(project.config), "keys": str(project.keys), "engine": database.value, "folder": str(folder)}
        )
        out.say(f"Made {project.config}")
        out.say(f"     {project.keys}/ (the keys: for you alone; make a copy, and keep it apart from the data)")
        out.say(f"     {folder / 'main.db'}" if database is Engine.SQLITE else "     Datavern's tables in the database")
        if password is not None:
            out.say(f"The password is not written down: set {PASSWORD} before each command.")
        at = "" if folder == Path() else f" --config {shlex.quote(str(project.config))}"
        out.say(f"Next: say in {project.config} which personal data you keep, and then run")
        out.say(f"    datavern prepare{at}")
        out.say(f"    datavern check{at}")

    command(out, work)
