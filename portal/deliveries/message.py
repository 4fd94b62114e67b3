"""From a recorded email to a message that can be sent: content, QR code, sender, Message-ID."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from urllib.parse import quote, urlencode
from uuid import UUID

from portal import config
from portal.deliveries.context import EventContext
from portal.deliveries.models import AnyDelivery, unfinished_recipients
from portal.deliveries.report import RecipientResult, recipient_result
from portal.deliveries.schedule import Route
from portal.deliveries.status import HoldReason
from portal.events.parsing import Event
from portal.events.samples import mark_as_sample
from portal.events.storm_digest import StormDigest
from portal.events.types import UserCreated
from portal.mail_servers.smtp.mime import InlineImage, MimeMessage
from portal.mail_templates import source
from portal.mail_templates.compiler import qr_code_value, render_message
from portal.mail_templates.placeholders import MailContext
from portal.notifications import recipient_links
from portal.notifications.recipient_links import ANY_RECIPIENT
from portal.notifications.settings import Audience
from portal.provisioning import qr, tokens
from portal.provisioning.sip_account import SipAccount
from portal.tenants.models import Tenant

QR_CODE_CONTENT_ID: Final = "qr-code"
LIST_NAME: Final = "notifications"  # before the tenant's domain in List-Id


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """An email on its way: all that an attempt needs, without the database.

    `recipients` are those of this attempt; `other_results` are the results for the rest. `hold_reason` is why the email
    is held for one of the rest.
    """

    tenant_id: int
    event_id: UUID
    delivery_id: UUID
    message_id: str
    recipients: tuple[str, ...]
    other_results: tuple[RecipientResult, ...]
    hold_reason: HoldReason | None
    attempts: int
    expires_at: datetime
    has_secrets: bool
    route: Route
    message: MimeMessage


def build_message(context: EventContext, event: Event, delivery: AnyDelivery, route: Route) -> OutgoingMessage:
    """Return the message of an email that has a lease.

    The provisioning token of a welcome email is written in the session's transaction, which the caller commits.
    """
    recipients = unfinished_recipients(delivery)
    return OutgoingMessage(
        tenant_id=context.tenant.id,
        event_id=delivery.event_id,
        delivery_id=delivery.id,
        message_id=delivery.message_id,
        recipients=tuple(recipient.email for recipient in recipients),
        other_results=tuple(
            recipient_result(recipient) for recipient in delivery.recipients if recipient not in recipients
        ),
        hold_reason=HoldReason(delivery.reason) if delivery.reason else None,
        attempts=delivery.attempts,
        expires_at=delivery.expires_at,
        has_secrets=bool(event.data.secret_names()),
        route=route,
        message=_mime_message(context, event, delivery, route),
    )


def _mime_message(context: EventContext, event: Event, delivery: AnyDelivery, route: Route) -> MimeMessage:
    """Return the email. Its To header names all recipients, also in an attempt for some of them."""
    # A digest depends on the setting of the events that it lists, but has its own content.
    tenant, version = context.tenant, None if event.data.uses_setting_of else context.setting.template_id
    mail_context = replace(MailContext.for_tenant(tenant), event_url=_event_url(tenant, event, delivery))
    if isinstance(event.data, UserCreated) and event.data.language and not version and _is_to_user(delivery):
        mail_context = replace(mail_context, language=event.data.language)
    qr_code, images = None, []
    if isinstance(event.data, UserCreated) and event.data.extension_password:
        url = qr.provisioning_url(tokens.SAMPLE if event.sample else _provisioning_token(tenant, event.data, delivery))
        qr_code = qr_code_value(f"cid:{QR_CODE_CONTENT_ID}", url, mail_context.language, mail_context.branding)
        images = [InlineImage(QR_CODE_CONTENT_ID, "qr-code.png", qr.qr_code_png(url))]
    template = source.compiled_version(version, event.event_type, mail_context.language)
    to = [recipient.email for recipient in delivery.recipients]
    is_personal, settings_url = len(to) == 1, ""
    if delivery.audience == Audience.RECIPIENTS:
        settings_url = recipient_links.new_url(tenant.id, to[0] if is_personal else ANY_RECIPIENT)
    content = render_message(event.event_type, event.data, event.time, mail_context, qr_code, template, settings_url)
    if event.sample:
        content = mark_as_sample(content)
    to_name = ""
    if isinstance(event.data, UserCreated) and _is_to_user(delivery):
        to_name = event.data.display_name or ""
    return MimeMessage(
        content,
        route.sender,
        to,
        message_id=delivery.message_id,
        date=event.time,
        images=images,
        recipient_name=to_name,
        list_id=f"{LIST_NAME}.{tenant.domain}",
        unsubscribe_url=f"{settings_url}/unsubscribe" if settings_url else None,
        is_personal=is_personal,
    )


def _is_to_user(delivery: AnyDelivery) -> bool:
    return delivery.audience == Audience.USER


def _event_url(tenant: Tenant, event: Event, delivery: AnyDelivery) -> str:
    """Return the URL of the event's page, of the events in a digest, or nothing for a new user, who cannot sign in."""
    if _is_to_user(delivery):
        return ""
    log_url = f"{config.current().portal_url}/tenants/{quote(tenant.domain)}/deliveries"
    if isinstance(event.data, StormDigest):
        return f"{log_url}?{urlencode(event.data.log_parameters(tenant.time_zone))}"
    return f"{log_url}/{delivery.event_id}"


def _provisioning_token(tenant: Tenant, user: UserCreated, delivery: AnyDelivery) -> str:
    sip_account = SipAccount.of(user, tenant.domain, tenant.realm)
    return tokens.issue(tenant.id, sip_account, delivery.expires_at, delivery.event_id, delivery.audience)
