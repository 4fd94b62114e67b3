"""The database's clock, as a process estimates it between two readings."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from portal.config import ROOT
from portal.database import clock, fast_sql
from portal.database.scope import every_tenant
from portal.extensions import db
from tests.sql import sql
from tests.sql_log import Statements, statements

__all__ = ["statements"]

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
A_SECOND = timedelta(seconds=1)
# A host's own clock, where nothing is compared with a time of the database.
HOST_CLOCK = {
    "accounts/request_guards.py": "the time between two steps of a sign-in, in the browser's signed cookie",
    "commands/backups.py": "the name of a backup's file",
    "doctor/database_checks.py": "compares the two clocks",
    "doctor/network_checks.py": "the end of a certificate, which TLS compares with the host's clock too",
    "mail_servers/account_email.py": "the Date header",
    "mail_servers/smtp/progress.py": "the end of a certificate, which TLS compares with the host's clock too",
    "mail_servers/smtp/test_email.py": "the Date header",
    "mail_templates/preview.py": "the time that a preview shows",
}


@pytest.fixture(autouse=True)
def _own_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no other test see what this one notes."""
    monkeypatch.setattr(clock, "_readings", [])


def test_it_is_read_when_a_transaction_begins(context: Flask) -> None:
    clock.note(LONG_AGO)
    with every_tenant():
        db.session.connection()
    assert abs(clock.now() - datetime.now(UTC)) < A_SECOND


def test_a_recent_reading_needs_no_statement(context: Flask, statements: Statements) -> None:
    clock.note(LONG_AGO)
    first = clock.now()
    assert LONG_AGO <= first <= clock.now() < LONG_AGO + A_SECOND
    assert not statements


def test_an_old_reading_is_replaced(context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.note(LONG_AGO)
    monkeypatch.setattr(clock, "MAX_AGE", 0.0)
    assert abs(clock.now() - datetime.now(UTC)) < A_SECOND


def test_without_an_answer_it_is_estimated(context: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError("", None, OSError())

    monkeypatch.setattr(db.engine, "connect", fail)
    with pytest.raises(OperationalError):
        clock.now()
    clock.note(LONG_AGO)
    monkeypatch.setattr(clock, "MAX_AGE", 0.0)
    assert LONG_AGO <= clock.now() < LONG_AGO + A_SECOND


def test_times_are_in_utc_whatever_the_time_zone_of_postgres(context: Flask) -> None:
    name = db.engine.url.database
    sql(f"ALTER DATABASE \"{name}\" SET timezone = 'Asia/Tokyo'")
    try:
        _connect_anew()
        with every_tenant():
            assert db.session.scalars(select(func.now())).one().utcoffset() == timedelta()
            row = fast_sql.run("SELECT now() AS at", {})
            assert row
            assert row["at"].utcoffset() == timedelta()
        assert clock.now().utcoffset() == timedelta()
    finally:
        sql(f'ALTER DATABASE "{name}" RESET timezone')
        _connect_anew()


def _connect_anew() -> None:
    db.session.remove()
    db.engine.dispose()
    fast_sql.dispose()


def test_only_listed_files_use_the_hosts_clock() -> None:
    uses = re.compile(r"datetime\.(now|utcnow|today)\(|date\.today\(|\btime\.time(_ns)?\(")
    folder = ROOT / "portal"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.py") if uses.search(path.read_text())}
    assert {name for name in found if not name.startswith("demo/")} == {*HOST_CLOCK}
