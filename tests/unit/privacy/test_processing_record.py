"""The record of processing activities (GDPR Art. 30(1)): every heading, and what nobody said as missing."""

import json

from datavern import DataMap, Dataset, Exemption, Field, LegalBasis, SQLiteProvider
from datavern.privacy.datamap.approvals import Safeguard
from datavern.privacy.processing_record import Controller, ProcessingRecord
from datavern.privacy.residency.places import Place
from datavern.privacy.residency.residency import Transfer

CONTROLLER = Controller("Eksempel kommune", "post@eksempel.example", "", "Kari Nordmann, dpo@x.example", ("NAV",))
JOURNALS = Dataset(
    "journals",
    database="main",
    store="journal | table",
    subject="who",
    purposes=["care", "letters"],
    legal_basis=[LegalBasis("public_task", "helse- og omsorgstjenesteloven § 3-1", purposes=["care"])],
    exemption=Exemption("health_care", "helsepersonelloven § 39"),
    erasure="anonymize",
    retention="3y6m",
    retention_from="written",
    retention_from_year_end=True,
    about=["patients"],
    recipients=["NAV", "the patient's doctor"],
    source=["Folkeregisteret", "person"],
    automated_decisions="none",
    fields={"diagnosis": Field(sealed=True, category="health", source="the patient's doctor"),
            "name": Field(sealed=True, kind="name"), "email": Field(kind="email")},
)  # fmt: skip


def record(*datasets, controller=CONTROLLER, **more):
    databases = {"main": SQLiteProvider(path=":memory:", name="main", location="norway")}
    return ProcessingRecord.of(DataMap(datasets), databases, controller=controller, **more)


def test_a_whole_record_has_every_heading_and_nothing_missing():
    made = record(JOURNALS, keyring="file:keys", checkpoints=["file:away"], stated=["two doors with locks"])
    assert made.missing == []
    page = made.to_markdown()
    for heading in (
        "# Record of processing activities",
        "## (a) The controller",
        "### (b) Purposes",
        "### (c) Whom it is about, and what kinds of data",
        "### (d) Recipients",
        "### (e) Transfers to third countries",
        "### (f) Time limits for erasure",
        "### (g) Security measures",
        "### What people are told besides (Arts. 13-15)",
        "- Where it comes from: Folkeregisteret, the person; diagnosis: the patient's doctor",
        "- Automated decisions, profiling among them: none",
        "Nothing: every heading of Art. 30(1) is answered.",
    ):
        assert heading in page
    for line in (
        "- Controller: Eksempel kommune",
        "- Data protection officer: Kari Nordmann, dpo@x.example",
        "- Joint controllers (Art. 26): NAV",
        "- care: public task (GDPR Art. 6(1)(e)): helse- og omsorgstjenesteloven § 3-1",
        "- letters: consent (GDPR Art. 6(1)(a))",
        "- Whom: patients",
        "- health (health, services of health care among it) **special category, Art. 9**: diagnosis",
        "- Why special categories may be used: health care (GDPR Art. 9(2)(h)): helsepersonelloven § 39",
        "- the patient's doctor",
        "- Kept: 3 years and 6 months from the end of the year of written",
        "- A person's rows, on erasure: anonymised",
        "- diagnosis, name: sealed under a key of each person (AES-256-GCM), Art. 32(1)(a)",
        "- in the clear: email",
        "- two doors with locks",
        "`journal \\| table` in the database `main`.",
    ):
        assert line in page.splitlines(), line
    assert "missing*" not in page


def test_the_record_is_json():
    made = json.loads(json.dumps(record(JOURNALS).to_dict()))
    (one,) = made["activities"]
    assert one["purposes"][1] == {"name": "letters", "basis": "consent (GDPR Art. 6(1)(a))"}
    assert one["data"][0] == {
        "category": "health",
        "words": "health, services of health care among it",
        "article": 9,
        "fields": ["diagnosis"],
    }
    assert made["missing"] == []


def test_what_nobody_said_is_missing_and_says_where_to_say_it():
    bare = Dataset("things", database="main", subject="who", fields={"odd": Field()})
    made = record(bare, controller=Controller())
    assert [(one.point, one.part, one.setting) for one in made.missing] == [
        ("a", "datavern", "organisation"),
        ("a", "datavern", "contact"),
        ("a", "datavern", "dpo"),
        ("b", "datasets.things", "purposes"),
        ("c", "datasets.things", "about"),
        ("c", "datasets.things", "category of the fields"),
        ("d", "datasets.things", "recipients"),
        ("f", "datasets.things", "retention"),
    ]
    page = made.to_markdown()
    assert "- Controller: *missing*" in page
    assert "- (f) `datasets.things`: how long it is kept. Say it with `retention`." in page
    assert record(Dataset("x", database="main", personal=False)).activities == []


def test_special_data_without_a_reason_is_missing_one():
    bare = Dataset("x", database="main", subject="w", purposes=["p"], categories=["belief"], about=["a"])
    assert ("c", "exemption") in [(one.point, one.setting) for one in record(bare).missing]
    explicit = LegalBasis("consent", explicit=True)
    sure = Dataset("x", database="main", subject="w", purposes=["p"], categories=["belief"], legal_basis=explicit)
    assert "exemption" not in [one.setting for one in record(sure).missing]


def test_transfers_stand_with_their_safeguards():
    place = Place("dr", kind="replica", region="aws:us-east-1")
    sent = [
        Transfer("journals", place, "USA", str(Safeguard("scc", "contract 7"))),
        Transfer("journals", place, None, None),
        Transfer("others", place, None, None),
    ]
    made = record(JOURNALS, transfers=sent)
    lines = made.to_markdown().splitlines()
    assert "- dr, USA: standard contractual clauses, GDPR Art. 46(2)(c): contract 7" in lines
    assert "- dr, country not known: *missing*" in lines
    assert [(one.point, one.setting) for one in made.missing] == [("e", "transfer")]


def test_text_of_somebodys_own_makes_no_markup():
    odd = Controller("<b>`x`</b>\n# Heading", "æøå '; DROP TABLE", "", "[me](http://x.example)")
    page = record(JOURNALS, controller=odd).to_markdown()
    assert "- Controller: \\<b\\>\\`x\\`\\</b\\> \\# Heading" in page
    assert "- Contact: æøå '; DROP TABLE" in page
    assert "- Data protection officer: \\[me\\](http://x.example)" in page
