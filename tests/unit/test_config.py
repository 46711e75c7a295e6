"""Settings: what is wrong is named by its path, and no secret is shown."""

from __future__ import annotations

import logging
import pickle
import traceback
from dataclasses import dataclass

import pytest

from datavern.config import TLS, Pool, ProviderSettings, Secret, checked, env
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Location

PLANTED = "hunter2-æøå"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(ProviderSettings):
    host: str = "127.0.0.1"
    port: int = 5432
    password: Secret | None = None
    tls: TLS | None = None
    pool: Pool = Pool()


def test_settings_are_typed_and_frozen():
    settings = checked(
        Settings,
        {"name": "main", "location": "norway", "compliance": ["gdpr"], "pool": {"max": 3}},
        path="databases.main",
    )
    assert settings.location is Location.NORWAY
    assert settings.compliance == frozenset({"gdpr"})
    assert settings.pool.max == 3
    with pytest.raises(AttributeError):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hots": "x"}, "databases.main.hots: unknown key; did you mean host?"),
        ({"zzz": 1}, "databases.main.zzz: unknown key; known keys: "),
        ({"port": "five"}, "databases.main.port: input should be a valid integer"),
        ({"location": "sweden"}, "databases.main.location: input should be 'norway', 'eu' or 'global'"),
        ({"compliance": ["iso"]}, "databases.main.compliance"),
        ({"pool": {"max": 2, "min": 5}}, "pool.min is 5: expected between 0 and pool.max, which is 2"),
        ({"pool": {"maximum": 2}}, "databases.main.pool.maximum"),
        ({"pool": {"max": 0}}, "pool.max is 0: expected at least 1"),
        ({"tls": {"key_file": "k.pem"}}, "tls.key_file is given without tls.cert_file"),
        ({"tls": {"verify": "maybe"}}, "databases.main.tls.verify: input should be 'full', 'ca', 'none' or 'off'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_path(values, said):
    with pytest.raises(ConfigurationError) as caught:
        checked(Settings, {"name": "main", **values}, path="databases.main")
    assert said in str(caught.value)
    assert caught.value.__context__ is None


def test_every_problem_is_told_at_once():
    with pytest.raises(ConfigurationError) as caught:
        checked(Settings, {"name": "main", "port": "x", "location": "y"}, path="databases.main")
    assert len(str(caught.value).splitlines()) == 2


def test_a_secret_is_used_and_never_shown(caplog):
    secret = Secret(PLANTED)
    settings = checked(Settings, {"name": "main", "password": secret}, path="databases.main")
    assert settings.password is not None
    assert settings.password.reveal() == PLANTED
    logging.getLogger("test").warning("%s %r %s", settings, secret, [secret])
    shown = [repr(settings), str(secret), f"{secret!r}", caplog.text]
    try:
        raise ValueError(settings)
    except ValueError:
        shown.append(traceback.format_exc())
    with pytest.raises(ConfigurationError) as caught:
        checked(Settings, {"name": "main", "password": secret, "port": PLANTED}, path="databases.main")
    shown.append("".join(traceback.format_exception(caught.value)))
    assert all(PLANTED not in text for text in shown)
    assert "***" in shown[0]
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_a_secret_from_the_environment_is_read_when_it_is_needed(monkeypatch):
    secret = env("DATAVERN_X_PASSWORD")
    with pytest.raises(ConfigurationError, match="environment variable DATAVERN_X_PASSWORD is not set"):
        secret.reveal()
    monkeypatch.setenv("DATAVERN_X_PASSWORD", PLANTED)
    assert secret.reveal() == PLANTED
    assert env("DATAVERN_NOT_THERE", "fallback").reveal() == "fallback"


@pytest.mark.parametrize("value", [5, None, ["x"], 1.5])
def test_a_secret_that_is_no_text_is_refused(value):
    with pytest.raises(ConfigurationError, match="a secret is text, or a callable that gives it, not"):
        Secret(value)
