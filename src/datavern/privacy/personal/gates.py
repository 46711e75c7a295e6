"""What engines ask before a call of their own uses somebody's data: documents, files, keys and values.

`db.personal` asks for itself. A driver's own client asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConsentRequired, ProcessingRestricted
from datavern.privacy.datamap.dataset import Dataset

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider
    from datavern.privacy.consent.standing import Standing
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.service import Privacy

__all__ = ["EngineGate"]


class EngineGate:
    """The gate of one provider's calls: see `datavern.contracts.services.Gate`.

    Args:
        privacy: knows the datasets, and what stands against their use.
        provider: whose calls.
    """

    __slots__ = ("_asks", "_name", "_privacy", "_standing", "_unmapped")

    def __init__(self, privacy: Privacy, provider: Provider) -> None:
        self._privacy = privacy
        self._standing: Standing = privacy.standing
        self._name = privacy.name_of(provider)
        stores = [s for s in privacy.datasets if s.dataset.database == self._name]
        self._asks = any(store.dataset.require_consent == "read" for store in stores)
        self._unmapped: dict[str, Dataset] = {}

    def due(self) -> bool:
        """Whether anything is to be asked now: no I/O, and nearly always no."""
        standing = self._standing
        return bool(standing.marks) or self._asks or standing.until <= monotonic()

    async def admit(
        self,
        store: str,
        *,
        rows: Sequence[Mapping[str, Any]] = (),
        tags: Iterable[bytes] = (),
        writing: bool,
    ) -> None:
        """See `datavern.contracts.services.Gate.admit`."""
        standing, people = self._standing, list(tags)
        if standing.until <= monotonic():
            await standing.ask()
        if not (standing.marks or self._asks):
            return
        mapped = self._privacy.mapped_store(self._name, store)
        if mapped is None:
            privacy = self._privacy
            dataset = self._unmapped.get(store)
            if dataset is None:
                dataset = self._unmapped[store] = Dataset(store, database=self._name, subject="_id")
            await standing.admit(dataset, people, writing=writing, consents=privacy.consents, log=privacy.ledger_log)
            return
        people += await self._of_rows(mapped, rows)
        await (mapped.admit(people) if writing else mapped.let_see(people))

    async def _of_rows(self, store: PersonalStore, rows: Sequence[Mapping[str, Any]]) -> list[bytes]:
        if not rows:
            return []
        plan = await store.rows()
        return [tag for row in await store.marked(rows) for tag in store.tags_of(plan, row)]

    async def hidden(
        self, store: str, rows: Sequence[Sequence[Mapping[str, Any]]], tags: Sequence[Sequence[bytes]]
    ) -> set[int]:
        """See `datavern.contracts.services.Gate.hidden`."""
        hidden = set()
        for at, (own, theirs) in enumerate(zip(rows, tags, strict=True)):
            try:
                await self.admit(store, rows=own, tags=theirs, writing=False)
            except (ProcessingRestricted, ConsentRequired):
                hidden.add(at)
        return hidden
