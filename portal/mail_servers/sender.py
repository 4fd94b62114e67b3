"""Who a mail is from: the mail server's "Sender email", and the name and Reply-To of whose mail it is."""

from portal.extensions import db
from portal.mail_servers.composing import Sender
from portal.tenants.models import Tenant
from portal.ui import PRODUCT


def sender(tenant: Tenant | None, sender_email: str) -> Sender:
    """Return the sender of a tenant's mail, or of the portal's own for None, through a server with this address."""
    if tenant is None:
        return Sender(sender_email, PRODUCT)
    return Sender(sender_email, tenant.sender_name or tenant.name, tenant.reply_to)


def save(tenant: Tenant, sender_name: str, reply_to: str) -> None:
    """Keep the name beside the From address, and where answers go; empty: the tenant's name, and the From address."""
    tenant.sender_name, tenant.reply_to = sender_name or None, reply_to or None
    db.session.commit()
