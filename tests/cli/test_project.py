"""init, check, prepare and health: a project to begin with, and whether it holds."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from calling import call

from datavern.config_file import load
from datavern.testing import EmptyDatabase

if TYPE_CHECKING:
    from calling import Run

DATASETS = """
[datasets.users]
database = "main"
subject = "id"
purposes = ["customer-account"]

[datasets.users.fields]
name = { sealed = true }
email = { sealed = true, lookup = true, kind = "email" }
"""


def test_init_makes_a_project_that_holds(run: Run, tmp_path: Path):
    made = run("init", "--organisation", 'Ål "kommune" \\ øst')
    assert made.code == 0, made.told
    assert load(tmp_path / "datavern.toml").general.organisation == 'Ål "kommune" \\ øst'
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert (tmp_path / "main.db").exists()
    checked = run("check")
    assert checked.code == 0, checked.said
    assert "Everything holds." in checked.said


def test_init_makes_the_folder_and_speaks_json(run: Run, tmp_path: Path):
    made = run("init", "a b/prosjekt æ", "--json")
    assert made.code == 0, made.told
    assert made.json["config"] == "a b/prosjekt æ/datavern.toml"
    assert "datavern check --config 'a b/prosjekt æ/datavern.toml'" in made.told
    assert run("check", "--config", made.json["config"]).code == 0


@pytest.mark.parametrize("there", ["datavern.toml", "keys", "main.db"])
def test_init_overwrites_nothing(run: Run, tmp_path: Path, there: str):
    (tmp_path / there).write_bytes(b"mine")
    made = run("init")
    assert made.code == 1
    assert made.told.startswith(f"error: {there} is there already, and is not overwritten")
    assert made.said == ""
    assert [p.name for p in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--database", "postgresql"], "needs --url"),
        (["--database", "postgresql", "--url", "postgresql://u@h/d"], "say where the server is"),
        (
            ["--database", "postgresql", "--url", "mysql://u@h/d", "--location", "norway"],
            "--url: expected postgresql://",
        ),
        (["--url", "postgresql://u@h/d"], "belong to --database postgresql"),
    ],
)
def test_init_says_what_it_lacks(run: Run, tmp_path: Path, arguments: list[str], words: str):
    made = run("init", *arguments)
    assert made.code == 1
    assert words in made.told
    assert not list(tmp_path.iterdir())


def test_init_leaves_nothing_when_the_server_does_not_answer(run: Run, tmp_path: Path):
    url = "postgresql://app:very-secret-9@127.0.0.1:1/app"
    made = run("init", "new", "--database", "postgresql", "--url", url, "--location", "norway", "--verbose")
    assert made.code == 1
    assert made.told.startswith("error: ")
    assert "very-secret-9" not in made.told + made.said
    assert not list(tmp_path.iterdir())


async def test_init_on_a_postgresql_server_keeps_its_password_out_of_the_file(
    tmp_path: Path, postgresql_database: EmptyDatabase
):
    url = urlsplit(postgresql_database.settings["url"])
    arguments = ("--database", "postgresql", "--url", url.geturl(), "--location", "norway", "--json")
    made = call("init", *arguments, cwd=tmp_path)
    assert made.code == 0, made.told
    if url.password is None:  # a server that the environment names may trust this machine
        return
    assert url.password not in (tmp_path / "datavern.toml").read_text()
    assert load(tmp_path / "datavern.toml").databases["main"]["password"].origin.endswith("DATAVERN_MAIN_PASSWORD")
    assert "set DATAVERN_MAIN_PASSWORD" in made.told
    without = call("check", cwd=tmp_path)
    assert without.code == 1
    assert "DATAVERN_MAIN_PASSWORD is not set" in without.said
    checked = call("check", cwd=tmp_path, DATAVERN_MAIN_PASSWORD=unquote(url.password))
    assert checked.code == 0, checked.said


def test_prepare_makes_what_check_misses(run: Run, tmp_path: Path):
    assert run("init").code == 0
    with (tmp_path / "datavern.toml").open("a") as file:
        file.write(DATASETS)
    checked = run("check", "--json")
    assert checked.code == 1
    wrong = [f for f in checked.json["findings"] if not f["ok"]]
    assert [f["part"] for f in wrong] == ["datasets.users"]
    assert "has no table users" in wrong[0]["detail"]
    assert "datavern prepare users" in wrong[0]["detail"]

    prepared = run("prepare")
    assert prepared.code == 0, prepared.told
    assert "CREATE TABLE" in prepared.said
    assert "email_lookup" in prepared.said
    assert run("check").code == 0
    assert "nothing to do" in run("prepare", "users").said

    with closing(sqlite3.connect(tmp_path / "main.db")) as database:
        database.execute("ALTER TABLE users DROP COLUMN name")
    checked = run("check", "--json")
    assert checked.code == 1
    assert "users lacks name" in checked.json["findings"][-1]["detail"]
    assert run("prepare").code == 0
    assert run("check").code == 0


def test_prepare_of_a_dataset_with_a_typo_names_the_nearest(run: Run, tmp_path: Path):
    assert run("init").code == 0
    assert "names no dataset yet" in run("prepare").told
    with (tmp_path / "datavern.toml").open("a") as file:
        file.write(DATASETS)
    done = run("prepare", "user")
    assert done.code == 1
    assert "did you mean users?" in done.told


def test_a_missing_configuration_says_how_to_get_one(run: Run):
    for command in (["check"], ["health"], ["subject", "access", "p"], ["consent", "list", "p"], ["audit", "verify"]):
        done = run(*command)
        assert done.code == 1
        assert done.said == ""
        assert done.told.startswith("error: datavern.toml: no such file; `datavern init` makes one")
        assert "Traceback" not in done.told


def test_a_typo_in_the_configuration_names_the_key_and_the_nearest(run: Run, tmp_path: Path):
    assert run("init").code == 0
    config = tmp_path / "datavern.toml"
    config.write_text(config.read_text().replace("path = ", "pathh = "))
    done = run("check")
    assert done.code == 1
    assert "databases.main.pathh: unknown key; did you mean path?" in done.told


def test_an_error_is_json_for_programs(run: Run):
    done = run("health", "--json")
    assert done.code == 1
    assert done.json["error"]["kind"] == "ConfigurationError"
    assert "no such file" in done.json["error"]["message"]


def test_verbose_shows_where_and_no_values(run: Run):
    done = run("check", "--verbose")
    assert done.code == 1
    assert "in load" in done.told
    assert "datavern.contracts.errors.ConfigurationError: " in done.told


def test_check_finds_keys_that_others_can_read(run: Run, project: Path):
    (project / "keys" / "epoch-1.json").chmod(0o644)
    done = run("check", "--json")
    assert done.code == 1
    wrong = [f for f in done.json["findings"] if not f["ok"]]
    assert [f["part"] for f in wrong] == ["datavern.keyring"]
    assert "chmod" in wrong[0]["detail"]
    assert run("subject", "access", "p-000001").code == 1


def test_check_finds_missing_keys_and_goes_on_looking(run: Run, project: Path):
    shutil.rmtree(project / "keys")
    done = run("check", "--json")
    assert done.code == 1
    by_part = {f["part"]: f["ok"] for f in done.json["findings"]}
    assert by_part["datavern.keyring"] is False
    assert by_part["databases.main"] is True
    assert by_part["datasets.people"] is True


def test_check_finds_the_keys_of_another_project(run: Run, project: Path):
    assert run("init", "other").code == 0
    shutil.rmtree(project / "keys")
    shutil.copytree(project / "other" / "keys", project / "keys")
    done = run("check", "--json")
    assert done.code == 1
    assert [f["part"] for f in done.json["findings"] if not f["ok"]] == ["key store"]


def test_check_finds_data_where_it_may_not_be(run: Run, project: Path):
    config = project / "datavern.toml"
    config.write_text(config.read_text().replace('location = "norway"', 'location = "eu"'))
    done = run("check", "--json")
    assert done.code == 1
    wrong = [f for f in done.json["findings"] if not f["ok"]]
    assert wrong
    assert {f["part"] for f in wrong} == {"residency"}
    assert "CONFIDENTIAL cannot be stored in eu" in wrong[0]["detail"]


def test_check_finds_what_contradicts_the_rule_sets(run: Run, project: Path):
    config = project / "datavern.toml"
    text = config.read_text().replace('location = "norway"', 'location = "norway"\ncompliance = ["gdpr", "nsm"]')
    config.write_text(text)
    assert run("check").code == 0
    config.write_text(text.partition("[datasets")[0])
    done = run("check", "--json")
    assert done.code == 1
    (wrong,) = [f for f in done.json["findings"] if not f["ok"]]
    assert wrong["part"] == "compliance"
    assert "databases.main: compliance gdpr asks for a data map" in wrong["detail"]
    refused = run("consent", "list", "p-000001")
    assert refused.code == 1
    assert "asks for a data map" in refused.told


def test_check_and_health_tell_of_a_database_that_is_none(run: Run, project: Path):
    (project / "main.db").write_bytes(b"this is not a database " * 100)
    for name in ("main.db-wal", "main.db-shm"):
        (project / name).unlink(missing_ok=True)
    checked = run("check", "--json")
    assert checked.code == 1
    assert [f["part"] for f in checked.json["findings"] if not f["ok"]] == ["databases.main"]
    health = run("health", "--json")
    assert health.code == 1
    assert health.json["databases"]["main"]["status"] == "unhealthy"


def test_health_is_a_table_for_people_and_json_for_programs(run: Run, project: Path):
    seen = run("health")
    assert seen.code == 0
    assert "healthy" in seen.said
    assert "\x1b" not in seen.said
    told = run("health", "--json")
    assert told.json["healthy"] is True
    assert told.json["databases"]["main"]["role"] == "primary"


def test_help_and_version_need_nothing(run: Run):
    assert "Commands:" in run("--help").said
    assert run("--version").said.startswith("datavern 0.")
    for command in ("init", "check", "prepare", "health", "subject", "consent", "audit", "demo"):
        done = run(command, "--help")
        assert done.code == 0, done.told
        assert done.said.startswith("Usage: datavern " + command)


def test_a_command_with_a_typo_names_the_nearest(run: Run):
    done = run("chek")
    assert done.code == 2
    assert "Did you mean 'check'" in done.told


def test_help_loads_no_driver_and_no_engine(run: Run, tmp_path: Path):
    code = (
        "import sys; sys.argv = ['datavern', '--help']\n"
        "from datavern.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'sqlalchemy', 'asyncpg', 'pydantic', 'rich', 'cryptography', 'sqlite3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.splitlines()[-1] == "[]"
