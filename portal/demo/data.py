"""The demo's data: a system mail server, a tenant, accounts and a PBX key, created by the functions that pages call."""

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

from portal.accounts import service as account_service
from portal.accounts.models import Account
from portal.database.scope import enter_scope
from portal.demo import mail_catcher, sample_tenants
from portal.errors import Refusal
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.generated_secrets import write_private
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.smtp.client import AuthMode, Encryption
from portal.notifications import recipients
from portal.notifications import settings as notifications_settings
from portal.pbx import api_keys
from portal.tenants import service as tenant_service

SYSTEM_ADMINISTRATOR = "admin@pbx.example"
TENANT_ADMINISTRATOR = "admin@acme.example"
DOMAIN = "acme.example"
RECIPIENTS = ("reception@acme.example", "supervisor@acme.example")
SENDER = "portal@pbx.example"

Result = TypeVar("Result")


class DemoDataRejected(Exception):
    """The portal rejected some of the demo's data. The text says why."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to use the demo: the password of each account, None if it was changed, and a PBX key of the tenant."""

    passwords: Mapping[str, str | None]
    key: str | None


def prepare(file: Path, smtp_port: int) -> Access:
    """Fill an empty database and return how to use the demo. `file` keeps passwords and key between starts."""
    saved = json.loads(file.read_text()) if file.exists() else {}
    chosen = os.environ.get("DEMO_PASSWORD")
    password = chosen or saved.get("password") or secrets.token_hex(6)
    problems, _ = current_app.extensions["security"].password_util.validate(password, True, email=TENANT_ADMINISTRATOR)
    if problems:
        raise DemoDataRejected(f"DEMO_PASSWORD is not accepted. {problems[0]}")
    if db.session.scalar(select(Account.id).limit(1)) is None:
        _fill(password, smtp_port)
    elif chosen:
        _set_passwords(chosen)
    _update_catcher_port(smtp_port)
    key = _working_key(saved.get("key"))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_private(file, json.dumps({"password": password, "key": key}))
    return Access({account.email: _if_current(password, account) for account in _accounts()}, key)


def _fill(password: str, smtp_port: int) -> None:
    """Create everything. The accounts come last: a database with an account counts as filled."""
    tenant = tenant_service.find(DOMAIN) or _checked(tenant_service.add("Acme", DOMAIN, "Europe/London"))
    enter_scope(tenant.id)
    _use_catcher(smtp_port)
    _checked(mail_server_service.share(True))
    recipients.replace(tenant, RECIPIENTS)
    notifications_settings.set_enabled(tenant, EVENT_TYPES, on=True)
    sample_tenants.fill(tenant)
    _checked(account_service.add(SYSTEM_ADMINISTRATOR, password, system_administrator=True))
    _checked(account_service.add(TENANT_ADMINISTRATOR, password, tenant_id=tenant.id))


def _use_catcher(port: int) -> None:
    entered = mail_server_service.EnteredSettings(
        provider="smtp",
        host=mail_catcher.HOST,
        port=port,
        encryption=Encryption.NONE,
        auth_mode=AuthMode.NONE,
        username=None,
        password=None,
        sender_email=SENDER,
    )
    _checked(mail_server_service.save(None, entered))


def _update_catcher_port(port: int) -> None:
    """Point the system's mail server at the catcher's current port, unless another mail server was set."""
    system = mail_server_service.get_server(None)
    if system and (system.host, system.sender_email) == (mail_catcher.HOST, SENDER) and system.port != port:
        _use_catcher(port)


def _working_key(saved: str | None) -> str | None:
    tenant = tenant_service.find(DOMAIN)
    if tenant is None:
        return None
    client = api_keys.authenticate(saved) if saved else None
    return saved if client and not client.rejected_for else api_keys.issue(tenant, "Demo PBX").secret


def _accounts() -> list[Account]:
    emails = (SYSTEM_ADMINISTRATOR, TENANT_ADMINISTRATOR)
    return list(db.session.scalars(select(Account).where(Account.email.in_(emails)).order_by(Account.id)))


def _if_current(password: str, account: Account) -> str | None:
    return password if account.password and verify_password(password, account.password) else None


def _set_passwords(password: str) -> None:
    for account in _accounts():
        if _if_current(password, account) is None:
            admin_change_password(account, password, notify=False)
    db.session.commit()


def _checked(result: Result | Refusal) -> Result:
    if isinstance(result, Refusal):
        raise DemoDataRejected(result.text)
    return result
