"""Sending a sample event: it goes the way of a real one, and takes no part in storms."""

from flask_babel import gettext

from portal.accounts.models import Account
from portal.audit.entries import note
from portal.deliveries import circumstances
from portal.deliveries.accept import accept
from portal.deliveries.reports import EventReport
from portal.errors import Refusal
from portal.extensions import db
from portal.mail_servers import sending
from portal.notifications.kinds import EventKind
from portal.notifications.samples import sample
from portal.tenants.models import Tenant


def send(tenant: Tenant, kind: EventKind, asker: Account) -> EventReport | Refusal:
    """Record a sample for the tenant in scope, send its mails, and return what became of them.

    They go to whom the mails of a real one go, except that the account stands in for a new user.
    """
    # Each sample holds a thread of the process, for as long as the mail server likes within the budget.
    with sending.the_only_one(("sample", tenant.id)) as alone:
        if not alone:
            text = gettext("Another sample is still on its way. Wait until it has arrived, then try again.")
            return Refusal("sample", text)
        note("event.sample_sent", kind.type, tenant_id=tenant.id)
        db.session.commit()
        report = accept(circumstances.find(tenant.id, kind.type), sample(tenant, kind, asker.email))
        assert isinstance(report, EventReport)  # its id is new, so nothing has it already
        return report
