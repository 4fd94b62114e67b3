"""Whether email works, for a tenant and for the system, and whether the workers keep up."""

from collections.abc import Iterator
from typing import NamedTuple

from flask_babel import gettext, ngettext

from portal.alerts.conditions import MAX_COUNT, find, overdue
from portal.alerts.texts import capped_number
from portal.deliveries import recent
from portal.deliveries.recent import LastResult
from portal.deliveries.status import Status
from portal.mail_servers import service as mail_server_service
from portal.mail_servers.models import MailServer
from portal.mail_servers.oauth import service as oauth_service
from portal.mail_servers.service import MailServerStatus
from portal.overview.alerts import Alert, condition_alerts
from portal.pbx import rejections
from portal.tenants.models import Tenant


def system_alerts() -> Iterator[Alert]:
    """Yield the alerts for the system administrator."""
    yield from condition_alerts(find(None).conditions, None)
    if count := overdue():
        sentence = ngettext(
            "%(number)s email is overdue by more than 5 minutes: the workers are not keeping up.",
            "%(number)s emails are overdue by more than 5 minutes: the workers are not keeping up.",
            count,
            number=capped_number(count, MAX_COUNT),
        )
        yield Alert("bad", sentence)
    if count := rejections.count_recent(None):
        sentence = ngettext(
            "%(number)s request was rejected in the last 7 days (system key or no valid key).",
            "%(number)s requests were rejected in the last 7 days (system key or no valid key).",
            count,
            number=capped_number(count, MAX_COUNT),
        )
        anchor = {"_anchor": "rejected-requests"}
        yield Alert("warn", sentence, gettext("View details"), "system_api_keys.list_keys", anchor)


class EmailHealth(NamedTuple):
    """Whether email is sent, through which server, and the last results.

    `tone` and `symbol` choose the page's colour and icon.
    """

    tone: str
    symbol: str
    headline: str
    server: MailServerStatus
    success: LastResult | None = None
    failure: LastResult | None = None

    @property
    def is_unused(self) -> bool:
        """Whether the mail server works and no email has been attempted yet."""
        return self.server.state == "working" and self.success is None and self.failure is None


def tenant_email_health(tenant: Tenant) -> EmailHealth:
    """Return the email health of the tenant in scope."""
    server = mail_server_service.effective_server(tenant.id)
    used = mail_server_service.server_status(server)
    success, failure = recent.last_success(), recent.last_failure()
    results = [result for result in (success, failure) if result and result.mail_server_label == used.label]
    last = max(results, key=lambda result: result.at, default=None)
    state = _state(used, server)
    shown = _headline(state, last, is_unused=not (success or failure))
    if tenant.is_suspended and used.state != "none":
        shown = "warn", "held", gettext("Email is off: tenant suspended")
    return EmailHealth(*shown, used, success, failure)


def system_email_health() -> tuple[EmailHealth, MailServer | None]:
    """Return the email health of the system, and its mail server."""
    server = mail_server_service.get_server(None)
    used = mail_server_service.server_status(server)
    if server is None:
        shown = "warn", "warning", gettext("No system mail server")
    else:
        state = _state(used, server)
        shown = _headline(state, None, is_unused=False)
        if state == "working":
            shown = "good", "sent", shown[2]
    return EmailHealth(*shown, used), server


def _state(used: MailServerStatus, server: MailServer | None) -> str:
    """Return the mail server's state, which is "rejected" too while no mailbox is connected to it."""
    connection = oauth_service.status(server)
    return "rejected" if connection and connection.problem else used.state


def _headline(state: str, last: LastResult | None, *, is_unused: bool) -> tuple[str, str, str]:
    """Return the tone, the symbol and the headline; `last` is the last result through the current mail server."""
    if state != "working":
        return {
            "none": ("warn", "warning", gettext("Email cannot be sent")),
            "rejected": ("bad", "failed", gettext("Email is not being sent")),
            "paused": ("warn", "held", gettext("Email is delayed")),
        }[state]
    if last and last.status is not Status.SENT:
        return "warn", "warning", gettext("The last email failed")
    if last:
        return "good", "sent", gettext("Email is working")
    return "info", "info", gettext("Ready: no email sent yet") if is_unused else gettext("Mail server is ready")
