"""`datavern subject find`: by which id the application knows a person who says another word for who they are."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from datavern.cli.common import CONFIG, Actor, Config, Json, Output, Verbose, command, mapped_manager, told
from datavern.cli.group import Group
from datavern.contracts.errors import ConfigurationError

app = typer.Typer(cls=Group, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_MOST = 100


@app.command()
def find(
    field: Annotated[
        str, typer.Argument(metavar="DATASET.FIELD", help="By what: a field with a lookup, or one that is not sealed.")
    ],
    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="Its value; asked for without it, so that no shell keeps it.")
    ] = None,
    *,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Find a person's id by a number, an address, …: the other commands take the id.

    Nothing but the ids is shown. Exit code 1 when nobody is found.
    """
    out = Output(as_json=json_output, verbose=verbose)
    with told(out):
        dataset, _, name = field.rpartition(".")
        if not (dataset and name):
            raise ConfigurationError("expected DATASET.FIELD, such as people.personal_number")
        wanted = value if value is not None else _asked(field)

    async def work() -> bool:
        from datavern.contracts.subjects import canonical_subject
        from datavern.privacy.personal.paths import values_at

        async with mapped_manager(config) as db:
            store = db.personal(dataset)
            subject = store.dataset.subject
            if subject is None or store.dataset.subject_via is not None:
                raise ConfigurationError(f"{dataset} names no person itself: find them in the dataset that does")
            found = await store.find({name: wanted}, limit=_MOST)
        ids = list(dict.fromkeys(canonical_subject(one) for row in found for one in values_at(row, subject)))
        withheld = getattr(found, "withheld", 0)
        out.document({"subjects": ids, "withheld": withheld})
        for one in ids:
            out.say(one)
        if withheld:
            out.say(f"{withheld} more: the use of their data is restricted, or rests on a consent that does not stand.")
        if not ids and not withheld:
            out.say("Nobody is found by that.")
        return bool(ids)

    if not command(out, work, actor=actor):
        raise typer.Exit(1)


def _asked(field: str) -> str:
    """The value, from the terminal without an echo, or from the standard input."""
    if sys.stdin is not None and sys.stdin.isatty():
        import getpass

        return getpass.getpass(f"{field}: ").strip()
    text = "" if sys.stdin is None else sys.stdin.readline().strip()
    if not text:
        raise ConfigurationError("say the value: as VALUE, or on the standard input")
    return text
