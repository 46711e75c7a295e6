"""Handles: the random names of people in the audit log, unlinked when they are erased."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic

from datavern.contracts.capabilities import Session
from datavern.contracts.errors import ConstraintViolated, KeyErased, SerializationConflict
from datavern.crypto.erasures import ATTEMPTS, contended
from datavern.crypto.key_rows import LIVING, handle_row
from datavern.crypto.open_store import OpenStore

__all__ = ["Handles"]


class Handles(OpenStore):
    """The part of a `KeyStore` that gives people their handles."""

    async def handle(self, subject: str, *, create: bool = True, session: Session | None = None) -> str | None:
        """The random name of a subject in the audit log; unlinked when the subject is erased.

        Args:
            subject: canonical id.
            create: make one for a subject that has none.
            session: see the class.

        Returns:
            32 hexadecimal digits; None when there is none and none was to be made.
        """
        if self._known.stale:
            await self._refresh(session)
        remembered = self._known.handles.get(subject)
        if remembered is not None:
            return remembered[1]
        tag, seen = self.subject_tag(subject), self._known.changes
        for _ in range(ATTEMPTS):
            handle: str | None = await self._session(session).query_value(
                *self._sql.handle.bind(self._dialect, tag=tag)
            )
            if handle is None and create:
                row = handle_row(tag)
                try:
                    async with self._transaction(session) as tx:
                        await tx.execute(*self._sql.insert_handle.bind(self._dialect, **row))
                except (ConstraintViolated, SerializationConflict):
                    continue
                handle = row["handle"]
            if handle is not None:
                self._known.keep(self._known.handles, subject, (tag, handle), self._seen(session, seen))
            return handle
        raise contended(self._provider)

    async def handle_of(self, tag: bytes) -> str | None:
        """The handle of the subject that has that keyed tag; None when there is none."""
        found: str | None = await self._session().query_value(*self._sql.handle.bind(self._dialect, tag=tag))
        return found

    async def tags(self, handles: Iterable[str]) -> set[bytes]:
        """The tags of the people whom the audit log names by these handles; of those who were erased there is none."""
        found: set[bytes] = set()
        wanted = list(dict.fromkeys(handles))
        for statement in self._sql.tags_of_handles.bind(self._dialect, wanted):
            found.update(bytes(row[0]) for row in await self._session().query(*statement))
        return found

    def known_handle(self, subject: object) -> str | None:
        """The handle, where it is at hand and nothing has to be asked for it; what is no canonical id has none."""
        known = self._known
        if type(subject) is not str or monotonic() >= known.fresh_until:
            return None
        remembered = known.handles.get(subject)
        return None if remembered is None else remembered[1]

    async def hold_handle(self, subject: str, *, session: Session) -> str:
        """The handle, made where there is none, and held: an erasure of the subject starts before this, or waits.

        For what is kept under the handle beside the subject's tag: an erasure finds it, or it is not written. What is
        at hand in memory may be the handle of somebody who was erased a moment ago, and is not asked.

        Args:
            subject: canonical id.
            session: an open transaction of the ledger's own provider; the handle is held until it ends.

        Raises:
            KeyErased: an erasure of the subject runs.
        """
        tag = self.subject_tag(subject)
        for _ in range(ATTEMPTS):
            for statement in self._sql.handles_held.bind(self._dialect, (tag,)):
                for _, handle, state in await session.query(*statement):
                    if state != LIVING:
                        raise KeyErased("an erasure of the subject runs: nothing is recorded about it meanwhile")
                    return str(handle)
            row = handle_row(tag)
            try:
                async with self._transaction(session) as tx:
                    await tx.execute(*self._sql.insert_handle.bind(self._dialect, **row))
            except ConstraintViolated:
                continue  # somebody else made it, or an erasure closed it, just now
            return str(row["handle"])
        raise contended(self._provider)
