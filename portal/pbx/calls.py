"""A call of a PBX: who it is, whether it may, what became of its event. A rejected one is noted for its key's owner."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from portal import config
from portal.database import enter_scope
from portal.deliveries.accept import Conflict, accept
from portal.deliveries.circumstances import Circumstances
from portal.deliveries.reports import DESCRIBED, EventReport
from portal.notifications.events import Event, FieldError, Problem, ProblemKind
from portal.pbx import keys, rejections, signatures
from portal.pbx.keys import Caller, DeadKey
from portal.pbx.rate import rate
from portal.pbx.reasons import Reason
from portal.pbx.rejections import Fold
from portal.pbx.signatures import Stamp

UNREAD = {ProblemKind.MEDIA_TYPE, ProblemKind.TOO_LARGE}  # there is no whole body that could have been signed


@dataclass(frozen=True, slots=True)
class Unneeded:
    """What a PBX reports and the portal has no use for, with a sentence that says so."""

    detail: str


@dataclass(frozen=True, slots=True)
class Call:
    """What a PBX sent: its key, its event as it was received and as it was read, its signature, and from where."""

    key: str | None = field(repr=False)
    body: bytes = field(repr=False)
    event: Event | Problem | Unneeded
    stamp: Stamp
    address: str | None
    names_tenant_apart: bool = False  # from the body, which is all that a signature covers


@dataclass(frozen=True, slots=True)
class PortsipReport:
    """What became of a PortSIP payload."""

    __pydantic_config__ = DESCRIBED

    events: tuple[EventReport, ...]
    """What became of each event in it."""
    detail: str | None
    """Why nothing of it is recorded."""

    @classmethod
    def of(cls, answers: Sequence["EventReport | Unneeded | Rejection"]) -> "PortsipReport":
        """Return the report of answers that are no rejections."""
        of_use = tuple(each for each in answers if isinstance(each, EventReport))
        return cls(of_use, next((each.detail for each in answers if isinstance(each, Unneeded)), None))


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a call is rejected: what the caller is told, what is wrong with which field, when to come again."""

    reason: Reason
    detail: str
    errors: tuple[FieldError, ...] = ()
    retry_after: int | None = None  # seconds

    @classmethod
    def of(cls, reason: Reason) -> "Rejection":
        """Return one that is always told the same."""
        return cls(reason, reason.words.told)

    @property
    def for_owner(self) -> str:
        """What the owner of the key reads beside the reason, without the id that the caller sent."""
        if self.reason is Reason.CONFLICT or self.reason.words.told:
            return ""
        return " ".join([self.detail, *(f"{each.field}: {each.message}" for each in self.errors)])


def answer(call: Call) -> EventReport | Unneeded | Rejection:
    """Return what became of the event's mails, that it is of no use, or why the call is rejected."""
    caller = keys.find(call.key, call.event) if call.key else None
    answered = _serve(call, caller) if isinstance(caller, Caller) else _turn_away(call, caller)
    if isinstance(answered, Rejection):
        _note(call, caller, answered)
    return answered


def _turn_away(call: Call, caller: DeadKey | None) -> Rejection:
    """Return the same for every caller without a live key: what it was is for the key's owner."""
    if caller:
        return Rejection.of(caller.reason)
    return Rejection.of(Reason.UNKNOWN_KEY if call.key else Reason.NO_KEY)


def _serve(call: Call, caller: Caller) -> EventReport | Unneeded | Rejection:
    event = call.event
    if isinstance(event, Problem) and event.kind in UNREAD:
        return Rejection(Reason(event.kind.value), event.detail)
    if caller.secrets and (fault := signatures.fault(call.body, call.stamp, caller.secrets)):
        return Rejection.of(fault)
    if caller.secrets and caller.owner_id is None and call.names_tenant_apart:
        sentence = "A signature does not cover the tenant in the address: use a key of the tenant's own."
        return Rejection(Reason.INVALID, sentence)
    notation = config.current().event_rate_limit
    if wait := rate(notation).wait(caller.key_id):
        return Rejection(Reason.TOO_MANY, f"This key may post {notation}.", retry_after=math.ceil(wait))
    if isinstance(event, Problem):
        return Rejection(Reason(event.kind.value), event.detail, event.errors)
    if isinstance(event, Unneeded):
        keys.note_use(caller, call.address)
        return event
    found = _circumstances(caller, event)
    if isinstance(found, Rejection):
        return found
    return _record(call, caller, found, _with_id(event, call, caller))


def _record(call: Call, caller: Caller, found: Circumstances, event: Event) -> EventReport | Rejection:
    enter_scope(found.tenant.id)
    keys.note_use(caller, call.address)
    report = accept(found, event)
    if isinstance(report, Conflict):
        detail = f"An event with the id {report.event_id} and other content was recorded before."
        return Rejection(Reason.CONFLICT, detail)
    return report


def _with_id(event: Event, call: Call, caller: Caller) -> Event:
    """Return the event with the message's id where it has none of its own: a signed call that is replayed is a repeat.

    Without a signature the header is nobody's word, and is not looked at.
    """
    return replace(event, id=call.stamp.id) if caller.secrets and event.id is None else event


def _circumstances(caller: Caller, event: Event) -> Circumstances | Rejection:
    """Return those of the event's tenant. A tenant's key learns nothing about other tenants, not even their names."""
    found = caller.circumstances
    if found is None:
        sentence = "There is no tenant with this domain." if event.tenant else "A system key must name the tenant."
        error = FieldError("tenant", sentence)
        return Rejection(Reason.INVALID, "The event does not belong to a tenant.", (error,))
    if event.tenant not in (None, found.tenant.domain):
        return Rejection.of(Reason.FOREIGN_TENANT)
    return found


def _note(call: Call, caller: Caller | DeadKey | None, rejection: Rejection) -> None:
    event = call.event
    event_type = event.kind.type if isinstance(event, Event) else getattr(event, "event_type", None)
    owner_id, key_id = (caller.owner_id, caller.key_id) if caller else (None, None)
    fold = Fold(owner_id, key_id, rejection.reason.value, event_type)
    rejections.note(fold, call.address, rejection.for_owner)
