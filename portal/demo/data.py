"""The demo's data, made by what the pages call: a system, a tenant, people, a mail server that catches, a PBX key."""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flask import current_app
from flask_security import admin_change_password, verify_password
from sqlalchemy import select

from portal.accounts import registration
from portal.accounts.models import Account
from portal.database import enter_scope
from portal.demo import catcher, tenants
from portal.errors import Refusal
from portal.extensions import db
from portal.mail_servers import selection, settings
from portal.mail_servers.connection import AuthMode, Encryption
from portal.notifications import recipients, switches
from portal.notifications.kinds import KINDS
from portal.pbx import keys
from portal.tenants import directory

SYSTEM_ADMINISTRATOR = "admin@pbx.example"
TENANT_ADMINISTRATOR = "admin@acme.example"
DOMAIN = "acme.example"
RECIPIENTS = ("reception@acme.example", "supervisor@acme.example")
SENDER = "portal@pbx.example"

Result = TypeVar("Result")


class Refused(Exception):
    """The portal refused a piece of the demo's data. Its text says why."""


@dataclass(frozen=True, slots=True)
class Access:
    """What opens the demo: passwords by account, None where somebody has changed it, and a PBX key of the tenant."""

    passwords: Mapping[str, str | None]
    key: str | None


def prepare(file: Path, smtp_port: int) -> Access:
    """Fill an empty database, and return what opens the demo. `file` keeps that from one start to the next.

    Raises:
        Refused: the portal does not take DEMO_PASSWORD.
    """
    kept = json.loads(file.read_text()) if file.exists() else {}
    wanted = os.environ.get("DEMO_PASSWORD")
    password = wanted or kept.get("password") or secrets.token_hex(6)
    wrong, _ = current_app.extensions["security"].password_util.validate(password, True, email=TENANT_ADMINISTRATOR)
    if wrong:
        raise Refused(f"DEMO_PASSWORD is not taken. {wrong[0]}")
    if db.session.scalar(select(Account.id).limit(1)) is None:
        _fill(password, smtp_port)
    elif wanted:
        _set_passwords(wanted)
    _follow_catcher(smtp_port)
    key = _working_key(kept.get("key"))
    _keep(file, {"password": password, "key": key})
    return Access({account.email: _if_current(password, account) for account in _accounts()}, key)


def _fill(password: str, smtp_port: int) -> None:
    """Make everything. The accounts come last: with the first one the database counts as filled."""
    tenant = directory.find(DOMAIN) or _done(directory.add("Acme", DOMAIN, "Europe/London"))
    enter_scope(tenant.id)
    _use_catcher(smtp_port)
    _done(settings.share(True))
    recipients.replace(tenant, RECIPIENTS)
    switches.turn(tenant, KINDS, on=True)
    tenants.fill(tenant)
    _done(registration.add(SYSTEM_ADMINISTRATOR, password, system_administrator=True))
    _done(registration.add(TENANT_ADMINISTRATOR, password, tenant_id=tenant.id))


def _use_catcher(port: int) -> None:
    entered = settings.Entered(
        provider="smtp",
        host=catcher.HOST,
        port=port,
        encryption=Encryption.NONE,
        auth_mode=AuthMode.NONE,
        username=None,
        password=None,
        sender_email=SENDER,
    )
    _done(settings.save(None, entered))


def _follow_catcher(port: int) -> None:
    """Send the system's mail to the port that the catcher has today, unless somebody has set another mail server."""
    system = selection.of_owner(None)
    if system and (system.host, system.sender_email) == (catcher.HOST, SENDER) and system.port != port:
        _use_catcher(port)


def _working_key(kept: str | None) -> str | None:
    tenant = directory.find(DOMAIN)
    if tenant is None or (kept and isinstance(keys.find(kept), keys.Caller)):
        return kept if tenant else None
    return keys.issue(tenant, "Demo PBX").secret


def _accounts() -> list[Account]:
    emails = (SYSTEM_ADMINISTRATOR, TENANT_ADMINISTRATOR)
    return list(db.session.scalars(select(Account).where(Account.email.in_(emails)).order_by(Account.id)))


def _if_current(password: str, account: Account) -> str | None:
    return password if verify_password(password, account.password) else None


def _set_passwords(password: str) -> None:
    for account in _accounts():
        if _if_current(password, account) is None:
            admin_change_password(account, password, notify=False)
    db.session.commit()


def _keep(file: Path, content: Mapping[str, str | None]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(json.dumps(content))


def _done(result: Result | Refusal) -> Result:
    if isinstance(result, Refusal):
        raise Refused(result.text)
    return result
