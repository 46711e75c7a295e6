"""The configuration file and the environment: what is wrong is named by its key, and no secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from datavern import DatabaseManager
from datavern.config_file import load
from datavern.contracts.errors import ConfigurationError

PLANTED = "hunter2-æøå"


def write(folder: Path, text: str) -> Path:
    path = folder / "datavern.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_read_with_references_and_relative_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", PLANTED)
    monkeypatch.setenv("DB_HOST", "db.example")
    path = write(
        tmp_path,
        """
        [datavern]
        organisation = "Øksnes kommune"
        ledger = "main"
        keyring = "file:keys"
        [databases.main]
        provider = "postgresql"
        host = { env = "DB_HOST" }
        password = { env = "DB_PASSWORD" }
        tls = { ca_file = "ca.pem" }
        [databases.local]
        provider = "sqlite"
        path = "app.db"
        [datasets.users]
        database = "main"
        subject = "id"
        fields = { env = { sealed = true } }
        """,
    )
    config = load(path)
    assert config.general.organisation == "Øksnes kommune"
    assert config.general.keyring == f"file:{tmp_path / 'keys'}"
    assert config.databases["main"]["host"] == "db.example"
    assert config.databases["main"]["password"].reveal() == PLANTED
    assert config.databases["main"]["tls"]["ca_file"] == str(tmp_path / "ca.pem")
    assert config.databases["local"]["path"] == str(tmp_path / "app.db")
    assert config.datasets["users"]["fields"] == {"env": {"sealed": True}}
    assert PLANTED not in repr(config)


def test_a_password_in_a_url_is_not_shown(tmp_path):
    url = f"postgresql://app:{PLANTED}@db.example/app"
    config = load(write(tmp_path, f"[databases.main]\nprovider='postgresql'\nurl='{url}'"))
    assert config.databases["main"]["url"] == url
    assert PLANTED not in repr(config) + str(config)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[database.main]\nprovider='sqlite'", "did you mean [databases]?"),
        ("datavern = 3", "expected a table, [datavern]"),
        ("[databases]\nmain = 3", "databases.main: expected a table"),
        ("[databases.main]\npath='x'", "databases.main.provider: missing"),
        ("[datavern]\nledgre='main'", "datavern.ledgre: unknown key; did you mean ledger?"),
        (
            "[datavern]\nledger='other'\n[databases.main]\nprovider='sqlite'",
            "no database is named other; there are: main",
        ),
        ("[databases.main]\nprovider='sqlite'\npath={env='A', default='b'}", "databases.main.path: expected { env"),
        ("[databases.main]\nprovider='sqlite'\npath={env='NOT_SET_ANYWHERE'}", "NOT_SET_ANYWHERE is not set"),
        ("[databases.main]\nprovider='postgresql'\npassword=5", "databases.main.password: a secret is text"),
        ("[databases.main", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key(tmp_path, text, said):
    with pytest.raises(ConfigurationError) as caught:
        load(write(tmp_path, text))
    assert said in str(caught.value)


def test_a_missing_file_says_what_makes_one(tmp_path):
    with pytest.raises(ConfigurationError, match="`datavern init` makes one"):
        load(tmp_path / "datavern.toml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path)


def test_the_environment_overrides_the_file(tmp_path, monkeypatch):
    path = write(tmp_path, "[databases.main]\nprovider='sqlite'\npath='a.db'\n[databases.main.pool]\nmax=1")
    monkeypatch.setenv("DATAVERN_DATABASES__MAIN__PATH", "b.db")
    monkeypatch.setenv("DATAVERN_DATABASES__MAIN__POOL__MAX", "7")
    monkeypatch.setenv("DATAVERN_DATAVERN__ORGANISATION", "Røst")
    config = load(path)
    assert config.databases["main"]["path"] == str(tmp_path / "b.db")
    assert config.databases["main"]["pool"] == {"max": "7"}
    assert config.general.organisation == "Røst"
    monkeypatch.setenv("DATAVERN_DATABSES__MAIN__PATH", "c.db")
    with pytest.raises(ConfigurationError, match="DATAVERN_DATABSES__MAIN__PATH: unknown table"):
        load(path)


def test_derived_stores_are_named_by_their_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_the_application.py").write_text("async def forget(subject):\n    return 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    head = '[datavern]\nkeyring = "file:keys"\n[databases.main]\nprovider = "sqlite"\npath = "a.db"\n'
    file = tmp_path / "datavern.toml"

    def manager(derived: str) -> DatabaseManager:
        file.write_text(f"{head}[derived.search]\n{derived}\n")
        return DatabaseManager.from_config(file)

    made = manager('erase = "of_the_application:forget"')
    with pytest.raises(ConfigurationError, match="there is one of that name"):
        made.derived("search", erase=print)
    for wrong, match in (
        ('erase = "of_the_application:remember"', "derived.search.erase: .* cannot be loaded"),
        ('erase = "no_such_module:forget"', "derived.search.erase: .* set PYTHONPATH"),
        ('erase = "of_the_application"', "expected .package.module:function"),
        ('access = "of_the_application:forget"', "expected erase"),
        ('erase = "of_the_application:forget"\nforget = 1', "expected erase, and perhaps access"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            manager(wrong)
