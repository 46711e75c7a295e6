"""One entry of the data map: a store of personal data, its fields, and what the law wants known of them.

It says nothing that the law leaves open: a contradiction is refused as the entry is made (dataset_rules.py), before
anything is connected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from datavern.config import STRICT
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Classification

if TYPE_CHECKING:
    from datavern.privacy.datamap.anonymize import Strategy
    from datavern.privacy.datamap.approvals import Approval, Safeguard
    from datavern.privacy.datamap.bases import LegalBasis
    from datavern.privacy.datamap.categories import Exemption
else:  # what the settings' annotations are read as: few data maps have them, and dataset_rules.py reads them
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
        source: where it comes from, where that is another place than the dataset's `source`.
        unverified: of kind "fodselsnummer": whether it also takes what cannot be one, such as help numbers of a
            hospital, or old numbers as they came. Without it such a value is refused when it is written.
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
    source: str | None = None
    unverified: bool = False
    anonymize: str | Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if self.lookup and not self.sealed:
            raise ConfigurationError("lookup is for sealed fields: set sealed = true, or leave lookup out")
        if self.sealed and self.unique and not self.lookup:
            raise ConfigurationError("a sealed field is kept unique through its lookup index: set lookup = true")
        self._check_texts()
        if self.prefixes or self.ngrams is not None:
            self._check_parts()
        if self.category is not None:
            from datavern.privacy.datamap.categories import check_category  # noqa: PLC0415  (few fields say it)

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
            from datavern.privacy.datamap.anonymize import parse  # noqa: PLC0415  (few fields say it)

            parse(self.anonymize, self)

    @property
    def indexed(self) -> bool:
        """Whether any index leads to it, which takes a lookup key."""
        return bool(self.lookup or self.prefixes or self.ngrams)

    def _check_texts(self) -> None:
        """What names something of the application's, or of the world's."""
        if self.of is not None and (not isinstance(self.of, str) or not all(self.of.split("."))):
            raise ConfigurationError("of names the column or path that says whose the field is, such as receiver_id")
        if self.source is not None and (not isinstance(self.source, str) or not self.source.strip()):
            raise ConfigurationError('source says where it comes from: "Folkeregisteret", or "person"')
        if self.unverified and self.kind != "fodselsnummer":
            raise ConfigurationError("unverified is for fields of kind fodselsnummer: leave it out")

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
        source: where it comes from (Arts. 14(2)(f) and 15(1)(g)): "Folkeregisteret", or several; "person" where the
            person gave it.
        automated_decisions: what is decided about people without anybody taking part, profiling among it, by what
            logic, and with what consequences for them (Arts. 15(1)(h) and 22); "none" where nothing is.
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
    source: str | Sequence[str] = ()
    automated_decisions: str | None = None

    def __post_init__(self) -> None:
        from datavern.privacy.datamap.rules import settle  # noqa: PLC0415  (with the first dataset that is made)

        settle(self)

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
        from datavern.privacy.datamap.anonymize import parse  # noqa: PLC0415  (few fields say it)

        return {name: parse(f.anonymize, f) for name, f in said.items()}

    @property
    def marks_erased(self) -> bool:
        """Whether an erased row is marked: it stays, and a later look must know it."""
        if self.erasure == "anonymize":
            return self.retention_from is not None or any(f.anonymize is not None for f in self.fields.values())
        return self.erasure == "soft"

    @property
    def whole(self) -> bool:
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
            from datavern.privacy.datamap.bases import LegalBasis  # noqa: PLC0415  (loaded where a basis is asked for)

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
    def sources(self) -> dict[str, tuple[str, ...]]:
        """Field → where it comes from; "" stands for the fields that say nothing of their own."""
        own: tuple[str, ...] = self.source  # type: ignore[assignment]  # __post_init__ made it a tuple
        found = {"": own} if own else {}
        return found | {name: (f.source,) for name, f in self.fields.items() if f.source is not None}

    @property
    def lawful_by(self) -> str:
        """Its legal bases but consent, in words, as certificates and answers name them; empty where there is none."""
        given = self.legal_basis
        if given is None or isinstance(given, str):
            return given or ""
        return "; ".join(str(basis) for basis in self.bases if basis.kind != "consent")
