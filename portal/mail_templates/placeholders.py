"""The values of a template's placeholders for an event, and what each placeholder means."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flask_babel import gettext
from pydantic import BaseModel

from portal import config
from portal.events.event_type import EventType
from portal.events.values import (
    Value,
    ValueContext,
    Values,
    copyable,
    format_date_time,
    link,
    placeholders_by_field,
    plain_text,
)
from portal.mail_templates.branding import DEFAULT_BRANDING, Branding
from portal.mail_templates.markdown import EVENT_URL
from portal.mail_templates.placement import QR_CODE
from portal.tenants.models import Tenant
from portal.web.i18n import to_translate, translated


@dataclass(frozen=True, slots=True)
class MailContext:
    """What emails need to know about their tenant."""

    tenant_name: str
    tenant_domain: str
    time_zone: str
    language: str = "en"
    pbx_web_domain: str = ""
    reply_to: str = ""
    branding: Branding = DEFAULT_BRANDING

    @classmethod
    def for_tenant(cls, tenant: Tenant) -> "MailContext":
        """Return the context of this tenant's emails."""
        return cls(
            tenant_name=tenant.display_name,
            tenant_domain=tenant.domain,
            time_zone=tenant.time_zone,
            language=tenant.language,
            pbx_web_domain=config.current().pbx_web_domain,
            reply_to=tenant.reply_to or "",
            branding=Branding(tenant.brand_color, tenant.email_footer),
        )


def tenant_values(context: MailContext) -> dict[str, Value]:
    """Return the values that are the same in each email of a tenant, unless an event carries its own."""
    values: dict[str, Value] = {
        "TENANT_NAME": context.tenant_name,
        "DOMAIN": copyable(context.tenant_domain),
        "PBX_WEB_DOMAIN": copyable(context.pbx_web_domain),
    }
    if context.reply_to:
        values["REPLY_TO"] = link(f"mailto:{context.reply_to}", context.reply_to)
    return values


def placeholder_values(data: BaseModel, time: datetime, context: MailContext, event_url: str = "") -> dict[str, Value]:
    """Return the value of each placeholder in an email about the event, without those that have none."""
    return {**tenant_values(context), **event_values(data, time, context, event_url)}


def event_values(data: BaseModel, time: datetime, context: MailContext, event_url: str = "") -> dict[str, Value]:
    """Return the values that an event has, those of `tenant_values` apart.

    The URL of the event in the portal is empty in an email to someone without access.
    """
    value_context = ValueContext(data, time, context.time_zone, context.language)
    values: dict[str, Value] = {"DATE_TIME": format_date_time(time, value_context)}
    if event_url:
        values[EVENT_URL] = link(event_url, event_url)
    placeholders = placeholders_by_field(type(data))
    for field, placeholder in placeholders.items():
        value = getattr(data, field)
        if value is not None:
            values[placeholder.name] = placeholder.format(value, value_context)
        elif placeholder.unknown:
            values[placeholder.name] = translated(context.language, placeholder.unknown)
    for placeholder in placeholders.values():
        fallbacks = [values[name] for name in placeholder.fallbacks if name in values]
        if placeholder.name not in values and fallbacks:
            values[placeholder.name] = fallbacks[0]
    return values


COMMON_MEANINGS = {
    "TENANT_NAME": to_translate("Your company's name"),
    "DOMAIN": to_translate("The PBX domain"),
    "PBX_WEB_DOMAIN": to_translate("The address of the PBX's own web portal"),
    "DATE_TIME": to_translate("When it happened"),
    "REPLY_TO": to_translate("The email address that replies go to"),
    EVENT_URL: to_translate("The URL of the event's page in this portal, to be used as a link"),
    QR_CODE: to_translate("The QR code for setting up a phone, with a button"),
}
# By the field that fills in the placeholder. Other fields are described by their name.
FIELD_MEANINGS = {
    "extension_number": to_translate("The user's extension"),
    "extension_password": to_translate("The extension's password"),
    "user_name": to_translate("The username for the PBX's web pages"),
    "user_password": to_translate("The password for the PBX's web pages"),
    "display_name": to_translate("The user's name"),
    "voicemail_pin": to_translate("The voicemail PIN"),
    "sip_domain": to_translate("The PBX domain"),
    "login_ip": to_translate("The IP address at which a phone registers"),
    "private_ip": to_translate("The IP address at which a phone inside your network registers"),
    "udp_port": to_translate("The port for UDP"),
    "tcp_port": to_translate("The port for TCP"),
    "tls_port": to_translate("The port for TLS"),
    "queue_number": to_translate("The queue's number"),
    "queue_name": to_translate("The queue's name, or its number if it has none"),
    "caller_number": to_translate("The caller's number"),
    "caller_name": to_translate("The caller's name"),
    "sla_seconds": to_translate("The queue's SLA threshold"),
    "waited_seconds": to_translate("How long the caller waited"),
    "callers_waiting": to_translate("How many callers are waiting"),
    "callers_breached": to_translate("How many have waited too long"),
    "callback_number": to_translate("The number to call back"),
    "requested_at": to_translate("How long ago the callback was requested"),
    "agent_extension": to_translate("The agent's extension"),
    "attempts": to_translate("The number of attempts"),
    "attempt": to_translate("The number of this attempt"),
    "reason": to_translate("The reason"),
    "position": to_translate("The caller's position in the queue"),
}


@dataclass(frozen=True, slots=True)
class PlaceholderHelp:
    """A placeholder that a template may use; `sample` is empty if the sample event has no value for it."""

    name: str
    meaning: str
    sample: str


def placeholder_help(event_type: EventType, sample: Values) -> Sequence[PlaceholderHelp]:
    """Return the placeholders of an event type in the order of its fields, then the common ones, with sample values."""
    fields = placeholders_by_field(event_type.fields)
    own = {fields[field].name: FIELD_MEANINGS.get(field, field.replace("_", " ").capitalize()) for field in fields}
    meanings, samples = COMMON_MEANINGS | own, {**sample, QR_CODE: gettext("an image")}
    own_before_common = sorted(event_type.placeholders, key=lambda name: name in COMMON_MEANINGS)
    return [
        PlaceholderHelp(name, gettext(meanings[name]), plain_text(samples.get(name, ""))) for name in own_before_common
    ]
