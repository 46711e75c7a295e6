"""subject receive, list, process, identify, doubt, extend, reject, rectify; certificates as pages, and proven."""

from __future__ import annotations

import datetime as dt
import json
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from calling import Run

WHO = "p-000002"
LATE = (dt.date.today() - dt.timedelta(days=60)).isoformat()  # noqa: DTZ011  (two months before the test)


def received(run: Run, kind: str, *more: str) -> str:
    done = run("subject", "receive", kind, WHO, "--json", *more)
    assert done.code == 0, done.told
    return done.json["id"]


def test_a_request_from_its_receipt_to_its_answer(run: Run, project: Path):
    assert "No request is open." in run("subject", "list").said
    request = received(run, "access")
    listed = run("subject", "list")
    assert listed.code == 0
    assert request in listed.said
    assert "work on it has not begun" in " ".join(listed.said.split())
    doubted = run("subject", "doubt", request, "--reason", "Another address than before")
    assert "The deadline stays" in doubted.said
    refused = run("subject", "process", request)
    assert refused.code == 1
    assert "make sure that the person asks" in refused.told
    assert run("subject", "identify", request, "--identity", "pass 123456789").code == 1
    assert "Recorded: in-person" in run("subject", "identify", request, "--identity", "in-person").said
    extended = run("subject", "extend", request, "--reason", "Mange systemer må gjennomgås")
    assert "Mange systemer må gjennomgås. Du får svar innen" in " ".join(extended.said.split())
    assert run("subject", "extend", request, "--reason", "x").code == 1
    assert "extended" in run("subject", "list").said
    done = run("subject", "process", request, "--output", "copy.json", "--actor", "kari")
    assert done.code == 0, done.told
    copy = json.loads((project / "copy.json").read_text(encoding="utf-8"))
    assert copy["identity"]["method"] == "in-person"
    assert copy["data"]["main.people"][0]["id"] == WHO
    assert run("subject", "list", "--json").json == []


def test_an_overdue_request_is_marked_and_the_exit_code_says_so(run: Run, project: Path):
    request = received(run, "erasure", "--received", LATE)
    listed = run("subject", "list")
    assert listed.code == 1
    assert "OVERDUE" in listed.said
    assert "1 overdue" in listed.said
    assert "too late" in run("subject", "extend", request, "--reason", "x").told
    assert "needs --yes" in run("subject", "process", request).told
    done = run("subject", "process", request, "--yes", "--output", "mine.json")
    assert done.code == 0, done.told
    assert run("subject", "list").code == 0
    assert run("subject", "verify", "mine.json").code == 0


def test_a_refusal_prints_the_letter(run: Run, project: Path):
    request = received(run, "erasure")
    done = run("subject", "reject", request, "--reason", "Samme krav hver dag", "--ground", "excessive")
    said = " ".join(done.said.split())
    assert "den er overdreven (GDPR art. 12 nr. 5): Samme krav hver dag. Du kan klage til Datatilsynet" in said
    assert run("subject", "process", request, "--yes").code == 1
    english = run("subject", "reject", received(run, "access"), "--reason", "x", "--language", "en")
    assert "You may complain to the Norwegian Data Protection Authority" in " ".join(english.said.split())


def test_rectify(run: Run, project: Path):
    done = run("subject", "rectify", WHO, "--set", "people.name=Riktig Ødegård", "--identity", "bankid")
    assert done.code == 0, done.told
    assert "Changed: main.people." in done.said
    assert "Identity: bankid, by cli:" in done.said
    assert run("subject", "access", WHO, "--json").json["data"]["main.people"][0]["name"] == "Riktig Ødegård"
    (project / "changes.json").write_text(json.dumps({"people": {"name": "Fra fil"}}))
    assert run("subject", "rectify", WHO, "--changes", "changes.json").code == 0
    for wrong in (["--set", "people.name"], ["--changes", "datavern.toml"], ["--set", "people.nmae=x"], []):
        refused = run("subject", "rectify", WHO, *wrong)
        assert refused.code == 1
        assert "Traceback" not in refused.told


def test_the_setting_refuses_who_was_not_identified(run: Run, project: Path):
    file = project / "datavern.toml"
    file.write_text(file.read_text(encoding="utf-8").replace("[datavern]", "[datavern]\nrequire_identity = true", 1))
    for command in (["access"], ["erase", "--yes"], ["export", "--output", "new"]):
        done = run("subject", command[0], WHO, *command[1:])
        assert done.code == 1
        assert "make sure that the person asks" in done.told
    done = run("subject", "access", WHO, "--identity", "bankid", "--json")
    assert done.code == 0, done.told
    assert done.json["identity"]["method"] == "bankid"


def test_a_certificate_as_page_and_pdf_with_its_proofs(run: Run, project: Path):
    erased = run("subject", "erase", WHO, "--yes", "--json", "--output", "mine.json", "--identity", "bankid")
    request = erased.json["request"]
    first = run("subject", "verify", "mine.json")
    assert "Not checked: " in first.said
    assert "no proof is in the file" in " ".join(first.said.split())
    assert run("audit", "seal").code == 0
    made = run("subject", "certificate", request, "--html", "c.html", "--pdf", "c.pdf", "--output", "c.json")
    assert made.code == 0, made.told
    assert "Written: c.json, c.html, c.pdf." in made.said
    assert (project / "c.pdf").read_bytes().startswith(b"%PDF-")
    assert stat.S_IMODE((project / "c.pdf").stat().st_mode) == 0o600
    assert "Bekreftelse på sletting" in (project / "c.html").read_text(encoding="utf-8")
    for file in ("c.json", "c.html"):
        done = run("subject", "verify", file)
        assert done.code == 0, done.said
        assert "Checked: the audit log: " in done.said
        assert "no proof is in the file" not in " ".join(done.said.split())
    assert run("subject", "certificate", request, "--html", "c.html").code == 1  # it is there
    assert "Certificate of erasure" in _page(run, project, request)


def _page(run: Run, project: Path, request: str) -> str:
    assert run("subject", "certificate", request, "--html", "en.html", "--language", "en").code == 0
    return (project / "en.html").read_text(encoding="utf-8")


def test_what_stands_against_the_use_of_data(run: Run, project: Path):
    assert "Nothing stands" in run("subject", "standing", WHO).said
    done = run("subject", "restrict", WHO, "--ground", "accuracy", "--identity", "bankid", "--json")
    assert done.code == 0, done.told
    shown = run("subject", "standing", WHO)
    assert "restriction" in shown.said
    assert done.json["request"] in shown.said
    assert run("subject", "lift", done.json["request"]).code == 1  # nobody was told
    lifted = run("subject", "lift", done.json["request"], "--informed", LATE)
    assert lifted.code == 0, lifted.told
    assert "Nothing stands" in run("subject", "standing", WHO).said
    objected = run("subject", "object", WHO, "--purpose", "no such purpose")
    assert objected.code == 1
    assert "Traceback" not in objected.told


@pytest.mark.parametrize(
    "command",
    [
        ["access", "p"],
        ["export", "p", "--output", "out"],
        ["erase", "p", "--yes"],
        ["erase", "--file", "people.txt", "--yes"],
        ["rectify", "p", "--set", "users.name=x"],
        ["restrict", "p"],
        ["object", "p"],
        ["process", "0123"],
    ],
    ids=lambda command: command[0],
)
def test_without_a_data_map_no_request_is_carried_out(run: Run, tmp_path: Path, command: list[str]):
    """An answer that nothing was found, where nothing was looked for, would be no answer."""
    assert run("init").code == 0
    (tmp_path / "people.txt").write_text("p\n")
    before = sorted(tmp_path.rglob("*"))
    done = run("subject", *command)
    assert done.code == 1
    assert "datavern.toml: the data map names no dataset, so nothing about anybody can be found" in done.told
    assert sorted(tmp_path.rglob("*")) == before
    assert run("subject", "list").said.strip() == "No request is open."
