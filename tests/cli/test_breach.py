"""`datavern breach`: from the first call to the last."""

from __future__ import annotations

from pathlib import Path

import pytest
from calling import PEOPLE, Run


def test_a_breach_from_beginning_to_end(run: Run, project: Path):
    empty = run("breach", "list")
    assert (empty.code, "No breach is open." in empty.said) == (0, True)
    opened = run(
        "breach", "open", "--kind", "confidentiality", "--kind", "integrity", "-d", "A list went astray; æøå '; DROP",
        "--dataset", "people", "--happened", "now", "--json", "--actor", "officer-1",
    )  # fmt: skip
    assert opened.code == 0, opened.told
    breach = opened.json
    id_ = breach["id"]
    assert (breach["affected"]["people"], breach["by"]) == (PEOPLE - 1, "officer-1")
    assert breach["aware_at"].endswith("Z")
    assert breach["clocks"][0]["what"] == "authority"
    assert breach["recommendation"]["authority"] == "notify"
    listed = run("breach", "list")
    assert listed.code == 0
    assert "left, until" in listed.said
    assert id_ in listed.said

    updated = run(
        "breach",
        "update",
        id_,
        "--measures",
        "The list was deleted.",
        "--note",
        "called",
        "--contact",
        "pvo@example.no",
    )
    assert updated.code == 0, updated.told
    assert f"{id_}: entry 3 is written." in updated.said
    shown = run("breach", "show", id_, "--json").json
    assert [one["version"] for one in shown["history"]] == [1, 2, 3]
    assert "The list was deleted." in run("breach", "show", id_).said

    report = run("breach", "report", id_, "--output", "phase1.md", "--sent")
    assert report.code == 0
    assert "Not known yet: the likely consequences" in report.said
    text = (project / "phase1.md").read_text()
    assert "## (a) Nature of the breach" in text
    assert "A list went astray; æøå '; DROP" in text
    assert (project / "phase1.md").stat().st_mode & 0o777 == 0o600
    second = run("breach", "report", id_, "--json").json
    assert (second["phase"], len(second["earlier_phases"])) == (2, 1)

    people = run("breach", "people", id_, "--output", "people.txt")
    assert people.code == 0
    assert len((project / "people.txt").read_text().splitlines()) == PEOPLE - 1  # the demo erased one
    assert run("breach", "people", id_, "--output", "people.txt").code == 1

    closed = run("breach", "close", id_, "--decision", "People were told by letter.")
    assert closed.code == 0
    assert "No breach is open." in run("breach", "list").said
    assert "closed" in run("breach", "list", "--all").said
    assert run("breach", "update", id_, "--note", "x").code == 1
    assert run("breach", "update", id_, "--reopen", "--note", "more was found").code == 0


def test_a_clock_that_ran_out(run: Run, project: Path):
    config = project / "datavern.toml"
    config.write_text(config.read_text().replace("[datavern]\n", "[datavern]\nessential_service = true\n", 1))
    opened = run("breach", "open", "--kind", "availability", "-d", "x", "--aware", "2025-03-29T12:00", "--no-count")
    assert opened.code == 0
    assert "OVERDUE" in opened.said
    listed = run("breach", "list")
    assert listed.code == 1
    assert "1 of 1 is overdue." in listed.said
    found = run("breach", "list", "--json")
    assert (found.code, found.json["overdue"]) == (1, ["2025-001"])
    (incident, authority) = found.json["breaches"][0]["clocks"]
    assert (incident["what"], incident["due"]) == ("incident", "2025-03-30T11:00:00+00:00")
    assert authority["due"] == "2025-04-01T11:00:00+00:00"
    assert authority["overdue"]
    assert authority["seconds_left"] < 0
    page = run("breach", "report", "2025-001", COLUMNS="40").said
    assert "\n- the reasons for the delay (Art. 33(1))\n" in page.partition("## To follow")[2]
    assert all(line.endswith("|") for line in page.splitlines() if line.startswith("|"))
    told = run(
        "breach", "update", "2025-001", "--sent", "now", "--incident-reported", "now", "--delay-reason", "Holidays."
    )
    assert told.code == 0
    assert run("breach", "list").code == 0
    assert "> Holidays." in run("breach", "report", "2025-001").said


def test_whom_it_touched_is_narrowed(run: Run, project: Path):
    assert run("breach", "open", "--kind", "confidentiality", "-d", "x", "--no-count").code == 0
    (breach,) = run("breach", "list", "--json").json["breaches"]
    id_ = breach["id"]
    subject = "elev"
    (project / "some.txt").write_text(f"{subject}\nnobody\n")
    found = run("breach", "update", id_, "--subjects", "some.txt", "--json")
    assert found.code == 0, found.told
    assert (found.json["affected"]["people"], found.json["affected"]["scope"]) == (0, "a list of 2 people")
    with_window = run("breach", "update", id_, "--when", "people.nothing", "--since", "2026-01-01", "--json").json
    assert with_window["affected"]["lower_bound"]
    read = run("breach", "update", id_, "--read-by", "*", "--since", "2026-01-01", "--json").json
    assert read["affected"]["scope"].startswith("read from 2025-12-31T23:00:00")


def test_a_register_that_was_changed(run: Run, project: Path):
    import sqlite3

    for text in ("a", "b"):
        assert run("breach", "open", "--kind", "integrity", "-d", text, "--no-count").code == 0
    assert run("breach", "verify").code == 0
    with sqlite3.connect(project / "main.db") as main:
        main.execute("UPDATE datavern_breaches SET body = (SELECT max(body) FROM datavern_breaches)")
    main.close()
    for command in ("list", "verify"):
        done = run("breach", command)
        assert done.code == 1
        assert "The register was changed:" in done.said
        assert "entry 1 was changed." in done.said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["open", "-d", "x"], "--kind is missing"),
        (["open", "--kind", "confidentiality"], "--description is missing"),
        (["open", "--kind", "secrecy", "-d", "x"], "kinds: expected one or more of"),
        (["open", "--kind", "integrity", "-d", "x", "--dataset", "persons"], "no dataset is named persons"),
        (["open", "--kind", "integrity", "-d", "x", "--aware", "soon"], "is no moment"),
        (["open", "--kind", "integrity", "-d", "@nothing.txt"], "nothing.txt"),
        (["update", "2026-001", "--note", "x"], "there is no breach 2026-001; there are: none"),
        (["update", "2026-001", "--where", "users"], "expected DATASET.COLUMN=VALUE"),
        (["update", "2026-001", "--when", "users"], "expected DATASET.COLUMN"),
        (["update", "2026-001", "--since", "2026-01-01"], "--since and --until need --when"),
        (["update", "2026-001", "--read-by", "x"], "--read-by needs --since"),
    ],
)
def test_what_cannot_be(run: Run, project: Path, arguments: list[str], says: str):
    done = run("breach", *arguments, COLUMNS="300")
    assert done.code == 1
    assert says in done.told
    assert run("breach", "list", "--all", "--json").json["breaches"] == []
