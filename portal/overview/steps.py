"""The first steps of a new tenant: what it takes until its first mail arrives."""

from collections.abc import Sequence
from dataclasses import dataclass

from flask_babel import gettext
from sqlalchemy import select

from portal.deliveries.models import RecordedEvent
from portal.extensions import db
from portal.overview.setup import Setup

DONE, WAITING, TO_DO = "done", "waiting", "to_do"


@dataclass(frozen=True, slots=True)
class Step:
    """A step: `state` is done, waiting for somebody else, or to do. `endpoint` is the page on which it is taken."""

    name: str
    title: str
    text: str
    state: str
    endpoint: str


def of_tenant(setup: Setup, *, has_sent: bool) -> Sequence[Step]:
    """Return the four steps, none where all are done or a PBX's event has become mail: then it is no beginning."""
    steps = [_mail_server(setup), _recipients(setup), _events(setup), _key(setup)]
    return [] if has_sent or all(each.state == DONE for each in steps) else steps


def _mail_server(setup: Setup) -> Step:
    if setup.server is None:
        text = gettext("Which server sends your mail.")
    elif setup.server.is_system:
        text = gettext("The system administrator's mail server is used.")
    else:
        text = gettext("Your own: %(host)s.", host=setup.server.host)
    return Step("mail-server", gettext("Mail server"), text, DONE if setup.server else TO_DO, "mail_servers.edit")


def _recipients(setup: Setup) -> Step:
    text, state = gettext("Who gets the notifications."), TO_DO
    if setup.addresses:
        first, others = setup.addresses[0], len(setup.addresses) - 1
        more = gettext("%(address)s and %(count)s more.", address=first, count=others)
        text, state = more if others else f"{first}.", DONE
    return Step("recipients", gettext("Recipients"), text, state, "recipients.edit")


def _events(setup: Setup) -> Step:
    text, state = gettext("Which events send mail."), TO_DO
    if setup.events_on:
        text = gettext("%(on)s of %(all)s are switched on.", on=setup.events_on, all=setup.events)
        state = DONE
    return Step("events", gettext("Events"), text, state, "notifications.edit")


def _key(setup: Setup) -> Step:
    text, state = gettext("A key with which your PBX reports its events."), TO_DO
    if any(key.last_used_at for key in setup.keys) or _has_event():
        text, state = gettext("The first event has arrived."), DONE
    elif setup.keys:
        text = gettext("Key “%(name)s” is issued. Waiting for the first event.", name=setup.keys[0].name)
        state = WAITING
    return Step("key", gettext("PBX key"), text, state, "integrate.show")


def _has_event() -> bool:
    """Return whether a PBX has reported anything, and not only somebody sent samples."""
    return db.session.scalar(select(RecordedEvent.id).where(~RecordedEvent.sample).limit(1)) is not None
