"""The checklist of a new tenant: the steps until its first email is sent."""

from collections.abc import Sequence
from typing import NamedTuple

from flask_babel import gettext
from sqlalchemy import select

from portal.deliveries.models import RecordedEvent
from portal.events.types import EVENT_TYPES
from portal.extensions import db
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.models import MailServer
from portal.mail_servers.oauth import service as oauth_service
from portal.mail_servers.oauth.service import MailboxStatus
from portal.notifications import recipients, settings
from portal.pbx import api_keys
from portal.pbx.models import ApiKey
from portal.tenants.models import Tenant

DONE, WAITING, TO_DO = "done", "waiting", "to_do"


class TenantSetup(NamedTuple):
    """What a tenant has set up: its mail server, recipients, how many of all `events` are on, and valid keys."""

    server: MailServer | None
    mailbox: MailboxStatus | None  # of a server with OAuth 2.0
    addresses: Sequence[str]
    events_on: int
    events: int
    keys: Sequence[ApiKey]


class ChecklistStep(NamedTuple):
    """A step. `state` is done, waiting (for the PBX) or to do; `endpoint` is the page where it is done."""

    name: str
    endpoint: str
    title: str
    text: str
    state: str


def open_steps(setup: TenantSetup, *, has_sent: bool) -> Sequence[ChecklistStep]:
    """Return the four steps, or none if all are done or an event has been emailed before."""
    steps = all_steps(setup)
    return [] if has_sent or all(step.state == DONE for step in steps) else steps


def all_steps(setup: TenantSetup) -> Sequence[ChecklistStep]:
    """Return the four steps of the tenant in scope."""
    return [
        ChecklistStep("mail-server", _mail_server_page(setup), gettext("Mail server"), *_mail_server(setup)),
        ChecklistStep("recipients", "recipients.edit", gettext("Recipients"), *_recipients(setup)),
        ChecklistStep("events", "notifications.edit", gettext("Events"), *_events(setup)),
        ChecklistStep("key", "connect.show", gettext("PBX key"), *_key(setup)),
    ]


def administrator_step(emails: Sequence[str]) -> ChecklistStep:
    """Return the step before the others, which only a system administrator can take."""
    text, state = (_some_of(emails), DONE) if emails else (gettext("Nobody administers this tenant yet."), TO_DO)
    return ChecklistStep("administrator", "people.index", gettext("Administrator"), text, state)


def _mail_server_page(setup: TenantSetup) -> str:
    connects = setup.server is not None and not setup.server.is_system and _needs_mailbox(setup)
    return "oauth.show" if connects else "mail_servers.edit"


def _needs_mailbox(setup: TenantSetup) -> bool:
    return setup.mailbox is not None and setup.mailbox.state != "connected"


def _mail_server(setup: TenantSetup) -> tuple[str, str]:
    if setup.server is None:
        return gettext("The server that sends your email."), TO_DO
    if setup.server.is_system and _needs_mailbox(setup):
        return gettext("The system administrator's mail server is not ready yet."), WAITING
    if setup.server.is_system:
        return gettext("The system administrator's mail server is used."), DONE
    if setup.mailbox and _needs_mailbox(setup):
        return setup.mailbox.problem, TO_DO
    return gettext("Your own server: %(host)s.", host=setup.server.host), DONE


def _recipients(setup: TenantSetup) -> tuple[str, str]:
    if not setup.addresses:
        return gettext("The people who receive notifications."), TO_DO
    return _some_of(setup.addresses), DONE


def _some_of(emails: Sequence[str]) -> str:
    first, others = emails[0], len(emails) - 1
    return gettext("%(address)s and %(count)s more.", address=first, count=others) if others else f"{first}."


def _events(setup: TenantSetup) -> tuple[str, str]:
    if not setup.events_on:
        return gettext("The events that send email."), TO_DO
    return gettext("%(on)s of %(all)s are on.", on=setup.events_on, all=setup.events), DONE


def _key(setup: TenantSetup) -> tuple[str, str]:
    real_event = select(RecordedEvent.id).where(~RecordedEvent.is_sample).limit(1)
    if any(key.last_used_at for key in setup.keys) or db.session.scalar(real_event):
        return gettext("The first event has arrived."), DONE
    if not setup.keys:
        return gettext("The key your PBX uses to report events."), TO_DO
    return gettext("Key “%(name)s” was issued. Waiting for the first event.", name=setup.keys[0].name), WAITING


def tenant_setup(tenant: Tenant) -> TenantSetup:
    """Return the setup of the tenant in scope."""
    enabled = [setting for setting in settings.settings_by_type(EVENT_TYPES).values() if setting.enabled]
    live = [key for key in api_keys.list_keys(tenant) if key.is_valid]
    server = mail_server_service.effective_server(tenant.id)
    mailbox, addresses = oauth_service.status(server), recipients.list_emails()
    return TenantSetup(server, mailbox, addresses, len(enabled), len(EVENT_TYPES), live)
