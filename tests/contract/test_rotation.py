"""A rotation of the keys, on every engine: everything opens and is found before, meanwhile and after."""

import asyncio
import datetime as dt
import json
import signal
import sys
import textwrap
from pathlib import Path

import pytest
from cutting import Cut, cut_at

from conftest import PURPOSE, users
from datavern import (
    ConfigurationError,
    ConstraintViolated,
    DatabaseManager,
    DataMap,
    Dataset,
    DecryptionFailed,
    ErasureIncomplete,
    Field,
    Keyring,
    SubjectRequest,
    SubjectRequestRejected,
)
from datavern.contracts.errors import KeyUnavailable, RotationIncomplete
from datavern.crypto import copies, remembered, rotation_claims
from datavern.crypto.rotations import Rotations
from datavern.privacy.sealing import reindex
from datavern.privacy.sealing.reindex import Reindexing
from datavern.privacy.sealing.rotation import Rotator


def hurry(patch=setattr):
    """What other processes are given time for does not take it where there is none."""
    patch(remembered, "FRESH", 0.05)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    hurry(monkeypatch.setattr)


NOTES = Dataset(
    "notes",
    database="main",
    personal=False,
    fields={"title": Field(sealed=True, lookup=True, unique=True), "text": Field(sealed=True, prefixes=[3], ngrams=3)},
)


@pytest.fixture
async def db(managed):
    async with managed(users(), NOTES) as db:
        for name in ("users", "notes"):
            await db.prepare(name)
        yield db


async def person(db, number):
    consent = await db.consents.grant(subject=f"u{number}", purpose=PURPOSE)
    row = {"id": f"u{number}", "personal_number": "13097248022", "name": f"Åse {number}", "email": f"{number}@x.no"}
    await db.personal("users").insert(row, consent=consent)
    return row


async def check_found(db, number):
    store = db.personal("users")
    assert (await store.get(f"u{number}"))["name"] == f"Åse {number}"
    assert [row["id"] for row in await store.find(email=f"{number}@x.no")] == [f"u{number}"]


async def test_a_rotation_keeps_everything_and_destroys_the_old_key(db, keyring, tmp_path):
    for number in range(5):
        await person(db, number)
    await db.personal("notes").insert({"id": "n", "title": "Ærlig", "text": "Nordmann"})
    old = await db["main"].query("SELECT email_lookup FROM users")
    done = await db.keys.rotate()
    assert (done.state, done.epoch, done.previous) == ("done", 2, 1)
    assert done.details["indexed"] == {"main.users": 5, "main.notes": 1}
    assert not (tmp_path / "keys" / "epoch-1.json").exists()
    status = await db.keys.status()
    assert (status.epoch, status.epochs, set(status.keys)) == (2, (2,), {2})
    assert await db.keys.verify() == []
    for number in range(5):
        await check_found(db, number)
    notes = db.personal("notes")
    assert len(await notes.starts_with(text="Nord")) == len(await notes.contains(text="mann")) == 1
    assert (await notes.find(title="Ærlig"))[0]["text"] == "Nordmann"
    new = await db["main"].query("SELECT email_lookup FROM users")
    assert not {row[0] for row in old} & {row[0] for row in new}
    # What is opened anew has the new key alone.
    ring = Keyring.from_url(keyring)
    async with ring:
        assert ring.epochs == {2}
    log = await db["main"].query("SELECT details FROM datavern_audit WHERE action = 'keys_rotated'")
    assert [json.loads(row[0])["epoch"] for row in log] == [2]


async def test_twice_and_with_nothing_in_it(db):
    assert (await db.keys.rotate()).keys >= 0
    await person(db, 1)
    assert (await db.keys.rotate()).epoch == 3
    await check_found(db, 1)
    assert (await db.keys.status()).epochs == (3,)


async def test_shredded_says_so_and_why_not_yet(db, tmp_path):
    await person(db, 1)
    await person(db, 2)
    with pytest.raises(SubjectRequestRejected, match="nobody of that id"):
        await db.subject_requests.shredded("u1")
    await db.keys.rotate()
    erased = await db.subject_requests.process(SubjectRequest("erasure", subject="u1"))
    with pytest.raises(ErasureIncomplete, match="due by"):
        await db.subject_requests.shredded("u1")  # the rotation was before
    due = (await db.keys.status()).due
    assert due == (dt.datetime.now(dt.UTC) + dt.timedelta(days=30)).date()
    await db.keys.rotate()
    assert (await db.keys.status()).due is None
    statement = await db.subject_requests.shredded("u1")
    assert statement.verify((tmp_path / "keys" / "verifier.txt").read_text())
    assert statement.body["statement"] == "shredded"
    assert {k["id"] for k in statement.body["keys"]} == {k["id"] for k in erased.certificate.body["keys"]}
    assert statement.body["rotation"]["epoch"] == 3
    assert statement.body["rotation"]["copy"]["sha256"]
    assert "u1" in str(statement)
    await person(db, 1)
    assert any("returned" in limit for limit in (await db.subject_requests.shredded("u1")).body["limits"])


async def test_an_erasure_during_the_rotation_is_not_shredded_by_it(db, monkeypatch):
    await person(db, 1)
    real = Rotator._replayed

    async def erase_first(self, epoch, patience):
        await db.subject_requests.process(SubjectRequest("erasure", subject="u1"))
        await real(self, epoch, patience)

    monkeypatch.setattr(Rotator, "_replayed", erase_first)
    await db.keys.rotate()
    with pytest.raises(ErasureIncomplete, match="began after the erasure"):
        await db.subject_requests.shredded("u1")


async def test_other_processes_go_on_while_it_runs(db, managed, database, keyring):
    """Writers, readers and finders of another process, all the while; none of them gets an error."""
    await person(db, 0)
    other = managed(users(), NOTES, databases={"main": database.provider("elsewhere", location="norway")})
    async with other:
        stop = asyncio.Event()
        written = [0]

        async def work(manager, first):
            number = first
            while not stop.is_set():
                await person(manager, number)
                written.append(number)
                await check_found(manager, number)
                await check_found(other if manager is db else db, 0)
                number += 1

        tasks = [asyncio.create_task(work(db, 1000)), asyncio.create_task(work(other, 2000))]
        for epoch in (2, 3):
            assert (await db.keys.rotate()).epoch == epoch
        while len(written) < 5 and not any(task.done() for task in tasks):  # noqa: ASYNC110  (what they write is the sign)
            await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*tasks)
        for number in written:
            await check_found(db, number)
            await check_found(other, number)
        assert await db.keys.verify() == []
        assert await other.keys.verify() == []


async def test_two_at_once_one_goes_on_and_the_other_is_told(db, managed, database, monkeypatch):
    monkeypatch.setattr(rotation_claims, "BEAT", 0.05)
    await person(db, 1)
    reached, go = asyncio.Event(), asyncio.Event()
    real = Rotator._replayed

    async def held_up(self, epoch, patience):
        reached.set()
        await go.wait()
        await real(self, epoch, patience)

    monkeypatch.setattr(Rotator, "_replayed", held_up)
    async with managed(users(), NOTES, databases={"main": database.provider("elsewhere", location="norway")}) as other:
        first = asyncio.create_task(db.keys.rotate())
        await reached.wait()
        with pytest.raises(RotationIncomplete, match="in another process") as told:
            await other.keys.rotate()
        assert (told.value.state, told.value.reasons) == ("confirm", ())
        go.set()
        assert (await first).epoch == 2
        assert (await other.keys.status()).epochs == (2,)
        await check_found(other, 1)


PLACES = (
    (Rotations, "_begin"),
    (Rotations, "_claim"),
    (Rotations, "turn"),
    (Rotations, "_write"),
    (Rotations, "rewrap"),
    (Rotations, "step"),
    (Rotations, "close"),
    (Rotations, "destroy"),
    (Reindexing, "_announce"),
    (Reindexing, "_switch"),
    (Reindexing, "_batch"),
    (Reindexing, "_destroy"),
    (copies, "write"),
    (Keyring, "add_epoch"),
    (Keyring, "destroy_epoch"),
)


async def test_cut_off_at_every_step_and_finished(db, monkeypatch):
    """Without a release, as after kill -9: the next one finds it held, waits for a beat that does not come, goes on."""
    monkeypatch.setattr(rotation_claims, "SILENCE", 0.05)
    monkeypatch.setattr(rotation_claims, "BEAT", 0.02)
    monkeypatch.setattr(reindex, "_BATCH", 2)
    for number in range(5):
        await person(db, number)
    with cut_at(None, PLACES) as passed:
        await db.keys.rotate()
    assert passed() > 30
    for place in range(1, passed() + 1):
        try:
            with cut_at(place, PLACES):
                await db.keys.rotate()
        except Cut:
            await db["main"].execute("UPDATE datavern_rotations SET holder = 'dead' WHERE state <> 'done'")
        if (await db.keys.status()).rotation is not None:
            await check_found(db, 3)
            await db.keys.rotate()
        status = await db.keys.status()
        assert status.rotation is None
        assert len(status.epochs) == 1
        assert set(status.keys) == set(status.epochs)
    for number in range(5):
        await check_found(db, number)
    assert await db.keys.verify() == []


async def test_a_copy_is_read_back_and_restores_the_key_store(db, managed, keyring, tmp_path, engine):
    from datavern.testing import create_test_database

    await person(db, 1)
    await db.keys.rotate()
    (copy,) = (tmp_path / "keys-copies").iterdir()
    assert copy.stat().st_mode & 0o777 == 0o600
    ring = Keyring.from_url(keyring)
    async with ring, create_test_database(engine) as elsewhere, elsewhere.provider("new", location="norway") as new:
        await copies.restore(copy, new, ring)
        for table in ("datavern_keys", "datavern_handles", "datavern_lookup_keys", "datavern_epochs"):
            count = f"SELECT count(*) FROM {table}"
            assert await new.query_value(count) == await db["main"].query_value(count)
        with pytest.raises(ConfigurationError, match="never overwritten"):
            await copies.restore(copy, new, ring)
        async with managed(databases={"main": elsewhere.provider("again", location="norway")}) as restored:
            assert await restored.keys.verify() == []
    content = bytearray(copy.read_bytes())
    content[-20] ^= 1
    copy.write_bytes(content)
    async with ring:
        with pytest.raises(Exception, match="did not open"):
            await copies.read_back(copy, ring)
    copy.write_bytes(content[:-30])
    async with ring:
        with pytest.raises(Exception, match="did not open"):
            await copies.read_back(copy, ring)


WRAPPED = {
    "a person's key": ("datavern_keys", "wrapped", "subject_tag IS NOT NULL"),
    "a dataset's key": ("datavern_keys", "wrapped", "subject_tag IS NULL"),
    "a lookup key": ("datavern_lookup_keys", "wrapped", "1 = 1"),
    "the tag key": ("datavern_store", "tag_key", "1 = 1"),
}


@pytest.mark.parametrize("which", WRAPPED)
async def test_a_copy_with_a_key_that_does_not_unwrap_is_no_copy(db, keyring, tmp_path, which, placeholder):
    await person(db, 1)
    await db.keys.dataset_key("rates")
    table, column, where = WRAPPED[which]
    main, path = db["main"], tmp_path / "copy"
    async with Keyring.from_url(keyring) as ring:
        sound = await copies.write(main, ring, path)
        wrapped = await main.query_value(f"SELECT {column} FROM {table} WHERE {where}")
        changed = bytes([*wrapped[:-1], wrapped[-1] ^ 1])
        change = f"UPDATE {table} SET {column} = {placeholder(1)} WHERE {column} = {placeholder(2)}"
        await main.execute(change, [changed, wrapped])
        with pytest.raises(DecryptionFailed, match="did not open"):
            await copies.write(main, ring, path)
        await main.execute(change, [wrapped, changed])
        created = await main.query_value("SELECT created_at FROM datavern_epochs")
        both = f"{placeholder(1)}, {placeholder(2)}"
        await main.execute(f"INSERT INTO datavern_epochs (epoch, created_at) VALUES ({both})", [7, created])
        await main.execute(f"UPDATE {table} SET epoch = 7 WHERE {column} = {placeholder(1)}", [wrapped])
        with pytest.raises(DecryptionFailed, match="another epoch than its row says"):
            await copies.write(main, ring, path)
        assert await copies.read_back(path, ring) == sound  # what is no copy takes no copy's place
        assert [file.name for file in tmp_path.glob("*copy*")] == ["copy"]


async def test_the_old_key_stays_while_no_copy_can_be_made(db, tmp_path):
    await person(db, 1)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="could not be copied"):
        await db.keys.rotate(copy=tmp_path / "file" / "folder")

    async def broken(provider, keyring):
        raise KeyUnavailable("no backup today")

    with pytest.raises(KeyUnavailable, match="no backup today"):
        await db.keys.rotate(copy=broken)
    status = await db.keys.status()
    assert status.rotation.state == "confirm"
    assert status.epochs == (1, 2)
    await check_found(db, 1)

    async def saved(provider, keyring):
        return {"where": "the vault of the town hall"}

    done = await db.keys.rotate(copy=saved)
    assert done.epoch == 2
    assert done.details["copy"] == {"where": "the vault of the town hall"}


async def test_it_waits_for_whoever_must_confirm(db):
    async def never(epoch):
        return [f"the archive has not got epoch {epoch}"]

    db.keys.rotator.confirmations.append(never)
    with pytest.raises(RotationIncomplete, match="the archive has not got epoch 2") as caught:
        await db.keys.rotate(patience=0.1)
    assert caught.value.reasons == ("the archive has not got epoch 2",)
    assert (await db.keys.status()).epochs == (1, 2)
    db.keys.rotator.confirmations.clear()
    assert (await db.keys.rotate()).epoch == 2


async def test_an_old_ring_and_an_old_store_are_refused(db, managed, tmp_path, keyring, database):
    import shutil

    await person(db, 1)
    shutil.copytree(tmp_path / "keys", tmp_path / "old")
    await db.keys.rotate()
    with pytest.raises(ConfigurationError, match="restore the latest copy of the keys"):
        async with managed(keyring=f"file:{tmp_path / 'old'}"):
            pass
    # Both keys, as the ring was in the middle of the rotation: the old one is known to be destroyed.
    mixed = tmp_path / "mixed"
    shutil.copytree(tmp_path / "old", mixed)
    ring = Keyring.from_url(f"file:{mixed}")
    async with ring:
        await ring.add_epoch(2)
    with pytest.raises(ConfigurationError, match="an older copy"):
        async with managed(keyring=f"file:{mixed}"):
            pass


async def test_a_unique_value_stays_unique_while_indexes_are_made_anew(db, monkeypatch):
    notes = db.personal("notes")
    await notes.insert({"id": "n1", "title": "one", "text": "first"})
    real = Reindexing._rows
    seen = []

    async def meanwhile(self, store, progress):
        if store.dataset.name == "notes":
            for write in (
                notes.insert({"id": "n2", "title": "one", "text": "second"}),
                notes.insert_many([{"id": "n3", "title": "one", "text": "third"}]),
            ):
                with pytest.raises(ConstraintViolated):
                    await write
            await notes.insert({"id": "n4", "title": "two", "text": "fourth"})
            with pytest.raises(ConstraintViolated):
                await notes.update("n4", {"title": "one"})
            assert await notes.update("n1", {"title": "one"})  # its own value
            seen.append([row["id"] for row in await notes.find(title=("one", "two"))])
            assert [row["id"] for row in await notes.starts_with(text="fir")] == ["n1"]
        return await real(self, store, progress)

    monkeypatch.setattr(Reindexing, "_rows", meanwhile)
    await db.keys.rotate()
    assert sorted(seen[0]) == ["n1", "n4"]
    with pytest.raises(ConstraintViolated):
        await notes.insert({"id": "n5", "title": "two", "text": "fifth"})


async def test_a_row_that_does_not_open_is_told_of_and_holds_nothing_up(db):
    await person(db, 1)
    await person(db, 2)
    await db["main"].execute("UPDATE users SET name = (SELECT name FROM users WHERE id = 'u2') WHERE id = 'u1'")
    done = await db.keys.rotate()
    assert done.details["unreadable"] == {"main.users": 1}
    await check_found(db, 2)


async def test_a_ledger_that_keeps_no_foreign_keys_does_not_rotate(sqlite_database, keyring):
    loose = sqlite_database.provider("main", location="norway", foreign_keys=False)
    async with DatabaseManager({"main": loose}, data_map=DataMap([users()]), keyring=keyring) as db:
        with pytest.raises(ConfigurationError, match="does not enforce foreign keys"):
            await db.keys.rotate()
        assert await db["main"].query_value("SELECT epoch FROM datavern_store") == 1
        assert (await db.keys.status()).rotation is None


async def test_keys_of_nobodys_map_are_kept_under_the_new_epoch(db):
    before = await db.keys.lookup_key("elsewhere", "file name")
    done = await db.keys.rotate()
    assert done.details["kept"] == ["elsewhere.file name"]
    assert await db.keys.lookup_key("elsewhere", "file name") == before


async def test_a_key_store_alone_says_who_rotates(provider, keyring):
    from datavern.crypto.keystore import KeyStore

    ring = Keyring.from_url(keyring)
    async with ring:
        store = KeyStore(ring, provider)
        await store.open()
        with pytest.raises(ConfigurationError, match="manager"):
            await store.rotate()


async def test_rows_that_the_law_keeps_open_after_a_rotation(managed):
    bills = Dataset(
        "bills",
        database="main",
        subject="who",
        erasure="retain",
        retention="5y",
        legal_basis="bokføringsloven § 13",
        fields={"text": Field(sealed=True, lookup=True)},
    )
    async with managed(bills) as db:
        await db.prepare("bills")
        await db.personal("bills").insert({"id": "1", "who": "u1", "text": "kept"})
        await db.subject_requests.process(SubjectRequest("erasure", subject="u1"))
        await db.keys.rotate()
        assert [row["text"] async for row in db.personal("bills").of("u1")] == ["kept"]
        assert await db.personal("bills").find(text="kept") == []
        await db.subject_requests.shredded("u1")


KILLED = """
    import asyncio, json, sys
    sys.path.insert(0, {tests!r})
    import test_rotation as tests
    from cutting import Killed, cut_at
    from conftest import users
    from datavern import DatabaseManager, DataMap
    from datavern.testing import EmptyDatabase

    async def main():
        main = EmptyDatabase(*json.loads(sys.argv[1])).provider("main", location="norway")
        async with DatabaseManager({{"main": main}}, data_map=DataMap([users()]), keyring="file:keys") as db:
            with cut_at({place}, tests.PLACES, ends=Killed):
                await db.keys.rotate()

    tests.hurry()
    asyncio.run(main())
"""


@pytest.mark.parametrize("place", [3, 9, 13, 17, 22, 27, 31])
async def test_killed_at_a_step_and_finished(place, managed, database, tmp_path, monkeypatch):
    monkeypatch.setattr(rotation_claims, "SILENCE", 0.5)
    async with managed(users()) as db:
        await db.prepare("users")
        for number in range(3):
            await person(db, number)
    script = textwrap.dedent(KILLED).format(tests=str(Path(__file__).parent), place=place)
    named = json.dumps([database.engine, database.settings])
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, named, cwd=tmp_path)
    assert await child.wait() == -signal.SIGKILL
    async with managed(users()) as db:
        for number in range(3):
            await check_found(db, number)
        if (await db.keys.status()).rotation is not None or (await db.keys.status()).last is None:
            await db.keys.rotate()
        for number in range(3):
            await check_found(db, number)
        status = await db.keys.status()
        assert (status.epochs, status.rotation) == ((2,), None)
        assert await db.keys.verify() == []
