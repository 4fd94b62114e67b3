"""A tenant's brand, as its administrator sets it."""

from portal.extensions import db
from portal.notifications.colours import DEFAULT
from portal.tenants.models import Tenant


def save(tenant: Tenant, sender_name: str, colour: str, footer: str, locale: str) -> None:
    """Keep how the tenant's mails look. What is empty, and the portal's own colour, stay the portal's to choose."""
    tenant.sender_name = sender_name or None
    tenant.mail_colour = None if colour in ("", DEFAULT) else colour
    tenant.mail_footer = footer or None
    tenant.locale = locale
    db.session.commit()
