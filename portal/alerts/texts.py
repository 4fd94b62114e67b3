"""What people read about an alert: the sentence, what follows from it, and the page where it is fixed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from babel.numbers import format_percent
from flask_babel import gettext, ngettext

from portal.alerts.conditions import CONNECTION, SECRET, AlertKind
from portal.database import clock
from portal.deliveries.status import HoldReason, Status
from portal.mail_servers.oauth.identity_providers import PROVIDERS_BY_KEY
from portal.mail_servers.oauth.service import MailboxStatus
from portal.web.filters import current_locale, decimal
from portal.web.i18n import to_translate

RECIPIENTS: Final = "recipients.edit"
LOG: Final = "deliveries.log"


@dataclass(frozen=True, slots=True)
class AlertText:
    """The text of an alert. `link` is the text of a link to the endpoint, `ended` says that the alert is over."""

    tone: str
    sentence: str
    reason: str = ""
    consequence: str = ""
    ended: str = ""
    link: str = ""
    endpoint: str = ""
    url_values: Mapping[str, str] = field(default_factory=dict)


# For each reason to hold email: the sentence, the link's text and its endpoint.
HELD_TEXTS: Final = {
    HoldReason.NO_MAIL_SERVER: (
        to_translate("%(held)s: no mail server is set up."),
        to_translate("Set up a mail server"),
        "mail_servers.edit",
    ),
    HoldReason.NO_RECIPIENTS: (
        to_translate("%(held)s: there are no recipients."),
        to_translate("Enter recipients"),
        RECIPIENTS,
    ),
    HoldReason.MAIL_SERVER_REJECTED: (
        to_translate("%(held)s: the mail server rejects the settings."),
        to_translate("Check the settings"),
        "mail_servers.edit",
    ),
    HoldReason.MAY_HAVE_BEEN_SENT: (to_translate("%(held)s: possibly sent already."), to_translate("Decide"), LOG),
    HoldReason.THROTTLED: (to_translate("%(held)s: too many at once."), to_translate("View them"), LOG),
    HoldReason.SHARED_SERVER_LIMIT: (
        to_translate("%(held)s: the limit of the shared mail server is reached. They will be sent later."),
        to_translate("View them"),
        LOG,
    ),
    HoldReason.NO_RECIPIENT_WANTS_IT: (
        to_translate("%(held)s: all recipients are paused or have not chosen the event."),
        to_translate("Choose recipients"),
        RECIPIENTS,
    ),
    HoldReason.SWITCHED_OFF: (
        to_translate("%(held)s: the event is off."),
        to_translate("Turn it on"),
        "notifications.edit",
    ),
}


def describe(kind: AlertKind, subject: str, details: Mapping[str, Any], *, is_system: bool) -> AlertText:
    """Return the text of an alert, in the reader's language."""
    return _TEXTS[kind](subject, details, is_system)


def capped_number(count: int, limit: int) -> str:
    """Return "1" or "1,204"; from the limit of counting on, "More than …"."""
    number = decimal(count)
    return gettext("More than %(count)s", count=number) if count >= limit else number


def _mail_server(_subject: str, details: Mapping[str, Any], is_system: bool) -> AlertText:
    host, reason = details["host"], details["reason"]
    if details["state"] == "rejected":
        sentence = gettext("The mail server %(host)s rejects the settings.", host=host)
        consequence = gettext("No email is sent through it until the settings are saved again. Email is held.")
        link = gettext("Check the settings")
    else:
        sentence = gettext("Sending through the mail server %(host)s fails.", host=host)
        consequence = gettext("Email is tried again. It expires after a day, a welcome email after three days.")
        link = gettext("Check the mail server")
    return AlertText(
        "bad",
        sentence,
        gettext(reason) if reason else "",
        consequence,
        gettext("The mail server %(host)s works again, or has new settings.", host=host),
        link,
        "system_mail_server.edit" if is_system else "mail_servers.edit",
    )


def _held(subject: str, details: Mapping[str, Any], _is_system: bool) -> AlertText:
    reason, count = HoldReason(subject), details["count"]
    sentence, link, endpoint = HELD_TEXTS[reason]
    if reason is HoldReason.MAIL_SERVER_REJECTED and not details["connected"]:
        sentence = to_translate("%(held)s: the mailbox is not connected.")
        link, endpoint = to_translate("Sign in again"), "oauth.show"
    number = capped_number(count, details["limit"])
    emails = ngettext("%(number)s email is held", "%(number)s emails are held", count, number=number)
    return AlertText(
        "warn",
        gettext(sentence, held=emails),
        "",
        gettext("Held email expires after a day, a welcome email after three days."),
        gettext("This is over: %(sentence)s", sentence=gettext(sentence, held=emails)),
        gettext(link),
        endpoint,
        {"outcome": str(Status.HELD)} if endpoint == LOG else {},
    )


def _expiry(subject: str, details: Mapping[str, Any], is_system: bool) -> AlertText:
    if subject not in (CONNECTION, SECRET):
        return _expiring_key(details, is_system)
    days_left = _days_until(details["expires_at"]) if subject == SECRET else None
    provider, endpoint = PROVIDERS_BY_KEY[details["provider"]], "system_oauth.show" if is_system else "oauth.show"
    mailbox = MailboxStatus(provider, details["state"], details["mailbox"], days_left=days_left)
    if subject == CONNECTION:
        return AlertText(
            "bad",
            mailbox.problem,
            "",
            gettext("Email is held until somebody signs in again."),
            gettext("The mailbox %(mailbox)s is connected again, or no longer used.", mailbox=mailbox.mailbox),
            gettext("Connect the mailbox") if mailbox.state == "missing" else gettext("Sign in again"),
            endpoint,
        )
    return AlertText(
        "bad" if mailbox.is_urgent else "warn",
        mailbox.warning,
        "",
        gettext("Once it has expired, no email is sent through this mailbox."),
        gettext(
            "The secret or the certificate for %(mailbox)s was renewed, or is no longer used.", mailbox=mailbox.mailbox
        ),
        gettext("Renew it"),
        endpoint,
    )


def _expiring_key(details: Mapping[str, Any], is_system: bool) -> AlertText:
    days, name = _days_until(details["expires_at"]), details["name"]
    if days < 0:
        sentence = gettext("Key “%(name)s” has expired.", name=name)
    elif days == 0:
        sentence = gettext("Key “%(name)s” expires today.", name=name)
    elif days == 1:
        sentence = gettext("Key “%(name)s” expires tomorrow.", name=name)
    else:
        sentence = gettext("Key “%(name)s” expires in %(days)s days.", name=name, days=days)
    return AlertText(
        "warn",
        sentence,
        "",
        gettext("With an expired key the PBX reports no events. Revoke the key if it is not used."),
        gettext("Key “%(name)s” was replaced or revoked.", name=name),
        gettext("View its keys") if days < 0 else gettext("Rotate the key"),
        "system_api_keys.list_keys" if is_system else "api_keys.list_keys",
    )


def _silence(_subject: str, _details: Mapping[str, Any], _is_system: bool) -> AlertText:
    return AlertText(
        "warn",
        gettext("The PBX is silent: in the last weeks it reported events at these hours."),
        "",
        gettext("If calls are lost at the moment, nobody is notified. Check the PBX, its connection and its key."),
        gettext("The PBX reports events again."),
        gettext("Connect the PBX"),
        "connect.show",
    )


def _no_worker(_subject: str, _details: Mapping[str, Any], _is_system: bool) -> AlertText:
    return AlertText(
        "bad",
        gettext("No worker is running, so failed emails are not retried. Start “pbx-portal worker”."),
        "",
        gettext("Held email is not released either, and no summary emails are sent."),
        gettext("A worker is running again."),
        gettext("Overview"),
        "overview.of_system",
    )


def _disk(_subject: str, details: Mapping[str, Any], _is_system: bool) -> AlertText:
    free = format_percent(details["free"], locale=current_locale())
    return AlertText(
        "bad",
        gettext("The database's disk is nearly full: %(free)s of it is free.", free=free),
        "",
        gettext("On a full disk no event can be recorded. Enlarge the disk, or set RETENTION_DAYS lower."),
        gettext("The database's disk has free space again."),
        gettext("Overview"),
        "overview.of_system",
    )


_TEXTS: Final[Mapping[AlertKind, Callable[[str, Mapping[str, Any], bool], AlertText]]] = {
    AlertKind.MAIL_SERVER: _mail_server,
    AlertKind.HELD: _held,
    AlertKind.EXPIRY: _expiry,
    AlertKind.SILENCE: _silence,
    AlertKind.NO_WORKER: _no_worker,
    AlertKind.DISK: _disk,
}
# What the account page calls the kinds.
KIND_LABELS: Final[Mapping[AlertKind, str]] = {
    AlertKind.MAIL_SERVER: to_translate("A mail server rejects its settings or does not work"),
    AlertKind.HELD: to_translate("Emails are held for more than an hour"),
    AlertKind.EXPIRY: to_translate("A key, a connection, a secret or a certificate expires"),
    AlertKind.SILENCE: to_translate("A PBX is silent, where that is turned on"),
    AlertKind.NO_WORKER: to_translate("No worker is running"),
    AlertKind.DISK: to_translate("The database's disk is nearly full"),
}


def _days_until(moment: str) -> int:
    return (datetime.fromisoformat(moment) - clock.now()).days
