"""Why personal data may be used: the legal bases of GDPR Art. 6(1), consent and the five others alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from datavern.config import STRICT, checked
from datavern.contracts.errors import ConfigurationError

__all__ = ["BasisKind", "LegalBasis", "bases_of", "basis_in_words"]

BasisKind = Literal[
    "consent", "contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interests", "stated"
]

_WORDS: Mapping[str, str] = {
    "consent": "consent (GDPR Art. 6(1)(a))",
    "contract": "contract (GDPR Art. 6(1)(b))",
    "legal_obligation": "legal obligation (GDPR Art. 6(1)(c))",
    "vital_interests": "vital interests (GDPR Art. 6(1)(d))",
    "public_task": "public task (GDPR Art. 6(1)(e))",
    "legitimate_interests": "legitimate interests (GDPR Art. 6(1)(f))",
}
_NAMES_ITS_LAW = ("legal_obligation", "public_task", "stated")


@dataclass(frozen=True, slots=True)
class LegalBasis:
    """A basis for the use of personal data, for all of a dataset's purposes or some of them.

    Attributes:
        kind: "consent", "contract", "legal_obligation", "vital_interests", "public_task" or "legitimate_interests":
            GDPR Art. 6(1)(a) to (f). "stated": which of them it is is said nowhere, only `reference` names it; a plain
            text is read as this.
        reference: the law, the contract, the task. A legal obligation and a public task have their basis in law
            (Art. 6(3)), and name it.
        purposes: which of the dataset's purposes rest on it; all that no other basis names when empty.
        balancing: of legitimate interests: the balancing note, which interest outweighs what, or where it is kept.
        marketing: whether it is for direct marketing: an objection always ends that (Art. 21(2)-(3)).
        explicit: of consent: it must be explicit, as special categories of data ask for (Art. 9(2)(a)).
        text_version: of consent: the version of the text that must have been agreed to, or a later one.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: BasisKind
    reference: str = ""
    purposes: Sequence[str] = ()
    balancing: str = ""
    marketing: bool = False
    explicit: bool = False
    text_version: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(BasisKind):
            raise ConfigurationError(f"kind: no such legal basis: expected one of {', '.join(get_args(BasisKind))}")
        for name in ("reference", "balancing"):
            text = getattr(self, name)
            if not isinstance(text, str) or "\0" in text:
                raise ConfigurationError(f"{name}: expected text, without NUL characters")
        if isinstance(self.purposes, str):
            raise ConfigurationError(f'purposes is a list: purposes=["{self.purposes}"]')
        object.__setattr__(self, "purposes", tuple(self.purposes))
        if self.kind in _NAMES_ITS_LAW and not self.reference.strip():
            raise ConfigurationError("reference: missing; which law, or what task? (GDPR Art. 6(3))")
        self._check_interests()
        self._check_consent()

    def _check_interests(self) -> None:
        if self.kind == "legitimate_interests" and not self.balancing.strip():
            raise ConfigurationError(
                "balancing: missing; legitimate interests count only where the person's own do not weigh more, and the "
                "note says why (GDPR Art. 6(1)(f))"
            )
        if self.kind != "legitimate_interests" and self.balancing:
            raise ConfigurationError("balancing: is for legitimate interests: leave it out")
        if self.marketing and self.kind not in ("consent", "legitimate_interests"):
            raise ConfigurationError("marketing: direct marketing rests on consent or on legitimate interests")

    def _check_consent(self) -> None:
        if self.kind != "consent" and (self.explicit or self.text_version is not None):
            raise ConfigurationError("explicit and text_version are for consent: leave them out")
        if self.text_version is not None and not self.text_version.strip():
            raise ConfigurationError('text_version: expected a version, such as "2026-02"')

    def __str__(self) -> str:
        words = _WORDS.get(self.kind)
        if words is None:
            return self.reference
        return words + (f": {self.reference}" if self.reference else "")


def basis_in_words(basis: LegalBasis | str | None) -> str:
    """What a purpose rests on, as records and answers say it: None, of `Dataset.basis_of`, is consent."""
    return _WORDS["consent"] if basis is None else str(basis)


def bases_of(value: Any, purposes: Sequence[str]) -> str | tuple[LegalBasis, ...] | None:
    """Legal bases as the data map may write them: a text, a table, or a list of them, one for each of some purposes.

    Args:
        value: what stands there.
        purposes: the dataset's.

    Returns:
        A text as it is, None for None, or the bases.

    Raises:
        ConfigurationError: an unknown key or kind, a purpose that is not the dataset's, or that has two bases.
    """
    if value is None or isinstance(value, str):
        return value
    given = [value] if isinstance(value, LegalBasis | Mapping) else value
    if not isinstance(given, Sequence) or not given:
        raise ConfigurationError('expected a text, a table such as { kind = "contract" }, or a list of such tables')
    bases = tuple(_basis(one) for one in given)
    seen: set[str] = set()
    for basis in bases:
        for purpose in basis.purposes:
            if purpose not in purposes:
                known = f"the dataset's are: {', '.join(purposes)}" if purposes else "the dataset names none"
                raise ConfigurationError(f"purposes: {purpose} is no purpose of the dataset; {known}")
            if purpose in seen:
                raise ConfigurationError(f"purposes: {purpose} has two legal bases: one purpose rests on one")
            seen.add(purpose)
    if sum(not basis.purposes for basis in bases) > 1:
        raise ConfigurationError("purposes: missing; where there are several bases, each says what for")
    return bases


def _basis(one: Any) -> LegalBasis:
    if isinstance(one, LegalBasis):
        return one
    if isinstance(one, str):
        return LegalBasis("stated", one)
    if not isinstance(one, Mapping):
        raise ConfigurationError('expected a text, or a table such as { kind = "contract" }')
    return checked(LegalBasis, one, path="legal_basis")
