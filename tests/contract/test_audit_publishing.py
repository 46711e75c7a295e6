"""Checkpoints that are published out of reach: a log that was set back is found, and nothing is signed on top of it."""

import asyncio
import logging
import os
import stat
from pathlib import Path

import pytest

from datavern import AuditError, ConfigurationError, DatabaseManager, LogTampered, SQLiteProvider
from datavern.audit.checkpoint import Checkpoint
from datavern.audit.publishing import DatabasePublisher, FilePublisher, ObjectPublisher
from datavern.crypto.signing import Signer

SIGNER = Signer("datavern/test", b"\7" * 32)


class Folder:
    """An object store: names and bytes."""

    def __init__(self, path):
        self.path = path

    def _file(self, name):
        return self.path / name.replace("/", "%")

    async def put(self, name, data):
        self.path.mkdir(exist_ok=True)
        self._file(name).write_bytes(data)

    async def get(self, name):
        file = self._file(name)
        return file.read_bytes() if file.exists() else None


@pytest.fixture
async def archive(tmp_path):
    async with SQLiteProvider(tmp_path / "archive.db", name="archive", location="norway") as archive:
        yield archive


@pytest.fixture(params=["file", "database", "object store"])
def publisher(request, tmp_path, archive):
    return {
        "file": lambda: FilePublisher(tmp_path / "published"),
        "database": lambda: DatabasePublisher(archive),
        "object store": lambda: ObjectPublisher(Folder(tmp_path / "objects")),
    }[request.param]()


def checkpoint(size, root=b"\1", origin="datavern/æ/main", at="2026-11-28T00:00:00.000000Z"):
    return Checkpoint.sign(SIGNER, origin=origin, size=size, root=root * 32, at=at)


async def test_what_is_published_is_there_and_never_less(publisher):
    first, second = checkpoint(3), checkpoint(5)
    assert await publisher.latest(first.origin) is None
    await publisher.publish(first)
    await publisher.publish(first)
    assert await publisher.latest(first.origin) == first
    await asyncio.gather(publisher.publish(second), publisher.publish(second))
    await publisher.publish(first)  # of a process that was slower
    assert (await publisher.latest(first.origin)).verified([SIGNER.verifier]) == second
    with pytest.raises(LogTampered, match="another checkpoint of 5 entries: not the same log"):
        await publisher.publish(checkpoint(5, b"\2"))
    assert await publisher.latest(first.origin) == second
    assert await publisher.latest("datavern/o/main") is None
    await publisher.publish(checkpoint(1, origin="datavern/o/main"))
    assert await publisher.latest(first.origin) == second
    assert (await publisher.latest("datavern/o/main")).size == 1


async def test_a_folder_keeps_all_of_them(tmp_path):
    publisher = FilePublisher(tmp_path / "published")
    for size, at in ((1, "2026-10-31T23:59:59.000000Z"), (2, "2026-11-01T00:00:00.000000Z"), (3, "2026-11-02")):
        await publisher.publish(checkpoint(size, at=at))
    files = sorted(f.name for f in (tmp_path / "published").iterdir() if not f.name.startswith("."))
    assert [f.rpartition(".")[2] for f in files] == ["checkpoints", "checkpoints", "latest"]
    november = Checkpoint.load(tmp_path / "published" / next(f for f in files if "2026-11" in f))
    assert [c.size for c in (november, *november.others)] == [2, 3]


async def test_what_a_folder_has_published_outlives_a_power_cut(tmp_path, monkeypatch):
    """The new names are flushed after they were given: a renamed file is lost with its folder otherwise."""
    done, fsync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(stat.S_ISDIR(os.fstat(file).st_mode)), fsync(file)))
    monkeypatch.setattr(Path, "replace", lambda old, new: (done.append("renamed"), replace(old, new))[1])
    await FilePublisher(tmp_path / "published").publish(checkpoint(1))
    assert done[-2:] == ["renamed", True]


async def test_a_folder_that_is_none_says_so(tmp_path):
    (tmp_path / "taken").write_text("")
    publisher = FilePublisher(tmp_path / "taken")
    with pytest.raises(AuditError, match=r"file:.*taken cannot be (written|read)"):
        await publisher.publish(checkpoint(1))


# ---- the service ----------------------------------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path):
    return SQLiteProvider(tmp_path / "other.db", name="other", location="norway")


async def set_back(provider, path, old):
    await provider.close()
    for name in (f"{path.name}-wal", f"{path.name}-shm"):
        (path.parent / name).unlink(missing_ok=True)
    path.write_bytes(old)
    await provider.connect()


async def test_a_log_that_was_set_back_is_found_and_not_sealed_over(managed, database, tmp_path, other, publisher):
    databases = {"main": database.provider(location="norway"), "other": other}
    async with managed(databases=databases, checkpoints=[publisher]) as db:
        await db.audit.record("first", database="other")
        await db.audit.seal()
        await other.close()
        old = (tmp_path / "other.db").read_bytes()
        await other.connect()
        await db.audit.record("second", database="other")
        await db.audit.seal()
        report = await db.audit.verify()
        assert (report.ok, report.rollback_checked) == (True, True)  # without anybody keeping a checkpoint
        await set_back(other, tmp_path / "other.db", old)
        report = await db.audit.verify()
        assert [(p.log, p.position) for p in report.problems] == [("other", 1)]
        assert not (await db.audit.verify(sample=1)).ok
        await db.audit.record("to hide it", database="other")
        with pytest.raises(LogTampered, match="set back"):
            await db.audit.seal()
        with pytest.raises(LogTampered, match="set back"):
            await asyncio.wait_for(db.audit.keep_sealed(every=0.01), 60)


async def test_a_database_vouches_for_others_and_not_for_itself(managed, database, tmp_path):
    databases = {
        "main": database.provider(location="norway"),
        "archive": SQLiteProvider(tmp_path / "a.db", name="archive", location="norway"),
    }
    async with managed(databases=databases, checkpoints=["database:archive"]) as db:
        await db.audit.record("first")
        await db.audit.seal()
        origins = [row[0] for row in await db["archive"].query("SELECT origin FROM datavern_audit_published")]
        assert [origin.rpartition("/")[2] for origin in origins] == ["main"]
        assert not (await db.audit.verify()).rollback_checked  # the archive's own log was compared with nothing


async def test_a_publisher_that_cannot_be_reached_loses_nothing(managed, database, tmp_path, caplog):
    folder = tmp_path / "published"
    async with managed(checkpoints=[f"file:{folder}"]) as db:
        await db.audit.seal()
        folder.rename(tmp_path / "away")
        folder.write_text("")
        await db.audit.record("first")
        with pytest.raises(AuditError, match="cannot be read"):
            await db.audit.seal()
        with caplog.at_level(logging.WARNING, logger="datavern.audit"):
            sealing = asyncio.create_task(db.audit.keep_sealed(every=0.01))
            while not caplog.messages:  # noqa: ASYNC110  (it is a log that is waited for)
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert len(caplog.messages) == 1  # told once
            folder.unlink()
            (tmp_path / "away").rename(folder)
            while (await db.audit.verify()).unsealed:  # noqa: ASYNC110  (it is a database that is waited for)
                await asyncio.sleep(0.01)
        sealing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sealing
        report = await db.audit.verify()
        assert (report.ok, report.rollback_checked) == (True, True)


async def test_several_processes_that_seal_and_publish_agree(managed, database, keyring, tmp_path):
    """Two managers of the same database, each with connections of its own, as two processes have them."""
    checkpoints = [f"file:{tmp_path / 'published'}"]
    async with managed(checkpoints=checkpoints) as one, managed(checkpoints=checkpoints) as two:
        sealing = [asyncio.create_task(db.audit.keep_sealed(every=0.01)) for db in (one, two, one)]
        for n in range(60):
            await (one, two)[n % 2].audit.record("did", details={"n": n})
        await one.audit.seal()
        assert not any(task.done() for task in sealing)
        for task in sealing:
            task.cancel()
        await asyncio.gather(*sealing, return_exceptions=True)
        await two.audit.seal()
        report = await one.audit.verify()
        assert (report.ok, report.entries, report.unsealed, report.rollback_checked) == (True, 60, 0, True)


@pytest.mark.parametrize(
    ("checkpoints", "said"),
    [
        (["ftp:x"], "ftp:x: expected file:folder or database:name"),
        (["file:"], "expected file:folder"),
        (["database:nowhere"], "no database is named nowhere"),
        (["database:main"], "main is the ledger"),
    ],
)
def test_a_place_that_is_none_is_refused(managed, checkpoints, said):
    with pytest.raises(ConfigurationError, match=said):
        managed(checkpoints=checkpoints)


def test_checkpoints_without_keys_are_refused(database):
    with pytest.raises(ConfigurationError, match="without a keyring there is no audit log"):
        DatabaseManager({"main": database.provider(location="norway")}, checkpoints=["file:x"])


def test_a_configuration_file_names_folders_beside_itself(tmp_path):
    (tmp_path / "datavern.toml").write_text(
        '[datavern]\nledger = "main"\nkeyring = "file:keys"\ncheckpoints = ["file:published", "database:archive"]\n'
        '[databases.main]\nprovider = "sqlite"\npath = "a.db"\nlocation = "norway"\n'
        '[databases.archive]\nprovider = "sqlite"\npath = "b.db"\nlocation = "norway"\n'
    )
    db = DatabaseManager.from_config(tmp_path / "datavern.toml")
    assert db._checkpoints == (f"file:{tmp_path / 'published'}", "database:archive")


async def test_what_was_removed_is_recorded(managed):
    import datetime as dt

    async with managed() as db:
        await db.audit.record("first")
        await db.audit.seal()
        assert (await db.audit.truncate(dt.datetime.now(dt.UTC)))["main"].size >= 1
        lines = [line async for line in db.audit.export()]
        assert [line.get("log") for line in lines] == ["main", "main"]
        (entry,) = await db["main"].query("SELECT * FROM datavern_audit")
        assert (entry["action"], '"entries":' in entry["details"]) == ("audit.truncate", True)
        await db.audit.seal()
        report = await db.audit.verify()
        assert (report.ok, report.entries) == (True, 1)
        with pytest.raises(ConfigurationError, match="no log is in nowhere"):
            [line async for line in db.audit.export("nowhere")]
