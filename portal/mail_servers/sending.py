"""Sending one mail through a mail server, in the name of this portal."""

from collections.abc import Sequence

from portal import config
from portal.mail_servers import connection
from portal.mail_servers.composing import MimeMessage
from portal.mail_servers.connection import STANDARD_BUDGET, Budget, SendResult, SmtpSettings


def submit(
    settings: SmtpSettings,
    message: MimeMessage,
    sender: str,
    recipients: Sequence[str],
    budget: Budget = STANDARD_BUDGET,
) -> SendResult:
    """Return what the mail server said to each recipient, within the budget of time."""
    own = config.current()
    return connection.send(settings, message, sender, recipients, budget, helo_name=own.host, ca_file=own.mail_ca_file)
