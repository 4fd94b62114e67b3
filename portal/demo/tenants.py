"""The demo's tenants beside each other: one at work, one in trouble, one that is silent, one in its first steps."""

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import update

from portal.audit.actions import SYSTEM_MAIL_SERVER
from portal.database import enter_scope, every_tenant
from portal.deliveries import tally
from portal.demo import past
from portal.demo.past import Ending, Past
from portal.errors import Refusal
from portal.extensions import db
from portal.mail_servers import settings
from portal.mail_servers.connection import AuthMode, Encryption
from portal.mail_servers.models import MailServer
from portal.mail_servers.outcome import Kind, Outcome, Stage, advice
from portal.notifications import recipients, switches
from portal.notifications.kinds import KINDS
from portal.pbx import keys
from portal.pbx.models import PbxKey
from portal.tenants import directory
from portal.tenants.models import Tenant

HOUR: Final = timedelta(hours=1)
OTHERS: Final = {"globex.example": "Globex", "initech.example": "Initech", "umbrella.example": "Umbrella"}


def fill(acme: Tenant) -> None:
    """Give Acme, which is set up, a past, and add the others. Acme's scope is the one in force afterwards."""
    at_work(acme)
    in_trouble(_tenant("globex.example"))
    silent(_tenant("initech.example"))
    _tenant("umbrella.example")
    tally.count()
    enter_scope(acme.id)


def at_work(tenant: Tenant) -> None:
    """Let the tenant have a past that goes on until now, with a storm half an hour ago."""
    now = datetime.now(UTC)
    written = Past(tenant, SYSTEM_MAIL_SERVER)
    written.usual(busy=40, until=now)
    written.add(now - 20 * HOUR, past.UNKNOWN_USER)
    for minutes in (28, 27, 26):
        written.add(now - timedelta(minutes=minutes), past.TOO_MANY, "queue.call_lost")
    written.write()
    _key(tenant, used=now - timedelta(minutes=4))


def in_trouble(tenant: Tenant) -> None:
    """Let the tenant's own mail server refuse its password since this morning, so that its mails are held."""
    now = datetime.now(UTC)
    entered = settings.Entered(
        provider="smtp",
        host="smtp.globex.example",
        port=587,
        encryption=Encryption.STARTTLS,
        auth_mode=AuthMode.AUTO,
        username="alerts@globex.example",
        password="the one of last month",  # noqa: S106 (nobody's)
        sender_email="alerts@globex.example",
    )
    assert not isinstance(settings.save(tenant.id, entered), Refusal)
    written = Past(tenant, "smtp.globex.example:587")
    written.usual(busy=18, until=now - 6 * HOUR)
    for nth in range(14):
        written.add(now - 5 * HOUR + nth * timedelta(minutes=20), past.WRONG_PASSWORD)
    written.write()
    _key(tenant, used=now - timedelta(minutes=35))
    rejected = {"rejected_at": now - 5 * HOUR, "pause_text": _advice(past.WRONG_PASSWORD)}
    with every_tenant():
        db.session.execute(update(MailServer).where(MailServer.tenant_id == tenant.id).values(rejected))
        db.session.commit()


def silent(tenant: Tenant) -> None:
    """Let the tenant's PBX have called last nine days ago."""
    until = datetime.now(UTC) - timedelta(days=9)
    written = Past(tenant, SYSTEM_MAIL_SERVER)
    written.usual(busy=12, until=until)
    written.write()
    _key(tenant, used=until)


def _tenant(domain: str) -> Tenant:
    """Return a tenant with recipients; what else there is comes with its past."""
    tenant = directory.find(domain) or directory.add(OTHERS[domain], domain, "Europe/London")
    assert isinstance(tenant, Tenant)
    enter_scope(tenant.id)
    if domain != "umbrella.example":
        recipients.replace(tenant, [f"operations@{domain}"])
        switches.turn(tenant, KINDS, on=True)
    return tenant


def _advice(ending: Ending) -> str:
    assert ending.stage
    outcome = Outcome(Kind.SETTINGS, Stage(ending.stage), ending.code, ending.enhanced_code, ending.text or "")
    return advice(outcome, 587)


def _key(tenant: Tenant, used: datetime) -> None:
    """Issue a key that was used last at that time, and let it and the tenant be older than the past."""
    key = keys.issue(tenant, "Main PBX").row
    began = datetime.now(UTC) - (past.DAYS + 15) * past.DAY
    db.session.execute(update(PbxKey).where(PbxKey.id == key.id).values(created_at=began, last_used_at=used))
    db.session.execute(update(Tenant).where(Tenant.id == tenant.id).values(created_at=began))
    db.session.commit()
