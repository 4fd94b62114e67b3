"""Samples of events: what a person has sent to see the whole way at work, marked so that nobody takes it for real."""

import json
import re
from datetime import UTC, datetime

from portal.mail_servers.composing import Words
from portal.notifications.events import Event
from portal.notifications.kinds import EventKind, UserCreated
from portal.tenants.models import Tenant

PREFIX = "[Sample] "
LINE = "This is a sample. Nothing happened: somebody pressed “Send a sample event” in the portal."

_BODY = re.compile(r"<body\b[^>]*>", re.IGNORECASE)
_BANNER = (
    '<p style="margin:0;padding:12px 16px;background:#fcf2da;color:#7d5200;font:600 14px/1.5 Arial,sans-serif;'
    f'text-align:center">{LINE}</p>'
)


def sample(tenant: Tenant, kind: EventKind, asker: str) -> Event:
    """Return the kind's sample as an event of this moment. Who asks for it stands in for the user that it is about."""
    now = datetime.now(UTC)
    data = kind.sample_data(now)
    if isinstance(data, UserCreated):
        data = data.model_copy(update={"email": asker, "sip_domain": tenant.domain})
    canonical = json.dumps(data.public() | data.secrets(), sort_keys=True)
    return Event(None, kind, None, now, data, canonical, sample=True)


def marked(words: Words) -> Words:
    """Return a sample's words so that they say what it is, first of all: in the subject, the text and the HTML."""
    html, bodies = _BODY.subn(lambda body: body[0] + _BANNER, words.html, count=1)
    with_html = html if bodies else _BANNER + words.html
    return Words(PREFIX + words.subject, f"{LINE}\n\n{words.text}", with_html if words.html else "")
