"""From a recorded event to a mail that can be sent: words, QR code, sender, Message-ID."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from portal.deliveries.mail import Mail
from portal.deliveries.reports import RecipientReport
from portal.deliveries.states import Reason
from portal.mail_servers.composing import InlineImage, MimeMessage, Sender, compose
from portal.mail_servers.connection import SmtpSettings
from portal.mail_servers.models import MailServer
from portal.mail_servers.sender import sender
from portal.notifications import wording
from portal.notifications.events import Event
from portal.notifications.kinds import UserCreated
from portal.notifications.placeholders import Context
from portal.notifications.rendering import qr_code, render
from portal.notifications.samples import marked
from portal.provisioning import qr, tokens
from portal.provisioning.lines import Line
from portal.tenants.models import Tenant

QR_CODE = "qr-code"  # the picture's Content-ID


@dataclass(frozen=True, slots=True)
class Route:
    """The mail server that a mail goes through, as it was when the mail was written."""

    server_id: int
    saved_at: datetime
    label: str
    is_system: bool
    settings: SmtpSettings
    sender: Sender

    @classmethod
    def through(cls, server: MailServer, tenant: Tenant) -> "Route":
        """Return the route of the tenant's mail through the server. The From address is always the server's."""
        from_ = sender(tenant, server.sender_email)
        return cls(server.id, server.saved_at, server.label, server.is_system, server.smtp_settings, from_)


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail on its way: what `attempt` needs, without the database.

    `recipients` are those still open; `settled` is what is known of the others.
    """

    tenant_id: int
    event_id: UUID
    delivery_id: UUID
    message_id: str
    recipients: tuple[str, ...]
    settled: tuple[RecipientReport, ...]
    reason: Reason | None  # why one of those settled is held
    attempts: int
    expires_at: datetime
    holds_secrets: bool
    route: Route
    message: MimeMessage


def write(tenant: Tenant, event: Event, delivery: Mail, sender: Sender, template: UUID | None) -> MimeMessage:
    """Return the mail, which names all of its recipients also where only some are still open.

    `template` is the version in use of the tenant's own words, None the default.

    A welcome mail's provisioning token is added to the session, for the caller's commit.
    """
    context = Context.of(tenant)
    picture, images = None, []
    if isinstance(event.data, UserCreated) and event.data.extension_password:
        address = qr.address(tokens.SAMPLE if event.sample else _token(tenant, event.data, delivery))
        picture = qr_code(f"cid:{QR_CODE}", address, context.locale, context.brand)
        images = [InlineImage(QR_CODE, "qr-code.png", qr.png(address))]
    # A digest has the switch of the events that it is about, and words of its own.
    own = None if event.data.switched_by else wording.in_use(template, event.kind, context.locale)
    words = render(event.kind, event.data, event.time, context, picture, own)
    words = marked(words) if event.sample else words
    to = [each.address for each in delivery.recipients]
    return compose(words, sender, to, message_id=delivery.message_id, date=event.time, images=images)


def _token(tenant: Tenant, user: UserCreated, delivery: Mail) -> str:
    return tokens.issue(tenant.id, _line(tenant, user), delivery.expires_at, delivery.event_id, delivery.audience)


def _line(tenant: Tenant, user: UserCreated) -> Line:
    return Line.of(
        username=user.extension_number,
        password=user.extension_password,
        sip_domain=user.sip_domain or tenant.domain,
        login_ip=user.login_ip,
        transport=user.transport,
        udp_port=user.udp_port,
        tcp_port=user.tcp_port,
        tls_port=user.tls_port,
        display_name=user.display_name,
    )
