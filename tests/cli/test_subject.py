"""subject and consent: a copy, an erasure, a certificate, and consents."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from calling import Run

WHO = "p-000002"
ODD = ["'; DROP TABLE people; --", "Åse-Ærlig Ødegård", "--yes", "[bold red]x[/]", "a\u2028b", "💾"]


def certificates(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("certificate-*.json"))


def test_access_prints_what_is_known(run: Run, project: Path):
    done = run("subject", "access", WHO, "--received", "2026-01-31")
    assert done.code == 0, done.told
    assert "main.people" in done.said
    assert "personal_number" in done.said
    assert "@example." in done.said
    assert "The answer is due by 2026-03-02." in done.said
    said = " ".join(done.said.split())
    assert "main.people: given to nobody." in said
    assert "main.people: comes from the person." in said
    assert "main.people: address comes from Folkeregisteret." in said
    assert "main.people: nothing is decided automatically." in said
    assert "the data map lacks retention (GDPR Art. 15)" in said
    assert "erased, restricted or handed over, object to its use" in said
    assert "complain to the Norwegian Data Protection Authority, Datatilsynet" in said


def test_access_for_programs(run: Run, project: Path):
    done = run("subject", "access", WHO, "--json")
    assert done.code == 0, done.told
    (person,) = done.json["data"]["main.people"]
    assert person["id"] == WHO
    assert len(person["personal_number"]) == 11
    assert done.json["deadline"] is None


def test_a_copy_goes_to_a_file_for_its_owner_alone(run: Run, project: Path):
    done = run("subject", "access", WHO, "--output", "copy.json", "--json")
    assert done.code == 0, done.told
    assert done.json["rows"]["main.people"] == 1
    assert "data" not in done.json
    copy = project / "copy.json"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    (person,) = json.loads(copy.read_text(encoding="utf-8"))["data"]["main.people"]
    assert person["name"]
    assert person["name"] not in done.said + done.told

    again = run("subject", "access", WHO, "--output", "copy.json")
    assert again.code == 1
    assert "copy.json is there already, and is not overwritten" in again.told


def test_a_person_is_found_by_another_word_for_who_they_are(run: Run, project: Path):
    (person,) = run("subject", "access", WHO, "--json").json["data"]["main.people"]
    found = run("subject", "find", "people.personal_number", person["personal_number"])
    assert (found.code, found.said.strip()) == (0, WHO)
    found = run("subject", "find", "people.email", "--json", text=f"{person['email'].upper()}\n")
    assert found.json == {"subjects": [WHO], "withheld": 0}
    assert run("subject", "find", "people.personal_number", "13097248022").code == 1
    assert "is sealed without lookup" in run("subject", "find", "people.name", person["name"]).told
    assert "expected DATASET.FIELD" in run("subject", "find", "people").told
    assert "say the value" in run("subject", "find", "people.email", text="").told
    assert run("subject", "restrict", WHO).code == 0
    found = run("subject", "find", "people.personal_number", person["personal_number"])
    assert (found.code, found.said.startswith("1 more: the use of their data is restricted")) == (1, True)


def test_the_letter_is_a_page_and_a_pdf_in_norwegian(run: Run, project: Path):
    done = run("subject", "access", WHO, "--html", "letter.html", "--pdf", "letter.pdf")
    assert done.code == 0, done.told
    assert "is in letter.html and letter.pdf, for the person alone" in " ".join(done.said.split())
    page = (project / "letter.html").read_text(encoding="utf-8")
    assert "<h1>Svar på krav om innsyn</h1>" in page
    assert "Folkeregisteret" in page
    assert (project / "letter.pdf").read_bytes().startswith(b"%PDF-")
    assert stat.S_IMODE((project / "letter.html").stat().st_mode) == 0o600
    assert "@example." not in done.said
    again = run("subject", "access", WHO, "--html", "letter.html")
    assert "letter.html is there already" in again.told

    received = run("subject", "receive", "access", WHO, "--identity", "bankid", "--json").json["id"]
    done = run("subject", "process", received, "--html", "second.html", "--language", "en")
    assert done.code == 0, done.told
    assert "<h1>Answer to your request for access</h1>" in (project / "second.html").read_text(encoding="utf-8")
    received = run("subject", "receive", "portability", WHO, "--json").json["id"]
    refused = run("subject", "process", received, "--html", "third.html")
    assert refused.code == 1
    assert "--html and --pdf are for access and erasure, and this is portability" in refused.told


def test_a_subject_that_nobody_knows_is_an_answer_too(run: Run, project: Path):
    done = run("subject", "access", "nobody")
    assert done.code == 0
    assert "Nothing was found about this subject." in done.said


def test_a_personal_number_is_no_subject_and_is_not_repeated(run: Run, project: Path):
    for command in (["subject", "access"], ["subject", "erase", "--yes"], ["consent", "list"]):
        done = run(*command, "13097248022", "--verbose")
        assert done.code == 1
        assert done.told.startswith("error: ")
        assert "13097248022" not in done.told + done.said


def test_a_day_in_the_future_or_none_is_refused(run: Run, project: Path):
    assert "lies in the future" in run("subject", "access", WHO, "--received", "2999-01-01").told
    done = run("subject", "access", WHO, "--received", "31.01.2026")
    assert done.code == 2
    assert "--received" in done.told


def test_erase_without_a_terminal_needs_yes(run: Run, project: Path):
    for options in ({}, {"text": "y\n"}):
        done = run("subject", "erase", WHO, **options)
        assert done.code == 1
        assert "nothing was changed: without a terminal to ask on, this needs --yes" in done.told
    assert len(run("subject", "access", WHO, "--json").json["data"]["main.people"]) == 1
    assert not certificates(project)


def test_erase_writes_a_certificate_that_verifies_offline(
    run: Run, project: Path, tmp_path_factory: pytest.TempPathFactory
):
    done = run("subject", "erase", WHO, "--yes")
    assert done.code == 0, done.told
    (certificate,) = certificates(project)
    assert stat.S_IMODE(certificate.stat().st_mode) == 0o600
    assert str(certificate) in done.said.replace("\n", "")
    assert run("subject", "access", WHO, "--json").json["data"]["main.people"] == []

    auditor = tmp_path_factory.mktemp("auditor")  # has the certificate and the public key, and nothing else
    for file in (certificate, project / "keys" / "verifier.txt"):
        (auditor / file.name).write_bytes(file.read_bytes())
    arguments = ("subject", "verify", certificate.name, "--verifier", "verifier.txt")
    checked = run(*arguments, cwd=auditor)
    assert checked.code == 0, checked.told
    assert "The signature is valid" in checked.said
    assert run(*arguments, "--json", cwd=auditor).json["valid"] is True

    text = certificate.read_text(encoding="utf-8")
    (auditor / certificate.name).write_text(text.replace('"datavern-certificate"', '"datavern-certificate" ', 1))
    assert run(*arguments, cwd=auditor).code == 0, "spaces are not what is signed"
    (auditor / certificate.name).write_text(text.replace("main.people", "main.peopel"), encoding="utf-8")
    changed = run(*arguments, cwd=auditor)
    assert changed.code == 1
    assert "NOT VALID" in changed.said
    assert run(*arguments, "--json", cwd=auditor).json == {
        "valid": False, "key": json.loads(text)["signature"]["key"], "certificate": None, "checked": [],
        "unchecked": [], "reason": "no key of the verifier signed this, or it was changed since",
    }  # fmt: skip


def test_a_certificate_of_another_organisation_is_not_valid(run: Run, project: Path):
    assert run("init", "other").code == 0
    done = run("subject", "verify", "certificate.json", "--verifier", "other/keys/verifier.txt")
    assert done.code == 1
    assert "NOT VALID" in done.said


@pytest.mark.parametrize(
    ("file", "verifier", "words"),
    [
        ("datavern.toml", "keys/verifier.txt", "not a certificate"),
        ("nothing.json", "keys/verifier.txt", "certificate nothing.json: no such file"),
        ("certificate.json", "nothing.txt", "verifier nothing.txt: no such file"),
        ("certificate.json", "datavern.toml", "not a verifier"),
        ("main.db", "keys/verifier.txt", "certificate main.db: it is not text"),
        ("keys", "keys/verifier.txt", "certificate keys: is a directory"),
    ],
)
def test_what_is_no_certificate_is_said_to_be_none(run: Run, project: Path, file: str, verifier: str, words: str):
    done = run("subject", "verify", file, "--verifier", verifier)
    assert done.code == 1
    assert words in done.told
    assert "Traceback" not in done.told


def test_the_certificate_is_kept_with_the_request(run: Run, project: Path):
    erased = run("subject", "erase", WHO, "--yes", "--json", "--output", "mine.json")
    assert erased.code == 0, erased.told
    assert erased.json["output"] == "mine.json"
    kept = run("subject", "certificate", erased.json["request"], "--json")
    assert kept.json == json.loads((project / "mine.json").read_text(encoding="utf-8")) == erased.json["certificate"]
    assert run("subject", "certificate", "no-such-request").code == 1


def test_an_output_that_is_there_stops_an_erasure_before_it_begins(run: Run, project: Path):
    (project / "mine.json").write_text("mine")
    for output in ("mine.json", "no/such/folder/c.json"):
        done = run("subject", "erase", WHO, "--yes", "--output", output)
        assert done.code == 1
        assert output.split("/")[0] in done.told
    assert (project / "mine.json").read_text() == "mine"
    assert len(run("subject", "access", WHO, "--json").json["data"]["main.people"]) == 1


@pytest.mark.parametrize("subject", ODD)
def test_any_text_is_a_subject(run: Run, project: Path, subject: str):
    granted = run("consent", "grant", "--json", "--", subject, "customer-account")
    assert granted.code == 0, granted.told
    listed = run("consent", "list", "--json", "--", subject)
    assert [c["id"] for c in listed.json] == [granted.json["id"]]
    shown = run("consent", "list", "--", subject)
    assert granted.json["id"] in shown.said
    erased = run("subject", "erase", "--yes", "--", subject)
    assert erased.code == 0, erased.told
    assert run("consent", "list", "--json", "--", subject).json == []
    # Everybody else is as before.
    assert run("check").code == 0
    assert len(run("subject", "access", WHO, "--json").json["data"]["main.people"]) == 1


def test_a_subject_cannot_move_the_cursor_of_who_reads(run: Run, project: Path):
    done = run("consent", "grant", "a\x1b[2Jb", "customer-account")
    assert done.code == 0, done.told
    assert "\x1b" not in done.said + done.told
    assert "a\\x1b[2Jb agreed to customer-account" in done.said


def test_consent_is_granted_listed_and_withdrawn(run: Run, project: Path):
    granted = run("consent", "grant", WHO, "newsletter", "--expires", "2030-12-31", "--text", "v3", "--json")
    assert granted.code == 0, granted.told
    consent = granted.json
    assert consent["purpose"] == "newsletter"
    assert consent["version"] == "v3"
    assert consent["actor"].startswith("cli:")
    listed = {c["id"]: c for c in run("consent", "list", WHO, "--json").json}
    assert listed[consent["id"]]["withdrawn_at"] is None
    assert len(listed) == 2

    withdrawn = run("consent", "withdraw", consent["id"], "--actor", "case-worker-9")
    assert withdrawn.code == 0, withdrawn.told
    listed = {c["id"]: c for c in run("consent", "list", WHO, "--json").json}
    assert listed[consent["id"]]["withdrawn_at"] is not None
    assert "withdrawn" in run("consent", "list", WHO).said
    (entry,) = [e for e in run("audit", "list", "--json").json["main"] if e["action"] == "consent_withdrawn"]
    assert entry["actor"] == "case-worker-9"

    assert "there is no consent of that id" in run("consent", "withdraw", "no-such").told
    assert "No consent is recorded" in run("consent", "list", "nobody").said


def test_who_acts_is_told_by_the_environment_too(run: Run, project: Path):
    assert run("consent", "grant", WHO, "newsletter", DATAVERN_ACTOR="Kari Ås").code == 0
    assert run("audit", "list", "--last", "1", "--json").json["main"][0]["actor"] == "Kari Ås"
