"""The five ways to run a statement: the same on a provider and on a transaction."""

from __future__ import annotations

import sqlite3
from asyncio import CancelledError
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import QueryRejected
from datavern.contracts.values import Parameters
from datavern.engines.sqlite.jobs import Job, Run, run_all, run_count, run_function, run_many, run_one, run_value

if TYPE_CHECKING:
    from datavern.contracts.fused import Entry

__all__ = ["Statements", "run_job"]


class Statements:
    """Statements on whatever `_submit` sends them to."""

    __slots__ = ()

    def _submit(self, run: Run, sql: Any, parameters: Any) -> Job:
        raise NotImplementedError

    def _send(self, run: Run, sql: Any, parameters: Any) -> Job:
        raise NotImplementedError

    def _submit_fused(self, sql: Any, parameters: Any, audit: Entry | None, key: str | None) -> Job:
        raise NotImplementedError

    def _abandon(self, job: Job) -> None:
        raise NotImplementedError

    async def query(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """All rows of a statement; an empty list when there are none.

        Raises:
            ProviderError: see `datavern.contracts.capabilities.Session`.
        """
        job = self._submit(run_all, sql, parameters)
        try:
            return await job  # type: ignore[no-any-return]  # what the job returns
        except CancelledError:
            self._abandon(job)
            raise

    async def query_one(self, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        """The first row, or None."""
        job = self._submit(run_one, sql, parameters)
        try:
            return await job  # type: ignore[no-any-return]  # what the job returns
        except CancelledError:
            self._abandon(job)
            raise

    async def query_value(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first column of the first row, or None."""
        job = self._submit(run_value, sql, parameters)
        try:
            return await job
        except CancelledError:
            self._abandon(job)
            raise

    async def execute(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        audit: Entry | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """Run a statement; how many rows it inserted, updated or deleted (0 for anything else).

        With `audit` or `idempotency_key` (see `datavern.contracts.capabilities.Session`) it is one job of the writer
        together with them.
        """
        if audit is None and idempotency_key is None:
            job = self._submit(run_count, sql, parameters)
        else:
            job = self._submit_fused(sql, parameters, audit, idempotency_key)
        try:
            return await job  # type: ignore[no-any-return]  # what the job returns
        except CancelledError:
            self._abandon(job)
            raise

    async def execute_many(self, sql: str, parameters: Iterable[Parameters]) -> int:
        """Run a statement once for each set of parameters, all or none of them; how many sets were run."""
        if not isinstance(parameters, Iterable):
            raise QueryRejected(f"parameters are a {type(parameters).__name__}: expected a list of sets of parameters")
        sets = parameters if isinstance(parameters, list) else list(parameters)
        job = self._submit(run_many, sql, sets)
        try:
            return await job  # type: ignore[no-any-return]  # what the job returns
        except CancelledError:
            self._abandon(job)
            raise

    async def _run(self, function: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run a function of the connection as one job: several statements for one hop, kept or undone together."""
        job = self._send(run_function, function, None)
        try:
            return await job
        except CancelledError:
            self._abandon(job)
            raise


async def run_job(session: Any, job: Any) -> Any:
    """What a job that was sent to `session` returns."""
    try:
        return await job
    except CancelledError:
        session._abandon(job)  # noqa: SLF001  (the engine's own)
        raise
