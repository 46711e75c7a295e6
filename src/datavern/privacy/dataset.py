"""One entry of the data map: a store of personal data, its fields, and what the law wants known of them.

It says nothing that the law leaves open: a contradiction is refused as the entry is made, before anything is connected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from datavern.config import STRICT
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Classification

if TYPE_CHECKING:
    from datavern.privacy.anonymize import Strategy
    from datavern.privacy.approvals import Approval, Safeguard
    from datavern.privacy.bases import LegalBasis
    from datavern.privacy.categories import Exemption
else:  # what the settings' annotations are read as: few data maps have them, and the checks below read them
    Approval = Safeguard = LegalBasis = Exemption = Any

__all__ = ["Dataset", "Erasure", "Field", "classification_of"]

_LONGEST_PART = 64
_LONGEST_GRAM = 16
Erasure = Literal["delete", "soft", "anonymize", "shred", "retain"]
FieldType = Literal["text", "integer", "real", "boolean", "bytes", "date", "timestamp", "json"]

ROW_TAG = "datavern_row"
"""The column with a row's own random tag: sealed values are bound to it."""
ERASED_AT = "datavern_erased_at"
"""The column that marks a row as erased, where the erasure policy is ``soft``, or a row may be anonymised twice."""
RETAINED_UNTIL = "datavern_retained_until"
"""The column that says until when the law keeps an erased person's row, where the erasure policy is ``retain``."""
LOOKUP = "_lookup"
"""What follows a field's name in the name of its lookup column."""
PREFIX = "_prefix"
"""What follows a field's name, and is followed by a length, in the name of the index column of beginnings."""
NGRAMS = "_ngrams"
"""What follows a field's name in the name of the index column of parts."""
ASIDE = "_unsealed"
"""What follows a field's name in the name of the column that holds plain values while they are sealed in place."""
OWN_DATASETS = "datavern."
"""How the names of Datavern's own datasets begin."""

NO_KEYS = "shred destroys keys, and no field here is sealed: nothing would end"
"""What is wrong with a dataset that ends by its keys, and has none."""

_NORWEGIAN = {
    "UGRADERT": Classification.OPEN,
    "BEGRENSET": Classification.RESTRICTED,
    "KONFIDENSIELT": Classification.CONFIDENTIAL,
    "HEMMELIG": Classification.SECRET,
}
_BEYOND = frozenset({"STRENGT HEMMELIG", "TOP SECRET", "COSMIC TOP SECRET"})


def classification_of(value: Classification | str) -> Classification:
    """The classification of that name (sikkerhetsloven § 5-3).

    Raises:
        ConfigurationError: no such classification; STRENGT HEMMELIG is refused by name, because nothing here is
            approved for it.
    """
    text = " ".join(str(value).replace("_", " ").upper().split())
    if text in Classification.__members__:
        return Classification[text]
    if text in _BEYOND:
        raise ConfigurationError("classification STRENGT HEMMELIG is out of scope: Datavern must not hold such data")
    if text in _NORWEGIAN:
        raise ConfigurationError(f"classification {text} is written {_NORWEGIAN[text].value} here")
    known = ", ".join(Classification)
    raise ConfigurationError(f"no classification of that name: expected one of {known}")


@dataclass(frozen=True, slots=True)
class Field:
    """A field with personal data.

    Attributes:
        sealed: encrypted before it reaches the database; it comes back as the Python type that went in.
        lookup: a keyed index beside the sealed value, so that `find` reaches it without opening anything.
        kind: what it holds ("fodselsnummer", "email", "phone", …): how values are made alike before they are indexed.
        type: of a field that is not sealed: the column's type, for a table that `prepare` makes.
        unique: no two rows hold the same value; of a sealed field, through its lookup index.
        nullable: whether it may be left out, in a column that `prepare` makes.
        prefixes: lengths of beginnings that `starts_with` finds a sealed text by; each has an index of its own, which
            shows who has the same beginning (docs/lookup.md).
        ngrams: length of the parts that `contains` finds a sealed text by; their index shows which texts have parts in
            common, and how many: enough to guess common names by (docs/lookup.md).
        of: the column or path that says whose this is, where it is not the row's subject's: ``receiver_id``; in
            documents ``members.*.id`` says it of ``members.*.name``. A person's answer leaves out what is another's.
        category: what kind of data it is: "contact", "financial", "health", … (docs/data-map.md). Special categories
            (GDPR Art. 9) and crimes (Art. 10) ask for more than a legal basis. What `kind` tells need not be said.
        anonymize: what stands in it once its row was anonymised (``erasure = "anonymize"``); emptied when left out:
            ``"null"``, ``"pseudonym"``, ``{"constant": …}``, ``{"generalise": "decade"}``, ``{"noise": 5}``,
            ``{"fake": "name"}`` (docs/retention.md). What could be turned back is refused.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    sealed: bool = False
    lookup: bool = False
    kind: str | None = None
    type: FieldType = "text"
    unique: bool = False
    nullable: bool = True
    prefixes: Sequence[int] = ()
    ngrams: int | None = None
    of: str | None = None
    category: str | None = None
    anonymize: str | Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if self.lookup and not self.sealed:
            raise ConfigurationError("lookup is for sealed fields: set sealed = true, or leave lookup out")
        if self.sealed and self.unique and not self.lookup:
            raise ConfigurationError("a sealed field is kept unique through its lookup index: set lookup = true")
        if self.of is not None and (not isinstance(self.of, str) or not all(self.of.split("."))):
            raise ConfigurationError("of names the column or path that says whose the field is, such as receiver_id")
        if self.prefixes or self.ngrams is not None:
            self._check_parts()
        if self.category is not None:
            from datavern.privacy.categories import check_category  # noqa: PLC0415  (few fields say it)

            check_category(self.category)
        if self.sealed and self.type != "text":
            raise ConfigurationError(
                "type is for fields that are not sealed: a sealed value keeps the type it came with"
            )
        if self.kind is not None:
            from datavern.crypto.lookup import KINDS  # noqa: PLC0415  (loads ciphers)

            if self.kind not in KINDS:
                raise ConfigurationError(f"no kind is called {self.kind}; there are: {', '.join(sorted(KINDS))}")
        if self.anonymize is not None:
            from datavern.privacy.anonymize import parse  # noqa: PLC0415  (few fields say it)

            parse(self.anonymize, self)

    @property
    def indexed(self) -> bool:
        """Whether any index leads to it, which takes a lookup key."""
        return bool(self.lookup or self.prefixes or self.ngrams)

    def _check_parts(self) -> None:
        """What leads to a part of a value."""
        lengths = self.prefixes
        if isinstance(lengths, int) or any(type(n) is not int or not 0 < n <= _LONGEST_PART for n in lengths):
            raise ConfigurationError(f"prefixes is a list of lengths from 1 to {_LONGEST_PART}, such as [3, 6]")
        object.__setattr__(self, "prefixes", tuple(sorted(set(lengths))))
        if self.ngrams is not None and (type(self.ngrams) is not int or not 1 < self.ngrams <= _LONGEST_GRAM):
            raise ConfigurationError(f"ngrams is a length from 2 to {_LONGEST_GRAM}")
        if not self.sealed:
            raise ConfigurationError("prefixes and ngrams are for sealed fields: set sealed = true, or leave them out")
        if self.ngrams is not None and self.kind == "phone":
            raise ConfigurationError("ngrams does not go with kind phone: a part of a number has no country code")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A store of personal data: a table, with what the law wants known of it.

    Attributes:
        name: what the application calls it. It is bound into every sealed value, so it stays when the table is renamed.
        database: the database's name in the manager.
        subject: the column that says whose row it is.
        subject_via: the column of another dataset in which the value of `subject` (or of `key`) stands: another number
            of the person (``users.personal_number``), or the row that this one belongs to (``orders.id``). The row is
            whoever's that one is, over as many steps as there are.
        key: key pattern with ``{subject}`` in it, for stores of keys and values instead of tables.
        store: the table's name; the dataset's own when None.
        primary_key: the column (or columns) that `get`, `update` and `delete` address a row by.
        classification: how far the data may travel. What nobody classified stays in Norway: CONFIDENTIAL.
        purposes: what the data is used for; writing needs a consent to each of them that no `legal_basis` is named for.
        erasure: what an erasure does to a subject's rows. ``delete``: they go. ``soft``: their fields are emptied, and
            they are marked. ``anonymize``: their fields are emptied, and the subject is replaced by a random pseudonym.
            ``shred``: they stay as they are, and their keys are destroyed. ``retain``: they stay until the retention
            ends, sealed under a key of their own.
        retention: how long the rows are kept: ``30d``, ``18m``, ``5y``, ``3y6m``.
        retention_from: the date column that the retention is counted from; when None, it is the day of the erasure.
        retention_from_year_end: count from the end of that date's calendar year (bokføringsloven § 13).
        legal_basis: why the data may be used (GDPR Art. 6(1)): a text that names the law, the contract, the task, for
            all purposes; a `LegalBasis`; or several, each for some of the purposes. A purpose without one rests on
            consent.
        require_consent: "write": a write needs the consents. "read": so does a read, which finds nothing of people
            whose consent does not stand.
        fields: name → `Field`, of every column with personal data in it.
        audit_reads: whether who reads what about whom is audited too, gathered by the minute.
        personal: False for sealed data that is about nobody: sealed under the dataset's own key, without a subject.
        graded: whether it is graded information (sikkerhetsloven § 5-3). It leaves Norway with an `approval` alone, and
            only where it is RESTRICTED.
        approval: of graded information: the reference of the approval (virksomhetsikkerhetsforskriften § 51), or an
            `Approval` that also says who gave it and until when it holds.
        transfer: on what grounds the data may be outside of the EEA: "adequacy", "scc", "bcr", a text, or a `Safeguard`
            (GDPR Arts. 44-49).
        categories: what kinds of data it holds, where no `fields` say so: documents, files, keys.
        exemption: why special categories of data, or data about crimes, may be used at all (GDPR Arts. 9(2) and 10):
            "legal_claims", or an `Exemption` that names its law.
        about: whom it is about: "customers", "employees" (GDPR Art. 30(1)(c)).
        recipients: who is given it: "Skatteetaten", "the accountant" (Art. 30(1)(d)).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str
    database: str
    subject: str | None = None
    subject_via: str | None = None
    key: str | None = None
    store: str | None = None
    primary_key: str | Sequence[str] = "id"
    classification: Classification | str = Classification.CONFIDENTIAL
    purposes: Sequence[str] = ()
    erasure: Erasure = "delete"
    retention: str | None = None
    retention_from: str | None = None
    retention_from_year_end: bool = False
    legal_basis: str | LegalBasis | Sequence[LegalBasis] | None = None
    require_consent: Literal["write", "read"] = "write"
    fields: Mapping[str, Field] = field(default_factory=dict, hash=False)
    personal: bool = True
    audit_reads: bool = False
    graded: bool = False
    approval: Approval | str | None = None
    transfer: Safeguard | str | None = None
    categories: Sequence[str] = ()
    exemption: str | Exemption | Sequence[Exemption] | None = None
    about: Sequence[str] = ()
    recipients: Sequence[str] = ()

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "classification", classification_of(self.classification))
        put(self, "primary_key", _names(self.primary_key, "primary_key"))
        if isinstance(self.purposes, str):
            raise ConfigurationError(f'purposes is a list: purposes=["{self.purposes}"]')
        put(self, "purposes", _names(tuple(self.purposes), "purposes", empty=True))
        put(self, "fields", dict(self.fields))
        self._check_names()
        self._check_reach()
        self._check_basis()
        self._check_record()
        self._check_subject()
        self._check_fields()
        self._check_end()

    @property
    def table(self) -> str:
        """The table's name."""
        return self.store or self.name

    @property
    def label(self) -> str:
        """How reports and answers name it: ``database.dataset``."""
        return f"{self.database}.{self.name.removeprefix(OWN_DATASETS)}"

    @property
    def keys(self) -> tuple[str, ...]:
        """The primary key's columns."""
        return self.primary_key  # type: ignore[return-value]  # __post_init__ made it a tuple

    @property
    def sealed(self) -> tuple[str, ...]:
        """The names of the sealed fields."""
        return tuple(name for name, f in self.fields.items() if f.sealed)

    @property
    def lookups(self) -> dict[str, str]:
        """Sealed field → its lookup column."""
        return {name: name + LOOKUP for name, f in self.fields.items() if f.lookup}

    @property
    def indexes(self) -> dict[str, str]:
        """Every column that leads to a sealed field → the field: lookups, beginnings, parts."""
        found = {}
        for name, f in self.fields.items():
            if f.lookup:
                found[name + LOOKUP] = name
            for length in f.prefixes:
                found[f"{name}{PREFIX}{length}"] = name
            if f.ngrams:
                found[name + NGRAMS] = name
        return found

    @property
    def needs_keys(self) -> bool:
        """Whether it holds anything that a key must be made for."""
        return any(f.sealed for f in self.fields.values())

    @property
    def strategies(self) -> dict[str, Strategy]:
        """Field → what stands in it once its row was anonymised; those that are emptied are left out."""
        said = {name: f for name, f in self.fields.items() if f.anonymize is not None}
        if not said:
            return {}
        from datavern.privacy.anonymize import parse  # noqa: PLC0415  (few fields say it)

        return {name: parse(f.anonymize, f) for name, f in said.items()}

    @property
    def marks_erased(self) -> bool:
        """Whether an erased row is marked: it stays, and a later look must know it."""
        if self.erasure == "anonymize":
            return self.retention_from is not None or any(f.anonymize is not None for f in self.fields.values())
        return self.erasure == "soft"

    @property
    def _whole(self) -> bool:
        """Whether its records may be sealed as wholes, by the engine itself: keys and values, documents, files."""
        return "{subject}" in (self.key or self.table) or "." in (self.subject or "")

    @property
    def needs_consent(self) -> bool:
        """Whether a write needs a consent: it has purposes, and no other legal basis (GDPR Art. 6(1)(a))."""
        return bool(self.consent_purposes)

    @property
    def bases(self) -> tuple[LegalBasis, ...]:
        """The legal bases that the map names; a text is one whose kind is "stated". Consent is named only if it is."""
        given = self.legal_basis
        if isinstance(given, str):
            from datavern.privacy.bases import LegalBasis  # noqa: PLC0415  (loaded where a basis is asked for)

            return (LegalBasis("stated", given),)
        return () if given is None else given  # type: ignore[return-value]  # __post_init__ made it a tuple

    def basis_of(self, purpose: str | None) -> LegalBasis | None:
        """The legal basis of one of the purposes (None: of a dataset without any); None where the map names none."""
        if self.legal_basis is None:
            return None
        named = next((basis for basis in self.bases if purpose in basis.purposes), None)
        return named or next((basis for basis in self.bases if not basis.purposes), None)

    @property
    def consent_purposes(self) -> tuple[str, ...]:
        """The purposes that rest on consent: each needs one."""
        given = self.legal_basis
        if not self.purposes or isinstance(given, str):
            return ()
        if given is None:
            return tuple(self.purposes)
        return tuple(p for p in self.purposes if (basis := self.basis_of(p)) is None or basis.kind == "consent")

    @property
    def lawful_by(self) -> str:
        """Its legal bases but consent, in words, as certificates and answers name them; empty where there is none."""
        given = self.legal_basis
        if given is None or isinstance(given, str):
            return given or ""
        return "; ".join(str(basis) for basis in self.bases if basis.kind != "consent")

    def _check_names(self) -> None:
        for what in ("name", "database", "store", "subject", "key", "retention_from"):
            value = getattr(self, what)
            if value is None and what not in ("name", "database"):
                continue
            if not isinstance(value, str) or not value.strip() or "\0" in value:
                raise ConfigurationError(f"{what}: expected text, without NUL characters")
        if "#" in self.name:
            raise ConfigurationError(f"datasets.{self.name}: a dataset's name holds no #")

    def _check_reach(self) -> None:
        """How far the data may travel."""
        where = f"datasets.{self.name}"
        if self.graded and self.classification is Classification.OPEN:
            raise ConfigurationError(f"{where}.graded: OPEN is ungraded (sikkerhetsloven § 5-3): say the grade")
        if self.approval is None and self.transfer is None:
            return
        from datavern.privacy.approvals import approval_of, safeguard_of  # noqa: PLC0415  (few datasets have one)

        for what, read in (("approval", approval_of), ("transfer", safeguard_of)):
            problem = ""
            try:
                object.__setattr__(self, what, read(getattr(self, what)))
            except ConfigurationError as error:
                problem = str(error)
            if problem:
                problem = problem if problem.startswith(what) else f"{what}: {problem}"
                raise ConfigurationError(f"{where}.{problem}")
        if self.approval is not None and not self.graded:
            raise ConfigurationError(f"{where}.approval: is for graded information: set graded = true, or leave it out")
        if self.approval is not None and self.classification is not Classification.RESTRICTED:
            raise ConfigurationError(
                f"{where}.approval: {self.classification} stays in Norway, whatever was approved: leave it out"
            )

    def _check_basis(self) -> None:
        """Why the data may be used."""
        where = f"datasets.{self.name}"
        if self.require_consent not in ("write", "read"):
            raise ConfigurationError(f'{where}.require_consent: expected "write" or "read"')
        given = self.legal_basis
        if isinstance(given, str):
            if not given.strip() or "\0" in given:
                raise ConfigurationError(f"{where}.legal_basis: expected text, without NUL characters")
        elif given is not None:
            from datavern.privacy.bases import bases_of  # noqa: PLC0415  (few datasets have more than a text)

            problem = ""
            try:
                object.__setattr__(self, "legal_basis", bases_of(given, self.purposes))
            except ConfigurationError as error:
                problem = str(error).removeprefix("legal_basis.").removeprefix("legal_basis: ")
            if problem:
                joined = ": " if problem.startswith("expected") else "."
                raise ConfigurationError(f"{where}.legal_basis{joined}{problem}")
            if not self.purposes and any(basis.kind == "consent" for basis in self.bases):
                raise ConfigurationError(f"{where}.purposes: missing; a consent is to a purpose")
        if self.require_consent == "read" and not self.needs_consent:
            raise ConfigurationError(f"{where}.require_consent: no purpose rests on consent here: leave it out")

    def _check_record(self) -> None:
        """What the record of processing activities tells (GDPR Art. 30)."""
        where = f"datasets.{self.name}"
        for what in ("categories", "about", "recipients"):
            given = getattr(self, what)
            if isinstance(given, str):
                raise ConfigurationError(f'{where}.{what} is a list: {what}=["{given}"]')
            object.__setattr__(self, what, _names(tuple(given), f"{where}.{what}", empty=True))
        if self.categories or self.exemption is not None:
            from datavern.privacy.categories import settle  # noqa: PLC0415  (few datasets say it)

            problem = ""
            try:
                object.__setattr__(self, "exemption", settle(self) or None)
            except ConfigurationError as error:
                problem = str(error)
            if problem:
                raise ConfigurationError(f"{where}.{problem}")

    def _check_subject(self) -> None:
        where = f"datasets.{self.name}"
        if not self.personal:
            if self.subject or self.key or self.subject_via:
                raise ConfigurationError(
                    f"{where}: personal = false says that it is about nobody, and it has a subject"
                )
            if self.needs_consent:
                raise ConfigurationError(f"{where}.purposes: nobody can consent where no row has a subject")
        elif self.subject is None and self.key is None:
            raise ConfigurationError(
                f"{where}.subject: missing; which column says whose row it is? (key for stores of keys and values, "
                "personal = false for data about nobody)"
            )
        elif self.subject is not None and self.key is not None:
            raise ConfigurationError(f"{where}: subject is for tables and key for keys: give one of them")
        elif self.key is not None and "{subject}" not in self.key:
            raise ConfigurationError(f"{where}.key: expected {{subject}} in the pattern, where the subject's id stands")
        if self.subject_via is not None and not all(self.subject_via.partition(".")):
            raise ConfigurationError(
                f"{where}.subject_via: expected dataset.column, such as users.personal_number, or orders.id"
            )

    def _check_fields(self) -> None:
        where = f"datasets.{self.name}.fields"
        taken = {ROW_TAG, ERASED_AT, RETAINED_UNTIL}
        for name, f in self.fields.items():
            if not isinstance(f, Field):
                raise ConfigurationError(f"{where}.{name}: expected Field(…)")
            if not name or "\0" in name:
                raise ConfigurationError(f"{where}: a field's name is empty, or holds a NUL character")
            if f.sealed and name == self.subject:
                self._check_sealed_subject(f"{where}.{name}", f)
            if f.sealed and name in self.keys:
                raise ConfigurationError(f"{where}.{name}: the primary key cannot be sealed: it is how a row is found")
            if f.sealed and name == self.retention_from:
                raise ConfigurationError(
                    f"{where}.{name}: retention_from cannot be sealed: the period is counted from it"
                )
            if f.anonymize is not None:
                self._check_strategy(f"{where}.{name}.anonymize", name)
            if f.of is not None and f.of != self.subject:
                self._check_of_another(f"{where}.{name}.of", f)
        taken.update(self.indexes)
        clash = sorted(taken & ({*self.fields, *self.keys, self.subject} - {None}))
        if clash:
            raise ConfigurationError(f"{where}.{clash[0]}: Datavern keeps a column of its own by that name")

    def _check_of_another(self, where: str, field: Field) -> None:
        """What is about somebody else than the row's subject, and must outlast the subject's erasure."""
        if field.sealed:
            raise ConfigurationError(
                f"{where}: a sealed field is under the key of the row's subject, and ends with it: map it in a dataset "
                f"of its own over the same table, with subject = {field.of}"
            )
        if self.erasure == "delete":
            raise ConfigurationError(
                f"{where}: erasure = delete takes the whole row, and what is another's with it: use anonymize"
            )
        if field.anonymize is not None:
            raise ConfigurationError(f"{where}: it stays when the row's subject is erased: leave anonymize out")

    def _check_strategy(self, where: str, name: str) -> None:
        if self.erasure != "anonymize":
            raise ConfigurationError(f"{where}: is for rows that are anonymised, and erasure is {self.erasure}")
        if name == self.subject or name in self.keys:
            raise ConfigurationError(
                f"{where}: the subject gets a pseudonym by itself, and a primary key stays: leave it out"
            )

    def _check_sealed_subject(self, where: str, f: Field) -> None:
        """The number that people are known by may be sealed: its lookup finds them."""
        if self.subject_via is None:
            raise ConfigurationError(
                f"{where}: the subject column cannot be sealed: it says whose key opens the row; use an id that tells "
                "nothing"
            )
        if not f.lookup:
            raise ConfigurationError(f"{where}: the rows are found by it: set lookup = true")
        if self.erasure in ("retain", "shred"):
            raise ConfigurationError(
                f"{where}: erasure = {self.erasure} leaves rows behind to which no lookup leads any more, and nobody "
                "could find them by a sealed number: keep it in the clear, or end them with delete, anonymize or soft"
            )

    def _check_end(self) -> None:
        where = f"datasets.{self.name}"
        if self.erasure not in get_args(Erasure):
            import difflib  # noqa: PLC0415  (only when there is a mistake to tell of)

            near = difflib.get_close_matches(str(self.erasure), get_args(Erasure), n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(get_args(Erasure))}"
            raise ConfigurationError(f"{where}.erasure: no such policy; {hint}")
        if self.retention is not None:
            from datavern.privacy.retention import Period  # noqa: PLC0415  (few datasets have one)

            problem = ""
            try:
                Period.parse(self.retention)
            except ConfigurationError as error:
                problem = str(error)
            if problem:
                raise ConfigurationError(f"{where}.retention: {problem}")
        if self.erasure == "retain":
            if self.retention is None:
                raise ConfigurationError(
                    f"{where}.retention: missing; erasure = retain keeps rows, and must say how long"
                )
            if not self.lawful_by:
                raise ConfigurationError(
                    f"{where}.legal_basis: missing; erasure = retain needs the law that asks for it (GDPR Art. 17(3))"
                )
        if self.retention is None and (self.retention_from is not None or self.retention_from_year_end):
            raise ConfigurationError(f"{where}.retention: missing; retention_from says from when, and not how long")
        if self.erasure == "shred" and not self.needs_keys and not self._whole:
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
