"""`datavern unseal`: a sealed column in the clear again."""

from __future__ import annotations

from typing import Annotated

import typer

from datavern.cli.common import CONFIG, Actor, Config, Json, Output, Verbose, Yes, command
from datavern.cli.seal import Batch, Column, How, Rewrite, how, moved, with_question

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def unseal(
    column: Column,
    *,
    kind: Annotated[str, typer.Option("--type", help="The plain column's type: text, integer, date, …")] = "text",
    batch: Batch = 500,
    rewrite: How = Rewrite.full,
    yes: Yes = False,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Open a sealed column in place: its values stand in the clear afterwards.

    Then set sealed = false in the data map.
    """
    out = Output(as_json=json_output, verbose=verbose)
    with_question(out, config, column, f"Write the personal data in {column} in the clear?", yes=yes)
    done = command(
        out,
        lambda: moved(out, column, "unseal", config, kind=kind, batch_size=batch, rewrite=how(rewrite)),
        actor=actor,
    )
    out.say(f"{column}: {done.rows} values opened. Now set sealed = false in the data map.")
    if done.gone:
        out.say(f"{done.gone} of them had lost their key with an erasure, and are empty.", "bold yellow")
