"""consent: texts, what proves a consent, children, and what stands against the use of data."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calling import Run

WHO = "p-000002"


def test_a_text_a_consent_to_it_and_its_proof(run: Run, project: Path):
    (project / "text.md").write_text("Vi sender deg nyhetsbrev. æøå", encoding="utf-8")
    done = run("consent", "text", "newsletter", "2026-01", "text.md", "--json")
    assert done.code == 0, done.told
    assert (done.json["number"], done.json["language"]) == (1, "nb")
    hash_ = done.json["hash"]
    assert run("consent", "text", "newsletter", "2026-01", "text.md").code == 0
    (project / "other.md").write_text("Noe annet.", encoding="utf-8")
    refused = run("consent", "text", "newsletter", "2026-01", "other.md")
    assert refused.code == 1
    assert "is another text" in refused.told
    assert "2026-01" in run("consent", "texts").said
    given = ("--text", "2026-01", "--source", "paper", "--proof", "binder 7", "--explicit")
    done = run("consent", "grant", WHO, "newsletter", *given, "--json")
    assert done.code == 0, done.told
    assert done.json["text_hash"] == hash_
    shown = run("consent", "show", done.json["id"])
    assert shown.code == 0, shown.told
    for part in ("paper", "binder 7", "nyhetsbrev. æøå", hash_[:16]):
        assert part in shown.said
    assert run("consent", "show", "none").code == 1
    assert "no such text" in run("consent", "grant", WHO, "newsletter", "--text", "2026-02").told


def test_a_child(run: Run, project: Path):
    born = (dt.date(dt.date.today().year - 9, 1, 1)).isoformat()  # noqa: DTZ011  (a year or so)
    refused = run("consent", "grant", "child", "newsletter", "--born", born)
    assert refused.code == 1
    assert "under 13" in refused.told
    assert run("consent", "grant", "child", "newsletter", "--born", born, "--guardian", "parent").code == 0
    assert "No guardian's consent" in run("consent", "coming-of-age").said
    assert "newsletter" in run("consent", "coming-of-age", "--by", "2099-01-01").said


def test_what_stands_and_is_lifted(run: Run, project: Path):
    done = run("subject", "restrict", WHO, "--ground", "accuracy", "--json")
    assert done.code == 0, done.told
    request = done.json["request"]
    assert "every dataset" in run("subject", "standing", WHO).said
    assert run("subject", "access", WHO).code == 0
    refused = run("subject", "erase", WHO, "--yes")
    assert refused.code == 1
    assert "lift the restriction first" in refused.told
    assert "`datavern subject lift " in refused.told
    today = dt.datetime.now().astimezone().date().isoformat()
    assert run("subject", "lift", request).code == 1
    assert run("subject", "lift", request, "--informed", today).code == 0
    assert "Nothing stands" in run("subject", "standing", WHO).said


def test_check_says_what_each_use_rests_on(run: Run, project: Path):
    settings = project / "datavern.toml"
    told = settings.read_text(encoding="utf-8")
    told += """
[datasets.members]
database = "main"
subject = "id"
purposes = ["newsletter", "accounts"]

[[datasets.members.legal_basis]]
kind = "legal_obligation"
reference = "bokføringsloven § 13"
purposes = ["accounts"]

[[datasets.members.legal_basis]]
kind = "consent"
purposes = ["newsletter"]
text_version = "2026-01"

[datasets.members.fields]
name = { sealed = true }
"""
    settings.write_text(told, encoding="utf-8")
    assert run("prepare", "members").code == 0
    done = run("check", "--json")
    assert done.code == 1
    details = [f["detail"] for f in done.json["findings"] if f["part"] == "datasets.members.legal_basis"]
    assert "accounts: legal obligation (GDPR Art. 6(1)(c)): bokføringsloven § 13" in details[0]
    assert "newsletter: consent (GDPR Art. 6(1)(a))" in details[0]
    assert "datavern consent text newsletter 2026-01 FILE" in details[1]
    (project / "text.md").write_text("Vi sender deg nyhetsbrev.", encoding="utf-8")
    assert run("consent", "text", "newsletter", "2026-01", "text.md").code == 0
    assert run("check").code == 0
