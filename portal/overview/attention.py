"""What needs a tenant administrator's attention: each concern is a sentence with its number, and where it is mended."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from flask_babel import gettext, ngettext

from portal.deliveries import unsent
from portal.deliveries.states import Reason, Status
from portal.languages import to_translate
from portal.overview.setup import Setup
from portal.pbx import keys, rejections
from portal.pbx.models import PbxKey
from portal.tenants.models import Tenant
from portal.ui import decimal

EXPIRES_SOON: Final = timedelta(days=14)
SILENT_AFTER: Final = timedelta(days=7)
SETTINGS: Final = "mail_servers.edit"
RECIPIENTS: Final = "recipients.edit"
EVENTS: Final = "notifications.edit"
LOG: Final = "deliveries.log"


@dataclass(frozen=True, slots=True)
class Concern:
    """A sentence, and the words and the place of its one link: an endpoint, with what its address is made of."""

    tone: str
    text: str
    link: str = ""
    endpoint: str = ""
    place: Mapping[str, str] = field(default_factory=dict)


# Why mail is held, and what to do.
HELD: Final = {
    Reason.NO_MAIL_SERVER: (to_translate("%(held)s: there is no mail server."), to_translate("Set one up"), SETTINGS),
    Reason.NO_RECIPIENTS: (to_translate("%(held)s: there is nobody to send to."), to_translate("Look at them"), LOG),
    Reason.MAIL_SERVER_REJECTED: (
        to_translate("%(held)s: the mail server rejects the settings."),
        to_translate("Check them"),
        SETTINGS,
    ),
    Reason.MAY_HAVE_BEEN_SENT: (to_translate("%(held)s: nobody confirmed them."), to_translate("Decide"), LOG),
    Reason.THROTTLED: (to_translate("%(held)s: there were too many at once."), to_translate("Look at them"), LOG),
    Reason.NO_RECIPIENT_WANTS_IT: (
        to_translate("%(held)s: no recipient gets them just now."),
        to_translate("Choose who does"),
        RECIPIENTS,
    ),
    Reason.SWITCHED_OFF: (to_translate("%(held)s: their event is switched off."), to_translate("Switch it on"), EVENTS),
}


def of_tenant(tenant: Tenant, setup: Setup, *, is_new: bool) -> Sequence[Concern]:
    """Return the concerns of the tenant in scope, those that stop mail first. The first steps tell what is missing."""
    held = unsent.held_by_reason()
    concerns = [*_suspended(tenant, held)]
    if not is_new:
        concerns += _missing(setup, held)
    concerns += [*_held(setup, held), *_undelivered()]
    if not is_new:
        concerns += _unused(setup)
    return [*concerns, *_expiring(setup), *_rejected(tenant)]


def number(count: int) -> str:
    """Return "1" or "1,204"; beyond what is counted, "More than …"."""
    return gettext("More than %(count)s", count=decimal(count)) if count >= unsent.MOST else decimal(count)


def held_mails(count: int) -> str:
    """Return "2 mails are held.", a sentence of its own."""
    return ngettext("%(number)s mail is held.", "%(number)s mails are held.", count, number=number(count))


def _suspended(tenant: Tenant, held: Mapping[Reason, int]) -> Iterator[Concern]:
    if tenant.is_suspended:
        count = held.get(Reason.TENANT_SUSPENDED, 0)
        text = gettext("The tenant is suspended: events are recorded, and no mail is sent.")
        yield Concern("warn", f"{text} {held_mails(count)}" if count else text)


def _missing(setup: Setup, held: Mapping[Reason, int]) -> Iterator[Concern]:
    if setup.server is None and Reason.NO_MAIL_SERVER not in held:
        yield Concern("bad", gettext("There is no mail server."), gettext("Set one up"), SETTINGS)
    if not setup.addresses and Reason.NO_RECIPIENTS not in held:
        yield Concern("bad", gettext("There are no recipients."), gettext("Enter them"), RECIPIENTS)
    if not setup.events_on:
        text = gettext("No event is switched on, so none sends mail.")
        yield Concern("bad", text, gettext("Switch some on"), EVENTS)
    if not setup.keys and not any(key.is_live for key in keys.of_owner(None)):
        text = gettext("There is no live PBX key, so no event can arrive.")
        yield Concern("bad", text, gettext("Connect a PBX"), "integrate.show")


def _held(setup: Setup, held: Mapping[Reason, int]) -> Iterator[Concern]:
    for reason, (sentence, link, endpoint) in HELD.items():
        if reason not in held:
            continue
        if reason is Reason.NO_RECIPIENTS and not setup.addresses:
            link, endpoint = to_translate("Enter recipients"), RECIPIENTS
        count = held[reason]
        mails = ngettext("%(number)s mail is held", "%(number)s mails are held", count, number=number(count))
        place = {"outcome": str(Status.HELD)} if endpoint == LOG else {}
        yield Concern("warn", gettext(sentence, held=mails), gettext(link), endpoint, place)


def _undelivered() -> Iterator[Concern]:
    counts = unsent.undelivered()
    failed, expired = counts[Status.FAILED], counts[Status.EXPIRED]
    if failed:
        yield _in_log(
            Status.FAILED,
            ngettext(
                "%(number)s mail has failed in the last 24 hours.",
                "%(number)s mails have failed in the last 24 hours.",
                failed,
                number=number(failed),
            ),
        )
    if expired:
        yield _in_log(
            Status.EXPIRED,
            ngettext(
                "%(number)s mail has expired in the last 24 hours.",
                "%(number)s mails have expired in the last 24 hours.",
                expired,
                number=number(expired),
            ),
        )


def _in_log(status: Status, text: str) -> Concern:
    return Concern("bad", text, gettext("See why"), LOG, {"outcome": str(status)})


def _unused(setup: Setup) -> Iterator[Concern]:
    silent_since = max((key.last_used_at for key in setup.keys if key.last_used_at), default=None)
    if silent_since and datetime.now(UTC) - silent_since > SILENT_AFTER:
        text = gettext("The PBX has not called for %(days)s days.", days=(datetime.now(UTC) - silent_since).days)
        yield Concern("warn", text, gettext("Look at its keys"), "pbx.keys")
    for key in setup.keys:
        if key.last_used_at is None:
            text = gettext("Key “%(name)s” has never been used.", name=key.name)
            yield Concern("info", text, gettext("Connect the PBX"), "integrate.show")


def _expiring(setup: Setup) -> Iterator[Concern]:
    now = datetime.now(UTC)
    for key in setup.keys:
        if key.expires_at and key.expires_at - now <= EXPIRES_SOON and not _has_successor(key, setup.keys):
            text = _expires(key.name, (key.expires_at - now).days)
            yield Concern("warn", text, gettext("Rotate it"), "pbx.keys")


def _expires(name: str, days: int) -> str:
    if days == 0:
        return gettext("Key “%(name)s” expires today.", name=name)
    if days == 1:
        return gettext("Key “%(name)s” expires tomorrow.", name=name)
    return gettext("Key “%(name)s” expires in %(days)s days.", name=name, days=days)


def _has_successor(key: PbxKey, live: Sequence[PbxKey]) -> bool:
    return any(
        each.name == key.name and (each.expires_at is None or each.expires_at > (key.expires_at or each.expires_at))
        for each in live
        if each is not key
    )


def _rejected(tenant: Tenant) -> Iterator[Concern]:
    total = rejections.total(tenant)
    if total:
        text = ngettext(
            "%(number)s call was rejected in the last 7 days.",
            "%(number)s calls were rejected in the last 7 days.",
            total,
            number=number(total),
        )
        yield Concern("warn", text, gettext("See why"), "pbx.keys", {"_anchor": "rejected"})
