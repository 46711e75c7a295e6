"""An erasure through stores of every kind, cut off or killed at each of its steps, is finished exactly once."""

import asyncio
import json
import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest
from cutting import Cut, cut_at

from datavern import (
    DatabaseManager,
    DataMap,
    Dataset,
    Field,
    MongoDBProvider,
    RedisProvider,
    SQLiteProvider,
    SubjectRequest,
)
from datavern.audit.log import AuditLog
from datavern.crypto.keystore import KeyStore
from datavern.engines.mongodb.subjects import MongoDBSubjects
from datavern.engines.redis.subjects import RedisSubjects
from datavern.privacy.erasure.records import RecordErasure
from datavern.privacy.journal.journal import Journal, Steps

PLACES = (
    (Journal, "begin"),
    (Journal, "hold"),
    (Journal, "close"),
    (KeyStore, "start_erasures"),
    (KeyStore, "destroy_keys"),
    (Steps, "done_many"),
    (Steps, "record"),
    (AuditLog, "append_many"),
    (RecordErasure, "count"),
    (RecordErasure, "look"),
    (MongoDBSubjects, "delete"),
    (MongoDBSubjects, "update"),
    (RedisSubjects, "delete"),
)
STORES = ("main.people", "documents.cases", "documents.letters", "documents.members", "cache.sessions")


def datasets():
    name = {"name": Field()}
    return (
        Dataset("people", database="main", subject="who", fields={"name": Field(sealed=True)}),
        Dataset("cases", database="documents", subject="owner.id"),
        Dataset("letters", database="documents", subject="_metadata.subject"),
        Dataset("members", database="documents", subject="who", erasure="anonymize", fields=name),
        Dataset("sessions", database="cache", key="user:session:{subject}"),
    )


def manager(uri, port, folder, keyring):
    databases = {
        "main": SQLiteProvider(f"{folder}/main.db", name="main", location="norway"),
        "documents": MongoDBProvider(name="documents", uri=uri, location="norway"),
        "cache": RedisProvider(name="cache", port=port, location="norway"),
    }
    return DatabaseManager(databases, data_map=DataMap(datasets()), keyring=keyring, ledger="main")


@pytest.fixture
def made(documents, valkey_server, tmp_path, keyring):
    valkey_server.command("FLUSHALL")
    uri = documents().settings.uri.reveal()
    return lambda: manager(uri, valkey_server.port, tmp_path, keyring)


async def fill(db, subject):
    mongo = db["documents"]
    await db.personal("people").insert({"id": subject, "who": subject, "name": "Planted"})
    for n in range(2):
        await mongo.collection("cases").insert_one({"_id": f"{subject}-{n}", "owner": {"id": subject}})
        await mongo.collection("members").insert_one({"_id": f"{subject}-{n}", "who": subject, "name": "Planted"})
        await mongo.insert_document("letters", {"_id": f"{subject}-{n}", "t": "Planted"}, subject=subject)
    await db["cache"].set(f"user:session:{subject}", "Planted")
    await db.consents.grant(subject=subject, purpose="p")


async def check_done(db, subject, request):
    answer = await db.subject_requests.process(SubjectRequest("access", subject=subject))
    assert not any(answer.data.values())
    members = db["documents"].collection("members")
    assert [one["name"] async for one in members.find({"_id": {"$regex": f"^{subject}-"}})] == [None] * 2
    certificate = await db.subject_requests.certificate(request)
    found = {store["dataset"]: store["found"] for store in certificate.body["stores"]}
    assert found == {
        "main.people": 1,
        "documents.cases": 2,
        "documents.letters": 2,
        "documents.members": 2,
        "cache.sessions": 1,
        "datavern.consents": 1,
    }
    assert all(sum(store["done"].values()) == store["found"] for store in certificate.body["stores"])
    assert len(certificate.body["keys"]) == 2
    told = []
    for action, dataset, details in await db["main"].query("SELECT action, dataset, details FROM datavern_audit"):
        if details and json.loads(details).get("request") == request:
            told.append((action, dataset))
    once = [("erasure_received", None), ("erasure_completed", None), ("erased", "datavern.consents")]
    assert sorted(told, key=str) == sorted([*once, *(("erased", store) for store in STORES)], key=str)
    assert await db.subject_requests.resume() == []


async def prepare(db):
    for dataset in datasets():
        await db.prepare(dataset.name)


async def test_cut_off_at_every_step_and_finished(made):
    async with made() as db:
        await prepare(db)
        await fill(db, "bystander")
        await fill(db, "whole")
        with cut_at(None, PLACES) as passed:
            whole = await db.subject_requests.process(SubjectRequest("erasure", subject="whole"))
        places = passed()
        assert places > 50
        await check_done(db, "whole", whole.request_id)
        for place in range(1, places + 1):
            subject = f"person{place}"
            await fill(db, subject)
            request = SubjectRequest("erasure", subject=subject)
            with pytest.raises(Cut), cut_at(place, PLACES):
                await db.subject_requests.process(request)
            begun = await db["main"].query_value(f"SELECT count(*) FROM datavern_requests WHERE id = '{request.id}'")
            await db.subject_requests.resume()
            if not begun:
                request = SubjectRequest("erasure", subject=subject, id=request.id)
                await db.subject_requests.process(request)
            await check_done(db, subject, request.id)
        untouched = await db.subject_requests.process(SubjectRequest("access", subject="bystander"))
        assert {label: len(rows) for label, rows in untouched.data.items()} == {
            "main.people": 1,
            "documents.cases": 2,
            "documents.letters": 2,
            "documents.members": 2,
            "cache.sessions": 1,
            "datavern.consents": 1,
        }


async def test_three_finish_the_same_erasure_and_it_is_done_once(made, monkeypatch):
    async with made() as db:
        await prepare(db)
        await fill(db, "u1")

        async def cut(*args, **kwargs):
            raise Cut

        request = SubjectRequest("erasure", subject="u1")
        with monkeypatch.context() as patched:
            patched.setattr(RecordErasure, "count", cut)
            with pytest.raises(Cut):
                await db.subject_requests.process(request)
        answers = await asyncio.gather(*(db.subject_requests.resume() for _ in range(3)))
        assert len({answer.certificate.to_json() for found in answers for answer in found}) == 1
        certificate = await db.subject_requests.certificate(request.id)
        assert {store["found"] for store in certificate.body["stores"]} == {1, 2}


KILLED = """
    import asyncio, sys
    sys.path.insert(0, {tests!r})
    import test_store_crashes as stores
    from cutting import Killed, cut_at
    from datavern import SubjectRequest

    async def main():
        async with stores.manager({uri!r}, {port}, {folder!r}, {keyring!r}) as db:
            with cut_at({place}, stores.PLACES, ends=Killed):
                await db.subject_requests.process(SubjectRequest("erasure", subject="u1", id="u1"))

    asyncio.run(main())
"""


@pytest.mark.parametrize("place", [24, 42])  # every place: tests/faults/test_erasure_kills.py
async def test_killed_at_a_step_and_finished_on_opening(place, made, valkey_server, tmp_path, keyring):
    async with made() as db:
        await prepare(db)
        await fill(db, "u1")
        uri = db["documents"].settings.uri.reveal()
    parts = {"uri": uri, "port": valkey_server.port, "folder": str(tmp_path), "keyring": keyring}
    script = textwrap.dedent(KILLED).format(tests=str(Path(__file__).parent), place=place, **parts)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    )
    assert await child.wait() == -signal.SIGKILL
    async with made() as db:
        await check_done(db, "u1", "u1")
