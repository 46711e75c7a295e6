"""A process that is killed at the n-th thing that it says to its databases: with SIGKILL, and no chance to tidy up.

`Killers` keeps processes that have done such a job once, so that everything is loaded. One forks one that opens a
manager, begins, and dies: just before a statement is sent, or when it was sent and its answer never seen. What is
counted is what goes to the databases, and not what Datavern's code calls: the bytes written to a socket at once, the
statements of SQLite. So nothing can be done to a database between two places at which it was killed. SQLite's own
writing is cut, too: in the middle of a commit, at the n-th page, where the process dies or the disk is full.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from asyncio import selector_events
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from datavern import (
    DatabaseManager,
    DataMap,
    Dataset,
    Field,
    MongoDBProvider,
    PostgreSQLProvider,
    ProviderError,
    RedisProvider,
    RequestIncomplete,
    SQLiteProvider,
    SubjectRequest,
    SubjectResponse,
)

SEALED = {"name": Field(sealed=True, lookup=True), "plain": Field()}
LAW: dict[str, Any] = {"erasure": "retain", "retention": "5y", "legal_basis": "bokføringsloven § 13"}
_IN_TABLES = (
    Dataset("visits", database="main", subject="who", fields=SEALED),
    Dataset("people", database="main", subject="who", erasure="anonymize", fields=SEALED),
    Dataset("bills", database="other", subject="who", fields=SEALED, **LAW),
)
_IN_RECORDS = (
    Dataset("cases", database="documents", subject="owner.id"),
    Dataset("letters", database="documents", subject="who", erasure="anonymize", fields={"text": Field()}),
    Dataset("sessions", database="cache", key="session:{subject}"),
)
_PROVIDERS: dict[str, Any] = {
    "main": lambda s: _relational("main", s),
    "other": lambda s: _relational("other", s),
    "documents": lambda s: MongoDBProvider(name="documents", uri=s["uri"], location="norway"),
    "cache": lambda s: RedisProvider(name="cache", port=s["port"], location="norway"),
}


def _relational(name: str, settings: dict[str, Any]) -> Any:
    if "path" in settings:
        return SQLiteProvider(settings["path"], name=name, location="norway")
    return PostgreSQLProvider.from_url(settings["url"], name=name, location="norway")


def datasets(databases: dict[str, Any]) -> list[Dataset]:
    """Those that have a database."""
    return [dataset for dataset in (*_IN_TABLES, *_IN_RECORDS) if dataset.database in databases]


def manager(databases: dict[str, Any], keyring: str) -> DatabaseManager:
    """A manager over databases of these settings; `main` is the ledger."""
    providers = {name: _PROVIDERS[name](settings) for name, settings in databases.items()}
    return DatabaseManager(providers, data_map=DataMap(datasets(databases)), keyring=keyring, ledger="main")


_REFUSED = 3
_NOWHERE = 1_000_000_000
_WAL_HEADER, _WAL_FRAME = 32, 24 + 4096
_Transport: Any = selector_events._SelectorSocketTransport  # type: ignore[attr-defined]


async def work(db: DatabaseManager, job: dict[str, Any]) -> bool:
    """Do a job; whether all of it was done.

    Args:
        db: the manager.
        job: "subject" and "request" of an erasure, and for a rectification "changes"; or "subjects" and "batch"; or
            "release", the id of a hold.
    """
    if "release" in job:
        return all(isinstance(answer, SubjectResponse) for answer in await db.holds.release(job["release"]))
    if "subjects" in job:
        found = db.subject_requests.erase_many(job["subjects"], batch=job["batch"])
        return all([isinstance(answer, SubjectResponse) async for _, answer in found])
    if "changes" in job:
        request = SubjectRequest("rectification", subject=job["subject"], id=job["request"], changes=job["changes"])
    else:
        request = SubjectRequest("erasure", subject=job["subject"], id=job["request"])
    await db.subject_requests.process(request)
    return True


class Killers:
    """Processes that fork those that are killed, kept for whoever needs one next: to start one takes a second."""

    def __init__(self) -> None:
        self._idle: list[subprocess.Popen[str]] = []

    @contextmanager
    def one(self) -> Iterator[subprocess.Popen[str]]:
        """A process that nobody else uses meanwhile."""
        idle = self._idle
        process = (
            idle.pop()
            if idle
            else subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        try:
            yield process
        except BaseException:  # what it is doing is not known
            process.kill()
            process.communicate()
            raise
        idle.append(process)

    def close(self) -> None:
        """End them."""
        for process in self._idle:
            process.communicate()


class Killing:
    """Jobs that are cut off, in databases of these settings.

    Args:
        process: from `Killers.one`.
        databases: name → settings, for `manager`.
        keyring: the key ring's URL.
    """

    def __init__(self, process: subprocess.Popen[str], databases: dict[str, Any], keyring: str) -> None:
        self._process = process
        self._settings = {"databases": databases, "keyring": keyring}

    async def at(self, place: int, when: str, **job: Any) -> bool:
        """Run a job in a process that is cut off at that place; False when the job had ended before.

        Args:
            place: 1 for the first thing that is said, or the first page.
            when: killed "before" it is sent, or "after"; killed as SQLite writes that "page" to an empty write-ahead
                log; told that the disk is "full" there.
            job: as `work` takes it; with "again" it is done once more in the same process when the disk has room again.
        """
        answer = await self._ask({"place": place, "when": when, **job})
        if os.WIFSIGNALED(answer["status"]):
            assert os.WTERMSIG(answer["status"]) in (signal.SIGKILL, signal.SIGXFSZ)
            return True
        code = os.waitstatus_to_exitcode(answer["status"])
        assert code in (0, _REFUSED), "the job failed by itself"
        return code == _REFUSED

    async def do(self, **job: Any) -> None:
        """Run a job to its end, in a process of its own."""
        assert not await self.at(_NOWHERE, "before", **job)

    async def count(self, **job: Any) -> int:
        """Run a job to its end, and say how many things it says.

        In the process itself: those that it forks later need not load anything. That is most of their time.
        """
        return int((await self._ask({"place": 0, "when": "before", **job}))["said"])

    async def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps({**self._settings, **job}) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
            return answer

        return await asyncio.to_thread(ask)


# ---- in the process -------------------------------------------------------------------------------------------------


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Words:
    """What is said to the databases, counted once it is `armed`.

    Args:
        place: at which of them something happens.
        when: "before" it is sent, or "after".
        die: what happens; SIGKILL when left out.
    """

    def __init__(self, place: int, when: str, die: Callable[[], None] = _killed) -> None:
        self._place, self._when, self._die = place, when, die
        self.said = 0
        self.armed = False

    def _reached(self) -> bool:
        self.said += self.armed
        return self.armed and self.said == self._place

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Hear of every write to a socket, and of every statement of SQLite."""
        with ExitStack() as stack:
            patched = stack.enter_context
            for name in ("write", "writelines"):
                patched(mock.patch.object(_Transport, name, self._sending(getattr(_Transport, name))))
            patched(mock.patch.object(sqlite3, "connect", self._tracing(sqlite3.connect)))
            yield

    def _sending(self, original: Any) -> Any:
        def send(transport: Any, data: Any) -> Any:
            if not self._reached():
                return original(transport, data)
            if self._when == "before":
                self._die()
                return original(transport, data)
            original(transport, data)
            time.sleep(0.02)  # the server has it, and may have answered
            return self._die()

        return send

    def _tracing(self, original: Any) -> Any:
        def connect(*args: Any, **kwargs: Any) -> Any:
            connection = original(*args, **kwargs)
            connection.set_trace_callback(lambda _: self._die() if self._reached() else None)
            return connection

        return connect


async def _job(job: dict[str, Any]) -> int:
    """Do a job; how many things were said."""
    words = Words(job["place"], job["when"])
    with words.watch():
        async with manager(job["databases"], job["keyring"]) as db:
            words.armed = True
            assert await work(db, job)
            words.armed = False
    return words.said


async def _on_a_small_disk(job: dict[str, Any]) -> bool:
    """Do a job where no file grows beyond a size; whether it was done before it met that."""
    at_once = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with manager(job["databases"], job["keyring"]) as db:
        if job["when"] == "page":  # the system kills whoever goes beyond it
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (_WAL_HEADER + _WAL_FRAME * (job["place"] - 1), at_once[1]))
        try:
            done = await work(db, job)
        except (ProviderError, RequestIncomplete):
            done = False
        resource.setrlimit(resource.RLIMIT_FSIZE, at_once)
        if not done and "again" in job:
            assert await work(db, job)
    return done


def _forked(job: dict[str, Any]) -> dict[str, Any]:
    process = os.fork()
    if not process:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  (the answers are its parent's)
        try:
            if job["when"] in ("before", "after"):
                asyncio.run(_job(job))
                os._exit(0)
            os._exit(0 if asyncio.run(_on_a_small_disk(job)) else _REFUSED)
        finally:
            traceback.print_exc()
            os._exit(1)
    return {"status": os.waitpid(process, 0)[1]}


def _serve() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        answer = _forked(job) if job["place"] else {"said": asyncio.run(_job(job))}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    _serve()
