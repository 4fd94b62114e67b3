import json
from pathlib import Path

import pytest
from flask import Flask

from portal.accounts import service as account_service
from portal.demo import data
from portal.mail_servers import service as mail_server_service
from portal.pbx import api_keys
from portal.tenants import service as tenant_service

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """The demo was killed."""


def kill(*_: object) -> None:
    """Take the place of a function within which the demo is killed."""
    raise Killed


def test_an_empty_database_is_filled_once_and_the_mail_server_follows_the_catcher(
    context: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "demo" / "access.json"
    first = data.prepare(file, 2525)
    assert list(first.passwords) == [data.SYSTEM_ADMINISTRATOR, data.TENANT_ADMINISTRATOR]
    assert first.key
    client = api_keys.authenticate(first.key)
    assert client
    assert client.rejected_for is None
    assert file.stat().st_mode & 0o077 == 0
    with monkeypatch.context() as killed:  # while it saves
        killed.setattr(json, "dumps", kill)
        killed.setattr(json, "dump", kill)
        with pytest.raises(Killed):
            data.prepare(file, 2525)
    for port in (2525, 40000):
        assert data.prepare(file, port) == first
        system = mail_server_service.shared_server()
        assert system
        assert system.port == port


def test_a_key_that_is_no_longer_valid_is_replaced(context: Flask, tmp_path: Path) -> None:
    file = tmp_path / "access.json"
    first = data.prepare(file, 2525)
    tenant = tenant_service.find(data.DOMAIN)
    assert tenant
    api_keys.revoke(api_keys.list_keys(tenant)[0])
    second = data.prepare(file, 2525)
    assert second.key
    assert second.key != first.key
    client = api_keys.authenticate(second.key)
    assert client
    assert client.rejected_for is None


def test_another_database_is_not_changed(context: Flask, tmp_path: Path) -> None:
    account_service.add("someone@pbx.example", "a long enough password", system_administrator=True)
    access = data.prepare(tmp_path / "access.json", 2525)
    assert (access.passwords, access.key) == ({}, None)
    assert mail_server_service.get_server(None) is None


def test_demo_password_sets_the_passwords_and_one_changed_in_the_portal_is_not_printed(
    context: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "access.json"
    generated = data.prepare(file, 2525)
    monkeypatch.setenv("DEMO_PASSWORD", "a password of mine")
    assert (
        set(data.prepare(file, 2525).passwords.values()) == {"a password of mine"} != set(generated.passwords.values())
    )
    monkeypatch.setenv("DEMO_PASSWORD", "short")
    with pytest.raises(data.DemoDataRejected, match="at least 10"):
        data.prepare(file, 2525)
    monkeypatch.delenv("DEMO_PASSWORD")
    file.write_text('{"password": "what it was in the beginning"}')
    assert set(data.prepare(file, 2525).passwords.values()) == {None}
