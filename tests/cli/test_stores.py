"""The commands on a project with documents, files, keys and values beside its tables."""

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import pytest

from datavern import DatabaseManager, Keyring

CONFIG = """
[datavern]
organisation = "Eksempel kommune"
ledger = "main"
keyring = "file:keys"

[databases.main]
provider = "sqlite"
path = "main.db"
location = "norway"

[databases.documents]
provider = "mongodb"
uri = "{uri}"
location = "norway"

[databases.cache]
provider = "redis"
port = {port}
location = "norway"

[datasets.users]
database = "main"
subject = "id"
fields = {{ name = {{ sealed = true }} }}

[datasets.cases]
database = "documents"
subject = "{path}"

[datasets.sessions]
database = "cache"
key = "user:session:{{subject}}"
"""


@pytest.fixture
def write(mongodb_server, valkey_server, tmp_path: Path):
    valkey_server.command("FLUSHALL")
    uri = mongodb_server.uri(f"t{uuid4().hex[:12]}")

    def written(path="owner.id", key=None):
        text = CONFIG.format(uri=uri, port=valkey_server.port, path=path)
        (tmp_path / "datavern.toml").write_text(text if key is None else text.replace("user:session:{subject}", key))

    async def keys():
        await (await Keyring.create(f"file:{tmp_path / 'keys'}")).close()

    asyncio.run(keys())
    return written


async def fill(config):
    async with DatabaseManager.from_config(config) as db:
        await db.personal("users").insert({"id": "u1", "name": "Åse"})
        await db["documents"].collection("cases").insert_many([{"owner": {"id": "u1"}}, {"owner": {"id": "u2"}}])
        await db["cache"].set("user:session:u1", {"n": 1})


def findings(ran):
    return {f["part"]: (f["ok"], f["detail"]) for f in ran.json["findings"]}


def test_check_access_and_erasure_cover_every_store(run, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write()
    found = findings(run("check", "--json"))
    assert found["datasets.cases"] == (
        False,
        "documents has no collection cases: correct the data map, or `datavern prepare cases`",
    )
    assert found["datasets.sessions"] == (
        True,
        "cache.sessions: user:session:{subject}; no key fits user:session:{subject} now",
    )
    assert run("prepare").code == 0
    asyncio.run(fill(tmp_path / "datavern.toml"))
    done = run("check", "--json")
    assert done.code == 0, done.said
    assert findings(done)["datasets.cases"] == (True, "documents.cases: cases, owner.id")
    assert findings(done)["datasets.sessions"] == (True, "cache.sessions: user:session:{subject}")

    answered = run("subject", "access", "u1", "--json")
    assert {label: len(rows) for label, rows in answered.json["data"].items()} == {
        "main.users": 1,
        "documents.cases": 1,
        "cache.sessions": 1,
    }
    assert run("subject", "access", "u1").code == 0
    exported = run("subject", "export", "u1", "--format", "csv", "--output", "taken", "--json")
    assert exported.code == 0, exported.told
    assert sorted(p.name for p in (tmp_path / "taken").iterdir()) == exported.json["files"]
    assert "documents.cases.csv" in exported.json["files"]
    assert "taken is there already" in run("subject", "export", "u1", "--output", "taken").told
    erased = run("subject", "erase", "u1", "--yes", "--json", "--output", "certificate.json")
    assert erased.code == 0, erased.told
    stores = json.loads((tmp_path / "certificate.json").read_text())["certificate"]["stores"]
    assert {store["dataset"]: store["found"] for store in stores} == {
        "main.users": 1,
        "documents.cases": 1,
        "cache.sessions": 1,
        "datavern.consents": 0,
    }
    assert run("subject", "verify", "certificate.json").code == 0
    assert not any(run("subject", "access", "u1", "--json").json["data"].values())
    assert len(run("subject", "access", "u2", "--json").json["data"]["documents.cases"]) == 1


def test_check_tells_a_path_that_no_document_has(run, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write()
    assert run("prepare").code == 0
    asyncio.run(fill(tmp_path / "datavern.toml"))
    write(path="owner.idd")
    assert run("prepare").code == 0
    done = run("check", "--json")
    assert done.code == 1
    ok, detail = findings(done)["datasets.cases"]
    assert not ok
    assert detail.startswith("none of the latest 1,000 documents of cases has owner.idd")
    write(key="user:{subject}*")
    assert "cannot tell u1 from u12" in run("check").told
