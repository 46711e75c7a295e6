"""What must agree in one entry of the data map: a contradiction is refused as it is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Classification
from datavern.privacy.datamap.dataset import (
    ERASED_AT,
    NO_KEYS,
    RETAINED_UNTIL,
    ROW_TAG,
    Erasure,
    Field,
    classification_of,
)

if TYPE_CHECKING:
    from datavern.privacy.datamap.dataset import Dataset

__all__ = ["settle"]


def settle(dataset: Dataset) -> None:
    """Bring what was given into one form, and refuse what contradicts itself.

    Raises:
        ConfigurationError: naming the setting.
    """
    put = object.__setattr__
    put(dataset, "classification", classification_of(dataset.classification))
    put(dataset, "primary_key", _names(dataset.primary_key, "primary_key"))
    if isinstance(dataset.purposes, str):
        raise ConfigurationError(f'purposes is a list: purposes=["{dataset.purposes}"]')
    put(dataset, "purposes", _names(tuple(dataset.purposes), "purposes", empty=True))
    put(dataset, "fields", dict(dataset.fields))
    _texts(dataset)
    _reach(dataset)
    _basis(dataset)
    _record(dataset)
    _subject(dataset)
    _fields(dataset)
    _end(dataset)


def _texts(dataset: Dataset) -> None:
    for what in ("name", "database", "store", "subject", "key", "retention_from", "automated_decisions"):
        value = getattr(dataset, what)
        if value is None and what not in ("name", "database"):
            continue
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise ConfigurationError(f"{what}: expected text, without NUL characters")
    if "#" in dataset.name:
        raise ConfigurationError(f"datasets.{dataset.name}: a dataset's name holds no #")


def _reach(dataset: Dataset) -> None:
    """How far the data may travel."""
    where = f"datasets.{dataset.name}"
    if dataset.graded and dataset.classification is Classification.OPEN:
        raise ConfigurationError(f"{where}.graded: OPEN is ungraded (sikkerhetsloven § 5-3): say the grade")
    if dataset.approval is None and dataset.transfer is None:
        return
    from datavern.privacy.datamap.approvals import approval_of, safeguard_of  # noqa: PLC0415  (few datasets have one)

    for what, read in (("approval", approval_of), ("transfer", safeguard_of)):
        problem = ""
        try:
            object.__setattr__(dataset, what, read(getattr(dataset, what)))
        except ConfigurationError as error:
            problem = str(error)
        if problem:
            problem = problem if problem.startswith(what) else f"{what}: {problem}"
            raise ConfigurationError(f"{where}.{problem}")
    if dataset.approval is not None and not dataset.graded:
        raise ConfigurationError(f"{where}.approval: is for graded information: set graded = true, or leave it out")
    if dataset.approval is not None and dataset.classification is not Classification.RESTRICTED:
        raise ConfigurationError(
            f"{where}.approval: {dataset.classification} stays in Norway, whatever was approved: leave it out"
        )


def _basis(dataset: Dataset) -> None:
    """Why the data may be used."""
    where = f"datasets.{dataset.name}"
    if dataset.require_consent not in ("write", "read"):
        raise ConfigurationError(f'{where}.require_consent: expected "write" or "read"')
    given = dataset.legal_basis
    if isinstance(given, str):
        if not given.strip() or "\0" in given:
            raise ConfigurationError(f"{where}.legal_basis: expected text, without NUL characters")
    elif given is not None:
        from datavern.privacy.datamap.bases import bases_of  # noqa: PLC0415  (few datasets have more than a text)

        problem = ""
        try:
            object.__setattr__(dataset, "legal_basis", bases_of(given, dataset.purposes))
        except ConfigurationError as error:
            problem = str(error).removeprefix("legal_basis.").removeprefix("legal_basis: ")
        if problem:
            joined = ": " if problem.startswith("expected") else "."
            raise ConfigurationError(f"{where}.legal_basis{joined}{problem}")
        if not dataset.purposes and any(basis.kind == "consent" for basis in dataset.bases):
            raise ConfigurationError(f"{where}.purposes: missing; a consent is to a purpose")
    if dataset.require_consent == "read" and not dataset.needs_consent:
        raise ConfigurationError(f"{where}.require_consent: no purpose rests on consent here: leave it out")


def _record(dataset: Dataset) -> None:
    """What the record of processing activities tells (GDPR Art. 30)."""
    where = f"datasets.{dataset.name}"
    for what in ("categories", "about", "recipients"):
        given = getattr(dataset, what)
        if isinstance(given, str):
            raise ConfigurationError(f'{where}.{what} is a list: {what}=["{given}"]')
        object.__setattr__(dataset, what, _names(tuple(given), f"{where}.{what}", empty=True))
    source = _names(dataset.source, f"{where}.source", empty=True)
    if not all(map(str.strip, source)):
        raise ConfigurationError(f'{where}.source: expected where it comes from: "Folkeregisteret", or "person"')
    object.__setattr__(dataset, "source", source)
    if dataset.categories or dataset.exemption is not None:
        from datavern.privacy.datamap.categories import settle  # noqa: PLC0415  (few datasets say it)

        problem = ""
        try:
            object.__setattr__(dataset, "exemption", settle(dataset) or None)
        except ConfigurationError as error:
            problem = str(error)
        if problem:
            raise ConfigurationError(f"{where}.{problem}")


def _subject(dataset: Dataset) -> None:
    where = f"datasets.{dataset.name}"
    if not dataset.personal:
        if dataset.subject or dataset.key or dataset.subject_via:
            raise ConfigurationError(f"{where}: personal = false says that it is about nobody, and it has a subject")
        if dataset.needs_consent:
            raise ConfigurationError(f"{where}.purposes: nobody can consent where no row has a subject")
    elif dataset.subject is None and dataset.key is None:
        raise ConfigurationError(
            f"{where}.subject: missing; which column says whose row it is? (key for stores of keys and values, "
            "personal = false for data about nobody)"
        )
    elif dataset.subject is not None and dataset.key is not None:
        raise ConfigurationError(f"{where}: subject is for tables and key for keys: give one of them")
    elif dataset.key is not None and "{subject}" not in dataset.key:
        raise ConfigurationError(f"{where}.key: expected {{subject}} in the pattern, where the subject's id stands")
    if dataset.subject_via is not None and not all(dataset.subject_via.partition(".")):
        raise ConfigurationError(
            f"{where}.subject_via: expected dataset.column, such as users.personal_number, or orders.id"
        )


def _fields(dataset: Dataset) -> None:
    where = f"datasets.{dataset.name}.fields"
    taken = {ROW_TAG, ERASED_AT, RETAINED_UNTIL}
    for name, f in dataset.fields.items():
        if not isinstance(f, Field):
            raise ConfigurationError(f"{where}.{name}: expected Field(…)")
        if not name or "\0" in name:
            raise ConfigurationError(f"{where}: a field's name is empty, or holds a NUL character")
        if f.sealed and name == dataset.subject:
            _sealed_subject(dataset, f"{where}.{name}", f)
        if f.sealed and name in dataset.keys:
            raise ConfigurationError(f"{where}.{name}: the primary key cannot be sealed: it is how a row is found")
        if f.sealed and name == dataset.retention_from:
            raise ConfigurationError(f"{where}.{name}: retention_from cannot be sealed: the period is counted from it")
        if f.anonymize is not None:
            _strategy(dataset, f"{where}.{name}.anonymize", name)
        if f.of is not None and f.of != dataset.subject:
            _of_another(dataset, f"{where}.{name}.of", f)
    taken.update(dataset.indexes)
    clash = sorted(taken & ({*dataset.fields, *dataset.keys, dataset.subject} - {None}))
    if clash:
        raise ConfigurationError(f"{where}.{clash[0]}: Datavern keeps a column of its own by that name")


def _of_another(dataset: Dataset, where: str, field: Field) -> None:
    """What is about somebody else than the row's subject, and must outlast the subject's erasure."""
    if field.sealed:
        raise ConfigurationError(
            f"{where}: a sealed field is under the key of the row's subject, and ends with it: map it in a dataset "
            f"of its own over the same table, with subject = {field.of}"
        )
    if dataset.erasure == "delete":
        raise ConfigurationError(
            f"{where}: erasure = delete takes the whole row, and what is another's with it: use anonymize"
        )
    if field.anonymize is not None:
        raise ConfigurationError(f"{where}: it stays when the row's subject is erased: leave anonymize out")


def _strategy(dataset: Dataset, where: str, name: str) -> None:
    if dataset.erasure != "anonymize":
        raise ConfigurationError(f"{where}: is for rows that are anonymised, and erasure is {dataset.erasure}")
    if name == dataset.subject or name in dataset.keys:
        raise ConfigurationError(
            f"{where}: the subject gets a pseudonym by itself, and a primary key stays: leave it out"
        )


def _sealed_subject(dataset: Dataset, where: str, f: Field) -> None:
    """The number that people are known by may be sealed: its lookup finds them."""
    if dataset.subject_via is None:
        raise ConfigurationError(
            f"{where}: the subject column cannot be sealed: it says whose key opens the row; use an id that tells "
            "nothing"
        )
    if not f.lookup:
        raise ConfigurationError(f"{where}: the rows are found by it: set lookup = true")
    if dataset.erasure in ("retain", "shred"):
        raise ConfigurationError(
            f"{where}: erasure = {dataset.erasure} leaves rows behind to which no lookup leads any more, and nobody "
            "could find them by a sealed number: keep it in the clear, or end them with delete, anonymize or soft"
        )


def _end(dataset: Dataset) -> None:
    where = f"datasets.{dataset.name}"
    if dataset.erasure not in get_args(Erasure):
        import difflib  # noqa: PLC0415  (only when there is a mistake to tell of)

        near = difflib.get_close_matches(str(dataset.erasure), get_args(Erasure), n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(get_args(Erasure))}"
        raise ConfigurationError(f"{where}.erasure: no such policy; {hint}")
    if dataset.retention is not None:
        from datavern.privacy.values.periods import Period  # noqa: PLC0415  (few datasets have one)

        problem = ""
        try:
            Period.parse(dataset.retention)
        except ConfigurationError as error:
            problem = str(error)
        if problem:
            raise ConfigurationError(f"{where}.retention: {problem}")
    if dataset.erasure == "retain":
        if dataset.retention is None:
            raise ConfigurationError(f"{where}.retention: missing; erasure = retain keeps rows, and must say how long")
        if not dataset.lawful_by:
            raise ConfigurationError(
                f"{where}.legal_basis: missing; erasure = retain needs the law that asks for it (GDPR Art. 17(3))"
            )
    if dataset.retention is None and (dataset.retention_from is not None or dataset.retention_from_year_end):
        raise ConfigurationError(f"{where}.retention: missing; retention_from says from when, and not how long")
    if dataset.erasure == "shred" and not dataset.needs_keys and not dataset.whole:
        raise ConfigurationError(f"{where}.erasure: {NO_KEYS}")


def _names(value: str | Sequence[str], what: str, *, empty: bool = False) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    if (
        not (names or empty)
        or len(set(names)) != len(names)
        or any(not isinstance(name, str) or not name or "\0" in name for name in names)
    ):
        raise ConfigurationError(f"{what}: expected names, each of them once")
    return names
