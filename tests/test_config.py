"""The settings: what keeps the portal from starting, and that the docs list each one."""

import base64
import json
import os
import re
import secrets
from pathlib import Path

import pytest

from portal import config, settings_file
from portal.config import Settings, UnsafeSettings
from portal.generated_secrets import write_private

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


def test_production_starts_with_its_secrets(environment: pytest.MonkeyPatch) -> None:
    settings = config.load()
    assert settings.database_url == "postgresql+psycopg://portal@db/portal"
    assert settings.is_https
    assert settings.host == "portal.example.com"


@pytest.mark.parametrize("name", ["SECRET_KEY", "ENCRYPTION_KEYS", "DATABASE_URL", "PORTAL_URL"])
def test_production_does_not_start_without_a_secret_and_names_it(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    with pytest.raises(UnsafeSettings, match=name):
        config.load()


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("", 0),
        ("an-earlier-one-by-nobody-9876543210", 1),
        (" an-earlier-one-by-nobody-9876543210, and-one-before-it-of-0123456789-abc,", 2),
        ("one key, as people may write it: 1234", 1),
    ],
)
def test_earlier_secret_keys_are_separated_by_commas_and_may_contain_one(
    environment: pytest.MonkeyPatch, value: str, count: int
) -> None:
    environment.setenv("SECRET_KEY_FALLBACKS", value)
    first, *earlier = config.load().secret_keys
    assert first == PRODUCTION["SECRET_KEY"]
    assert len(earlier) == count


@pytest.mark.parametrize("path", ["/portal", "/portal/", "//x", "/?a=b", "?a=b", "#start", "/a/b", "?"])
def test_a_portal_below_a_path_does_not_start_and_says_why(environment: pytest.MonkeyPatch, path: str) -> None:
    environment.setenv("PORTAL_URL", f"https://portal.example.com{path}")
    with pytest.raises(
        UnsafeSettings, match="PORTAL_URL: must not have a path: the portal needs a host name of its own"
    ):
        config.load()


@pytest.mark.parametrize("url", ["https://portal.example.com", "https://portal.example.com:8443", "http://[::1]:8000"])
def test_a_final_slash_of_the_url_is_removed(environment: pytest.MonkeyPatch, url: str) -> None:
    for given in (url, f"{url}/", f"{url}//"):
        environment.setenv("PORTAL_URL", given)
        assert config.load().portal_url == url


def test_production_is_the_default(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("PORTAL_ENV")
    environment.delenv("SECRET_KEY")
    with pytest.raises(UnsafeSettings, match="SECRET_KEY"):
        config.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "short"),
        ("SECRET_KEY_FALLBACKS", "short"),
        ("ENCRYPTION_KEYS", "1:not-base64"),
        ("ENCRYPTION_KEYS", "1:" + base64.b64encode(b"short").decode()),
        ("ENCRYPTION_KEYS", f"{KEY},{KEY}"),
        ("DATABASE_URL", "mysql://db"),
        ("PORTAL_URL", "portal.example.com"),
        ("PORTAL_URL", "https://"),
        ("PORTAL_URL", "https:///portal"),
        ("PORTAL_URL", "https://user:secret@portal.example.com"),
        ("PORTAL_URL", "https://portal.example.com:port"),
        ("PORTAL_URL", "https://portal.example.com:0"),
        ("PORTAL_URL", "https://portal .example.com"),
        ("CONCURRENT_EMAILS_PER_SERVER", "0"),
        ("EVENT_RATE_LIMIT", "many"),
        ("MAX_EVENT_BYTES", "9999999999"),
        ("RETENTION_DAYS", "9999999999"),
        ("SHARED_SERVER_HOURLY_LIMIT", "9999999999"),
        ("SHARED_SERVER_DAILY_LIMIT", "9999999999"),
        ("TRUSTED_HOSTS", "*"),
        ("TRUSTED_HOSTS", "*.example.com"),
        ("TRUSTED_HOSTS", "portal.internal:8000"),
        ("TRUSTED_HOSTS", "cafe:80"),
        ("TRUSTED_HOSTS", "https://portal.internal"),
        ("SMTP_HELO_NAME", "portal"),
        ("SMTP_HELO_NAME", "portal.example.com\r\nMAIL"),
        ("SMTP_HELO_NAME", "portal_1.example.com"),
        ("SMTP_ALLOWED_NETWORKS", "inside"),
        ("MAIL_CA_FILE", "/no/such/file.pem"),
        ("MAIL_CA_FILE", "/dev/null"),
        ("SMTP_ALLOWED_NETWORKS", "10.0.0.0/24,10.0.0.5/8"),
        ("SSO_ISSUER", "http://id.example.com"),
        ("SSO_ISSUER", "https://user@id.example.com"),
        ("SSO_ISSUER", "https://id.example.com/a b"),
        ("SSO_ISSUER", "https://login.microsoftonline.com/common/v2.0"),
        ("SSO_ISSUER", "https://login.microsoftonline.com/organizations/v2.0"),
        ("SSO_ISSUER", "https://LOGIN.microsoftonline.com/acme.onmicrosoft.com/v2.0"),
        ("SSO_ISSUER", "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"),
        ("SSO_EMAIL_DOMAINS", "*"),
        ("SSO_LABEL", ""),
        ("SSO_ONLY", "perhaps"),
    ],
)
def test_an_invalid_setting_is_named_and_its_value_is_not_shown(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(UnsafeSettings, match=name) as error:
        config.load()
    if name in {"SECRET_KEY", "SECRET_KEY_FALLBACKS", "ENCRYPTION_KEYS"}:
        assert value not in str(error.value)


@pytest.mark.parametrize("name", ["DATABASE_URL", "MIGRATION_DATABASE_URL"])
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://portal:canary@db.example/portal?sslmod=require", "does not know: sslmod"),
        ("postgresql://portal:a@can/a?canary=1@db.example/portal", "a parameter that Postgres does not know"),
        ("postgresql://portal:canary@db.example/portal?connect_timeout=soon", "must be like"),
        ("postgresql://portal:canary@db.example:port/portal", "must be like"),
        ("postgresql://portal:can%zzary@db.example/portal", "must be like"),
        ("postgresql://portal:can/ary@db.example/portal", "must be like"),
    ],
)
def test_a_database_url_that_cannot_be_read_is_named_without_its_password(
    environment: pytest.MonkeyPatch, name: str, url: str, expected: str
) -> None:
    environment.setenv(name, url)
    with pytest.raises(UnsafeSettings) as error:
        config.load()
    assert f"  {name}: " in str(error.value)
    assert expected in str(error.value)
    assert not re.search("can.{0,3}ary", str(error.value))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///portal",
        "postgresql://postgres:@/portal?host=/var/lib/portal/postgres",  # as the embedded one
        "postgres://portal:p%40ss@[::1]:5433/portal?sslmode=verify-full&sslrootcert=/etc/ca.pem&connect_timeout=5",
        "postgresql+psycopg://portal@/portal?host=/run/postgresql",
        "postgresql://portal:secret@/portal?host=db1.example:5432&host=db2.example:5432&target_session_attrs=read-write",
    ],
)
def test_a_database_url_may_have_any_parameter_of_postgres(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv("DATABASE_URL", url)
    assert config.load().database_url == f"postgresql+psycopg://{url.partition('://')[2]}"


@pytest.mark.parametrize(
    "issuer",
    [
        "https://login.microsoftonline.com/11111111-2222-3333-4444-55555555AAAA/v2.0",
        "https://accounts.google.com",
        "https://id.example.com/realms/acme",
        "https://acme.eu.auth0.com/",
        "http://127.0.0.1:8080/realms/acme",
    ],
)
def test_single_sign_on_needs_an_issuer_and_a_client(environment: pytest.MonkeyPatch, issuer: str) -> None:
    environment.setenv("SSO_ONLY", "true")
    with pytest.raises(UnsafeSettings, match="SSO_ONLY requires SSO_ISSUER"):
        config.load()
    environment.setenv("SSO_ISSUER", issuer)
    with pytest.raises(UnsafeSettings, match="SSO_ISSUER requires SSO_CLIENT_ID"):
        config.load()
    environment.setenv("SSO_CLIENT_ID", "portal")
    environment.setenv("SSO_TWO_FACTOR", " mfa, otp")
    environment.setenv("SSO_EMAIL_DOMAINS", "Acme.example,pbx.example")
    settings = config.load()
    assert settings.sso_issuer == issuer, "as it is written: an issuer may end in a slash"
    assert settings.sso_two_factor == ("mfa", "otp")
    assert settings.sso_email_domains == ("acme.example", "pbx.example")


@pytest.mark.parametrize(
    ("url", "set_name", "name"),
    [
        ("https://portal.example.com", None, "portal.example.com"),
        ("https://portal.example.com:8443", None, "portal.example.com"),
        ("https://Büro.example", None, "xn--bro-hoa.example"),
        ("http://127.0.0.1:8000", None, "[127.0.0.1]"),
        ("http://[::1]:8000", None, "[IPv6:::1]"),
        ("http://[2001:DB8::7]", None, "[IPv6:2001:db8::7]"),
        ("http://localhost:8000", None, None),
        ("http://portal", None, None),
        ("http://portal_1.example.com", None, None),
        ("http://127.1", None, None),
        ("http://portal", "mail.example.com", "mail.example.com"),
        ("http://portal", "mail.example.com.", "mail.example.com"),
        ("http://portal", "192.0.2.1", "[192.0.2.1]"),
        ("http://portal", "[192.0.2.1]", "[192.0.2.1]"),
        ("http://portal", "[IPv6:2001:db8::7]", "[IPv6:2001:db8::7]"),
    ],
)
def test_the_name_for_ehlo_is_full_or_an_address_literal(
    environment: pytest.MonkeyPatch, url: str, set_name: str | None, name: str | None
) -> None:
    environment.setenv("PORTAL_URL", url)
    if set_name:
        environment.setenv("SMTP_HELO_NAME", set_name)
    assert config.load().helo_name == name


@pytest.mark.parametrize(
    ("value", "networks"),
    [("", []), (" 127.0.0.0/8, ::1 ,", ["127.0.0.0/8", "::1/128"]), ("10.1.2.3", ["10.1.2.3/32"])],
)
def test_networks_are_separated_by_commas(environment: pytest.MonkeyPatch, value: str, networks: list[str]) -> None:
    environment.setenv("SMTP_ALLOWED_NETWORKS", value)
    assert [str(network) for network in config.load().smtp_allowed_networks] == networks


def test_development_generates_its_secrets_once(development: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = config.load(), config.load()
    assert first.secret_key is not None
    assert first.secret_key == second.secret_key
    assert first.encryption_keys == second.encryption_keys
    assert (tmp_path / "secrets.json").stat().st_mode & 0o077 == 0, "only the owner may read them"


@pytest.fixture
def development(environment: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A developer's first start."""
    for name in PRODUCTION:
        environment.delenv(name)
    environment.setenv("PORTAL_ENV", "development")
    environment.setenv("VAR_DIR", str(tmp_path))
    return environment


def test_two_first_starts_at_once_use_the_same_secrets(development: pytest.MonkeyPatch) -> None:
    others, generate = [], secrets.token_urlsafe

    def meanwhile(length: int) -> str:
        development.setattr(secrets, "token_urlsafe", generate)
        others.append(config.load())
        return generate(length)

    development.setattr(secrets, "token_urlsafe", meanwhile)
    first = config.load()
    (other,) = others
    assert (first.secret_key, first.encryption_keys) == (other.secret_key, other.encryption_keys)


def test_a_start_that_is_killed_while_it_writes_the_secrets_does_no_harm(development: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with development.context() as killed:
        killed.setattr(json, "dumps", kill)
        killed.setattr(json, "dump", kill)
        with pytest.raises(Killed):
            config.load()
    assert config.load() == config.load()


@pytest.mark.parametrize("keep_existing", [True, False])
def test_a_file_of_secrets_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_existing: bool
) -> None:
    """Otherwise it may be empty after a power failure."""
    file, synced = tmp_path / "secrets.json", []

    def note(handle: int) -> None:
        assert not file.exists()
        synced.append(os.pread(handle, 100, 0))

    monkeypatch.setattr(os, "fsync", note)
    write_private(file, "secret", keep_existing=keep_existing)
    assert (synced, file.read_text(), file.stat().st_mode & 0o777) == ([b"secret"], "secret", 0o600)


def test_the_repr_hides_secrets(environment: pytest.MonkeyPatch) -> None:
    assert "ssss" not in repr(config.load())


def settings_table() -> str:
    """Return the Markdown table of `docs/reference/settings.md`."""
    lines = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "`var/`" if name == "var_dir" else f"`{field.default}`" if field.default not in (None, "", ()) else ""
        lines.append(f"| `{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def test_the_docs_list_each_setting() -> None:
    table = (config.ROOT / "docs" / "reference" / "settings.md").read_text()
    assert settings_table() in table, (
        "write what tests.test_config.settings_table() returns into docs/reference/settings.md"
    )


def test_the_settings_file_has_what_the_environment_has_not(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "portal.env"
    file.write_text("# settings\nRETENTION_DAYS='30'\nTRUSTED_PROXIES='1'\nPORTAL_URL='https://other.example.com'\n")
    environment.setenv("PORTAL_ENV_FILE", str(file))
    environment.setenv("TRUSTED_PROXIES", "2")
    settings = config.load()
    assert (settings.retention_days, settings.trusted_proxies) == (30, 2)
    assert settings.portal_url == PRODUCTION["PORTAL_URL"]


def test_the_owner_of_the_tables_is_in_a_file_of_its_own(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "portal.env"
    file.write_text("RETENTION_DAYS='30'\n")
    settings_file.owner_file(file).write_text("MIGRATION_DATABASE_URL='postgresql://owner@db/portal'\n")
    environment.setenv("PORTAL_ENV_FILE", str(file))
    assert config.load().migration_database_url == "postgresql+psycopg://owner@db/portal"


def test_a_settings_file_that_was_named_must_exist(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("PORTAL_ENV_FILE", str(tmp_path / "missing.env"))
    with pytest.raises(UnsafeSettings, match=r"missing\.env cannot be read: No such file"):
        config.load()
    environment.delenv("PORTAL_ENV_FILE")
    environment.setattr(settings_file, "DEFAULT", tmp_path / "missing.env")
    assert config.load().retention_days == 90
