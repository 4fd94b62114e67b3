"""The settings: what refuses to start, and that the docs tell of each one."""

import base64
from pathlib import Path

import pytest

from portal import config
from portal.config import Settings, UnsafeSettings

KEY = "1:" + base64.b64encode(b"k" * 32).decode()
PRODUCTION = {
    "PORTAL_ENV": "production",
    "SECRET_KEY": "kept-secret-by-nobody-0123456789",
    "ENCRYPTION_KEYS": KEY,
    "DATABASE_URL": "postgresql://portal@db/portal",
    "PORTAL_URL": "https://portal.example.com",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_production_with_its_secrets_starts(environment: pytest.MonkeyPatch) -> None:
    settings = config.load()
    assert settings.database_url == "postgresql+psycopg://portal@db/portal"
    assert settings.is_https
    assert settings.host == "portal.example.com"


@pytest.mark.parametrize("name", ["SECRET_KEY", "ENCRYPTION_KEYS", "DATABASE_URL", "PORTAL_URL"])
def test_production_without_a_secret_refuses_to_start_and_names_it(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    with pytest.raises(UnsafeSettings, match=name):
        config.load()


def test_production_is_what_is_meant_where_nothing_is_said(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("PORTAL_ENV")
    environment.delenv("SECRET_KEY")
    with pytest.raises(UnsafeSettings, match="SECRET_KEY"):
        config.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "short"),
        ("ENCRYPTION_KEYS", "1:not-base64"),
        ("ENCRYPTION_KEYS", "1:" + base64.b64encode(b"short").decode()),
        ("ENCRYPTION_KEYS", f"{KEY},{KEY}"),
        ("DATABASE_URL", "mysql://db"),
        ("PORTAL_URL", "portal.example.com"),
        ("MAIL_SESSIONS", "0"),
        ("EVENT_RATE_LIMIT", "many"),
        ("SMTP_ALLOWED_NETWORKS", "inside"),
        ("SMTP_ALLOWED_NETWORKS", "10.0.0.0/24,10.0.0.5/8"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_and_its_value_is_not_shown(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(UnsafeSettings, match=name) as refusal:
        config.load()
    if name in {"SECRET_KEY", "ENCRYPTION_KEYS"}:
        assert value not in str(refusal.value)


@pytest.mark.parametrize(
    ("value", "networks"),
    [("", []), (" 127.0.0.0/8, ::1 ,", ["127.0.0.0/8", "::1/128"]), ("10.1.2.3", ["10.1.2.3/32"])],
)
def test_networks_are_separated_by_commas(environment: pytest.MonkeyPatch, value: str, networks: list[str]) -> None:
    environment.setenv("SMTP_ALLOWED_NETWORKS", value)
    assert [str(each) for each in config.load().smtp_allowed_networks] == networks


def test_development_makes_its_secrets_once(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in PRODUCTION:
        environment.delenv(name)
    environment.setenv("PORTAL_ENV", "development")
    environment.setenv("VAR_DIR", str(tmp_path))
    first, second = config.load(), config.load()
    assert first.secret_key is not None
    assert first.secret_key == second.secret_key
    assert first.encryption_keys == second.encryption_keys
    assert (tmp_path / "secrets.json").stat().st_mode & 0o077 == 0, "nobody else may read them"


def test_secrets_do_not_show_in_a_repr(environment: pytest.MonkeyPatch) -> None:
    assert "ssss" not in repr(config.load())


def test_the_docs_tell_of_each_setting() -> None:
    table = (config.ROOT / "docs" / "settings.md").read_text()
    assert config.table() in table, "write what portal.config.table() returns into docs/settings.md"
