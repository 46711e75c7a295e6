"""What personal data looks like: in the name of a column, and in a text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from datavern.contracts.identity import is_account_number, is_organisation_number

__all__ = ["KINDS", "Kind", "Sign", "hint", "is_iban", "numbers_in", "words_of"]

Kind = Literal[
    "fodselsnummer", "email", "phone", "name", "address", "birth date", "account number", "iban", "organisation number",
    "ip address",
]  # fmt: skip

_ELEVEN = re.compile(r"(?<![0-9A-Za-z.,+-])([0-9]{6})[ -]?([0-9]{5})(?![0-9A-Za-z]|[.,-][0-9])")
_WORD = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-zæøå0-9])(?=[A-ZÆØÅ])")


@dataclass(frozen=True, slots=True)
class Sign:
    """How a kind is told.

    Attributes:
        pattern: what a value of the kind looks like; found in a longer text too.
        check: what the found text must also be.
        chance: of values that only look like one (the right number of digits, say), those that pass the check by luck.
        names: words in a column's name that say so, lower case, without æøå's spelling variants.
        against: words that say that it is something else.
        needs_name: its look is too common to mean anything under another name.
    """

    pattern: re.Pattern[str]
    names: frozenset[str]
    chance: float
    check: object = None
    against: frozenset[str] = frozenset()
    needs_name: bool = False


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OTHER_NUMBERS = _words(
    "account konto kontonr kontonummer bank order ordre ordrenr bestilling invoice faktura kid timestamp ts time tid "
    "created updated opprettet endret phone tlf telefon mobil ean gtin barcode sku serial serie ref reference referanse"
)

IDENTITY_NAMES = _words(
    "fodselsnummer fodselsnr fnr personnummer personnr pnr dnummer dnr ssn nin nationalid identitetsnummer idnummer "
    "personalnumber personidentifikator folkeregisteridentifikator"
)


def is_iban(text: str) -> bool:
    """Whether the check digits are right (ISO 13616, ISO 7064 MOD 97-10)."""
    digits = text.replace(" ", "")
    turned = digits[4:] + digits[:4]
    return len(digits) <= 34 and int("".join(str(int(c, 36)) for c in turned)) % 97 == 1  # noqa: PLR2004  (the standard's)


SIGNS: dict[Kind, Sign] = {
    "email": Sign(
        re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])"),
        _words("email epost mail mailadresse emailaddress epostadresse"),
        0.001,
    ),
    "iban": Sign(
        re.compile(r"(?<![A-Z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Z0-9])"),
        _words("iban"),
        1 / 97,
        check=is_iban,
    ),
    "account number": Sign(
        re.compile(r"(?<![0-9.])[0-9]{4}([. ]?)[0-9]{2}\1[0-9]{5}(?![0-9.])"),
        _words("account konto kontonr kontonummer bankkonto accountnumber bankaccount"),
        1 / 11,
        check=is_account_number,
    ),
    "organisation number": Sign(
        re.compile(r"(?<![0-9])[89][0-9]{2} ?[0-9]{3} ?[0-9]{3}(?![0-9])"),
        _words("orgnr organisasjonsnummer orgnummer organisationnumber foretak foretaksnummer"),
        1 / 11,
        check=is_organisation_number,
    ),
    "phone": Sign(
        re.compile(r"(?<![0-9A-Za-z])(?:(?:\+|00)[1-9][0-9]{0,2}[ -]?)?[0-9](?:[ -]?[0-9]){7,11}(?![0-9A-Za-z])"),
        _words("phone tlf telefon telefonnummer mobil mobile mobilnummer cell phonenumber telephone"),
        0.02,
        needs_name=True,
    ),
    "ip address": Sign(
        re.compile(r"(?<![0-9.])(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(?![0-9.])"),
        _words("ip ipaddress ipadresse clientip remoteaddr"),
        0.01,
        against=_words("version versjon release"),
    ),
    "address": Sign(
        re.compile(
            r"(?i)\b[\w.' -]{2,40}(?:gata|gate|veien|vegen|vei|veg|allé|alle|plass|torget|bakken|geaidnu|street|road)"
            r"\s+[0-9]{1,4}\s?[a-z]?\b"
        ),
        _words("address adresse gateadresse postadresse street streetaddress bosted bostedsadresse"),
        0.002,
    ),
    "birth date": Sign(
        re.compile(r"(?<![0-9])(?:18|19|20)[0-9]{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])(?![0-9])"),
        _words("birth birthdate birthday dateofbirth dob born fodt fodselsdato fodselsdag"),
        0.5,
        needs_name=True,
    ),
    "name": Sign(
        re.compile(r"[^\W\d_][\w.'’-]*(?: [^\W\d_][\w.'’-]*){0,5}"),
        _words("name navn fullname firstname fornavn lastname etternavn surname givenname familyname kontaktperson"),
        0.02,
        against=_words("file filnavn filename host hostname table database product produkt vare firma company domain"),
    ),
}  # fmt: skip
KINDS: tuple[Kind, ...] = ("fodselsnummer", *SIGNS)


def words_of(column: str) -> frozenset[str]:
    """The words in a column's name: ``customerEmail`` and ``fødsels_nr`` say email and fodselsnr."""
    folded = _CAMEL.sub("_", column).lower().replace("ø", "o").replace("æ", "ae").replace("å", "a")
    parts = _WORD.findall(folded)
    pairs = ["".join(parts[i : i + n]) for n in (1, 2, 3) for i in range(len(parts) - n + 1)]
    return frozenset(pairs)


def hint(kind: Kind, column: str) -> int:
    """What the column's name says: 1 that it is of the kind, -1 that it is something else, 0 nothing."""
    words = words_of(column)
    if kind == "fodselsnummer":
        return 1 if words & IDENTITY_NAMES else -1 if words & _OTHER_NUMBERS else 0
    sign = SIGNS[kind]
    return 1 if words & sign.names and not words & sign.against else -1 if words & sign.against else 0


def numbers_in(text: str) -> list[str]:
    """The eleven-digit numbers in a text, with a space or a hyphen after the sixth digit or none."""
    return [found[1] + found[2] for found in _ELEVEN.finditer(text)]
