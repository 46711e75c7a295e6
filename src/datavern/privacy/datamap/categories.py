"""What kinds of data there are about people: ordinary ones, special categories (GDPR Art. 9), crimes (Art. 10).

Special categories may not be used at all, unless one of the exemptions of Art. 9(2) holds; data about crimes only under
official authority, or where law allows it (personopplysningsloven § 11). The exemption comes beside the legal basis of
Art. 6, and does not stand for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from datavern.config import STRICT, checked
from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.privacy.datamap.dataset import Dataset

__all__ = [
    "CATEGORIES",
    "Category",
    "Exemption",
    "ExemptionKind",
    "article_of",
    "categories_of",
    "check_category",
    "exemptions_of",
    "explicit_consent",
    "settle",
    "without_exemption",
]


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of data.

    Attributes:
        words: what it is, for people.
        article: 9 for a special category, 10 for crimes, None for ordinary data.
    """

    words: str
    article: Literal[9, 10] | None = None


CATEGORIES: Mapping[str, Category] = {
    "identity": Category("names, date of birth, and other words for who somebody is"),
    "identity_number": Category("fødselsnummer, D-number and the like (personopplysningsloven § 12)"),
    "contact": Category("addresses, e-mail, telephone"),
    "family": Category("relatives, household, civil status"),
    "financial": Category("accounts, income, debts, payments"),
    "employment": Category("work, position, absence"),
    "education": Category("schools, courses, marks"),
    "location": Category("where somebody is or was"),
    "communication": Category("what somebody wrote or said"),
    "behaviour": Category("what somebody did: purchases, visits, use of a service"),
    "technical": Category("addresses of machines, sessions, identifiers of devices"),
    "image": Category("pictures, sound and video, not used to identify"),
    "case": Category("cases and decisions about somebody"),
    "other": Category("other data about somebody"),
    "health": Category("health, services of health care among it", 9),
    "genetic": Category("genetic data", 9),
    "biometric": Category("biometric data, used to identify", 9),
    "ethnicity": Category("racial or ethnic origin", 9),
    "politics": Category("political opinions", 9),
    "belief": Category("religion, or philosophical belief", 9),
    "trade_union": Category("membership in a trade union", 9),
    "sex_life": Category("sex life", 9),
    "sexual_orientation": Category("sexual orientation", 9),
    "criminal": Category("convictions, offences, and measures because of them", 10),
}
"""Every category, by the name that the data map calls it."""

_OF_KIND: Mapping[str, str] = {
    "fodselsnummer": "identity_number",
    "name": "identity",
    "email": "contact",
    "phone": "contact",
}

ExemptionKind = Literal[
    "employment",
    "vital_interests",
    "association",
    "made_public",
    "legal_claims",
    "substantial_public_interest",
    "health_care",
    "public_health",
    "research",
    "official_authority",
    "allowed_by_law",
]

_EXEMPTIONS: Mapping[str, tuple[str, int, bool]] = {  # in words, the article that it is of, whether it names its law
    "employment": ("employment and social protection law (GDPR Art. 9(2)(b))", 9, True),
    "vital_interests": ("vital interests of somebody who cannot consent (GDPR Art. 9(2)(c))", 9, False),
    "association": ("members of an association without profit (GDPR Art. 9(2)(d))", 9, False),
    "made_public": ("manifestly made public by the person (GDPR Art. 9(2)(e))", 9, False),
    "legal_claims": ("legal claims (GDPR Art. 9(2)(f))", 9, False),
    "substantial_public_interest": ("substantial public interest (GDPR Art. 9(2)(g))", 9, True),
    "health_care": ("health care (GDPR Art. 9(2)(h))", 9, True),
    "public_health": ("public health (GDPR Art. 9(2)(i))", 9, True),
    "research": ("archiving, research or statistics (GDPR Art. 9(2)(j))", 9, True),
    "official_authority": ("control of official authority (GDPR Art. 10)", 10, True),
    "allowed_by_law": ("allowed by law (GDPR Art. 10)", 10, True),
}


@dataclass(frozen=True, slots=True)
class Exemption:
    """Why special categories of data, or data about crimes, may be used at all.

    Explicit consent (Art. 9(2)(a)) is told by the legal basis: ``{ kind = "consent", explicit = true }``.

    Attributes:
        kind: "employment", "vital_interests", "association", "made_public", "legal_claims",
            "substantial_public_interest", "health_care", "public_health" or "research": GDPR Art. 9(2)(b) to (j).
            "official_authority" or "allowed_by_law": Art. 10.
        reference: the law. Those of them that rest on law name it.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: ExemptionKind
    reference: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(ExemptionKind):
            near = difflib.get_close_matches(str(self.kind), get_args(ExemptionKind), n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(get_args(ExemptionKind))}"
            raise ConfigurationError(f"no such exemption of GDPR Art. 9(2) or 10; {hint}")
        if _EXEMPTIONS[self.kind][2] and not self.reference.strip():
            raise ConfigurationError(
                f'{self.kind} rests on law: name it, {{ kind = "{self.kind}", reference = "helsepersonelloven § 39" }}'
            )

    @property
    def article(self) -> int:
        """Of which article it is: 9 or 10."""
        return _EXEMPTIONS[self.kind][1]

    def __str__(self) -> str:
        words = _EXEMPTIONS[self.kind][0]
        return f"{words}: {self.reference}" if self.reference else words


def check_category(name: object) -> None:
    """Refuse what is no category: a special one that is misspelt would pass for an ordinary one.

    Raises:
        ConfigurationError: naming the nearest.
    """
    if name not in CATEGORIES:
        near = difflib.get_close_matches(str(name), CATEGORIES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(CATEGORIES)}"
        raise ConfigurationError(f"no such category of data; {hint}")


def settle(dataset: Dataset) -> tuple[Exemption, ...]:
    """The exemptions that a dataset names, once what it says of its categories is known to agree.

    Raises:
        ConfigurationError: no such category or exemption, or an exemption of what nothing is; with the setting's name.
    """
    problem = what = ""
    found: tuple[Exemption, ...] = ()
    try:
        what = "categories"
        for name in dataset.categories:
            check_category(name)
        what = "exemption"
        found = exemptions_of(dataset.exemption)
    except ConfigurationError as error:
        problem = str(error)
    if problem:
        raise ConfigurationError(f"{what}: {problem}")
    if found and not any(article_of(name) for name in categories_of(dataset)):
        raise ConfigurationError(
            "exemption: is for special categories of data and data about crimes (GDPR Arts. 9 and 10), and nothing "
            'here is one: set the category of a field, or categories = ["health"]'
        )
    return found


def exemptions_of(given: Any) -> tuple[Exemption, ...]:
    """Exemptions as the data map may write them: a kind, a table, or several."""
    if given is None:
        return ()
    if isinstance(given, Exemption):
        return (given,)
    if isinstance(given, str):
        return (Exemption(given),)  # type: ignore[arg-type]  # checked by it
    if isinstance(given, Mapping):
        return (_from(given),)
    if isinstance(given, Sequence):
        return tuple(one for each in given for one in exemptions_of(each))
    raise ConfigurationError('expected a kind of exemption, or { kind = "health_care", reference = "…" }')


def _from(given: Mapping[str, Any]) -> Exemption:
    problem = ""
    try:
        return checked(Exemption, given, path="exemption")
    except ConfigurationError as error:
        problem = str(error).replace("exemption: ", "")
    raise ConfigurationError(problem)


def categories_of(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Category → the fields that are of it; those that the dataset as a whole is of stand with none."""
    found: dict[str, list[str]] = {name: [] for name in dataset.categories}
    for name, field in dataset.fields.items():
        category = field.category or _OF_KIND.get(field.kind or "")
        if category is not None:
            found.setdefault(category, []).append(name)
    return {name: tuple(fields) for name, fields in found.items()}


def article_of(category: str) -> int | None:
    """9 for a special category, 10 for crimes, None for ordinary data."""
    return CATEGORIES[category].article


def without_exemption(dataset: Dataset) -> list[str]:
    """What a dataset lacks that holds special categories of data, or data about crimes; empty: nothing."""
    problems = []
    found = categories_of(dataset)
    known = {one.article for one in exemptions_of(dataset.exemption)}
    special = sorted(name for name in found if article_of(name) == 9)  # noqa: PLR2004  (GDPR Art. 9)
    if special and 9 not in known and not explicit_consent(dataset):  # noqa: PLR2004  (GDPR Art. 9)
        problems.append(
            f"{', '.join(special)}: a special category of data (GDPR Art. 9) asks for explicit consent to every "
            'purpose (legal_basis = { kind = "consent", explicit = true }), or an exemption of Art. 9(2) (exemption)'
        )
    if any(article_of(name) == 10 for name in found) and 10 not in known:  # noqa: PLR2004  (GDPR Art. 10)
        problems.append(
            "criminal: data about crimes is used under official authority, or where law allows it (GDPR Art. 10, "
            'personopplysningsloven § 11): exemption = { kind = "allowed_by_law", reference = "…" }'
        )
    return problems


def explicit_consent(dataset: Dataset) -> bool:
    """Whether every purpose rests on explicit consent (GDPR Art. 9(2)(a))."""
    bases = [dataset.basis_of(purpose) for purpose in dataset.purposes]
    return bool(bases) and all(one is not None and one.kind == "consent" and one.explicit for one in bases)
