"""The words of the letter that comes with a copy of a person's data, in bokmål and English.

The bokmål follows the terms of the regulation's Norwegian text (personopplysningsloven's annex).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from datavern.privacy.datamap.bases import basis_in_words
from datavern.privacy.datamap.categories import CATEGORIES
from datavern.privacy.datamap.dataset import Dataset
from datavern.privacy.pages.blocks import Language
from datavern.privacy.pages.speech import words_in
from datavern.privacy.values.periods import units_of

__all__ = ["basis", "category", "period", "safeguard", "why_masked", "words"]

_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "title": ("Svar på krav om innsyn", "Answer to your request for access"),
    "lead": (
        (
            "{organisation} behandler personopplysninger om deg. Her er en kopi av dem, og det du har krav på å få "
            "vite om behandlingen (personvernforordningen, GDPR, art. 15)."
        ),
        (
            "{organisation} holds personal data about you. Here is a copy of it, and what you are to be told of its "
            "use (GDPR Art. 15)."
        ),
    ),
    "nothing": (
        "{organisation} har lett overalt der opplysninger om deg kan ligge, og har ikke funnet noen.",
        "{organisation} looked everywhere where data about you may lie, and found none.",
    ),
    "we": ("Virksomheten", "The organisation"),
    "organisation": ("Behandlingsansvarlig", "Controller"),
    "contact": ("Kontakt", "Contact"),
    "dpo": ("Personvernombud", "Data protection officer"),
    "subject": ("Du er registrert som", "You are on record as"),
    "request": ("Henvendelse nr.", "Request"),
    "received": ("Mottatt", "Received"),
    "answered": ("Besvart", "Answered"),
    "identity": ("Identitet fastslått", "Identity verified"),
    "consents": ("Samtykkene dine", "Your consents"),
    "restrictions": ("Begrensninger og protester", "Restrictions and objections"),
    "purposes": ("Formål og rettslig grunnlag", "Purposes, and their legal basis"),
    "categories": ("Kategorier av opplysninger", "Categories of data"),
    "recipients": ("Mottakere", "Recipients"),
    "nobody": ("ingen", "nobody"),
    "transfers": ("Overføring ut av EØS", "Transfers out of the EEA"),
    "no-safeguard": ("garantien er ikke oppgitt", "the safeguard is not stated"),
    "kept": ("Lagringstid", "Kept for"),
    "sources": ("Hvor opplysningene kommer fra", "Where the data comes from"),
    "you": ("deg", "you"),
    "automated": ("Automatiserte avgjørelser", "Automated decisions"),
    "no-automated": (
        "ingen, heller ikke profilering som nevnt i art. 22",
        "none, and no profiling of the kind that Art. 22 is about",
    ),
    "field": ("Felt", "Field"),
    "value": ("Verdi", "Value"),
    "one-row": ("Det som er registrert", "What is on record"),
    "row-of": ("Oppføring {number} av {rows}", "Record {number} of {rows}"),
    "yes": ("ja", "yes"),
    "no": ("nei", "no"),
    "too-long": (
        "{start} … ({length} tegn; hele verdien følger med i en fil)",
        "{start} … ({length} characters; the whole value comes with this in a file)",
    ),
    "masked-heading": ("Hva som er utelatt", "What is left out"),
    "masked-caption": ("Opplysninger om andre enn deg", "Data about others than you"),
    "place": ("Sted", "Place"),
    "times": ("Antall", "Times"),
    "why": ("Hvorfor", "Why"),
    "masked-why": (
        "Det gjelder en annen person (GDPR art. 15 nr. 4, personopplysningsloven § 16).",
        "It is about another person (GDPR Art. 15(4), personopplysningsloven § 16).",
    ),
    "rights-heading": ("Rettighetene dine", "Your rights"),
    "rights-lead": (
        "Hvilke av dem som gjelder, avhenger av hvorfor opplysningene behandles. Ta kontakt med oss for å bruke dem.",
        "Which of them apply depends on why the data is used. Contact us to make use of them.",
    ),
    "right-rectification": (
        "Retting (art. 16): du kan kreve at uriktige opplysninger rettes, og at ufullstendige gjøres fullstendige.",
        "Rectification (Art. 16): you may have wrong data put right, and incomplete data completed.",
    ),
    "right-erasure": (
        "Sletting (art. 17): du kan kreve opplysningene slettet når vilkårene for det er oppfylt.",
        "Erasure (Art. 17): you may have the data erased where the conditions for that hold.",
    ),
    "right-restriction": (
        (
            "Begrensning (art. 18): du kan kreve at behandlingen begrenses, for eksempel mens det undersøkes om noe er "
            "riktig."
        ),
        "Restriction (Art. 18): you may have the use restricted, for instance while it is looked into what is right.",
    ),
    "right-portability": (
        "Dataportabilitet (art. 20): du kan få det du selv har gitt oss, i et maskinlesbart format.",
        "Portability (Art. 20): you may have what you gave us yourself in a form that machines read.",
    ),
    "right-objection": (
        (
            "Protest (art. 21): du kan protestere mot behandling som bygger på allmennhetens interesse eller en "
            "berettiget interesse, og alltid mot direkte markedsføring."
        ),
        (
            "Objection (Art. 21): you may object to use in the public interest or for legitimate interests, and always "
            "to direct marketing."
        ),
    ),
    "right-consent": (
        "Samtykke (art. 7 nr. 3): du kan når som helst trekke tilbake et samtykke.",
        "Consent (Art. 7(3)): you may withdraw a consent at any time.",
    ),
    "right-human": (
        (
            "Automatiserte avgjørelser (art. 22): du kan kreve at et menneske vurderer saken, si hva du mener, og "
            "bestride avgjørelsen."
        ),
        (
            "Automated decisions (Art. 22): you may have a person look at the matter, say what you think, and contest "
            "the decision."
        ),
    ),
    "right-complaint": (
        (
            "Klage (art. 77): du kan klage til Datatilsynet (datatilsynet.no), og bringe saken inn for domstolene "
            "(art. 79)."
        ),
        (
            "Complaint (Art. 77): you may complain to the Norwegian Data Protection Authority, Datatilsynet "
            "(datatilsynet.no), and take the matter to court (Art. 79)."
        ),
    ),
}

_BASES: Final[Mapping[str, str]] = {
    "consent": "samtykke (GDPR art. 6 nr. 1 bokstav a)",
    "contract": "avtale (GDPR art. 6 nr. 1 bokstav b)",
    "legal_obligation": "rettslig forpliktelse (GDPR art. 6 nr. 1 bokstav c)",
    "vital_interests": "vitale interesser (GDPR art. 6 nr. 1 bokstav d)",
    "public_task": (
        "oppgave i allmennhetens interesse, eller utøvelse av offentlig myndighet (GDPR art. 6 nr. 1 bokstav e)"
    ),
    "legitimate_interests": "berettiget interesse (GDPR art. 6 nr. 1 bokstav f)",
}
_CATEGORIES: Final[Mapping[str, str]] = {
    "identity": "navn, fødselsdato og annet som sier hvem du er",
    "identity_number": "fødselsnummer, D-nummer og lignende (personopplysningsloven § 12)",
    "contact": "adresse, e-post og telefon",
    "family": "slektninger, husstand og sivilstand",
    "financial": "kontoer, inntekt, gjeld og betalinger",
    "employment": "arbeid, stilling og fravær",
    "education": "skole, kurs og karakterer",
    "location": "hvor du er eller har vært",
    "communication": "hva du har skrevet eller sagt",
    "behaviour": "hva du har gjort: kjøp, besøk og bruk av tjenester",
    "technical": "maskinadresser, økter og enheters kjennetegn",
    "image": "bilder, lyd og video som ikke brukes til å identifisere deg",
    "case": "saker og vedtak om deg",
    "other": "andre opplysninger om deg",
    "health": "helseopplysninger, også om helsetjenester",
    "genetic": "genetiske opplysninger",
    "biometric": "biometriske opplysninger som brukes til å identifisere deg",
    "ethnicity": "rasemessig eller etnisk opprinnelse",
    "politics": "politisk oppfatning",
    "belief": "religion eller filosofisk overbevisning",
    "trade_union": "fagforeningsmedlemskap",
    "sex_life": "seksuelle forhold",
    "sexual_orientation": "seksuell orientering",
    "criminal": "straffedommer, lovovertredelser og tilknyttede sikkerhetstiltak",
}
_SAFEGUARDS: Final[Mapping[str, str]] = {
    "adequacy": "beslutning om tilstrekkelig beskyttelsesnivå (GDPR art. 45)",
    "scc": "standard personvernbestemmelser (GDPR art. 46 nr. 2 bokstav c)",
    "bcr": "bindende virksomhetsregler (GDPR art. 47)",
    "code": "godkjente atferdsnormer (GDPR art. 46 nr. 2 bokstav e)",
    "certification": "godkjent sertifisering (GDPR art. 46 nr. 2 bokstav f)",
    "authorisation": "tilsynsmyndighetens godkjenning (GDPR art. 46 nr. 3)",
    "derogation": "unntak for særlige situasjoner (GDPR art. 49)",
}
_UNITS: Final[Mapping[str, tuple[tuple[str, str], tuple[str, str]]]] = {
    "y": (("år", "år"), ("year", "years")),
    "m": (("måned", "måneder"), ("month", "months")),
    "w": (("uke", "uker"), ("week", "weeks")),
    "d": (("dag", "dager"), ("day", "days")),
}


def words(language: Language) -> Callable[..., str]:
    """What gives the words of that language by their name: see `words_in`."""
    return words_in(language, _WORDS)


def basis(dataset: Dataset, purpose: str | None, language: Language) -> str:
    """What a purpose rests on."""
    found = dataset.basis_of(purpose)
    if language == "en":
        return basis_in_words(found)
    if found is None:
        return _BASES["consent"]
    said = _BASES.get(found.kind)
    if said is None:  # the organisation's own words
        return found.reference
    return f"{said}: {found.reference}" if found.reference else said


def category(name: str, language: Language) -> str:
    """A kind of data."""
    return _CATEGORIES[name] if language == "nb" else CATEGORIES[name].words


def safeguard(dataset: Dataset, language: Language) -> str:
    """On what grounds the data may be outside of the EEA."""
    given: Any = dataset.transfer
    if language == "en":
        return str(given)
    said = _SAFEGUARDS.get(given.basis, "garantier etter GDPR art. 44–49")
    return f"{said}: {given.reference}" if given.reference else said


def period(dataset: Dataset, language: Language) -> str:
    """For how long it is kept."""
    which = 0 if language == "nb" else 1
    parts = [f"{number} {_UNITS[unit][which][number != 1]}" for unit, number in units_of(dataset.retention)]
    text = (" og ", " and ")[which].join(parts)
    if dataset.retention_from is not None:
        text += (f", regnet fra {dataset.retention_from}", f", counted from {dataset.retention_from}")[which]
    if dataset.retention_from_year_end:
        text += (" (fra utgangen av det året)", " (from the end of that year)")[which]
    return text


def why_masked(language: Language) -> str:
    """Why something is left out."""
    return words(language)("masked-why")
