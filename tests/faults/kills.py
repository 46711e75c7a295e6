"""A process that is killed at the n-th thing that it says to its databases: with SIGKILL, and no chance to tidy up.

`Killing` keeps a process that has done such a job once, so that everything is loaded. It forks one that opens a
manager, begins, and dies: just before a statement is sent, or when it was sent and its answer never seen. What is
counted is what goes to the databases, and not what Datavern's code calls: the bytes written to a socket at once, the
statements of SQLite. So nothing can be done to a database between two places at which it was killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from asyncio import selector_events
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from unittest import mock

from datavern import (
    DatabaseManager,
    DataMap,
    Dataset,
    Field,
    MongoDBProvider,
    PostgreSQLProvider,
    RedisProvider,
    SQLiteProvider,
    SubjectRequest,
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


_Transport: Any = selector_events._SelectorSocketTransport  # type: ignore[attr-defined]


class Killing:
    """A process that forks those that are killed.

    Args:
        databases: name → settings, for `manager`.
        keyring: the key ring's URL.
    """

    def __init__(self, databases: dict[str, Any], keyring: str) -> None:
        self._settings = {"databases": databases, "keyring": keyring}
        self._process: Any = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            json.dumps(self._settings),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._process.stdin.close()
        await self._process.wait()

    async def at(self, place: int, when: str, **job: Any) -> bool:
        """Run a job in a process that is killed at that place; False when the job had ended before.

        Args:
            place: 1 for the first thing that is said.
            when: "before" it is sent, or "after".
            job: "subject" and "request", or "subjects" and "batch", and for a rectification "changes".
        """
        answer = await self._ask({"place": place, "when": when, **job})
        if os.WIFSIGNALED(answer["status"]):
            assert os.WTERMSIG(answer["status"]) == signal.SIGKILL
            return True
        assert answer["status"] == 0, "the job failed by itself"
        return False

    async def count(self, **job: Any) -> int:
        """Run a job to its end, and say how many things it says.

        In the process itself: those that it forks later need not load anything. That is most of their time.
        """
        return int((await self._ask({"place": 0, "when": "before", **job}))["said"])

    async def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        async with asyncio.timeout(120):
            answer: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return answer


# ---- in the process -------------------------------------------------------------------------------------------------


class _Words:
    """What is said to the databases, counted once it is `armed`."""

    def __init__(self, place: int, when: str) -> None:
        self._place, self._when = place, when
        self.said = 0
        self.armed = False

    def _reached(self) -> bool:
        self.said += self.armed
        return self.armed and self.said == self._place

    def _die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

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
            if self._when == "after":
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


async def _job(settings: dict[str, Any], job: dict[str, Any]) -> int:
    """Do a job; how many things were said."""
    words = _Words(job["place"], job["when"])
    with words.watch():
        await _done(settings, job, words)
    return words.said


async def _done(settings: dict[str, Any], job: dict[str, Any], words: _Words) -> None:
    async with manager(settings["databases"], settings["keyring"]) as db:
        words.armed = True
        if "subjects" in job:
            async for _ in db.subject_requests.erase_many(job["subjects"], batch=job["batch"]):
                pass
        elif "changes" in job:
            request = SubjectRequest("rectification", subject=job["subject"], id=job["request"], changes=job["changes"])
            await db.subject_requests.process(request)
        else:
            await db.subject_requests.process(SubjectRequest("erasure", subject=job["subject"], id=job["request"]))
        words.armed = False


def _forked(settings: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    process = os.fork()
    if not process:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  (the answers are its parent's)
        asyncio.run(_job(settings, job))
        os._exit(0)
    return {"status": os.waitpid(process, 0)[1]}


def _serve(settings: dict[str, Any]) -> None:
    for line in sys.stdin:
        job = json.loads(line)
        answer = _forked(settings, job) if job["place"] else {"said": asyncio.run(_job(settings, job))}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    _serve(json.loads(sys.argv[1]))
