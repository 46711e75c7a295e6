"""`datavern seal`: seal a plain column in place, while it is used."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datavern.cli.common import CONFIG, Actor, Config, Json, Output, Verbose, Yes, command, manager_of

if TYPE_CHECKING:
    from datavern.privacy.datamap.dataset import Dataset

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Rewrite(Enum):
    """What is done with the table's file at the end."""

    full = "full"
    plain = "plain"
    none = "none"


Column = Annotated[str, typer.Argument(metavar="DATASET.FIELD", help="The column, as the data map names it.")]
Batch = Annotated[int, typer.Option("--batch", min=1, max=10_000, help="Rows in a transaction.")]
How = Annotated[
    Rewrite,
    typer.Option(
        "--rewrite",
        help="The table's file afterwards: made anew (a PostgreSQL table cannot be used meanwhile), its space given "
        "back for reuse, or as it is. What it held of plain values may stay in it until it was made anew.",
    ),
]
AFTERWARDS = (
    "The write-ahead log, replicas' logs and backups from before hold the plain values until they expire: "
    "see docs/seal-in-place.md."
)


@app.command()
def seal(
    column: Column,
    *,
    batch: Batch = 500,
    rewrite: How = Rewrite.full,
    yes: Yes = False,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Seal a plain column in place. What was cut off goes on when the command is run again.

    Writers go on through db.personal; plain statements that write the column are refused from now on.
    """
    out = Output(as_json=json_output, verbose=verbose)
    with_question(
        out, config, column, f"Seal {column}? Plain SQL reads bytes there from now on, and cannot write it.", yes=yes
    )
    done = command(out, lambda: moved(out, column, "seal", config, batch_size=batch, rewrite=how(rewrite)), actor=actor)
    out.say(f"{column}: {done.rows} values sealed, {done.verified} opened again.")
    if done.unindexed:
        out.say(f"{done.unindexed} of them are not of the field's kind, and no lookup finds them.", "bold yellow")
    if not done.dropped:
        out.say(
            f"The column {column.partition('.')[2]}_unsealed is empty, and stays: something in the schema holds it."
        )
    out.say(AFTERWARDS)


def with_question(out: Output, config: Path, column: str, question: str, *, yes: bool) -> None:
    """Ask, unless told not to. What is wrong with the column's name is told before anybody is asked."""
    from datavern.cli.common import mapped_manager, told
    from datavern.privacy.sealing.in_place import field_named

    def dataset_of(name: str) -> Dataset:
        data_map = mapped_manager(config, "so no field of it can be sealed").data_map
        assert data_map is not None  # noqa: S101  (for the type checker: `mapped_manager` looks)
        return data_map[name]

    with told(out):
        field_named(column, dataset_of, form="DATASET.FIELD")
        out.confirm(question, yes=yes)


def how(rewrite: Rewrite) -> str | None:
    """As `InPlace` takes it."""
    return None if rewrite is Rewrite.none else rewrite.value


async def moved(out: Output, column: str, what: str, config: Any, **options: Any) -> Any:
    """Do it, with a bar for the rows."""
    from contextlib import ExitStack
    from dataclasses import asdict

    async with manager_of(config) as db:
        with ExitStack() as shown:
            advance: list[Any] = []

            def step(name: str, number: int) -> None:
                if name == "begun":
                    advance.append(shown.enter_context(out.progress(f"{column}: rows", number)))
                elif name == "batch" and advance:
                    advance[0](number)

            done = await getattr(db, what)(column, step=step, **options)
    out.document(asdict(done))
    return done
