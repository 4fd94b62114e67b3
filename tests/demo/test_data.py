from pathlib import Path

import pytest
from flask import Flask

from portal.accounts import registration
from portal.demo import data
from portal.mail_servers import selection
from portal.pbx import keys


def test_an_empty_database_is_filled_once(context: Flask, tmp_path: Path) -> None:
    file = tmp_path / "demo" / "access.json"
    first = data.prepare(file, 2525)
    assert list(first.passwords) == [data.SYSTEM_ADMINISTRATOR, data.TENANT_ADMINISTRATOR]
    assert first.key
    assert isinstance(keys.find(first.key), keys.Caller)
    assert file.stat().st_mode & 0o077 == 0
    assert data.prepare(file, 2525) == first


def test_the_mail_server_follows_the_catcher(context: Flask, tmp_path: Path) -> None:
    for port in (2525, 40000):
        data.prepare(tmp_path / "access.json", port)
        system = selection.shared()
        assert system
        assert system.port == port


def test_somebody_elses_database_is_left_alone(context: Flask, tmp_path: Path) -> None:
    registration.add("someone@pbx.example", "a long enough password", system_administrator=True)
    access = data.prepare(tmp_path / "access.json", 2525)
    assert (access.passwords, access.key) == ({}, None)
    assert selection.of_owner(None) is None


def test_demo_password_sets_the_passwords(context: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "access.json"
    generated = data.prepare(file, 2525)
    monkeypatch.setenv("DEMO_PASSWORD", "a password of mine")
    assert (
        set(data.prepare(file, 2525).passwords.values()) == {"a password of mine"} != set(generated.passwords.values())
    )
    monkeypatch.setenv("DEMO_PASSWORD", "short")
    with pytest.raises(data.Refused, match="at least 10"):
        data.prepare(file, 2525)


def test_a_password_that_somebody_changed_is_not_told(context: Flask, tmp_path: Path) -> None:
    file = tmp_path / "access.json"
    data.prepare(file, 2525)
    file.write_text('{"password": "what it was in the beginning"}')
    assert set(data.prepare(file, 2525).passwords.values()) == {None}
