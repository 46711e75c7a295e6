"""`datavern breach`: the register of personal data breaches, its clocks, and whom a breach touched."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any

import typer

from datavern.cli.breach_words import (
    at_least,
    clock_line,
    given_of,
    lines_of,
    moment_of,
    scope_of,
    show_breach,
    text_of,
)
from datavern.cli.breach_words import (
    plain as plain_of,
)
from datavern.cli.common import (
    CONFIG,
    Actor,
    Config,
    Json,
    NewFile,
    Output,
    Verbose,
    command,
    manager_of,
    require_new,
    write_new,
)
from datavern.cli.group import Group
from datavern.contracts.errors import ConfigurationError, DecryptionFailed

app = typer.Typer(
    cls=Group,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Keep the register of personal data breaches (GDPR Arts. 33 and 34).",
)

Id = Annotated[str, typer.Argument(metavar="BREACH", help="The breach; `datavern breach list` shows it.")]
_MOMENT = "a moment, such as 2026-11-28T14:05 (Norway's time), or with its offset"
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="KIND", help="confidentiality, integrity or availability; repeatable."),
]
Description = Annotated[
    str | None, typer.Option("--description", "-d", help="What happened; @FILE reads it from a file.")
]
Happened = Annotated[str | None, typer.Option("--happened", metavar="WHEN", help=f"When it happened: {_MOMENT}.")]
Ended = Annotated[str | None, typer.Option("--ended", metavar="WHEN", help="When it ended.")]
Aware = Annotated[str | None, typer.Option("--aware", metavar="WHEN", help="When you became aware; now when left out.")]
Datasets = Annotated[
    list[str] | None, typer.Option("--dataset", metavar="NAME", help="A dataset of the data map; repeatable.")
]
Databases = Annotated[list[str] | None, typer.Option("--database", metavar="NAME", help="A database; repeatable.")]
Seen = Annotated[
    bool | None, typer.Option("--plain/--stored", help="Seen as the application shows it, or as it lies in the store.")
]
KeysToo = Annotated[bool | None, typer.Option("--keys-exposed/--keys-safe", help="Whether the keys were exposed too.")]
Consequences = Annotated[str | None, typer.Option("--consequences", help="The likely ones; @FILE.")]
Measures = Annotated[str | None, typer.Option("--measures", help="Taken or proposed; @FILE.")]
Contact = Annotated[str | None, typer.Option("--contact", help="The data protection officer, or another contact.")]
Where = Annotated[
    list[str] | None, typer.Option("--where", metavar="DATASET.COLUMN=VALUE", help="Count such rows alone; repeatable.")
]
Window = Annotated[
    list[str] | None,
    typer.Option("--when", metavar="DATASET.COLUMN", help="The column that --since and --until are of."),
]
Since = Annotated[str | None, typer.Option("--since", metavar="WHEN", help="Count from this moment on.")]
Until = Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Count up to this moment.")]
Subjects = Annotated[
    Path | None, typer.Option("--subjects", help="Count these people alone: a file, an id on each line.")
]
ReadBy = Annotated[
    str | None,
    typer.Option("--read-by", metavar="ACTOR", help="Count people whose data that actor read; * is anybody."),
]


@app.command("open")
def open_(
    *,
    kind: Kinds = None,
    description: Description = None,
    happened: Happened = None,
    ended: Ended = None,
    aware: Aware = None,
    dataset: Datasets = None,
    database: Databases = None,
    plain: Seen = None,
    keys_exposed: KeysToo = None,
    consequences: Consequences = None,
    measures: Measures = None,
    contact: Contact = None,
    count: Annotated[bool, typer.Option(help="Count the people now.")] = True,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Enter a breach. The clocks run from the moment that you became aware."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        given = given_of(
            kinds=kind, description=text_of(description),
            happened_at=moment_of(happened), happened_until=moment_of(ended), aware_at=moment_of(aware),
            datasets=dataset, databases=database, keys_exposed=keys_exposed,
            exposure=None if plain is None else "plain" if plain else "stored", consequences=text_of(consequences),
            measures=text_of(measures), contact=contact,
        )  # fmt: skip
        for name in ("kinds", "description"):
            if name not in given:
                raise ConfigurationError(f"--{name.removesuffix('s')} is missing: what happened?")
        async with manager_of(config) as db:
            breach = await db.breaches.open(**given)
            affected = await db.breaches.count(breach.id) if count else None
            breach = await db.breaches.get(breach.id)
            told = await db.breaches.assess(breach.id)
        out.document({**plain_of(breach), "recommendation": told})
        out.say(f"{breach.id} is entered.", "green")
        show_breach(out, breach, affected, told)

    command(out, work, actor=actor)


@app.command()
def update(
    breach: Id,
    *,
    note: Annotated[str | None, typer.Option("--note", help="What has become known, or was done; @FILE.")] = None,
    kind: Kinds = None,
    description: Description = None,
    happened: Happened = None,
    ended: Ended = None,
    aware: Aware = None,
    dataset: Datasets = None,
    database: Databases = None,
    plain: Seen = None,
    keys_exposed: KeysToo = None,
    consequences: Consequences = None,
    measures: Measures = None,
    contact: Contact = None,
    delay_reason: Annotated[str | None, typer.Option("--delay-reason", help="Why it is later than 72 hours.")] = None,
    decision: Annotated[str | None, typer.Option("--decision", help="What was decided, and why; @FILE.")] = None,
    sent: Annotated[
        str | None,
        typer.Option("--sent", metavar="WHEN", help="Datatilsynet was notified then (or now): a phase more."),
    ] = None,
    people_told: Annotated[
        str | None, typer.Option("--people-told", metavar="WHEN", help="The people were told then (or now).")
    ] = None,
    incident_reported: Annotated[
        str | None, typer.Option("--incident-reported", metavar="WHEN", help="The incident was reported then (or now).")
    ] = None,
    reopen: Annotated[bool, typer.Option("--reopen", help="Open a closed breach again.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Count the people anew.")] = False,
    where: Where = None,
    when: Window = None,
    since: Since = None,
    until: Until = None,
    subjects: Subjects = None,
    read_by: ReadBy = None,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Add an entry: what has become known, was done or decided. What was said before stays."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        given = given_of(
            note=text_of(note), kinds=kind, description=text_of(description), happened_at=moment_of(happened),
            happened_until=moment_of(ended), aware_at=moment_of(aware), datasets=dataset, databases=database,
            exposure=None if plain is None else "plain" if plain else "stored", keys_exposed=keys_exposed,
            consequences=text_of(consequences), measures=text_of(measures), contact=contact,
            delay_reason=text_of(delay_reason), decision=text_of(decision), people_notified_at=moment_of(people_told),
            incident_notified_at=moment_of(incident_reported),
        )  # fmt: skip
        scope = scope_of(where=where, when=when, since=since, until=until, subjects=subjects, read_by=read_by)
        async with manager_of(config) as db:
            if reopen:
                await db.breaches.reopen(breach, note=given.pop("note", ""))
            if sent is not None:
                found = await db.breaches.get(breach)
                given["sent"] = (*found.sent, moment_of(sent))
            if given or not (reopen or count or scope):
                await db.breaches.update(breach, **given)
            affected = await db.breaches.count(breach, **scope) if count or scope else None
            changed = await db.breaches.get(breach)
            told = await db.breaches.assess(breach)
        out.document({**plain_of(changed), "recommendation": told})
        out.say(f"{breach}: entry {changed.version} is written.", "green")
        show_breach(out, changed, affected, told)

    command(out, work, actor=actor)


@app.command()
def report(
    breach: Id,
    *,
    output: NewFile = None,
    sent: Annotated[bool, typer.Option("--sent", help="It is sent now: a phase more in the register.")] = False,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Print what Datatilsynet is to be told: GDPR Article 33(3), as Markdown, or as JSON."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        from datavern.contracts.values import now

        require_new(output)
        async with manager_of(config) as db:
            made = await db.breaches.report(breach)
            if sent:
                found = await db.breaches.get(breach)
                await db.breaches.update(
                    breach, sent=(*found.sent, now()), note=f"phase {len(found.sent) + 1} was sent"
                )
        if output is not None:
            write_new(output, made.to_json() if json_output else made.to_markdown())
            out.say(f"The report is in {output}.")
        out.document(dict(made.data))
        if output is None and not json_output:
            out.page(made.to_markdown())  # what is not known yet stands in it, at its end
            return
        for one in made.missing:
            out.say(f"Not known yet: {one}.", "yellow")

    command(out, work, actor=actor)


@app.command("list")
def list_(
    *,
    all_: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    config: Config = CONFIG,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the breaches, and what is left of the clocks. Exit code 1 when one ran out."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        async with manager_of(config) as db:
            wrong = list(await db.breaches.verify(whole=False))
            try:
                found = await db.breaches.list(open_only=not all_)
            except DecryptionFailed:
                if not wrong:
                    raise
                found = []  # what was changed is told of below
        overdue = [one for one in found if one.overdue()]
        out.document(
            {"breaches": [plain_of(one) for one in found], "overdue": [o.id for o in overdue], "problems": wrong}
        )
        for line in wrong:
            out.say(f"The register was changed: {line}.", "bold red")
        if not found and not wrong:
            out.say("No breach is entered." if all_ else "No breach is open.")
            return True
        from datavern.privacy.breach.breach import in_norway

        rows = []
        for one in found:
            clocks = "; ".join(clock_line(clock, closed=one.closed_at is not None) for clock in one.clocks)
            people = "?" if one.affected is None else f"{at_least(one.affected)}{one.affected['people']:,}"
            state = "closed" if one.closed_at else "open"
            rows.append([one.id, ", ".join(one.kinds), in_norway(one.aware_at), people, state, clocks])
        out.table(["breach", "violated", "aware since", "people", "", "clocks"], rows, whole={"breach"})
        if overdue:
            verb = "is" if len(overdue) == 1 else "are"
            out.say(f"{len(overdue)} of {len(found)} {verb} overdue.", "bold red")
        return not overdue and not wrong

    if not command(out, work):
        raise typer.Exit(1)


@app.command()
def verify(*, config: Config = CONFIG, json_output: Json = False, verbose: Verbose = False) -> None:
    """Compare the whole register with the audit log. Exit code 1 when an entry was changed or removed."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        async with manager_of(config) as db:
            wrong = await db.breaches.verify()
        out.document({"ok": not wrong, "problems": list(wrong)})
        for line in wrong:
            out.say(f"The register was changed: {line}.", "bold red")
        if not wrong:
            out.say("Every entry is as it was written, as far as the audit log goes: `datavern audit verify`.", "green")
        return not wrong

    if not command(out, work):
        raise typer.Exit(1)


@app.command()
def show(breach: Id, *, config: Config = CONFIG, json_output: Json = False, verbose: Verbose = False) -> None:
    """Show a breach with all its entries."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        from datavern.privacy.breach.breach import in_norway

        async with manager_of(config) as db:
            history = await db.breaches.history(breach)
            told = await db.breaches.assess(breach)
        last = history[-1]
        out.document({**plain_of(last), "recommendation": told, "history": [plain_of(one) for one in history]})
        rows: list[list[Any]] = [
            ["violated", ", ".join(last.kinds)],
            ["happened", last.happened_at and in_norway(last.happened_at)],
            ["aware since", in_norway(last.aware_at)],
            ["what", last.description],
            ["datasets", ", ".join(last.datasets)],
            ["databases", ", ".join(last.databases)],
            ["exposed", f"{last.exposure}{', and the keys' if last.keys_exposed else ''}"],
            ["consequences", last.consequences],
            ["measures", last.measures],
            ["contact", last.contact],
            ["decided", last.decision],
        ]
        state = "closed" if last.closed_at else "open"
        out.table(["", ""], [row for row in rows if row[1]], title=f"{last.id}, {state}")
        entries = [
            [one.version, in_norway(dt.datetime.fromisoformat(one.changed_at)), one.changed_by, one.note or None]
            for one in history
        ]
        out.table(["entry", "when", "who", "note"], entries)
        show_breach(out, last, None, told)

    command(out, work)


@app.command()
def people(
    breach: Id,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new file, for you alone: an id on each line.")],
    subjects: Subjects = None,
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write the ids of the people it touched to a file, for those who tell them: GDPR Article 34. It is audited."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> bool:
        async with manager_of(config) as db:
            who = None if subjects is None else lines_of(subjects)
            listed, tagged, problems = await db.breaches.people(breach, output, subjects=who)
        out.document({"output": str(output), "people": listed, "by_tag_alone": tagged, "problems": problems})
        out.say(f"{listed:,} ids are in {output}, for you alone.")
        if tagged:
            out.say(f"{tagged:,} more are known by a keyed tag alone: their ids stand in no dataset that was touched.")
        for line in problems:
            out.say(f"Not read: {line}", "bold red")
        return not problems

    if not command(out, work, actor=actor):
        raise typer.Exit(1)


@app.command()
def close(
    breach: Id,
    *,
    decision: Annotated[str, typer.Option("--decision", help="What was decided, and why; @FILE.")] = "",
    config: Config = CONFIG,
    actor: Actor = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Close a breach. It stays in the register."""
    out = Output(as_json=json_output, verbose=verbose)

    async def work() -> None:
        async with manager_of(config) as db:
            closed = await db.breaches.close(breach, decision=text_of(decision) or "")
        out.document(plain_of(closed))
        out.say(f"{breach} is closed. It stays in the register.", "green")

    command(out, work, actor=actor)
