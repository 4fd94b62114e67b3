"""Is mail working: one line that is read from across the room, and what it rests on."""

from dataclasses import dataclass
from datetime import datetime

from flask_babel import gettext

from portal.deliveries import lately
from portal.deliveries.lately import Failure, Success
from portal.mail_servers import selection, status
from portal.mail_servers.models import MailServer
from portal.tenants.models import Tenant


@dataclass(frozen=True, slots=True)
class MailState:
    """Whether mail goes out, and through which server. `tone` and `symbol` are the page's; `reason` is the server's."""

    tone: str
    symbol: str
    headline: str
    server: str = ""
    is_system: bool = False
    state: str = "none"
    reason: str = ""
    paused_until: datetime | None = None
    success: Success | None = None
    failure: Failure | None = None

    @property
    def is_first(self) -> bool:
        """Whether no mail has been tried yet, although it could be."""
        return self.state == "working" and self.success is None and self.failure is None


def of_tenant(tenant: Tenant) -> MailState:
    """Return the state of the mail of the tenant in scope."""
    used = status.of_tenant(tenant)
    success, failure = lately.last_success(), lately.last_failure()
    through = [told for told in (success, failure) if told and told.mail_server == used.label]
    last = max(through, key=lambda told: told.at, default=None)
    tone, symbol, headline = _headline(used.state, last, is_first=not (success or failure))
    if tenant.is_suspended and used.state != "none":
        tone, symbol, headline = "warn", "held", gettext("No mail goes out: suspended")
    return MailState(
        tone, symbol, headline, used.host, used.is_system, used.state, used.reason, used.paused_until, success, failure
    )


def of_system() -> tuple[MailState, MailServer | None]:
    """Return the state of the system's mail server, and the server itself."""
    server = selection.of_owner(None)
    if server is None:
        return MailState("warn", "warning", gettext("No system mail server")), None
    used = status.of_server(server)
    tone, symbol, headline = (
        _headline(used.state, None, is_first=False)
        if used.state != "working"
        else ("good", "sent", gettext("Mail server is ready"))
    )
    shown = MailState(tone, symbol, headline, used.host, True, used.state, used.reason, used.paused_until)
    return shown, server


def _headline(state: str, last: Success | Failure | None, *, is_first: bool) -> tuple[str, str, str]:
    """Return the tone, the symbol and the words; `last` is the last mail through the mail server that is used now."""
    if state != "working":
        return {
            "none": ("warn", "warning", gettext("No mail can be sent")),
            "rejected": ("bad", "failed", gettext("Mail does not go out")),
            "paused": ("warn", "held", gettext("Mail waits")),
        }[state]
    if isinstance(last, Failure):
        return "warn", "warning", gettext("The last mail failed")
    if last:
        return "good", "sent", gettext("Mail is working")
    return "info", "info", gettext("Ready: no mail sent yet") if is_first else gettext("Mail server is ready")
