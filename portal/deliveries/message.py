"""From a recorded email to a message that can be sent: content, QR code, sender, Message-ID."""

from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlencode

from portal.deliveries.models import IS_LEASED, PendingDelivery
from portal.deliveries.plan import Plan
from portal.events.parsing import Event
from portal.events.samples import mark_as_sample
from portal.events.storm_digest import StormDigest
from portal.events.types import UserCreated
from portal.mail_servers.smtp.mime import InlineImage, MimeMessage
from portal.mail_templates import source
from portal.mail_templates.compiler import qr_code_value, render_message
from portal.notifications import recipient_links
from portal.notifications.recipient_links import ANY_RECIPIENT
from portal.notifications.settings import Audience
from portal.provisioning import qr, tokens
from portal.provisioning.sip_account import SipAccount
from portal.provisioning.tokens import NewToken

QR_CODE_CONTENT_ID: Final = "qr-code"
HAS_LEASE: Final = f"EXISTS (SELECT FROM deliveries WHERE id = %(delivery_id)s::uuid AND {IS_LEASED})"
LIST_NAME: Final = "notifications"  # before the tenant's domain in List-Id


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """An email on its way: all that an attempt needs, without the database."""

    plan: Plan
    delivery: PendingDelivery
    has_secrets: bool
    message: MimeMessage


def new_token(plan: Plan, event: Event, delivery: PendingDelivery) -> NewToken | None:
    """Return the provisioning token of an email that has a lease, for the caller to store. None: it needs none."""
    if not isinstance(event.data, UserCreated) or not event.data.extension_password or event.sample:
        return None
    sip_account = SipAccount.of(event.data, plan.tenant.domain, plan.tenant.realm)
    is_leased = (HAS_LEASE, {"delivery_id": delivery.id})
    return tokens.new(plan.tenant.id, sip_account, delivery.expires_at, delivery.event_id, delivery.audience, is_leased)


def build_message(plan: Plan, event: Event, delivery: PendingDelivery, token: NewToken | None) -> OutgoingMessage:
    """Return the message of an email that has a lease, and of which `new_token` returned the token.

    Its To header names all recipients, also in an attempt for some of them.
    """
    # A digest depends on the setting of the events that it lists, but has its own content.
    tenant, version = plan.tenant, None if event.data.uses_setting_of else plan.setting.template_id
    mail_context = plan.mail_context
    is_to_user, to_name = delivery.audience == Audience.USER, ""
    if isinstance(event.data, UserCreated) and is_to_user:
        to_name = event.data.display_name or ""
        if event.data.language and not version:
            mail_context = replace(mail_context, language=event.data.language)
    qr_code, images = None, []
    if isinstance(event.data, UserCreated) and event.data.extension_password:
        url = qr.provisioning_url(token.token if token else tokens.SAMPLE)
        qr_code = qr_code_value(f"cid:{QR_CODE_CONTENT_ID}", url, mail_context.language, mail_context.branding)
        images = [InlineImage(QR_CODE_CONTENT_ID, "qr-code.png", qr.provisioning_qr_code_png(url))]
    template = source.compiled_version(tenant.id, version, event.event_type, mail_context.language)
    to = [recipient.email for recipient in delivery.recipients]
    is_personal, settings_url = len(to) == 1, ""
    if delivery.audience == Audience.RECIPIENTS:
        settings_url = recipient_links.new_url(tenant.id, to[0] if is_personal else ANY_RECIPIENT)
    event_url = _event_url(plan, event, delivery)
    content = render_message(
        event.event_type, event.data, event.time, mail_context, qr_code, template, settings_url, event_url
    )
    if event.sample:
        content = mark_as_sample(content)
    message = MimeMessage(
        content._replace(images=images),
        plan.sender,
        to,
        message_id=delivery.message_id,
        date=event.time,
        recipient_name=to_name,
        list_id=f"{LIST_NAME}.{tenant.domain}",
        unsubscribe_url=f"{settings_url}/unsubscribe" if settings_url else None,
        is_personal=is_personal,
    )
    return OutgoingMessage(plan, delivery, bool(event.data.secret_names()), message)


def _event_url(plan: Plan, event: Event, delivery: PendingDelivery) -> str:
    """Return the URL of the event's page, of the events in a digest, or nothing for a new user, who cannot sign in."""
    if delivery.audience == Audience.USER:
        return ""
    if isinstance(event.data, StormDigest):
        return f"{plan.log_url}?{urlencode(event.data.log_parameters(plan.tenant.time_zone))}"
    return f"{plan.log_url}/{delivery.event_id}"
