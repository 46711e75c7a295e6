"""The letter of an access answer: everything that GDPR Art. 15 asks for is on it, in bokmål and in English."""

import datetime as dt
import re
from dataclasses import replace
from html import unescape

import pytest

from datavern import ConfigurationError, Dataset, Field, Identity, LegalBasis
from datavern.privacy.datamap.approvals import _ARTICLES
from datavern.privacy.datamap.bases import _WORDS
from datavern.privacy.datamap.categories import CATEGORIES
from datavern.privacy.datamap.information import Transferred, informed
from datavern.privacy.journal.values import Masked
from datavern.privacy.requests import letter_words
from datavern.privacy.requests.letter import AccessLetter, Sender

EVIL = "<script>alert('x')</script>"
VISITS = Dataset(
    "visits",
    database="main",
    subject="who",
    purposes=["treatment", "newsletter"],
    legal_basis=[LegalBasis("public_task", "helsepersonelloven § 39", purposes=["treatment"])],
    recipients=["NAV"],
    retention="3y6m",
    retention_from="written",
    retention_from_year_end=True,
    source=["Folkeregisteret", "person"],
    automated_decisions="Ventetiden settes ut fra alder; den avgjør når du får time.",
    transfer={"basis": "scc", "reference": "DPA 12", "country": "USA"},
    fields={"diagnosis": Field(sealed=True, category="health", source="fastlegen"), "note": Field()},
)
SENT = (Transferred("Log Inc", "USA", "standard contractual clauses, GDPR Art. 46(2)(c): DPA 12"),)
LETTER = AccessLetter(
    sender=Sender("Eksempel kommune", "post@eksempel.example", "Kari Nordmann"),
    subject="u1",
    request="r1",
    received=dt.date(2026, 11, 2),
    completed=dt.datetime(2026, 11, 28, 17, 4, tzinfo=dt.UTC),
    identity=Identity("bankid", "saksbehandler-7", dt.datetime(2026, 11, 2, 9, 12, tzinfo=dt.UTC)),
    data={"main.visits": [{"who": "u1", "note": EVIL, "seen": True, "more": {"æ": [1]}, "gone": None}],
          "datavern.consents": [{"purpose": "newsletter"}] * 2, "main.empty": []},
    information={"main.visits": informed(VISITS, SENT)},
    datasets={"main.visits": VISITS},
    masked=[Masked("main.visits", "names", "others", 3)],
)  # fmt: skip


def text(letter, language):
    page = letter.to_html(language)
    return " ".join(unescape(re.sub("<[^>]+>", " ", page[page.index("<main>") :])).split())


def test_everything_that_the_person_is_to_be_told_is_on_it():
    norwegian = text(LETTER, "nb")
    for words in (
        "Svar på krav om innsyn",
        "Eksempel kommune behandler personopplysninger om deg",
        "Personvernombud Kari Nordmann",
        "2. november 2026",
        "bankid (saksbehandler-7), 2. november 2026 kl. 09.12 UTC",
        "treatment: oppgave i allmennhetens interesse, eller utøvelse av offentlig myndighet (GDPR art. 6 nr. 1",
        "e): helsepersonelloven § 39; newsletter: samtykke (GDPR art. 6 nr. 1 bokstav a)",
        "helseopplysninger",
        "Mottakere NAV",
        "Log Inc, USA: standard personvernbestemmelser (GDPR art. 46 nr. 2 bokstav c): DPA 12",
        "3 år og 6 måneder, regnet fra written (fra utgangen av det året)",
        "Folkeregisteret, deg; diagnosis: fastlegen",
        "Ventetiden settes ut fra alder",
        "Samtykkene dine",
        "Oppføring 2 av 2",
        "seen ja",
        '{"æ": [1]}',
        "Det gjelder en annen person",
        *("Retting (art. 16)", "Sletting (art. 17)", "Begrensning (art. 18)", "Dataportabilitet (art. 20)"),
        *("Protest (art. 21)", "Samtykke (art. 7 nr. 3)", "Automatiserte avgjørelser (art. 22)", "Datatilsynet"),
    ):
        assert words in norwegian, words
    english = text(LETTER, "en")
    for words in (
        "public task (GDPR Art. 6(1)(e)): helsepersonelloven § 39",
        "Log Inc, USA: standard contractual clauses, GDPR Art. 46(2)(c): DPA 12",
        "3 years and 6 months, counted from written (from the end of that year)",
        "Folkeregisteret, you; diagnosis: fastlegen",
        "complain to the Norwegian Data Protection Authority, Datatilsynet",
    ):
        assert words in english, words
    assert "main.empty" not in norwegian + english
    assert "<script>" not in LETTER.to_html()
    assert "u1" not in repr(LETTER).replace("'r1'", "")


def test_what_was_not_found_and_what_nobody_said():
    nothing = text(replace(LETTER, data={}, information={}, masked=()), "nb")
    assert "Eksempel kommune har lett overalt der opplysninger om deg kan ligge, og har ikke funnet noen." in nothing
    assert "Datatilsynet" in nothing
    silent = Dataset("visits", database="main", subject="who")
    said = {"main.visits": informed(silent, (Transferred("Log Inc", None, None),))}
    bare = replace(LETTER, sender=Sender(), identity=None, information=said, datasets={"main.visits": silent})
    assert "Virksomheten behandler personopplysninger om deg" in text(bare, "nb")
    assert "Log Inc: garantien er ikke oppgitt" in text(bare, "nb")
    assert "Hvor opplysningene kommer fra" not in text(bare, "nb")
    none = Dataset("visits", database="main", subject="who", recipients=["none"], automated_decisions="none")
    quiet = text(replace(bare, information={"main.visits": informed(none)}, datasets={"main.visits": none}), "nb")
    assert "Mottakere ingen Automatiserte avgjørelser ingen" in quiet
    assert "Automatiserte avgjørelser (art. 22)" not in quiet
    with pytest.raises(ConfigurationError, match="expected nb or en"):
        LETTER.to_html("nn")


def test_everything_that_the_data_map_can_say_has_words_in_norwegian():
    assert letter_words._CATEGORIES.keys() == CATEGORIES.keys()
    assert letter_words._BASES.keys() == _WORDS.keys()
    assert letter_words._SAFEGUARDS.keys() == _ARTICLES.keys() - {"other"}
    other = replace(VISITS, transfer="a treaty", legal_basis="bokføringsloven § 13")
    assert letter_words.safeguard(other, "nb") == "garantier etter GDPR art. 44–49: a treaty"
    assert letter_words.basis(other, "treatment", "nb") == "bokføringsloven § 13"
    assert letter_words.period(replace(VISITS, retention="1m", retention_from=None, retention_from_year_end=False),
                               "nb") == "1 måned"  # fmt: skip


def test_a_file_s_content_is_told_by_its_length():
    long = replace(LETTER, data={"main.visits": [{"content": "QUJD" * 2000, "note": "kort"}]})
    assert (LETTER.abridged, long.abridged) == (0, 1)
    assert "(8\u00a0000 tegn; hele verdien følger med i en fil)" in long.to_html().replace("&nbsp;", "\u00a0")
    assert len(long.to_html()) < 10_000
    assert long.to_pdf().startswith(b"%PDF-")


@pytest.mark.parametrize("language", ["nb", "en"])
def test_the_pdf_has_its_language(language):
    pdf = LETTER.to_pdf(language)
    assert pdf.startswith(b"%PDF-")
    assert {"nb": b"/Lang (nb-NO)", "en": b"/Lang (en-GB)"}[language] in pdf
