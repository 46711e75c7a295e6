"""The data map: which personal data lies where, whose it is, why it may be there, and how it ends.

One entry for each table (dataset.py). What two entries say must agree: that is checked as the map is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from datavern.config import checked
from datavern.contracts.errors import CapabilityMissing, ConfigurationError
from datavern.privacy.datamap.dataset import NO_KEYS, OWN_DATASETS, Dataset, Field

__all__ = ["DataMap", "Dataset", "Field"]


class DataMap:
    """All datasets of an application. It cannot be changed; it is read in the order in which it was written.

    Raises:
        ConfigurationError: two datasets of one name, or over one table without leaving each other's people alone; a
            `subject_via` that leads nowhere, in a circle, or to rows that are gone when those that the law keeps must
            still say whose they are.
    """

    __slots__ = ("_by_name",)

    def __init__(self, datasets: Iterable[Dataset] = ()) -> None:
        self._by_name: dict[str, Dataset] = {}
        tables: dict[tuple[str, str], list[Dataset]] = {}
        for dataset in datasets:
            if not isinstance(dataset, Dataset):
                raise ConfigurationError("a data map is made of Dataset(…)")
            if dataset.name.startswith(OWN_DATASETS) or dataset.table.startswith("datavern_"):
                raise ConfigurationError(f"datasets.{dataset.name}: names that start with datavern are Datavern's own")
            if dataset.name in self._by_name:
                raise ConfigurationError(f"datasets.{dataset.name}: there are two datasets of that name")
            beside = tables.setdefault((dataset.database, dataset.key or dataset.table), [])
            for other in beside:
                _check_shared(dataset, other)
            beside.append(dataset)
            self._by_name[dataset.name] = dataset
        for dataset in self:
            self._check_via(dataset)

    @classmethod
    def from_mapping(cls, tables: Mapping[str, Mapping[str, Any]], path: str = "datasets") -> DataMap:
        """The map as TOML writes it: ``[datasets.users]``, ``[datasets.users.fields.email]``.

        Args:
            tables: name → the dataset's table.
            path: where they stand, for messages.

        Raises:
            ConfigurationError: a typo, a wrong type or a contradiction, with the path of its key.
        """
        datasets = []
        for name, values in tables.items():
            where = f"{path}.{name}"
            given = dict(values)
            if "name" in given:
                raise ConfigurationError(f"{where}.name: the table's own name is the dataset's; leave it out")
            fields = given.get("fields", {})
            if not isinstance(fields, Mapping):
                raise ConfigurationError(f"{where}.fields: expected a table of fields")
            made = {}
            for key, settings in fields.items():
                if not isinstance(settings, Mapping):
                    raise ConfigurationError(f"{where}.fields.{key}: expected a table, such as {{ sealed = true }}")
                made[key] = checked(Field, settings, path=f"{where}.fields.{key}")
            datasets.append(_dataset({**given, "name": name, "fields": made}, name, where))
        return cls(datasets)

    def __iter__(self) -> Iterator[Dataset]:
        """The datasets, in order."""
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Dataset:
        """The dataset of that name.

        Raises:
            ConfigurationError: there is none; the nearest name is given.
        """
        found = self._by_name.get(name)
        if found is None:
            import difflib  # noqa: PLC0415  (only when there is a mistake to tell of)

            near = difflib.get_close_matches(name, self._by_name, n=1)
            there_are = ", ".join(self._by_name) or "none"
            hint = f"did you mean {near[0]}?" if near else f"there are: {there_are}"
            raise ConfigurationError(f"no dataset is named {name} in the data map; {hint}")
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataMap) and self._by_name == other._by_name

    __hash__ = None  # type: ignore[assignment]  # it holds dicts

    def __repr__(self) -> str:
        return f"DataMap([{', '.join(self._by_name)}])"

    def of_database(self, database: str) -> list[Dataset]:
        """The datasets that lie in that database."""
        return [dataset for dataset in self if dataset.database == database]

    def check_databases(self, databases: Mapping[str, Any]) -> None:
        """Check that every dataset's database is there, and can hold it.

        Raises:
            ConfigurationError: no database of that name, a dataset that its engine cannot find people in, or end as its
                policy says.
            CapabilityMissing: a `key` pattern on an engine with tables.
        """
        for dataset in self:
            if dataset.database not in databases:
                there_are = ", ".join(databases) or "none"
                raise ConfigurationError(
                    f"datasets.{dataset.name}.database: no database is named {dataset.database}; there are: {there_are}"
                )
            _check_engine(dataset, databases[dataset.database])

    def without_basis(self, database: str) -> list[str]:
        """The datasets of that database whose sealed fields have neither purpose nor legal basis (GDPR Art. 6(1)).

        Returns:
            One line for each, that says what is missing.
        """
        return [
            f"datasets.{dataset.name}: compliance gdpr asks for purposes (with consent) or a legal_basis"
            for dataset in self.of_database(database)
            if dataset.needs_keys and dataset.personal and not dataset.purposes and dataset.legal_basis is None
        ]

    def via(self, dataset: Dataset) -> tuple[Dataset, str] | None:
        """The dataset, and its column, in which the value of another's subject stands; None where it is a person's id.

        Raises:
            ConfigurationError: there is none.
        """
        if dataset.subject_via is None:
            return None
        parts = dataset.subject_via.split(".")
        for at in range(1, len(parts)):  # names of datasets may hold dots, and so do paths in documents
            name, column = ".".join(parts[:at]), ".".join(parts[at:])
            target = self._by_name.get(name)
            if target is not None and column in {*target.fields, *target.keys, target.subject, "_id"}:
                return target, column
        name, _, column = dataset.subject_via.rpartition(".")
        where = f"datasets.{dataset.name}.subject_via"
        if name in self._by_name:
            raise ConfigurationError(f"{where}: {column} is no field, and not the primary key, of the dataset {name}")
        raise ConfigurationError(f"{where}: no dataset {name} with a column {column} is in the data map")

    def _check_via(self, dataset: Dataset) -> None:
        seen = [dataset.name]
        step = self.via(dataset)
        where = f"datasets.{dataset.name}.subject_via"
        while step is not None:
            target, column = step
            if target.name in seen:
                circle = " → ".join([*seen[seen.index(target.name) :], target.name])
                raise ConfigurationError(f"{where}: leads in a circle, {circle}: nobody's id stands at its end")
            seen.append(target.name)
            if not target.personal:
                raise ConfigurationError(f"{where}: {target.name} is about nobody (personal = false)")
            step = self.via(target)
        found = self.via(dataset)
        if found is None:
            return
        target, column = found
        reached = target.fields.get(column)
        if reached is not None and reached.sealed and not reached.lookup:
            raise ConfigurationError(
                f"{where}: {dataset.subject_via} is sealed without lookup, so it cannot be searched: set lookup = true "
                "there"
            )
        if dataset.erasure in ("retain", "shred") and not self._stays(target, column):
            raise ConfigurationError(
                f"datasets.{dataset.name}.erasure: {dataset.erasure} keeps rows, and an erasure takes {column} from "
                f"{target.name} ({target.erasure}), so that nobody could say any more whose they are: "
                f'set erasure = "retain" there too, or end these with theirs'
            )

    def _stays(self, dataset: Dataset, column: str) -> bool:
        """Whether a row that an erasure has ended still says whose it was, and has that column."""
        emptied = column in dataset.fields and column not in dataset.keys
        sealed = emptied and dataset.fields[column].sealed
        stays = {"retain": True, "shred": not sealed, "soft": not emptied}.get(dataset.erasure, False)
        step = self.via(dataset)
        return stays and (step is None or self._stays(*step))


def _check_engine(dataset: Dataset, provider: Any) -> None:
    """Refuse a dataset that the engine of its database cannot hold. No I/O."""
    where = f"datasets.{dataset.name}"
    capabilities = getattr(provider, "capabilities", None)
    records = getattr(capabilities, "records", None)
    if records is None:
        if dataset.key is not None:
            raise CapabilityMissing(
                "key patterns", dataset.database, f"{where}.key: is for stores of keys and values: name the subject's "
                "column (subject)"
            )  # fmt: skip
        if dataset.erasure == "shred" and not dataset.needs_keys:
            raise ConfigurationError(f"{where}.erasure: {NO_KEYS}")
        return
    from datavern.privacy.datamap.holding import holding_of  # noqa: PLC0415  (only where there are records)

    problem = ""
    try:
        records.check(holding_of(dataset))
    except ConfigurationError as error:
        problem = str(error)
    if problem:
        raise ConfigurationError(f"{where}.{problem}")


def _check_shared(dataset: Dataset, other: Dataset) -> None:
    """Refuse two datasets over one table that do not leave each other's people alone.

    Rows may name two people, sender and receiver: each has a dataset, with the fields that are theirs. The erasure of
    one empties those, and leaves the row.
    """
    where = f"datasets.{dataset.name}.{'store' if dataset.key is None else 'key'}"
    what = "table" if dataset.key is None else "pattern"
    same = f"the dataset {other.name} maps the same {what}"
    if dataset.key is not None or None in {dataset.subject, other.subject} or dataset.subject == other.subject:
        raise ConfigurationError(
            f"{where}: {same}: one {what} has one policy, unless each dataset has a subject column of its own"
        )
    if any(d.erasure != "anonymize" or d.marks_erased for d in (dataset, other)):
        raise ConfigurationError(
            f"{where}: {same}: both need erasure = anonymize, without strategies and retention_from, so that the "
            "erasure of one person leaves the row to the other"
        )
    if both := sorted(dataset.fields.keys() & {*other.fields, other.subject} | other.fields.keys() & {dataset.subject}):
        raise ConfigurationError(f"{where}: {same}, and {both[0]} too: a field is one person's")
    if dataset.needs_keys and other.needs_keys:
        raise ConfigurationError(f"{where}: {same}: only one of them can have sealed fields")


def _dataset(values: Mapping[str, Any], name: str, where: str) -> Dataset:
    problem = ""
    try:
        return checked(Dataset, values, path=where)
    except ConfigurationError as error:
        problem = str(error).replace(f"{where}: datasets.{name}", where)  # a contradiction names its own path
    raise ConfigurationError(problem)
