"""Writes that no transaction guards: to engines where a write cannot hold its key (`KeyLife`) until it is done.

Such a write asks the key store whether its key lives, before it is sent and again when it is acknowledged; one answer
holds for `BOUND` seconds. A write that an answer still covers when it is acknowledged was made before `BOUND` seconds
had passed since any erasure that the answer does not know of. So an erasure that looks for what is left once those
seconds have passed sees it; and one that no answer covers is taken back by its own writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING, Final

from datavern.crypto.key_rows import LIVING
from datavern.crypto.remembered import FRESH

if TYPE_CHECKING:
    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.sealed import DataKey

__all__ = ["BOUND", "Unguarded"]

BOUND: Final = 0.05
"""Seconds for which one answer covers such writes: what an erasure waits before it looks again."""

_SPARE: Final = FRESH - BOUND


class Unguarded:
    """The keys of such writes.

    Args:
        store: the key store.
    """

    __slots__ = ("_asking", "_known", "_store")

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._known = store._known  # noqa: SLF001  (a part of the store)
        self._asking: asyncio.Task[None] | None = None

    def warm(self, dataset: str, subject: str) -> DataKey | None:
        """The subject's key, where an answer covers a write at this moment: no I/O. None: ask `key`."""
        known = self._known
        return known.of_subject.get((dataset, subject)) if monotonic() < known.fresh_until - _SPARE else None

    async def key(self, dataset: str, subject: str) -> DataKey:
        """The subject's key, for a write that is made now.

        Raises:
            KeyErased: an erasure of the subject runs.
        """
        key = self.warm(dataset, subject)
        if key is None:
            await self._ask()
            key = await self._store.subject_key(dataset, subject)
        return key

    async def keys(self, dataset: str, subjects: Iterable[str]) -> dict[str, DataKey]:
        """The same for several subjects."""
        await self._ask()
        return await self._store.subject_keys(dataset, subjects)

    async def covers(self, key: DataKey, subject: str) -> bool:
        """Whether a write under that key, acknowledged just now, may stay. False: its writer has to take it back."""
        dataset = key.dataset
        if self.warm(dataset, subject) is key:
            return True
        await self._ask()
        if self._known.of_subject.get((dataset, subject)) is key:
            return True
        tag = self._store.subject_tag(subject)
        stored = await self._store._stored(dataset, [tag], None)  # noqa: SLF001  (a part of the store)
        return any(found.id == key.id and state == LIVING for _, found, state in stored)

    async def _ask(self) -> None:
        """Have an answer that was asked for at most `BOUND` seconds before this call; callers share one question."""
        due = monotonic() - BOUND
        while self._known.fresh_until - FRESH < due:
            asking = self._asking
            if asking is None or asking.done():
                asking = self._asking = asyncio.create_task(self._store._refresh())  # noqa: SLF001  (a part of the store)
                asking.add_done_callback(_heard)
            await asyncio.shield(asking)


def _heard(asked: asyncio.Task[None]) -> None:
    """Take note of what went wrong, where every caller was cancelled meanwhile."""
    if not asked.cancelled():
        asked.exception()
