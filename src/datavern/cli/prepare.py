"""`datavern prepare`: make the tables fit the data map."""

from __future__ import annotations

from typing import Annotated

import typer

from datavern.cli.common import CONFIG, Config, Json, Output, Verbose, command, manager_of
from datavern.contracts.errors import ConfigurationError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def prepare(
    datasets: Annotated[
        list[str] | None, typer.Argument(metavar="DATASET", help="Which ones; all of the data map when none.")
    ] = None,
    *,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make the tables fit the data map. What is missing is made; nothing is dropped or retyped."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        async with manager_of(config) as db:
            names = datasets or [d.name for d in db.data_map or ()]
            if not names:
                raise ConfigurationError(f"{config}: the data map names no dataset yet")
            if db.data_map is not None:
                for name in names:
                    db.data_map[name]  # an unknown name is refused before anything is made
            made = {name: str(await db.prepare(name)) for name in names}
        out.document(made)
        for name, statements in made.items():
            out.say(f"{name}: {'nothing to do' if not statements else ''}".rstrip(), "bold")
            if statements:
                out.say(statements)

    command(out, work)
