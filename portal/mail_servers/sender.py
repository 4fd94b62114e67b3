"""Who a mail is from: the mail server's "Sender email", and the name and Reply-To of whose mail it is."""

from portal.extensions import db
from portal.mail_servers.composing import Sender
from portal.tenants.models import Tenant
from portal.ui import PRODUCT


def sender(tenant: Tenant | None, sender_email: str) -> Sender:
    """Return the sender of a tenant's mail, or of the portal's own for None, through a server with this address."""
    if tenant is None:
        return Sender(sender_email, PRODUCT)
    return Sender(sender_email, tenant.mail_name, tenant.reply_to)


def save(tenant: Tenant, reply_to: str) -> None:
    """Keep where answers go; empty: to the From address."""
    tenant.reply_to = reply_to or None
    db.session.commit()
