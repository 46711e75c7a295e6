"""The datasets of one manager, as rows that are read and written; and which of them a table or collection is.

Beside those of the data map there is, in each database that can hold it, the built-in table.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from datavern.contracts.errors import ProviderError
from datavern.privacy.datamap.datamap import DataMap
from datavern.privacy.personal.built_in import PERSONAL_DATA
from datavern.privacy.personal.store import PersonalStore

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider

__all__ = ["Catalogue"]


class Catalogue:
    """The datasets of one manager.

    Args:
        databases: name → provider.
        data_map: which personal data lies where.
    """

    def __init__(self, databases: Mapping[str, Provider], data_map: DataMap) -> None:
        self._databases = databases
        self._data_map = data_map
        self._stores: dict[str, PersonalStore] = {}
        self._read: dict[str, PersonalStore] = {}  # those of them whose reads are audited, as callers get them
        self._own: dict[str, PersonalStore] = {}  # the built-in tables, by database

    @property
    def databases(self) -> Mapping[str, Provider]:
        """Name → provider."""
        return self._databases

    @property
    def datasets(self) -> list[PersonalStore]:
        """Every dataset of the data map, and the built-in tables."""
        return [*self._stores.values(), *self._own.values()]

    def personal(self, dataset: str) -> PersonalStore:
        """The rows of a dataset, sealed and opened.

        Raises:
            ConfigurationError: the data map has no dataset of that name.
        """
        return self._read.get(dataset) or self.unwatched(dataset)

    def unwatched(self, dataset: str) -> PersonalStore:
        """The same for Datavern itself, whose reads are not audited. Raises as `personal`."""
        found = self._stores.get(dataset)
        return found if found is not None else self._stores[self._data_map[dataset].name]

    def store_of(self, provider: Provider, table: str) -> PersonalStore | None:
        """The store of the dataset whose table that is, in a provider of the manager's; None where it is none."""
        database, stores = self._name(provider), self._stores.items()
        found = (n for n, s in stores if s.dataset.database == database and s.dataset.table == table)
        name = next(found, None)
        return None if name is None else self.personal(name)

    def name_of(self, provider: Provider) -> str:
        """The name of a provider in this manager; its own where it is none of them."""
        return self._name(provider) or provider.name

    def mapped_store(self, database: str, store: str) -> PersonalStore | None:
        """The dataset over that collection or key pattern, as an engine names it."""
        found = (s for s in self._stores.values() if s.dataset.database == database)
        return next((s for s in found if store in (getattr(s, "holding", s.dataset).store, s.dataset.table)), None)

    def mapped(self, provider: Provider) -> frozenset[str]:
        """The provider's tables that hold personal data: those of the data map, and the built-in one."""
        name = self._name(provider)
        if name is None:
            return frozenset()
        personal = (dataset.key or dataset.table for dataset in self._data_map.of_database(name) if dataset.personal)
        return frozenset({PERSONAL_DATA, *personal})

    def subject_path(self, provider: Provider, store: str) -> str | None:
        """The path that says whose a record of that store is, as the data map has it; None where it says nothing."""
        name = self._name(provider)
        found = (d.subject for d in self._data_map if d.database == name and d.table == store and d.key is None)
        return next(found, None)

    def label_of(self, provider: Provider, store: str) -> str:
        """What a collection or key pattern of a provider is called in the audit log: ``database.dataset``."""
        name = self.name_of(provider)
        of_database = self._data_map.of_database(name)
        return next((d.label for d in of_database if (d.key or d.table) == store), f"{name}.{store}")

    async def stores(self, also: Collection[str] = ()) -> list[PersonalStore]:
        """Every dataset that is about people, and the built-in tables that are there, or may be.

        Args:
            also: labels of built-in tables that count whether they are there or not.
        """
        stores = [store for store in self._stores.values() if store.dataset.subject is not None]
        for store in self._own.values():
            try:
                there = store.dataset.label in also or await store.exists()
            except ProviderError:
                there = True  # its database cannot be asked now
            if there:
                stores.append(store)
        return stores

    def _name(self, provider: Provider) -> str | None:
        return next((name for name, known in self._databases.items() if known is provider.face), None)
