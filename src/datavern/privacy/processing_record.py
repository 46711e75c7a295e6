"""The record of processing activities (GDPR Art. 30(1)), made from the data map and the settings.

One activity for each dataset. Nothing is invented: what nobody said stands there as missing, with the setting that
says it; what Datavern knows (what is sealed, where it lies, how it is connected to, what is audited) is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from datavern.contracts.values import timestamp
from datavern.privacy.datamap.categories import (
    CATEGORIES,
    categories_of,
    exemptions_of,
    explicit_consent,
    without_exemption,
)

if TYPE_CHECKING:
    from datavern.privacy.datamap.datamap import DataMap
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.residency.residency import Transfer

__all__ = ["Activity", "Controller", "Data", "Missing", "ProcessingRecord", "Purpose", "Sent"]

_ENDS: Mapping[str, str] = {
    "delete": "deleted",
    "soft": "emptied, and marked as erased",
    "anonymize": "anonymised",
    "shred": "made unreadable, by destroying the person's keys",
    "retain": "kept until the period has ended, and then deleted",
}
_UNITS = (("y", "year"), ("m", "month"), ("w", "week"), ("d", "day"))


@dataclass(frozen=True, slots=True)
class Controller:
    """Who is responsible (Art. 30(1)(a)).

    Attributes:
        name: the organisation.
        contact: how it is reached.
        representative: its representative in the EEA (Art. 27).
        dpo: the data protection officer (Art. 37).
        joint_controllers: who decides with it (Art. 26).
    """

    name: str = ""
    contact: str = ""
    representative: str = ""
    dpo: str = ""
    joint_controllers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Purpose:
    """What the data is used for (Art. 30(1)(b)), and what that rests on."""

    name: str
    basis: str | None


@dataclass(frozen=True, slots=True)
class Data:
    """A category of personal data (Art. 30(1)(c)).

    Attributes:
        category: its name in the data map; None: nobody said which.
        words: what it is.
        article: 9 for a special category, 10 for crimes.
        fields: the fields that are of it.
    """

    category: str | None
    words: str
    article: int | None
    fields: Sequence[str]


@dataclass(frozen=True, slots=True)
class Sent:
    """A transfer to a third country (Art. 30(1)(e)).

    Attributes:
        place: where to.
        country: which country, where it is known.
        safeguard: on what grounds (Arts. 44-49); None: nobody said.
    """

    place: str
    country: str | None
    safeguard: str | None


@dataclass(frozen=True, slots=True)
class Activity:
    """What is done with the data of one dataset.

    Attributes:
        dataset: its name.
        database: where it lies.
        store: the table, collection or pattern of keys there.
        purposes: (b).
        about: (c), whom it is about.
        data: (c), what kinds of data.
        exemptions: why special categories of it may be used (Arts. 9(2) and 10).
        unexempted: special categories, and crimes, that nothing lets be used.
        recipients: (d).
        transfers: (e).
        time_limit: (f), how long it is kept; None: nobody said.
        ends: (f), what an erasure does.
        security: (g).
    """

    dataset: str
    database: str
    store: str
    purposes: Sequence[Purpose]
    about: Sequence[str]
    data: Sequence[Data]
    exemptions: Sequence[str]
    unexempted: Sequence[str]
    recipients: Sequence[str]
    transfers: Sequence[Sent]
    time_limit: str | None
    ends: str
    security: Sequence[str]


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that Art. 30(1) asks for and nobody said.

    Attributes:
        point: which: "a" to "g".
        part: where it belongs: ``datasets.users``, or ``datavern``.
        what: what is not said.
        setting: the setting that says it.
    """

    point: str
    part: str
    what: str
    setting: str


@dataclass(frozen=True, slots=True)
class ProcessingRecord:
    """The whole record.

    Attributes:
        controller: (a).
        activities: one for each dataset with personal data.
        security: measures that hold for all of it (g).
        made_at: when it was made, RFC 3339.
    """

    controller: Controller
    activities: Sequence[Activity]
    security: Sequence[str] = ()
    made_at: str = field(default_factory=timestamp)

    @classmethod
    def of(
        cls,
        data_map: DataMap,
        databases: Mapping[str, Any],
        *,
        controller: Controller,
        transfers: Iterable[Transfer] = (),
        keyring: str | None = None,
        checkpoints: Sequence[Any] = (),
        stated: Sequence[str] = (),
    ) -> ProcessingRecord:
        """The record of a data map. No I/O.

        Args:
            data_map: which personal data lies where, and why.
            databases: name → provider.
            controller: who is responsible.
            transfers: where data can get outside of the EEA (`Residency.transfers`).
            keyring: where the keys are; None: nothing is sealed, and nothing is audited.
            checkpoints: where the audit log's checkpoints are published.
            stated: security measures that no setting tells of.
        """
        sent = list(transfers)
        made = [_activity(d, databases[d.database], sent, audited=keyring is not None) for d in data_map if d.personal]
        return cls(controller, made, [*_common(keyring, checkpoints), *stated])

    @property
    def missing(self) -> list[Missing]:
        """Everything that Art. 30(1) asks for and nobody said; empty: it is whole."""
        of = self.controller
        found = [
            Missing("a", "datavern", what, setting)
            for what, said, setting in (
                ("the name of the controller", of.name, "organisation"),
                ("how the controller is reached", of.contact, "contact"),
                ("the data protection officer", of.dpo, "dpo"),
            )
            if not said
        ]
        for one in self.activities:
            part = f"datasets.{one.dataset}"
            found += [Missing(point, part, what, setting) for point, what, setting in _unsaid(one)]
        return found

    def to_dict(self) -> dict[str, Any]:
        """The record in values that JSON has, with what is missing."""
        return {
            "controller": asdict(self.controller),
            "security": list(self.security),
            "activities": [asdict(one) for one in self.activities],
            "missing": [asdict(one) for one in self.missing],
            "made_at": self.made_at,
        }

    def to_markdown(self) -> str:
        """The record as a page: every heading of Art. 30(1)(a) to (g), for each dataset."""
        return "\n".join(_page(self)) + "\n"


# ---- from the data map ----------------------------------------------------------------------------------------------


def _activity(dataset: Dataset, provider: Any, sent: Sequence[Transfer], *, audited: bool) -> Activity:
    return Activity(
        dataset=dataset.name,
        database=dataset.database,
        store=dataset.key or dataset.table,
        purposes=[Purpose(name, _basis(dataset, name)) for name in dataset.purposes],
        about=dataset.about,
        data=list(_data(dataset)),
        exemptions=[
            *map(str, exemptions_of(dataset.exemption)),
            *(["explicit consent (GDPR Art. 9(2)(a))"] if explicit_consent(dataset) else []),
        ],
        unexempted=[problem.partition(":")[0] for problem in without_exemption(dataset)],
        recipients=dataset.recipients,
        transfers=[Sent(t.place.name, t.country, t.safeguard) for t in sent if t.dataset == dataset.name],
        time_limit=_time_limit(dataset),
        ends=_ENDS[dataset.erasure],
        security=list(_security(dataset, provider, audited=audited)),
    )


def _basis(dataset: Dataset, purpose: str) -> str | None:
    basis = dataset.basis_of(purpose)
    return str(basis) if basis is not None else "consent (GDPR Art. 6(1)(a))"


def _data(dataset: Dataset) -> Iterator[Data]:
    found = categories_of(dataset)
    for name, fields in found.items():
        category = CATEGORIES[name]
        yield Data(name, category.words, category.article, fields)
    said = {one for fields in found.values() for one in fields}
    rest = [name for name in dataset.fields if name not in said]
    if rest:
        yield Data(None, "", None, rest)


def _time_limit(dataset: Dataset) -> str | None:
    if dataset.retention is None:
        return None
    words = []
    number = ""
    for letter in dataset.retention.strip().lower():
        if letter.isdecimal():
            number += letter
            continue
        unit = dict(_UNITS)[letter]
        words.append(f"{int(number)} {unit}{'s' if int(number) != 1 else ''}")
        number = ""
    start = f"from {dataset.retention_from}" if dataset.retention_from else "from the erasure"
    if dataset.retention_from_year_end:
        start = f"from the end of the year of {dataset.retention_from or 'the erasure'}"
    return f"{' and '.join(words)} {start}"


def _security(dataset: Dataset, provider: Any, *, audited: bool) -> Iterator[str]:
    sealed = dataset.sealed
    if sealed:
        yield f"{', '.join(sealed)}: sealed under a key of each person (AES-256-GCM), Art. 32(1)(a)"
    elif getattr(provider, "sealing", False):
        yield "values are sealed as wholes under a key of each person (AES-256-GCM), Art. 32(1)(a)"
    clear = [name for name, one in dataset.fields.items() if not one.sealed]
    if clear:
        yield f"in the clear: {', '.join(clear)}"
    safe = "encrypted and verified, or stays on the machine" if provider.encrypted else "not encrypted and verified"
    yield f"the connection to {dataset.database} is {safe}"
    yield f"classified as {dataset.classification}; {dataset.database} is in {provider.location}"
    if audited:
        reads = ", and who reads it" if dataset.audit_reads else ""
        yield f"who writes it{reads} is in an audit log that proves that it was not changed"
    if dataset.subject_via is not None:
        yield f"whose a row is, is told by {dataset.subject_via} alone"


def _common(keyring: str | None, checkpoints: Sequence[Any]) -> Iterator[str]:
    if keyring is None:
        return
    yield f"keys are kept apart from the data ({keyring.partition(':')[0]}), and an erasure destroys the person's"
    if checkpoints:
        yield "checkpoints of the audit log are published where its administrators do not reach"
    yield "consents, restrictions and objections are looked at on every write"


def _unsaid(one: Activity) -> Iterator[tuple[str, str, str]]:
    if not one.purposes:
        yield "b", "what it is used for", "purposes"
    if not one.about:
        yield "c", "whom it is about", "about"
    unsaid = [name for data in one.data if data.category is None for name in data.fields]
    if unsaid:
        yield "c", f"what kind of data is in {', '.join(unsaid)}", "category of the fields"
    if not one.data:
        yield "c", "what kinds of data it holds", "categories"
    if one.unexempted:
        yield "c", f"why {', '.join(one.unexempted)} may be used at all", "exemption"
    if not one.recipients:
        yield "d", 'who is given it (["none"] where nobody is)', "recipients"
    yield from (("e", f"on what grounds it can get to {t.place}", "transfer") for t in one.transfers if not t.safeguard)
    if one.time_limit is None:
        yield "f", "how long it is kept", "retention"


# ---- the page -------------------------------------------------------------------------------------------------------


def _page(record: ProcessingRecord) -> Iterator[str]:
    of = record.controller
    missing = record.missing
    yield "# Record of processing activities"
    yield ""
    yield f"GDPR Art. 30(1). Made {record.made_at}, from the data map."
    yield ""
    yield "## (a) The controller"
    yield ""
    yield f"- Controller: {_said(of.name)}"
    yield f"- Contact: {_said(of.contact)}"
    yield f"- Representative (Art. 27): {_text(of.representative) or 'none named'}"
    yield f"- Data protection officer: {_said(of.dpo)}"
    yield f"- Joint controllers (Art. 26): {_listed(of.joint_controllers) or 'none named'}"
    for one in record.activities:
        yield from _of_activity(one)
    yield ""
    yield "## (g) Security measures that hold for all of it"
    yield ""
    yield from _bullets(record.security)
    yield ""
    yield "## What is missing"
    yield ""
    if not missing:
        yield "Nothing: every heading of Art. 30(1) is answered."
    for lack in missing:
        yield f"- ({lack.point}) `{_text(lack.part)}`: {_text(lack.what)}. Say it with `{lack.setting}`."


def _of_activity(one: Activity) -> Iterator[str]:
    yield ""
    yield f"## {_text(one.dataset)}"
    yield ""
    yield f"`{_text(one.store)}` in the database `{_text(one.database)}`."
    yield ""
    yield "### (b) Purposes"
    yield ""
    yield from _bullets([f"{purpose.name}: {purpose.basis or _MISSING}" for purpose in one.purposes])
    yield ""
    yield "### (c) Whom it is about, and what kinds of data"
    yield ""
    yield f"- Whom: {_listed(one.about) or _MISSING}"
    for data in one.data:
        mark = f" **special category, Art. {data.article}**" if data.article == 9 else ""  # noqa: PLR2004  (Art. 9)
        mark = f" **Art. {data.article}**" if data.article is not None and not mark else mark
        words = f"{data.category} ({data.words})" if data.category else _MISSING
        yield f"- {_text(words)}{mark}" + (f": {_listed(data.fields)}" if data.fields else "")
    if not one.data:
        yield f"- {_MISSING}"
    if one.exemptions and any(data.article is not None for data in one.data):
        yield f"- Why special categories may be used: {_listed(one.exemptions)}"
    yield ""
    yield "### (d) Recipients"
    yield ""
    yield from _bullets(one.recipients)
    yield ""
    yield "### (e) Transfers to third countries"
    yield ""
    yield from _bullets(
        [f"{t.place}, {t.country or 'country not known'}: {t.safeguard or _MISSING}" for t in one.transfers],
        none="None: no place is known outside of the EEA that it can reach.",
    )
    yield ""
    yield "### (f) Time limits for erasure"
    yield ""
    yield f"- Kept: {_said(one.time_limit or '')}"
    yield f"- A person's rows, on erasure: {one.ends}"
    yield ""
    yield "### (g) Security measures"
    yield ""
    yield from _bullets(one.security)


_MISSING = "*missing*"


def _said(text: str) -> str:
    return _text(text) or _MISSING


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(_text, names))


def _bullets(lines: Sequence[str], *, none: str = f"- {_MISSING}") -> list[str]:
    return [f"- {_text(line)}" for line in lines] or [none]


def _text(text: str) -> str:
    """Text of somebody's own as it stands on a page: on one line, and what Markdown would take for its own escaped."""
    one_line = " ".join(str(text).split())
    if one_line == _MISSING:
        return one_line
    return "".join(f"\\{c}" if c in "\\`[]<>#|" else c for c in one_line)
