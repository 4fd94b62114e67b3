"""Sample events: processed like real ones to test the whole path, and clearly marked as samples."""

import json
import re

from portal.database import clock
from portal.events.event_type import EventType
from portal.events.parsing import Event
from portal.events.types import UserCreated
from portal.mail_servers.smtp.mime import MessageContent, quoted_printable
from portal.tenants.models import Tenant

SUBJECT_PREFIX = "[Sample] "
SAMPLE_NOTICE = "This is a sample. Nothing happened: someone pressed “Send a sample event” in the portal."

_BODY_TAG = re.compile(r"<body\b[^<>]*>", re.IGNORECASE)
_BANNER = (
    '<p style="margin:0;padding:12px 16px;background:#fcf2da;color:#7d5200;font:600 14px/1.5 Arial,sans-serif;'
    f'text-align:center">{SAMPLE_NOTICE}</p>'
)


def sample_event(tenant: Tenant, event_type: EventType, requester_email: str) -> Event:
    """Return a sample event of this type, which happens now. If it is about a user, the requester takes their place."""
    now = clock.now()
    data = event_type.sample_data(now)
    if isinstance(data, UserCreated):
        data = data.model_copy(update={"email": requester_email, "sip_domain": tenant.domain, "language": None})
    canonical = json.dumps(data.public_fields() | data.secret_fields(), sort_keys=True)
    return Event(None, event_type, None, now, data, canonical, sample=True)


def mark_as_sample(content: MessageContent) -> MessageContent:
    """Return the content with a notice in the subject and at the top of text and HTML that it is a sample."""
    html, bodies = _BODY_TAG.subn(lambda body: body[0] + _BANNER, content.html, count=1)
    if html and not bodies:
        html = _BANNER + html
    text = f"{SAMPLE_NOTICE}\n\n{content.text}"
    return content._replace(subject=SUBJECT_PREFIX + content.subject, text=text, encoded_html=quoted_printable(html))
