"""Writes to personal data that must leave an audit entry: what ``compliance=["nsm"]`` asks for.

The entry is written into the ledger's log before the change (NSM's basic principles 3.2.4 and 3.2.5): MongoDB has no
transaction that it could commit with. PyMongo's own client and database, which `MongoDBProvider.client` and
`MongoDBProvider.database` hand out, are not looked at.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pymongo.asynchronous.collection import AsyncCollection

from datavern.contracts.errors import PrivacyError

if TYPE_CHECKING:
    from pymongo.asynchronous.database import AsyncDatabase

    from datavern.contracts.capabilities import Services
    from datavern.engines.mongodb.provider import MongoDBProvider

__all__ = ["Audited", "ReadCollection"]

T = TypeVar("T")
_WRITES: Final = frozenset({
    "insert_one", "insert_many", "update_one", "update_many", "replace_one", "delete_one", "delete_many", "bulk_write",
    "find_one_and_update", "find_one_and_replace", "find_one_and_delete", "drop", "rename",
})  # fmt: skip
_STAGES: Final = frozenset({"$out", "$merge"})


class ReadCollection(AsyncCollection[dict[str, Any]]):
    """PyMongo's collection, without the calls that write.

    Args:
        database: PyMongo's.
        name: the collection's.
        provider: the provider's name, for messages.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]], name: str, provider: str) -> None:
        super().__init__(database, name)
        self._datavern_provider = provider

    def __getattribute__(self, name: str) -> Any:
        if name in _WRITES:
            raise _refused(object.__getattribute__(self, "_datavern_provider"), self.name)
        return super().__getattribute__(name)

    async def aggregate(self, pipeline: Any, *args: Any, **more: Any) -> Any:
        """As PyMongo's, for pipelines that only read."""
        if any(not _STAGES.isdisjoint(stage) for stage in pipeline):
            raise _refused(self._datavern_provider, self.name)
        return await super().aggregate(pipeline, *args, **more)

    def with_options(self, *args: Any, **more: Any) -> Any:
        """As PyMongo's; what comes back only reads too."""
        other = super().with_options(*args, **more)
        made = ReadCollection(self.database, self.name, self._datavern_provider)
        for setting in ("_codec_options", "_read_preference", "_write_concern", "_read_concern"):
            setattr(made, setting, getattr(other, setting))
        return made


def _refused(provider: str, name: str) -> PrivacyError:
    return PrivacyError(
        f"{provider}: {name} holds personal data, and compliance nsm refuses writes without an audit entry (NSM "
        "3.2.4): write through db.personal(…), insert_document or replace_document"
    )


class Audited:
    """Which writes of a provider leave an audit entry.

    Args:
        provider: the provider.

    Attributes:
        asked: whether compliance asks for it.
        stores: the collections that the data map names; empty where it is not asked for.
    """

    __slots__ = ("_provider", "asked", "stores")

    def __init__(self, provider: MongoDBProvider) -> None:
        self._provider = provider
        self.asked = "nsm" in provider.compliance
        self.stores: frozenset[str] = frozenset()

    def attach(self, services: Services) -> None:
        """The manager's services, which know the data map."""
        if self.asked:
            self.stores = services.mapped(self._provider)

    async def note(self, store: str, action: str, subject: object) -> None:
        """Write the entry of a change that is about to be made, where one is asked for."""
        if self.asked and (subject is not None or store in self.stores):
            services = await self._provider.keys.services("compliance nsm")
            await services.note(self._provider, store, action, subject=subject)

    async def before(self, change: Coroutine[Any, Any, T], store: str, action: str, subject: object) -> T:
        """Make a change, after its entry was written; no change where it cannot be."""
        try:
            await self.note(store, action, subject)
        except BaseException:
            change.close()
            raise
        return await change
