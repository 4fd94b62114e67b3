"""The demo's tenants: one that works, one with a problem, one that is silent, one that is new."""

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import update

from portal.audit.labels import SYSTEM_MAIL_SERVER
from portal.database.scope import enter_scope, every_tenant
from portal.deliveries import statistics
from portal.demo import history
from portal.demo.history import DeliveryEnding, DemoHistory
from portal.errors import Refusal
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.models import MailServer
from portal.mail_servers.smtp.client import AuthMode, Encryption
from portal.mail_servers.smtp.outcome import ReplyKind, SmtpReply, Stage, advice_for
from portal.notifications import recipients
from portal.notifications import settings as notifications_settings
from portal.pbx import api_keys
from portal.pbx.models import ApiKey
from portal.tenants import service as tenant_service
from portal.tenants.models import Tenant

HOUR: Final = timedelta(hours=1)
OTHERS: Final = {"globex.example": "Globex", "initech.example": "Initech", "umbrella.example": "Umbrella"}


def fill(acme: Tenant) -> None:
    """Give Acme, which is set up, a history and add the other tenants. Afterwards Acme's scope is current."""
    add_working(acme)
    add_failing(_tenant("globex.example"))
    add_silent(_tenant("initech.example"))
    _tenant("umbrella.example")
    statistics.update()
    enter_scope(acme.id)


def add_working(tenant: Tenant) -> None:
    """Add a history until now, with a storm half an hour ago."""
    now = datetime.now(UTC)
    past = DemoHistory(tenant, SYSTEM_MAIL_SERVER)
    past.add_usual_days(busy=40, until=now)
    past.add(now - 20 * HOUR, history.UNKNOWN_USER)
    for minutes in (28, 27, 26):
        past.add(now - timedelta(minutes=minutes), history.TOO_MANY, "queue.call_lost")
    past.write()
    _key(tenant, used=now - timedelta(minutes=4))


def add_failing(tenant: Tenant) -> None:
    """Add a mail server that has rejected its password for five hours, and the emails held since then."""
    now = datetime.now(UTC)
    entered = mail_server_service.EnteredSettings(
        provider="smtp",
        host="smtp.globex.example",
        port=587,
        encryption=Encryption.STARTTLS,
        auth_mode=AuthMode.AUTO,
        username="alerts@globex.example",
        password="last month's password",  # noqa: S106 (not a real one)
        sender_email="alerts@globex.example",
    )
    assert not isinstance(mail_server_service.save(tenant.id, entered), Refusal)
    past = DemoHistory(tenant, "smtp.globex.example:587")
    past.add_usual_days(busy=18, until=now - 6 * HOUR)
    for index in range(14):
        past.add(now - 5 * HOUR + index * timedelta(minutes=20), history.WRONG_PASSWORD)
    past.write()
    _key(tenant, used=now - timedelta(minutes=35))
    rejected = {"rejected_at": now - 5 * HOUR, "pause_reason": _advice(history.WRONG_PASSWORD)}
    with every_tenant():
        db.session.execute(update(MailServer).where(MailServer.tenant_id == tenant.id).values(rejected))
        db.session.commit()


def add_silent(tenant: Tenant) -> None:
    """Add a history that ended nine days ago."""
    until = datetime.now(UTC) - timedelta(days=9)
    past = DemoHistory(tenant, SYSTEM_MAIL_SERVER)
    past.add_usual_days(busy=12, until=until)
    past.write()
    _key(tenant, used=until)


def _tenant(domain: str) -> Tenant:
    """Return a tenant with recipients; its history is added separately."""
    tenant = tenant_service.find(domain) or tenant_service.add(OTHERS[domain], domain, "Europe/London")
    assert isinstance(tenant, Tenant)
    enter_scope(tenant.id)
    if domain != "umbrella.example":
        recipients.replace(tenant, [f"operations@{domain}"])
        notifications_settings.set_enabled(tenant, EVENT_TYPES, on=True)
    return tenant


def _advice(ending: DeliveryEnding) -> str:
    assert ending.stage
    reply = SmtpReply(ReplyKind.SETTINGS, Stage(ending.stage), ending.code, ending.enhanced_code, ending.text or "")
    return advice_for(reply, 587)


def _key(tenant: Tenant, used: datetime) -> None:
    """Issue a key last used at that time, and date it and the tenant before the history."""
    key = api_keys.issue(tenant, "Main PBX").row
    created = datetime.now(UTC) - (history.DAYS + 15) * history.DAY
    db.session.execute(update(ApiKey).where(ApiKey.id == key.id).values(created_at=created, last_used_at=used))
    db.session.execute(update(Tenant).where(Tenant.id == tenant.id).values(created_at=created))
    db.session.commit()
