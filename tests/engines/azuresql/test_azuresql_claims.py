"""What docs/security.md claims, on the way to Azure SQL: every byte that leaves the process is searched for plaintext.

A server of the vendor's shows its disks to nobody, and the stand-in keeps nothing. What was never sent is on no disk of
theirs, in no log and no dump: so the packets of sealed writes, finds, bulk loads and audited changes are recorded on
their way into the TLS layer. The server behind speaks `pysqlbridge`'s TDS and answers from a SQLite database, which
understands enough T-SQL for what Datavern says there.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import threading
from typing import Any

import pytest
import sqlglot

from datavern import DatabaseManager, DataMap, Dataset, Field, Keyring, SQLiteProvider, SubjectRequest
from datavern.cli.plaintexts import Plaintexts
from datavern.config import TLS
from datavern.contracts.errors import DatavernError, DecryptionFailed
from datavern.engines.azuresql import ledger, loading, subjects, tds_tls
from datavern.engines.azuresql.provider import AzureSQLProvider
from datavern.testing.proxy import Certificates

NAME, NUMBER, MAIL, NOTE = "Planted Åse Østby", "10915596784", "planted.person@example.no", "hemmelig diagnose F32"
CONTROL = "Control Kåre Ærlig"
PERSON = {"personal_number": NUMBER, "name": NAME, "email": MAIL, "note": NOTE, "town": CONTROL}
PEOPLE = Dataset(
    "people",
    database="cloud",
    subject="owner",
    erasure="anonymize",
    legal_basis="helsepersonelloven § 39",
    audit_reads=True,
    fields={
        "personal_number": Field(sealed=True, lookup=True, unique=True, kind="fodselsnummer"),
        "name": Field(sealed=True, kind="name", prefixes=[3], ngrams=3),
        "email": Field(sealed=True, lookup=True, kind="email"),
        "note": Field(sealed=True),
        "town": Field(),
    },
)
BULK = 0x07
_NOTHING = re.compile(
    r"\s*(insert bulk|use|set transaction|begin tran|commit|rollback|save tran|if @@trancount|set xact)", re.IGNORECASE
)
_COLLATION = re.compile(r" COLLATE Latin1_General_100_BIN2", re.IGNORECASE)
_TYPES = {"nvarchar": "text", "varbinary": "blob", "bigint": "bigint", "rowversion": "blob"}
_DECLARED = re.compile(r"\[?(\w+)\]? (nvarchar|varbinary|bigint|int|rowversion)\b(\(\w+\))?", re.IGNORECASE)


class Keeper:
    """Answers T-SQL from a SQLite database: one at a time, and without undoing anything, as the stand-in does."""

    def __init__(self) -> None:
        self._kept = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._kept.create_function("CONCAT", -1, lambda *texts: "".join(map(str, texts)), deterministic=True)
        self._lock = threading.Lock()
        self._columns: dict[str, list[tuple[str, str, str]]] = {}

    def __call__(self, query: Any) -> Any:
        with self._lock:
            try:
                return self._answer(query.sql, {name.lstrip("@"): value for name, value in query.parameters.items()})
            except sqlite3.IntegrityError as error:
                from pysqlbridge.tds.result import QueryError

                raise QueryError(str(error), number=2627) from None

    def _answer(self, sql: str, values: dict[str, Any]) -> Any:  # noqa: PLR0911  (a statement a branch)
        if sql == "SELECT @@TRANCOUNT":
            return _Answer(["open"], [[1]], 1)
        if _NOTHING.match(sql):
            return _Answer([], [], 0)
        if "sp_getapplock" in sql:
            return _Answer(["taken"], [[0]], 1) if sql == ledger.LOCK else _Answer([], [], 0)
        if sql == ledger._NAMES:
            return self._run("SELECT name FROM sqlite_master", {})
        if sql == ledger._IDENTITY:
            return _Answer(["identity"], [["here/2026/1"]], 1)
        if sql == subjects._TABLE:
            number = "SELECT rowid AS object_id FROM sqlite_master WHERE '[' || name || ']' = @P1"
            return self._run(number, values)
        if sql == subjects._REFERENCES:
            return _Answer([], [], 0)
        if sql in {subjects._COLUMNS, subjects._INDEXES, loading.COLUMNS}:
            return self._described(sql, values["P1"])
        text = _COLLATION.sub("", sql)
        if text.startswith("CREATE TABLE"):
            name = text.split()[2].strip("[]")
            self._columns[name] = [(c, kind.lower(), bound or "") for c, kind, bound in _DECLARED.findall(text)]
            text = _DECLARED.sub(lambda m: f"[{m[1]}] {_TYPES.get(m[2].lower(), m[2])}", text)
            text = text.replace("bigint NOT NULL IDENTITY", "integer NOT NULL").replace(
                "[stamp] blob NOT NULL", "stamp"
            )
        elif not text.startswith("CREATE"):
            text = sqlglot.transpile(text.replace("N'", "'"), read="tsql", write="sqlite")[0]
        return self._run(text, values)

    def _run(self, text: str, values: dict[str, Any]) -> Any:
        try:
            done = self._kept.execute(text, values)
        except sqlite3.OperationalError as error:
            raise AssertionError(f"{error}: {text}") from None
        rows = [list(row) for row in done.fetchall()]
        names = [column[0] for column in done.description or ()]
        return _Answer(names, rows, len(rows) if names else max(done.rowcount, 0))

    def _described(self, sql: str, table: Any) -> Any:
        number = table if isinstance(table, int) else None
        find = "SELECT name FROM sqlite_master WHERE rowid = ? OR '[' || name || ']' = ?"
        (name,) = self._kept.execute(find, (number, table)).fetchone() or ("",)
        places = {row[1]: row[5] for row in self._kept.execute(f"PRAGMA table_info([{name}])")}
        if sql == subjects._INDEXES:
            found = []
            for at, (_, index, unique, _, partial) in enumerate(self._kept.execute(f"PRAGMA index_list([{name}])"), 1):
                for _, _, column in self._kept.execute(f"PRAGMA index_info([{index}])"):
                    found.append([at, unique, partial, f"([{column}] IS NOT NULL)" if partial else None, column])
            return _Answer(["number", "is_unique", "filtered", "filter", "name"], found, len(found))
        rows = []
        for column, kind, bound in self._columns.get(name, ()):
            length = -1 if bound in ("", "(max)") else int(bound[1:-1]) * (2 if kind == "nvarchar" else 1)
            if sql == loading.COLUMNS:
                rows.append([column, kind, length, 0, 0, 1, 0, 0])
            else:
                collation = "Latin1_General_100_BIN2" if kind == "nvarchar" else None
                rows.append([column, kind, length, int(not places[column]), 0, 0, 0, collation, places[column]])
        names = ["name", "type", "length", "nullable", "counted", "computed", "default_id", "collation", "place"]
        if sql == loading.COLUMNS:
            names = ["name", "type", "length", "precision", "scale", "nullable", "counted", "computed"]
        return _Answer(names, rows, len(rows))


class _Answer:
    def __init__(self, names: list[str], rows: list[list[Any]], count: int) -> None:
        self.names, self.rows, self.count = names, rows, count

    def encode(self, tds_version: int, server: str = "") -> bytes:
        from pysqlbridge.tds import result, token

        if not self.names:
            return token.done(
                status=token.DoneStatus.FINAL | token.DoneStatus.COUNT, row_count=self.count, tds_version=tds_version
            )
        kinds = {bytes: result.VarBinary(), int: result.Integer(8)}
        columns = []
        for at, name in enumerate(self.names):
            value = next((row[at] for row in self.rows if row[at] is not None), "")
            columns.append(result.Column(name, kinds.get(type(value), result.NVarChar(None))))
        return result.QueryResult(columns=columns, rows=self.rows).encode(tds_version, server=server)


@pytest.fixture
def cloud(tmp_path):
    """A provider of such a server."""
    from pysqlbridge.certificate import load as load_certificate
    from pysqlbridge.logins import hash_password
    from pysqlbridge.logins import load as load_logins
    from pysqlbridge.server import BridgeServer

    made = Certificates.make(tmp_path / "certificates", ("localhost",))
    login = {"user": "app", "password_hash": str(hash_password("app", iterations=1000))}
    (tmp_path / "server.json").write_text(json.dumps({"tables": [], "logins": [login]}), encoding="utf-8")
    certificate, logins = load_certificate(made.cert_file, made.key_file), load_logins(str(tmp_path / "server.json"))
    server = BridgeServer("127.0.0.1", 0, certificate, Keeper(), logins=logins)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    settings = {
        "host": "localhost", "port": server.address[1], "database": "app", "username": "app", "password": "app",
        "driver": "python-tds", "tls": TLS(ca_file=made.ca_file), "location": "norway",
    }  # fmt: skip
    yield AzureSQLProvider.from_settings("cloud", settings)
    server.shutdown()
    server.server_close()


@pytest.fixture
def sent(monkeypatch):
    """Every packet that goes to a server, before it is encrypted."""
    packets, send = bytearray(), tds_tls.TDSSocket.sendall

    def recorded(self, data, flags=0):
        packets.extend(data)
        send(self, data, flags)

    monkeypatch.setattr(tds_tls.TDSSocket, "sendall", recorded)
    return packets


def kinds(packets):
    """Of each packet: its first byte; its length is the third and fourth (MS-TDS 2.2.3.1)."""
    found, at = set(), 0
    while at < len(packets):
        found.add(packets[at])
        at += int.from_bytes(packets[at + 2 : at + 4], "big")
    return found


async def test_nothing_sealed_leaves_the_process_in_the_clear(cloud, sent, tmp_path, logged):
    url = f"file:{tmp_path / 'ring'}"
    await (await Keyring.create(url)).close()
    ledger_ = SQLiteProvider(tmp_path / "ledger.db", name="main", location="norway")
    databases = {"cloud": cloud, "main": ledger_}
    async with DatabaseManager(databases, data_map=DataMap([PEOPLE]), keyring=url, ledger="main") as db:
        await db.prepare("people")
        people = db.personal("people")
        marks = []

        def mark(what):
            marks.append((what, bytes(sent)))
            sent.clear()

        mark("opening")
        await people.insert({"id": "a", "owner": "u1", **PERSON})
        mark("insert")
        await people.insert_many([{"id": f"b{n}", "owner": f"u{n}", "name": NAME, "town": CONTROL} for n in range(5)])
        mark("insert_many")
        await people.update("a", {"email": MAIL.upper(), "note": NOTE + "!", "town": CONTROL + "!"})
        mark("update")
        assert [row["id"] for row in await people.find(email=MAIL)] == ["a"]
        assert [row["name"] for row in await people.find(personal_number=NUMBER)] == [NAME]
        assert len(await people.starts_with(name=NAME[:9])) == 6
        assert len(await people.contains(name=NAME[-5:])) == 6
        mark("find")
        assert (await people.get("a"))["note"] == NOTE + "!"
        raw = await cloud.query("SELECT * FROM people WHERE owner = @P1", ["u1"])
        assert len(await people.open(raw)) == 2
        mark("read")
        for wrong in ({"name": NAME + "\ud800"}, {"name": {NAME: {NOTE}}}, {"nowhere": NAME}, {**PERSON, "id": "a"}):
            with pytest.raises(DatavernError):
                await people.insert({"id": "x", "owner": "u9", **wrong})
        await cloud.execute("UPDATE people SET note = name WHERE id = @P1", ["b3"])
        with pytest.raises(DecryptionFailed):
            await people.get("b3")
        mark("mistakes")
        entry = await db.audit.entry("case_closed", subject="u1", details={"fields": ["note"]})
        sealed = [row["name"] for row in raw]
        await cloud.execute(
            "UPDATE people SET town = @P1 WHERE id = @P2", [CONTROL, "a"], audit=entry, idempotency_key="once"
        )
        mark("an audited change")
        with contextlib.suppress(DatavernError):  # the stand-in takes no bulk load: it has been sent by then
            names = ["id", "owner", "name", "town"]
            await cloud.bulk_insert("people", names, [("c", "u1", sealed[0], CONTROL), ("d", "u1", sealed[1], CONTROL)])
        mark("a bulk load")
        for request in (
            SubjectRequest("access", subject="u1"),
            SubjectRequest("rectification", subject="u4", changes={"people": {"name": NAME}}),
            SubjectRequest("erasure", subject="u2"),
        ):
            assert (await db.subject_requests.process(request)).success
        mark("requests")
    secrets, controls = Plaintexts([NAME, NUMBER, MAIL, NOTE]), Plaintexts([CONTROL])
    for what, packets in marks:
        assert secrets.in_bytes(packets) == [], what
        if what in {"insert", "insert_many", "update", "an audited change", "a bulk load"}:
            assert controls.in_bytes(packets), f"{what}: the search does not see what was sent"
    assert BULK in kinds(dict(marks)["a bulk load"])
    assert secrets.in_bytes(logged.getvalue().encode()) == []
