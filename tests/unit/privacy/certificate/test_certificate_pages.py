"""Certificates as people read them: a page and a PDF, in two languages, with everything escaped; and their proofs."""

import html
import json
import re
from html.parser import HTMLParser

import pytest

from datavern.audit.offline import NotValid, verify_certificate
from datavern.contracts.errors import ConfigurationError
from datavern.crypto.signing import Signer
from datavern.privacy.certificate import words as certificate_words
from datavern.privacy.certificate.certificate import ERASED_CLAIMS, ERASED_LIMITS, RECORDS_CLAIM, Certificate
from datavern.privacy.certificate.html import embedded
from datavern.privacy.erasure import shredded

EVIL = "<script>alert('æøå')</script> & \"Kongsvinger\" ČđŋŠŧž 💾 </pre><pre>"
SIGNER = Signer("eksempel/kommune", bytes([7]) * 32)


def store(label, **more):
    return {"dataset": label, "policy": "delete", "found": 0, "done": {}, "kept": [], "left": [], "notes": [], **more}


ERASED = {
    "organisation": "Eksempel kommune",
    "request": "r1",
    "subject": EVIL,
    "received": "2026-11-02",
    "deadline": "2027-02-02",
    "extended": True,
    "identity": {"method": "BankID", "verified_by": "saksbehandler-7", "at": "2026-11-02T09:12:00Z"},
    "completed": "2026-11-28T17:04:51.123456Z",
    "stores": [
        store("main.users", found=1, done={"anonymized": 1}, left=["created_at"], audit="e1"),
        store(
            "main.invoices",
            found=14,
            done={"sealed anew under a retention key": 14},
            kept=[{"rows": 14, "why": "bokføringsloven § 13", "until": "2030-12-31"}],
            notes=[EVIL],
            audit="e2",
        ),
        store("cache.sessions"),
    ],
    "keys": [{"id": "00ff" * 8, "dataset": "users", "at": "2026-11-28T17:04:51.0Z"}],
    "recipients": {"main.users": ["Skatteetaten"]},
    "audit": "e3",
    "claims": [*ERASED_CLAIMS, RECORDS_CLAIM],
    "limits": [*ERASED_LIMITS, "A limit of a later version."],
}
SHREDDED = {
    "organisation": "",
    "subject": "u1",
    "since": "2026-12-30T10:00:00Z",
    "keys": ERASED["keys"],
    "rotation": {
        "epoch": 2,
        "previous": 1,
        "started": "2026-12-01T10:00:00Z",
        "destroyed": "2026-12-01T11:00:00Z",
        "gone": "2026-12-30T10:00:00Z",
        "how": "deleted",
        "indexed": {},
        "copy": {},
    },
    "recoveries": [{"id": "x", "shares": 3, "threshold": 2, "destroyed": "2026-12-02T10:00:00Z", "said": "kari"}],
    "claims": list(shredded.SHREDDED_CLAIMS),
    "limits": list(shredded.SHREDDED_LIMITS),
}


def issued(statement="erased", **changes):
    return Certificate.issue(SIGNER, statement, {**(ERASED if statement == "erased" else SHREDDED), **changes})


class Read(HTMLParser):
    """A page: its text, its tags, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in ("meta", "col"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("language", ["nb", "en"])
@pytest.mark.parametrize("statement", ["erased", "shredded"])
def test_the_page_is_whole_accessible_and_fetches_nothing(statement, language):
    text = issued(statement).to_html(language)
    read = Read(text)
    assert text.startswith("<!doctype html>")
    assert ("html", {"lang": language}) in read.attributes
    assert read.tags.count("h1") == 1
    assert "script" not in read.tags
    assert not {"img", "link", "iframe", "a"} & set(read.tags)
    assert "url(" not in text
    for tag, attributes in read.attributes:
        assert tag != "th" or attributes["scope"] in ("col", "row")
        assert not any(name.startswith("on") for name in attributes)
    assert read.tags.count("caption") == read.tags.count("table") > 0
    assert "@media print" in text


def test_everything_that_is_to_be_known_is_on_the_page():
    text = " ".join(" ".join(Read(issued().to_html("nb")).text).split())
    for words in (
        "Bekreftelse på sletting",
        "Eksempel kommune bekrefter at",
        "2. februar 2027 (forlenget, GDPR art. 12 nr. 3)",
        "BankID (saksbehandler-7), 2. november 2026 kl. 09.12 UTC",
        "28. november 2026 kl. 17.04 UTC",
        "anonymisert: 1",
        "bokføringsloven § 13",
        "31. desember 2030",
        "created_at",
        "Skatteetaten",
        "00ff" * 8,
        "Loggen var ikke forseglet",
        "Nøklene som er ført opp, er ødelagt",
        "A limit of a later version.",
        "Datatilsynet",
        "datavern subject verify certificate.json",
    ):
        assert words in text, words
    english = " ".join(" ".join(Read(issued().to_html("en")).text).split())
    for words in ("Certificate of erasure", "2 February 2027 (extended", "31 December 2030", "complain", "17:04 UTC"):
        assert words in english, words
    assert "Beyond reach since" in issued("shredded").to_html("en")
    with pytest.raises(ConfigurationError, match="expected nb or en"):
        issued().to_html("nn")


def test_what_stands_in_it_is_text_and_nothing_else():
    text = issued().to_html()
    assert "<script>" not in text
    assert html.escape(EVIL) in text
    assert Certificate.from_json(embedded(text)) == issued()
    assert embedded("no page") == "no page"


def test_every_sentence_that_is_signed_has_a_translation():
    signed = [*ERASED_CLAIMS, RECORDS_CLAIM, *ERASED_LIMITS, *shredded.SHREDDED_CLAIMS, *shredded.SHREDDED_LIMITS]
    for sentence in signed:
        assert certificate_words.said(sentence, "nb")[1] == "nb", sentence


@pytest.mark.parametrize("language", ["nb", "en"])
@pytest.mark.parametrize("statement", ["erased", "shredded"])
def test_the_pdf_has_its_letters_its_language_and_the_signed_file(statement, language):
    made = issued(statement, stores=[store(f"main.t{n}", found=n, done={"deleted": n}) for n in range(60)])
    pdf = made.to_pdf(language)
    assert pdf.startswith(b"%PDF-")
    assert {"nb": b"/Lang (nb-NO)", "en": b"/Lang (en-GB)"}[language] in pdf
    assert b"certificate.json" in pdf
    assert pdf.count(b"/Type /Page\n") > 2  # a table over several pages


def test_letters_that_the_font_lacks_are_written_as_their_codes():
    from importlib.resources import files

    import fpdf

    from datavern.privacy.pages import pdf
    from datavern.privacy.pages.blocks import Page

    drawn = pdf._Document(fpdf, files("fontpkg_fira_sans") / "files", Page("Side", "Eksempel kommune", "nb", ()))
    drawn.close()
    assert drawn._shown("Æøå čđŋšŧž – ж\n中💾") == "Æøå čđŋšŧž – ж [U+4E2D][U+1F4BE]"


def test_a_pdf_without_its_packages_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "fpdf", None)
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'datavern[pdf]'")):
        issued().to_pdf()


# ---- verified offline -----------------------------------------------------------------------------------------------


def test_a_certificate_and_its_page_verify_offline():
    for text in (issued().to_json(), issued().to_html()):
        checked, unchecked = verify_certificate(text, SIGNER.verifier)
        assert checked == ["the signature: eksempel/kommune (Eksempel kommune) signed exactly this, as erased"]
        assert any("3 of its 3 audit entries: no proof is in the file" in line for line in unchecked)
        assert any("whether the databases hold what it says" in line for line in unchecked)
    checked, unchecked = verify_certificate(issued("shredded").to_json(), f"\n{SIGNER.verifier}\n")
    assert "its order" in checked[1]
    other = Signer("other", bytes([8]) * 32)
    assert verify_certificate(issued().to_json(), f"{other.verifier}\n{SIGNER.verifier}\n")[0]
    with pytest.raises(NotValid, match="no key of the verifier"):
        verify_certificate(issued().to_json(), other.verifier)


@pytest.mark.parametrize(
    ("statement", "changes", "says"),
    [
        ("erased", {"completed": "2026-11-27T00:00:00Z"}, "contradicts itself"),
        ("erased", {"completed": "soon"}, "a time in it is none"),
        ("shredded", {"since": "2026-12-01T00:00:00Z"}, "contradicts itself"),
        ("shredded", {"rotation": {**SHREDDED["rotation"], "started": "2026-11-01T00:00:00Z"}}, "contradicts itself"),
        ("shredded", {"rotation": None}, "no rotation"),
    ],
)
def test_a_signed_statement_that_contradicts_itself_is_not_valid(statement, changes, says):
    with pytest.raises(NotValid, match=says):
        verify_certificate(issued(statement, **changes).to_json(), SIGNER.verifier)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"certificate": {"statement": "erased"}}', "<!doctype html>x"])
def test_what_is_no_certificate_is_none_offline(text):
    with pytest.raises(NotValid, match="no certificate"):
        verify_certificate(text, SIGNER.verifier)


def test_proofs_that_are_none_are_not_valid():
    whole = json.loads(issued().to_json())
    for proof in ({}, 5, {"format": "datavern-audit-proof", "version": 1}):
        whole["proofs"] = [proof]
        with pytest.raises(NotValid):
            verify_certificate(json.dumps(whole), SIGNER.verifier)
