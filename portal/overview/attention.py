"""What needs a tenant administrator's attention: each concern is a sentence with its number, and where it is mended."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from portal.deliveries import unsent
from portal.deliveries.states import Reason, Status
from portal.overview.setup import Setup
from portal.pbx import keys, rejections
from portal.pbx.models import PbxKey
from portal.tenants.models import Tenant

EXPIRES_SOON: Final = timedelta(days=14)
SILENT_AFTER: Final = timedelta(days=7)
SETTINGS: Final = "mail_servers.edit"
RECIPIENTS: Final = "recipients.edit"


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
    Reason.NO_MAIL_SERVER: ("there is no mail server", "Set one up", SETTINGS, {}),
    Reason.NO_RECIPIENTS: ("there is nobody to send to", "Look at them", "deliveries.log", {"outcome": "held"}),
    Reason.MAIL_SERVER_REJECTED: ("the mail server rejects the settings", "Check them", SETTINGS, {}),
    Reason.MAY_HAVE_BEEN_SENT: ("nobody confirmed them", "Decide", "deliveries.log", {"outcome": "held"}),
    Reason.THROTTLED: ("there were too many at once", "Look at them", "deliveries.log", {"outcome": "held"}),
    Reason.NO_RECIPIENT_WANTS_IT: ("no recipient gets them just now", "Choose who does", RECIPIENTS, {}),
    Reason.SWITCHED_OFF: ("their event is switched off", "Switch it on", "notifications.edit", {}),
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


def number(count: int, what: str, one: str = "is", several: str = "are") -> str:
    """Return "1 mail is" or "1,204 mails are"; beyond what is counted, "more than …"."""
    told = f"More than {count:,}" if count >= unsent.MOST else f"{count:,}"
    return f"{told} {what} {one}" if count == 1 else f"{told} {what}s {several}"


def _suspended(tenant: Tenant, held: Mapping[Reason, int]) -> Iterator[Concern]:
    if tenant.is_suspended:
        count = held.get(Reason.TENANT_SUSPENDED, 0)
        told = f" {number(count, 'mail')} held." if count else ""
        yield Concern("warn", f"The tenant is suspended: events are recorded, and no mail is sent.{told}")


def _missing(setup: Setup, held: Mapping[Reason, int]) -> Iterator[Concern]:
    if setup.server is None and Reason.NO_MAIL_SERVER not in held:
        yield Concern("bad", "There is no mail server.", "Set one up", SETTINGS)
    if not setup.addresses and Reason.NO_RECIPIENTS not in held:
        yield Concern("bad", "There are no recipients.", "Enter them", RECIPIENTS)
    if not setup.events_on:
        yield Concern("bad", "No event is switched on, so none sends mail.", "Switch some on", "notifications.edit")
    if not setup.keys and not any(key.is_live for key in keys.of_owner(None)):
        yield Concern("bad", "There is no live PBX key, so no event can arrive.", "Connect a PBX", "integrate.show")


def _held(setup: Setup, held: Mapping[Reason, int]) -> Iterator[Concern]:
    for reason, (why, link, endpoint, place) in HELD.items():
        if reason not in held:
            continue
        if reason is Reason.NO_RECIPIENTS and not setup.addresses:
            link, endpoint, place = "Enter recipients", RECIPIENTS, {}
        yield Concern("warn", f"{number(held[reason], 'mail')} held: {why}.", link, endpoint, place)


def _undelivered() -> Iterator[Concern]:
    for status, count in unsent.undelivered().items():
        if count:
            words = ("has failed", "have failed") if status is Status.FAILED else ("has expired", "have expired")
            text = f"{number(count, 'mail', *words)} in the last 24 hours."
            yield Concern("bad", text, "See why", "deliveries.log", {"outcome": str(status)})


def _unused(setup: Setup) -> Iterator[Concern]:
    silent_since = max((key.last_used_at for key in setup.keys if key.last_used_at), default=None)
    if silent_since and datetime.now(UTC) - silent_since > SILENT_AFTER:
        days = (datetime.now(UTC) - silent_since).days
        yield Concern("warn", f"The PBX has not called for {days} days.", "Look at its keys", "pbx.keys")
    for key in setup.keys:
        if key.last_used_at is None:
            yield Concern("info", f"Key “{key.name}” has never been used.", "Connect the PBX", "integrate.show")


def _expiring(setup: Setup) -> Iterator[Concern]:
    now = datetime.now(UTC)
    for key in setup.keys:
        if key.expires_at and key.expires_at - now <= EXPIRES_SOON and not _has_successor(key, setup.keys):
            left = (key.expires_at - now).days
            when = {0: "today", 1: "tomorrow"}.get(left, f"in {left} days")
            yield Concern("warn", f"Key “{key.name}” expires {when}.", "Rotate it", "pbx.keys")


def _has_successor(key: PbxKey, live: Sequence[PbxKey]) -> bool:
    return any(
        each.name == key.name and (each.expires_at is None or each.expires_at > (key.expires_at or each.expires_at))
        for each in live
        if each is not key
    )


def _rejected(tenant: Tenant) -> Iterator[Concern]:
    total = rejections.total(tenant)
    if total:
        text = f"{number(total, 'call', 'was', 'were')} rejected in the last 7 days."
        yield Concern("warn", text, "See why", "pbx.keys", {"_anchor": "rejected"})
