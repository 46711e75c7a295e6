"""`datavern check`: special categories of data, notes, and the record of processing activities."""

from pathlib import Path

from calling import Run

RECORD = """
contact = "post@eksempel.example"
dpo = "Kari Nordmann"
security = ["two doors with locks"]
"""
DATASETS = """
compliance = ["gdpr"]

[datasets.journals]
database = "main"
subject = "who"
purposes = ["care"]
legal_basis = { kind = "public_task", reference = "helse- og omsorgstjenesteloven § 3-1" }

[datasets.journals.fields]
diagnosis = { sealed = true, category = "health" }
"""


def begun(run: Run, folder: Path, *, more: str = "") -> None:
    assert run("init").code == 0
    config = folder / "datavern.toml"
    text = config.read_text(encoding="utf-8").replace("[datavern]\n", "[datavern]" + RECORD)
    config.write_text(text + DATASETS + more, encoding="utf-8")


def test_a_special_category_without_an_exemption_is_wrong(run: Run, tmp_path: Path):
    begun(run, tmp_path)
    assert run("prepare").code == 0
    done = run("check", "--json")
    assert done.code == 1
    (wrong,) = [one for one in done.json["findings"] if not one["ok"]]
    assert wrong["part"] == "datasets.journals"
    assert "GDPR Art. 9" in wrong["detail"]
    exemption = '\n[datasets.journals.exemption]\nkind = "health_care"\nreference = "helsepersonelloven § 39"\n'
    config = tmp_path / "datavern.toml"
    config.write_text(config.read_text(encoding="utf-8") + exemption, encoding="utf-8")
    done = run("check", "--json")
    assert done.code == 0, done.said
    notes = [one["detail"] for one in done.json["findings"] if one["note"]]
    assert any("the record of processing (GDPR Art. 30) lacks about, recipients, retention" in one for one in notes)
    assert "note" in run("check").said


def test_the_record_is_a_page_and_a_document(run: Run, tmp_path: Path):
    begun(run, tmp_path)
    done = run("check", "--record")
    assert done.code == 0, done.told
    assert done.said.startswith("# Record of processing activities\n")
    assert "- Data protection officer: Kari Nordmann\n" in done.said
    assert "**special category, Art. 9**: diagnosis\n" in done.said
    assert "- two doors with locks\n" in done.said
    assert "- (f) `datasets.journals`: how long it is kept. Say it with `retention`.\n" in done.said
    made = run("check", "--record", "--json")
    assert made.code == 0
    assert made.json["controller"]["contact"] == "post@eksempel.example"
    assert made.json["activities"][0]["data"][0]["article"] == 9
    assert not (tmp_path / "main.db-wal").exists()  # nothing was connected


def test_a_record_of_nothing(run: Run, tmp_path: Path):
    assert run("init").code == 0
    done = run("check", "--record")
    assert done.code == 0, done.told
    assert "## (a) The controller" in done.said
    assert "*missing*" in done.said
    assert run("check", "--record", "--config", "no-such.toml").code == 1
