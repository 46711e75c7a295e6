"""`datavern check --residency`: the whole picture, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from calling import inside

from datavern.crypto.keyring import Keyring

HEAD = """
[datavern]
organisation = "Eksempel kommune"
ledger = "main"
keyring = "file:keys"
{here}

[databases.main]
provider = "sqlite"
path = "main.db"
region = "azure:norwayeast"

[databases.copy]
provider = "sqlite"
path = "copy.db"
region = "azure:uksouth"
compliance = ["gdpr"]

[datasets.users]
database = "main"
subject = "id"
"""
HERE = 'region = "azure:norwaywest"'


@pytest.fixture
async def written(tmp_path: Path):
    """Writes the project's configuration."""
    await (await Keyring.create(f"file:{tmp_path / 'keys'}")).close()

    def write(*more: str, here: str = HERE) -> Path:
        (tmp_path / "datavern.toml").write_text(HEAD.format(here=here) + "\n".join(more), encoding="utf-8")
        return tmp_path

    return write


def test_everything_is_where_it_may_be(written):
    folder = written()
    done = inside("check", "--residency", "--json", cwd=folder)
    assert done.code == 0, done.said + done.told
    found = done.json
    assert found["ok"]
    assert found["asked"]
    assert {(p["kind"], p["place"]): p["allowed"] for p in found["places"]} == {
        ("database", "main"): True,
        ("ledger", "main"): True,
        ("keyring", "file"): True,
        ("key copies", "beside the keys"): True,
    }
    main = found["places"][0]
    assert (main["region"], main["location"], main["evidence"]) == ("azure:norwayeast", "norway", "region identifier")
    assert main["why"] == "CONFIDENTIAL may be in norway"
    assert [(s["member"], s["said"], s["problem"]) for s in found["servers"]] == [("main", [], ""), ("copy", [], "")]
    shown = inside("check", "--residency", cwd=folder)
    assert shown.code == 0
    assert "users: CONFIDENTIAL" in shown.said
    assert "By the servers' own word" in shown.said
    assert "Everything is where it may be." in shown.said


def test_what_is_not_allowed_is_shown_with_its_reason(written):
    folder = written('[datavern.places.loki]\nkind = "logs"\nregion = "aws:eu-west-2"')
    done = inside("check", "--residency", "--json", cwd=folder)
    assert done.code == 1
    (loki,) = [p for p in done.json["places"] if p["place"] == "loki"]
    assert (loki["allowed"], loki["evidence"]) == (False, "region identifier, in United Kingdom")
    assert "1 not allowed." in inside("check", "--residency", cwd=folder).said
    assert "the log sink loki" in inside("check", cwd=folder, COLUMNS="300").said


def test_where_nobody_said_is_unknown(written):
    folder = written(here="")
    done = inside("check", "--residency", "--offline", "--json", cwd=folder)
    assert done.code == 1
    assert [p["kind"] for p in done.json["places"] if p["allowed"] is None] == ["keyring", "key copies"]
    assert done.json["servers"] == []
    assert not done.json["asked"]
    assert "2 unknown" in inside("check", "--residency", "--offline", cwd=folder).said
    assert "nobody said where 2 of the places are" in inside("check", cwd=folder, COLUMNS="300").said


def test_open_data_outside_of_the_eea_needs_grounds(written):
    logins = '[datasets.logins]\ndatabase = "copy"\nsubject = "id"\nclassification = "OPEN"\n'
    folder = written(logins)
    done = inside("check", "--residency", "--json", cwd=folder)
    assert done.code == 0  # the rule lets it
    (transfer,) = done.json["transfers"]
    assert (transfer["dataset"], transfer["country"], transfer["safeguard"]) == ("logins", "United Kingdom", None)
    assert "nobody said on what" in inside("check", "--residency", cwd=folder).said
    asked = inside("check", "--json", cwd=folder)
    assert asked.code == 1
    assert "datasets.logins.transfer" in {f["part"] for f in asked.json["findings"] if not f["ok"]}
    folder = written(logins + 'transfer = { basis = "adequacy", reference = "(EU) 2021/1772" }\n')
    told = inside("check", "--json", cwd=folder).json["findings"]
    assert "datasets.logins.transfer" not in {f["part"] for f in told}
    grounds = "an adequacy decision, GDPR Art. 45: (EU) 2021/1772"
    assert inside("check", "--residency", "--json", cwd=folder).json["transfers"][0]["safeguard"] == grounds


def test_a_server_that_is_down_has_not_said_anything(written):
    down = '[databases.far]\nprovider = "postgresql"\nurl = "postgresql://app@127.0.0.1:1/app"\nlocation = "norway"\n'
    folder = written(down)
    done = inside("check", "--residency", "--json", cwd=folder)
    assert done.code == 1
    (far,) = [s for s in done.json["servers"] if s["member"] == "far"]
    assert far["problem"].startswith("could not be asked")
    assert not far["refused"]


def test_a_project_that_init_made_says_what_to_say(tmp_path):
    assert inside("init", "new", cwd=tmp_path).code == 0
    folder = tmp_path / "new"
    file = folder / "datavern.toml"
    text = file.read_text() + '\n[datasets.users]\ndatabase = "main"\nsubject = "id"\n'
    file.write_text(text)
    done = inside("check", "--residency", cwd=folder)
    assert (done.code, "2 unknown: say where they are ([datavern] region" in done.said) == (1, True)
    file.write_text(text.replace("# location or region", "location = 'norway' # or region"))
    assert inside("check", "--residency", cwd=folder).code == 0


async def test_a_server_that_contradicts_the_settings(written, postgresql_database):
    url = postgresql_database.settings["url"]
    far = f'[databases.far]\nprovider = "postgresql"\nurl = "{url}"\nlocation = "norway"\n'
    folder = written(far + "region_probe = \"SELECT 'azure:northeurope'\"\n")
    import asyncio

    done = await asyncio.to_thread(inside, "check", "--residency", "--json", cwd=folder)
    assert done.code == 1
    (found,) = [s for s in done.json["servers"] if s["member"] == "far"]
    assert found["refused"]
    assert "azure:northeurope (eu), and the settings say norway" in found["problem"]


def test_who_stands_in_is_asked_once(written):
    standby = '[databases.standby]\nprovider = "sqlite"\npath = "standby.db"\nregion = "azure:norwaywest"\n'
    folder = written(standby)
    file = folder / "datavern.toml"
    file.write_text(file.read_text().replace('path = "main.db"\n', 'path = "main.db"\nfailover = ["standby"]\n'))
    done = inside("check", "--residency", "--json", cwd=folder)
    assert done.code == 0, done.said + done.told
    assert [(s["database"], s["member"]) for s in done.json["servers"]] == [
        ("main", "main"), ("main", "standby"), ("copy", "copy")
    ]  # fmt: skip
    assert ("failover", "standby") in {(p["kind"], p["place"]) for p in done.json["places"]}
    file.write_text(file.read_text().replace('azure:norwaywest"\n', 'azure:swedencentral"\n'))
    refused = inside("check", "--residency", "--json", "--offline", cwd=folder)
    assert refused.code == 1
