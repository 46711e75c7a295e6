"""The demo's story, step by step. Nothing in it is staged: each step is a call that any program could make."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from datavern.cli.common import jsonable, write_new
from datavern.cli.demo_server import Place, place_of
from datavern.cli.plaintexts import Plaintexts
from datavern.cli.project import Project, make
from datavern.contracts.values import actor

if TYPE_CHECKING:
    from datavern.cli.common import Output
    from datavern.manager.manager import DatabaseManager
    from datavern.testing.people import Person

__all__ = ["CASE_WORKER", "SEALED", "Step", "Teller", "duration", "tell"]

T = TypeVar("T")
BATCH = 500
CASE_WORKER = "case-worker-7"
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
SEALED = ("personal_number", "name", "email", "phone", "address")

DATASETS = """
# Which personal data lies where, and what becomes of it.
[datasets.people]
database = "main"
subject = "id"
classification = "CONFIDENTIAL"       # may live in Norway alone
purposes = ["customer-account"]       # a write needs a consent to it
erasure = "delete"
about = ["customers"]                 # what a person who asks is told, and the record of processing holds
recipients = ["none"]
source = "person"                     # who gave it: the person
automated_decisions = "none"

[datasets.people.fields]
personal_number = { sealed = true, lookup = true, kind = "fodselsnummer", unique = true }
name = { sealed = true, kind = "name" }
email = { sealed = true, lookup = true, kind = "email" }
phone = { sealed = true, kind = "phone" }
address = { sealed = true, category = "contact", source = "Folkeregisteret" }
birth_date = { sealed = true, category = "identity" }
municipality = { category = "contact" }   # not sealed: plain SQL can count it
"""


@dataclass
class Step:
    """A step as it is told.

    Attributes:
        title: what it does.
        lines: what a person should see of it.
        facts: the same for programs.
        seconds: how long it took.
    """

    title: str
    lines: list[tuple[str, str | None]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    ok: bool = True

    def say(self, text: str, style: str | None = None) -> None:
        """A line below the title."""
        self.lines.append((text, style))


class Teller:
    """Prints each step when it is done, with the time that it took."""

    def __init__(self, out: Output) -> None:
        self.out = out
        self.steps: list[Step] = []

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """A step; what is timed is the block."""
        step = Step(title)
        began = time.perf_counter()
        yield step
        step.seconds = time.perf_counter() - began
        self.steps.append(step)
        self._print(len(self.steps), step)

    def _print(self, number: int, step: Step) -> None:
        from rich.text import Text

        width = min(self.out.console.width, 80)
        took = duration(step.seconds)
        head = Text(f"{number:>2}  {step.title}", style="bold" if step.ok else "bold red")
        head.append(took.rjust(max(width - head.cell_len, len(took) + 2)), style="not bold dim")
        self.out.show(head)
        for line, style in step.lines:
            self.out.say(line, style, indent=4)
        self.out.say()


async def tell(out: Output, folder: Path, engine: str, count: int) -> bool:
    """Tell the whole story. True when everything in it came true.

    Args:
        out: where it is told.
        folder: the project's, which does not exist yet.
        engine: "sqlite" or "postgresql".
        count: how many people.
    """
    teller = Teller(out)
    out.say(f"Datavern: {count:,} people who do not exist, on {NAMES[engine]}", "bold")
    out.say()
    # What holds plaintext by its nature, the CSV file and the person's own copy, lies outside the project's folder.
    scratch = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="datavern-demo-"))
    place = place_of(engine, folder, scratch)
    story = _Story(teller, Project(folder, "Eksempel kommune", engine, {}, DATASETS), place, scratch, count)
    whole = False
    try:
        await story.run()
        whole = True
    finally:
        await place.stop()
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        if not whole:
            out.say(f"The demo did not come to its end; {folder}/ is removed again.", "bold red")
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return story.end()


class _Story:
    def __init__(self, teller: Teller, project: Project, place: Place, scratch: Path, count: int) -> None:
        self.teller, self.project, self.place = teller, project, place
        self.count, self.scratch, self.csv = count, scratch, scratch / "people.csv"
        self.certificate = project.folder / "certificate.json"
        self.checkpoint = project.folder / "checkpoint.txt"
        self.who: Person
        self.other: Person
        self.plaintexts = Plaintexts(())

    async def run(self) -> None:
        """All steps, in order."""
        await self.make()
        await self.write_csv()
        from datavern.manager.manager import DatabaseManager

        async with DatabaseManager.from_config(self.project.config) as db:
            await self.place.hold()
            with actor(CASE_WORKER):
                await self.import_csv(db)
                await self.find(db)
                await self.give_copy(db)
                await self.erase(db)
            await self.seal(db)
        await self.tamper()
        await self.search()

    async def make(self) -> None:
        """A project folder."""
        with self.teller.step("A new project") as step:
            self.project = replace(self.project, database=await self.place.start())
            await make(self.project)
            step.say(f"{self.project.config}  which data lies where, and what becomes of it")
            step.say(f"{self.project.keys}/  the keys, for you alone")
            step.say(self.place.described)

    async def write_csv(self) -> None:
        """The people, as somebody would send them."""
        from datavern.testing.people import people, write_csv

        with self.teller.step(f"{self.count:,} synthetic people in a CSV file") as step:
            await asyncio.to_thread(write_csv, self.csv, self.count)
            everybody = list(people(self.count))
            half = everybody[self.count // 2 :]
            self.who = next((p for p in half if not p.name.isascii()), half[0])  # somebody with an æ, ø or å
            self.other = everybody[self.count // 3]
            self.plaintexts = Plaintexts(str(getattr(p, name)) for p in everybody for name in SEALED)
            who = self.who
            step.say(f"{who.id}, {who.personal_number}, {who.name}, {who.email}, …")
            step.say("The file lies outside the project, and goes when the demo ends.")
            step.facts = {"bytes": self.csv.stat().st_size}

    async def import_csv(self, db: DatabaseManager) -> None:
        """With consent, and sealed."""
        from datavern.testing.people import read_csv

        with self.teller.step("Import, with consent, each person under a key of their own") as step:
            await db.prepare("people")
            store = db.personal("people")
            with self.teller.out.progress("Importing", self.count) as advance:
                for batch in _batches(read_csv(self.csv), BATCH):
                    async with db["main"].transaction() as tx:
                        consents = {
                            p.id: await db.consents.grant(subject=p.id, purpose=p.consent_purpose, transaction=tx)
                            for p in batch
                        }
                        await store.insert_many([_row(p) for p in batch], consent=consents, transaction=tx)
                    advance(len(batch))
            rows = await db["main"].query_value("SELECT count(*) FROM people")
            step.ok = rows == self.count
            step.say(f"{rows:,} rows, {rows:,} consents, and an audit entry for each of them,")
            step.say("a row always in one transaction with its consent and its entries.")
            raw = await db["main"].query_one(f"SELECT id, name, municipality FROM people WHERE id = '{self.who.id}'")  # noqa: S608  (an id that we made)
            step.say("What plain SQL sees of one of them:")
            step.say(f"  id {raw['id']}, municipality {raw['municipality']}, name {bytes(raw['name']).hex()[:28]}…")
            step.facts = {"rows": rows, "sealed_fields": len(SEALED) + 1}

    async def find(self, db: DatabaseManager) -> None:
        """By a number that the database does not know."""
        number = self.who.personal_number
        with self.teller.step("Find one person by number") as step:
            began = time.perf_counter()
            found = await db.personal("people").find(personal_number=number)
            took = time.perf_counter() - began
            step.ok = [row["id"] for row in found] == [self.who.id]
            for row in found:
                step.say(f"{number} is {row['name']} ({row['id']}), found in {took * 1000:.1f} ms,")
                step.say("through a keyed index: nothing was decrypted to search.")
            step.facts = {"found": [row["id"] for row in found], "milliseconds": round(took * 1000, 3)}

    async def give_copy(self, db: DatabaseManager) -> None:
        """GDPR Art. 15."""
        from datavern.privacy.requests.requests import SubjectRequest

        file = self.scratch / f"copy-for-{self.who.id}.json"
        with self.teller.step("The person asks for a copy of their data (GDPR Art. 15)") as step:
            request = SubjectRequest("access", subject=self.who.id)
            response = await db.subject_requests.process(request)
            data = response.data or {}
            write_new(file, json.dumps(jsonable(data), ensure_ascii=False, indent=2))
            rows = data.get("main.people", [])
            step.ok = response.success and len(rows) == 1 and rows[0]["name"] == self.who.name
            for row in rows:
                step.say(f"{row['name']}, born {row['birth_date']}, {row['address']}, {row['municipality']}")
                step.say(f"{row['email']}, {row['phone']}")
            step.say(f"Due by {request.deadline}; answered at once, in a file of the person's own.")
            step.facts = {"stores": {k: len(v) for k, v in data.items()}, "deadline": request.deadline}

    async def erase(self, db: DatabaseManager) -> None:
        """GDPR Art. 17."""
        from datavern.privacy.certificate.certificate import Certificate
        from datavern.privacy.requests.requests import SubjectRequest

        with self.teller.step("The person asks to be erased (GDPR Art. 17)") as step:
            response = await db.subject_requests.process(SubjectRequest("erasure", subject=self.who.id))
            if response.certificate is not None:
                write_new(self.certificate, response.certificate.to_json())
            # As anybody would check it: from the file, with nothing but the public key.
            verifier = (self.project.keys / "verifier.txt").read_text(encoding="utf-8")
            valid = Certificate.from_json(self.certificate.read_text(encoding="utf-8")).verify(verifier)
            store = db.personal("people")
            gone = await store.get(self.who.id) is None and not await store.find(
                personal_number=self.who.personal_number
            )
            rows = await db["main"].query_value("SELECT count(*) FROM people")
            step.ok = response.success and valid and gone and rows == self.count - 1
            step.say(f"{self.who.id} is gone: the row, the consents, and the key. {rows:,} people remain.")
            step.say(f"{self.certificate}  signed; checked with the public key alone")
            step.facts = {"certificate": str(self.certificate), "valid": valid, "rows": rows}

    async def seal(self, db: DatabaseManager) -> None:
        """The log, under a signature."""
        with self.teller.step("Seal the audit log, and verify it") as step:
            checkpoint = await db.audit.seal()
            write_new(self.checkpoint, checkpoint.text)
            report = await db.audit.verify(since=checkpoint)
            step.ok = report.ok and report.rollback_checked
            step.say(f"{report.entries:,} entries under one signature, and each of them as it was written.")
            step.say(f"{self.checkpoint}  to be kept where nobody can change it")
            step.facts = {"entries": report.entries, "verified": report.ok}

    async def tamper(self) -> None:
        """What a database administrator could do, in a copy."""
        from datavern.manager.manager import DatabaseManager

        with self.teller.step("Change one byte of the log, in a copy of the project") as step:
            config = await self.place.copy(self.project.config)
            async with DatabaseManager.from_config(config) as db:
                before, after, entry = await _change_one_byte(db["main"])
                report = await db.audit.verify()
            step.ok = not report.ok and [p.entry_id for p in report.problems] == [entry]
            step.say(f"Plain SQL changed {before} to {after} in one entry.")
            for problem in report.problems[:3]:
                step.say(f"The verifier: {problem}", "green" if step.ok else "red")
                step.say(f"  {problem.entry_id}")
            step.facts = {"entry": entry, "verified": report.ok, "problems": [str(p) for p in report.problems]}

    async def search(self) -> None:
        """The proof that sealed means sealed."""
        with self.teller.step("Search every file of the project for every plaintext") as step:
            await self.place.flush()
            folder = self.project.folder
            size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
            with self.teller.out.progress("Searching", size) as advance:
                hits, files = await asyncio.to_thread(self.plaintexts.in_folder, folder, seen=advance)
                found = {hit.text for hit in await asyncio.to_thread(self.plaintexts.in_file, self.csv)}
            wanted = self.plaintexts.texts
            step.ok = not hits and found == wanted
            step.say(f"{len(wanted):,} texts: every number, name, e-mail, telephone and address.")
            step.say(f"{len(files):,} files, {size / 1e6:.1f} MB: database, write-ahead log, keys, certificate, …")
            step.say(f"Found in the project: {len(hits) or 'none'}.", "green" if step.ok else "bold red")
            for hit in hits[:5]:
                step.say(f"  {hit.file} at byte {hit.offset:,}")
            step.say(f"The same search finds {len(found):,} of {len(wanted):,} in the CSV file.")
            step.facts = {"texts": len(wanted), "files": len(files), "bytes": size, "hits": len(hits),
                          "found_in_csv": len(found)}  # fmt: skip

    def end(self) -> bool:
        """What came of it, and what to try next."""
        out, folder = self.teller.out, self.project.folder
        failed = [step.title for step in self.teller.steps if not step.ok]
        out.document(
            {
                "ok": not failed,
                "folder": str(folder),
                "seconds": round(sum(step.seconds for step in self.teller.steps), 3),
                "steps": [
                    {"title": s.title, "ok": s.ok, "seconds": round(s.seconds, 3), **s.facts} for s in self.teller.steps
                ],
            }
        )
        for title in failed:
            out.say(f"This did not come true: {title}", "bold red")
        if not failed:
            total = sum(step.seconds for step in self.teller.steps)
            out.say(f"All of it came true, in {duration(total)}. Go on with the project in {folder}/:", "bold")
        at = shlex.quote(str(folder))
        serve = [f"datavern demo --serve {at}    # in another terminal: its server was stopped"]
        for line in [
            *_path(),
            *(serve if self.project.engine == "postgresql" else []),
            f"cd {at}",
            "datavern check",
            f"datavern subject access {self.other.id}",
            f"datavern subject erase {self.other.id}",
            "datavern subject verify certificate.json",
            "datavern audit verify --since checkpoint.txt",
        ]:
            out.say(f"    {line}")
        return not failed


def _path() -> list[str]:
    """What makes a shell find `datavern`, where it does not: after `make demo` it is in a virtual environment."""
    if shutil.which("datavern") is not None:
        return []
    binaries = Path(sys.executable).parent
    home = f"$PWD/{binaries.relative_to(Path.cwd())}" if binaries.is_relative_to(Path.cwd()) else str(binaries)
    return [f'export PATH="{home}:$PATH"']


def duration(seconds: float) -> str:
    """A time as a person reads it."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _row(person: Person) -> dict[str, Any]:
    names = ("id", *SEALED, "birth_date", "municipality")
    return {name: getattr(person, name) for name in names}


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


async def _change_one_byte(database: Any) -> tuple[str, str, str]:
    """Change one byte of one entry behind Datavern's back: what it was, what it is, and which entry."""
    rows = await database.query(
        f"SELECT entry_id, actor FROM datavern_audit WHERE actor = '{CASE_WORKER}' ORDER BY seq"  # noqa: S608  (a constant)
    )
    entry = rows[len(rows) // 2]["entry_id"]
    changed = CASE_WORKER[:-1] + "8"
    await database.execute(f"UPDATE datavern_audit SET actor = '{changed}' WHERE entry_id = '{entry}'")  # noqa: S608  (the log's own ids)
    return CASE_WORKER, changed, entry
