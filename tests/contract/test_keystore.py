"""The key store, on every engine: one key for each person and dataset, whoever asks, and none after an erasure."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from speech import SPEECHES
from tests.waiting import waits

from datavern.contracts.errors import (
    ConfigurationError,
    DecryptionFailed,
    KeyErased,
    KeyUnavailable,
)
from datavern.crypto import handles, open_store, remembered
from datavern.crypto.keyring import Keyring
from datavern.crypto.keystore import KeyStore
from datavern.crypto.sealed import RowSealer, new_row_tag


@pytest.fixture
async def ring(tmp_path: Path) -> Keyring:
    return await Keyring.create(f"file:{tmp_path}/keys")


@pytest.fixture
async def store(provider: Any, ring: Keyring) -> KeyStore:
    store = KeyStore(ring, provider)
    await store.open()
    return store


@pytest.fixture
async def elsewhere(database: Any, provider: Any, ring: Keyring):
    """Another process, as far as the store can tell: its own connections, and its own memory."""
    async with database.provider(name="elsewhere") as other:
        store = KeyStore(ring, other)
        await store.open()
        yield store


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (handles, open_store, remembered):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock


async def count(provider: Any, table: str) -> int:
    return await provider.query_value(f"SELECT count(*) FROM {table}")


class Statements:
    """Counts what a provider is asked."""

    def __init__(self, provider: Any, monkeypatch) -> None:
        self.asked: list[str] = []
        self.within = 0
        for name in ("query", "query_one", "query_value", "execute", "execute_many"):
            self._count(provider, name, monkeypatch)

    def _count(self, provider: Any, name: str, monkeypatch) -> None:
        real = getattr(type(provider), name)
        statements = self

        async def counted(self, sql, *rest, **more):
            if not statements.within:  # one method may be made of another
                statements.asked.append(sql)
            statements.within += 1
            try:
                return await real(self, sql, *rest, **more)
            finally:
                statements.within -= 1

        monkeypatch.setattr(type(provider), name, counted)


# ---- opening --------------------------------------------------------------------------------------------------------


async def test_opening_twice_changes_nothing(store, provider):
    tag = store.subject_tag("u1")
    await store.open()
    assert store.subject_tag("u1") == tag
    assert await count(provider, "datavern_store") == 1


async def test_who_a_tag_names_is_told_by_the_store_s_own_key_alone(store, provider, ring, tmp_path, database):
    wrapped = await provider.query_value("SELECT tag_key FROM datavern_store")
    key = await ring.unwrap(wrapped, b"tag-key\x00")
    for subject in ("u1", "13097248022", "æøå", ""):
        made = hmac.digest(key, b"subject\x00" + subject.encode(), "sha256")
        assert store.subject_tag(subject) == made
    for table in ("datavern_store", "datavern_epochs"):  # a store made anew, of the same ring
        await provider.execute(f"DELETE FROM {table}")
    async with database.provider(name="anew") as other:
        anew = KeyStore(ring, other)
        await anew.open()
        assert anew.subject_tag("u1") != store.subject_tag("u1")


async def test_of_many_that_open_a_new_store_at_once_one_makes_it(provider, ring):
    stores = [KeyStore(ring, provider) for _ in range(5)]
    await asyncio.gather(*(store.open() for store in stores))
    assert len({store.subject_tag("u1") for store in stores}) == 1
    assert await count(provider, "datavern_store") == 1


async def test_a_store_of_another_ring_is_refused(store, provider, tmp_path):
    other = await Keyring.create(f"file:{tmp_path}/other")
    with pytest.raises(ConfigurationError, match="belongs to another key ring"):
        await KeyStore(other, provider).open()


async def test_a_ring_that_is_older_than_the_store_is_refused(store, provider, ring):
    await provider.execute("INSERT INTO datavern_epochs (epoch, created_at) VALUES (2, '')")
    await provider.execute("UPDATE datavern_store SET epoch = 2")
    with pytest.raises(ConfigurationError, match="restore the latest copy of the keys"):
        await KeyStore(ring, provider).open()


async def test_a_store_that_is_older_than_the_last_destroyed_epoch_is_refused(store, provider, ring):
    await provider.execute("INSERT INTO datavern_epochs (epoch, created_at) VALUES (0, '')")
    await provider.execute("UPDATE datavern_store SET epoch = 0")
    with pytest.raises(ConfigurationError, match="were destroyed"):
        await KeyStore(ring, provider).open()


async def test_a_store_of_a_later_version_is_refused(store, provider, ring):
    await provider.execute("UPDATE datavern_store SET version = 3")
    with pytest.raises(ConfigurationError, match="version 3"):
        await KeyStore(ring, provider).open()


async def test_a_store_that_lost_its_own_row_is_not_begun_anew(store, provider, ring):
    await store.subject_key("users", "u1")
    await provider.execute("DELETE FROM datavern_store")
    with pytest.raises(ConfigurationError, match="datavern_store is empty"):
        await KeyStore(ring, provider).open()
    assert await count(provider, "datavern_store") == 0


# ---- subjects' keys -------------------------------------------------------------------------------------------------


async def test_a_new_subject_gets_a_key_and_keeps_it(store, elsewhere):
    assert store.warm("users", "u1") is None
    assert await store.find_subject_key("users", "u1") is None
    key = await store.subject_key("users", "u1")
    assert store.warm("users", "u1") is key
    assert store.warm_key(key.id) is key
    assert await store.subject_key("users", "u1") is key
    theirs = await elsewhere.subject_key("users", "u1")
    assert theirs.id == key.id
    found = await elsewhere.find_subject_key("users", "u1")
    assert found.id == key.id
    tag, sealer = new_row_tag(), RowSealer("users", ["name"])
    sealed = sealer.seal_row(key, tag, {"name": "Åse"})
    assert sealer.open_row(tag, sealed, {theirs.id: theirs}, elsewhere.subject_tag("u1")) == {"name": "Åse"}


async def test_people_and_datasets_have_keys_of_their_own(store):
    keys = [await store.subject_key(dataset, subject) for dataset in ("users", "cases") for subject in ("u1", "u2")]
    assert len({key.id for key in keys}) == 4
    assert {key.subject_tag for key in keys} == {store.subject_tag("u1"), store.subject_tag("u2")}


async def test_the_tables_name_nobody_and_hold_no_key(store, provider):
    raws = []
    real = store._keyring.wrap

    async def spy(raw: bytes, context: bytes) -> bytes:
        raws.append(raw)
        return await real(raw, context)

    store._keyring = store._lookups._keyring = type("Spy", (), {"wrap": staticmethod(spy), "epoch": 1})()
    await store.subject_key("users", "person-42")
    await store.lookup_key("users", "email")
    assert len(raws) == 2
    tables = ("datavern_store", "datavern_keys", "datavern_handles", "datavern_lookup_keys", "datavern_tombstones")
    for table in tables:
        for row in await provider.query(f"SELECT * FROM {table}"):
            for value in row:
                shown = value if isinstance(value, bytes) else str(value).encode()
                assert b"person-42" not in shown
                assert not any(raw in shown for raw in raws)


async def test_many_subjects_at_once(store, elsewhere, provider, monkeypatch):
    first = await store.subject_key("users", "u7")
    statements = Statements(provider, monkeypatch)
    subjects = [f"u{i}" for i in range(300)]
    keys = await store.subject_keys("users", [*subjects, *subjects])
    assert len(statements.asked) < 15
    assert set(keys) == set(subjects)
    assert keys["u7"] is first
    assert len({key.id for key in keys.values()}) == 300
    theirs = await elsewhere.subject_keys("users", subjects)
    assert {s: key.id for s, key in theirs.items()} == {s: key.id for s, key in keys.items()}
    assert await store.subject_keys("users", []) == {}


async def test_whoever_makes_the_same_keys_at_once_gets_the_same(store, elsewhere, provider):
    subjects = [f"u{i}" for i in range(20)]
    rounds = await asyncio.gather(
        store.subject_keys("users", subjects),
        elsewhere.subject_keys("users", reversed(subjects)),
        *(s.subject_key("users", subject) for s in (store, elsewhere) for subject in subjects[:5]),
    )
    for subject, key in rounds[0].items():
        assert rounds[1][subject].id == key.id
    assert {key.id for key in rounds[2:]} == {rounds[0][subject].id for subject in subjects[:5]}
    assert await count(provider, "datavern_keys") == 20
    assert await count(provider, "datavern_handles") == 20


PROCESS = """
import asyncio, json, sys
from datavern.crypto.keyring import Keyring
from datavern.crypto.keystore import KeyStore
from datavern.manager.loading import provider_class

async def main():
    engine, settings, ring = json.loads(sys.argv[1])
    async with Keyring.from_url(ring) as keyring, provider_class(engine).from_settings("main", settings) as provider:
        store = KeyStore(keyring, provider)
        await store.open()
        print("ready", flush=True)
        sys.stdin.readline()
        ids = {}
        for i in range(25):
            ids[f"u{i}"] = (await store.subject_key("users", f"u{i}")).id.hex()
        print(json.dumps([ids, await store.handle("u0")]))

asyncio.run(main())
"""


async def test_two_processes_that_make_the_same_keys(database, provider, ring):
    arguments = json.dumps([database.engine, database.settings, ring.url])
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROCESS, arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in processes:
        assert await process.stdout.readline() == b"ready\n"
    for process in processes:
        process.stdin.write(b"go\n")
    answers = [json.loads((await process.communicate())[0]) for process in processes]
    assert answers[0] == answers[1]
    assert len(set(answers[0][0].values())) == 25
    assert await count(provider, "datavern_keys") == 25


async def test_a_key_made_in_a_transaction_goes_with_it(store, elsewhere, provider):
    with pytest.raises(ZeroDivisionError):
        async with provider.transaction() as tx:
            key = await store.subject_key("users", "u1", session=tx)
            assert (await store.subject_key("users", "u1", session=tx)).id == key.id
            assert (await store.keys([key.id], session=tx))[key.id].id == key.id
            handle = await store.handle("u1", session=tx)
            assert await store.handle("u1", session=tx) == handle
            1 / 0  # noqa: B018
    assert store.warm("users", "u1") is None
    assert await store.find_subject_key("users", "u1") is None
    assert await store.handle("u1", create=False) is None
    async with provider.transaction() as tx:
        kept = await store.subject_key("users", "u1", session=tx)
    assert kept.id != key.id
    assert (await store.subject_key("users", "u1")).id == kept.id
    assert (await elsewhere.subject_key("users", "u1")).id == kept.id


async def test_a_transaction_of_another_database_is_passed_over(store, elsewhere, provider):
    async with elsewhere._provider.transaction() as tx:
        key = await store.subject_key("users", "u1", session=tx)
    assert store.warm("users", "u1") is key


# ---- by id ----------------------------------------------------------------------------------------------------------


async def test_keys_by_id_in_one_query(store, elsewhere, provider, monkeypatch):
    made = await store.subject_keys("users", [f"u{i}" for i in range(40)])
    ids = [key.id for key in made.values()]
    statements = Statements(elsewhere._provider, monkeypatch)
    found = await elsewhere.keys(ids)
    assert len(statements.asked) == 2  # whether there was an erasure, and the keys
    assert set(found) == set(ids)
    assert await elsewhere.keys([*ids, *ids]) == found
    assert len(statements.asked) == 2
    assert await elsewhere.keys([]) == {}


async def test_an_unknown_key_is_unavailable(store):
    key = await store.subject_key("users", "u1")
    with pytest.raises(KeyUnavailable, match="does not know"):
        await store.keys([key.id, os.urandom(16)])


async def test_a_key_of_an_epoch_that_the_ring_lacks_is_unavailable(store, elsewhere, provider):
    key = await store.subject_key("users", "u1")
    wrapped = await provider.query_value("SELECT wrapped FROM datavern_keys")
    later = wrapped[:1] + (7).to_bytes(4, "big") + wrapped[5:]
    await update(provider, "UPDATE datavern_keys SET wrapped = {}", [later])
    with pytest.raises(KeyUnavailable, match="epoch 7"):
        await elsewhere.keys([key.id])


async def update(provider: Any, sql: str, values: list[Any]) -> None:
    """A statement with the engine's own placeholders."""
    text = sql.format(*(f"${i}" for i in range(1, len(values) + 1)))
    assert await provider.execute(SPEECHES[provider.engine](text), values)


@pytest.mark.parametrize("column", ["dataset", "subject_tag", "wrapped", "key_id"])
async def test_a_row_of_the_store_cannot_pass_for_another(store, elsewhere, provider, column):
    """What a database administrator would try: give a person the key of another."""
    mine, theirs = await store.subject_key("users", "u1"), await store.subject_key("cases", "u2")
    row = await provider.query_one("SELECT * FROM datavern_keys WHERE dataset = 'cases'")
    if column == "key_id":
        await provider.execute("DELETE FROM datavern_keys WHERE dataset = 'cases'")
    await update(provider, f"UPDATE datavern_keys SET {column} = {{}} WHERE dataset = 'users'", [row[column]])
    with pytest.raises(DecryptionFailed):
        await elsewhere.keys([theirs.id if column == "key_id" else mine.id])


# ---- datasets and lookups -------------------------------------------------------------------------------------------


async def test_the_key_of_a_dataset_belongs_to_nobody(store, elsewhere):
    keys = await asyncio.gather(*(s.dataset_key("files") for s in (store, elsewhere) for _ in range(3)))
    assert len({key.id for key in keys}) == 1
    assert keys[0].subject_tag is None
    assert (await store.dataset_key("files")).id == keys[0].id
    assert (await store.dataset_key("users")).id != keys[0].id
    assert (await elsewhere.keys([keys[0].id]))[keys[0].id].subject_tag is None


async def test_a_field_has_one_lookup_key(store, elsewhere, provider):
    keys = await asyncio.gather(*(s.lookup_key("users", "email") for s in (store, elsewhere) for _ in range(3)))
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32
    others = {
        keys[0],
        await store.lookup_key("users", "name"),
        await store.lookup_key("cases", "email"),
        await store.lookup_key("user", "semail"),
    }
    assert len(others) == 4
    assert await count(provider, "datavern_lookup_keys") == 4


async def test_a_lookup_key_cannot_pass_for_another_field_s(store, elsewhere, provider):
    await store.lookup_key("users", "email")
    await update(provider, "UPDATE datavern_lookup_keys SET field = {}", ["name"])
    with pytest.raises(DecryptionFailed):
        await elsewhere.lookup_key("users", "name")


# ---- handles --------------------------------------------------------------------------------------------------------


async def test_a_handle_is_random_and_one(store, elsewhere):
    assert await store.handle("u1", create=False) is None
    handles = await asyncio.gather(*(s.handle("u1") for s in (store, elsewhere) for _ in range(3)))
    assert len(set(handles)) == 1
    assert len(bytes.fromhex(handles[0])) == 16
    assert await store.handle("u2") != handles[0]
    assert await store.handle("u1", create=False) == handles[0]


async def test_a_subject_with_a_key_has_a_handle(store):
    await store.subject_key("users", "u1")
    handle = await store.handle("u1", create=False)
    assert handle is not None
    await store.subject_key("cases", "u1")
    assert await store.handle("u1") == handle


# ---- erasure --------------------------------------------------------------------------------------------------------


async def test_an_erasure_closes_the_keys_and_then_destroys_them(store, provider):
    users, cases = await store.subject_key("users", "u1"), await store.subject_key("cases", "u1")
    other = await store.subject_key("users", "u2")
    assert not await store.erased("u1")
    started = await store.start_erasure("u1")
    assert set(started) == {users.id, cases.id}
    assert await store.start_erasure("u1") == started
    for dataset in ("users", "cases", "never used"):
        assert store.warm(dataset, "u1") is None
        with pytest.raises(KeyErased, match="an erasure of the subject runs"):
            await store.subject_key(dataset, "u1")
    with pytest.raises(KeyErased):
        await store.subject_keys("users", ["u2", "u1", "u3"])
    assert await store.find_subject_key("users", "u3") is None
    assert (await store.find_subject_key("users", "u1")).id == users.id  # what is kept is re-sealed meanwhile
    assert (await store.keys([users.id]))[users.id].id == users.id
    assert not await store.erased("u1")

    destroyed = await store.destroy("u1")
    assert {(gone.key_id, gone.dataset) for gone in destroyed} == {(users.id, "users"), (cases.id, "cases")}
    assert await store.destroy("u1") == destroyed
    assert await store.erased("u1")
    for key_id in started:
        assert store.warm_key(key_id) is None
        with pytest.raises(KeyErased, match="nobody can open"):
            await store.keys([other.id, key_id])
    assert (await store.keys([other.id]))[other.id].id == other.id
    assert await store.find_subject_key("users", "u1") is None
    rows = await provider.query("SELECT wrapped FROM datavern_keys WHERE state = 'destroyed'")
    assert [bytes(row[0]) for row in rows] == [b"", b""]
    assert not await store.erased("u2")


async def test_a_person_who_returns_gets_new_ids_and_keeps_them(store):
    old, old_handle = await store.subject_key("users", "u1"), await store.handle("u1")
    await store.start_erasure("u1")
    await store.destroy("u1")
    assert await store.handle("u1", create=False) is None
    new, handle = await store.subject_key("users", "u1"), await store.handle("u1")
    assert new.id != old.id
    assert handle != old_handle
    await store.destroy("u1")  # an erasure that goes on after a crash does not take what came later
    assert (await store.subject_key("users", "u1")).id == new.id
    assert (await store.keys([new.id]))[new.id].id == new.id
    assert await store.handle("u1") == handle
    assert await store.erased("u1")
    assert await store.start_erasure("u1") == [new.id]
    assert {gone.key_id for gone in await store.destroy("u1")} == {old.id, new.id}


async def test_a_subject_without_keys_is_erased_too(store):
    assert await store.destroy("u1") == []
    assert not await store.erased("u1")
    await store.handle("u2")
    for subject in ("u1", "u2"):
        assert await store.start_erasure(subject) == []
        with pytest.raises(KeyErased):
            await store.subject_key("users", subject)
        assert await store.destroy(subject) == []
        assert await store.erased(subject)
        assert await store.handle(subject, create=False) is None
        await store.subject_key("users", subject)


async def test_an_erasure_waits_for_a_key_that_is_being_made(store, elsewhere, provider, engine):
    """Otherwise the key would live on beside an erasure that never heard of it."""
    if engine == "sqlite":  # one writer: the erasure cannot begin while the transaction is open
        async with provider.transaction() as tx:
            key = await store.subject_key("users", "u1", session=tx)
            erasing = asyncio.create_task(store.start_erasure("u1"))
            await asyncio.sleep(0.05)
            assert not erasing.done()
    else:
        await store.subject_key("cases", "u1")
        async with provider.transaction() as tx:
            key = await store.subject_key("users", "u1", session=tx)
            erasing = asyncio.create_task(elsewhere.start_erasure("u1"))
            await waits(provider)
            assert not erasing.done()
    assert key.id in await erasing


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
async def test_the_first_key_of_a_person_and_an_erasure_at_the_same_moment(store, elsewhere, provider):
    """Neither handle nor key is committed yet when the erasure looks for them."""
    async with provider.transaction() as tx:
        key = await store.subject_key("users", "u1", session=tx)
        erasing = asyncio.create_task(elsewhere.start_erasure("u1"))
        await waits(provider)
    assert await erasing == [key.id]
    with pytest.raises(KeyErased):
        await store.subject_key("users", "u1")


# ---- what is remembered ---------------------------------------------------------------------------------------------


async def test_what_is_at_hand_is_used_for_five_seconds_unasked(store, elsewhere, clock):
    key = await store.subject_key("users", "u1")
    handle = await store.handle("u1")
    await elsewhere.start_erasure("u1")
    await elsewhere.destroy("u1")
    assert store.warm("users", "u1") is key  # its write would fail: `KeyLife` is asked in the write's transaction
    assert store.warm_key(key.id) is key
    clock.ahead = 5.0  # what the page on security promises
    assert store.warm("users", "u1") is None
    assert store.warm_key(key.id) is None
    with pytest.raises(KeyErased):
        await store.keys([key.id])
    assert await store.handle("u1", create=False) is None
    assert (await store.subject_key("users", "u1")).id != key.id
    assert await store.handle("u1") != handle


async def test_an_erasure_elsewhere_that_has_begun_stops_writes_and_not_reads(store, elsewhere, clock):
    key = await store.subject_key("users", "u1")
    await elsewhere.start_erasure("u1")
    clock.ahead = remembered.FRESH
    with pytest.raises(KeyErased):
        await store.subject_key("users", "u1")
    assert await store.keys([key.id]) == {key.id: key}


async def test_asking_again_is_one_small_query_while_nothing_changed(store, provider, clock, monkeypatch):
    keys = await store.subject_keys("users", [f"u{i}" for i in range(50)])
    statements = Statements(provider, monkeypatch)
    assert await store.subject_keys("users", keys) == keys
    assert statements.asked == []
    clock.ahead = remembered.FRESH
    assert await store.subject_keys("users", keys) == keys
    assert len(statements.asked) == 1
    assert await store.keys([key.id for key in keys.values()])
    assert await store.lookup_key("users", "email")
    assert len(statements.asked) == 3  # the lookup key was new: asked for, and made
    assert store.warm("users", "u7") is keys["u7"]


async def test_an_erasure_of_others_leaves_what_is_at_hand(store, elsewhere, clock):
    mine, theirs = await store.subject_key("users", "u1"), await store.subject_key("users", "u2")
    await elsewhere.start_erasure("u2")
    await elsewhere.destroy("u2")
    clock.ahead = remembered.FRESH
    assert await store.subject_key("users", "u1") is mine
    assert await store.keys([mine.id]) == {mine.id: mine}
    with pytest.raises(KeyErased):
        await store.keys([theirs.id])


async def test_what_was_read_before_an_erasure_was_noticed_is_not_remembered_after(store, elsewhere, clock):
    """A key is on its way from the store (its unwrapping waits for a vault) while another task notices its end."""
    key = await elsewhere.subject_key("users", "u1")
    real, reached, go = store._keyring, asyncio.Event(), asyncio.Event()

    class Slow:
        epoch = 1

        async def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
            reached.set()
            await go.wait()
            return await real.unwrap(wrapped, context)

    store._keyring = Slow()
    reading = asyncio.create_task(store.keys([key.id]))
    await reached.wait()
    await elsewhere.start_erasure("u1")
    await elsewhere.destroy("u1")
    clock.ahead = remembered.FRESH
    await store.handle("u2")  # asks, and notices
    go.set()
    assert key.id in await reading  # it was there when it was asked for
    assert store.warm_key(key.id) is None
    with pytest.raises(KeyErased):
        await store.keys([key.id])


async def test_opening_again_forgets_what_was_at_hand(store, elsewhere, clock):
    key = await store.subject_key("users", "u1")
    await elsewhere.start_erasure("u1")
    await elsewhere.destroy("u1")
    await store.open()
    clock.ahead = remembered.FRESH
    with pytest.raises(KeyErased):
        await store.keys([key.id])


async def test_an_older_store_that_was_restored_empties_the_memory(store, provider, clock):
    await store.subject_key("users", "u1")
    await store.start_erasure("u2")
    key = await store.subject_key("users", "u1")
    await provider.execute("UPDATE datavern_store SET changes = 0")
    await provider.execute("DELETE FROM datavern_keys")
    clock.ahead = remembered.FRESH
    with pytest.raises(KeyUnavailable):
        await store.keys([key.id])


async def test_keys_in_memory_are_dropped_after_a_while_used_or_not(store, monkeypatch):
    key = await store.subject_key("users", "u1")
    lookup = await store.lookup_key("users", "email")
    store._known.expire()  # half of the lifetime
    late = await store.subject_key("users", "u2")
    assert store.warm_key(key.id) is key
    store._known.expire()
    assert store.warm_key(key.id) is None
    assert store.warm_key(late.id) is late
    assert not store._known.lookup_keys
    again = await store.subject_key("users", "u1")
    assert (again.id, again is key) == (key.id, False)
    assert await store.lookup_key("users", "email") == lookup
    for _ in range(2):
        store._known.expire()
    assert not store._known.by_id
    assert store._known._timer is None


async def test_the_timer_drops_them_by_itself(store, monkeypatch):
    monkeypatch.setattr(remembered, "LIFETIME", 0.02)
    await store.subject_key("users", "u1")
    while store._known.by_id:  # noqa: ASYNC110  (the timer sets no event)
        await asyncio.sleep(0.01)
    await store.subject_key("users", "u1")
    store.close()
    assert not store._known.by_id


async def test_the_memory_is_bounded(store, provider, monkeypatch):
    monkeypatch.setattr(remembered, "REMEMBERED", 10)
    keys = await store.subject_keys("users", [f"u{i:02}" for i in range(30)])
    assert len(keys) == 30
    assert len(store._known.of_subject) == 10
    assert len(store._known.by_id) == 10
    again = await store.keys([key.id for key in keys.values()])
    assert set(again) == {key.id for key in keys.values()}
